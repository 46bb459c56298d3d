//! The mouths of all callers: a frame every 20 ms from each, spread evenly over that time.

use std::io;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use callgate_benches::frame::{self, Masks, Opcode};
use callgate_benches::link;
use hdrhistogram::Histogram;

use crate::audio::{Audio, FRAME, LONGEST_FRAME, Stamp, elapsed, now};
use crate::exchange::{Reply, histogram};
use crate::line::Voice;
use crate::process::Times;

/// How much may wait for a gateway that takes nothing, in bytes, before frames are lost.
const LONGEST_BACKLOG: usize = 256 * 1024;

/// One caller's half of the media socket that is written to. Nobody else writes to it.
pub struct Mouth {
    voice: Voice,
    audio: Audio,
    stream: TcpStream,
    /// Of the next message, where messages are counted.
    sequence: u32,
    /// What the socket did not take.
    backlog: Vec<u8>,
    is_broken: bool,
}

impl Mouth {
    pub fn new(voice: Voice, audio: Audio, stream: TcpStream) -> Self {
        Self {
            voice,
            audio,
            stream,
            sequence: 2, // `start` was the first.
            backlog: Vec::new(),
            is_broken: false,
        }
    }

    fn send(&mut self, opcode: Opcode, masks: &mut Masks, parts: &[&[u8]]) {
        if self.is_broken || LONGEST_BACKLOG < self.backlog.len() {
            return;
        }
        self.sequence += 1;
        let mask = Some(masks.next_mask());
        frame::append(&mut self.backlog, opcode, mask, parts);
        self.is_broken = self.flush().is_err();
    }

    fn flush(&mut self) -> io::Result<()> {
        let taken = link::write(&mut self.stream, &self.backlog)?;
        self.backlog.drain(..taken);
        Ok(())
    }
}

/// What talking came to.
pub struct Talked {
    pub mouths: Vec<Mouth>,
    /// How late the frames that count were sent, in nanoseconds.
    pub late: Histogram<u64>,
    /// How much of a core it took.
    pub running: Duration,
}

/// Talks in all calls until each has sent `frames`, on a thread of its own.
pub fn talk(
    mut mouths: Vec<Mouth>,
    replies: &Receiver<(u16, Reply)>,
    began: Instant,
    frames: u32,
    counted: &Range<u32>,
) -> anyhow::Result<Talked> {
    let mut masks = Masks::default();
    let mut late = histogram();
    let (mut text, mut frame) = (String::new(), [0; LONGEST_FRAME]);
    let calls = u16::try_from(mouths.len()).expect("calls are counted in 16 bits");
    for number in 0..frames {
        for call in 0..calls {
            let due = began + FRAME * number + FRAME * u32::from(call) / u32::from(calls);
            if let Some(early) = due.checked_duration_since(now()) {
                thread::sleep(early);
            }
            while let Ok((call, reply)) = replies.try_recv() {
                mouths[usize::from(call)].reply(&reply, &mut masks);
            }
            let mouth = &mut mouths[usize::from(call)];
            let sent = elapsed();
            if counted.contains(&number) {
                let lateness = now().saturating_duration_since(due).as_nanos();
                late.saturating_record(u64::try_from(lateness).unwrap_or(u64::MAX));
            }
            let stamp = Stamp { call, number, sent };
            let (audio, sequence) = (mouth.audio, mouth.sequence);
            let said = mouth
                .voice
                .say(audio, stamp, sequence, &mut text, &mut frame);
            mouth.send(said.0, &mut masks, &said.1);
        }
    }
    Ok(Talked {
        mouths,
        late,
        running: Times::of_this_thread()?.running,
    })
}

/// Hangs up as each carrier does: with Twilio `stop`, then the end of the socket.
pub fn hang_up(mouths: Vec<Mouth>) {
    let mut masks = Masks::default();
    for mut mouth in mouths {
        if let Voice::Twilio(side) = &mouth.voice {
            let stop = side.stop(mouth.sequence);
            mouth.send(Opcode::Text, &mut masks, &[stop.as_bytes()]);
        }
        mouth.send(Opcode::Close, &mut masks, &[&1000_u16.to_be_bytes()]);
    }
}

impl Mouth {
    fn reply(&mut self, reply: &Reply, masks: &mut Masks) {
        match reply {
            Reply::Mark(name) => {
                if let Voice::Twilio(side) = &self.voice {
                    let mark = side.mark(self.sequence, name);
                    self.send(Opcode::Text, masks, &[mark.as_bytes()]);
                }
            }
            Reply::Pong(payload) => self.send(Opcode::Pong, masks, &[payload]),
        }
    }
}
