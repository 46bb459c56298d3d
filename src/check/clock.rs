//! Whether other clocks agree with ours: signatures, tokens and leases are dated.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use reqwest::{Client, header::DATE};
use url::Url;

use crate::check::finding::{Finding, Level};

/// What may differ without a word, in milliseconds.
const UNNOTICED: i64 = 5_000;
/// What events' receivers and tokens' issuers mostly put up with, in milliseconds.
const MOST: i64 = 300_000;
/// A date in a header is cut to whole seconds.
const SECOND: i64 = 1_000;

/// Whose clock it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clock {
    Redis,
    Database,
    /// A server of this name, by its answer's date.
    Host(String),
}

/// The time by our clock, in Unix milliseconds.
pub fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Says how a clock goes that showed `theirs` between two looks at ours, and that shows no less
/// than `step` milliseconds.
pub fn compare(clock: Clock, (before, after): (i64, i64), theirs: i64, step: i64) -> Finding {
    let ahead = if theirs > after {
        theirs - after
    } else if theirs + step < before {
        theirs + step - before
    } else {
        0
    };
    if ahead.abs() < UNNOTICED {
        Finding::ClockFits(clock)
    } else {
        Finding::ClockOff(clock, ahead)
    }
}

/// Asks a server for nothing but the date, without credentials; `None` where it says none.
pub async fn of_server(http: &Client, server: &Url) -> Option<Finding> {
    let host = server.host_str()?.to_owned();
    let mut root = server.clone();
    root.set_path("/");
    root.set_query(None);
    let before = now();
    let answer = http.head(root).send().await.ok()?;
    let after = now();
    let date = answer.headers().get(DATE)?.to_str().ok()?;
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    let theirs = parser.parse_timestamp(date).ok()?.as_millisecond();
    Some(compare(Clock::Host(host), (before, after), theirs, SECOND))
}

/// Says how far a clock is from ours that is `ahead` by so many milliseconds.
pub fn apart(ahead: i64) -> String {
    let apart = Duration::from_millis(ahead.unsigned_abs()).as_secs();
    if ahead > 0 {
        format!("it is {apart} s ahead of")
    } else {
        format!("it is {apart} s behind")
    }
}

impl Clock {
    pub(super) fn level(&self, ahead: i64) -> Level {
        match self {
            // Each replica trusts the store's clock alone, and rows are dated by the database's.
            Self::Redis | Self::Database => Level::Warning,
            Self::Host(_) if ahead.abs() < MOST => Level::Warning,
            Self::Host(_) => Level::Error,
        }
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis => f.write_str("Redis"),
            Self::Database => f.write_str("the database"),
            Self::Host(host) => f.write_str(host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_neither_the_way_nor_its_step_explains() {
        const T: i64 = 1_800_000_000_000;
        let table = [
            ((T, T + 40), T + 20, 0, None),
            ((T, T + 40), T - 900, SECOND, None),
            ((T, T + 4_000), T + 3_999, 0, None),
            ((T, T + 40), T + 4_000, 0, None),
            ((T, T + 40), T + 60_040, 0, Some((60_000, Level::Warning))),
            (
                (T, T + 40),
                T - 61_000,
                SECOND,
                Some((-60_000, Level::Warning)),
            ),
            (
                (T, T + 40),
                T + 400_040,
                SECOND,
                Some((400_000, Level::Error)),
            ),
            (
                (T, T + 40),
                T - 401_000,
                SECOND,
                Some((-400_000, Level::Error)),
            ),
        ];
        for (ours, theirs, step, expected) in table {
            let clock = Clock::Host("example.com".to_owned());
            let found = compare(clock, ours, theirs, step);
            let off = if let Finding::ClockOff(_, ahead) = &found {
                Some((*ahead, found.level()))
            } else {
                None
            };
            assert_eq!(off, expected, "{theirs}");
        }
    }

    #[test]
    fn how_far_it_is_off_is_said_in_seconds() {
        assert_eq!(apart(60_400), "it is 60 s ahead of");
        assert_eq!(apart(-7_200_000), "it is 7200 s behind");
    }
}
