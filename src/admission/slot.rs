//! A slot as a value: dropping it gives it back.

use tokio::sync::{mpsc, oneshot};

use crate::call::{CarrierCallId, EndReason};

/// A slot's entry in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub call: CarrierCallId,
    /// Grows with every new owner: the highest one owns the call.
    pub epoch: u64,
}

/// Tells the slots apart that this process has held: one call may hold one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotId(pub(super) u64);

/// One unit of capacity in every scope of a call. Dropping it gives it back: `drop` cannot await
/// a store, so it hands the slot to the task that can; a lease nobody returns will lapse.
#[must_use = "a slot that is dropped at once is given back at once"]
#[derive(Debug)]
pub struct Slot {
    call: CarrierCallId,
    id: SlotId,
    /// Unbounded, yet never longer than the number of slots there are.
    freed: mpsc::UnboundedSender<Freed>,
    ended: Option<(EndReason, oneshot::Sender<()>)>,
}

/// A slot that was dropped, for the task that gives it back.
#[derive(Debug)]
pub struct Freed {
    pub call: CarrierCallId,
    pub id: SlotId,
    pub reason: EndReason,
    /// Is sent to once the slot is back.
    pub done: Option<oneshot::Sender<()>>,
}

impl Slot {
    pub(super) fn new(
        call: CarrierCallId,
        id: SlotId,
        freed: mpsc::UnboundedSender<Freed>,
    ) -> Self {
        Self {
            call,
            id,
            freed,
            ended: None,
        }
    }

    pub fn id(&self) -> SlotId {
        self.id
    }

    /// Gives the slot back with the reason for which its call ended; completes once it is back.
    pub fn give_back(mut self, reason: EndReason) -> oneshot::Receiver<()> {
        let (done, is_back) = oneshot::channel();
        self.ended = Some((reason, done));
        is_back
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (reason, done) = match self.ended.take() {
            Some((reason, done)) => (reason, Some(done)),
            None if std::thread::panicking() => (EndReason::Panicked, None),
            None => (EndReason::Stopped, None),
        };
        // Fails only when the releasing task is gone, at process exit: then the lease lapses.
        let _ = self.freed.send(Freed {
            call: self.call.clone(),
            id: self.id,
            reason,
            done,
        });
    }
}
