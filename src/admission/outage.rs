//! What is admitted while the store cannot say how much room there is. Pure: time, replies and
//! failures are handed in.
//!
//! Let F be the capacity that was free at the last trustworthy reply, R the number of replicas, and
//! L what this replica held when its trouble began: it admits while it holds less than L + ⌊F/R⌋.
//! Over all replicas that sums up to the cap at most. Five rules make that true:
//!
//! 1. A count read behind the gate is not trusted: others have not registered their calls yet.
//! 2. L is what is held when the trouble begins, not when the last reply came.
//! 3. Behind the gate a local admission is registered at once.
//! 4. Whoever was without the store renews first, which puts up the gate, and acquires after it.
//! 5. Where a call's media arrives elsewhere, its allowance goes with the call.

use std::{collections::HashMap, time::Duration};

use crate::{
    admission::scope::{Room, Scope},
    config::RedisOutage,
};

/// How long a replica leaves between putting up the gate and doing so again: one whose own way to
/// the store is bad must not keep everybody behind it.
const GATE_PAUSE: Duration = Duration::from_secs(15);
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
    /// When this replica last put up the gate.
    gated_at: Option<Duration>,
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
    /// Whether the last renewal was answered in time: only then is the store back.
    answered: bool,
    /// Whether the renewal that is under way puts up the gate.
    gating: bool,
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
            gated_at: None,
        }
    }

    /// Returns how many replicas the operator says there are.
    pub fn expected(&self) -> u32 {
        self.expected
    }

    pub fn trouble(&self) -> Option<Kind> {
        self.trouble.as_ref().map(|trouble| trouble.kind)
    }

    /// Tells whether the store may be asked to decide about a call.
    pub fn may_ask(&self) -> bool {
        self.trouble.is_none()
    }

    /// Tells whether the others must hear that this replica comes back (rule 4): until they have,
    /// the store is not asked.
    pub fn must_gate(&self) -> bool {
        let trouble = self.trouble.as_ref();
        trouble.is_some_and(|trouble| trouble.kind == Kind::Away && trouble.notable)
    }

    /// Tells whether the next renewal puts up the gate, and notes that it does: the store has
    /// answered the last one in time.
    pub fn put_up_gate(&mut self, now: Duration) -> bool {
        let answered = self
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.answered);
        let rested = self.gated_at.is_none_or(|at| at + GATE_PAUSE <= now);
        let puts_up = self.must_gate() && answered && rested;
        if puts_up {
            self.gated_at = Some(now);
        }
        if let Some(trouble) = &mut self.trouble {
            trouble.gating = puts_up;
        }
        puts_up
    }

    /// Tells whether the renewal that is under way puts up the gate.
    pub fn puts_up_gate(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.gating)
    }

    /// Notes that the store has answered in time though others have to hear of our return first.
    pub fn answered(&mut self) {
        self.failures = 0;
        if let Some(trouble) = &mut self.trouble {
            trouble.answered = true;
        }
    }

    /// Notes that the store did not answer, `held` being what this replica holds in each scope.
    pub fn failed(&mut self, now: Duration, held: &HashMap<Scope, u32>) {
        self.failures = self.failures.saturating_add(1);
        let open = self.failures >= FAILURES;
        let trouble = self.begin(now, Kind::Away, held);
        trouble.kind = Kind::Away;
        trouble.notable |= open;
        trouble.answered = false;
    }

    /// Notes that the store cannot know what it should: everybody has to register anew.
    pub fn forgot(&mut self, now: Duration, held: &HashMap<Scope, u32>) {
        let trouble = self.begin(now, Kind::Away, held);
        trouble.kind = Kind::Away;
        trouble.notable = true;
        trouble.answered = true;
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

    /// Notes how many replicas the store has heard of. What has just lost everything hears of them
    /// one by one: while there is trouble, there are no fewer than there were.
    pub fn replicas(&mut self, seen: u32) {
        self.seen = match self.trouble {
            Some(_) => self.seen.max(seen),
            None => seen,
        };
    }

    /// Returns for how long there has been trouble this time.
    pub fn troubled_for(&self, now: Duration) -> Option<Duration> {
        let trouble = self.trouble.as_ref()?;
        Some(now.saturating_sub(trouble.since))
    }

    /// Returns how many more calls that need these rooms would be admitted without the store;
    /// `None` where there is no bound.
    pub fn more(&self, rooms: &[Room], held: &HashMap<Scope, u32>) -> Option<u32> {
        match self.mode {
            RedisOutage::Open => None,
            RedisOutage::Closed => Some(0),
            RedisOutage::Bounded => {
                let rooms = rooms.iter().filter(|room| room.scope != Scope::Setup);
                let more = rooms.map(|room| self.share(room) - i64::from(count(held, &room.scope)));
                let more = more.min().unwrap_or(0).max(0);
                Some(u32::try_from(more).unwrap_or(u32::MAX))
            }
        }
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

    /// Returns how much of what may be done within a minute this replica may do without the store:
    /// an even share, whatever the others have done in the last minute before, so that this can come
    /// on top of it.
    pub fn per_minute(&self, cap: u32) -> Option<u32> {
        match self.mode {
            RedisOutage::Bounded => Some(cap / self.replicas_known()),
            // It is admitted or refused in any case.
            RedisOutage::Open | RedisOutage::Closed => None,
        }
    }

    /// Notes that the media of another replica's call has arrived here: its allowance comes along.
    pub fn came(&mut self, scopes: &[Scope]) {
        self.moved(scopes, 1);
    }

    /// Notes that a call which waited for its media here may have brought it elsewhere: its
    /// allowance went along. One that never came takes it too, until the trouble is over.
    pub fn went(&mut self, scopes: &[Scope]) {
        // Where there is nobody else, nobody else has it.
        if self.replicas_known() > 1 {
            self.moved(scopes, -1);
        }
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
        let replicas = self.replicas_known();
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

    fn replicas_known(&self) -> u32 {
        self.expected.max(self.seen).max(1)
    }

    fn begin(&mut self, now: Duration, kind: Kind, held: &HashMap<Scope, u32>) -> &mut Trouble {
        self.trouble.get_or_insert_with(|| Trouble {
            kind,
            since: now,
            latched: held.clone(),
            moved: HashMap::new(),
            notable: false,
            answered: false,
            gating: false,
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
mod tests;
