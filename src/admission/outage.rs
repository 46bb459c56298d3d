//! What is admitted while the store cannot say how much room there is. Pure: time, replies and
//! failures are handed in.
//!
//! Let F be the capacity that was free at the last trustworthy reply, R the number of replicas, and
//! L what this replica held when its trouble began: it admits while it holds less than L + ⌊F/R⌋.
//! Over all replicas that sums up to the cap at most. Four rules make that true:
//!
//! 1. A count read behind the gate is not trusted: others have not registered their calls yet.
//! 2. L is what is held when the trouble begins, not when the last reply came.
//! 3. Behind the gate a local admission is registered at once.
//! 4. Whoever was without the store renews first, which puts up the gate, and acquires after it.
//!
//! A fifth is for media that arrives elsewhere: the allowance goes with the call.

use std::{collections::HashMap, time::Duration};

use crate::{
    admission::scope::{Room, Scope},
    config::RedisOutage,
};

/// So many failures in a row, and nobody waits for the store any more until it is back.
const FAILURES: u32 = 3;

/// How things stand between this replica and the store.
#[derive(Debug)]
pub struct Outage {
    mode: RedisOutage,
    /// Replicas that the operator says there are.
    expected: u32,
    /// Replicas that the store has counted.
    seen: u32,
    /// What each scope held at the last trustworthy reply; empty before the first one.
    used: HashMap<Scope, u32>,
    trouble: Option<Trouble>,
    failures: u32,
    /// How long trouble lasted that is over.
    lasted: Duration,
}

#[derive(Debug)]
struct Trouble {
    kind: Kind,
    since: Duration,
    /// What was held here when it began.
    latched: HashMap<Scope, u32>,
    /// Allowance that came and went with calls whose media arrived elsewhere.
    moved: HashMap<Scope, i64>,
    /// Whether anybody was admitted, or the store was away for long: then others have to hear of it.
    notable: bool,
}

/// How the store lets us down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It does not answer.
    Away,
    /// It answers, and may not know all calls yet.
    Gated,
}

impl Kind {
    /// Returns what health pages say is degraded.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Away => "capacity_store",
            Self::Gated => "capacity_resync",
        }
    }
}

/// What is to be done with a call that the store cannot decide about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Admit,
    /// This replica's share of the scope is used up.
    Refuse {
        scope: Scope,
        used: u32,
        cap: u32,
    },
}

impl Outage {
    pub fn new(mode: RedisOutage, expected: u32) -> Self {
        Self {
            mode,
            expected,
            seen: 0,
            used: HashMap::new(),
            trouble: None,
            failures: 0,
            lasted: Duration::ZERO,
        }
    }

    pub fn trouble(&self) -> Option<Kind> {
        self.trouble.as_ref().map(|trouble| trouble.kind)
    }

    /// Tells whether the store may be asked to decide about a call.
    pub fn may_ask(&self) -> bool {
        self.trouble.is_none()
    }

    /// Tells whether waiting for the store is pointless.
    pub fn is_open(&self) -> bool {
        self.trouble() == Some(Kind::Away) && self.failures >= FAILURES
    }

