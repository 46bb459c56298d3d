//! Decides whether a ringing call gets a slot in every scope it counts in.
//!
//! Invariant: while the store answers, all replicas together admit no scope above its cap.
//! Invariant: every slot comes back, be it by hang-up, error, panic or loss of the process.
//! Invariant: the same webhook gives the same slot and the same answer, refusals too.
//! Invariant: nobody is turned away, and no live caller hung up, because the store is away.

mod ledger;
mod memory;
mod outage;
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
mod redis_server;

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use secrecy::SecretString;
use serde::Serialize;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    admission::{
        ledger::{Ledger, Media},
        outage::{Outage, Verdict},
        scope::Room,
        state::CallState,
        store::{Acquired, Adopted, Request, Store},
        ticket::TicketKey,
    },
    call::{CallId, CallerId, CarrierCallId, EndReason},
    campaign::{Campaign, Campaigns},
    config::{Caps, StoreSettings},
    recent::{Millis, Recent},
    telemetry::CapacityMetrics,
};

pub use outage::Kind as Trouble;
pub use redis::{RedisStore, SlotRow, StoreError};
pub use rooms::scopes_with_caps;
pub use scope::Scope;
pub use slot::{Freed, Lease, Slot, SlotId};
pub use store::Released;
pub use ticket::{Ticket, TicketError};
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
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Outage => "outage",
            Self::Connections => "connections",
            Self::Draining => "draining",
        }
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
    decisions: Recent<CarrierCallId, Kept>,
    ended: Recent<CarrierCallId, EndReason>,
    nonces: Recent<String, ()>,
    /// What the store is still to be told, once it answers.
    owed: upkeep::Owed,
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
        let (freed, to_free) = mpsc::unbounded_channel();
        let book = Book {
            ledger: Ledger::default(),
            outage: Outage::new(settings.outage, settings.expected_replicas),
            siblings: Siblings::default(),
            decisions: Recent::default(),
            ended: Recent::default(),
            nonces: Recent::default(),
            owed: upkeep::Owed::default(),
            places: Some(0),
        };
        let admission = Self {
            caps,
            tickets: TicketKey::new(secret),
            replica,
            clock: Clock::start(),
            store,
            book: Mutex::new(book),
            nudged: Notify::new(),
            freed,
            metrics,
        };
        Ok((admission, to_free))
    }

    /// Decides about a ringing call, once: a repeated webhook gets the first one's decision. With
    /// `closed` there is no place for its media anywhere, whatever the caps say.
    pub async fn admit(
        &self,
        carrier_call: &CarrierCallId,
        caller: &CallerId,
        campaign: &Campaign,
        campaigns: &Campaigns,
        closed: Option<Reason>,
    ) -> Decision {
        if let Some(decision) = self.decided(carrier_call, closed) {
            return decision;
        }
        if let Some(reason) = closed {
            return self.refused(carrier_call, self.no_place(reason));
        }
        let rooms = rooms::rooms(campaign, campaigns, &self.caps);
        let call = CallId::new();
        let scopes: Vec<Scope> = rooms.iter().map(|room| room.scope.clone()).collect();
        let state = CallState::new(call, carrier_call.clone(), campaign, &self.replica, &scopes);
        let asking = Asking {
            carrier_call,
            rooms: &rooms,
            scopes,
            state: state.rang(self.clock.shared(), caller),
        };
        let mut unheard = false;
        if self.book().outage.may_ask() {
            let ticket = self.ticket(&asking, false);
            let request = Request {
                call: carrier_call,
                rooms: &rooms,
                lease: millis(SETUP),
                state: &asking.state.json(),
            };
            let acquired = self.store.acquire(self.clock.local(), &request, &ticket);
            match acquired.await {
                Ok(Acquired::Resync) => self.met_the_gate(),
                Ok(acquired) => return self.acquired(&asking, ticket, acquired),
                Err(error) => {
                    unheard = !matches!(error, StoreError::Away);
                    self.failed(&error);
                }
            }
        }
        self.admit_without_store(asking, unheard).await
    }

    /// Reads the ticket that a media socket has brought.
    ///
    /// # Errors
    /// If it is not good for `carrier_call`.
    pub fn read(&self, ticket: &str, carrier_call: &CarrierCallId) -> Result<Ticket, TicketError> {
        self.tickets.read(ticket, carrier_call, self.clock.shared())
    }

    /// Hands the call that `ticket` admitted to the media socket that brings it.
    ///
    /// # Errors
    /// If the ticket is used, or the call is over.
    pub async fn claim(
        &self,
        ticket: &Ticket,
        campaign: &Campaign,
        campaigns: &Campaigns,
    ) -> Result<Claimed, ClaimError> {
        let carrier_call = &ticket.carrier_call;
        if self.has_ended(carrier_call) {
            return Err(ClaimError::Ended);
        }
        let rooms = rooms::rooms(campaign, campaigns, &self.caps);
        let scopes = rooms.iter().map(|room| room.scope.clone());
        let scopes: Vec<Scope> = scopes.filter(|scope| scope.counts(true)).collect();
        let state = CallState::new(
            ticket.call,
            carrier_call.clone(),
            campaign,
            &self.replica,
            &scopes,
        );
        let mut state = state.connected(self.clock.shared());
        state.degraded = ticket.degraded;
        let request = Request {
            call: carrier_call,
            rooms: &rooms,
            lease: millis(self.caps.lease),
            state: &state.json(),
        };
        let mut epoch = 0;
        if self.book().outage.trouble() != Some(Trouble::Away) {
            let now = self.clock.local();
            let adopted = self
                .store
                .adopt(now, &request, &ticket.nonce, ticket.degraded);
            match adopted.await {
                Ok(Adopted::Live {
                    lease,
                    state: noted,
                    gated,
                }) => {
                    epoch = lease.epoch;
                    state.learn(&noted);
                    if gated {
                        self.met_the_gate();
                    }
                }
                Ok(Adopted::Used) => return Err(ClaimError::Used),
                Ok(Adopted::Ended) => return Err(ClaimError::Ended),
                Ok(Adopted::Refused(_)) => return Err(ClaimError::Full),
                Err(error) => self.failed(&error),
            }
        }
        self.enter_live(ticket, state, &scopes, epoch)
    }

    /// Notes the carrier's word that a call is over; tells whether it was still waiting for its
    /// media.
    pub async fn end(&self, carrier_call: &CarrierCallId, ending: Ended) -> bool {
        let waiting = {
            let mut book = self.book();
            let now = self.clock.local();
            if book.ended.get(now, carrier_call).is_none() {
                let kept = store::END_KEPT;
                book.ended.put(now, kept, carrier_call.clone(), ending.live);
            }
            let waiting = book.ledger.remove_waiting(carrier_call);
            if let Some(entry) = &waiting {
                book.outage.went(&entry.scopes);
            }
            waiting
        };
        let waited_here = waiting.is_some();
        let state = waiting.map(|entry| entry.state.ended(self.clock.shared(), ending.waiting));
        let owed = upkeep::Debt::End {
            call: carrier_call.clone(),
            ended: ending,
            state: state.map(|state| state.json()),
        };
        let waited = self.settle_or_owe(owed).await;
        waited.unwrap_or(waited_here)
    }

    /// Tells whether a call is known here to be over.
    pub fn has_ended(&self, carrier_call: &CarrierCallId) -> bool {
        let now = self.clock.local();
        self.book().ended.get(now, carrier_call).is_some()
    }

    /// Returns why a call ended that may have been another replica's.
    pub async fn ended_elsewhere(&self, carrier_call: &CarrierCallId) -> Option<EndReason> {
        if self.book().outage.trouble() == Some(Trouble::Away) {
            return None;
        }
        let ended = self.store.ended(self.clock.local(), carrier_call).await;
        ended.unwrap_or_else(|error| {
            self.failed(&error);
            None
        })
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

    /// Returns what this replica is called in the store.
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Shows how things stand, before metrics are read.
    pub fn show(&self, campaigns: &Campaigns) {
        self.metrics.no_slots();
        for (scope, used, cap) in self.usage(campaigns) {
            self.metrics.slots(scope.kind(), scope.name(), used, cap);
        }
        let book = self.book();
        let trouble = book.outage.trouble();
        self.metrics.stands(
            book.siblings.replicas,
            trouble == Some(Trouble::Gated),
            trouble.is_some(),
            book.outage.lasted(self.clock.elapsed()),
        );
    }

    pub fn siblings(&self) -> Siblings {
        self.book().siblings
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

    /// Returns what this replica has decided about a call already. Whether a call that was
    /// admitted has ended since, at any replica, a shared store knows better.
    fn decided(&self, call: &CarrierCallId, closed: Option<Reason>) -> Option<Decision> {
        let kept = {
            let book = self.book();
            let now = self.clock.local();
            if book.ended.get(now, call).is_some() {
                return Some(Self::already_over(call));
            }
            let kept = book.decisions.get(now, call).cloned()?;
            let asks = self.is_shared() && book.outage.may_ask() && closed.is_none();
            if asks && matches!(kept, Kept::Admitted(_)) {
                return None;
            }
            kept
        };
        Some(self.repeated(call, kept))
    }

    fn repeated(&self, call: &CarrierCallId, kept: Kept) -> Decision {
        match kept {
            Kept::Refused(refusal) => Decision::Refuse {
                refusal,
                first: false,
            },
            Kept::Admitted(ticket) => match self.tickets.read(&ticket, call, 0) {
                Ok(read) => Decision::Admit {
                    call: read.call,
                    ticket,
                    first: false,
                },
                // Only a ticket whose secret was changed since reads as another's.
                Err(_) => Decision::Ended,
            },
        }
    }

    fn already_over(call: &CarrierCallId) -> Decision {
        tracing::info!(carrier_call.id = %call, "an ended call's webhook came again");
        Decision::Ended
    }

    /// Turns the store's answer into a decision, and remembers it.
    fn acquired(&self, asking: &Asking<'_>, ticket: String, acquired: Acquired) -> Decision {
        let call = asking.carrier_call;
        match acquired {
            Acquired::Admitted { epoch, used } => {
                let mut book = self.book();
                let scopes = asking.rooms.iter().map(|room| &room.scope);
                book.outage.counted(scopes.zip(used));
                drop(book);
                let active = self.used(&Scope::Global);
                self.admitted(asking, ticket, epoch, active)
            }
            Acquired::Refused(refusal) => {
                let counted = [(&refusal.scope, refusal.used)];
                self.book().outage.counted(counted);
                self.refused(call, refusal)
            }
            Acquired::Repeated(kept) => self.repeated(call, kept),
            Acquired::Held => {
                // A store that has lost the answer has been told of the slot only.
                let kept = self.book().decisions.get(self.clock.local(), call).cloned();
                match kept {
                    Some(kept) => self.repeated(call, kept),
                    None => Self::already_over(call),
                }
            }
            Acquired::Ended => Self::already_over(call),
            Acquired::Resync => unreachable!("the caller decides without the store then"),
        }
    }

    /// Decides by this replica's share of what was free when the trouble began. `unheard` if the
    /// store was asked and may have decided too.
    async fn admit_without_store(&self, mut asking: Asking<'_>, unheard: bool) -> Decision {
        asking.state.degraded = true;
        let call = asking.carrier_call;
        let ticket = self.ticket(&asking, true);
        let (verdict, gated) = {
            let mut book = self.book();
            // The same webhook may have been decided about while this one waited for the store.
            if let Some(kept) = book.decisions.get(self.clock.local(), call).cloned() {
                drop(book);
                return self.repeated(call, kept);
            }
            let Book { ledger, outage, .. } = &mut *book;
            let verdict = outage.decide(asking.rooms, ledger.held());
            if verdict == Verdict::Admit {
                self.enter_waiting(&mut book, &asking, &ticket, 0);
                self.remember(&mut book, call, &ticket);
            }
            (verdict, book.outage.trouble() == Some(Trouble::Gated))
        };
        if let Verdict::Refuse { scope, used, cap } = verdict {
            let refusal = Refusal {
                reason: Reason::Outage,
                scope,
                used,
                cap,
            };
            self.owe_refusal(&asking, &refusal, unheard);
            return self.refused(call, refusal);
        }
        if gated && let Some(refusal) = self.register(&asking).await {
            self.owe_refusal(&asking, &refusal, false);
            return self.refused(call, refusal);
        }
        self.metrics.admitted_without_store();
        let active = self.occupancy().active;
        self.admitted(&asking, ticket, 0, active)
    }

    fn admitted(&self, asking: &Asking<'_>, ticket: String, epoch: u64, active: u32) -> Decision {
        let (call, cap) = (asking.carrier_call, self.caps.global);
        let degraded = if asking.state.degraded {
            " degraded=true"
        } else {
            ""
        };
        self.log(format_args!(
            "[CAPACITY] ACQUIRED call_id={call} active_calls={active}/{cap}{degraded}"
        ));
        if epoch > 0 {
            let mut book = self.book();
            self.enter_waiting(&mut book, asking, &ticket, epoch);
            self.remember(&mut book, call, &ticket);
        }
        Decision::Admit {
            call: asking.state.call_id,
            ticket,
            first: true,
        }
    }

    fn refused(&self, call: &CarrierCallId, refusal: Refusal) -> Decision {
        let Refusal {
            scope, used, cap, ..
        } = &refusal;
        self.log(format_args!(
            "[CAPACITY] REJECTED call_id={call} active_calls={used} max={cap} scope={scope}"
        ));
        let kept = Kept::Refused(refusal.clone());
        let now = self.clock.local();
        let mut book = self.book();
        book.decisions
            .put(now, store::DECISION_KEPT, call.clone(), kept);
        drop(book);
        Decision::Refuse {
            refusal,
            first: true,
        }
    }

    fn no_place(&self, reason: Reason) -> Refusal {
        let Occupancy { active, cap } = self.occupancy();
        Refusal {
            reason,
            scope: Scope::Global,
            used: active,
            cap,
        }
    }

    fn remember(&self, book: &mut Book, call: &CarrierCallId, ticket: &str) {
        let kept = Kept::Admitted(ticket.to_owned());
        let now = self.clock.local();
        book.decisions.put(now, millis(SETUP), call.clone(), kept);
    }

    fn enter_waiting(&self, book: &mut Book, asking: &Asking<'_>, ticket: &str, epoch: u64) {
        let now = self.clock.local();
        let until = now + millis(SETUP);
        let (call, state) = (asking.carrier_call, asking.state.clone());
        let media = Media::Awaited { until };
        let scopes = asking.scopes.clone();
        book.ledger.enter(now, call, epoch, media, state, scopes);
        if epoch == 0
            && let Some(entry) = book.ledger.get_mut(call)
        {
            entry.ticket = Some(ticket.to_owned());
        }
    }

    fn enter_live(
        &self,
        ticket: &Ticket,
        state: CallState,
        scopes: &[Scope],
        epoch: u64,
    ) -> Result<Claimed, ClaimError> {
        let now = self.clock.local();
        let call = &ticket.carrier_call;
        let mut book = self.book();
        // Where the store does not keep tickets from being used twice, this replica does.
        if epoch == 0 && book.nonces.get(now, &ticket.nonce).is_some() {
            return Err(ClaimError::Used);
        }
        let nonce = ticket.nonce.clone();
        book.nonces.put(now, store::NONCE_KEPT, nonce, ());
        let caller = state.caller.clone();
        let (id, before) = book
            .ledger
            .enter(now, call, epoch, Media::Here, state, scopes.to_vec());
        if before.is_none() {
            book.outage.came(scopes);
        }
        drop(book);
        Ok(Claimed {
            call: ticket.call,
            caller,
            slot: Slot::new(call.clone(), id, self.freed.clone()),
        })
    }

    fn ticket(&self, asking: &Asking<'_>, degraded: bool) -> String {
        self.tickets.sign(&Ticket {
            call: asking.state.call_id,
            carrier_call: asking.carrier_call.clone(),
            campaign: asking.state.campaign.clone(),
            issuer: self.replica.clone(),
            expires_at: self.clock.shared() + millis(SETUP),
            nonce: format!("{:032x}", rand::random::<u128>()),
            degraded,
        })
    }

    /// Notes that the store did not answer.
    fn failed(&self, error: &StoreError) {
        let mut book = self.book();
        let Book { ledger, outage, .. } = &mut *book;
        let before = outage.trouble();
        outage.failed(self.clock.elapsed(), ledger.held());
        let open = outage.is_open();
        drop(book);
        if let Store::Redis(store) = &self.store {
            store.set_away(true);
            if error.class() == "readonly" || open {
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

/// A call that asks for a slot.
struct Asking<'a> {
    carrier_call: &'a CarrierCallId,
    rooms: &'a [Room],
    scopes: Vec<Scope>,
    state: CallState,
}

/// How a call ended whose carrier says so, by whether its media was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub live: EndReason,
    pub waiting: EndReason,
}

/// Leases and tickets are compared between replicas, so they are dated by the store's clock;
/// within a process time only moves forward, whatever is done to the machine's clock.
struct Clock {
    started: Instant,
    unix: Duration,
    /// What the store's clock is ahead, in milliseconds; `i64::MIN` before it was heard of.
    ahead: AtomicI64,
}

/// How far the store's clock may run away from ours between two heartbeats: less than the set-up
/// lease, more than a process is ever held up without being lost.
const CLOCK_JUMP: Duration = Duration::from_secs(10);

impl Clock {
    fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started: Instant::now(),
            unix: unix.unwrap_or_default(),
            ahead: AtomicI64::new(i64::MIN),
        }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Returns the time that this process goes by.
    fn local(&self) -> Millis {
        millis(self.unix + self.started.elapsed())
    }

    /// Returns the time that all replicas go by.
    fn shared(&self) -> Millis {
        let ahead = match self.ahead.load(Ordering::Relaxed) {
            i64::MIN => 0,
            ahead => ahead,
        };
        self.local().saturating_add_signed(ahead)
    }

    /// Takes over the store's time; tells whether it has jumped.
    fn set(&self, store: Millis) -> bool {
        let ahead = i128::from(store) - i128::from(self.local());
        let ahead = i64::try_from(ahead).unwrap_or(0);
        let before = self.ahead.swap(ahead, Ordering::Relaxed);
        before != i64::MIN && u128::from(ahead.abs_diff(before)) > CLOCK_JUMP.as_millis()
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
