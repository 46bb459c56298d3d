//! What a store of slots does, be it this process's memory or a Redis that replicas share.

mod agents;

use std::{sync::Mutex, time::Duration};

use crate::{
    admission::{
        Kept, Lease, Refusal, lock,
        memory::MemoryStore,
        redis::{RedisStore, StoreError},
        scope::{Room, Scope},
        state::Fate,
    },
    call::{CarrierCallId, EndReason},
    campaign::Name,
    recent::Millis,
};

pub use agents::{AgentReport, AgentUse, Choice, Choices, MINUTE, REST, Rest, TRIED_FOR};

/// How long a refusal is kept for a repeated webhook. An admission is kept as long as its slot,
/// and no longer than this.
pub const DECISION_KEPT: Millis = 60_000;
/// How long a call that has ended is remembered, so that it is never admitted again.
pub const END_KEPT: Millis = 3_600_000;
/// How long a replica knows of it by itself; whoever asks later is answered by the store.
pub const END_KNOWN: Millis = 600_000;
/// How long a used ticket is remembered: longer than it could be used.
pub const NONCE_KEPT: Millis = 60_000;
/// How many set-ups tell whether calls bring their media.
pub const SETUPS_REMEMBERED: usize = 100;

/// Where slots are counted.
#[derive(Debug)]
pub enum Store {
    Memory(Box<Mutex<MemoryStore>>),
    Redis(Box<RedisStore>),
}

/// A call that asks for a slot, or that brings its media.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub call: &'a CarrierCallId,
    /// The scopes that the call counts in: the global one first, the set-up one second if it waits
    /// for media. That of its agent is among them only once it has one.
    pub rooms: &'a [Room],
    /// How long the slot lasts unless it is renewed.
    pub lease: Millis,
}

/// A call's media, as it arrives.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// What its ticket is known by.
    pub nonce: &'a str,
    /// Whether it was admitted without the store: then it needs no room.
    pub admitted_without: bool,
    /// What is kept of the call for whoever asks, as a JSON object.
    pub state: &'a str,
    /// The agent that is dialed for it, where dials are counted.
    pub dials: Option<&'a Name>,
}

/// What became of a request for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// `used` is what each scope holds with it, in the order of the request; the agent's comes last,
    /// where it is counted.
    Admitted {
        epoch: u64,
        used: Vec<u32>,
        /// Which of its choices it has.
        agent: usize,
    },
    Refused(Refusal),
    /// The same webhook was decided before.
    Repeated(Kept),
    /// It holds a slot, and its webhook was too long ago to be answered again.
    Held,
    /// The call is over.
    Ended,
    /// The store may not know all calls yet.
    Resync,
}

/// What became of a call that has brought its media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    Live {
        lease: Lease,
        /// What the store keeps of the call.
        state: String,
        /// Whether the store may not know all calls yet.
        gated: bool,
    },
    Used,
    Ended,
    /// The slot had lapsed and there was no other.
    Refused(Refusal),
}

/// A call that we placed, as somebody picks it up.
#[derive(Debug, Clone, Copy)]
pub struct PickUp<'a> {
    /// What it was called before its carrier had named it.
    pub pending: &'a CarrierCallId,
    pub ticket: &'a str,
    /// What is kept of the call for whoever asks, as a JSON object.
    pub state: &'a str,
    /// Its agent, where dials are counted.
    pub agent: Option<&'a Name>,
    /// Whether that is dialed at once.
    pub dials: bool,
}

/// What became of a call that somebody has picked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PickedUp {
    /// It waits for its media here.
    Waits {
        epoch: u64,
        /// Whether the store may not know all calls yet.
        gated: bool,
    },
    /// The same webhook was decided before.
    Repeated(Kept),
    Ended,
    /// The slot had lapsed and there was no other.
    Refused(Refusal),
}

