//! Audio as it travels: in its wire encoding, with its duration, never decoded on the way.

use std::{borrow::Cow, fmt, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// Samples, and so bytes, a second of telephone audio: mu-law, mono.
pub const TELEPHONE_RATE: u32 = 8_000;

/// What a carrier sends at a time, and how long it lasts.
pub const FRAME: Duration = Duration::from_millis(20);

/// The mu-law byte for silence.
pub const SILENT_SAMPLE: u8 = 0xFF;

/// The shortest audio whose base64 text needs no padding and which is whole frames, in every
/// encoding. Text is cut at multiples of it only.
const STEP: Duration = Duration::from_millis(60);
/// How many steps of silence there are in one piece at most: one second, less what is not whole.
const STEPS: usize = 16;

/// Silence as base64 text: three bytes of 0xFF are four slashes, three of 0 are four As.
static MULAW_SILENCE: [u8; STEPS * Encoding::Mulaw.step_text()] =
    [b'/'; STEPS * Encoding::Mulaw.step_text()];
static PCM_SILENCE: [u8; STEPS * Encoding::Pcm24k.step_text()] =
    [b'A'; STEPS * Encoding::Pcm24k.step_text()];

/// How samples are written; always one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Telephone audio: mu-law at 8 kHz.
    Mulaw,
    /// Signed 16 bits, little-endian, at 16 kHz.
    Pcm16k,
    /// Signed 16 bits, little-endian, at 24 kHz.
    Pcm24k,
}

/// Audio of any length as base64 text: a reference-counted slice of the message it came in, so
/// that a session owns it without a copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    text: Bytes, // Invariant: base64 with padding at the end only, so safe in a JSON string.
    encoding: Encoding,
    duration: Duration,
}

/// Why a payload is not audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAudio {
    #[error("the audio payload is not base64")]
    NotBase64,
    #[error("the audio payload ends within a sample")]
    OddLength,
}

impl Encoding {
    /// Returns how many samples a second has.
    pub const fn rate(self) -> u32 {
        match self {
            Self::Mulaw => TELEPHONE_RATE,
            Self::Pcm16k => 16_000,
            Self::Pcm24k => 24_000,
        }
    }

    /// Returns how many bytes a sample has.
    pub const fn width(self) -> usize {
        match self {
            Self::Mulaw => 1,
            Self::Pcm16k | Self::Pcm24k => 2,
        }
    }

    /// Returns how long so many bytes last.
    pub fn duration_of(self, bytes: usize) -> Duration {
        let samples = (bytes / self.width()) as u64;
        Duration::from_micros(samples * 1_000_000 / u64::from(self.rate()))
    }

    /// Returns how many bytes `duration` takes, in whole samples.
    pub fn bytes_of(self, duration: Duration) -> usize {
        let samples = duration.as_micros() * u128::from(self.rate()) / 1_000_000;
        usize::try_from(samples).map_or(usize::MAX, |samples| samples.saturating_mul(self.width()))
    }

    /// Returns how many characters of base64 a step takes.
    const fn step_text(self) -> usize {
        let bytes = self.rate() as usize * self.width() * STEP.as_millis() as usize / 1_000;
        bytes / 3 * 4
    }

    fn silence(self) -> &'static [u8] {
        match self {
            Self::Mulaw => &MULAW_SILENCE,
            Self::Pcm16k | Self::Pcm24k => &PCM_SILENCE,
        }
    }
}

