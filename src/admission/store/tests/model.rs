//! What a store is to answer, written as plainly as can be: lists that are counted anew each time.

use super::*;

const MINUTE: Millis = 60_000;
const HOUR: Millis = 3_600_000;
/// How long the gate stays up.
const GATE: Millis = 3_000;
/// How long a replica counts that says nothing.
const SILENCE: Millis = 15_000;
/// How long leases are kept that nobody has written beside: the longest one and a second.
const HORIZON: Millis = LEASE + 1_000;
/// For how long after its lease nobody looks after a call, and again after somebody does.
const UNWRITTEN: Millis = 3_000;
const LOOKED_AFTER: Millis = 15_000;

/// One call's entry in some scopes.
#[derive(Debug, Clone)]
struct Row {
    call: CarrierCallId,
    epoch: u64,
    replica: String,
    lapses_at: Millis,
    scopes: Vec<Scope>,
}

/// A dial for a call, or what is kept for one.
#[derive(Debug, Clone)]
struct Dial {
    agent: Name,
    call: CarrierCallId,
    /// Who has dialed.
    by: Option<String>,
    lapses_at: Millis,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    pub now: Millis,
    /// Whether replicas share it: it has a gate then, and looks for what has lapsed only when
    /// one of them renews.
    is_shared: bool,
    /// Whether it knows that it was not just emptied.
    is_known: bool,
    gated_until: Millis,
    rows: Vec<Row>,
    decisions: Vec<(CarrierCallId, Millis, Kept)>,
    ended: Vec<(CarrierCallId, Millis, EndReason)>,
    /// Which replica notes the end that a carrier has told of a call that waited for its media, or
    /// that nobody had: `?` and who has it then, blank until that is known.
    freed: Vec<(CarrierCallId, Millis, String)>,
    nonces: Vec<(String, Millis)>,
    /// Whether each of the last set-ups brought media, and until when that is remembered.
    setups: Vec<bool>,
    setups_until: Millis,
    /// Name, when last heard of, free places.
    replicas: Vec<(String, Millis, Option<u32>)>,
    /// When what is in a scope goes as a whole.
    horizons: Vec<(Scope, Millis)>,
    lapsed: Vec<CarrierCallId>,
    /// Calls of whose ends nobody has told that they are written, and from when on each is to be looked
    /// after.
    unwritten: Vec<(CarrierCallId, Millis)>,
    unwritten_until: Millis,
    dials: Vec<Dial>,
    /// Agent, how many, until when they count.
    tokens: Vec<(Name, u32, Millis)>,
    /// Agents that keep failing, and until when they rest.
    resting: Vec<(Name, Millis)>,
    /// The highest epoch that there ever was.
    pub newest: u64,
}

impl Model {
    pub fn new(is_shared: bool) -> Self {
        Self {
            now: BEGIN,
            is_shared,
            ..Self::default()
        }
    }

    pub fn pass(&mut self, by: Millis) {
        self.now += by;
        let now = self.now;
        if self.is_shared {
            for (scope, at) in &self.horizons {
                for row in self.rows.iter_mut().filter(|_| *at <= now) {
                    row.scopes.retain(|held| held != scope);
                }
            }
        } else {
            self.reap();
        }
    }

    /// Everything that was stored is lost.
    pub fn lose(&mut self) {
        *self = Self {
            now: self.now,
            newest: self.newest,
            ..Self::new(self.is_shared)
        };
    }

    pub fn count(&self, scope: &Scope) -> u32 {
        let rows = self.rows.iter();
        let live = rows.filter(|row| self.now < row.lapses_at && row.scopes.contains(scope));
        u32::try_from(live.count()).unwrap()
    }

    /// Returns who is live, by name.
    pub fn live(&self) -> Vec<String> {
        let rows = self.rows.iter();
        let rows = rows.filter(|it| self.now < it.lapses_at && it.scopes.contains(&Scope::Global));
        let mut live: Vec<_> = rows.map(|row| row.call.to_string()).collect();
        live.sort();
        live
    }