/// What became of a slot that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    Freed {
        active: u32,
        /// Why the call ended, by whoever said so first.
        reason: EndReason,
        /// Whether its media had not come.
        waited: bool,
    },
    /// Nothing was held.
    Gone {
        reason: EndReason,
        /// Whether its end is for this replica to note: it has freed the call before by its carrier's
        /// word, while its media had not come, and the answer to that may be lost; or it had the call
        /// waiting here, and the carrier's word came before the store knew of it.
        waited: bool,
    },
    /// A later owner holds it.
    Stale,
}

/// What became of a slot that was taken before its call had a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebound {
    Named,
    /// The slot has lapsed, or somebody else's call has that name.
    Gone,
    /// The call is over already.
    Ended,
}

/// How a call ends.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    pub reason: EndReason,
    /// The reason if its media never came.
    pub without_media: EndReason,
    /// Its last state; where it is not given, what the store has is brought up to date.
    pub state: Option<&'a str>,
    /// Whether it may never be admitted again.
    pub forever: bool,
    /// Whether its media was here: then it is not another's that merely waits for it.
    pub had_media: bool,
}

/// One of a replica's calls, as it renews it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its epoch is 0 if the store did not give one.
    pub lease: Lease,
    pub scopes: Vec<Scope>,
    /// How long it is to last.
    pub lasts: Millis,
    pub has_media: bool,
    /// Its state and its ticket, where the store may not know them.
    pub state: Option<String>,
    pub ticket: Option<String>,
}

/// A replica's heartbeat.
#[derive(Debug, Clone)]
pub struct Renewal<'a> {
    pub claims: &'a [Claim],
    /// Scopes to count.
    pub scopes: &'a [Scope],
    /// Whether this replica was without the store.
    pub puts_up_gate: bool,
    /// Whether this replica looks after calls whose ends may not be written.
    pub looks_after: bool,
    /// Free places for media sockets; `None` while it drains.
    pub places: Option<u32>,
    /// Whether a caller waits for it.
    pub hurried: bool,
}

/// What a heartbeat has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewed {
    /// The store's time.
    pub now: Millis,
    pub gated: bool,
    pub replicas: u32,
    /// Other replicas that take media sockets, and their free places.
    pub siblings: u32,
    pub places: u32,
    /// Whose leases had lapsed.
    pub lapsed: Vec<CarrierCallId>,
    /// Calls that nobody has had for some time, and of whose ends nobody has told that they are written:
    /// this replica is to look after them. There are none where one process has all calls.
    pub unwritten: Vec<CarrierCallId>,
    pub used: Vec<(Scope, u32)>,
    pub news: Vec<(CarrierCallId, News)>,
}

/// What a replica learns of one of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// A later owner has it.
    Lost,
    /// It is over.
    Ended(EndReason),
    /// The store did not have it, and has it from here on under this epoch.
    TakenIn(u64),
}

impl Released {
    /// Tells whether its media had not come, so that its end is for this replica to note.
    pub fn waited(self) -> bool {
        match self {
            Self::Freed { waited, .. } | Self::Gone { waited, .. } => waited,
            Self::Stale => false,
        }
    }

    /// Returns why the call ended, as far as it is known.
    pub fn reason(self) -> Option<EndReason> {
        match self {
            Self::Freed { reason, .. } | Self::Gone { reason, .. } => Some(reason),
            Self::Stale => None,
        }
    }
}

impl Store {
    /// Tells whether a renewal took longer than callers wait for the store.
    pub fn is_slow(&self, renewal: &Renewal<'_>, took: Duration) -> bool {
        match self {
            Self::Memory(_) => false,
            Self::Redis(store) => store.is_slow(renewal, took),
        }
    }

