//! What the parrot hears: where speech starts and stops in mu-law audio, and what was said.
//!
//! Invariant: never keeps more than [`LONGEST_UTTERANCE`] of audio.

use std::{collections::VecDeque, mem, time::Duration};

use audio_codec_algorithms::decode_ulaw;
use bytes::Bytes;

use super::detection::TurnDetection;
use crate::chunk::{duration_of, samples_in};

/// What is said beyond this is not remembered.
pub const LONGEST_UTTERANCE: Duration = Duration::from_secs(30);

/// The audio that is judged at once: 20 ms.
const FRAME: usize = 160;
const FRAMES_PER_SECOND: f32 = 50.0;

/// So many frames above the line make speech; fewer are a click.
const ONSET_FRAMES: usize = 3;

/// Kept after the last voiced frame, so that no word loses its end.
const TAIL: Duration = Duration::from_millis(100);

/// Speech that has started goes on until it falls this far below the line.
const HYSTERESIS_DB: f32 = 6.0;

/// The noise floor follows a rising level so slowly that speech does not become noise.
const FLOOR_RISE_DB: f32 = 2.0 / FRAMES_PER_SECOND;
const LOWEST_FLOOR_DB: f32 = -65.0;
const HIGHEST_FLOOR_DB: f32 = -40.0;

/// What was noticed; positions count from the first sample ever heard.
#[derive(Debug, PartialEq)]
pub enum Heard {
    SpeechStarted { from: Duration },
    SpeechStopped { until: Duration, said: Utterance },
}

/// What a caller said in one turn.
#[derive(Clone, PartialEq)]
pub struct Utterance {
    /// Mu-law, from before the first word until shortly after the last.
    pub samples: Bytes,
    /// From the first word to the last, without any padding.
    pub spoke: Duration,
}

impl std::fmt::Debug for Utterance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Utterance({:?})", self.spoke) // Audio is private.
    }
}

/// Listens to one caller.
#[derive(Debug)]
pub struct Hearing {
    /// Without it, turns end by [`Hearing::commit`] only.
    detection: Option<TurnDetection>,
    floor_db: f32,
    partial: Vec<u8>,
    /// What a turn that starts here would begin with, or the turn so far.
    kept: VecDeque<u8>,
    position: usize,
    onset: usize,
    talking: Option<Talking>,
}

#[derive(Debug)]
struct Talking {
    kept_from: usize,
    first_voiced: usize,
    last_voiced: usize,
}

impl Hearing {
    pub fn new() -> Self {
        Self {
            detection: Some(TurnDetection::default()),
            floor_db: LOWEST_FLOOR_DB,
            partial: Vec::with_capacity(FRAME),
            kept: VecDeque::new(),
            position: 0,
            onset: 0,
            talking: None,
        }
    }

    pub fn detection(&self) -> Option<&TurnDetection> {
        self.detection.as_ref()
    }

    /// Applies to what is heard from here on.
    pub fn set_detection(&mut self, detection: Option<TurnDetection>) {
        if detection.is_none() {
            self.talking = None;
        }
        self.detection = detection;
    }

    /// Listens to mu-law `samples`, in pieces of any length.
    pub fn hear(&mut self, mut samples: &[u8]) -> Vec<Heard> {
        let mut noticed = Vec::new();
        while !samples.is_empty() {
            let taken = samples.len().min(FRAME - self.partial.len());
            self.partial.extend_from_slice(&samples[..taken]);
            samples = &samples[taken..];
            if self.partial.len() == FRAME {
                noticed.extend(self.frame());
            }
        }
        noticed
    }

    /// Ends the turn here. Returns nothing if there is less than 100 ms to say.
    pub fn commit(&mut self) -> Option<Utterance> {
        if duration_of(self.kept.len()) < Duration::from_millis(100) {
            return None;
        }
        let samples = self.clear();
        let spoke = duration_of(samples.len());
        Some(Utterance { samples, spoke })
    }

    /// Forgets the turn so far.
    pub fn clear(&mut self) -> Bytes {
        self.talking = None;
        self.onset = 0;
        Bytes::from(Vec::from(mem::take(&mut self.kept)))
    }

