//! The embedded store: slots of one process. It does what the scripts of a shared store do, under
//! one lock and with the time handed in.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::{
    admission::{Kept, Lease, Refusal, Scope},
    call::CarrierCallId,
    recent::{Millis, Recent},
};

/// How long a refusal is kept for a repeated webhook. An admission is kept as long as its slot.
const DECISION_KEPT: Millis = 60_000;
/// How long a call that has ended is remembered, so that it is never admitted again.
const END_KEPT: Millis = 3_600_000;
/// How long a used ticket is remembered: longer than it could be used.
const NONCE_KEPT: Millis = 60_000;
/// How many set-ups tell whether calls bring their media.
const SETUPS_REMEMBERED: usize = 100;

/// What a ringing call asks for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub call: &'a CarrierCallId,
    /// Every scope the call counts in, with its cap.
    pub scopes: &'a [(Scope, u32)],
    /// How long the slot waits for the call's media.
    pub lease: Millis,
    /// What is kept, with the slot, for the webhook's repetitions.
    pub ticket: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    Admitted {
        active: u32,
    },
    Refused(Refusal),
    /// The same webhook was decided before.
    Repeated(Kept),
    /// The carrier has said that this call is over.
    Ended,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    Live(Lease),
    Used,
    Ended,
    /// The slot had lapsed and there was no other.
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    Freed {
        active: u32,
    },
    /// Nothing was held.
    Gone,
    /// A later owner holds it.
    Stale,
}

#[derive(Debug, Default)]
pub struct MemoryStore {
    held: HashMap<CarrierCallId, Held>,
    /// The same calls by the time at which their lease lapses.
    lapses: BTreeSet<(Millis, CarrierCallId)>,
    used: HashMap<Scope, u32>,
    epoch: u64,
    decisions: Recent<CarrierCallId, Kept>,
    ended: Recent<CarrierCallId, ()>,
    nonces: Recent<String, ()>,
    /// Bounded by what is admitted between two calls of [`MemoryStore::expire`].
    never_came: Vec<CarrierCallId>,
    /// Whether each of the last calls brought its media.
    setups: VecDeque<bool>,
}

#[derive(Debug)]
struct Held {
    epoch: u64,
    lapses_at: Millis,
    scopes: Vec<Scope>,
    /// Whether its media has arrived.
    live: bool,
    ticket: String,
}

/// A call whose media its owner carries.
#[derive(Debug, Clone)]
pub struct Live {
    pub lease: Lease,
    pub scopes: Vec<Scope>,
}

impl MemoryStore {
    /// Takes a slot in every scope, or in none.
    pub fn acquire(&mut self, now: Millis, request: &Request<'_>) -> Acquired {
        self.reap(now);
        if self.ended.get(now, request.call).is_some() {
            return Acquired::Ended;
        }
        if let Some(kept) = self.decisions.get(now, request.call) {
            return Acquired::Repeated(kept.clone());
        }
        if let Some(held) = self.held.get(request.call) {
            return Acquired::Repeated(Kept::Admitted(held.ticket.clone()));
        }
        if let Some(refusal) = self.full(request.scopes) {
            let kept = Kept::Refused(refusal.clone());
            self.decisions
                .put(now, DECISION_KEPT, request.call.clone(), kept);
            return Acquired::Refused(refusal);
        }
        self.hold(now, request, false);
        Acquired::Admitted {
            active: self.active(),
        }
    }

    /// Hands a call to the owner of its media socket, once a ticket.
    pub fn adopt(&mut self, now: Millis, request: &Request<'_>, nonce: &str) -> Adopted {
        self.reap(now);
        let nonce = nonce.to_owned();
        if self.ended.get(now, request.call).is_some() {
            return Adopted::Ended;
        }
        if self.nonces.get(now, &nonce).is_some() {
            return Adopted::Used;
        }
        let waiting = self.forget(request.call);
        if waiting.is_none()
            && let Some(refusal) = self.full(request.scopes)
        {
            return Adopted::Refused(refusal);
        }
        self.nonces.put(now, NONCE_KEPT, nonce, ());
        self.set_up(true);
        let epoch = self.hold(now, request, true);
        Adopted::Live(Lease {
            call: request.call.clone(),
            epoch,
        })
    }

    /// Extends what its owner says is live, and takes in again what had lapsed: a live caller is
    /// never hung up because of bookkeeping. Returns what the owner has lost.
    pub fn renew(&mut self, now: Millis, lease: Millis, live: &[Live]) -> Vec<Lease> {
        let mut lost = Vec::new();
        for claim in live {
            let call = &claim.lease.call;
            let theirs = self
                .held
                .get(call)
                .is_some_and(|held| held.epoch > claim.lease.epoch);
            if theirs || self.ended.get(now, call).is_some() {
                lost.push(claim.lease.clone());
                continue;
            }
            let ticket = self
                .forget(call)
                .map_or_else(String::new, |held| held.ticket);
            self.insert(
                Held {
                    epoch: claim.lease.epoch,
                    lapses_at: now + lease,
                    scopes: claim.scopes.clone(),
                    live: true,
                    ticket,
                },
                call,
            );
        }
        self.reap(now);
        lost
    }

