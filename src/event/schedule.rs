//! What becomes of a delivery after a try, and when it is tried again. Pure: time and chance are
//! handed in.

use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822;

/// The pauses between tries, in seconds: a day in all.
const USUAL: [u64; 10] = [5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 28_800];
/// The longest pause that is made because a receiver asks for it.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);
/// The longest that a receiver is left alone altogether: its address may be another meanwhile.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// How much a pause may be longer or shorter by chance, so that what failed together does not come
/// again together.
const SPREAD: f64 = 0.1;

/// The pauses between the tries of a delivery; one try more than there are pauses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

/// What a try came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With the status, and the pause that the receiver asks for.
    Answered(u16, Option<Duration>),
    NotAnswered,
}

/// What becomes of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Delivered,
    Again { after: Duration },
    Dead(Cause),
}

/// Why a delivery is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Every try has failed.
    Exhausted,
    /// The receiver wants to hear nothing more: 410.
    Gone,
}

impl Outcome {
    /// Returns how long the receiver wants to be left alone, with whatever else there is for it.
    /// RFC 6585, 4, and RFC 9110, 15.6.4; what goes with other statuses is about one request.
    pub fn rest(self) -> Option<Duration> {
        match self {
            Self::Answered(429 | 503, Some(asked)) => Some(asked.min(LONGEST_REST)),
            Self::Answered(..) | Self::NotAnswered => None,
        }
    }
}

impl Fate {
    /// Returns the name that metrics have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Again { .. } => "again",
            Self::Dead(Cause::Exhausted) => "exhausted",
            Self::Dead(Cause::Gone) => "gone",
        }
    }
}

impl Schedule {
    pub fn new(pauses: Vec<Duration>) -> Self {
        Self(pauses)
    }

    /// Returns how long after its first try a delivery may be tried, unless its receiver asks for
    /// longer pauses.
    pub fn longest(&self) -> Duration {
        self.0.iter().sum::<Duration>().mul_f64(1.0 + SPREAD)
    }

