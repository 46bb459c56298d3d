//! Decides whether a ringing call gets a slot in every scope it counts in.
//!
//! Invariant: no scope is admitted above its cap.
//! Invariant: every slot comes back, be it by hang-up, error, panic or loss of the process.
//! Invariant: the same webhook gives the same slot and the same answer, refusals too.

mod memory;
mod slot;
mod ticket;

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use secrecy::SecretString;
use serde::Serialize;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    admission::memory::{Acquired, Adopted, Live, MemoryStore, Released, Request},
    admission::ticket::{Ticket, TicketKey},
    call::{CallId, CarrierCallId},
    campaign::{Campaign, Name},
    config::Caps,
    recent::Millis,
};

pub use slot::{Lease, Slot};
pub use ticket::TicketError;

/// How long an admitted call's slot and its ticket wait for the call's media: longer than the
/// 15 s that Twilio gives a webhook.
pub const SETUP: Duration = Duration::from_secs(20);
/// How often the leases of live calls are renewed: six times before one lapses.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often lapsed leases are looked for.
pub const TICK: Duration = Duration::from_secs(1);

/// What a cap applies to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Global,
    Tenant(Name),
    Campaign(Name),
    /// Calls whose media has not arrived.
    Setup,
}

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
    pub scope: Scope,
    pub used: u32,
    pub cap: u32,
}

/// A decision as the store keeps it for a repeated webhook.
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
    pub slot: Slot,
}

/// How much room there is, as health pages show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    pub active: u32,
    pub cap: u32,
}

/// The door. Shared by all workers; the caller of [`Admission::new`] runs the task that gives
/// slots back.
pub struct Admission {
    caps: Caps,
    tickets: TicketKey,
    issuer: String,
    clock: Clock,
    store: Mutex<MemoryStore>,
    live: Mutex<HashMap<CarrierCallId, Live>>,
    freed: mpsc::UnboundedSender<Lease>,
}

/// The slots that were dropped, for the task that gives them back.
pub type Freed = mpsc::UnboundedReceiver<Lease>;

impl Admission {
    pub fn new(caps: Caps, secret: Option<&SecretString>, issuer: String) -> (Self, Freed) {
        let (freed, to_free) = mpsc::unbounded_channel();
        let admission = Self {
            caps,
            tickets: TicketKey::new(secret),
            issuer,
            clock: Clock::start(),
            store: Mutex::default(),
            live: Mutex::default(),
            freed,
        };
        (admission, to_free)
    }

    /// Decides about a ringing call, once: a repeated webhook gets the first one's decision.
    pub fn admit(&self, carrier_call: &CarrierCallId, campaign: &Campaign) -> Decision {
        let now = self.clock.now();
        let ticket = self.tickets.sign(&Ticket {
            call: CallId::new(),
            carrier_call: carrier_call.clone(),
            campaign: campaign.id.as_str().to_owned(),
            issuer: self.issuer.clone(),
            expires_at: now + millis(SETUP),
            nonce: format!("{:032x}", rand::random::<u128>()),
        });
        let request = Request {
            call: carrier_call,
            scopes: &self.scopes(campaign),
            lease: millis(SETUP),
            ticket: &ticket,
        };
        let acquired = lock(&self.store).acquire(now, &request);
        match acquired {
            Acquired::Admitted { active } => {
                let cap = self.caps.global;
                self.log(format_args!(
                    "[CAPACITY] ACQUIRED call_id={carrier_call} active_calls={active}/{cap}"
                ));
                self.admitted(carrier_call, ticket, true)
            }
            Acquired::Repeated(Kept::Admitted(ticket)) => {
                self.admitted(carrier_call, ticket, false)
            }
            Acquired::Refused(refusal) => {
                let Refusal { scope, used, cap } = &refusal;
                self.log(format_args!(
                    "[CAPACITY] REJECTED call_id={carrier_call} active_calls={used} max={cap} \
                     scope={scope}"
                ));
                Decision::Refuse {
                    refusal,
                    first: true,
                }
            }
            Acquired::Repeated(Kept::Refused(refusal)) => Decision::Refuse {
                refusal,
                first: false,
            },
            Acquired::Ended => {
                tracing::info!(carrier_call.id = %carrier_call, "an ended call's webhook came again");
                Decision::Ended
            }
        }
    }