    /// Predicts an answer in which `given` stands for the epoch.
    pub fn acquire(
        &mut self,
        replica: &str,
        request: &Request<'_>,
        choices: &Choices<'_>,
        given: u64,
    ) -> Acquired {
        let call = request.call;
        if self.gated() {
            return Acquired::Resync;
        }
        if self.reason(call).is_some() {
            return Acquired::Ended;
        }
        let held = self.held(call).is_some();
        match self.decision(call) {
            Some(kept @ Kept::Refused(_)) => return Acquired::Repeated(kept),
            Some(kept @ Kept::Admitted(_)) if held => return Acquired::Repeated(kept),
            None if held => return Acquired::Held,
            Some(Kept::Admitted(_)) | None => {}
        }
        if let Some(refusal) = self.full(request.rooms, true) {
            self.decide(call, Kept::Refused(refusal.clone()));
            return Acquired::Refused(refusal);
        }
        let lacks = |choice| self.lacks(choice);
        let Some(agent) = choices.agents.iter().position(|it| lacks(it).is_none()) else {
            let refusal = self.lacks(&choices.agents[0]).unwrap();
            self.decide(call, Kept::Refused(refusal.clone()));
            return Acquired::Refused(refusal);
        };
        let choice = &choices.agents[agent];
        let scopes = request.rooms.iter().map(|room| room.scope.clone());
        let counted = choice.budget != Budget::default();
        let of_agent = Scope::Agent(choice.agent.clone());
        let scopes: Vec<Scope> = scopes.chain(counted.then_some(of_agent)).collect();
        self.put(replica, call, given, request.lease, scopes.clone());
        if self.fails(choice.agent) {
            self.rest(choice.agent, self.now + 2_000);
        }
        if choice.budget.dials.is_some() {
            let by = choices.dials.then_some(replica);
            self.keeps_dial(choice.agent, call, by, self.now + MINUTE, true);
        }
        self.decide(call, Kept::Admitted(choice.ticket.to_owned()));
        Acquired::Admitted {
            epoch: given,
            used: scopes.iter().map(|scope| self.count(scope)).collect(),
            agent,
        }
    }

    /// Predicts an answer, of which only matters whether the agent rests.
    pub fn report(&mut self, replica: &str, report: &AgentReport) -> AgentUse {
        let agent = &report.agent;
        match report.rest {
            Rest::No => {}
            Rest::For(rest) => {
                let until = self.rests_until(agent).unwrap_or(0);
                self.rest(agent, until.max(self.now + rest));
            }
            Rest::Over => self.resting.retain(|(resting, _)| resting != agent),
        }
        for (call, left) in &report.dials {
            self.keeps_dial(agent, call, Some(replica), self.now + left, false);
        }
        self.tokens
            .push((agent.clone(), report.tokens, self.now + MINUTE));
        self.asked_of(agent)
    }

    pub fn asked_of(&self, agent: &Name) -> AgentUse {
        let dials = self.dials.iter();
        let dials = dials.filter(|it| it.agent == *agent && self.now < it.lapses_at);
        let tokens = self.tokens.iter();
        let tokens = tokens.filter(|(used_by, _, until)| used_by == agent && self.now < *until);
        AgentUse {
            dials: u32::try_from(dials.count()).unwrap(),
            tokens: tokens.map(|(_, tokens, _)| tokens).sum(),
            rests: u64::from(self.rests_until(agent) > Some(self.now)),
            fails: self.fails(agent),
        }
    }

    /// Returns why an agent cannot have a call, if so.
    fn lacks(&self, choice: &Choice<'_>) -> Option<Refusal> {
        let scope = Scope::Agent(choice.agent.clone());
        let (asked, budget) = (self.asked_of(choice.agent), choice.budget);
        let (reason, used, cap) = if choice.rests || asked.rests > 0 {
            (Reason::Resting, 0, 0)
        } else if let Some(cap) = budget.sessions.filter(|cap| *cap <= self.count(&scope)) {
            (Reason::Full, self.count(&scope), cap)
        } else if let Some(cap) = budget.dials.filter(|cap| *cap <= asked.dials) {
            (Reason::Dials, asked.dials, cap)
        } else if let Some(cap) = budget.tokens.filter(|cap| *cap <= asked.tokens) {
            (Reason::Tokens, asked.tokens, cap)
        } else {
            return None;
        };
        Some(Refusal {
            reason,
            scope,
            used,
            cap,
        })
    }