    /// Gives a slot back, unless a later owner holds it.
    pub fn release(&mut self, now: Millis, lease: &Lease) -> Released {
        self.reap(now);
        match self.held.get(&lease.call) {
            None => Released::Gone,
            Some(held) if held.epoch > lease.epoch => Released::Stale,
            Some(_) => {
                self.forget(&lease.call);
                self.ended.put(now, END_KEPT, lease.call.clone(), ());
                Released::Freed {
                    active: self.active(),
                }
            }
        }
    }

    /// Notes the carrier's word that a call is over: whoever held its slot holds it no longer.
    pub fn end(&mut self, now: Millis, call: &CarrierCallId) -> Released {
        self.reap(now);
        let known = self.ended.get(now, call).is_some();
        if !known {
            self.ended.put(now, END_KEPT, call.clone(), ());
        }
        let Some(held) = self.forget(call) else {
            return Released::Gone;
        };
        if !held.live {
            self.set_up(false);
        }
        Released::Freed {
            active: self.active(),
        }
    }

    pub fn has_ended(&self, now: Millis, call: &CarrierCallId) -> bool {
        self.ended.get(now, call).is_some()
    }

    /// Drops what has lapsed; returns the calls, since it was last asked, whose media never came.
    pub fn expire(&mut self, now: Millis) -> Vec<CarrierCallId> {
        self.reap(now);
        std::mem::take(&mut self.never_came)
    }

    pub fn active(&self) -> u32 {
        self.used.get(&Scope::Global).copied().unwrap_or(0)
    }

    fn full(&self, scopes: &[(Scope, u32)]) -> Option<Refusal> {
        scopes.iter().find_map(|(scope, cap)| {
            let used = self.used.get(scope).copied().unwrap_or(0);
            let cap = match scope {
                Scope::Setup => (*cap).min(self.setup_cap(scopes)),
                Scope::Global | Scope::Tenant(_) | Scope::Campaign(_) => *cap,
            };
            (used >= cap).then(|| Refusal {
                scope: scope.clone(),
                used,
                cap,
            })
        })
    }

    /// Returns how many calls may wait for their media: half of what is free, but one at least,
    /// while most calls bring none. A flood of webhooks without audio must not own the house.
    fn setup_cap(&self, scopes: &[(Scope, u32)]) -> u32 {
        let without_media = self.setups.iter().filter(|brought| !**brought).count();
        if without_media <= SETUPS_REMEMBERED / 2 {
            return u32::MAX;
        }
        let global = scopes.iter().find(|(scope, _)| *scope == Scope::Global);
        let free = global.map_or(u32::MAX, |(_, cap)| cap.saturating_sub(self.live()));
        (free / 2).max(1)
    }

    /// Returns how many calls have their media.
    fn live(&self) -> u32 {
        let waiting = self.used.get(&Scope::Setup).copied().unwrap_or(0);
        self.active().saturating_sub(waiting)
    }

    fn set_up(&mut self, brought_media: bool) {
        if self.setups.len() == SETUPS_REMEMBERED {
            self.setups.pop_front();
        }
        self.setups.push_back(brought_media);
    }

    fn hold(&mut self, now: Millis, request: &Request<'_>, live: bool) -> u64 {
        // Never backwards, also after the loss of what was stored.
        self.epoch = now.max(self.epoch + 1);
        let scopes = request.scopes.iter().map(|(scope, _)| scope.clone());
        let held = Held {
            epoch: self.epoch,
            lapses_at: now + request.lease,
            scopes: scopes.filter(|scope| scope.counts(live)).collect(),
            live,
            ticket: request.ticket.to_owned(),
        };
        self.insert(held, request.call);
        self.epoch
    }

    fn insert(&mut self, held: Held, call: &CarrierCallId) {
        for scope in &held.scopes {
            *self.used.entry(scope.clone()).or_insert(0) += 1;
        }
        self.lapses.insert((held.lapses_at, call.clone()));
        self.held.insert(call.clone(), held);
    }

    fn forget(&mut self, call: &CarrierCallId) -> Option<Held> {
        let held = self.held.remove(call)?;
        self.lapses.remove(&(held.lapses_at, call.clone()));
        for scope in &held.scopes {
            if let Some(used) = self.used.get_mut(scope) {
                *used -= 1;
                if *used == 0 {
                    self.used.remove(scope);
                }
            }
        }
        Some(held)
    }

    /// Drops what has lapsed.
    pub fn reap(&mut self, now: Millis) {
        while let Some((lapses_at, call)) = self.lapses.first().cloned()
            && lapses_at <= now
        {
            let held = self.forget(&call);
            if held.is_some_and(|held| !held.live) {
                self.set_up(false);
                self.never_came.push(call);
            }
        }
    }
}

#[cfg(test)]
mod tests;