    /// Hands the call that `ticket` admitted to the media socket that brings it.
    ///
    /// # Errors
    /// If the ticket is not good for `carrier_call`, or used, or the call is over.
    pub fn claim(
        &self,
        ticket: &str,
        carrier_call: &CarrierCallId,
        campaign: &Campaign,
    ) -> Result<Claimed, ClaimError> {
        let now = self.clock.now();
        let text = ticket;
        let ticket = self.tickets.read(text, carrier_call, now)?;
        let scopes = self.scopes(campaign);
        let request = Request {
            call: carrier_call,
            scopes: &scopes,
            lease: millis(self.caps.lease),
            ticket: text,
        };
        match lock(&self.store).adopt(now, &request, &ticket.nonce) {
            Adopted::Live(lease) => {
                let scopes = scopes.into_iter().map(|(scope, _)| scope);
                let live = Live {
                    lease: lease.clone(),
                    scopes: scopes.filter(|scope| scope.counts(true)).collect(),
                };
                lock(&self.live).insert(carrier_call.clone(), live);
                Ok(Claimed {
                    call: ticket.call,
                    slot: Slot::new(lease, self.freed.clone()),
                })
            }
            Adopted::Used => Err(ClaimError::Used),
            Adopted::Ended => Err(ClaimError::Ended),
            Adopted::Refused(_) => Err(ClaimError::Full),
        }
    }

    /// Gives a dropped slot back to the store.
    pub fn release(&self, lease: &Lease) {
        let mut live = lock(&self.live);
        if live
            .get(&lease.call)
            .is_some_and(|held| held.lease == *lease)
        {
            live.remove(&lease.call);
        }
        drop(live);
        let released = lock(&self.store).release(self.clock.now(), lease);
        self.log_release(&lease.call, released);
    }

    /// Notes the carrier's word that a call is over; tells whether it held a slot until then.
    pub fn end(&self, carrier_call: &CarrierCallId) -> bool {
        let released = lock(&self.store).end(self.clock.now(), carrier_call);
        self.log_release(carrier_call, released);
        matches!(released, Released::Freed { .. })
    }

    /// Tells whether a call is known to be over.
    pub fn has_ended(&self, carrier_call: &CarrierCallId) -> bool {
        lock(&self.store).has_ended(self.clock.now(), carrier_call)
    }

    /// Renews the leases of live calls; returns those that are no longer ours.
    pub fn renew(&self) -> Vec<Lease> {
        let live: Vec<Live> = lock(&self.live).values().cloned().collect();
        lock(&self.store).renew(self.clock.now(), millis(self.caps.lease), &live)
    }

    /// Takes back the slots whose lease has lapsed; returns the calls whose media never came.
    pub fn expire(&self) -> Vec<CarrierCallId> {
        let mut store = lock(&self.store);
        let never_came = store.expire(self.clock.now());
        let active = store.active();
        drop(store);
        for call in &never_came {
            self.log_release(call, Released::Freed { active });
        }
        never_came
    }

    pub fn occupancy(&self) -> Occupancy {
        let mut store = lock(&self.store);
        store.reap(self.clock.now());
        Occupancy {
            active: store.active(),
            cap: self.caps.global,
        }
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

    fn log_release(&self, call: &CarrierCallId, released: Released) {
        match released {
            Released::Freed { active } => {
                let cap = self.caps.global;
                self.log(format_args!(
                    "[CAPACITY] RELEASED call_id={call} active_calls={active}/{cap}"
                ));
            }
            Released::Gone | Released::Stale => {}
        }
    }

    fn admitted(&self, carrier_call: &CarrierCallId, ticket: String, first: bool) -> Decision {
        match self.tickets.read(&ticket, carrier_call, 0) {
            Ok(read) => Decision::Admit {
                call: read.call,
                ticket,
                first,
            },
            // Only a ticket whose secret was changed since reads as another's.
            Err(_) => Decision::Ended,
        }
    }

    fn scopes(&self, campaign: &Campaign) -> Vec<(Scope, u32)> {
        let mut scopes = vec![
            (Scope::Global, self.caps.global),
            (Scope::Tenant(campaign.tenant.clone()), self.caps.tenant),
            (Scope::Setup, self.caps.setup),
        ];
        if let Some(cap) = campaign.max_calls {
            scopes.push((Scope::Campaign(campaign.id.clone()), cap));
        }
        scopes
    }
}

impl Scope {
    /// Tells whether a call counts here, by whether its media has arrived.
    fn counts(&self, live: bool) -> bool {
        match self {
            Self::Setup => !live,
            Self::Global | Self::Tenant(_) | Self::Campaign(_) => true,
        }
    }
}

impl Scope {
    /// Returns what kind of scope it is, without its name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Tenant(_) => "tenant",
            Self::Campaign(_) => "campaign",
            Self::Setup => "setup",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Tenant(name) => write!(f, "tenant:{name}"),
            Self::Campaign(name) => write!(f, "campaign:{name}"),
            Self::Setup => f.write_str("setup"),
        }
    }
}

/// Leases and tickets are compared between replicas, so they are dated in Unix time; within a
/// process that time only moves forward, whatever is done to the machine's clock.
struct Clock {
    started: Instant,
    unix: Duration,
}

impl Clock {
    fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started: Instant::now(),
            unix: unix.unwrap_or_default(),
        }
    }

    fn now(&self) -> Millis {
        millis(self.unix + self.started.elapsed())
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// A panic elsewhere must not cost every later call its slot: each operation leaves the store
/// whole, so a poisoned lock is taken as it is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
