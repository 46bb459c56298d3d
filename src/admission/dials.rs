//! The agents that this replica has dialed within the last minute: its share of their budgets while
//! the store is away, and what a store that was not there is told afterwards.

use std::collections::{HashMap, VecDeque};

use crate::{admission::store::MINUTE, call::CarrierCallId, campaign::Name, recent::Millis};

/// How many dials of one agent are remembered.
const MOST: usize = 10_000;
/// How many a store is told of at once.
const AT_ONCE: usize = 100;

/// The dials of agents whose dials are counted.
#[derive(Debug, Default)]
pub struct Dials(HashMap<Name, VecDeque<Dial>>);

#[derive(Debug)]
struct Dial {
    call: CarrierCallId,
    at: Millis,
    /// Whether the store knows of it.
    is_known: bool,
}

impl Dials {
    /// Notes that an agent is dialed for a call, unless that was noted before.
    pub fn note(&mut self, now: Millis, agent: &Name, call: &CarrierCallId, is_known: bool) {
        let dials = self.0.entry(agent.clone()).or_default();
        forget(dials, now);
        if dials.iter().any(|dial| dial.call == *call) {
            return;
        }
        if dials.len() >= MOST {
            dials.pop_front();
        }
        dials.push_back(Dial {
            call: call.clone(),
            at: now,
            is_known,
        });
    }

    /// Returns how often an agent was dialed within the last minute.
    pub fn count(&mut self, now: Millis, agent: &Name) -> u32 {
        let dials = self.0.get_mut(agent);
        dials.map_or(0, |dials| {
            forget(dials, now);
            u32::try_from(dials.len()).unwrap_or(u32::MAX)
        })
    }

    /// Returns some of the calls whose dials the store does not know, and for how long they count
    /// still; from here on it does.
    pub fn tell(&mut self, now: Millis, agent: &Name) -> Vec<(CarrierCallId, Millis)> {
        let Some(dials) = self.0.get_mut(agent) else {
            return Vec::new();
        };
        forget(dials, now);
        let unknown = dials.iter_mut().filter(|dial| !dial.is_known);
        let told = unknown.take(AT_ONCE).map(|dial| {
            dial.is_known = true;
            (dial.call.clone(), dial.at + MINUTE - now)
        });
        told.collect()
    }

    /// Forgets a dial that was not made.
    pub fn take_back(&mut self, agent: &Name, call: &CarrierCallId) {
        if let Some(dials) = self.0.get_mut(agent) {
            dials.retain(|dial| dial.call != *call);
        }
    }

    /// Has the store told of all of them: it may have lost them.
    pub fn tell_again(&mut self) {
        for dial in self.0.values_mut().flatten() {
            dial.is_known = false;
        }
    }
}

fn forget(dials: &mut VecDeque<Dial>, now: Millis) {
    while dials.front().is_some_and(|dial| dial.at + MINUTE <= now) {
        dials.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> CarrierCallId {
        CarrierCallId::try_from(id.to_owned()).unwrap()
    }

    #[test]
    fn a_dial_counts_once_and_for_a_minute() {
        let (mut dials, agent) = (Dials::default(), Name::default_name());
        dials.note(0, &agent, &call("CA1"), true);
        dials.note(10, &agent, &call("CA1"), true);
        dials.note(20, &agent, &call("CA2"), true);
        assert_eq!(dials.count(MINUTE - 1, &agent), 2);
        assert_eq!(dials.count(MINUTE, &agent), 1);
        assert_eq!(dials.count(MINUTE + 20, &agent), 0);
    }

    #[test]
    fn a_store_is_told_what_it_does_not_know_and_everything_once_it_may_have_lost_it() {
        let (mut dials, agent) = (Dials::default(), Name::default_name());
        dials.note(0, &agent, &call("CA1"), true);
        dials.note(10, &agent, &call("CA2"), false);
        assert_eq!(dials.tell(30, &agent), [(call("CA2"), MINUTE - 20)]);
        assert_eq!(dials.tell(30, &agent), []);
        dials.tell_again();
        let all = [(call("CA1"), MINUTE - 40), (call("CA2"), MINUTE - 30)];
        assert_eq!(dials.tell(40, &agent), all);
    }
}
