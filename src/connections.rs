//! This replica's live connections. An entry holds its call's slot: removing it gives the slot
//! back.

mod pulse;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

use crate::{
    admission::{Slot, SlotId},
    call::{CallId, CallerId, Carrier, CarrierCallId, EndReason},
    campaign::Name,
};

pub use pulse::{Pulse, Reading};

/// The name of one media socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct ConnectionId(Uuid);

/// Lists the media sockets of this replica and bounds their number.
#[derive(Debug)]
pub struct ConnectionManager {
    most: usize,
    inner: Mutex<Inner>,
    /// Whether somebody watches.
    watched: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Sockets whose call is not known yet count too.
    places: usize,
    entries: HashMap<ConnectionId, Entry>,
}

#[derive(Debug)]
struct Entry {
    call: CarrierCallId,
    call_id: CallId,
    campaign: Name,
    caller: CallerId,
    connected_at: Timestamp,
    pulse: Arc<Pulse>,
    /// Dropping the entry gives it back.
    slot: Slot,
    order: Option<oneshot::Sender<EndReason>>,
}

/// A socket's place among the connections; dropping it makes room, takes the entry out and so
/// gives the slot back.
#[derive(Debug)]
pub struct Place {
    id: ConnectionId,
    opened: Instant,
    pulse: Arc<Pulse>,
    manager: Arc<ConnectionManager>,
}

/// What call a socket has brought.
#[derive(Debug, Clone)]
pub struct Brought {
    pub call: CarrierCallId,
    pub call_id: CallId,
    pub campaign: Name,
    pub caller: CallerId,
}

/// A live call as it is at the moment.
#[derive(Debug)]
pub struct Live {
    pub brought: Brought,
    pub connected_at: Timestamp,
    pub reading: Reading,
}

/// Completes with the reason for which a live call must end.
pub type Orders = oneshot::Receiver<EndReason>;

/// A connection as operators see it; the caller is masked.
#[derive(Debug, Serialize)]
pub struct Listed {
    pub connection_id: ConnectionId,
    pub caller_id: String,
    pub r#type: Carrier,
    pub connected_at: Timestamp,
    pub status: &'static str,
    pub call_id: CarrierCallId,
}

impl ConnectionManager {
    pub fn new(most: u32) -> Arc<Self> {
        Arc::new(Self {
            most: usize::try_from(most).unwrap_or(usize::MAX),
            inner: Mutex::default(),
            watched: Arc::default(),
        })
    }

    /// Takes a place for a socket; `None` when all are taken.
    pub fn take_place(self: &Arc<Self>) -> Option<Place> {
        let id = ConnectionId(Uuid::new_v4());
        let mut inner = self.lock();
        if inner.places >= self.most {
            drop(inner);
            tracing::warn!("Failed to register connection {id} - connection limit reached");
            return None;
        }
        inner.places += 1;
        Some(Place {
            id,
            opened: Instant::now(),
            pulse: Arc::new(Pulse::new(Arc::clone(&self.watched))),
            manager: Arc::clone(self),
        })
    }

    /// Ends a live call; tells whether there was one to end.
    pub fn end(&self, call: &CarrierCallId, reason: EndReason) -> bool {
        let mut inner = self.lock();
        let entries = inner
            .entries
            .values_mut()
            .filter(|entry| entry.call == *call);
        let mut ended = false;
        for order in entries.filter_map(|entry| entry.order.take()) {
            // A bridge that is already returning does not listen any more.
            ended |= order.send(reason).is_ok();
        }
        ended
    }

    /// Tells whether a call is carried here.
    pub fn has(&self, call: &CarrierCallId) -> bool {
        let inner = self.lock();
        inner.entries.values().any(|entry| entry.call == *call)
    }

    /// Returns its carrier's name for a call that is carried here.
    pub fn name_of(&self, call: CallId) -> Option<CarrierCallId> {
        let inner = self.lock();
        let mut entries = inner.entries.values();
        let entry = entries.find(|entry| entry.call_id == call);
        entry.map(|entry| entry.call.clone())
    }

