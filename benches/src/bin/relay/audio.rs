//! Audio that tells which frame of which call it is and when it left.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};

/// How long a frame lasts, in time and in bytes of mu-law at 8 kHz.
pub const FRAME: Duration = Duration::from_millis(20);
pub const FRAME_BYTES: usize = 160;
pub const FRAMES_PER_SECOND: u32 = 50;

/// Silence, in mu-law.
const SILENCE: u8 = 0xff;

static BEGINNING: LazyLock<Instant> = LazyLock::new(now);

/// Which frame this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub call: u16,
    /// Counted from 0 in each call.
    pub number: u32,
    /// Since the process first asked.
    pub sent: Duration,
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
pub fn now() -> Instant {
    Instant::now()
}

/// Returns the time that stamps are in.
pub fn elapsed() -> Duration {
    now().duration_since(*BEGINNING)
}

impl Stamp {
    /// Appends the frame as base64 to `out`.
    pub fn write(self, out: &mut String) {
        let mut frame = [SILENCE; FRAME_BYTES];
        frame[..2].copy_from_slice(b"fr");
        frame[2..4].copy_from_slice(&self.call.to_be_bytes());
        frame[4..8].copy_from_slice(&self.number.to_be_bytes());
        let sent = u64::try_from(self.sent.as_nanos()).expect("a bench ends within centuries");
        frame[8..16].copy_from_slice(&sent.to_be_bytes());
        STANDARD.encode_string(frame, out);
    }

    /// Reads a frame of audio, or returns `None` if it is none of ours.
    pub fn read(frame: &[u8; FRAME_BYTES]) -> Option<Self> {
        let (head, silence) = frame.split_at(16);
        if !head.starts_with(b"fr") || silence.iter().any(|byte| *byte != SILENCE) {
            return None;
        }
        Some(Self {
            call: u16::from_be_bytes(*head[2..].first_chunk()?),
            number: u32::from_be_bytes(*head[4..].first_chunk()?),
            sent: Duration::from_nanos(u64::from_be_bytes(*head[8..].first_chunk()?)),
        })
    }
}

/// Cuts the audio of one call into frames, however it was put together on its way.
#[derive(Default)]
pub struct Cutter(Vec<u8>);

impl Cutter {
    /// Takes base64 text and hands every whole frame to `heard`, as `None` if it is not ours.
    /// Silence counts for nothing: a gateway puts it where callers have stopped sending.
    pub fn hear(&mut self, audio: &str, mut heard: impl FnMut(Option<Stamp>)) {
        if STANDARD.decode_vec(audio, &mut self.0).is_err() {
            heard(None);
        }
        let (frames, rest) = self.0.as_chunks();
        for frame in frames
            .iter()
            .filter(|frame| **frame != [SILENCE; FRAME_BYTES])
        {
            heard(Stamp::read(frame));
        }
        let rest = rest.len();
        self.0.drain(..self.0.len() - rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_recognized_however_they_are_cut() {
        let stamps = [(1, 7), (1, 8), (300, 90_000)].map(|(call, number)| Stamp {
            call,
            number,
            sent: Duration::from_nanos(123_456_789),
        });
        let mut audio = Vec::new();
        for stamp in stamps {
            let mut text = String::new();
            stamp.write(&mut text);
            assert_eq!(text.len(), 216);
            STANDARD.decode_vec(text, &mut audio).unwrap();
        }
        for size in [160, 320, 100] {
            let (mut cutter, mut heard) = (Cutter::default(), Vec::new());
            for piece in audio.chunks(size) {
                cutter.hear(&STANDARD.encode(piece), |stamp| heard.push(stamp));
            }
            assert_eq!(heard, stamps.map(Some), "in pieces of {size} bytes");
        }
    }

    #[test]
    fn silence_and_noise_are_none_of_ours() {
        assert_eq!(Stamp::read(&[SILENCE; FRAME_BYTES]), None);
        assert_eq!(Stamp::read(&[0; FRAME_BYTES]), None);
    }
}
