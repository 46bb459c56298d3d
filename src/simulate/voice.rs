//! What callers say: sentences and line noise, cut into frames that are ready to be sent.
//!
//! The shipped sentences are rendered by `scripts/render-voices`.

use std::{io, path::Path};

use audio_codec_algorithms::{decode_ulaw, encode_ulaw};
use base64::{Engine, engine::general_purpose::STANDARD};
use rand::{RngExt, rngs::StdRng};

use super::resample::resample;
use crate::chunk::{FRAME, TELEPHONE_RATE};

/// Samples of a frame: 20 ms.
pub const FRAME_SAMPLES: usize = 160;

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

/// All that callers can say; made once and shared by all of them.
pub struct Repertoire {
    pub sentences: Vec<Sentence>,
    pub noise: Vec<Frame>,
}

pub struct Sentence {
    pub text: String,
    pub frames: Vec<Frame>,
}

/// 20 ms of mu-law, and the same as the base64 text that is sent.
pub struct Frame {
    pub samples: [u8; FRAME_SAMPLES],
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

impl Repertoire {
    /// Prepares the shipped sentences.
    pub fn shipped(rng: &mut StdRng) -> Self {
        let read = |(text, wav): (&str, &[u8])| {
            let samples = read_wav(wav).expect("the tests read all shipped files");
            (text.to_owned(), samples)
        };
        Self::new(SHIPPED.into_iter().map(read), rng)
    }

    /// Prepares what `file` says.
    ///
    /// # Errors
    /// If `file` is not a PCM WAV file of ordinary shape.
    pub fn from_file(file: &Path, rng: &mut StdRng) -> Result<Self, WavError> {
        let wav = io::BufReader::new(std::fs::File::open(file).map_err(hound::Error::IoError)?);
        let text = file.display().to_string();
        Ok(Self::new([(text, read_wav(wav)?)], rng))
    }

    fn new(spoken: impl IntoIterator<Item = (String, Vec<f32>)>, rng: &mut StdRng) -> Self {
        let sentences = spoken.into_iter().map(|(text, samples)| Sentence {
            text,
            frames: samples
                .chunks(FRAME_SAMPLES)
                .map(|samples| Frame::on_the_line(samples, rng))
                .collect(),
        });
        Self {
            sentences: sentences.collect(),
            noise: (0..NOISE_FRAMES)
                .map(|_| Frame::on_the_line(&[], rng))
                .collect(),
        }
    }
}

impl Frame {
    /// Encodes what the line makes of up to 20 ms of samples: it adds its noise.
    fn on_the_line(spoken: &[f32], rng: &mut StdRng) -> Self {
        let mut samples = [0; FRAME_SAMPLES];
        for (at, sample) in samples.iter_mut().enumerate() {
            // Evenly spread over ±√3 times its root mean square.
            let noise = rng.random_range(-1.0..1.0) * NOISE * 3_f32.sqrt();
            let spoken = spoken.get(at).copied().unwrap_or_default();
            *sample = encode_ulaw(to_i16(spoken + noise));
        }
        Self {
            text: STANDARD.encode(samples),
            samples,
        }
    }
}

/// Tells whether a mu-law sample is loud enough to be heard over the noise of a line.
pub fn is_audible(sample: u8) -> bool {
    decode_ulaw(sample).unsigned_abs() > AUDIBLE
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

const _: () =
    assert!(FRAME_SAMPLES as u128 * 50 == TELEPHONE_RATE as u128 && FRAME.as_millis() == 20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::samples_in;
    use rand::SeedableRng;

    fn rng() -> StdRng {
        StdRng::seed_from_u64(7)
    }

    /// Root mean square of frames, in dBFS.
    fn level<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for sample in frames.into_iter().flat_map(|frame| frame.samples) {
            sum += (f64::from(decode_ulaw(sample)) / 32_768.0).powi(2);
            count += 1.0;
        }
        10.0 * (sum / count).log10()
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
        let repertoire = Repertoire::shipped(&mut rng());
        for sentence in &repertoire.sentences {
            let long = FRAME * u32::try_from(sentence.frames.len()).unwrap();
            assert!(
                (2.0..4.0).contains(&long.as_secs_f64()),
                "{}",
                sentence.text
            );
            let level = level(&sentence.frames);
            assert!((-22.0..-18.0).contains(&level), "{} {level}", sentence.text);
            // Begins at once: an interruption is measured from its first frame.
            let audible = |frame: &Frame| frame.samples.iter().any(|&sample| is_audible(sample));
            assert!(
                sentence.frames[..5].iter().any(audible),
                "{}",
                sentence.text
            );
        }
        let hebrew =
            |sentence: &&Sentence| sentence.text.contains('ש') || sentence.text.contains('ת');
        assert_eq!(repertoire.sentences.iter().filter(hebrew).count(), 3);
    }

    #[test]
    fn the_line_is_noisy_and_nobody_hears_it() {
        let repertoire = Repertoire::shipped(&mut rng());
        let level = level(&repertoire.noise);
        assert!((-56.5..-53.5).contains(&level), "{level}");
        let audible = |frame: &Frame| frame.samples.iter().any(|&sample| is_audible(sample));
        assert!(!repertoire.noise.iter().any(audible));
    }

    #[test]
    fn the_text_of_a_frame_is_its_samples() {
        let repertoire = Repertoire::shipped(&mut rng());
        for frame in &repertoire.sentences[0].frames {
            assert_eq!(STANDARD.decode(&frame.text).unwrap(), frame.samples);
            assert_eq!(frame.text.len(), 216);
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
        assert!(Repertoire::from_file(Path::new("/nowhere.wav"), &mut rng()).is_err());
    }

    #[test]
    fn a_frame_of_a_carrier_lasts_20_ms() {
        assert_eq!(samples_in(FRAME), FRAME_SAMPLES);
    }
}
