//! The embedded store: slots of one process. It does what the scripts of a shared store do, under
//! one lock and with the time handed in.

mod agents;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    mem,
};

use crate::{
    admission::{
        Kept, Lease, Reason, Refusal,
        memory::agents::AgentLog,
        scope::{Room, Scope},
        store::{
            Acquired, Adopted, AgentReport, AgentUse, Arrival, Choice, Choices, Claim,
            DECISION_KEPT, END_KEPT, Ending, NONCE_KEPT, News, PickUp, PickedUp, Rebound, Released,
            Renewal, Renewed, Request, SETUPS_REMEMBERED,
        },
    },
    call::{CarrierCallId, EndReason},
    recent::{Millis, Recent},
};

#[derive(Debug, Default)]
pub struct MemoryStore {
    held: HashMap<CarrierCallId, Held>,
    /// The same calls by the time at which their lease lapses.
    lapses: BTreeSet<(Millis, CarrierCallId)>,
    used: HashMap<Scope, u32>,
    epoch: u64,
    decisions: Recent<CarrierCallId, Kept>,
    ended: Recent<CarrierCallId, EndReason>,
    /// Who notes the end that a carrier has told of a call that waited for its media, or that nobody
    /// had here yet.
    freed: Recent<CarrierCallId, Notes>,
    nonces: Recent<String, ()>,
    /// Whether each of the last calls brought its media.
    setups: VecDeque<bool>,
    /// Whose leases have lapsed since the last heartbeat.
    lapsed: Vec<CarrierCallId>,
    agents: AgentLog,
}

/// Who notes that a call is over.
#[derive(Debug, PartialEq, Eq)]
enum Notes {
    WhoeverFreesIt,
    /// It may have been admitted without the store, which will be told of it.
    WhoeverHasIt,
}

#[derive(Debug)]
struct Held {
    epoch: u64,
    lapses_at: Millis,
    scopes: Vec<Scope>,
}

impl Held {
    /// Tells whether it waits for its media.
    fn waits(&self) -> bool {
        self.scopes.contains(&Scope::Setup)
    }
}

impl MemoryStore {
    /// Takes a slot in every scope, or in none.
    pub fn acquire(
        &mut self,
        now: Millis,
        request: &Request<'_>,
        choices: &Choices<'_>,
    ) -> Acquired {
        self.reap(now);
        if self.ended.get(now, request.call).is_some() {
            return Acquired::Ended;
        }
        let held = self.held.contains_key(request.call);
        match self.decisions.get(now, request.call) {
            Some(Kept::Admitted(_)) if !held => {} // Its slot has lapsed.
            Some(kept) => return Acquired::Repeated(kept.clone()),
            None if held => return Acquired::Held,
            None => {}
        }
        let call = request.call.clone();
        let full = self.full(request.rooms.iter());
        let chosen = full.map_or_else(|| self.choose(now, choices.agents), Err);
        let agent = match chosen {
            Ok(agent) => agent,
            Err(refusal) => {
                let kept = Kept::Refused(refusal.clone());
                self.decisions.put(now, DECISION_KEPT, call, kept);
                return Acquired::Refused(refusal);
            }
        };
        let choice = &choices.agents[agent];
        let scopes = request.rooms.iter().map(|room| room.scope.clone());
        let of_agent = Scope::Agent(choice.agent.clone());
        let scopes = scopes.chain(choice.is_counted().then_some(of_agent));
        let scopes: Vec<Scope> = scopes.collect();
        let epoch = self.hold(now, request, scopes.clone());
        self.agents.took(now, choice, &call, choices.dials);
        let kept = Kept::Admitted(choice.ticket.to_owned());
        self.decisions.put(now, DECISION_KEPT, call, kept);
        Acquired::Admitted {
            epoch,
            used: scopes.iter().map(|scope| self.used(scope)).collect(),
            agent,
        }
    }