    /// Judges the frame that has just become whole.
    fn frame(&mut self) -> Option<Heard> {
        let level = level_db(&self.partial);
        self.position += FRAME;
        if self.kept.len() < samples_in(LONGEST_UTTERANCE) {
            self.kept.extend(&self.partial);
        }
        self.partial.clear();
        let line = self.line_db();
        self.floor_db = level
            .min(self.floor_db + FLOOR_RISE_DB)
            .clamp(LOWEST_FLOOR_DB, HIGHEST_FLOOR_DB);
        let detection = self.detection.as_ref()?;
        let Some(talking) = &mut self.talking else {
            return self.wait_for_speech(line <= level);
        };
        if line - HYSTERESIS_DB <= level {
            talking.last_voiced = self.position;
        }
        if duration_of(self.position - talking.last_voiced) < detection.silence {
            return None;
        }
        let until = duration_of(self.position);
        let spoke = duration_of(talking.last_voiced - talking.first_voiced);
        let length = talking.last_voiced - talking.kept_from + samples_in(TAIL);
        let mut samples = self.clear();
        samples.truncate(length);
        let said = Utterance { samples, spoke };
        Some(Heard::SpeechStopped { until, said })
    }

    fn wait_for_speech(&mut self, voiced: bool) -> Option<Heard> {
        let prefix = self.detection.as_ref()?.prefix_padding;
        let most = samples_in(prefix) + ONSET_FRAMES * FRAME;
        self.kept.drain(..self.kept.len().saturating_sub(most));
        if !voiced {
            self.onset = self.onset.saturating_sub(1);
            return None;
        }
        self.onset += 1;
        if self.onset < ONSET_FRAMES {
            return None;
        }
        self.onset = 0;
        let kept_from = self.position - self.kept.len();
        self.talking = Some(Talking {
            kept_from,
            first_voiced: self.position - ONSET_FRAMES * FRAME,
            last_voiced: self.position,
        });
        let from = duration_of(kept_from);
        Some(Heard::SpeechStarted { from })
    }

    /// Returns the level above which a frame is speech: well above the noise and never too faint.
    /// With the default threshold that is -40 dBFS on a quiet line.
    fn line_db(&self) -> f32 {
        let threshold = self.detection.as_ref().map_or(0.5, |it| it.threshold);
        let above_noise = self.floor_db + 6.0 + 12.0 * threshold;
        above_noise.max(-55.0 + 30.0 * threshold)
    }
}