    pub async fn acquire(
        &self,
        now: Millis,
        request: &Request<'_>,
        choices: &Choices<'_>,
    ) -> Result<Acquired, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).acquire(now, request, choices)),
            Self::Redis(store) => store.acquire(request, choices).await,
        }
    }

    /// Hands a call to this replica.
    pub async fn adopt(
        &self,
        now: Millis,
        request: &Request<'_>,
        arrival: &Arrival<'_>,
    ) -> Result<Adopted, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).adopt(now, request, arrival)),
            Self::Redis(store) => store.adopt(request, arrival).await,
        }
    }

    /// Tells the others what this replica has seen of agents; returns what all have asked of each.
    pub async fn report(
        &self,
        now: Millis,
        reports: &[AgentReport],
    ) -> Result<Vec<AgentUse>, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).report(now, reports)),
            Self::Redis(store) => store.report(reports).await,
        }
    }

    pub async fn renew(&self, now: Millis, renewal: &Renewal<'_>) -> Result<Renewed, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).renew(now, renewal)),
            Self::Redis(store) => store.renew(renewal).await,
        }
    }

    /// Gives a slot that was taken before its call had a name to the call, which keeps its lease.
    pub async fn rebind(
        &self,
        now: Millis,
        lease: &Lease,
        call: &CarrierCallId,
        scopes: &[Scope],
        state: &str,
    ) -> Result<Rebound, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).rebind(now, lease, call)),
            Self::Redis(store) => store.rebind(lease, call, scopes, state).await,
        }
    }

    /// Gives a call that we placed to this replica, where it waits for its media.
    pub async fn pick_up(
        &self,
        now: Millis,
        request: &Request<'_>,
        pick_up: &PickUp<'_>,
    ) -> Result<PickedUp, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).pick_up(now, request, pick_up)),
            Self::Redis(store) => store.pick_up(request, pick_up).await,
        }
    }

    /// Gives a slot back, unless a later owner holds it.
    pub async fn release(
        &self,
        now: Millis,
        lease: &Lease,
        scopes: &[Scope],
        ending: &Ending<'_>,
    ) -> Result<Released, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).release(now, lease, ending)),
            Self::Redis(store) => store.release(lease, scopes, ending).await,
        }
    }

    /// Notes the carrier's word that a call is over: whoever held its slot holds it no longer.
    pub async fn end(
        &self,
        now: Millis,
        call: &CarrierCallId,
        ending: &Ending<'_>,
    ) -> Result<Released, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).end(now, call, ending)),
            Self::Redis(store) => store.end(call, ending).await,
        }
    }

    /// Adds fields to what is kept of a call. Memory keeps nothing that could be asked for.
    pub async fn note(&self, call: &CarrierCallId, fields: &str) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(store) => store.note(call, fields).await,
        }
    }

    /// Returns what is kept of a call, as JSON. Memory keeps nothing that could be asked for.
    pub async fn state(&self, call: &CarrierCallId) -> Result<Option<String>, StoreError> {
        match self {
            Self::Memory(_) => Ok(None),
            Self::Redis(store) => store.state(call).await,
        }
    }

    /// Notes a refusal that was decided without the store, which may have taken a slot for that
    /// call unheard; a store of this process's own is never without an answer.
    pub async fn refuse(
        &self,
        call: &CarrierCallId,
        scopes: &[Scope],
        refusal: &Refusal,
    ) -> Result<bool, StoreError> {
        match self {
            Self::Memory(_) => Ok(false),
            Self::Redis(store) => store.refuse(call, scopes, refusal).await,
        }
    }

    /// Tells what has become of a call of whose end nobody has told that it is written, or of which
    /// no more than that is. Memory keeps nothing of it: one process has all calls.
    pub async fn fate(
        &self,
        call: &CarrierCallId,
        end_is_written: bool,
    ) -> Result<Fate, StoreError> {
        match self {
            Self::Memory(_) => Ok(Fate::Settled),
            Self::Redis(store) => store.fate(call, end_is_written).await,
        }
    }

    /// Tells that nobody need look after these calls any more.
    pub async fn written(&self, calls: &[CarrierCallId]) -> Result<(), StoreError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(store) => store.written(calls).await,
        }
    }

    /// Returns why a call ended, if it has.
    pub async fn ended(
        &self,
        now: Millis,
        call: &CarrierCallId,
    ) -> Result<Option<EndReason>, StoreError> {
        match self {
            Self::Memory(store) => Ok(lock(store).ended(now, call)),
            Self::Redis(store) => store.ended(call).await,
        }
    }
}

#[cfg(test)]
mod tests;