    fn keeps_dial(
        &mut self,
        agent: &Name,
        call: &CarrierCallId,
        by: Option<&str>,
        lapses_at: Millis,
        renews: bool,
    ) {
        // Memory has no more than one that could dial.
        let by = by.map(|by| if self.is_shared { by } else { "" }.to_owned());
        let now = self.now;
        self.dials.retain(|dial| now < dial.lapses_at);
        let is_same = |it: &&mut Dial| it.agent == *agent && it.call == *call && it.by == by;
        if let Some(known) = self.dials.iter_mut().find(is_same) {
            if renews {
                known.lapses_at = lapses_at;
            }
            return;
        }
        self.dials.push(Dial {
            agent: agent.clone(),
            call: call.clone(),
            by,
            lapses_at,
        });
    }

    fn rests_until(&self, agent: &Name) -> Option<Millis> {
        let mut resting = self.resting.iter();
        let (_, until) = resting.find(|(resting, _)| resting == agent)?;
        Some(*until)
    }

    fn fails(&self, agent: &Name) -> bool {
        let until = self.rests_until(agent);
        until.is_some_and(|until| self.now < until + MINUTE)
    }

    fn rest(&mut self, agent: &Name, until: Millis) {
        self.resting.retain(|(resting, _)| resting != agent);
        self.resting.push((agent.clone(), until));
    }

    pub fn adopt(
        &mut self,
        replica: &str,
        request: &Request<'_>,
        arrival: &Arrival<'_>,
        given: u64,
    ) -> Adopted {
        let (call, nonce) = (request.call, arrival.nonce);
        if self.reason(call).is_some() {
            return Adopted::Ended;
        }
        let used = |(known, until): &(String, Millis)| known == nonce && self.now < *until;
        if self.nonces.iter().any(used) {
            return Adopted::Used;
        }
        let gated = self.gated();
        if !gated
            && !arrival.admitted_without
            && self.held(call).is_none()
            && let Some(refusal) = self.full(request.rooms, false)
        {
            return Adopted::Refused(refusal);
        }
        self.nonces.push((nonce.to_owned(), self.now + MINUTE));
        let waiting = self.rows.iter_mut().filter(|row| row.call == *call);
        waiting.for_each(|row| row.scopes.retain(|scope| *scope != Scope::Setup));
        let scopes = request.rooms.iter().map(|room| room.scope.clone());
        let scopes = scopes.filter(|scope| *scope != Scope::Setup);
        self.put(replica, call, given, request.lease, scopes.collect());
        self.set_up(true);
        if let Some(agent) = arrival.dials {
            self.dials
                .retain(|it| it.by.is_some() || it.agent != *agent || it.call != *call);
            self.keeps_dial(agent, call, Some(replica), self.now + MINUTE, false);
        }
        Adopted::Live {
            lease: lease(call, given),
            state: arrival.state.to_owned(),
            gated,
        }
    }

    /// Predicts an answer in which the epochs of `given` are those that were new.
    pub fn renew(&mut self, replica: &str, renewal: &Renewal<'_>, given: &[u64]) -> Renewed {
        let mut given = given.iter().copied();
        if self.is_shared && (!self.is_known || renewal.puts_up_gate) {
            self.gated_until = self.now + GATE;
        }
        self.is_known = true;
        let mut news = Vec::new();
        for claim in renewal.claims {
            let call = &claim.lease.call;
            if let Some(piece) = self.renew_one(replica, claim, &mut given) {
                news.push((call.clone(), piece));
            }
        }
        self.reap();
        for scope in [Scope::Setup].iter().chain(renewal.scopes) {
            self.touch(scope);
        }
        let used = renewal.scopes.iter();
        let mut renewed = Renewed {
            replicas: 1,
            lapsed: {
                self.lapsed.sort();
                std::mem::take(&mut self.lapsed)
            },
            used: used
                .map(|scope| (scope.clone(), self.count(scope)))
                .collect(),
            news,
            ..Renewed::default()
        };
        if self.is_shared {
            self.replicas.retain(|(name, ..)| name != replica);
            self.replicas
                .push((replica.to_owned(), self.now, renewal.places));
            self.replicas.retain(|(_, at, _)| self.now < at + SILENCE);
            let others = self.replicas.iter().filter(|(name, ..)| name != replica);
            let places: Vec<u32> = others.filter_map(|(.., places)| *places).collect();
            renewed.unwritten = self.hand_out();
            renewed.gated = self.gated();
            renewed.replicas = u32::try_from(self.replicas.len()).unwrap();
            renewed.siblings = u32::try_from(places.len()).unwrap();
            renewed.places = places.iter().sum();
        }
        renewed
    }

