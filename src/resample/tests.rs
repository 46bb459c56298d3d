use proptest::{collection::vec, prelude::*};

use super::*;

const RATES: [u32; 3] = [8_000, 16_000, 24_000];

const PAIRS: [(u32, u32); 6] = [
    (8_000, 16_000),
    (8_000, 24_000),
    (16_000, 24_000),
    (16_000, 8_000),
    (24_000, 8_000),
    (24_000, 16_000),
];

/// Half of full scale.
const LOUD: f64 = 16_384.0;

/// Half a second of a tone that begins at its zero.
fn tone(hertz: u32, rate: u32) -> Vec<i16> {
    (0..rate / 2)
        .map(|at| rounded(LOUD * angle(hertz, at, rate).sin()))
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a float saturates"
)]
fn rounded(sample: f64) -> i16 {
    sample.round() as i16
}

fn decibels(ratio: f64) -> f64 {
    20.0 * ratio.max(1e-9).log10()
}

fn resampled(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    let mut out = Vec::new();
    Resampler::new(from, to).push(samples, &mut out);
    out
}

/// The middle half, where the filter has long settled: whole periods of every fourth tone.
fn settled(samples: &[i16]) -> &[i16] {
    &samples[samples.len() / 4..][..samples.len() / 2]
}

/// Returns what of `samples` is a tone: as much of its sine, and of its cosine.
fn part(hertz: u32, samples: &[i16], rate: u32) -> (f64, f64) {
    let (mut sine, mut cosine) = (0.0, 0.0);
    for (at, &sample) in (0..).zip(samples) {
        let angle = angle(hertz, at, rate);
        sine += f64::from(sample) * angle.sin();
        cosine += f64::from(sample) * angle.cos();
    }
    let half = float(samples.len()) / 2.0;
    (sine / half, cosine / half)
}

fn angle(hertz: u32, at: u32, rate: u32) -> f64 {
    2.0 * PI * f64::from(hertz) * f64::from(at) / f64::from(rate)
}

/// Returns how loud a tone is in `samples`, relative to [`tone`].
fn level_of(hertz: u32, samples: &[i16], rate: u32) -> f64 {
    let (sine, cosine) = part(hertz, samples, rate);
    decibels(sine.hypot(cosine) / LOUD)
}

/// Returns how loud `samples` are beside a tone, relative to [`tone`].
fn level_beside(hertz: u32, samples: &[i16], rate: u32) -> f64 {
    let (sine, cosine) = part(hertz, samples, rate);
    let beside = (0..).zip(samples).map(|(at, &sample)| {
        let angle = angle(hertz, at, rate);
        f64::from(sample) - sine * angle.sin() - cosine * angle.cos()
    });
    level(beside)
}

/// Returns how loud samples are in all, relative to [`tone`].
fn level(samples: impl Iterator<Item = f64>) -> f64 {
    let (mut power, mut count) = (0.0, 0.0);
    for sample in samples {
        power += sample * sample;
        count += 1.0;
    }
    decibels((2.0 * power / count).sqrt() / LOUD)
}

#[test]
fn telephone_speech_passes_as_loud_as_it_was() {
    for (from, to) in PAIRS {
        for hertz in (100..=3_400).step_by(100) {
            let out = resampled(&tone(hertz, from), from, to);
            let change = level_of(hertz, settled(&out), to);
            assert!(
                change.abs() < 0.1,
                "{from} to {to}, {hertz} Hz: {change} dB"
            );
        }
    }
}

#[test]
fn what_the_lower_rate_cannot_carry_is_not_folded_into_it() {
    for (from, to) in PAIRS.into_iter().filter(|(from, to)| to < from) {
        for hertz in (to / 2 + 20..from / 2).step_by(120) {
            let out = resampled(&tone(hertz, from), from, to);
            let folded = level(settled(&out).iter().copied().map(f64::from));
            assert!(folded < -55.0, "{from} to {to}, {hertz} Hz: {folded} dB");
        }
    }
}

#[test]
fn the_higher_rate_has_no_images() {
    for (from, to) in PAIRS.into_iter().filter(|(from, to)| from < to) {
        for hertz in (40..from / 2).step_by(100) {
            let out = resampled(&tone(hertz, from), from, to);
            let images = level_beside(hertz, settled(&out), to);
            assert!(images < -55.0, "{from} to {to}, {hertz} Hz: {images} dB");
        }
    }
}