    /// Returns the first agent that can have a call, or why the first of all cannot.
    fn choose(&self, now: Millis, choices: &[Choice<'_>]) -> Result<usize, Refusal> {
        let mut first = None;
        for (at, choice) in choices.iter().enumerate() {
            let sessions = self.used(&Scope::Agent(choice.agent.clone()));
            match self.agents.lacks(now, choice, sessions) {
                None => return Ok(at),
                Some(refusal) => first = first.or(Some(refusal)),
            }
        }
        Err(first.expect("a call may have one agent at least"))
    }

    /// Hands a call to the owner of its media socket, once a ticket.
    pub fn adopt(&mut self, now: Millis, request: &Request<'_>, arrival: &Arrival<'_>) -> Adopted {
        self.reap(now);
        let nonce = arrival.nonce.to_owned();
        if self.ended.get(now, request.call).is_some() {
            return Adopted::Ended;
        }
        if self.nonces.get(now, &nonce).is_some() {
            return Adopted::Used;
        }
        let live = |room: &&Room| room.scope.counts(true);
        if !arrival.admitted_without
            && !self.held.contains_key(request.call)
            && let Some(refusal) = self.full(request.rooms.iter().filter(live))
        {
            return Adopted::Refused(refusal);
        }
        self.forget(request.call);
        self.nonces.put(now, NONCE_KEPT, nonce, ());
        self.set_up(true);
        let scopes = request.rooms.iter().filter(live);
        let scopes = scopes.map(|room| room.scope.clone()).collect();
        let epoch = self.hold(now, request, scopes);
        if let Some(agent) = arrival.dials {
            self.agents.dialed(now, agent, request.call);
        }
        Adopted::Live {
            lease: Lease {
                call: request.call.clone(),
                epoch,
            },
            state: arrival.state.to_owned(),
            gated: false,
        }
    }

    /// Extends what its owner says is live, and takes in again what had lapsed: a live caller is
    /// never hung up because of bookkeeping.
    pub fn renew(&mut self, now: Millis, renewal: &Renewal<'_>) -> Renewed {
        self.reap(now);
        let mut news = Vec::new();
        for claim in renewal.claims {
            if let Some(piece) = self.renew_one(now, claim) {
                news.push((claim.lease.call.clone(), piece));
            }
        }
        let scopes = renewal.scopes.iter();
        Renewed {
            now,
            replicas: 1,
            lapsed: {
                self.lapsed.sort();
                mem::take(&mut self.lapsed)
            },
            used: scopes
                .map(|scope| (scope.clone(), self.used(scope)))
                .collect(),
            news,
            ..Renewed::default()
        }
    }

    fn renew_one(&mut self, now: Millis, claim: &Claim) -> Option<News> {
        let call = &claim.lease.call;
        if let Some(reason) = self.ended.get(now, call) {
            return Some(News::Ended(*reason));
        }
        let held = self.held.get(call);
        let claimed = claim.lease.epoch;
        let later = held.filter(|held| claimed > 0 && held.epoch > claimed);
        // Who waits for a call's media gives way to who has it.
        if later.is_some_and(|later| !(later.waits() && claim.has_media)) {
            return Some(News::Lost);
        }
        let stored = held.map(|held| held.epoch);
        let epoch = if claimed == 0 || later.is_some() {
            self.next_epoch(now)
        } else {
            claimed
        };
        self.epoch = self.epoch.max(epoch);
        self.forget(call);
        let held = Held {
            epoch,
            lapses_at: now + claim.lasts,
            scopes: claim.scopes.clone(),
        };
        self.insert(held, call);
        (stored != Some(epoch)).then_some(News::TakenIn(epoch))
    }

    /// Gives a slot back, unless a later owner holds it.
    pub fn release(&mut self, now: Millis, lease: &Lease, ending: &Ending<'_>) -> Released {
        self.reap(now);
        let held = self.held.get(&lease.call);
        if held.is_some_and(|held| held.epoch > lease.epoch) {
            return Released::Stale;
        }
        let released = self.give_back(now, &lease.call, ending);
        let Released::Gone { reason, .. } = released else {
            return released;
        };
        let waited = match self.freed.get(now, &lease.call) {
            Some(Notes::WhoeverHasIt) if ending.had_media => {
                self.freed.forget(&lease.call);
                false
            }
            Some(Notes::WhoeverHasIt) => ending.forever,
            Some(Notes::WhoeverFreesIt) | None => false,
        };
        Released::Gone { reason, waited }
    }

    /// Notes the carrier's word that a call is over: whoever held its slot holds it no longer.
    pub fn end(&mut self, now: Millis, call: &CarrierCallId, ending: &Ending<'_>) -> Released {
        self.reap(now);
        let is_news = self.ended.get(now, call).is_none() && ending.forever;
        let released = self.give_back(now, call, ending);
        let notes = match released {
            Released::Freed { waited: true, .. } => Some(Notes::WhoeverFreesIt),
            Released::Gone { .. } => Some(Notes::WhoeverHasIt),
            Released::Freed { waited: false, .. } | Released::Stale => None,
        };
        if is_news && let Some(notes) = notes {
            self.freed.put(now, END_KEPT, call.clone(), notes);
        }
        match released {
            Released::Gone { reason, .. } => {
                let notes = self.freed.get(now, call);
                let waited = notes == Some(&Notes::WhoeverFreesIt);
                Released::Gone { reason, waited }
            }
            Released::Freed { .. } | Released::Stale => released,
        }
    }

    fn give_back(&mut self, now: Millis, call: &CarrierCallId, ending: &Ending<'_>) -> Released {
        let held = self.forget(call);
        self.agents.give_back(call);
        let waited = held.as_ref().is_some_and(Held::waits);
        if waited {
            self.set_up(false);
        }
        let news = if waited {
            ending.without_media
        } else {
            ending.reason
        };
        let reason = self.ended.get(now, call).copied().unwrap_or(news);
        self.decisions.forget(call);
        if ending.forever && self.ended.get(now, call).is_none() {
            self.ended.put(now, END_KEPT, call.clone(), reason);
        }
        match held {
            None => Released::Gone {
                reason,
                waited: false,
            },
            Some(_) => Released::Freed {
                active: self.used(&Scope::Global),
                reason,
                waited,
            },
        }
    }

    /// Gives a slot that was taken before its call had a name to the call, which keeps its lease.
    pub fn rebind(&mut self, now: Millis, lease: &Lease, call: &CarrierCallId) -> Rebound {
        self.reap(now);
        if self.ended.get(now, call).is_some() {
            return Rebound::Ended;
        }
        let held = self.held.get(&lease.call);
        let ours = held.is_some_and(|held| held.epoch <= lease.epoch);
        if !ours || self.held.contains_key(call) {
            return Rebound::Gone;
        }
        if let Some(held) = self.forget(&lease.call) {
            self.insert(held, call);
            self.agents.rename(now, &lease.call, call);
        }
        Rebound::Named
    }

    /// Gives a call that somebody has picked up to whoever was told so.
    pub fn pick_up(
        &mut self,
        now: Millis,
        request: &Request<'_>,
        pick_up: &PickUp<'_>,
    ) -> PickedUp {
        self.reap(now);
        let (call, pending) = (request.call, pick_up.pending);
        let is_over = |call| self.ended.get(now, call).is_some();
        if is_over(call) || is_over(pending) {
            return PickedUp::Ended;
        }
        let live = |room: &&Room| room.scope.counts(true);
        let named = self.held.contains_key(call);
        match self.decisions.get(now, call) {
            Some(kept @ Kept::Refused(_)) => return PickedUp::Repeated(kept.clone()),
            Some(kept @ Kept::Admitted(_)) if named => return PickedUp::Repeated(kept.clone()),
            Some(Kept::Admitted(_)) | None => {}
        }
        if !named
            && !self.held.contains_key(pending)
            && let Some(refusal) = self.full(request.rooms.iter().filter(live))
        {
            let kept = Kept::Refused(refusal.clone());
            self.decisions.put(now, DECISION_KEPT, call.clone(), kept);
            return PickedUp::Refused(refusal);
        }
        self.forget(pending);
        self.forget(call);
        let scopes = request.rooms.iter().map(|room| room.scope.clone());
        let epoch = self.hold(now, request, scopes.collect());
        if let Some(agent) = pick_up.agent {
            let names = (pending, call);
            self.agents.picked_up(now, agent, names, pick_up.dials);
        }
        let kept = Kept::Admitted(pick_up.ticket.to_owned());
        self.decisions.put(now, DECISION_KEPT, call.clone(), kept);
        PickedUp::Waits {
            epoch,
            gated: false,
        }
    }

    /// Takes in what this process has seen of agents; returns what was asked of each.
    pub fn report(&mut self, now: Millis, reports: &[AgentReport]) -> Vec<AgentUse> {
        let seen = reports.iter();
        seen.map(|report| self.agents.report(now, report)).collect()
    }

    pub fn ended(&self, now: Millis, call: &CarrierCallId) -> Option<EndReason> {
        self.ended.get(now, call).copied()
    }

    pub fn used_at(&mut self, now: Millis, scope: &Scope) -> u32 {
        self.reap(now);
        self.used(scope)
    }

    pub fn used(&self, scope: &Scope) -> u32 {
        self.used.get(scope).copied().unwrap_or(0)
    }

    fn full<'a>(&self, mut rooms: impl Iterator<Item = &'a Room> + Clone) -> Option<Refusal> {
        let all = rooms.clone();
        rooms.find_map(|room| {
            let used = self.used(&room.scope);
            let mut cap = room.open_to_all(|scope| self.used(scope));
            if room.scope == Scope::Setup {
                cap = cap.min(self.setup_cap(all.clone()));
            }
            (used >= cap).then(|| Refusal {
                reason: Reason::Full,
                scope: room.scope.clone(),
                used,
                cap,
            })
        })
    }

