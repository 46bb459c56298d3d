//! By which of our ids calls go that we placed: their carriers' names say nothing of that.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{
    call::{CallId, CarrierCallId},
    recent::{Millis, Recent},
    record::unix_millis,
};

/// How long a name is remembered: longer than calls last, which is a day at most.
const KEPT: Millis = 25 * 3_600_000;

/// The carriers' names of calls that we placed, as far as this replica has heard of them. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub struct PlacedNames(Arc<Mutex<Recent<CarrierCallId, CallId>>>);

impl PlacedNames {
    /// Remembers that a carrier calls our `call` so.
    pub fn note(&self, name: &CarrierCallId, call: CallId) {
        let now = unix_millis();
        if CallId::of(name) == call {
            return; // The name says it.
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(now, name).is_none() {
            known.put(now, KEPT, name.clone(), call);
        }
    }

    /// Returns our id of the call that its carrier calls so.
    pub fn id_of(&self, name: &CarrierCallId) -> CallId {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(unix_millis(), name).copied();
        known.unwrap_or_else(|| CallId::of(name))
    }
}