    /// Ends the call whose slot was lost to a later owner, or to a word that it is over.
    pub fn end_lost(&self, slot: SlotId, reason: EndReason) {
        let mut inner = self.lock();
        let mut entries = inner.entries.values_mut();
        let entry = entries.find(|entry| entry.slot.id() == slot);
        if let Some(order) = entry.and_then(|entry| entry.order.take()) {
            let _ = order.send(reason); // A bridge that is already returning does not listen.
        }
    }

    /// Ends one live call, whichever; `None` when there is none left to end.
    pub fn end_any(&self, reason: EndReason) -> Option<ConnectionId> {
        let mut inner = self.lock();
        let (id, entry) = inner
            .entries
            .iter_mut()
            .find(|(_, entry)| entry.order.is_some())?;
        let _ = entry.order.take()?.send(reason);
        Some(*id)
    }

    /// Returns how many sockets there are, those without a call included.
    pub fn count(&self) -> usize {
        self.lock().places
    }

    /// Returns how many sockets there is still a place for.
    pub fn free(&self) -> u32 {
        let free = self.most.saturating_sub(self.lock().places);
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    pub fn most(&self) -> usize {
        self.most
    }

    pub fn list(&self) -> Vec<Listed> {
        let listed = |(id, entry): (&ConnectionId, &Entry)| Listed {
            connection_id: *id,
            caller_id: entry.caller.to_string(),
            r#type: entry.call.carrier(),
            connected_at: entry.connected_at,
            status: "connected",
            call_id: entry.call.clone(),
        };
        self.lock().entries.iter().map(listed).collect()
    }

    /// Returns who rings on each connection, unmasked, as far as it is known here.
    pub fn whole_callers(&self) -> HashMap<ConnectionId, String> {
        let inner = self.lock();
        let entries = inner.entries.iter();
        let whole = entries.filter_map(|(id, entry)| Some((*id, entry.caller.whole()?.to_owned())));
        whole.collect()
    }

    /// Has live calls show what they are like, or not.
    pub fn watch(&self, watched: bool) {
        self.watched.store(watched, Ordering::Relaxed);
    }

    /// Returns the live calls that have been here longest, as they are at the moment.
    pub fn live(&self, most: usize) -> Vec<Live> {
        let live = |entry: &Entry| Live {
            brought: Brought {
                call: entry.call.clone(),
                call_id: entry.call_id,
                campaign: entry.campaign.clone(),
                caller: entry.caller.clone(),
            },
            connected_at: entry.connected_at,
            reading: entry.pulse.read(),
        };
        let mut all: Vec<Live> = self.lock().entries.values().map(live).collect();
        all.sort_by_key(|live| live.connected_at);
        all.truncate(most);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Returns where the socket's call shows what it is like.
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Enters the call that the socket has brought; from here on the entry holds its slot.
    pub fn enter(&mut self, brought: Brought, slot: Slot) -> Orders {
        let Brought {
            call,
            call_id,
            campaign,
            caller,
        } = brought;
        let (order, orders) = oneshot::channel();
        let mut inner = self.manager.lock();
        let line = format!(
            "Connection registered: {} (type={}, caller={caller}). Active connections: {}/{}",
            self.id,
            call.carrier().as_str(),
            inner.entries.len() + 1,
            self.manager.most,
        );
        inner.entries.insert(
            self.id,
            Entry {
                call,
                call_id,
                campaign,
                caller,
                connected_at: Timestamp::now(),
                pulse: Arc::clone(&self.pulse),
                slot,
                order: Some(order),
            },
        );
        drop(inner);
        tracing::info!("{line}");
        orders
    }
}

impl Place {
    /// Makes room as its call has ended; completes once the slot is given back.
    pub fn leave(self, reason: EndReason) -> Option<oneshot::Receiver<()>> {
        let entry = self.vacate()?;
        Some(entry.slot.give_back(reason))
    }

    fn vacate(&self) -> Option<Entry> {
        let mut inner = self.manager.lock();
        let entry = inner.entries.remove(&self.id);
        let active = inner.entries.len();
        drop(inner);
        if entry.is_some() {
            tracing::info!(
                "Connection unregistered: {} (duration={:.1}s). Active connections: {active}/{}",
                self.id,
                self.opened.elapsed().as_secs_f64(),
                self.manager.most,
            );
        }
        entry
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.vacate());
        self.manager.lock().places -= 1;
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