    fn renew_one(
        &mut self,
        replica: &str,
        claim: &Claim,
        given: &mut impl Iterator<Item = u64>,
    ) -> Option<News> {
        let call = &claim.lease.call;
        if let Some(reason) = self.reason(call) {
            return Some(News::Ended(reason));
        }
        let stored = self.held(call).cloned();
        let claimed = claim.lease.epoch;
        let is_known = claimed > 0;
        let mut has_later_owner = false;
        if let Some(stored) = &stored {
            has_later_owner = is_known && stored.epoch > claimed;
            let gives_way = claim.has_media && stored.scopes.contains(&Scope::Setup);
            let elsewhere = !is_known && !claim.has_media && stored.replica != replica;
            if has_later_owner && !gives_way || elsewhere {
                return Some(News::Lost);
            }
        }
        let epoch = match &stored {
            _ if has_later_owner => given.next().unwrap_or(0),
            _ if is_known => claimed,
            // The store has admitted it after all, only nobody waited for its answer.
            Some(stored) if stored.replica == replica && !claim.has_media => stored.epoch,
            Some(_) | None => given.next().unwrap_or(0),
        };
        let is_new = !is_known || stored.as_ref().is_none_or(|stored| stored.epoch != epoch);
        if is_new && claim.has_media {
            let waiting = self.rows.iter_mut().filter(|row| row.call == *call);
            waiting.for_each(|row| row.scopes.retain(|scope| *scope != Scope::Setup));
        }
        self.put(replica, call, epoch, claim.lasts, claim.scopes.clone());
        if let Some(ticket) = &claim.ticket {
            let is_mine = stored.is_some_and(|stored| stored.replica == replica);
            if is_mine || self.decision(call).is_none() {
                self.decide(call, Kept::Admitted(ticket.clone()));
            }
        }
        is_new.then_some(News::TakenIn(epoch))
    }

    /// Returns whether there was a slot of the replica's.
    pub fn refuse(&mut self, replica: &str, call: &CarrierCallId, refusal: &Refusal) -> bool {
        if self.reason(call).is_some() {
            return false;
        }
        let is_mine = self.held(call).map(|held| held.replica == replica);
        if is_mine == Some(true) {
            self.rows.retain(|row| row.call != *call);
            let by = |it: &Dial| it.by.as_ref().is_none_or(|by| by == replica);
            self.dials.retain(|it| it.call != *call || !by(it));
        }
        if is_mine == Some(true) || is_mine.is_none() && self.decision(call).is_none() {
            self.decide(call, Kept::Refused(refusal.clone()));
        }
        is_mine == Some(true)
    }

    pub fn release(&mut self, replica: &str, lease: &Lease, ending: &Ending<'_>) -> Released {
        let held = self.held(&lease.call);
        // Who never got an epoch from the store speaks of what the store has of its own.
        let is_own = lease.epoch == 0 && held.is_some_and(|held| held.replica == replica);
        if !is_own && held.is_some_and(|held| held.epoch > lease.epoch) {
            return Released::Stale;
        }
        let released = self.give_back(&lease.call, ending);
        let Released::Gone { reason, .. } = released else {
            return released;
        };
        let holder = format!("?{}", self.asker(replica));
        let waited = match self.freed(&lease.call) {
            Some("?") if ending.had_media => {
                self.freed.retain(|(call, ..)| *call != lease.call);
                false
            }
            Some("?") if ending.forever => {
                let noted = self.freed.iter_mut().filter(|(it, ..)| *it == lease.call);
                noted.for_each(|(.., who)| who.clone_from(&holder));
                true
            }
            who => who == Some(holder.as_str()) && ending.forever && !ending.had_media,
        };
        Released::Gone { reason, waited }
    }

