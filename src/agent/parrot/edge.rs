//! Where audio comes in and goes out: the parrot itself works in telephone audio.

use audio_codec_algorithms::{decode_ulaw, encode_ulaw};

use crate::{
    chunk::{Encoding, TELEPHONE_RATE},
    resample::Resampler,
};

/// Half a sample came.
#[derive(Debug, PartialEq, Eq)]
pub struct OddLength;

/// Turns what a client sends into mu-law.
#[derive(Debug)]
pub struct Ear {
    /// `None` for mu-law, which needs no change.
    resampler: Option<Resampler>,
}

/// Turns mu-law into what a client hears.
#[derive(Debug)]
pub struct Mouth {
    resampler: Option<Resampler>,
}

impl Ear {
    pub fn of(encoding: Encoding) -> Self {
        let resampler = match encoding {
            Encoding::Mulaw => None,
            Encoding::Pcm16k | Encoding::Pcm24k => {
                Some(Resampler::new(encoding.rate(), TELEPHONE_RATE))
            }
        };
        Self { resampler }
    }

    /// Takes the next of a client's audio, and returns it as mu-law.
    ///
    /// # Errors
    /// If it ends within a sample.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Vec<u8>, OddLength> {
        let Some(resampler) = &mut self.resampler else {
            return Ok(bytes.to_vec());
        };
        let (pairs, []) = bytes.as_chunks::<2>() else {
            return Err(OddLength);
        };
        let samples: Vec<i16> = pairs.iter().copied().map(i16::from_le_bytes).collect();
        let mut heard = Vec::new();
        resampler.push(&samples, &mut heard);
        Ok(heard.into_iter().map(encode_ulaw).collect())
    }
}

impl Mouth {
    pub fn of(encoding: Encoding) -> Self {
        let resampler = match encoding {
            Encoding::Mulaw => None,
            Encoding::Pcm16k | Encoding::Pcm24k => {
                Some(Resampler::new(TELEPHONE_RATE, encoding.rate()))
            }
        };
        Self { resampler }
    }

    /// Takes the next of what is said, in mu-law, and returns it as the client wants it.
    pub fn say(&mut self, samples: Vec<u8>) -> Vec<u8> {
        let Some(resampler) = &mut self.resampler else {
            return samples;
        };
        let samples: Vec<i16> = samples.into_iter().map(decode_ulaw).collect();
        let mut said = Vec::new();
        resampler.push(&samples, &mut said);
        said.into_iter().flat_map(i16::to_le_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::parrot::{hearing::level_db, voice};

    #[test]
    fn what_is_said_is_heard_as_loud_as_it_was() {
        let tune = voice::tune();
        for encoding in [Encoding::Mulaw, Encoding::Pcm16k, Encoding::Pcm24k] {
            let said = Mouth::of(encoding).say(tune.to_vec());
            assert_eq!(
                encoding.duration_of(said.len()),
                Encoding::Mulaw.duration_of(tune.len())
            );
            let heard = Ear::of(encoding).hear(&said).unwrap();
            assert_eq!(heard.len(), tune.len());
            let change = level_db(&heard) - level_db(&tune);
            assert!(change.abs() < 0.3, "{encoding:?}: {change} dB");
        }
    }

    #[test]
    fn half_a_sample_is_none() {
        assert_eq!(Ear::of(Encoding::Pcm24k).hear(&[0; 3]), Err(OddLength));
        assert_eq!(Ear::of(Encoding::Mulaw).hear(&[0; 3]), Ok(vec![0; 3]));
    }
}
