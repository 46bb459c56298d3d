//! How fast something grows, whatever single values do.

use serde::Serialize;

/// How many values are compared: more are thinned out, since each is compared with each.
const MOST: usize = 3_000;
/// The quantile of the normal distribution for 95 %, both sides.
const Z: f64 = 1.96;

/// The median of the slopes between all pairs of values, and between which slopes the true one lies
/// with 95 %, as Theil and Sen have it (Sen, J. Am. Stat. Assoc. 63, 1968). It takes the values for
/// independent of each other: what moves slowly is less sure than it says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Slope {
    pub low: f64,
    pub median: f64,
    pub high: f64,
}

impl Slope {
    /// Returns the slope of values at times, in values a unit of time; `None` for fewer than three
    /// times.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ranks among some millions"
    )]
    pub fn of(values: &[(f64, f64)]) -> Option<Self> {
        let step = values.len().div_ceil(MOST).max(1);
        let values: Vec<(f64, f64)> = values.iter().copied().step_by(step).collect();
        let mut slopes = Vec::new();
        for (index, (at, value)) in values.iter().enumerate() {
            let later = values[index + 1..].iter().filter(|other| at < &other.0);
            slopes.extend(later.map(|other| (other.1 - value) / (other.0 - at)));
        }
        if slopes.len() < 3 {
            return None;
        }
        slopes.sort_by(f64::total_cmp);
        let (n, pairs) = (values.len() as f64, slopes.len() as f64);
        let spread = Z * (n * (n - 1.0) * (2.0 * n + 5.0) / 18.0).sqrt();
        let last = slopes.len() - 1;
        let low = f64::midpoint(pairs, -spread).floor().max(0.0) as usize;
        let high = f64::midpoint(pairs, spread).ceil() as usize;
        Some(Self {
            low: slopes[low.min(last)],
            median: slopes[last / 2],
            high: slopes[high.min(last)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(slope: f64, noise: impl Fn(u32) -> f64) -> Vec<(f64, f64)> {
        let value = |at: u32| (f64::from(at), slope * f64::from(at) + noise(at));
        (0..100).map(value).collect()
    }

    #[test]
    fn a_line_grows_by_its_slope_and_a_few_outliers_change_nothing() {
        let straight = Slope::of(&line(2.0, |_| 0.0)).unwrap();
        for slope in [straight.low, straight.median, straight.high] {
            assert!((slope - 2.0).abs() < 1e-9, "{straight:?}");
        }
        let spikes = |at: u32| if at.is_multiple_of(20) { 1e6 } else { 0.0 };
        let outliers = Slope::of(&line(2.0, spikes)).unwrap();
        assert!((outliers.median - 2.0).abs() < 1e-9, "{outliers:?}");
    }

    #[test]
    fn what_only_trembles_may_not_grow() {
        let trembling = |at: u32| f64::from(at * 7 % 11);
        let slope = Slope::of(&line(0.0, trembling)).unwrap();
        assert!(slope.low < 0.0 && slope.high > 0.0, "{slope:?}");
        assert!(slope.low < slope.median && slope.median < slope.high);
        // And what grows beneath the trembling is seen.
        assert!(Slope::of(&line(0.5, trembling)).unwrap().low > 0.0);
    }

    #[test]
    fn two_values_have_no_slope_and_many_are_thinned_out() {
        assert_eq!(Slope::of(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(Slope::of(&[(1.0, 1.0); 5]), None);
        let many: Vec<_> = (0..10_000_u32)
            .map(|at| (f64::from(at), f64::from(at)))
            .collect();
        assert!((Slope::of(&many).unwrap().median - 1.0).abs() < 1e-9);
    }
}
