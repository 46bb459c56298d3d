//! How many slots it takes, and when they will not be enough: what has been measured, carried on.
//! Pure.
//!
//! Invariant: what was measured too little to say something of is `None`, and never a guess.

use std::time::Duration;

/// Which part of all calls may be refused where a cap is large enough.
pub const REFUSED_AT_MOST: f64 = 0.01;
/// The largest cap that is looked for.
const LARGEST_CAP: u32 = 100_000;
/// The time that arrivals are measured over.
pub const MEASURED_OVER: Duration = Duration::from_secs(3_600);
/// How much of it there has to be.
const MEASURED_FROM: Duration = Duration::from_secs(600);
/// How much a slope has to be measured over before it is one.
const SLOPE_FROM: Duration = Duration::from_secs(60);
/// The longest time until a cap is full that is told: traffic changes with the hours.
const FURTHEST: Duration = Duration::from_secs(24 * 3_600);

/// What was measured of the calls that count in a scope.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measured {
    /// Calls that have come within the time measured over, refused ones included.
    pub arrivals: u64,
    /// Those of them that were refused.
    pub refused: u64,
    /// Calls that had a slot and have ended within that time.
    pub ended: u64,
    /// How long those have held it, all of them together.
    pub held: Duration,
}

/// What measured calls need, and what comes of a cap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Need {
    pub arrivals_per_second: f64,
    /// How long a call holds its slot.
    pub mean_length: Duration,
    /// The calls that there would be at a time, on average, if none was refused: erlangs.
    pub offered: f64,
    /// The part of calls that the cap refuses, 0 to 1.
    pub refused_share: f64,
    /// The smallest cap that refuses [`REFUSED_AT_MOST`].
    pub cap_needed: u32,
}

/// How what a scope holds moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trend {
    /// In calls a minute.
    pub per_minute: f64,
    /// How long it takes until the cap is full if it goes on so; `None` if it never is, or not
    /// within a day.
    pub full_in: Option<Duration>,
}

/// Returns how long a time it is that calls were measured over, the first of which came so long ago:
/// an hour at most. `None` while that is less than ten minutes, of which nothing can be said.
pub fn measured_over(since_first: Duration) -> Option<Duration> {
    (since_first >= MEASURED_FROM).then(|| since_first.min(MEASURED_OVER))
}

impl Measured {
    /// Adds what was measured elsewhere over the same time.
    pub fn and(self, other: Self) -> Self {
        Self {
            arrivals: self.arrivals + other.arrivals,
            refused: self.refused + other.refused,
            ended: self.ended + other.ended,
            held: self.held + other.held,
        }
    }

    /// Returns what these calls, measured `over` so long, need of a scope with this `cap`; `None`
    /// before any has come or ended.
    ///
    /// Callers who were refused and ring again count each time, so that the need of a scope that
    /// refuses many is rather too large than too small.
    pub fn need(self, over: Duration, cap: u32) -> Option<Need> {
        if self.arrivals == 0 || self.ended == 0 || over.is_zero() {
            return None;
        }
        let arrivals_per_second = count(self.arrivals) / over.as_secs_f64();
        let mean_length = self.held.div_f64(count(self.ended));
        let offered = arrivals_per_second * mean_length.as_secs_f64();
        Some(Need {
            arrivals_per_second,
            mean_length,
            offered,
            refused_share: erlang_b(offered, cap),
            cap_needed: cap_for(offered, REFUSED_AT_MOST)?,
        })
    }
}

