//! A prompt's file, held to what carriers play.

use std::sync::Arc;

use bytes::Bytes;

/// Samples a second of every prompt. ACS plays no others.
pub const PROMPT_RATE: u32 = 16_000;

/// The longest prompt, in seconds: a caller who is turned away listens to no more.
pub const LONGEST: u32 = 60;

/// The largest file that is read, in bytes: the longest prompt is 1.92 MB, the rest is for what
/// programs write beside the sound.
pub const LARGEST: u64 = 2 * 1024 * 1024;

/// The one shape that ACS plays.
pub const WANTED: hound::WavSpec = hound::WavSpec {
    channels: 1,
    sample_rate: PROMPT_RATE,
    bits_per_sample: 16,
    sample_format: hound::SampleFormat::Int,
};

/// A WAV file that carriers play, and what is in it. Copies share it.
#[derive(Clone)]
pub struct Sound {
    pub wav: Bytes,
    pub samples: Arc<[i16]>,
}

/// Why a file is no prompt.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("it is no WAV file that can be read ({0})")]
    NoWav(#[from] hound::Error),
    #[error("it is {0}, and has to be 16-bit PCM, mono, {PROMPT_RATE} Hz")]
    Shape(String),
    #[error("it is empty")]
    Empty,
    #[error("it is longer than {LONGEST} s")]
    TooLong,
    #[error("it is larger than {LARGEST} bytes")]
    TooLarge,
}

impl Sound {
    /// Takes `wav`, the content of a file.
    ///
    /// # Errors
    /// If it is not such a file.
    pub fn read(wav: Bytes) -> Result<Self, Unfit> {
        let mut reader = hound::WavReader::new(wav.as_ref())?;
        let spec = reader.spec();
        if spec != WANTED {
            return Err(Unfit::Shape(described(spec)));
        }
        if reader.duration() == 0 {
            return Err(Unfit::Empty);
        }
        if reader.duration() > LONGEST * PROMPT_RATE {
            return Err(Unfit::TooLong);
        }
        if wav.len() as u64 > LARGEST {
            return Err(Unfit::TooLarge);
        }
        let samples = reader.samples().collect::<Result<_, _>>()?;
        Ok(Self { wav, samples })
    }
}

fn described(spec: hound::WavSpec) -> String {
    let kind = match spec.sample_format {
        hound::SampleFormat::Int => "PCM",
        hound::SampleFormat::Float => "float",
    };
    let channels = match spec.channels {
        1 => "mono".to_owned(),
        2 => "stereo".to_owned(),
        many => format!("{many} channels"),
    };
    let (bits, rate) = (spec.bits_per_sample, spec.sample_rate);
    format!("{bits}-bit {kind}, {channels}, {rate} Hz")
}
