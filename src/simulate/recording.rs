//! Records a call as a stereo WAV file: left what the caller said, right what it heard.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::voice::decoded;
use crate::chunk::{Encoding, SILENT_SAMPLE};

/// Both sides of a call since the stream began, as they are sent.
pub struct Recording {
    encoding: Encoding,
    said: Vec<u8>,
    heard: Vec<u8>,
}

impl Recording {
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            said: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// Adds what the caller said from `at` on.
    pub fn said(&mut self, at: Duration, samples: &[u8]) {
        put(&mut self.said, at, samples, self.encoding);
    }

    /// Adds what the loudspeaker plays from `at` on.
    pub fn heard(&mut self, at: Duration, samples: &[u8]) {
        put(&mut self.heard, at, samples, self.encoding);
    }

    /// Takes away what would have been heard after `at`.
    pub fn cut(&mut self, at: Duration) {
        self.heard.truncate(self.encoding.bytes_of(at));
    }

    /// Writes the file `name.wav` into `folder`, which is made if needed. Returns its path.
    ///
    /// # Errors
    /// If the folder or the file cannot be written.
    pub fn save(&self, folder: &Path, name: &str) -> Result<PathBuf, hound::Error> {
        fs::create_dir_all(folder)?;
        let path = folder.join(name).with_extension("wav");
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: self.encoding.rate(),
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut file = hound::WavWriter::create(&path, spec)?;
        let mut said = decoded(&self.said, self.encoding);
        let mut heard = decoded(&self.heard, self.encoding);
        let samples = self.said.len().max(self.heard.len()) / self.encoding.width();
        for _ in 0..samples {
            file.write_sample(said.next().unwrap_or_default())?;
            file.write_sample(heard.next().unwrap_or_default())?;
        }
        file.finalize()?;
        Ok(path)
    }
}

fn put(side: &mut Vec<u8>, at: Duration, samples: &[u8], encoding: Encoding) {
    let silence = match encoding {
        Encoding::Mulaw => SILENT_SAMPLE,
        Encoding::Pcm16k | Encoding::Pcm24k => 0,
    };
    // A sound begins where the one before it ended.
    side.resize(encoding.bytes_of(at).max(side.len()), silence);
    side.extend_from_slice(samples);
}

#[cfg(test)]
mod tests {
    use super::*;
    use audio_codec_algorithms::decode_ulaw;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_side_is_heard_when_it_was_and_not_after_it_was_cut() {
        let mut recording = Recording::new(Encoding::Mulaw);
        recording.said(ms(0), &[0x80; 160]);
        recording.heard(ms(10), &[0x00; 160]);
        recording.heard(ms(30), &[0x00; 8_000]);
        recording.cut(ms(40));
        let folder = tempfile::tempdir().unwrap();
        let path = recording.save(&folder.path().join("new"), "call").unwrap();
        let mut wav = hound::WavReader::open(path).unwrap();
        assert_eq!(wav.spec().channels, 2);
        let samples: Vec<i16> = wav.samples().map(Result::unwrap).collect();
        let (loud, other) = (decode_ulaw(0x80), decode_ulaw(0x00));
        let at = |ms: usize| (samples[ms * 16], samples[ms * 16 + 1]);
        assert_eq!(samples.len(), 2 * 320);
        assert_eq!(at(0), (loud, 0));
        assert_eq!(at(10), (loud, other));
        assert_eq!(at(39), (0, other));
    }
}
