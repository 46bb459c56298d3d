//! Audio that tells which frame of which call it is and when it left.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use callgate_benches::acs::Format;

/// How long a frame lasts.
pub const FRAME: Duration = Duration::from_millis(20);
pub const FRAMES_PER_SECOND: u32 = 50;
/// Bytes of the longest frame.
pub const LONGEST_FRAME: usize = 960;
/// Bytes of a frame of mu-law at 8 kHz.
const MULAW_BYTES: usize = 160;

/// Silence, in mu-law.
const SILENCE: u8 = 0xff;

/// How loud a stamp is in 16-bit audio, and what is too quiet to be one.
const LOUD: i16 = 8_000;
const QUIET: u16 = 4_000;

static BEGINNING: LazyLock<Instant> = LazyLock::new(now);

/// How audio is encoded, and how late it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audio {
    /// Bytes that have to come back as they were.
    Mulaw,
    /// Samples that may be resampled on their way.
    Pcm {
        format: Format,
        /// In samples: resamplers take their time.
        late: usize,
    },
}

/// Which frame this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub call: u16,
    /// Counted from 0 in each call.
    pub number: u32,
    /// Since the process first asked. In microseconds where audio may be resampled.
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

impl Audio {
    /// Returns how many bytes a frame has.
    pub fn frame_bytes(self) -> usize {
        match self {
            Self::Mulaw => MULAW_BYTES,
            Self::Pcm { format, .. } => usize::from(format.rate()) / 50 * 2,
        }
    }

    /// Returns for how many samples each bit of a stamp is heard. A bit has to outlast what a
    /// filter cuts off; and the end of each frame stays silent, so that a stamp that comes late is
    /// still whole within its frame.
    fn samples_per_bit(format: Format) -> usize {
        match format {
            Format::Pcm24k => 4,
            Format::Pcm16k => 3,
        }
    }

    /// Tells whether a frame is silent: a gateway puts silence where callers have stopped sending.
    fn is_silent(self, frame: &[u8]) -> bool {
        match self {
            Self::Mulaw => frame.iter().all(|byte| *byte == SILENCE),
            Self::Pcm { .. } => samples(frame).all(|sample| sample.unsigned_abs() < QUIET),
        }
    }
}

impl Stamp {
    /// Makes the frame, in the front of `frame`.
    pub fn write(self, audio: Audio, frame: &mut [u8; LONGEST_FRAME]) -> &[u8] {
        let frame = &mut frame[..audio.frame_bytes()];
        match audio {
            Audio::Mulaw => self.write_bytes(frame),
            Audio::Pcm { format, .. } => self.write_tones(frame, Audio::samples_per_bit(format)),
        }
        frame
    }

    /// Reads a frame of audio, or returns `None` if it is none of ours.
    pub fn read(audio: Audio, frame: &[u8]) -> Option<Self> {
        match audio {
            Audio::Mulaw => Self::read_bytes(frame),
            Audio::Pcm { format, late } => {
                Self::read_tones(frame.get(late * 2..)?, Audio::samples_per_bit(format))
            }
        }
    }

    fn write_bytes(self, frame: &mut [u8]) {
        frame.fill(SILENCE);
        frame[..2].copy_from_slice(b"fr");
        frame[2..4].copy_from_slice(&self.call.to_be_bytes());
        frame[4..8].copy_from_slice(&self.number.to_be_bytes());
        let sent = u64::try_from(self.sent.as_nanos()).expect("a bench ends within centuries");
        frame[8..16].copy_from_slice(&sent.to_be_bytes());
    }

    fn read_bytes(frame: &[u8]) -> Option<Self> {
        let (head, silence) = frame.split_at_checked(16)?;
        if !head.starts_with(b"fr") || silence.iter().any(|byte| *byte != SILENCE) {
            return None;
        }
        Some(Self {
            call: u16::from_be_bytes(*head[2..].first_chunk()?),
            number: u32::from_be_bytes(*head[4..].first_chunk()?),
            sent: Duration::from_nanos(u64::from_be_bytes(*head[8..].first_chunk()?)),
        })
    }

    /// Writes each bit as a loud stretch above or below zero.
    fn write_tones(self, frame: &mut [u8], samples_per_bit: usize) {
        frame.fill(0);
        let number = u16::try_from(self.number).expect("a run ends within 20 minutes");
        let sent = u64::try_from(self.sent.as_micros()).expect("a bench ends within centuries");
        let mut code = [0; 10];
        code[..2].copy_from_slice(&self.call.to_be_bytes());
        code[2..4].copy_from_slice(&number.to_be_bytes());
        code[4..9].copy_from_slice(&sent.to_be_bytes()[3..]);
        code[9] = check(&code[..9]);
        let bits = code
            .iter()
            .flat_map(|byte| (0..8).map(move |at| byte >> at & 1 == 1));
        for (bit, stretch) in bits.zip(frame.chunks_exact_mut(2 * samples_per_bit)) {
            let sample = if bit { LOUD } else { -LOUD };
            for bytes in stretch.as_chunks_mut().0 {
                *bytes = sample.to_le_bytes();
            }
        }
    }

