//! What the parrot greets with: a short tune.

use std::{f32::consts::TAU, time::Duration};

use audio_codec_algorithms::encode_ulaw;
use bytes::Bytes;

use crate::chunk::{TELEPHONE_RATE, samples_in};

/// Where each note begins and how high it is: G, C, E and again G, a rising C major chord.
const NOTES: [(Duration, f32); 4] = [
    (Duration::from_millis(0), 392.00),
    (Duration::from_millis(200), 523.25),
    (Duration::from_millis(400), 659.26),
    (Duration::from_millis(600), 783.99),
];

const TUNE: Duration = Duration::from_millis(1_200);

/// The usual level of speech on a telephone line: -18 dBFS.
const RMS: f32 = 0.126;

/// Composes the tune, in mu-law.
pub fn tune() -> Bytes {
    let mut wave = vec![0.0_f32; samples_in(TUNE)];
    for (begins, pitch) in NOTES {
        let note = &mut wave[samples_in(begins)..];
        for (place, time) in note.iter_mut().zip(times()) {
            // A bell: a soft onset of about 10 ms, then a slow decay, with one overtone.
            let envelope = (1.0 - (-time / 0.01).exp()) * (-time / 0.25).exp();
            let angle = TAU * pitch * time;
            *place += envelope * (angle.sin() + 0.3 * (2.0 * angle).sin());
        }
    }
    // The end fades out over 60 ms, so that it does not click.
    let fade = wave.iter_mut().rev().zip(times());
    fade.for_each(|(place, time)| *place *= (time / 0.06).min(1.0));
    at_level(&wave, RMS)
}

/// Encodes `wave` in mu-law, scaled to the level `rms` of full scale.
pub fn at_level(wave: &[f32], rms: f32) -> Bytes {
    let power: f32 = wave.iter().map(|place| place * place).sum();
    let count: f32 = wave.iter().map(|_| 1.0).sum();
    let gain = rms / (power / count.max(1.0)).sqrt().max(f32::MIN_POSITIVE);
    wave.iter()
        .map(|place| encode_ulaw(linear(place * gain)))
        .collect()
}

/// Returns the time of each telephone sample in seconds.
pub fn times() -> impl Iterator<Item = f32> {
    let rate = f32::from(u16::try_from(TELEPHONE_RATE).expect("8,000 fits"));
    (0_u16..).map(move |sample| f32::from(sample) / rate)
}

fn linear(place: f32) -> i16 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "such a cast saturates, as clipping should"
    )]
    let sample = (place * 32_767.0) as i16;
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::parrot::hearing::level_db;

    #[test]
    fn the_tune_is_as_loud_and_as_long_as_a_greeting_on_a_telephone() {
        let tune = tune();
        assert_eq!(tune.len(), 9_600);
        assert!((level_db(&tune) + 18.0).abs() < 0.5, "{}", level_db(&tune));
        assert!(level_db(&tune[9_520..]) < -40.0);
    }
}
