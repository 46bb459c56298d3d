//! Changes the rate of audio that comes in pieces, by a windowed sinc.

use std::f64::consts::PI;

/// Zero crossings of the filter on either side.
const CROSSINGS: usize = 24;

/// Part of the band that is kept; the rest is for the filter to fall off in.
const BAND: f64 = 0.92;

/// Changes the rate of one stream. What comes out is late by half the filter: 3 ms.
#[derive(Debug)]
pub struct Resampler {
    /// `up / down` is the ratio of the rates, in lowest terms.
    up: usize,
    down: usize,
    /// The filter, one row for each place that an output can have between two inputs.
    phases: Vec<Vec<f32>>,
    /// The last inputs as a ring, the oldest at `oldest`; twice over, so that they are also in a
    /// row from there on.
    inputs: Vec<f32>,
    oldest: usize,
    /// Where the next output lies after the last input, in steps of `1 / up`.
    place: usize,
}

impl Resampler {
    pub fn new(from: u32, to: u32) -> Self {
        let common = greatest_common_divisor(from, to);
        let (up, down) = ((to / common) as usize, (from / common) as usize);
        let widest = up.max(down);
        let taps = 2 * CROSSINGS * widest / up;
        let phases = (0..up).map(|phase| row(phase, up, taps, widest));
        Self {
            up,
            down,
            phases: phases.collect(),
            inputs: vec![0.0; 2 * taps],
            oldest: 0,
            place: 0,
        }
    }

    /// Takes the next `samples`; appends what they become.
    pub fn push(&mut self, samples: &[i16], out: &mut Vec<i16>) {
        let taps = self.inputs.len() / 2;
        for &sample in samples {
            self.inputs[self.oldest] = f32::from(sample);
            self.inputs[self.oldest + taps] = f32::from(sample);
            self.oldest = (self.oldest + 1) % taps;
            while self.place < self.up {
                out.push(self.filtered(self.place));
                self.place += self.down;
            }
            self.place -= self.up;
        }
    }

    fn filtered(&self, phase: usize) -> i16 {
        let inputs = &self.inputs[self.oldest..];
        let products = inputs.iter().zip(&self.phases[phase]).map(|(x, h)| x * h);
        let sum: f32 = products.sum();
        #[expect(
            clippy::cast_possible_truncation,
            reason = "such a cast saturates, as clipping should"
        )]
        let sample = sum.round() as i16;
        sample
    }
}

/// Returns the filter for one place of the output, for inputs from the oldest to the newest.
fn row(phase: usize, up: usize, taps: usize, widest: usize) -> Vec<f32> {
    let middle = float(taps * up) / 2.0;
    let weights: Vec<f64> = (0..taps)
        .rev()
        .map(|age| {
            let away = float(phase + age * up) - middle;
            let window = 0.5 + 0.5 * (PI * away / middle).cos();
            sinc(away * BAND / float(widest)) * window
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    #[expect(clippy::cast_possible_truncation, reason = "a weight needs no more")]
    let row = weights.iter().map(|weight| (weight / sum) as f32).collect();
    row
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a filter is short"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [(u32, u32); 4] = [
        (24_000, 8_000),
        (16_000, 8_000),
        (8_000, 24_000),
        (8_000, 16_000),
    ];

    fn tone(pitch: f64, rate: u32) -> Vec<i16> {
        #[expect(clippy::cast_possible_truncation)]
        let wave = (0..rate).map(|at| {
            let angle = 2.0 * PI * pitch * f64::from(at) / f64::from(rate);
            (10_000.0 * angle.sin()) as i16
        });
        wave.collect()
    }

    /// Returns how strong `pitch` is in the middle of `samples`, relative to [`tone`], in dB.
    fn level(pitch: f64, rate: u32, samples: &[i16]) -> f64 {
        let middle = &samples[samples.len() / 4..samples.len() * 3 / 4];
        let (mut along, mut across) = (0.0, 0.0);
        for (at, &sample) in (0_u32..).zip(middle) {
            let angle = 2.0 * PI * pitch * f64::from(at) / f64::from(rate);
            along += f64::from(sample) * angle.cos();
            across += f64::from(sample) * angle.sin();
        }
        let amplitude = 2.0 * along.hypot(across) / float(middle.len());
        20.0 * (amplitude.max(1e-3) / 10_000.0).log10()
    }

    fn resampled(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
        let mut out = Vec::new();
        Resampler::new(from, to).push(samples, &mut out);
        out
    }

    #[test]
    fn speech_passes_and_nothing_is_mirrored_into_it_or_out_of_it() {
        for (from, to) in RATES {
            for pitch in [100.0, 1_000.0, 3_300.0] {
                let out = resampled(&tone(pitch, from), from, to);
                let loss = level(pitch, to, &out);
                assert!(loss.abs() < 0.2, "{pitch} Hz, {from} to {to}: {loss} dB");
                if from < to {
                    let image = level(8_000.0 - pitch, to, &out);
                    assert!(image < -50.0, "{pitch} Hz, {from} to {to}: {image} dB");
                }
            }
            if to < from {
                for pitch in [4_500.0, 5_000.0, 7_000.0] {
                    let out = resampled(&tone(pitch, from), from, to);
                    let folded = level(8_000.0 - pitch, to, &out);
                    assert!(folded < -50.0, "{pitch} Hz, {from} to {to}: {folded} dB");
                }
            }
        }
    }

    #[test]
    fn pieces_of_any_length_come_out_as_one_would_and_last_as_long() {
        for (from, to) in RATES {
            let samples = tone(700.0, from);
            let whole = resampled(&samples, from, to);
            assert_eq!(whole.len(), to as usize);
            for piece in [1, 7, 160, 1_001] {
                let mut resampler = Resampler::new(from, to);
                let mut out = Vec::new();
                for piece in samples.chunks(piece) {
                    resampler.push(piece, &mut out);
                }
                assert!(out == whole, "{piece} at a time, {from} to {to}");
            }
        }
    }

    #[test]
    fn what_is_too_loud_is_clipped() {
        let out = resampled(&[i16::MAX; 2_400], 24_000, 8_000);
        assert_eq!(out[400..], [i16::MAX; 400]);
    }
}