    /// Tells whether the next renewal must put up the gate (rule 4).
    pub fn must_gate(&self) -> bool {
        let trouble = self.trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.kind == Kind::Away && trouble.notable)
    }

    /// Notes that the store did not answer, `held` being what this replica holds in each scope.
    pub fn failed(&mut self, now: Duration, held: &HashMap<Scope, u32>) {
        self.failures = self.failures.saturating_add(1);
        let open = self.failures >= FAILURES;
        let trouble = self.begin(now, Kind::Away, held);
        trouble.kind = Kind::Away;
        trouble.notable |= open;
    }

    /// Notes that the store cannot know what it should: everybody has to register anew.
    pub fn forgot(&mut self, now: Duration, held: &HashMap<Scope, u32>) {
        let trouble = self.begin(now, Kind::Away, held);
        trouble.kind = Kind::Away;
        trouble.notable = true;
    }

    /// Notes that the store answers from behind the gate.
    pub fn gated(&mut self, now: Duration, held: &HashMap<Scope, u32>) {
        self.failures = 0;
        let trouble = self.begin(now, Kind::Gated, held);
        trouble.kind = Kind::Gated;
        trouble.notable = false;
    }

    /// Notes a renewal of all our calls that found no gate.
    pub fn recovered(&mut self, now: Duration) {
        self.failures = 0;
        if let Some(trouble) = self.trouble.take() {
            self.lasted += now.saturating_sub(trouble.since);
        }
    }

    /// Takes in what a reply says is used; only while there is no trouble (rule 1).
    pub fn counted<'a>(&mut self, used: impl IntoIterator<Item = (&'a Scope, u32)>) {
        if self.trouble.is_some() {
            return;
        }
        self.failures = 0;
        for (scope, used) in used {
            self.used.insert(scope.clone(), used);
        }
    }

    pub fn replicas(&mut self, seen: u32) {
        self.seen = seen;
    }

    /// Decides about a call without the store.
    pub fn decide(&mut self, rooms: &[Room], held: &HashMap<Scope, u32>) -> Verdict {
        let refusal = match self.mode {
            RedisOutage::Open => None,
            RedisOutage::Closed => rooms.first().map(|room| (room, 0)),
            // Which calls have brought their media elsewhere is not known now, so that what waits
            // for it cannot be told either.
            RedisOutage::Bounded => rooms.iter().find_map(|room| {
                if room.scope == Scope::Setup {
                    return None;
                }
                let share = self.share(room);
                (i64::from(count(held, &room.scope)) >= share).then_some((room, share))
            }),
        };
        match refusal {
            None => {
                if let Some(trouble) = &mut self.trouble {
                    trouble.notable = true;
                }
                Verdict::Admit
            }
            Some((room, share)) => Verdict::Refuse {
                scope: room.scope.clone(),
                used: count(held, &room.scope),
                cap: u32::try_from(share.max(0)).unwrap_or(u32::MAX),
            },
        }
    }

    /// Notes that the media of another replica's call has arrived here: its allowance comes along.
    pub fn came(&mut self, scopes: &[Scope]) {
        self.moved(scopes, 1);
    }

    /// Notes that a call which waited for its media here may have brought it elsewhere: its
    /// allowance went along. One that never came takes it too, until the trouble is over.
    pub fn went(&mut self, scopes: &[Scope]) {
        self.moved(scopes, -1);
    }

    /// Returns what a scope held at the last trustworthy reply.
    pub fn used(&self, scope: &Scope) -> u32 {
        count(&self.used, scope)
    }

    /// Returns for how long in all there was trouble.
    pub fn lasted(&self, now: Duration) -> Duration {
        let current = self.trouble.as_ref();
        let current = current.map(|trouble| now.saturating_sub(trouble.since));
        self.lasted + current.unwrap_or_default()
    }

    /// Returns how many live calls of its own this replica may have in a scope.
    fn share(&self, room: &Room) -> i64 {
        let replicas = self.expected.max(self.seen).max(1);
        let trouble = self.trouble.as_ref();
        let (latched, moved) = trouble.map_or((0, 0), |trouble| {
            let moved = trouble.moved.get(&room.scope).copied();
            (count(&trouble.latched, &room.scope), moved.unwrap_or(0))
        });
        let Some(used) = self.used.get(&room.scope) else {
            return i64::from(room.cap.div_ceil(replicas)) + moved;
        };
        let free = room
            .open_to_all(|scope| self.used(scope))
            .saturating_sub(*used);
        i64::from(latched) + i64::from(free / replicas) + moved
    }

    fn begin(&mut self, now: Duration, kind: Kind, held: &HashMap<Scope, u32>) -> &mut Trouble {
        self.trouble.get_or_insert_with(|| Trouble {
            kind,
            since: now,
            latched: held.clone(),
            moved: HashMap::new(),
            notable: false,
        })
    }

    fn moved(&mut self, scopes: &[Scope], by: i64) {
        let Some(trouble) = &mut self.trouble else {
            return;
        };
        for scope in scopes {
            *trouble.moved.entry(scope.clone()).or_insert(0) += by;
        }
    }
}

