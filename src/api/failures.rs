//! How many requests without a good key are put up with, from one address and from all together.
//!
//! Invariant: a good key is never refused because of wrong ones.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{
    DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

/// What an address may fail at once, and then within a minute.
const OF_ADDRESS: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
/// What all addresses together may fail at once, and then within a second.
const OF_ALL: NonZeroU32 = NonZeroU32::new(100).expect("not zero");
/// How many addresses are remembered at most.
const MOST_ADDRESSES: usize = 10_000;

/// Counts failures.
pub struct Failures {
    of_address: DefaultKeyedRateLimiter<IpAddr>,
    of_all: DefaultDirectRateLimiter,
}

impl Failures {
    pub fn new() -> Self {
        Self {
            of_address: RateLimiter::keyed(Quota::per_minute(OF_ADDRESS)),
            of_all: RateLimiter::direct(Quota::per_second(OF_ALL)),
        }
    }

    /// Counts a failure.
    ///
    /// # Errors
    /// If there are too many: with how long to wait.
    pub fn count(&self, address: IpAddr) -> Result<(), Duration> {
        let now = DefaultClock::default().now();
        if self.of_address.len() > MOST_ADDRESSES {
            self.of_address.retain_recent();
        }
        if self.of_address.len() <= MOST_ADDRESSES {
            let checked = self.of_address.check_key(&address);
            checked.map_err(|until| until.wait_time_from(now))?;
        }
        self.of_all
            .check()
            .map_err(|until| until.wait_time_from(now))
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "failures of {} addresses", self.of_address.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_too_often_waits_and_another_does_not() {
        let failures = Failures::new();
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        for _ in 0..OF_ADDRESS.get() {
            assert_eq!(failures.count(one), Ok(()));
        }
        let wait = failures.count(one).unwrap_err();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_secs(3),
            "{wait:?}"
        );
        assert_eq!(failures.count(other), Ok(()));
    }

    #[test]
    fn all_addresses_together_wait_too() {
        let failures = Failures::new();
        let count = |number: u16| {
            let [high, low] = number.to_be_bytes();
            failures.count([10, 0, high, low].into())
        };
        let refused = (0..1_000).filter(|number| count(*number).is_err()).count();
        assert!(refused > 500, "{refused}");
    }
}