    /// Returns how many calls may wait for their media: half of what is free, but one at least,
    /// while most calls bring none. A flood of webhooks without audio must not own the house.
    fn setup_cap<'a>(&self, mut rooms: impl Iterator<Item = &'a Room>) -> u32 {
        let without_media = self.setups.iter().filter(|brought| !**brought).count();
        if without_media <= SETUPS_REMEMBERED / 2 {
            return u32::MAX;
        }
        let global = rooms.find(|room| room.scope == Scope::Global);
        let live = self
            .used(&Scope::Global)
            .saturating_sub(self.used(&Scope::Setup));
        let free = global.map_or(u32::MAX, |room| room.cap.saturating_sub(live));
        (free / 2).max(1)
    }

    fn set_up(&mut self, brought_media: bool) {
        if self.setups.len() == SETUPS_REMEMBERED {
            self.setups.pop_front();
        }
        self.setups.push_back(brought_media);
    }

    fn hold(&mut self, now: Millis, request: &Request<'_>, scopes: Vec<Scope>) -> u64 {
        let epoch = self.next_epoch(now);
        let held = Held {
            epoch,
            lapses_at: now + request.lease,
            scopes,
        };
        self.insert(held, request.call);
        epoch
    }

    /// Never backwards, also after the loss of what was stored.
    fn next_epoch(&mut self, now: Millis) -> u64 {
        self.epoch = now.max(self.epoch + 1);
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
    fn reap(&mut self, now: Millis) {
        while let Some((lapses_at, call)) = self.lapses.first().cloned()
            && lapses_at <= now
        {
            let held = self.forget(&call);
            self.lapsed.push(call);
            if held.is_some_and(|held| held.waits()) {
                self.set_up(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl MemoryStore {
        /// Lists what is stored, but for decisions: name, content and kind.
        pub fn dump(&mut self, now: Millis) -> Vec<(String, String, String)> {
            self.reap(now);
            let mut held: Vec<_> = self.held.iter().collect();
            held.sort_by_key(|(call, _)| call.as_str());
            let stored = [
                ("held", format!("{held:?}")),
                ("lapses", format!("{:?}", self.lapses)),
                ("used", format!("{:?}", BTreeSet::from_iter(&self.used))),
                ("epoch", self.epoch.to_string()),
                ("ended", format!("{:?}", self.ended)),
                ("nonces", format!("{:?}", self.nonces)),
                ("setups", format!("{:?}", self.setups)),
                ("agents", format!("{:?}", self.agents)),
            ];
            let lines = stored.into_iter();
            lines
                .map(|(name, content)| (name.to_owned(), content, "memory".to_owned()))
                .collect()
        }
    }
}
