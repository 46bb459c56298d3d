//! Decides whether a ringing call gets a slot in every scope it counts in.
//!
//! Invariant: while the store answers all replicas, they admit no scope above its cap together.
//! Invariant: every slot comes back, be it by hang-up, error, panic or loss of the process.
//! Invariant: the same webhook gives the same slot and the same answer, refusals too, on every
//! replica that the store answers.
//! Invariant: no live caller is hung up because of bookkeeping, nor because the store is away.
//!
//! A replica that alone is cut off from the store keeps its callers, and its leases lapse: for that
//! long the others may admit as many again.

mod agents;
#[cfg(feature = "bench")]
pub mod bench;
mod board;
mod claiming;
mod clock;
mod deciding;
mod dials;
mod ending;
mod ledger;
mod memory;
mod outage;
mod placing;
mod redis;
mod rooms;
mod scope;
mod slot;
mod state;
mod store;
mod ticket;
mod upkeep;

#[cfg(test)]
#[path = "../tests/it/redis_server.rs"]
pub mod redis_server;

use std::{
    collections::HashMap,
    fmt,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use crate::{
    admission::{
        clock::Clock,
        dials::Dials,
        ending::{Lately, Owed},
        ledger::Ledger,
        outage::Outage,
        store::{AgentUse, Store},
        ticket::{Ticket, TicketKey},
    },
    call::{CallId, CarrierCallId, EndReason},
    campaign::{Campaign, Campaigns, Name},
    config::{Caps, StoreSettings},
    recent::Recent,
    telemetry::{CapacityMetrics, Condition},
};

pub use agents::AgentNews;
pub use board::Wishes;
pub use deciding::Readiness;
pub use ending::{AT_ONCE, Due, Ended, Onward};
pub use outage::Kind as Trouble;
pub use placing::{Outgoing, Reservation};
pub use redis::{Flaw, RedisStore, SlotRow, StoreError};
pub use rooms::scopes_with_caps;
pub use scope::Scope;
pub use slot::{Freed, Lease, Slot, SlotId};
pub use state::{Fate, Orphan, Phase};
pub use store::{AgentReport, END_KNOWN, Released, Rest};
pub use ticket::TicketError;
pub use upkeep::Upkeep;

/// How long an admitted call's slot and its ticket wait for the call's media: longer than the
/// 15 s that Twilio gives a webhook.
pub const SETUP: Duration = Duration::from_secs(20);
/// How often the leases of live calls are renewed: six times before one lapses.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often a replica shows that it is there, and lapsed leases are looked for.
pub const TICK: Duration = Duration::from_secs(1);

/// What admission makes of a ringing call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may come in. `first` tells the webhook that was decided about from its repetitions.
    Admit {
        call: CallId,
        ticket: String,
        /// Who talks with its caller.
        agent: Name,
        first: bool,
    },
    Refuse {
        refusal: Refusal,
        first: bool,
    },
    /// It is over already, so there is nothing to decide.
    Ended,
}

/// Which cap was full, with what it held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub scope: Scope,
    pub used: u32,
    pub cap: u32,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Full,
    /// The store is away, and this replica's share of what was free is used up.
    Outage,
    /// No replica has a place for another media socket.
    Connections,
    /// The last replica that there is drains.
    Draining,
    /// An operator has stopped the intake of calls.
    IntakeStopped,
    /// The agent was dialed for as many calls within the last minute as it may be.
    Dials,
    /// The agent has used up its tokens of the last minute.
    Tokens,
    /// The agent keeps failing, and is left alone for a moment.
    Resting,
}

impl Reason {
    pub const ALL: [Self; 8] = [
        Self::Full,
        Self::Outage,
        Self::Connections,
        Self::Draining,
        Self::IntakeStopped,
        Self::Dials,
        Self::Tokens,
        Self::Resting,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Outage => "outage",
            Self::Connections => "connections",
            Self::Draining => "draining",
            Self::IntakeStopped => "intake_stopped",
            Self::Dials => "dials",
            Self::Tokens => "tokens",
            Self::Resting => "resting",
        }
    }
}

impl FromStr for Reason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let named = Self::ALL.into_iter().find(|reason| reason.as_str() == text);
        named.ok_or(())
    }
}

/// A decision as it is kept for a repeated webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    Admitted(String),
    Refused(Refusal),
}

/// Why a media socket does not get the call it asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("the ticket has been used")]
    Used,
    #[error("the call has ended")]
    Ended,
    #[error("the slot had lapsed and there is no other")]
    Full,
}