    /// Returns who asks, as far as that is told apart: memory has no more than one.
    fn asker<'a>(&self, replica: &'a str) -> &'a str {
        if self.is_shared { replica } else { "" }
    }

    /// Returns who notes the end of a call.
    fn freed(&self, call: &CarrierCallId) -> Option<&str> {
        let is_it =
            |(it, until, _): &&(CarrierCallId, Millis, String)| it == call && self.now < *until;
        self.freed.iter().find(is_it).map(|(.., who)| who.as_str())
    }

    pub fn end(&mut self, replica: &str, call: &CarrierCallId, ending: &Ending<'_>) -> Released {
        let is_news = self.reason(call).is_none() && ending.forever;
        let by = self.asker(replica).to_owned();
        let released = self.give_back(call, ending);
        let notes = match released {
            Released::Freed { waited: true, .. } => Some(by.clone()),
            Released::Gone { .. } => Some("?".to_owned()),
            Released::Freed { waited: false, .. } | Released::Stale => None,
        };
        if is_news {
            self.freed.retain(|(freed, ..)| freed != call);
            let until = self.now + HOUR;
            self.freed
                .extend(notes.map(|who| (call.clone(), until, who)));
        }
        match released {
            Released::Gone { reason, .. } => {
                let waited = self.freed(call) == Some(by.as_str());
                Released::Gone { reason, waited }
            }
            Released::Freed { .. } | Released::Stale => released,
        }
    }

    fn give_back(&mut self, call: &CarrierCallId, ending: &Ending<'_>) -> Released {
        let held = self.held(call).is_some();
        let rows = self.rows.iter().filter(|row| row.call == *call);
        let without_media = rows
            .filter(|row| row.scopes.contains(&Scope::Setup))
            .count()
            > 0;
        let waited = held && without_media;
        self.rows.retain(|row| row.call != *call);
        self.dials.retain(|it| it.by.is_some() || it.call != *call);
        if without_media {
            self.set_up(false);
        }
        let known = self.reason(call);
        let reason = known.unwrap_or(if waited {
            ending.without_media
        } else {
            ending.reason
        });
        self.decisions.retain(|(decided, ..)| decided != call);
        if ending.forever && known.is_none() {
            self.ended.push((call.clone(), self.now + HOUR, reason));
        }
        if held {
            let active = self.count(&Scope::Global);
            Released::Freed {
                active,
                reason,
                waited,
            }
        } else {
            Released::Gone {
                reason,
                waited: false,
            }
        }
    }

    pub fn rebind(&mut self, pending: &Lease, call: &CarrierCallId) -> Rebound {
        if self.reason(call).is_some() {
            return Rebound::Ended;
        }
        let Some(held) = self.held(&pending.call).cloned() else {
            return Rebound::Gone;
        };
        if held.epoch > pending.epoch || self.held(call).is_some() {
            return Rebound::Gone;
        }
        let now = self.now;
        let is_pending = |row: &mut Row| row.call == pending.call && now < row.lapses_at;
        let rows: Vec<Row> = self.rows.extract_if(.., is_pending).collect();
        for row in rows {
            let lasts = row.lapses_at - now;
            self.place(&row.replica, call, row.epoch, lasts, row.scopes);
        }
        self.written(&pending.call);
        let is_kept = |it: &Dial| it.by.is_none() && now < it.lapses_at;
        let kept = |it: &mut Dial| is_kept(it) && it.call == pending.call;
        let kept: Vec<Dial> = self.dials.extract_if(.., kept).collect();
        for dial in kept {
            let is_same = |it: &Dial| it.call == *call && it.agent == dial.agent;
            self.dials.retain(|it| !is_kept(it) || !is_same(it));
            self.dials.push(Dial {
                call: call.clone(),
                ..dial
            });
        }
        Rebound::Named
    }

    pub fn pick_up(
        &mut self,
        replica: &str,
        request: &Request<'_>,
        pick_up: &PickUp<'_>,
        given: u64,
    ) -> PickedUp {
        let (call, pending) = (request.call, pick_up.pending);
        if self.reason(call).is_some() || self.reason(pending).is_some() {
            return PickedUp::Ended;
        }
        let named = self.held(call).is_some();
        match self.decision(call) {
            Some(kept @ Kept::Refused(_)) => return PickedUp::Repeated(kept),
            Some(kept @ Kept::Admitted(_)) if named => return PickedUp::Repeated(kept),
            Some(Kept::Admitted(_)) | None => {}
        }
        let gated = self.gated();
        let is_held = named || self.held(pending).is_some();
        if !(is_held || gated)
            && let Some(refusal) = self.full(request.rooms, false)
        {
            self.decide(call, Kept::Refused(refusal.clone()));
            return PickedUp::Refused(refusal);
        }
        let scopes = request.rooms.iter().map(|room| room.scope.clone());
        let scopes: Vec<Scope> = scopes.collect();
        let is_shared = self.is_shared; // Memory knows in which scopes it was.
        for row in self.rows.iter_mut().filter(|row| row.call == *pending) {
            row.scopes
                .retain(|scope| is_shared && !scopes.contains(scope));
        }
        self.rows.retain(|row| !row.scopes.is_empty());
        self.put(replica, call, given, request.lease, scopes);
        self.written(pending);
        if let Some(agent) = pick_up.agent {
            let now = self.now;
            let kept = |it: &Dial, call: &CarrierCallId| {
                it.by.is_none() && it.agent == *agent && it.call == *call
            };
            let mut dials = self.dials.iter();
            let until = dials.find(|it| now < it.lapses_at && kept(it, pending));
            let until = until.map(|it| it.lapses_at);
            self.dials.retain(|it| !kept(it, pending));
            if pick_up.dials {
                self.dials.retain(|it| !kept(it, call));
                self.keeps_dial(agent, call, Some(replica), now + MINUTE, false);
            } else if let Some(until) = until {
                self.keeps_dial(agent, call, None, until, true);
            }
        }
        self.decide(call, Kept::Admitted(pick_up.ticket.to_owned()));
        PickedUp::Waits {
            epoch: given,
            gated,
        }
    }

    /// Sweeps up what has lapsed; returns how many slots that frees and how many are held.
    pub fn sweep(&mut self) -> (u32, u32) {
        self.reap();
        let lapsed = std::mem::take(&mut self.lapsed).len();
        (
            u32::try_from(lapsed).unwrap_or(u32::MAX),
            self.count(&Scope::Global),
        )
    }

    /// Nobody need look after a call any more.
    pub fn written(&mut self, written: &CarrierCallId) {
        self.unwritten.retain(|(call, _)| call != written);
    }

    /// They go an hour after the last change as a whole.
    fn keep_unwritten(&mut self) {
        if self.unwritten_until <= self.now {
            self.unwritten.clear();
        }
        self.unwritten_until = self.now + HOUR;
    }

    /// Returns the calls that somebody is to look after, which nobody else does for a while.
    fn hand_out(&mut self) -> Vec<CarrierCallId> {
        self.keep_unwritten();
        let now = self.now;
        let due = self.unwritten.iter_mut().filter(|(_, at)| *at <= now);
        let mut due: Vec<_> = due
            .map(|(call, at)| {
                *at = now + LOOKED_AFTER;
                call.clone()
            })
            .collect();
        due.sort();
        due
    }

    pub fn reason(&self, call: &CarrierCallId) -> Option<EndReason> {
        let ended = self.ended.iter();
        let mut ended = ended.filter(|(ended, until, _)| ended == call && self.now < *until);
        ended.next().map(|(.., reason)| *reason)
    }

    fn gated(&self) -> bool {
        self.is_shared && (!self.is_known || self.now < self.gated_until)
    }

    /// Returns the slot that a call has and that has not lapsed.
    fn held(&self, call: &CarrierCallId) -> Option<&Row> {
        let rows = self.rows.iter();
        let held = rows.filter(|row| row.call == *call && self.now < row.lapses_at);
        held.max_by_key(|row| row.epoch)
    }

    fn decision(&self, call: &CarrierCallId) -> Option<Kept> {
        let mut decisions = self.decisions.iter();
        let kept = decisions.find(|(decided, until, _)| decided == call && self.now < *until);
        kept.map(|(.., kept)| kept.clone())
    }

    fn decide(&mut self, call: &CarrierCallId, kept: Kept) {
        self.decisions.retain(|(decided, ..)| decided != call);
        self.decisions.push((call.clone(), self.now + MINUTE, kept));
    }

    /// Returns the first scope in which a call would be one too many.
    fn full(&self, rooms: &[Room], waits: bool) -> Option<Refusal> {
        let counted = rooms.iter();
        let counted = counted.filter(|room| waits || room.scope != Scope::Setup);
        for room in counted {
            let mut cap = i64::from(room.cap);
            for (scope, slots) in &room.reserves {
                cap -= (i64::from(*slots) - i64::from(self.count(scope))).max(0);
            }
            cap = cap.max(0);
            let without_media = self.setups.iter().filter(|brought| !**brought).count();
            let remembered = !self.is_shared || self.now < self.setups_until;
            if room.scope == Scope::Setup && remembered && without_media > 50 {
                let global = rooms
                    .iter()
                    .find(|room| room.scope == Scope::Global)
                    .unwrap();
                let live = self.count(&Scope::Global) - self.count(&Scope::Setup);
                let free = i64::from(global.cap) - i64::from(live);
                cap = cap.min((free / 2).max(1));
            }
            let used = self.count(&room.scope);
            if i64::from(used) >= cap {
                return Some(Refusal {
                    reason: Reason::Full,
                    scope: room.scope.clone(),
                    used,
                    cap: u32::try_from(cap).unwrap(),
                });
            }
        }
        None
    }

    fn put(
        &mut self,
        replica: &str,
        call: &CarrierCallId,
        epoch: u64,
        lasts: Millis,
        scopes: Vec<Scope>,
    ) {
        for scope in &scopes {
            self.touch(scope);
        }
        self.place(replica, call, epoch, lasts, scopes);
    }

    /// Puts a call into scopes in place of what it has in those.
    fn place(
        &mut self,
        replica: &str,
        call: &CarrierCallId,
        epoch: u64,
        lasts: Millis,
        scopes: Vec<Scope>,
    ) {
        self.newest = self.newest.max(epoch);
        if !self.is_shared {
            self.rows.retain(|row| row.call != *call); // It knows what it has given.
        }
        for row in self.rows.iter_mut().filter(|row| row.call == *call) {
            row.scopes.retain(|scope| !scopes.contains(scope));
        }
        self.rows.retain(|row| !row.scopes.is_empty());
        if scopes.contains(&Scope::Global) {
            self.keep_unwritten();
            self.written(call);
            let looked_after_at = self.now + lasts + UNWRITTEN;
            self.unwritten.push((call.clone(), looked_after_at));
        }
        self.rows.push(Row {
            call: call.clone(),
            epoch,
            replica: replica.to_owned(),
            lapses_at: self.now + lasts,
            scopes,
        });
    }

    fn touch(&mut self, scope: &Scope) {
        self.horizons.retain(|(known, _)| known != scope);
        self.horizons.push((scope.clone(), self.now + HORIZON));
    }

    fn set_up(&mut self, brought_media: bool) {
        if self.is_shared && self.setups_until <= self.now {
            self.setups.clear();
        }
        self.setups.push(brought_media);
        let too_many = self.setups.len().saturating_sub(100);
        self.setups.drain(..too_many);
        self.setups_until = self.now + HOUR;
    }

    /// Drops what has lapsed.
    fn reap(&mut self) {
        let now = self.now;
        let (lapsed, live): (Vec<_>, Vec<_>) =
            self.rows.drain(..).partition(|row| row.lapses_at <= now);
        self.rows = live;
        for row in lapsed {
            if row.scopes.contains(&Scope::Global) {
                self.lapsed.push(row.call.clone());
            }
            if row.scopes.contains(&Scope::Setup) {
                self.set_up(false);
            }
        }
    }
}
