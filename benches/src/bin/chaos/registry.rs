//! What Redis has written down, beside what is so.

use std::collections::HashSet;
use std::time::Duration;

use callgate_benches::carrier::Truth;
use callgate_benches::cluster::Redis;
use serde::Serialize;
use tokio::time::{Instant, sleep};

/// How long a call may take to be written down, or struck out, while all is well: requests on their
/// way, and a lease that is released a moment after the carrier has told of the call's end.
const ON_THE_WAY: Duration = Duration::from_millis(1_500);
const PAUSE: Duration = Duration::from_millis(50);

/// How a registry differs from the truth.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Calls that are live and not written down.
    pub missing: usize,
    /// Calls that are written down and not live.
    pub ghosts: usize,
}

/// Waits until what is written down is what is so, and tells how long that took; or how it differs
/// in the end.
pub async fn until_true(
    redis: &Redis,
    truth: &Truth,
    patience: Duration,
) -> Result<Duration, Difference> {
    until(redis, truth, patience, |it| *it == Difference::default()).await
}

/// Waits until every live call is written down, whatever else is.
pub async fn until_complete(
    redis: &Redis,
    truth: &Truth,
    patience: Duration,
) -> Result<Duration, Difference> {
    until(redis, truth, patience, |it| it.missing == 0).await
}

async fn until(
    redis: &Redis,
    truth: &Truth,
    patience: Duration,
    is_enough: impl Fn(&Difference) -> bool,
) -> Result<Duration, Difference> {
    let began = Instant::now();
    let mut last = Difference {
        missing: truth.live(),
        ghosts: 0,
    };
    while began.elapsed() < patience {
        let read = Instant::now();
        if let Ok(registry) = redis.leased().await {
            let earlier = read.checked_sub(ON_THE_WAY).unwrap_or(read);
            last = difference(
                &registry,
                &truth.live_since(earlier),
                &truth.known_since(earlier),
            );
            if is_enough(&last) {
                return Ok(began.elapsed());
            }
        }
        sleep(PAUSE).await;
    }
    Err(last)
}

/// Compares what is written down at this moment with the calls that are live, those on their way
/// included.
pub async fn compare(redis: &Redis, truth: &Truth) -> anyhow::Result<Difference> {
    let live = truth.live_since(Instant::now());
    Ok(difference(&redis.leased().await?, &live, &live))
}

/// Compares a registry with the calls that have to be in it, and with those that may be.
fn difference(
    registry: &HashSet<String>,
    must: &HashSet<String>,
    may: &HashSet<String>,
) -> Difference {
    Difference {
        missing: must.difference(registry).count(),
        ghosts: registry.difference(may).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_on_their_way_are_no_difference() {
        let set = |sids: &[&str]| sids.iter().map(|sid| (*sid).to_owned()).collect();
        let (must, may) = (set(&["old"]), set(&["old", "new", "just ended"]));
        for (registry, missing, ghosts) in [
            (set(&["old"]), 0, 0),
            (set(&["old", "new", "just ended"]), 0, 0),
            (set(&["new"]), 1, 0),
            (set(&["old", "long gone"]), 0, 1),
        ] {
            let expected = Difference { missing, ghosts };
            assert_eq!(difference(&registry, &must, &may), expected, "{registry:?}");
        }
    }
}
