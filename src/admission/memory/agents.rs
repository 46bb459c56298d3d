//! What this process has asked of agents within the last minute, and which of them rest.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    admission::{
        Reason, Refusal,
        scope::Scope,
        store::{AgentReport, AgentUse, Choice, MINUTE, REST, Rest, TRIED_FOR},
    },
    call::CarrierCallId,
    campaign::Name,
    recent::Millis,
};

#[derive(Debug, Default)]
pub struct AgentLog(BTreeMap<Name, Asked>);

/// What was asked of one agent.
#[derive(Debug, Default)]
struct Asked {
    dials: Vec<Dial>,
    /// How many were used up, and when they count no more.
    tokens: VecDeque<(Millis, u32)>,
    /// Until when it is left alone; for a while after that, one call at a time tries it.
    rests_until: Option<Millis>,
}

#[derive(Debug)]
struct Dial {
    call: CarrierCallId,
    /// Whether the agent was dialed, and not merely kept for this call.
    done: bool,
    lapses_at: Millis,
}

impl AgentLog {
    /// Returns why an agent cannot have a call, if so; `sessions` is how many it talks in.
    pub fn lacks(&self, now: Millis, choice: &Choice<'_>, sessions: u32) -> Option<Refusal> {
        let refusal = |reason, used, cap| Refusal {
            reason,
            scope: Scope::Agent(choice.agent.clone()),
            used,
            cap,
        };
        let AgentUse {
            dials,
            tokens,
            rests,
            ..
        } = self.used(now, choice.agent);
        if choice.rests || rests > 0 {
            return Some(refusal(Reason::Resting, 0, 0));
        }
        let budget = choice.budget;
        let limits = [
            (Reason::Full, sessions, budget.sessions),
            (Reason::Dials, dials, budget.dials),
            (Reason::Tokens, tokens, budget.tokens),
        ];
        limits.into_iter().find_map(|(reason, used, cap)| {
            let cap = cap.filter(|cap| used >= *cap)?;
            Some(refusal(reason, used, cap))
        })
    }

    /// Notes that a call has got an agent, which is dialed here at once or elsewhere later.
    pub fn took(&mut self, now: Millis, choice: &Choice<'_>, call: &CarrierCallId, done: bool) {
        if let Some(asked) = self.0.get_mut(choice.agent)
            && asked.fails(now)
        {
            // It tries whether the agent works again: nobody else does for as long as it rests.
            asked.rests_until = Some(now + REST);
        }
        if choice.budget.dials.is_some() {
            self.of(now, choice.agent)
                .dial(call, done, now + MINUTE, true);
        }
    }

    /// Notes that an agent is dialed for a call, unless that was done before.
    pub fn dialed(&mut self, now: Millis, agent: &Name, call: &CarrierCallId) {
        let asked = self.of(now, agent);
        asked.dials.retain(|dial| dial.done || dial.call != *call);
        asked.dial(call, true, now + MINUTE, false);
    }

    /// Gives back what was kept for a call that nobody has dialed for.
    pub fn give_back(&mut self, call: &CarrierCallId) {
        for asked in self.0.values_mut() {
            asked.dials.retain(|dial| dial.done || dial.call != *call);
        }
    }

    /// Gives what was kept for a call to another name of it.
    pub fn rename(&mut self, now: Millis, pending: &CarrierCallId, call: &CarrierCallId) {
        for Asked { dials, .. } in self.0.values_mut() {
            let kept = |dial: &Dial, call: &CarrierCallId| {
                !dial.done && dial.call == *call && now < dial.lapses_at
            };
            if dials.iter().any(|dial| kept(dial, pending)) {
                dials.retain(|dial| !kept(dial, call));
            }
            for dial in dials.iter_mut().filter(|dial| kept(dial, pending)) {
                dial.call = call.clone();
            }
        }
    }

    /// Gives what was kept for a call that we placed to the name by which it was picked up, and
    /// notes whether the agent is dialed for it.
    pub fn picked_up(
        &mut self,
        now: Millis,
        agent: &Name,
        (pending, call): (&CarrierCallId, &CarrierCallId),
        dials: bool,
    ) {
        let asked = self.of(now, agent);
        let is_kept = |dial: &Dial, call: &CarrierCallId| !dial.done && dial.call == *call;
        let until = asked.dials.iter().find(|dial| is_kept(dial, pending));
        let until = until.map(|dial| dial.lapses_at);
        let moves = dials || until.is_some();
        asked
            .dials
            .retain(|dial| !(is_kept(dial, pending) || moves && is_kept(dial, call)));
        if dials {
            asked.dial(call, true, now + MINUTE, false);
        } else if let Some(until) = until {
            asked.dial(call, false, until, true);
        }
    }

    /// Takes in what was seen of an agent; returns what was asked of it.
    pub fn report(&mut self, now: Millis, report: &AgentReport) -> AgentUse {
        let asked = self.of(now, &report.agent);
        match report.rest {
            Rest::No => {}
            Rest::For(rest) => asked.rests_until = asked.rests_until.max(Some(now + rest)),
            Rest::Over => asked.rests_until = None,
        }
        for (call, left) in &report.dials {
            asked.dial(call, true, now + left, false);
        }
        if report.tokens > 0 {
            asked.tokens.push_back((now + MINUTE, report.tokens));
        }
        self.used(now, &report.agent)
    }

    fn used(&self, now: Millis, agent: &Name) -> AgentUse {
        let Some(asked) = self.0.get(agent) else {
            return AgentUse::default();
        };
        let dials = asked.dials.iter().filter(|dial| now < dial.lapses_at);
        let tokens = asked
            .tokens
            .iter()
            .filter(|(lapses_at, _)| now < *lapses_at);
        let tokens = tokens.map(|(_, tokens)| *tokens);
        let rests_until = asked.rests_until.unwrap_or(0);
        AgentUse {
            dials: u32::try_from(dials.count()).unwrap_or(u32::MAX),
            tokens: tokens.fold(0, u32::saturating_add),
            rests: rests_until.saturating_sub(now),
            fails: asked.fails(now),
        }
    }

    /// Returns what was asked of an agent, without what counts no more.
    fn of(&mut self, now: Millis, agent: &Name) -> &mut Asked {
        let asked = self.0.entry(agent.clone()).or_default();
        asked.dials.retain(|dial| now < dial.lapses_at);
        asked.tokens.retain(|(lapses_at, _)| now < *lapses_at);
        if !asked.fails(now) {
            asked.rests_until = None;
        }
        asked
    }
}

impl Asked {
    /// Tells whether the agent rests, or has not been reached since.
    fn fails(&self, now: Millis) -> bool {
        let until = self.rests_until.map(|until| until + TRIED_FOR);
        until.is_some_and(|until| now < until)
    }

    /// Counts a dial, or what is kept for one; once, whose time the last one sets if it `renews`.
    fn dial(&mut self, call: &CarrierCallId, done: bool, lapses_at: Millis, renews: bool) {
        let mut known = self.dials.iter_mut();
        match known.find(|dial| dial.done == done && dial.call == *call) {
            Some(dial) if renews => dial.lapses_at = lapses_at,
            Some(_) => {}
            None => self.dials.push(Dial {
                call: call.clone(),
                done,
                lapses_at,
            }),
        }
    }
}