/// Returns the level of mu-law `samples` in dB below the square wave of full scale.
pub fn level_db(samples: &[u8]) -> f32 {
    let (mut sum, mut count) = (0.0, 0.0);
    for &sample in samples {
        let amplitude = f32::from(decode_ulaw(sample)) / 32_768.0;
        sum += amplitude * amplitude;
        count += 1.0_f32;
    }
    10.0 * (sum / count.max(1.0)).max(1e-10).log10()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::parrot::voice::{at_level, times};

    #[test]
    fn speech_is_told_from_silence_and_noise() {
        let noisy = |db, parts: &[Vec<u8>]| mix(&parts.concat(), db);
        let cases: [(&str, Vec<u8>, &[u64]); 10] = [
            ("digital silence", silence(5_000), &[]),
            ("line noise", noisy(-50.0, &[silence(20_000)]), &[]),
            (
                "a click",
                [silence(500), speech(30), silence(900)].concat(),
                &[],
            ),
            (
                "a word",
                [silence(1_000), speech(400), silence(700)].concat(),
                &[700, 1_900],
            ),
            (
                "a word at once",
                [speech(400), silence(700)].concat(),
                &[0, 900],
            ),
            (
                "a word on a noisy line",
                noisy(-50.0, &[silence(1_000), speech(400), silence(700)]),
                &[700, 1_900],
            ),
            (
                "a pause shorter than the hang-over",
                [speech(400), silence(440), speech(400), silence(600)].concat(),
                &[0, 1_740],
            ),
            (
                "two turns",
                [speech(400), silence(900), speech(400), silence(600)].concat(),
                &[0, 900, 1_000, 2_200],
            ),
            (
                "speech that goes on",
                [silence(400), speech(8_000)].concat(),
                &[100],
            ),
            (
                "a long turn of many words",
                [
                    [speech(600), silence(200)].concat().repeat(25),
                    silence(400),
                ]
                .concat(),
                &[0, 20_300],
            ),
        ];
        for (name, samples, expected) in cases {
            // The size of the pieces changes nothing.
            for piece in [160, 97, 4_000] {
                let mut hearing = Hearing::new();
                let heard: Vec<Heard> = samples
                    .chunks(piece)
                    .flat_map(|piece| hearing.hear(piece))
                    .collect();
                let turns: Vec<u64> = heard.iter().map(position_ms).collect();
                assert_eq!(turns.len(), expected.len(), "{name}: {turns:?}");
                for (turn, expected) in turns.iter().zip(expected) {
                    assert!(turn.abs_diff(*expected) <= 40, "{name}: {turns:?}");
                }
            }
        }
    }

    #[test]
    fn steady_noise_becomes_silence_to_get_used_to() {
        let mut hearing = Hearing::new();
        let heard = hearing.hear(&mix(&silence(15_000), -35.0));
        assert_eq!(heard.len(), 2, "{heard:?}"); // Taken for speech at first.
        assert_eq!(hearing.hear(&mix(&silence(12_000), -35.0)), []);
        let heard = hearing.hear(&mix(&[speech(500), silence(700)].concat(), -35.0));
        assert_eq!(heard.len(), 2, "{heard:?}");
    }

    #[test]
    fn a_higher_threshold_needs_louder_speech() {
        let mut hearing = Hearing::new();
        hearing.set_detection(Some(TurnDetection {
            threshold: 1.0,
            ..TurnDetection::default()
        }));
        let quiet: Vec<u8> = mix(&silence(1_000), -32.0);
        assert_eq!(hearing.hear(&quiet), []);
        assert_eq!(hearing.hear(&speech(200)).len(), 1);
    }

    #[test]
    fn an_endless_utterance_is_kept_for_half_a_minute() {
        let mut hearing = Hearing::new();
        let word = [speech(600), silence(200)].concat();
        for _ in 0..60 {
            hearing.hear(&word);
        }
        let Some(Heard::SpeechStopped { said, .. }) = hearing.hear(&silence(600)).pop() else {
            panic!("the caller stopped");
        };
        assert_eq!(duration_of(said.samples.len()), LONGEST_UTTERANCE);
        assert!(LONGEST_UTTERANCE < said.spoke);
    }

    fn position_ms(heard: &Heard) -> u64 {
        let position = match heard {
            Heard::SpeechStarted { from } => from,
            Heard::SpeechStopped { until, .. } => until,
        };
        u64::try_from(position.as_millis()).unwrap()
    }

    /// Syllables of a low voice at -20 dBFS: four a second, never quite silent between.
    fn speech(ms: u64) -> Vec<u8> {
        let wave: Vec<f32> = times()
            .take(samples_in(Duration::from_millis(ms)))
            .map(|time| {
                let syllable = 1.0 - 0.8 * (25.0 * time).cos();
                syllable * ((880.0 * time).sin() + (1_760.0 * time).sin() + (4_400.0 * time).sin())
            })
            .collect();
        at_level(&wave, 0.1).into()
    }

    fn silence(ms: u64) -> Vec<u8> {
        vec![crate::chunk::SILENT_SAMPLE; samples_in(Duration::from_millis(ms))]
    }

    /// Adds white noise of `db` below full scale.
    fn mix(samples: &[u8], db: f32) -> Vec<u8> {
        let mut seed = 1_u32;
        let loudest = 3.0_f32.sqrt() * 10.0_f32.powf(db / 20.0) * 32_767.0;
        let noisy = samples.iter().map(|&sample| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f32::from((seed >> 16) as u16) / 32_768.0 - 1.0;
            #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
            let mixed = (f32::from(decode_ulaw(sample)) + noise * loudest) as i16;
            audio_codec_algorithms::encode_ulaw(mixed)
        });
        noisy.collect()
    }
}
