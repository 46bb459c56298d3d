//! The tones of a phone's keys, as audio: ITU-T Q.23 says which two, Q.24 how long.

use std::{f64::consts::TAU, time::Duration};

use crate::{
    chunk::{Chunk, Encoding, TELEPHONE_RATE, samples_in},
    tool::Digits,
    transcode,
};

const ON: Duration = Duration::from_millis(100);
const OFF: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(500);
/// How loud each of the two is, of 32,767: both together leave room, as telephony wants it.
const LEVEL: f64 = 8_000.0;

const ROWS: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f64; 3] = [1_209.0, 1_336.0, 1_477.0];
const KEYS: [[u8; 3]; 4] = [*b"123", *b"456", *b"789", *b"*0#"];

/// Returns the tones of `digits` one after another.
pub fn sound(digits: &Digits, encoding: Encoding) -> Chunk {
    let mut samples = Vec::new();
    for key in digits.as_str().bytes() {
        match pair(key) {
            Some(pair) => {
                samples.extend(tone(pair));
                samples.extend(vec![0; samples_in(OFF)]);
            }
            None => samples.extend(vec![0; samples_in(PAUSE)]),
        }
    }
    transcode::encode_at(&samples, TELEPHONE_RATE, encoding)
}

/// Returns how long `digits` last.
pub fn duration(digits: &str) -> Duration {
    let last = |key| {
        if pair(key).is_some() { ON + OFF } else { PAUSE }
    };
    digits.bytes().map(last).sum()
}

/// Returns the two frequencies of a key, in hertz; `None` for a pause.
fn pair(key: u8) -> Option<(f64, f64)> {
    let rows = KEYS.iter().zip(ROWS);
    rows.flat_map(|(keys, row)| keys.iter().zip(COLUMNS).map(move |it| (row, it)))
        .find(|(_, (known, _))| **known == key)
        .map(|(row, (_, column))| (row, column))
}

fn tone((low, high): (f64, f64)) -> impl Iterator<Item = i16> {
    let count = u32::try_from(samples_in(ON)).unwrap_or(0);
    (0..count).map(move |n| {
        let at = f64::from(n) / f64::from(TELEPHONE_RATE) * TAU;
        let level = ((at * low).sin() + (at * high).sin()) * LEVEL;
        #[expect(clippy::cast_possible_truncation, reason = "16,000 at most")]
        let sample = level as i16;
        sample
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns how much of `frequency` there is in mu-law audio: Goertzel's algorithm.
    fn strength(frequency: f64, samples: &[u8]) -> f64 {
        let turn = 2.0 * (TAU * frequency / f64::from(TELEPHONE_RATE)).cos();
        let (before, last) = samples.iter().fold((0.0, 0.0), |(before, last), sample| {
            let sample = f64::from(audio_codec_algorithms::decode_ulaw(*sample));
            (last, sample + turn * last - before)
        });
        (before * before + last * last - turn * before * last).sqrt()
    }

    #[test]
    fn each_key_sounds_as_its_pair_and_a_pause_as_nothing() {
        let keys = "1234567890*#";
        let digits = Digits::of(&json!({ "digits": format!("{keys}w") })).unwrap();
        let heard = sound(&digits, Encoding::Mulaw);
        assert_eq!(heard.duration(), duration(digits.as_str()));
        let heard = heard.samples();
        for (place, key) in keys.bytes().enumerate() {
            let from = place * samples_in(ON + OFF);
            let on = &heard[from..from + samples_in(ON)];
            let off = &heard[from + samples_in(ON)..from + samples_in(ON + OFF)];
            let (low, high) = pair(key).unwrap();
            for frequency in ROWS.into_iter().chain(COLUMNS) {
                let is_its_own = [low, high].contains(&frequency);
                let found = strength(frequency, on) > 1_000_000.0;
                assert_eq!(found, is_its_own, "{} at {frequency}", char::from(key));
                assert!(strength(frequency, off) < 10_000.0);
            }
        }
        let pause = &heard[keys.len() * samples_in(ON + OFF)..];
        assert_eq!(pause.len(), samples_in(PAUSE));
        assert!(pause.iter().all(|sample| *sample == 0xFF));
    }
}
