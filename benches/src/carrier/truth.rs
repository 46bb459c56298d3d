//! Which calls are live, as the carrier knows it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long an ended call is remembered.
const MEMORY: Duration = Duration::from_secs(10);

/// The calls that were told to connect and have not ended.
///
/// A call is noted after the gateway's word that it may come in, and struck before the gateway is
/// told that it has ended. So it is never counted while the gateway rightly has no slot for it, and
/// a count above the cap is the gateway's mistake. The one exception are calls that the gateway
/// ends by itself, which are struck when their socket closes, a moment late.
#[derive(Default)]
pub struct Truth {
    calls: Mutex<Calls>,
    /// As many as are in the table, to be read without its lock.
    count: AtomicUsize,
    peak: AtomicUsize,
}

#[derive(Default)]
struct Calls {
    /// With the time of their admission.
    live: HashMap<String, Instant>,
    /// Those that ended of late, oldest first.
    ended: VecDeque<(Instant, String)>,
}

impl Truth {
    /// Notes an admitted call. A repeated answer changes nothing.
    pub fn admitted(&self, sid: &str) {
        let live = &mut self.lock().live;
        live.entry(sid.to_owned()).or_insert_with(Instant::now);
        self.count.store(live.len(), Ordering::SeqCst);
        self.peak.fetch_max(live.len(), Ordering::SeqCst);
    }

    /// Strikes a call that has ended.
    pub fn ended(&self, sid: &str) {
        let mut calls = self.lock();
        if calls.live.remove(sid).is_none() {
            return;
        }
        self.count.store(calls.live.len(), Ordering::SeqCst);
        let now = Instant::now();
        calls.ended.push_back((now, sid.to_owned()));
        while calls
            .ended
            .front()
            .is_some_and(|(at, _)| MEMORY < now - *at)
        {
            calls.ended.pop_front();
        }
    }

    pub fn live(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Returns the most calls that ever were live at once, since [`Self::forget_peak`].
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::SeqCst)
    }

    pub fn forget_peak(&self) {
        self.peak.store(self.live(), Ordering::SeqCst);
    }

    /// Lists the calls that are live, and were `since` already.
    pub fn live_since(&self, since: Instant) -> HashSet<String> {
        let calls = self.lock();
        let old = calls.live.iter().filter(|(_, began)| **began <= since);
        old.map(|(sid, _)| sid.clone()).collect()
    }

    /// Lists the calls that are live, or ended `since` then, which has to be of late.
    pub fn known_since(&self, since: Instant) -> HashSet<String> {
        let calls = self.lock();
        let ended = calls.ended.iter().filter(|(at, _)| since <= *at);
        let ended = ended.map(|(_, sid)| sid);
        calls.live.keys().chain(ended).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_counts_once_until_it_ends() {
        let truth = Truth::default();
        for sid in ["one", "one", "two"] {
            truth.admitted(sid);
        }
        assert_eq!((truth.live(), truth.peak()), (2, 2));
        truth.ended("one");
        truth.ended("one");
        truth.ended("unknown");
        assert_eq!((truth.live(), truth.peak()), (1, 2));
        truth.forget_peak();
        assert_eq!(truth.peak(), 1);
        let now = Instant::now();
        let set = |sids: &[&str]| sids.iter().map(|sid| (*sid).to_owned()).collect();
        assert_eq!(truth.live_since(now), set(&["two"]));
        let earlier = now.checked_sub(MEMORY).unwrap();
        assert_eq!(truth.live_since(earlier), set(&[]));
        assert_eq!(truth.known_since(earlier), set(&["one", "two"]));
    }
}