fn count(counts: &HashMap<Scope, u32>, scope: &Scope) -> u32 {
    counts.get(scope).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec as vec_of, prelude::*};

    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    proptest! {
        #[test]
        fn the_shares_of_all_replicas_sum_up_to_the_cap(
            cap in 1..60_u32,
            held in vec_of(0..15_u32, 1..5),
        ) {
            let (replicas, used) = (held.len(), held.iter().sum::<u32>());
            let mut live = 0;
            for held in held {
                let mut outage = bounded(replicas);
                outage.counted([(&Scope::Global, used)]);
                outage.failed(NOW, &holds(held));
                live += held + admits(&mut outage, cap, held);
            }
            prop_assert!(live <= cap.max(used), "{live} live");
            // A share is a whole number of calls.
            prop_assert!(cap < live + u32::try_from(replicas).unwrap(), "{live} live");
        }
    }

    #[test]
    fn a_count_from_behind_the_gate_is_not_trusted() {
        let mut outage = bounded(2);
        outage.counted([(&Scope::Global, 6)]);
        outage.gated(NOW, &holds(3));
        outage.counted([(&Scope::Global, 3)]); // The others have not registered yet.
        assert_eq!(outage.used(&Scope::Global), 6);
        assert_eq!(admits(&mut outage, 10, 3), 2, "half of four");
        outage.recovered(NOW);
        outage.counted([(&Scope::Global, 8)]);
        assert_eq!(outage.used(&Scope::Global), 8);
    }

    #[test]
    fn what_is_held_when_the_trouble_begins_counts() {
        let mut outage = bounded(2);
        // Of our four at the last reply two have ended since, and others may have taken the room.
        outage.counted([(&Scope::Global, 4)]);
        outage.failed(NOW, &holds(2));
        assert_eq!(admits(&mut outage, 10, 2), 3, "half of six");
        // Nor does a second failure begin it anew.
        outage.failed(NOW, &holds(5));
        outage.gated(NOW, &holds(5));
        assert_eq!(admits(&mut outage, 10, 5), 0);
    }

    #[test]
    fn who_was_without_the_store_puts_up_the_gate_if_others_have_to_hear_of_it() {
        let mut outage = bounded(1);
        outage.failed(NOW, &holds(0));
        assert!(!outage.must_gate(), "one reply was late");
        assert_eq!(admits(&mut outage, 1, 0), 1);
        assert!(outage.must_gate(), "others do not know who was admitted");
        outage.gated(NOW, &holds(1));
        assert!(!outage.must_gate(), "it is up");
        outage.recovered(NOW);
        for _ in 0..FAILURES {
            assert!(!outage.must_gate());
            outage.failed(NOW, &holds(1));
        }
        assert!(outage.must_gate(), "its leases may have lapsed");
        outage.recovered(NOW);
        assert!(!outage.must_gate());
        outage.forgot(NOW, &holds(1));
        assert!(outage.must_gate());
    }

    #[test]
    fn nobody_asks_a_store_that_has_failed_until_a_renewal_finds_it_well() {
        let mut outage = bounded(1);
        assert!(outage.may_ask());
        outage.failed(NOW, &holds(0));
        outage.counted([(&Scope::Global, 0)]); // A late reply is no renewal.
        assert!(!outage.may_ask());
        outage.gated(NOW, &holds(0));
        assert!(!outage.may_ask());
        outage.recovered(NOW * 2);
        assert!(outage.may_ask());
        assert_eq!(outage.lasted(NOW * 9), NOW);
    }

    #[test]
    fn an_allowance_goes_with_its_call() {
        // Also where the store was never heard of, and each has its part of the cap.
        for counted in [Some((&Scope::Global, 0)), None] {
            let (mut one, mut other) = (bounded(2), bounded(2));
            for outage in [&mut one, &mut other] {
                outage.counted(counted);
                outage.failed(NOW, &holds(0));
            }
            assert_eq!(admits(&mut one, 4, 0), 2);
            other.came(&[Scope::Global]);
            one.went(&[Scope::Global]);
            assert_eq!(admits(&mut one, 4, 1), 0, "of its two one is elsewhere");
            assert_eq!(admits(&mut other, 4, 1), 2, "beside the one that came");
        }
    }

    #[test]
    fn every_scope_has_its_share_but_for_what_is_reserved() {
        let tenant = Scope::Tenant("guest".parse().unwrap());
        let mut global = Room::new(Scope::Global, 10);
        let rooms = [global.clone(), Room::new(tenant.clone(), 4)];
        let mut outage = bounded(2);
        outage.counted([(&Scope::Global, 0), (&tenant, 2)]);
        outage.failed(NOW, &HashMap::new());
        let held = HashMap::from([(Scope::Global, 1), (tenant.clone(), 1)]);
        let full = Verdict::Refuse {
            scope: tenant.clone(),
            used: 1,
            cap: 1,
        };
        assert_eq!(outage.decide(&rooms, &held), full);
        // Six are for the guest, who has two of them.
        global.reserves.push((tenant, 6));
        let full = Verdict::Refuse {
            scope: Scope::Global,
            used: 3,
            cap: 3,
        };
        assert_eq!(outage.decide(&[global.clone()], &holds(3)), full);
        assert_eq!(outage.decide(&[global], &holds(2)), Verdict::Admit);
    }

    #[test]
    fn the_operator_may_want_everybody_in_or_nobody() {
        for (mode, admitted) in [
            (RedisOutage::Open, 100),
            (RedisOutage::Closed, 0),
            // It has never heard of the store: its part of the cap, as the operator says.
            (RedisOutage::Bounded, 4),
        ] {
            let mut outage = Outage::new(mode, 3);
            outage.failed(NOW, &holds(0));
            assert_eq!(admits(&mut outage, 10, 0), admitted, "{mode:?}");
        }
    }

    fn bounded(replicas: usize) -> Outage {
        let mut outage = Outage::new(RedisOutage::Bounded, 1);
        outage.replicas(u32::try_from(replicas).unwrap());
        outage
    }

    fn holds(calls: u32) -> HashMap<Scope, u32> {
        HashMap::from([(Scope::Global, calls)])
    }

    /// Returns how many calls come in beside those that are held, of a hundred.
    fn admits(outage: &mut Outage, cap: u32, held: u32) -> u32 {
        let rooms = [Room::new(Scope::Global, cap)];
        let mut calls = held..held + 100;
        let refused = calls.find(|held| outage.decide(&rooms, &holds(*held)) != Verdict::Admit);
        refused.map_or(100, |refused| refused - held)
    }
}
