//! A slot as a value: dropping it gives it back.

use tokio::sync::mpsc;

use crate::call::CarrierCallId;

/// A slot's entry in the store, as its owner knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub call: CarrierCallId,
    /// Grows with every new owner: the highest one owns the call.
    pub epoch: u64,
}

/// One unit of capacity in every scope of a call. Dropping it gives it back: `drop` cannot await
/// a store, so it hands the lease to the task that can; a lease nobody returns will lapse.
#[must_use = "a slot that is dropped at once is given back at once"]
#[derive(Debug)]
pub struct Slot {
    lease: Lease,
    /// Unbounded, yet never longer than the number of slots there are.
    freed: mpsc::UnboundedSender<Lease>,
}

impl Slot {
    pub(super) fn new(lease: Lease, freed: mpsc::UnboundedSender<Lease>) -> Self {
        Self { lease, freed }
    }

    pub fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Fails only when the releasing task is gone, at process exit: then the lease lapses.
        let _ = self.freed.send(self.lease.clone());
    }
}