/// An admitted call whose media has arrived, with the slot it holds.
#[derive(Debug)]
pub struct Claimed {
    pub call: CallId,
    /// Who talks with its caller.
    pub agent: Name,
    /// Who rings, masked, if another replica has noted it.
    pub caller: Option<String>,
    pub slot: Slot,
}

/// How much room there is, as health pages show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    pub active: u32,
    pub cap: u32,
}

/// Who else there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Siblings {
    /// Replicas, this one included; 0 before the store has counted them.
    pub replicas: u32,
    /// Others that take media sockets.
    pub open: u32,
    /// The free places that those have.
    pub places: u32,
}

/// The door. Shared by all workers; the caller of [`Admission::new`] runs the tasks that give
/// slots back and renew them.
pub struct Admission {
    caps: Caps,
    tickets: TicketKey,
    replica: String,
    least_replicas: u32,
    clock: Clock,
    store: Store,
    book: Mutex<Book>,
    /// Asks for a renewal before the next tick.
    nudged: Notify,
    freed: mpsc::UnboundedSender<Freed>,
    metrics: CapacityMetrics,
}

/// What this replica knows by itself.
struct Book {
    ledger: Ledger,
    outage: Outage,
    siblings: Siblings,
    /// When the store last told of them, since the start.
    heard: Duration,
    decisions: Recent<CarrierCallId, Kept>,
    ended: Recent<CarrierCallId, EndReason>,
    lately: Lately,
    nonces: Recent<String, ()>,
    dials: Dials,
    /// What all replicas have asked of agents, as the store last said.
    agents: HashMap<Name, AgentUse>,
    /// What the store is still to be told, once it answers.
    owed: Owed,
    /// Free places for media sockets; `None` while this replica drains.
    places: Option<u32>,
}

/// The slots that were dropped, for the task that gives them back.
pub type ToFree = mpsc::UnboundedReceiver<Freed>;

impl Admission {
    /// Opens the door over the store that the settings name; nothing is connected yet.
    ///
    /// # Errors
    /// If the settings do not make a store.
    pub fn new(
        caps: Caps,
        settings: &StoreSettings,
        secret: Option<&SecretString>,
        metrics: CapacityMetrics,
    ) -> Result<(Self, ToFree), StoreError> {
        let replica = format!("{:08x}", rand::random::<u32>());
        let store = match &settings.redis {
            None => Store::Memory(Box::default()),
            Some(redis) => {
                let (replica, metrics) = (replica.clone(), metrics.clone());
                let store = RedisStore::new(redis, replica, caps.lease, metrics)?;
                Store::Redis(Box::new(store))
            }
        };
        metrics.least(settings.least_replicas);
        let (freed, to_free) = mpsc::unbounded_channel();
        let book = Book {
            ledger: Ledger::default(),
            outage: Outage::new(settings.outage, settings.expected_replicas),
            siblings: Siblings::default(),
            heard: Duration::ZERO,
            decisions: Recent::default(),
            ended: Recent::default(),
            lately: Lately::default(),
            nonces: Recent::default(),
            dials: Dials::default(),
            agents: HashMap::new(),
            owed: Owed::default(),
            places: Some(0),
        };
        let admission = Self {
            caps,
            tickets: TicketKey::new(secret),
            replica,
            least_replicas: settings.least_replicas,
            clock: Clock::start(),
            store,
            book: Mutex::new(book),
            nudged: Notify::new(),
            freed,
            metrics,
        };
        Ok((admission, to_free))
    }

