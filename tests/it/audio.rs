//! Telephone audio by ear: tones go in, and are found in what comes out.

use std::{
    f64::consts::TAU,
    sync::{Arc, OnceLock},
};

use audio_codec_algorithms::{decode_ulaw, encode_ulaw};
use callgate::Voices;

/// The bytes of one frame: 20 ms.
pub const FRAME: usize = 160;
pub const SILENCE: u8 = 0xFF;

/// What simulated callers say, made once for all tests: it takes a second without optimisation, in
/// which a test's other tasks wait.
pub fn voices() -> Arc<Voices> {
    static MADE: OnceLock<Arc<Voices>> = OnceLock::new();
    Arc::clone(MADE.get_or_init(|| Arc::new(Voices::shipped(1))))
}

/// Returns `frames` of syllables at `pitch` Hertz: 160 ms of tone, 40 ms of silence.
pub fn syllables(pitch: f64, frames: usize) -> Vec<u8> {
    let mut at = 0.0;
    let mut audio = Vec::with_capacity(frames * FRAME);
    for frame in 0..frames {
        for _ in 0..FRAME {
            at += pitch / 8_000.0;
            let loud = if frame % 10 < 8 { 6_000.0 } else { 0.0 };
            audio.push(encode_ulaw(rounded(loud * (TAU * at).sin())));
        }
    }
    audio
}

/// Returns the root mean square of the samples; 32,768 is full scale.
pub fn loudness(audio: &[u8]) -> f64 {
    let power: f64 = linear(audio).map(|sample| sample * sample).sum();
    (power / length(audio)).sqrt()
}

/// Returns which part of the audio's power lies at `pitch` Hertz, by Goertzel's algorithm over
/// pieces of 40 ms: 1 for a pure tone.
pub fn share_of(pitch: f64, audio: &[u8]) -> f64 {
    let (mut at_pitch, mut whole) = (0.0, 0.0);
    for piece in audio.chunks_exact(2 * FRAME) {
        let coefficient = 2.0 * (TAU * pitch / 8_000.0).cos();
        let (mut last, mut before) = (0.0, 0.0);
        for sample in linear(piece) {
            whole += sample * sample;
            (last, before) = (sample + coefficient * last - before, last);
        }
        let power = last * last + before * before - coefficient * last * before;
        at_pitch += 2.0 * power / length(piece);
    }
    if whole == 0.0 { 0.0 } else { at_pitch / whole }
}

fn linear(audio: &[u8]) -> impl Iterator<Item = f64> {
    audio.iter().map(|&sample| f64::from(decode_ulaw(sample)))
}

fn length(audio: &[u8]) -> f64 {
    f64::from(u32::try_from(audio.len().max(1)).unwrap())
}

fn rounded(sample: f64) -> i16 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "within plus and minus 6,000"
    )]
    let sample = sample as i16;
    sample
}

#[test]
fn a_tone_is_found_at_its_own_pitch_only() {
    let audio = syllables(1_000.0, 50);
    assert!(
        share_of(1_000.0, &audio) > 0.9,
        "{}",
        share_of(1_000.0, &audio)
    );
    assert!(
        share_of(700.0, &audio) < 0.05,
        "{}",
        share_of(700.0, &audio)
    );
    assert!(loudness(&audio) > 3_000.0);
    assert!(loudness(&[SILENCE; 320]) < 10.0);
}
