//! Leaves an agent alone that fails again and again, so that the next caller hears so at once.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many failures in a row open the breaker.
const FAILURES: u32 = 3;
/// How long it stays open before one call may try again.
const REST: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// When the next try may be made, once there were enough failures.
    next_try: Option<Instant>,
    /// Whether the replicas hold that the agent keeps failing.
    fails_for_all: bool,
    /// Whether it was reached here all the same, which they are to hear.
    was_reached: bool,
}

impl Breaker {
    /// Tells whether a try may be made; the one that may, while the breaker is open, is the only
    /// one until it is recorded or another rest has passed.
    pub fn may_try(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        match state.next_try {
            Some(next_try) if now < next_try => false,
            Some(_) => {
                state.next_try = Some(now + REST);
                true
            }
            None => true,
        }
    }

    pub fn record(&self, worked: bool) {
        let mut state = self.lock();
        if worked {
            *state = State {
                was_reached: state.fails_for_all,
                fails_for_all: state.fails_for_all,
                ..State::default()
            };
            return;
        }
        state.was_reached = false;
        state.failures += 1;
        if state.failures >= FAILURES {
            state.next_try = Some(Instant::now() + REST);
        }
    }

    pub fn is_open(&self) -> bool {
        self.rests().is_some()
    }

    /// Returns for how long no try may be made.
    pub fn rests(&self) -> Option<Duration> {
        let rest = self.lock().next_try?.duration_since(Instant::now());
        (rest > Duration::ZERO).then_some(rest)
    }

    /// Notes whether the replicas hold that the agent keeps failing.
    pub fn learn(&self, fails_for_all: bool) {
        let mut state = self.lock();
        state.fails_for_all = fails_for_all;
        state.was_reached &= fails_for_all;
    }

    /// Tells whether the agent was reached though the replicas hold that it keeps failing.
    pub fn was_reached(&self) -> bool {
        self.lock().was_reached
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_fails_thrice_rests_and_is_then_tried_by_one_call() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            assert!(breaker.may_try());
            breaker.record(false);
        }
        assert!(!breaker.may_try());
        tokio::time::advance(REST).await;
        assert!(breaker.may_try());
        assert!(!breaker.may_try());
        breaker.record(true);
        assert!(breaker.may_try());
        assert!(breaker.may_try());
    }

    #[tokio::test(start_paused = true)]
    async fn who_reaches_an_agent_that_the_replicas_leave_alone_has_news_for_them() {
        let breaker = Breaker::default();
        breaker.record(true);
        assert!(!breaker.was_reached(), "nobody has left it alone");
        breaker.learn(true);
        breaker.record(true);
        assert!(breaker.was_reached());
        breaker.record(false);
        assert!(!breaker.was_reached(), "it is over again");
        breaker.record(true);
        breaker.learn(false);
        assert!(!breaker.was_reached(), "they know");
    }
}