impl Chunk {
    /// Takes `text`, a part of `message`, as audio. Copies it only if it is not a plain part of
    /// the message, as when the sender escaped a slash.
    ///
    /// # Errors
    /// If `text` is not base64 of whole samples.
    pub fn within(
        message: &Bytes,
        text: Cow<'_, str>,
        encoding: Encoding,
    ) -> Result<Self, NotAudio> {
        let text = match text {
            Cow::Borrowed(text) => message.slice_ref(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        };
        Self::from_text(text, encoding)
    }

    /// Encodes samples, which are whole.
    pub fn encode(samples: &[u8], encoding: Encoding) -> Self {
        Self {
            text: Bytes::from(STANDARD.encode(samples)),
            duration: encoding.duration_of(samples.len()),
            encoding,
        }
    }

    /// Returns silence of at least `wanted` and at most a second, in whole steps of 60 ms.
    pub fn silence(wanted: Duration, encoding: Encoding) -> Self {
        let steps = wanted.as_millis().div_ceil(STEP.as_millis());
        let steps = steps.clamp(1, STEPS as u128);
        let steps = u32::try_from(steps).expect("at most 16");
        Self {
            text: Bytes::from_static(&encoding.silence()[..steps as usize * encoding.step_text()]),
            duration: STEP * steps,
            encoding,
        }
    }

    /// Returns the base64 text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Takes off the front what lasts at most `most` (but at least 60 ms), in whole frames where
    /// the rest is longer. Leaves an empty chunk when all of it fits.
    pub fn split_off_front(&mut self, most: Duration) -> Self {
        let steps = usize::try_from(most.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
        let at = steps.max(1).saturating_mul(self.encoding.step_text());
        let front = self.text.split_to(at.min(self.text.len()));
        let front = Self::measured(front, self.encoding);
        self.duration = self.duration.saturating_sub(front.duration);
        front
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Decodes into the bytes of its samples.
    pub fn samples(&self) -> Vec<u8> {
        STANDARD.decode(&self.text).unwrap_or_default()
    }

    fn from_text(text: Bytes, encoding: Encoding) -> Result<Self, NotAudio> {
        let body = text.strip_suffix(b"==").or(text.strip_suffix(b"="));
        let body = body.unwrap_or(&text);
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() | matches!(byte, b'+' | b'/');
        // Every byte is looked at, whatever the ones before: a loop that may not stop is done in
        // vectors, ten times as fast.
        let all_plain = body.iter().fold(true, |all, byte| all & plain(byte));
        if !(text.len().is_multiple_of(4) && all_plain) {
            return Err(NotAudio::NotBase64);
        }
        if !bytes_in(&text).is_multiple_of(encoding.width()) {
            return Err(NotAudio::OddLength);
        }
        Ok(Self::measured(text, encoding))
    }

    fn measured(text: Bytes, encoding: Encoding) -> Self {
        Self {
            duration: encoding.duration_of(bytes_in(&text)),
            text,
            encoding,
        }
    }
}

/// Returns how many bytes base64 text stands for.
fn bytes_in(text: &[u8]) -> usize {
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    text.len() / 4 * 3 - padding
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({:?})", self.duration) // Audio is private: no byte of it in a log line.
    }
}

/// Returns how long `samples` of telephone audio last.
pub fn duration_of(samples: usize) -> Duration {
    Encoding::Mulaw.duration_of(samples)
}

/// Returns how many samples of telephone audio `duration` spans.
pub fn samples_in(duration: Duration) -> usize {
    usize::try_from(duration.as_micros() * u128::from(TELEPHONE_RATE) / 1_000_000)
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Mulaw, Encoding::Pcm16k, Encoding::Pcm24k];

    #[test]
    fn a_frame_is_taken_from_its_message_without_a_copy() {
        let message = Bytes::from(format!(r#"{{"payload":"{}"}}"#, "A".repeat(212) + "AAA="));
        let text = std::str::from_utf8(&message[12..228]).unwrap();
        let chunk = Chunk::within(&message, Cow::Borrowed(text), Encoding::Mulaw).unwrap();
        assert_eq!(chunk.text().as_ptr(), message[12..].as_ptr());
        assert_eq!(chunk.duration(), Duration::from_micros(161 * 125));
    }

    #[test]
    fn what_could_break_out_of_a_json_string_is_not_audio() {
        for text in [
            "\"", "AA\"A", "AA=A", "AAA", "A===", "AAAA====", "AA\\A", "ש×",
        ] {
            let message = Bytes::from(text.to_owned());
            let taken = Chunk::within(&message, Cow::Owned(text.to_owned()), Encoding::Mulaw);
            assert_eq!(taken, Err(NotAudio::NotBase64), "{text}");
        }
    }

    #[test]
    fn half_a_sample_is_not_audio() {
        let taken = |encoding| Chunk::within(&Bytes::new(), Cow::Owned("AAAA".into()), encoding);
        assert!(taken(Encoding::Mulaw).is_ok());
        assert_eq!(taken(Encoding::Pcm24k), Err(NotAudio::OddLength));
    }

    #[test]
    fn a_frame_lasts_20_ms_in_every_encoding() {
        for (encoding, bytes) in [(ALL[0], 160), (ALL[1], 640), (ALL[2], 960)] {
            let frame = Chunk::encode(&vec![7; bytes], encoding);
            assert_eq!(frame.duration(), FRAME, "{encoding:?}");
            assert_eq!(encoding.bytes_of(FRAME), bytes, "{encoding:?}");
            assert_eq!(frame.encoding(), encoding);
        }
    }

    #[test]
    fn a_long_chunk_comes_apart_into_pieces_that_decode_to_the_same_samples() {
        let samples: Vec<u8> = (0..200_000_usize)
            .map(|i| u8::try_from(i % 251).unwrap())
            .collect();
        for encoding in ALL {
            let mut rest = Chunk::encode(&samples, encoding);
            let whole = rest.duration();
            let (mut heard, mut lasted) = (Vec::new(), Duration::ZERO);
            while !rest.is_empty() {
                let piece = rest.split_off_front(Duration::from_millis(500));
                assert!(piece.duration() <= Duration::from_millis(500));
                lasted += piece.duration();
                heard.extend(piece.samples());
            }
            assert_eq!(heard, samples);
            assert!(whole.abs_diff(lasted) <= Duration::from_micros(1)); // Each piece is rounded.
        }
    }

    #[test]
    fn silence_is_silent_and_as_long_as_asked() {
        for (encoding, silent) in [(ALL[0], SILENT_SAMPLE), (ALL[1], 0), (ALL[2], 0)] {
            let silence = Chunk::silence(Duration::from_millis(100), encoding);
            assert_eq!(silence.duration(), Duration::from_millis(120));
            let samples = silence.samples();
            assert!(samples.iter().all(|&sample| sample == silent));
            assert_eq!(encoding.duration_of(samples.len()), silence.duration());
            let second = Chunk::silence(Duration::MAX, encoding);
            assert_eq!(second.duration(), Duration::from_millis(960));
        }
    }
}