#[test]
fn audio_is_at_most_five_milliseconds_late() {
    for (from, to) in PAIRS {
        let mut click = vec![0; from as usize / 10];
        let clicked = from as usize / 50;
        click[clicked] = i16::MAX;
        let out = resampled(&click, from, to);
        let loudest = (0..out.len()).max_by_key(|&at| out[at]).unwrap();
        let late = float(loudest) / f64::from(to) - float(clicked) / f64::from(from);
        let meant = float(Resampler::DELAY) / f64::from(from.min(to));
        assert!(late <= 0.005, "{from} to {to}: {late} s");
        // The peak may lie between two samples.
        assert!(
            (late - meant).abs() < 0.5 / f64::from(to),
            "{from} to {to}: {late} s"
        );
    }
}

#[test]
fn a_frame_gives_a_frame() {
    for (from, to) in PAIRS {
        let mut resampler = Resampler::new(from, to);
        let frame = vec![0; from as usize / 50];
        for _ in 0..1_000 {
            let mut out = Vec::new();
            resampler.push(&frame, &mut out);
            assert_eq!(out.len(), to as usize / 50, "{from} to {to}");
        }
    }
}

#[test]
fn full_scale_does_not_wrap() {
    for (from, to) in PAIRS {
        // A square wave overshoots on its edges once its overtones are gone.
        let square = |at: usize| [i16::MAX, i16::MIN][at / 48 % 2];
        let samples: Vec<i16> = (0..from as usize).map(square).collect();
        let out = resampled(&samples, from, to);
        assert!(out.contains(&i16::MAX) && out.contains(&i16::MIN));
        let delay = Resampler::DELAY * to as usize / from.min(to) as usize;
        let half = 48 * to as usize / from as usize;
        for (at, &sample) in out[delay..].iter().enumerate() {
            // A third of each half wave is left to its edges.
            let middle = (half / 3..=half * 2 / 3).contains(&(at % half));
            let high = (at / half).is_multiple_of(2);
            assert!(
                !middle || high == (sample > 0),
                "{from} to {to}, {at}: {sample}"
            );
        }
    }
}

#[test]
fn silence_stays_silence_and_a_constant_stays_itself() {
    for (from, to) in PAIRS {
        assert!(
            resampled(&vec![0; 4_800], from, to)
                .iter()
                .all(|&out| out == 0)
        );
        let out = resampled(&vec![1_234; from as usize], from, to);
        assert!(
            settled(&out).iter().all(|&out| out == 1_234),
            "{from} to {to}"
        );
    }
}

#[test]
fn equal_rates_change_nothing() {
    let samples = tone(440, 8_000);
    for rate in RATES {
        assert_eq!(resampled(&samples, rate, rate), samples);
    }
}

#[test]
fn a_frame_takes_no_memory_once_there_is_room_for_it() {
    for (from, to) in PAIRS {
        let mut resampler = Resampler::new(from, to);
        let mut out = Vec::with_capacity(2_048);
        let (window, room) = (resampler.window.as_ptr(), out.as_ptr());
        for length in [from as usize / 50, 1, 0, 600] {
            out.clear();
            resampler.push(&vec![1; length], &mut out);
            assert_eq!((resampler.window.as_ptr(), out.as_ptr()), (window, room));
        }
    }
}

proptest! {
    #[test]
    fn blocks_of_any_length_give_what_one_piece_gives(
        pair in 0..PAIRS.len(),
        lengths in vec(0_usize..1_200, 0..12),
        hertz in 100_u32..3_400,
    ) {
        let (from, to) = PAIRS[pair];
        let speech = tone(hertz, from);
        let mut rest = &speech[..];
        let mut resampler = Resampler::new(from, to);
        let mut out = Vec::new();
        for length in lengths {
            let (block, later) = rest.split_at(length.min(rest.len()));
            rest = later;
            resampler.push(block, &mut out);
            let so_far = speech.len() - rest.len();
            prop_assert_eq!(out.len(), (so_far * to as usize).div_ceil(from as usize));
        }
        resampler.push(rest, &mut out);
        prop_assert_eq!(out, resampled(&speech, from, to));
    }
}
