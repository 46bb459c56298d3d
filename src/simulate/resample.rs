//! Brings a file's samples to the rate of the telephone. Slow and thorough: it runs once a file.

use std::f64::consts::PI;

/// Zero crossings of the filter on either side.
const CROSSINGS: f64 = 24.0;

/// Part of the band that is kept; the rest is for the filter to fall off in.
const BAND: f64 = 0.92;

/// Returns `samples` at the rate `to`, by a sinc under a Hann window that cuts off below half of
/// the lower rate.
pub fn resample(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    if from == to {
        return samples.to_vec();
    }
    let step = f64::from(from) / f64::from(to);
    let cutoff = BAND * (1.0 / step).min(1.0);
    let reach = CROSSINGS / cutoff;
    let length = samples.len() as u64 * u64::from(to) / u64::from(from);
    (0..length)
        .map(|at| filtered(samples, float(at) * step, cutoff, reach))
        .collect()
}

/// Returns the filtered value at `place`, which may lie between two samples.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place within a file, and a sample within ±1"
)]
fn filtered(samples: &[f32], place: f64, cutoff: f64, reach: f64) -> f32 {
    let first = (place - reach).ceil().max(0.0) as usize;
    let last = ((place + reach).floor() as usize + 1).min(samples.len());
    let mut sum = 0.0;
    for (at, &sample) in (first as u64..).zip(&samples[first.min(last)..last]) {
        let away = float(at) - place;
        let window = 0.5 + 0.5 * (PI * away / reach).cos();
        sum += f64::from(sample) * sinc(away * cutoff) * cutoff * window;
    }
    sum as f32
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a file is far shorter than 2^52 samples"
)]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how loud a tone is after the change of rate, relative to before, in dB.
    fn passed(tone: f64, from: u32, to: u32) -> f64 {
        #[expect(clippy::cast_possible_truncation)]
        let samples: Vec<f32> = (0..from)
            .map(|at| (2.0 * PI * tone * f64::from(at) / f64::from(from)).sin() as f32)
            .collect();
        let out = resample(&samples, from, to);
        let middle = &out[out.len() / 4..out.len() * 3 / 4];
        let power: f64 = middle.iter().map(|&sample| f64::from(sample).powi(2)).sum();
        10.0 * (2.0 * power / float(middle.len() as u64)).log10()
    }

    #[test]
    fn speech_passes_and_nothing_is_folded_into_it() {
        for rate in [11_025, 16_000, 22_050, 44_100, 48_000] {
            for tone in [300.0, 1_000.0, 3_300.0] {
                let loss = passed(tone, rate, 8_000);
                assert!(loss.abs() < 0.2, "{tone} Hz at {rate} Hz: {loss} dB");
            }
            let folded = passed(4_700.0, rate, 8_000);
            assert!(folded < -40.0, "{rate} Hz: {folded} dB");
        }
    }

    #[test]
    fn the_length_stays_the_same() {
        for rate in [8_000, 12_000, 44_100] {
            let second = vec![0.0; rate as usize];
            assert_eq!(resample(&second, rate, 8_000).len(), 8_000);
        }
        assert!(resample(&[], 48_000, 8_000).is_empty());
    }
}
