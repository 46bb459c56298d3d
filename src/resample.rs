//! Brings a call's audio from one rate to another as it streams: 8, 16 and 24 kHz.
//!
//! A polyphase FIR filter, a sinc under a Kaiser window: what would be folded into the lower rate's
//! band, or mirrored out of it, is 60 dB down, telephone speech (up to 3.4 kHz of 4) is untouched,
//! and audio is [`Resampler::DELAY`] samples of the lower rate late, 3 ms at 8 kHz.

use std::f64::consts::PI;

/// Part of the lower rate's band that is kept, at half amplitude: the middle between 3.4 kHz, where
/// telephone speech ends, and 4 kHz.
const BAND: f64 = 0.925;

/// The Kaiser window's shape for a stop band at -60 dB. Kaiser 1974, "Nonrecursive digital filter
/// design using the I0-sinh window function": 0.1102 × (60 - 8.7).
const BETA: f64 = 5.65;

/// Products that are summed up side by side, which is what a vector register holds.
const LANES: usize = 8;

/// Samples that are taken in at a time: 20 ms at 24 kHz.
const BLOCK: usize = 480;

/// A stream of 16-bit mono samples that changes its rate.
#[derive(Debug)]
pub struct Resampler {
    /// Output samples for every `down` input samples.
    up: usize,
    down: usize,
    /// For each place between two input samples, `up` of them, the weights of the input samples
    /// before it, the oldest first.
    phases: Vec<Vec<f32>>,
    /// The newest input, as much as the filter spans less one sample, and while a block is worked
    /// on that block too.
    window: Vec<f32>,
    /// Where the next output sample lies behind the first input sample of the next block, in parts
    /// of an input sample, `up` to one.
    next: usize,
}

impl Resampler {
    /// How late the output is, in samples of the lower rate. The filter reaches as far to either
    /// side, which is what a band of 600 Hz to fall off in takes at 8 kHz.
    pub const DELAY: usize = 25;

    /// Returns a stream from `from` to `to` samples a second that has heard silence so far. Equal
    /// rates change nothing and are not late.
    ///
    /// # Panics
    /// If a rate is zero.
    pub fn new(from: u32, to: u32) -> Self {
        assert!(from > 0 && to > 0, "audio has a rate");
        let common = greatest_common_divisor(from, to);
        let [up, down] = [to / common, from / common].map(|part| part as usize);
        let phases = phases(up, down);
        let span = phases[0].len();
        let mut window = Vec::with_capacity(span - 1 + BLOCK);
        window.resize(span - 1, 0.0);
        Self {
            up,
            down,
            phases,
            window,
            next: 0,
        }
    }

    /// Takes the next samples, any number of them, and appends what they become to `out`: of all
    /// samples so far, as many as there are times `to / from`, rounded up.
    pub fn push(&mut self, samples: &[i16], out: &mut Vec<i16>) {
        out.reserve(samples.len() * self.up / self.down + 1);
        for block in samples.chunks(BLOCK) {
            self.push_block(block, out);
        }
    }

    fn push_block(&mut self, block: &[i16], out: &mut Vec<i16>) {
        let known = self.window.len();
        self.window
            .extend(block.iter().map(|&sample| f32::from(sample)));
        while self.next < block.len() * self.up {
            let weights = &self.phases[self.next % self.up];
            let heard = &self.window[self.next / self.up..][..weights.len()];
            out.push(to_i16(weighted(heard, weights)));
            self.next += self.down;
        }
        self.next -= block.len() * self.up;
        self.window.copy_within(block.len().., 0);
        self.window.truncate(known);
    }
}

/// Returns the filter, cut into what each phase needs of it.
fn phases(up: usize, down: usize) -> Vec<Vec<f32>> {
    if up == down {
        return vec![vec![1.0]];
    }
    // The filter works at the common multiple of both rates, of which the lower one is a part.
    let wide = up.max(down);
    let reach = Resampler::DELAY * wide;
    let taps = (0..=2 * reach).map(|at| tap(float(at) - float(reach), wide));
    let taps: Vec<f64> = taps.collect();
    let span = taps.len().div_ceil(up).next_multiple_of(LANES);
    let phase = |first: usize| {
        let mut weights: Vec<f64> = taps.iter().skip(first).step_by(up).copied().collect();
        // Each phase passes a constant as it is, so that they do not add a tone of their own.
        let sum: f64 = weights.iter().sum();
        weights.resize(span, 0.0);
        weights.reverse();
        weights.iter().map(|weight| narrow(weight / sum)).collect()
    };
    (0..up).map(phase).collect()
}

/// Returns the filter's tap that is `away` from its middle, where `wide` make up a sample of the
/// lower rate.
fn tap(away: f64, wide: usize) -> f64 {
    let crossings = away / float(wide);
    let edge = crossings / float(Resampler::DELAY);
    let window = bessel(BETA * (1.0 - edge * edge).max(0.0).sqrt());
    sinc(crossings * BAND) * window
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

/// Returns the modified Bessel function of order zero, by its power series.
fn bessel(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for n in 1..32 {
        term *= (x / (2.0 * float(n))).powi(2);
        sum += term;
    }
    sum
}

/// Returns the sum of products, [`LANES`] of them at a time.
fn weighted(heard: &[f32], weights: &[f32]) -> f32 {
    let (heard, rest) = heard.as_chunks::<LANES>();
    let (weights, weights_of_rest) = weights.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (heard, weights) in heard.iter().zip(weights) {
        for lane in 0..LANES {
            sums[lane] += heard[lane] * weights[lane];
        }
    }
    let rest = rest.iter().zip(weights_of_rest);
    rest.map(|(heard, weight)| heard * weight).chain(sums).sum()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast of a float saturates: what is louder than full scale is full scale"
)]
fn to_i16(sample: f32) -> i16 {
    sample.round() as i16
}

#[expect(clippy::cast_possible_truncation, reason = "a weight within ±1")]
fn narrow(weight: f64) -> f32 {
    weight as f32
}

#[expect(clippy::cast_precision_loss, reason = "a place in a filter")]
fn float(count: usize) -> f64 {
    count as f64
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

#[cfg(test)]
mod tests;
