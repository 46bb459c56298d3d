//! The time that leases and tickets are dated by.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::recent::Millis;

/// Leases and tickets are compared between replicas, so they are dated by the store's clock;
/// within a process time only moves forward, whatever is done to the machine's clock.
pub struct Clock {
    started: Instant,
    unix: Duration,
    /// What the store's clock is ahead, in milliseconds; `i64::MIN` before it was heard of.
    ahead: AtomicI64,
}

/// How far the store's clock may run away from ours between two heartbeats: less than the set-up
/// lease, more than a process is ever held up without being lost.
const CLOCK_JUMP: Duration = Duration::from_secs(10);

impl Clock {
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started: Instant::now(),
            unix: unix.unwrap_or_default(),
            ahead: AtomicI64::new(i64::MIN),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the time that this process goes by.
    pub fn local(&self) -> Millis {
        millis(self.unix + self.started.elapsed())
    }

    /// Returns the time that all replicas go by.
    pub fn shared(&self) -> Millis {
        let ahead = match self.ahead.load(Ordering::Relaxed) {
            i64::MIN => 0,
            ahead => ahead,
        };
        self.local().saturating_add_signed(ahead)
    }

    /// Returns what the machine's clock is ahead of the time that all replicas go by, in seconds.
    pub fn skew(&self) -> f64 {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH);
        let shared = Duration::from_millis(self.shared());
        machine.unwrap_or_default().as_secs_f64() - shared.as_secs_f64()
    }

    /// Takes over the store's time; tells whether it has jumped.
    pub fn set(&self, store: Millis) -> bool {
        let ahead = i128::from(store) - i128::from(self.local());
        let ahead = i64::try_from(ahead).unwrap_or(0);
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        before != i64::MIN && u128::from(ahead.abs_diff(before)) > CLOCK_JUMP.as_millis()
    }
}

pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
