//! What callers say: sentences and line noise, cut into frames that are ready to be sent.
//!
//! The shipped sentences are rendered by `scripts/render-voices`.

use std::{
    io,
    ops::Range,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use audio_codec_algorithms::{decode_ulaw, encode_ulaw};
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::resample::resample;
use crate::{
    chunk::{Encoding, FRAME, TELEPHONE_RATE},
    resample::Resampler,
};

/// Root mean square of the noise on the line: -55 dBFS.
const NOISE: f32 = 0.001_778;

/// Frames of noise; more than a second, so that no hum is heard from repeating them.
const NOISE_FRAMES: usize = 64;

/// Linear amplitude above which a sample is a sound: -40 dBFS, well above the noise.
const AUDIBLE: u16 = 328;

/// The longest file a caller reads out.
const LONGEST_FILE: usize = 600 * TELEPHONE_RATE as usize;

const SHIPPED: [(&str, &[u8]); 6] = [
    (
        "שלום, רציתי לדעת מה שעות הפתיחה שלכם.",
        include_bytes!("voices/he-hours.wav"),
    ),
    (
        "Hello, could you tell me your opening hours, please?",
        include_bytes!("voices/en-hours.wav"),
    ),
    (
        "אפשר לקבוע תור למחר בבוקר, בבקשה?",
        include_bytes!("voices/he-booking.wav"),
    ),
    (
        "I would like to book a table for four people tomorrow evening.",
        include_bytes!("voices/en-booking.wav"),
    ),
    (
        "תודה. אני רוצה לדבר עם נציג.",
        include_bytes!("voices/he-agent.wav"),
    ),
    (
        "Where is my order? It was due on Monday.",
        include_bytes!("voices/en-order.wav"),
    ),
];

/// What callers can say, on lines of any encoding.
pub struct Voices {
    /// Samples at the telephone's rate, within ±1: no line that ends in a phone carries more.
    spoken: Vec<(String, Vec<f32>)>,
    seed: u64,
    /// Made when the first call of an encoding needs it.
    mulaw: OnceLock<Arc<Repertoire>>,
    pcm16k: OnceLock<Arc<Repertoire>>,
    pcm24k: OnceLock<Arc<Repertoire>>,
}

/// All that callers can say on lines of one encoding.
pub struct Repertoire {
    pub sentences: Vec<Sentence>,
    pub noise: Vec<Frame>,
}

pub struct Sentence {
    pub text: String,
    pub frames: Vec<Frame>,
}

/// 20 ms of audio, and the same as base64 text.
pub struct Frame {
    pub samples: Box<[u8]>,
    pub text: String,
}

/// Why a WAV file cannot be read out.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    #[error("the WAV file cannot be read")]
    Unreadable(#[from] hound::Error),
    #[error("a WAV file of {channels} channels at {rate} Hz: 1 or 2 at 8000 to 48000 Hz is needed")]
    Unusual { channels: u16, rate: u32 },
    #[error("the WAV file is empty or longer than ten minutes")]
    Length,
}

impl Voices {
    /// Takes the shipped sentences.
    pub fn shipped(seed: u64) -> Self {
        let read = |(text, wav): (&str, &[u8])| {
            let samples = read_wav(wav).expect("the tests read all shipped files");
            (text.to_owned(), samples)
        };
        Self::new(SHIPPED.into_iter().map(read).collect(), seed)
    }

    /// Takes what `file` says.
    ///
    /// # Errors
    /// If `file` is not a PCM WAV file of ordinary shape.
    pub fn from_file(file: &Path, seed: u64) -> Result<Self, WavError> {
        let wav = io::BufReader::new(std::fs::File::open(file).map_err(hound::Error::IoError)?);
        let text = file.display().to_string();
        Ok(Self::new(vec![(text, read_wav(wav)?)], seed))
    }

    /// The shipped ones, made once for all tests of a process: it takes a second without
    /// optimisation, in which a test's other tasks wait.
    #[cfg(test)]
    pub fn of_tests() -> Arc<Self> {
        static MADE: OnceLock<Arc<Voices>> = OnceLock::new();
        Arc::clone(MADE.get_or_init(|| Arc::new(Self::shipped(1))))
    }

    fn new(spoken: Vec<(String, Vec<f32>)>, seed: u64) -> Self {
        Self {
            spoken,
            seed,
            mulaw: OnceLock::new(),
            pcm16k: OnceLock::new(),
            pcm24k: OnceLock::new(),
        }
    }

    /// Returns them as frames that are ready to be sent. The first call of an encoding takes a
    /// while.
    pub fn encoded(&self, encoding: Encoding) -> Arc<Repertoire> {
        let once = match encoding {
            Encoding::Mulaw => &self.mulaw,
            Encoding::Pcm16k => &self.pcm16k,
            Encoding::Pcm24k => &self.pcm24k,
        };
        let make = || Arc::new(Repertoire::new(&self.spoken, encoding, self.seed));
        Arc::clone(once.get_or_init(make))
    }
}

impl Repertoire {
    fn new(spoken: &[(String, Vec<f32>)], encoding: Encoding, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let frame = encoding.bytes_of(FRAME) / encoding.width();
        let sentences = spoken.iter().map(|(text, samples)| Sentence {
            text: text.clone(),
            frames: at_rate(samples, encoding.rate())
                .chunks(frame)
                .map(|samples| Frame::on_the_line(samples, encoding, &mut rng))
                .collect(),
        });
        Self {
            sentences: sentences.collect(),
            noise: (0..NOISE_FRAMES)
                .map(|_| Frame::on_the_line(&[], encoding, &mut rng))
                .collect(),
        }
    }
}

impl Frame {
    /// Encodes what the line makes of up to 20 ms of samples: it adds its noise.
    fn on_the_line(spoken: &[f32], encoding: Encoding, rng: &mut StdRng) -> Self {
        let length = encoding.bytes_of(FRAME);
        let mut samples = Vec::with_capacity(length);
        for at in 0..length / encoding.width() {
            // Evenly spread over ±√3 times its root mean square.
            let noise = rng.random_range(-1.0..1.0) * NOISE * 3_f32.sqrt();
            let spoken = spoken.get(at).copied().unwrap_or_default();
            let sample = to_i16(spoken + noise);
            match encoding {
                Encoding::Mulaw => samples.push(encode_ulaw(sample)),
                Encoding::Pcm16k | Encoding::Pcm24k => samples.extend(sample.to_le_bytes()),
            }
        }
        Self {
            text: STANDARD.encode(&samples),
            samples: samples.into(),
        }
    }
}

/// Decodes the samples of some audio.
pub fn decoded(audio: &[u8], encoding: Encoding) -> impl DoubleEndedIterator<Item = i16> {
    let sample = move |bytes: &[u8]| match encoding {
        Encoding::Mulaw => decode_ulaw(bytes[0]),
        Encoding::Pcm16k | Encoding::Pcm24k => i16::from_le_bytes([bytes[0], bytes[1]]),
    };
    audio.chunks_exact(encoding.width()).map(sample)
}

/// Returns from when until when there are sounds in some audio that are loud enough to be heard
/// over the noise of a line.
pub fn sounds(audio: &[u8], encoding: Encoding) -> Option<Range<Duration>> {
    let is_audible = |sample: i16| sample.unsigned_abs() > AUDIBLE;
    let first = decoded(audio, encoding).position(is_audible)?;
    let after = decoded(audio, encoding).rev().position(is_audible)?;
    let after = after * encoding.width();
    Some(encoding.duration_of(first * encoding.width())..encoding.duration_of(audio.len() - after))
}

/// Brings samples of the telephone's rate to `rate`.
fn at_rate(samples: &[f32], rate: u32) -> Vec<f32> {
    if rate == TELEPHONE_RATE {
        return samples.to_vec();
    }
    let samples: Vec<i16> = samples.iter().map(|&sample| to_i16(sample)).collect();
    let mut resampled = Vec::new();
    Resampler::new(TELEPHONE_RATE, rate).push(&samples, &mut resampled);
    let float = |&sample: &i16| f32::from(sample) / 32_768.0;
    resampled.iter().map(float).collect()
}

/// Reads a PCM WAV file as mono samples at 8 kHz, within ±1.
fn read_wav(wav: impl io::Read) -> Result<Vec<f32>, WavError> {
    let mut wav = hound::WavReader::new(wav)?;
    let hound::WavSpec {
        channels,
        sample_rate: rate,
        bits_per_sample: bits,
        sample_format,
    } = wav.spec();
    if !(1..=2).contains(&channels) || !(8_000..=48_000).contains(&rate) {
        return Err(WavError::Unusual { channels, rate });
    }
    let samples: Vec<f32> = match sample_format {
        hound::SampleFormat::Float => wav.samples().collect::<Result<_, _>>()?,
        hound::SampleFormat::Int => {
            let full = 2_f32.powi(i32::from(bits) - 1);
            let scaled = wav.samples::<i32>().map(|sample| Ok(float(sample?) / full));
            scaled.collect::<Result<_, hound::Error>>()?
        }
    };
    let mono: Vec<f32> = match channels {
        1 => samples,
        _ => samples
            .chunks_exact(2)
            .map(|both| f32::midpoint(both[0], both[1]))
            .collect(),
    };
    let samples = resample(&mono, rate, TELEPHONE_RATE);
    if samples.is_empty() || samples.len() > LONGEST_FILE {
        return Err(WavError::Length);
    }
    Ok(samples)
}

#[expect(clippy::cast_precision_loss, reason = "audio has no more than 24 bits")]
fn float(sample: i32) -> f32 {
    sample as f32
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a float saturates"
)]
fn to_i16(sample: f32) -> i16 {
    (sample * 32_768.0).round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Mulaw, Encoding::Pcm16k, Encoding::Pcm24k];

    /// Root mean square of frames, in dBFS.
    fn level(frames: &[Frame], encoding: Encoding) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for sample in frames
            .iter()
            .flat_map(|frame| decoded(&frame.samples, encoding))
        {
            sum += (f64::from(sample) / 32_768.0).powi(2);
            count += 1.0;
        }
        10.0 * (sum / count).log10()
    }

    fn is_audible(frame: &Frame, encoding: Encoding) -> bool {
        sounds(&frame.samples, encoding).is_some()
    }

    fn wav(spec: hound::WavSpec, samples: impl Iterator<Item = f64>) -> Vec<u8> {
        let mut file = io::Cursor::new(Vec::new());
        let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
        for sample in samples {
            let full = f64::from((1_i32 << (spec.bits_per_sample - 1)) - 1);
            #[expect(clippy::cast_possible_truncation)]
            for _ in 0..spec.channels {
                writer.write_sample((sample * full) as i32).unwrap();
            }
        }
        writer.finalize().unwrap();
        file.into_inner()
    }

    #[test]
    fn the_shipped_sentences_are_short_and_as_loud_as_on_a_phone() {
        let voices = Voices::shipped(7);
        for encoding in ALL {
            for Sentence { text, frames } in &voices.encoded(encoding).sentences {
                let long = FRAME * u32::try_from(frames.len()).unwrap();
                assert!((2.0..4.0).contains(&long.as_secs_f64()), "{text}");
                let level = level(frames, encoding);
                assert!((-22.0..-18.0).contains(&level), "{text} {level}");
                // Begins at once: an interruption is measured from its first frame.
                let mut begin = frames[..5].iter();
                assert!(begin.any(|frame| is_audible(frame, encoding)), "{text}");
            }
        }
        let hebrew = |(text, _): &&(String, Vec<f32>)| text.contains('ש') || text.contains('ת');
        assert_eq!(voices.spoken.iter().filter(hebrew).count(), 3);
    }

    #[test]
    fn the_line_is_noisy_and_nobody_hears_it() {
        for encoding in ALL {
            let noise = &Voices::shipped(7).encoded(encoding).noise;
            let level = level(noise, encoding);
            assert!((-56.5..-53.5).contains(&level), "{level}");
            assert!(!noise.iter().any(|frame| is_audible(frame, encoding)));
        }
    }

    #[test]
    fn the_text_of_a_frame_is_its_samples() {
        for (encoding, length) in ALL.into_iter().zip([216, 856, 1_280]) {
            for frame in &Voices::shipped(7).encoded(encoding).sentences[0].frames {
                assert_eq!(*STANDARD.decode(&frame.text).unwrap(), *frame.samples);
                assert_eq!(frame.text.len(), length);
            }
        }
    }

    #[test]
    fn sounds_are_found_where_they_are() {
        for encoding in ALL {
            let quiet = if encoding == Encoding::Mulaw { 0xFF } else { 0 };
            let mut audio = vec![quiet; encoding.bytes_of(FRAME * 3)];
            assert_eq!(sounds(&audio, encoding), None);
            let loud = encoding.bytes_of(FRAME)..encoding.bytes_of(FRAME * 2);
            audio[loud].fill(0x40);
            assert_eq!(sounds(&audio, encoding), Some(FRAME..FRAME * 2));
        }
    }

    #[test]
    fn a_tone_survives_every_shape_of_wav_file() {
        for (channels, sample_rate, bits_per_sample) in [
            (1, 8_000, 16),
            (2, 44_100, 16),
            (1, 48_000, 24),
            (2, 16_000, 8),
        ] {
            let spec = hound::WavSpec {
                channels,
                sample_rate,
                bits_per_sample,
                sample_format: hound::SampleFormat::Int,
            };
            let tone = (0..sample_rate).map(|at| {
                0.5 * (std::f64::consts::TAU * 1_000.0 * f64::from(at) / f64::from(sample_rate))
                    .sin()
            });
            let samples = read_wav(&*wav(spec, tone)).unwrap();
            assert!(samples.len().abs_diff(8_000) <= 1, "{}", samples.len());
            let power: f32 = samples.iter().map(|sample| sample * sample).sum::<f32>() / 8_000.0;
            assert!((power - 0.125).abs() < 0.008, "{spec:?} {power}");
        }
    }

    #[test]
    fn an_unusual_file_is_refused() {
        let spec = |channels, sample_rate| hound::WavSpec {
            channels,
            sample_rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let quiet = || std::iter::repeat_n(0.0, 100);
        assert!(read_wav(&b"no RIFF"[..]).is_err());
        assert!(read_wav(&*wav(spec(1, 96_000), quiet())).is_err());
        assert!(read_wav(&*wav(spec(6, 8_000), quiet())).is_err());
        assert!(read_wav(&*wav(spec(1, 8_000), std::iter::empty())).is_err());
        assert!(Voices::from_file(Path::new("/nowhere.wav"), 7).is_err());
    }
}
