//! Audio between two sides that encode it differently.

use audio_codec_algorithms::{decode_ulaw, encode_ulaw};

use crate::{
    chunk::{Chunk, Encoding},
    resample::Resampler,
};

/// Turns one side's audio into the other's, chunk after chunk of one stream.
pub struct Transcoder {
    to: Encoding,
    /// `None` where only the way of writing samples differs.
    resampler: Option<Resampler>,
    resampled: Vec<i16>,
}

impl Transcoder {
    /// `None` where both sides encode alike, and audio passes as it is.
    pub fn between(from: Encoding, to: Encoding) -> Option<Self> {
        (from != to).then(|| Self {
            to,
            resampler: (from.rate() != to.rate()).then(|| Resampler::new(from.rate(), to.rate())),
            resampled: Vec::new(),
        })
    }

    pub fn convert(&mut self, chunk: &Chunk) -> Chunk {
        let samples = decode(chunk);
        let samples = match &mut self.resampler {
            None => &samples,
            Some(resampler) => {
                self.resampled.clear();
                resampler.push(&samples, &mut self.resampled);
                &self.resampled
            }
        };
        encode(samples, self.to)
    }
}

/// Encodes all of a recording at once.
pub fn encode_at(samples: &[i16], rate: u32, encoding: Encoding) -> Chunk {
    if rate == encoding.rate() {
        return encode(samples, encoding);
    }
    let mut resampled = Vec::new();
    Resampler::new(rate, encoding.rate()).push(samples, &mut resampled);
    encode(&resampled, encoding)
}

fn decode(chunk: &Chunk) -> Vec<i16> {
    let bytes = chunk.samples();
    match chunk.encoding() {
        Encoding::Mulaw => bytes.into_iter().map(decode_ulaw).collect(),
        Encoding::Pcm16k | Encoding::Pcm24k => {
            let pairs = bytes.chunks_exact(2);
            pairs
                .map(|pair| i16::from_le_bytes([pair[0], pair[1]]))
                .collect()
        }
    }
}

fn encode(samples: &[i16], encoding: Encoding) -> Chunk {
    let bytes: Vec<u8> = match encoding {
        Encoding::Mulaw => samples.iter().map(|&sample| encode_ulaw(sample)).collect(),
        Encoding::Pcm16k | Encoding::Pcm24k => samples
            .iter()
            .flat_map(|sample| sample.to_le_bytes())
            .collect(),
    };
    Chunk::encode(&bytes, encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_that_encode_alike_need_nothing() {
        for encoding in [Encoding::Mulaw, Encoding::Pcm16k, Encoding::Pcm24k] {
            assert!(Transcoder::between(encoding, encoding).is_none());
        }
    }

    /// Counts how often a tone rises, all the way: mu-law is coarse, and trembles around zero.
    fn rises(samples: &[i16]) -> usize {
        let mut is_low = false;
        let rose = samples.iter().filter(|&&sample| {
            let rises = is_low && sample > 4_000;
            is_low = sample < -4_000 || is_low && !rises;
            rises
        });
        rose.count()
    }

    #[test]
    fn a_tone_keeps_its_pitch_and_its_length() {
        let encodings = [Encoding::Mulaw, Encoding::Pcm16k, Encoding::Pcm24k];
        for from in encodings {
            for to in encodings.into_iter().filter(|to| *to != from) {
                let tone = |n: u32| {
                    let phase = f64::from(n) * 430.0 / f64::from(from.rate());
                    (phase * std::f64::consts::TAU).sin() * 8_000.0
                };
                #[expect(clippy::cast_possible_truncation, reason = "a tone below full scale")]
                let samples: Vec<i16> = (0..from.rate()).map(|n| tone(n) as i16).collect();
                let mut transcoder = Transcoder::between(from, to).unwrap();
                let mut heard = Vec::new();
                for frame in samples.chunks(from.rate() as usize / 50) {
                    heard.extend(decode(&transcoder.convert(&encode(frame, from))));
                }
                assert!(heard.len().abs_diff(to.rate() as usize) <= to.rate() as usize / 50);
                let rises = rises(&heard);
                assert!(rises.abs_diff(430) <= 6, "{rises}: {from:?} to {to:?}");
            }
        }
    }
}
