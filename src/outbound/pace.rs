//! How fast the carrier is asked for calls, and who has to come again.
//!
//! Invariant: a call is asked for when it can be dialed, since the carrier would keep the rest for
//! hours; whoever would wait for longer than it may is told so at once.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::sleep;

/// The most keys and numbers that are remembered, beyond which the oldest are forgotten.
const MOST_REMEMBERED: usize = 100_000;

/// Turns with the carrier, so many a second.
pub struct Pace {
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware>,
    clock: DefaultClock,
    period: Duration,
    longest: Duration,
    /// How many wait for their turn.
    waiting: Mutex<u32>,
}

/// There are too many before: when to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    pub again_in: Duration,
}

/// A place among those that wait for their turn. Dropping it leaves it to others.
pub struct Turn(Arc<Pace>);

impl Pace {
    /// Makes turns, `per_second` of them, for which nobody waits longer than `longest`.
    pub fn new(per_second: u32, longest: Duration) -> Self {
        let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
        // One at a time: a burst would wait at the carrier.
        let quota = Quota::per_second(per_second).allow_burst(NonZeroU32::MIN);
        Self {
            limiter: RateLimiter::direct(quota),
            clock: DefaultClock::default(),
            period: Duration::from_secs(1) / per_second.get(),
            longest,
            waiting: Mutex::new(0),
        }
    }

    /// Takes a place in the queue.
    ///
    /// # Errors
    /// If the turn would come too late.
    pub fn queue(self: &Arc<Self>) -> Result<Turn, TooMany> {
        let mut waiting = self.lock();
        let wait = self.period * *waiting;
        if wait > self.longest {
            return Err(TooMany {
                again_in: wait.saturating_sub(self.longest).max(self.period),
            });
        }
        *waiting += 1;
        drop(waiting);
        Ok(Turn(Arc::clone(self)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, u32> {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Turn {
    /// Completes when it is its turn.
    pub async fn comes(self) {
        while let Err(not_until) = self.0.limiter.check() {
            sleep(not_until.wait_time_from(self.0.clock.now())).await;
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
    }
}

/// What has happened lately, by whom or to whom: at most so often within a window.
#[derive(Debug)]
pub struct Window<K> {
    most: usize,
    lasts: Duration,
    past: HashMap<K, VecDeque<Duration>>,
}

impl<K: Eq + Hash + Clone> Window<K> {
    pub fn new(most: u32, lasts: Duration) -> Self {
        Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            lasts,
            past: HashMap::new(),
        }
    }

    /// Tells how long it is until one more may be noted.
    ///
    /// # Errors
    /// If there were as many as there may be.
    pub fn look(&self, now: Duration, key: &K) -> Result<(), TooMany> {
        let past = self.past.get(key).into_iter().flatten();
        let mut within = past.filter(|at| **at + self.lasts > now);
        match within.next() {
            Some(first) if within.count() + 1 >= self.most => Err(TooMany {
                again_in: (*first + self.lasts).saturating_sub(now),
            }),
            _ => Ok(()),
        }
    }

    /// Notes one more at `now`, a time since any beginning.
    ///
    /// # Errors
    /// If there were as many as there may be; it is not noted then.
    pub fn note(&mut self, now: Duration, key: &K) -> Result<(), TooMany> {
        if self.past.len() >= MOST_REMEMBERED {
            self.past
                .retain(|_, past| past.back().is_some_and(|at| *at + self.lasts > now));
        }
        let past = self.past.entry(key.clone()).or_default();
        while past.front().is_some_and(|at| *at + self.lasts <= now) {
            past.pop_front();
        }
        match past.front() {
            Some(first) if past.len() >= self.most => Err(TooMany {
                again_in: (*first + self.lasts).saturating_sub(now),
            }),
            _ => {
                past.push_back(now);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_window_lets_so_many_pass_and_says_when_the_next_may() {
        let mut window = Window::new(2, MINUTE);
        let at = Duration::from_secs;
        assert_eq!(window.note(at(0), &"a"), Ok(()));
        assert_eq!(window.note(at(10), &"a"), Ok(()));
        let again_in = at(40);
        assert_eq!(window.look(at(20), &"a"), Err(TooMany { again_in }));
        assert_eq!(window.look(at(60), &"a"), Ok(()), "looking notes nothing");
        assert_eq!(window.note(at(20), &"a"), Err(TooMany { again_in }));
        assert_eq!(window.note(at(20), &"b"), Ok(()), "others have their own");
        assert_eq!(window.note(at(60), &"a"), Ok(()));
        let again_in = at(10);
        assert_eq!(window.note(at(60), &"a"), Err(TooMany { again_in }));
    }

    #[test]
    fn who_would_wait_too_long_is_told_so_and_who_leaves_makes_room() {
        let pace = Arc::new(Pace::new(2, Duration::from_secs(1)));
        let turns: Vec<_> = (0..3).map(|_| pace.queue().ok().unwrap()).collect();
        let again_in = Duration::from_millis(500);
        assert_eq!(pace.queue().err(), Some(TooMany { again_in }));
        drop(turns);
        assert!(pace.queue().is_ok());
    }

    #[tokio::test]
    async fn turns_come_one_after_the_other() {
        let pace = Arc::new(Pace::new(20, Duration::from_secs(10)));
        let began = tokio::time::Instant::now();
        for _ in 0..5 {
            pace.queue().ok().unwrap().comes().await;
        }
        assert!(began.elapsed() >= Duration::from_millis(200));
    }
}
