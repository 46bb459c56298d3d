//! Audio as it travels: in its wire encoding, with its duration, never decoded on the way.

use std::{borrow::Cow, fmt, time::Duration};

#[cfg(test)]
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

/// Samples, and so bytes, a second of telephone audio: mu-law, mono.
pub const TELEPHONE_RATE: u32 = 8_000;

/// What a carrier sends at a time, and how long it lasts.
pub const FRAME: Duration = Duration::from_millis(20);

/// The mu-law byte for silence.
pub const SILENT_SAMPLE: u8 = 0xFF;

/// The shortest audio whose base64 text needs no padding and which is whole frames: 480 bytes.
/// Text is cut at multiples of it only.
const STEP: Duration = Duration::from_millis(60);
const STEP_TEXT: usize = 640;

/// One second of silence, less what is not a whole step. Three bytes of 0xFF are four slashes.
static SILENCE: [u8; 16 * STEP_TEXT] = [b'/'; 16 * STEP_TEXT];

/// Telephone audio of any length as base64 text of mu-law: a reference-counted slice of the
/// message it came in, so that a session owns it without a copy.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    text: Bytes, // Invariant: base64 with padding at the end only, so safe in a JSON string.
    duration: Duration,
}

/// Why a payload is not audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audio payload is not base64")]
pub struct NotBase64;

impl Chunk {
    /// Takes `text`, a part of `message`, as audio. Copies it only if it is not a plain part of
    /// the message, as when the sender escaped a slash.
    ///
    /// # Errors
    /// If `text` is not base64.
    pub fn within(message: &Bytes, text: Cow<'_, str>) -> Result<Self, NotBase64> {
        Self::from_text(match text {
            Cow::Borrowed(text) => message.slice_ref(text.as_bytes()),
            Cow::Owned(text) => Bytes::from(text),
        })
    }

    /// Encodes mu-law samples.
    #[cfg(test)]
    pub fn encode(samples: &[u8]) -> Self {
        Self {
            text: Bytes::from(STANDARD.encode(samples)),
            duration: duration_of(samples.len()),
        }
    }

    /// Returns silence of at least `wanted` and at most a second, in whole steps of 60 ms.
    pub fn silence(wanted: Duration) -> Self {
        let steps = wanted.as_millis().div_ceil(STEP.as_millis()).clamp(1, 16);
        let steps = usize::try_from(steps).expect("at most 16");
        Self {
            text: Bytes::from_static(&SILENCE[..steps * STEP_TEXT]),
            duration: STEP * u32::try_from(steps).expect("at most 16"),
        }
    }

    /// Returns the base64 text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Takes off the front what lasts at most `most` (but at least 60 ms), in whole frames where
    /// the rest is longer. Leaves an empty chunk when all of it fits.
    pub fn split_off_front(&mut self, most: Duration) -> Self {
        let steps = usize::try_from(most.as_millis() / STEP.as_millis()).unwrap_or(usize::MAX);
        let at = steps.max(1).saturating_mul(STEP_TEXT).min(self.text.len());
        let front = Self::measured(self.text.split_to(at));
        self.duration = self.duration.saturating_sub(front.duration);
        front
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Decodes into mu-law samples.
    #[cfg(test)]
    pub fn samples(&self) -> Vec<u8> {
        STANDARD.decode(&self.text).unwrap_or_default()
    }

    fn from_text(text: Bytes) -> Result<Self, NotBase64> {
        let body = text.strip_suffix(b"==").or(text.strip_suffix(b"="));
        let body = body.unwrap_or(&text);
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        if text.len().is_multiple_of(4) && body.iter().all(plain) {
            Ok(Self::measured(text))
        } else {
            Err(NotBase64)
        }
    }

    fn measured(text: Bytes) -> Self {
        let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
        let samples = text.len() / 4 * 3 - padding;
        Self {
            duration: duration_of(samples),
            text,
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({:?})", self.duration) // Audio is private: no byte of it in a log line.
    }
}

/// Returns how long `samples` of telephone audio last.
pub fn duration_of(samples: usize) -> Duration {
    Duration::from_micros(samples as u64 * 1_000_000 / u64::from(TELEPHONE_RATE))
}

/// Returns how many samples of telephone audio `duration` spans.
pub fn samples_in(duration: Duration) -> usize {
    usize::try_from(duration.as_micros() * u128::from(TELEPHONE_RATE) / 1_000_000)
        .unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_from_its_message_without_a_copy() {
        let message = Bytes::from(format!(r#"{{"payload":"{}"}}"#, "A".repeat(212) + "AAA="));
        let text = std::str::from_utf8(&message[12..228]).unwrap();
        let chunk = Chunk::within(&message, Cow::Borrowed(text)).unwrap();
        assert_eq!(chunk.text().as_ptr(), message[12..].as_ptr());
        assert_eq!(chunk.duration(), Duration::from_micros(161 * 125));
    }

    #[test]
    fn what_could_break_out_of_a_json_string_is_not_audio() {
        for text in [
            "\"", "AA\"A", "AA=A", "AAA", "A===", "AAAA====", "AA\\A", "ש×",
        ] {
            let message = Bytes::from(text.to_owned());
            let taken = Chunk::within(&message, Cow::Owned(text.to_owned()));
            assert_eq!(taken, Err(NotBase64), "{text}");
        }
    }

    #[test]
    fn a_long_chunk_comes_apart_into_pieces_that_decode_to_the_same_samples() {
        let samples: Vec<u8> = (0..20_000_usize)
            .map(|i| u8::try_from(i % 251).unwrap())
            .collect();
        let mut rest = Chunk::encode(&samples);
        let whole = rest.duration();
        let (mut heard, mut lasted) = (Vec::new(), Duration::ZERO);
        while !rest.is_empty() {
            let piece = rest.split_off_front(Duration::from_millis(500));
            assert!(piece.duration() <= Duration::from_millis(500));
            lasted += piece.duration();
            heard.extend(piece.samples());
        }
        assert_eq!(heard, samples);
        assert_eq!(lasted, whole);
    }

    #[test]
    fn silence_is_silent_and_as_long_as_asked() {
        let silence = Chunk::silence(Duration::from_millis(100));
        assert_eq!(silence.duration(), Duration::from_millis(120));
        assert!(
            silence
                .samples()
                .iter()
                .all(|&sample| sample == SILENT_SAMPLE)
        );
        assert_eq!(silence.samples().len(), 960);
    }
}