    /// Returns how long a slot is held for a replica that shows nothing.
    pub fn lease(&self) -> Duration {
        self.caps.lease
    }

    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            active: self.used(&Scope::Global),
            cap: self.caps.global,
        }
    }

    /// Returns what a scope holds; of a shared store, as it was a tick ago at most.
    fn used(&self, scope: &Scope) -> u32 {
        match &self.store {
            Store::Memory(store) => lock(store).used_at(self.clock.local(), scope),
            Store::Redis(_) => {
                let book = self.book();
                let held = book.ledger.held().get(scope).copied();
                book.outage.used(scope).max(held.unwrap_or(0))
            }
        }
    }

    /// Returns every scope, as far as the campaigns name them, with its cap.
    pub fn scopes(&self, campaigns: &Campaigns) -> Vec<(Scope, u32)> {
        scopes_with_caps(campaigns, &self.caps)
    }

    /// Returns what every scope holds, as this replica last saw it, and its cap.
    pub fn usage(&self, campaigns: &Campaigns) -> Vec<(Scope, u32, u32)> {
        let scopes = self.scopes(campaigns).into_iter();
        scopes
            .map(|(scope, cap)| {
                let used = self.used(&scope);
                (scope, used, cap)
            })
            .collect()
    }

    /// Returns what the scopes hold that a campaign's calls count in, as this replica last saw it,
    /// and their caps.
    pub fn counts(&self, campaign: &Campaign, campaigns: &Campaigns) -> Vec<(Scope, u32, u32)> {
        let rooms = rooms::rooms(campaign, campaigns, &self.caps).into_iter();
        let counts = rooms.map(|room| {
            let used = self.used(&room.scope);
            (room.scope, used, room.cap)
        });
        counts.collect()
    }

    /// Returns what this replica is called in the store.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Returns how many replicas there should be at least.
    pub fn least_replicas(&self) -> u32 {
        self.least_replicas
    }

    /// Returns how far our clock is ahead of the store's, in seconds.
    pub fn clock_skew(&self) -> f64 {
        self.clock.skew()
    }

    /// Shows how things stand, before metrics are read.
    pub fn show(&self, campaigns: &Campaigns) {
        self.metrics.no_slots();
        for (scope, used, cap) in self.usage(campaigns) {
            self.metrics.slots(scope.kind(), scope.name(), used, cap);
        }
        self.metrics.no_budgets();
        for (agent, _) in campaigns.budgets() {
            for (budget, used, cap) in self.budgets_of(agent, campaigns) {
                self.metrics.budget(agent.as_str(), budget, used, cap);
            }
        }
        let book = self.book();
        let trouble = book.outage.trouble();
        self.metrics.stands(Condition {
            replicas: book.siblings.replicas.max(1),
            expected: book.outage.expected(),
            gated: trouble == Some(Trouble::Gated),
            degraded: trouble.is_some(),
            degraded_for: book.outage.lasted(self.clock.elapsed()),
            clock_skew: self.clock.skew(),
        });
    }

    /// Returns how long ago a ticket's call rang, or was picked up if we have placed it.
    pub fn since_rang(&self, ticket: &Ticket) -> Duration {
        let left = ticket.expires_at.saturating_sub(self.clock.shared());
        SETUP.saturating_sub(Duration::from_millis(left))
    }

    /// Returns who else there is; whoever was last heard of long ago may have gone.
    pub fn siblings(&self) -> Siblings {
        let book = self.book();
        if book.heard + HEARTBEAT * 3 < self.clock.elapsed() {
            return Siblings {
                replicas: book.siblings.replicas,
                ..Siblings::default()
            };
        }
        book.siblings
    }

    /// Returns how the store lets us down, if it does.
    pub fn trouble(&self) -> Option<Trouble> {
        self.book().outage.trouble()
    }

    /// Tells whether caps hold over several replicas.
    pub fn is_shared(&self) -> bool {
        matches!(self.store, Store::Redis(_))
    }

    /// Writes a capacity line at the level that the operator chose for them.
    pub fn log(&self, line: fmt::Arguments<'_>) {
        match self.caps.log_level {
            tracing::Level::ERROR => tracing::error!("{line}"),
            tracing::Level::WARN => tracing::warn!("{line}"),
            tracing::Level::INFO => tracing::info!("{line}"),
            _ => tracing::debug!("{line}"),
        }
    }

    /// Notes that the store did not answer.
    fn failed(&self, error: &StoreError) {
        let mut book = self.book();
        let Book { ledger, outage, .. } = &mut *book;
        let before = outage.trouble();
        outage.failed(self.clock.elapsed(), ledger.held());
        drop(book);
        if let Store::Redis(store) = &self.store {
            store.set_away(true);
            if error.takes_a_new_connection() {
                store.reconnect();
            }
        }
        if before != Some(Trouble::Away) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the slot store is away: admitting by our share");
            self.nudged.notify_one();
        }
    }

    /// Notes that the store has lost calls, or that somebody comes back who was without it.
    fn met_the_gate(&self) {
        let mut book = self.book();
        let Book { ledger, outage, .. } = &mut *book;
        let before = outage.trouble();
        outage.gated(self.clock.elapsed(), ledger.held());
        if before.is_none() {
            self.tell_again(&mut book);
        }
        drop(book);
        if before != Some(Trouble::Gated) {
            tracing::info!("the slot store is gated: registering our calls anew");
            self.nudged.notify_one();
        }
    }

    /// A panic elsewhere must not cost every later call its slot: each operation leaves the book
    /// whole, so a poisoned lock is taken as it is.
    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