impl Trend {
    /// Returns how what was seen moves, by least squares: when, since whenever, and how many slots
    /// were held then, the latest last. `None` while that is less than a minute.
    pub fn of(seen: &[(Duration, u32)], cap: u32) -> Option<Self> {
        let (first, last) = (seen.first()?, seen.last()?);
        let lasted = last.0.saturating_sub(first.0);
        if lasted < SLOPE_FROM {
            return None;
        }
        let points = seen
            .iter()
            .map(|(at, held)| (at.saturating_sub(first.0).as_secs_f64(), f64::from(*held)));
        let number = count(u64::try_from(seen.len()).unwrap_or(u64::MAX));
        let (at_sum, held_sum) = points
            .clone()
            .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        let (at_mean, held_mean) = (at_sum / number, held_sum / number);
        let (together, spread) = points.fold((0.0, 0.0), |sum, (at, held)| {
            let away = at - at_mean;
            (sum.0 + away * (held - held_mean), sum.1 + away * away)
        });
        let slope = together / spread; // There is a spread: a minute lies between two of them.
        let now = held_mean + slope * (lasted.as_secs_f64() - at_mean);
        let left = f64::from(cap) - now;
        let full_in = if last.1 >= cap || left <= 0.0 {
            Some(Duration::ZERO)
        } else if slope > 0.0 {
            let seconds = left / slope;
            (seconds <= FURTHEST.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
        } else {
            None
        };
        Some(Self {
            per_minute: slope * 60.0,
            full_in,
        })
    }
}

/// Returns which part of calls finds all of `slots` held, where `offered` erlangs come at random
/// and whoever is refused is gone (Erlang B). By its recursion, which has neither powers nor
/// factorials to overflow: Iversen, "Teletraffic Engineering", "Erlang's loss system".
fn erlang_b(offered: f64, slots: u32) -> f64 {
    (1..=slots).fold(1.0, |refused, slots| next(offered, refused, slots))
}

/// Returns the smallest number of slots that refuses `share` of the calls at most; `None` if it is
/// beyond [`LARGEST_CAP`].
fn cap_for(offered: f64, share: f64) -> Option<u32> {
    let mut refused = 1.0;
    for slots in 1..=LARGEST_CAP {
        refused = next(offered, refused, slots);
        if refused <= share {
            return Some(slots);
        }
    }
    None
}

/// Returns what `slots` refuse, where one fewer refuses `refused`.
fn next(offered: f64, refused: f64, slots: u32) -> f64 {
    let load = offered * refused;
    load / (f64::from(slots) + load)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "nobody counts more calls than a float tells apart"
)]
fn count(calls: u64) -> f64 {
    calls as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= expected.abs() * 1e-6 + 1e-12
    }

    #[test]
    fn a_few_minutes_are_not_taken_for_an_hour() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (since_first, expected) in [
            (minutes(9), None),
            (minutes(10), Some(minutes(10))),
            (minutes(59), Some(minutes(59))),
            (minutes(600), Some(minutes(60))),
        ] {
            assert_eq!(measured_over(since_first), expected, "{since_first:?}");
        }
    }

    #[test]
    fn refused_shares_are_those_of_the_formula() {
        // (A^N / N!) / (1 + A + … + A^N / N!), which can be written down for a few slots.
        for (offered, slots, expected) in [
            (1.0, 0, 1.0),
            (1.0, 1, 0.5),
            (1.0, 2, 0.2),
            (2.0, 2, 0.4),
            (2.0, 3, 4.0 / 19.0),
            (3.0, 4, 27.0 / 131.0),
            (0.0, 5, 0.0),
        ] {
            let found = erlang_b(offered, slots);
            assert!(is_near(found, expected), "{offered} on {slots}: {found}");
        }
        assert!(
            erlang_b(50_000.0, 60_000) < 1e-100,
            "no power of it overflows"
        );
    }

    #[test]
    fn caps_are_those_of_the_printed_tables() {
        // Erlangs that N lines carry at 1 % refused, as every table of Erlang B prints them: one
        // line is enough for them, and not for a hundredth more.
        for (lines, carried) in [
            (1, 0.0101),
            (2, 0.152_6),
            (5, 1.361),
            (10, 4.461),
            (15, 8.108),
            (20, 12.031),
            (50, 37.901),
            (100, 84.064),
        ] {
            let (below, above) = (carried * 0.999, carried * 1.01);
            assert_eq!(cap_for(below, REFUSED_AT_MOST), Some(lines), "{below}");
            assert_eq!(cap_for(above, REFUSED_AT_MOST), Some(lines + 1), "{above}");
        }
        assert_eq!(cap_for(0.0, REFUSED_AT_MOST), Some(1));
        assert_eq!(cap_for(200_000.0, REFUSED_AT_MOST), None);
    }

    #[test]
    fn need_is_measured_from_arrivals_and_lengths() {
        let hour = Duration::from_secs(3_600);
        let measured = Measured {
            arrivals: 160,
            refused: 10,
            ended: 150,
            held: Duration::from_secs(150 * 180),
        };
        let need = measured.need(hour, 15).unwrap();
        assert!(is_near(need.offered, 8.0), "{need:?}");
        assert_eq!(need.mean_length, Duration::from_secs(180));
        assert_eq!(need.cap_needed, 15);
        assert!(need.refused_share <= REFUSED_AT_MOST);
        let twice = measured.and(measured).need(hour, 15).unwrap();
        assert!(twice.refused_share > 0.1, "{twice:?}");
        for too_little in [
            Measured::default(),
            Measured {
                ended: 0,
                ..measured
            },
            Measured {
                arrivals: 0,
                ..measured
            },
        ] {
            assert_eq!(too_little.need(hour, 15), None);
        }
    }

    /// What is held every 10 s, as `held` says of each tenth second.
    fn seen(held: impl Fn(u32) -> u32) -> Vec<(Duration, u32)> {
        let at = |step: u32| Duration::from_secs(1_000 + u64::from(step) * 10);
        (0..=30).map(|step| (at(step), held(step))).collect()
    }

    #[test]
    fn a_cap_is_full_when_the_slope_reaches_it() {
        for (what, held, cap, expected) in [
            ("steady", seen(|_| 5), 15, None),
            ("falling", seen(|step| 40 - step), 50, None),
            (
                "one in 10 s",
                seen(|step| step),
                60,
                Some(Duration::from_secs(300)),
            ),
            ("full already", seen(|step| step), 30, Some(Duration::ZERO)),
            ("above it", seen(|_| 9), 8, Some(Duration::ZERO)),
            (
                "not within a day",
                seen(|step| u32::from(step == 30)),
                10_000,
                None,
            ),
        ] {
            let trend = Trend::of(&held, cap).unwrap();
            let is_so = match (trend.full_in, expected) {
                (Some(found), Some(expected)) => {
                    found.abs_diff(expected) < Duration::from_millis(1)
                }
                (found, expected) => found == expected,
            };
            assert!(is_so, "{what}: {trend:?}");
        }
        let trend = Trend::of(&seen(|step| step), 60).unwrap();
        assert!(is_near(trend.per_minute, 6.0), "{trend:?}");
    }

    #[test]
    fn a_slope_takes_a_minute() {
        assert_eq!(Trend::of(&[], 10), None);
        assert_eq!(Trend::of(&seen(|step| step)[..6], 10), None);
        assert!(Trend::of(&seen(|step| step)[..7], 10).is_some());
    }
}
