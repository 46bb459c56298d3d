//! How calls ended that their carrier may still ask about. Whoever asks later is answered by what the
//! store remembers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::{
    admission::END_KNOWN,
    call::{CarrierCallId, EndReason, Farewell},
    recent::{Millis, Recent},
};

/// How calls ended that their carrier may still ask about.
#[derive(Debug)]
pub struct Farewells {
    started: Instant,
    ends: Mutex<Recent<CarrierCallId, EndReason>>,
}

impl Farewells {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            ends: Mutex::default(),
        }
    }

    pub(super) fn note(&self, call: &CarrierCallId, reason: EndReason) {
        let mut ends = self.lock();
        // The first reason is the one: what comes later is its consequence.
        // But a call that brought no media may still be rung for again.
        let first = ends.get(self.now(), call);
        if first.is_none_or(|first| *first == EndReason::NoMedia) {
            ends.put(self.now(), END_KNOWN, call.clone(), reason);
        }
    }

    /// Returns what the caller is still to hear, if the call is known to have ended.
    pub fn of(&self, call: &CarrierCallId) -> Option<Farewell> {
        self.lock()
            .get(self.now(), call)
            .map(|reason| reason.farewell())
    }

    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Recent<CarrierCallId, EndReason>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