    /// Decides about a delivery that has been tried `tries` times, this one included. `chance` is
    /// from 0 up to 1.
    pub fn fate(&self, tries: usize, outcome: Outcome, chance: f64) -> Fate {
        let asked = match outcome {
            Outcome::Answered(200..=299, _) => return Fate::Delivered,
            Outcome::Answered(410, _) => return Fate::Dead(Cause::Gone),
            Outcome::Answered(_, asked) => asked.unwrap_or_default(),
            Outcome::NotAnswered => Duration::ZERO,
        };
        let Some(pause) = self.0.get(tries.saturating_sub(1)) else {
            return Fate::Dead(Cause::Exhausted);
        };
        let pause = pause.mul_f64(1.0 + SPREAD * (2.0 * chance - 1.0));
        Fate::Again {
            after: pause.max(asked.min(LONGEST_ASKED)),
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self(USUAL.map(Duration::from_secs).to_vec())
    }
}

/// Reads a `Retry-After`: seconds, or a date. RFC 9110, 10.2.3.
pub fn pause_asked_for(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    // What is past asks for no pause.
    Some(
        SystemTime::from(date)
            .duration_since(now)
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    /// Plays tries that all come to `outcome`. Returns when each was made, and the end.
    fn play(schedule: &Schedule, outcome: Outcome, chance: f64) -> (Vec<Duration>, Fate) {
        let mut now = Duration::ZERO;
        let mut tries = Vec::new();
        loop {
            tries.push(now);
            match schedule.fate(tries.len(), outcome, chance) {
                Fate::Again { after } => now += after,
                end @ (Fate::Delivered | Fate::Dead(_)) => return (tries, end),
            }
        }
    }

    #[test]
    fn a_receiver_that_is_away_is_tried_for_a_day() {
        let (tries, end) = play(&Schedule::default(), Outcome::NotAnswered, 0.5);
        assert_eq!(end, Fate::Dead(Cause::Exhausted));
        let seconds: Vec<_> = tries.iter().map(Duration::as_secs).collect();
        assert_eq!(
            seconds,
            [
                0, 5, 35, 155, 755, 2_555, 6_155, 13_355, 27_755, 56_555, 85_355
            ]
        );
        for chance in [0.0, 0.999] {
            let (tries, _) = play(&Schedule::default(), Outcome::NotAnswered, chance);
            let hours = tries.last().unwrap().as_secs() / 3_600;
            assert!((21..=26).contains(&hours), "{hours}");
        }
    }

    #[test]
    fn one_that_comes_back_within_the_day_gets_its_events() {
        for back_after in [0, 60, 3_600, 43_200, 70_000] {
            let back_after = Duration::from_secs(back_after);
            let (mut now, mut tries) = (Duration::ZERO, 0);
            loop {
                tries += 1;
                let status = if now < back_after { 503 } else { 204 };
                let outcome = Outcome::Answered(status, None);
                match Schedule::default().fate(tries, outcome, 0.5) {
                    Fate::Again { after } => now += after,
                    Fate::Delivered => break,
                    Fate::Dead(cause) => panic!("{cause:?} after {now:?}"),
                }
            }
            assert!(now >= back_after);
        }
    }

    #[test]
    fn a_status_decides() {
        let fate = |status| Schedule::default().fate(1, Outcome::Answered(status, None), 0.5);
        for delivered in [200, 201, 202, 204, 299] {
            assert_eq!(fate(delivered), Fate::Delivered);
        }
        assert_eq!(fate(410), Fate::Dead(Cause::Gone));
        let after = Duration::from_secs(5);
        for again in [
            100, 301, 302, 307, 400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 599,
        ] {
            assert_eq!(fate(again), Fate::Again { after }, "{again}");
        }
    }

    #[test]
    fn a_pause_that_is_asked_for_is_made_up_to_an_hour_and_never_shortens_ours() {
        let after = |tries, asked| {
            let asked = Some(Duration::from_secs(asked));
            match Schedule::default().fate(tries, Outcome::Answered(429, asked), 0.5) {
                Fate::Again { after } => after.as_secs(),
                end @ (Fate::Delivered | Fate::Dead(_)) => panic!("{end:?}"),
            }
        };
        assert_eq!(after(1, 0), 5);
        assert_eq!(after(1, 60), 60);
        assert_eq!(after(1, 3_600), 3_600);
        assert_eq!(after(1, u64::MAX), 3_600);
        assert_eq!(after(9, 60), 28_800);
    }

    #[test]
    fn who_asks_for_a_pause_because_of_too_much_is_left_alone_for_a_minute_at_most() {
        for (status, asked, rest) in [
            (429, Some(7), Some(7)),
            (503, Some(7), Some(7)),
            (429, Some(3_600), Some(60)),
            (429, None, None),
            (500, Some(7), None),
            (200, Some(7), None),
        ] {
            let outcome = Outcome::Answered(status, asked.map(Duration::from_secs));
            let rest = rest.map(Duration::from_secs);
            assert_eq!(outcome.rest(), rest, "{status} {asked:?}");
        }
        assert_eq!(Outcome::NotAnswered.rest(), None);
    }

    #[test]
    fn the_last_try_is_never_later_than_the_longest_schedule() {
        let longest = Schedule::default().longest();
        for chance in [0.0, 0.5, 0.999_999] {
            let (tries, _) = play(&Schedule::default(), Outcome::NotAnswered, chance);
            assert!(tries.last().unwrap() <= &longest, "{tries:?}");
        }
        assert_eq!(longest.as_secs() / 3_600, 26);
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_798_761_540); // 2026-12-31 23:59:00
        for (text, pause) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Thu, 31 Dec 2026 23:59:59 GMT", Some(59)),
            ("Thu, 31 Dec 2026 23:58:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let pause = pause.map(Duration::from_secs);
            assert_eq!(pause_asked_for(text, now), pause, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_delivery_ends_whatever_is_answered(
            answers in proptest::collection::vec((100u16..600, proptest::option::of(any::<u64>())), 1..40),
            chance in 0.0..1.0f64,
        ) {
            let mut left = answers.iter().cycle();
            let schedule = Schedule::default();
            let ends = (1..=USUAL.len() + 1).any(|tries| {
                let (status, asked) = left.next().unwrap();
                let outcome = Outcome::Answered(*status, asked.map(Duration::from_secs));
                !matches!(schedule.fate(tries, outcome, chance), Fate::Again { .. })
            });
            prop_assert!(ends);
        }
    }
}