    fn read_tones(frame: &[u8], samples_per_bit: usize) -> Option<Self> {
        let mut stretches = frame.chunks_exact(2 * samples_per_bit);
        let mut code = [0; 10];
        for byte in &mut code {
            for at in 0..8 {
                let sum: i32 = samples(stretches.next()?).map(i32::from).sum();
                *byte |= u8::from(0 < sum) << at;
            }
        }
        let (call, rest) = code.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (sent, sum) = rest.split_first_chunk::<5>()?;
        let mut micros = [0; 8];
        micros[3..].copy_from_slice(sent);
        (*sum == [check(&code[..9])]).then(|| Self {
            call: u16::from_be_bytes(*call),
            number: u16::from_be_bytes(*number).into(),
            sent: Duration::from_micros(u64::from_be_bytes(micros)),
        })
    }
}

/// Returns a sum by which what is no stamp is told.
fn check(code: &[u8]) -> u8 {
    let next = |sum: u8, byte: &u8| sum.rotate_left(3) ^ byte;
    code.iter().fold(0xa5, next)
}

fn samples(bytes: &[u8]) -> impl Iterator<Item = i16> {
    let (pairs, _) = bytes.as_chunks();
    pairs.iter().copied().map(i16::from_le_bytes)
}

/// Cuts the audio of one call into frames, however it was put together on its way.
pub struct Cutter {
    audio: Audio,
    waiting: Vec<u8>,
}

impl Cutter {
    pub fn new(audio: Audio) -> Self {
        Self {
            audio,
            waiting: Vec::new(),
        }
    }

    /// Takes base64 text and hands every whole frame to `heard`, as `None` if it is not ours.
    pub fn hear_text(&mut self, text: &str, mut heard: impl FnMut(Option<Stamp>)) {
        if STANDARD.decode_vec(text, &mut self.waiting).is_err() {
            heard(None);
        }
        self.cut(heard);
    }

    /// Takes audio as it is, and does the same.
    pub fn hear_bytes(&mut self, bytes: &[u8], heard: impl FnMut(Option<Stamp>)) {
        self.waiting.extend_from_slice(bytes);
        self.cut(heard);
    }

    fn cut(&mut self, mut heard: impl FnMut(Option<Stamp>)) {
        let frames = self.waiting.chunks_exact(self.audio.frame_bytes());
        let rest = frames.remainder().len();
        for frame in frames.filter(|frame| !self.audio.is_silent(frame)) {
            heard(Stamp::read(self.audio, frame));
        }
        self.waiting.drain(..self.waiting.len() - rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PCM: [Audio; 3] = [
        pcm(Format::Pcm24k, 0),
        pcm(Format::Pcm16k, 0),
        pcm(Format::Pcm16k, 50),
    ];

    const fn pcm(format: Format, late: usize) -> Audio {
        Audio::Pcm { format, late }
    }

    #[test]
    fn frames_are_recognized_however_they_are_cut() {
        for audio in [Audio::Mulaw, PCM[0], PCM[1], PCM[2]] {
            let stamps = [(1, 7), (1, 8), (300, 33_010)].map(|(call, number)| Stamp {
                call,
                number,
                sent: Duration::from_micros(123_456_789_012),
            });
            let mut said = Vec::new();
            if let Audio::Pcm { late, .. } = audio {
                said.resize(late * 2, 0);
            }
            for stamp in stamps {
                said.extend_from_slice(stamp.write(audio, &mut [0; LONGEST_FRAME]));
            }
            for size in [160, 320, 100] {
                let (mut cutter, mut heard) = (Cutter::new(audio), Vec::new());
                for piece in said.chunks(size) {
                    cutter.hear_text(&STANDARD.encode(piece), |stamp| heard.push(stamp));
                }
                assert_eq!(heard, stamps.map(Some), "in pieces of {size} bytes");
                let (mut cutter, mut heard) = (Cutter::new(audio), Vec::new());
                cutter.hear_bytes(&said, |stamp| heard.push(stamp));
                assert_eq!(heard, stamps.map(Some));
            }
        }
    }

    #[test]
    fn silence_and_noise_are_none_of_ours() {
        assert_eq!(Stamp::read(Audio::Mulaw, &[SILENCE; MULAW_BYTES]), None);
        assert_eq!(Stamp::read(Audio::Mulaw, &[0; MULAW_BYTES]), None);
        assert!(PCM[0].is_silent(&[0; 960]));
        for audio in PCM {
            let noise: Vec<u8> = (0..=250).cycle().take(audio.frame_bytes()).collect();
            assert!(!audio.is_silent(&noise));
            assert_eq!(Stamp::read(audio, &noise), None);
        }
    }
}
