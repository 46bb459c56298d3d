//! What an operator should know, in plain words and with figures.

mod words;

use std::time::Duration;

use crate::operator::snapshot::{Cap, Snapshot};

/// How much of a cap may be used before it is as good as full, in percent.
const NEARLY_FULL: u32 = 90;
/// How many facts may wait for the database, and how long an event, before it is worth a word.
const MANY_WAIT: usize = 1_000;
const LATE_S: u64 = 300;
/// How many requests without a signature, or failed calls, of ten minutes may be anybody's.
const A_FEW: u64 = 3;
/// Of how many calls one may fail.
const ONE_IN: u64 = 20;
/// How far a clock may be off, in seconds.
const CLOCK_OFF: f64 = 2.0;

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Nobody can call.
    Closed,
    IntakeStopped,
    /// Carriers' requests come, and none has a good signature.
    NothingSigned {
        unsigned: u64,
    },
    CallsFail {
        failed: u64,
        ended: u64,
    },
    FewReplicas {
        replicas: usize,
        least: u32,
    },
    PlacesFull {
        replica: String,
        places: usize,
    },
    /// Whole seconds that this replica's clock is ahead of the store's, or behind.
    ClockOff {
        by_s: u64,
        ahead: bool,
    },
    StoreAway {
        for_s: u64,
        more: Option<u32>,
    },
    StoreGated {
        for_s: u64,
        more: Option<u32>,
    },
    StoreFlaw(String),
    DatabaseFails {
        for_s: u64,
        waiting: usize,
        why: String,
    },
    RecordsWait {
        waiting: usize,
    },
    RecordsLost {
        dropped: u64,
        refused: u64,
    },
    CapFull {
        scope: String,
        cap: u32,
    },
    /// As many calls are placed as may be at a time.
    OutboundFull {
        cap: u32,
    },
    CapNearlyFull {
        scope: String,
        used: u32,
        cap: u32,
    },
    AgentRests {
        agent: String,
        failures: u32,
        tries: u32,
    },
    AgentFails {
        agent: String,
        failures: u32,
        tries: u32,
        why: String,
    },
    EventsDead {
        endpoint: String,
        dead: u64,
    },
    EventsLate {
        endpoint: String,
        waiting: u64,
        oldest_s: u64,
    },
    Draining {
        replicas: Vec<String>,
        live: usize,
    },
    AllDrain,
}

/// How urgent a warning is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Callers suffer.
    Bad,
    /// They may, soon.
    Watch,
    /// Somebody wants it so.
    Known,
}

/// Returns what an operator should know, the most urgent first.
pub fn warnings(snapshot: &Snapshot) -> Vec<Warning> {
    let mut warnings = Vec::new();
    of_calls(snapshot, &mut warnings);
    if snapshot.intake_stopped {
        warnings.push(Warning::IntakeStopped);
    }
    if let Some(store) = &snapshot.store {
        let (for_s, more) = (store.for_s, store.more);
        warnings.push(if store.answers {
            Warning::StoreGated { for_s, more }
        } else {
            Warning::StoreAway { for_s, more }
        });
    }
    let flaws = snapshot.store_flaws.iter().cloned();
    warnings.extend(flaws.map(Warning::StoreFlaw));
    of_records(snapshot, &mut warnings);
    of_caps(snapshot, &mut warnings);
    for agent in &snapshot.agents {
        let (failures, tries) = (agent.health.failures, agent.health.tries);
        let name = agent.name.clone();
        if agent.resting {
            warnings.push(Warning::AgentRests {
                agent: name,
                failures,
                tries,
            });
        } else if failures > 0 && failures * 10 >= tries {
            let why = agent.health.failed.as_ref();
            let why = why.map(|(why, _)| why.clone()).unwrap_or_default();
            warnings.push(Warning::AgentFails {
                agent: name,
                failures,
                tries,
                why,
            });
        }
    }
    for endpoint in &snapshot.endpoints {
        let name = format!("{}/{}", endpoint.tenant, endpoint.name);
        if endpoint.dead > 0 {
            let dead = endpoint.dead;
            warnings.push(Warning::EventsDead {
                endpoint: name.clone(),
                dead,
            });
        }
        if endpoint.waiting > 0 && endpoint.oldest_s >= LATE_S {
            let (waiting, oldest_s) = (endpoint.waiting, endpoint.oldest_s);
            warnings.push(Warning::EventsLate {
                endpoint: name,
                waiting,
                oldest_s,
            });
        }
    }
    of_replicas(snapshot, &mut warnings);
    warnings.sort_by_key(Warning::urgency);
    warnings
}

fn of_calls(snapshot: &Snapshot, warnings: &mut Vec<Warning>) {
    let lately = snapshot.lately;
    if snapshot.ways_in == 0 {
        warnings.push(Warning::Closed);
    }
    if lately.unsigned > A_FEW && lately.signed == 0 {
        let unsigned = lately.unsigned;
        warnings.push(Warning::NothingSigned { unsigned });
    }
    if lately.failed > A_FEW && lately.failed * ONE_IN > lately.ended {
        let (failed, ended) = (lately.failed, lately.ended);
        warnings.push(Warning::CallsFail { failed, ended });
    }
}

fn of_caps(snapshot: &Snapshot, warnings: &mut Vec<Warning>) {
    let house = snapshot.caps.iter().find(|cap| cap.scope == "global");
    // A house with one tenant is told of once.
    let says_the_same = |cap: &Cap| {
        let is_tenants = cap.scope.starts_with("tenant:");
        is_tenants && house.is_some_and(|house| (house.used, house.most) == (cap.used, cap.most))
    };
    let caps = snapshot.caps.iter().filter(|cap| cap.most > 0);
    for cap in caps.filter(|cap| !says_the_same(cap)) {
        let (scope, used, most) = (cap.scope.clone(), cap.used, cap.most);
        if used >= most {
            warnings.push(if scope == "outbound" {
                Warning::OutboundFull { cap: most }
            } else {
                Warning::CapFull { scope, cap: most }
            });
        } else if u64::from(used) * 100 >= u64::from(most) * u64::from(NEARLY_FULL) {
            let cap = most;
            warnings.push(Warning::CapNearlyFull { scope, used, cap });
        }
    }
}

fn of_records(snapshot: &Snapshot, warnings: &mut Vec<Warning>) {
    let records = &snapshot.records;
    let waiting = records.waiting;
    if let Some(why) = records.failing.clone() {
        let for_s = records.failing_for_s;
        warnings.push(Warning::DatabaseFails {
            for_s,
            waiting,
            why,
        });
    } else if waiting >= MANY_WAIT {
        warnings.push(Warning::RecordsWait { waiting });
    }
    let (dropped, refused) = (records.dropped, records.refused);
    if dropped + refused > 0 {
        warnings.push(Warning::RecordsLost { dropped, refused });
    }
}

fn of_replicas(snapshot: &Snapshot, warnings: &mut Vec<Warning>) {
    let (count, least) = (snapshot.replicas.len(), snapshot.least_replicas);
    // Where the store is away, the others cannot be seen.
    let is_known = snapshot.is_shared && snapshot.store.is_none();
    if is_known && count < usize::try_from(least).unwrap_or(usize::MAX) {
        let replicas = count;
        warnings.push(Warning::FewReplicas { replicas, least });
    }
    let seen = snapshot.replicas.iter().filter(|replica| replica.is_seen);
    let full = seen.filter(|replica| !replica.draining && replica.connections >= replica.places);
    warnings.extend(full.map(|replica| Warning::PlacesFull {
        replica: replica.name.clone(),
        places: replica.places,
    }));
    let skew = snapshot.clock_skew;
    if skew.abs() > CLOCK_OFF {
        let by_s = Duration::from_secs_f64(skew.abs()).as_secs();
        let ahead = skew > 0.0;
        warnings.push(Warning::ClockOff { by_s, ahead });
    }
    let drain = snapshot.replicas.iter().filter(|replica| replica.draining);
    let live = drain.clone().map(|replica| replica.connections).sum();
    let replicas: Vec<String> = drain.map(|replica| replica.name.clone()).collect();
    if replicas.is_empty() {
        return;
    }
    if replicas.len() == snapshot.replicas.len() {
        warnings.push(Warning::AllDrain);
    }
    warnings.push(Warning::Draining { replicas, live });
}

impl Warning {
    pub fn urgency(&self) -> Urgency {
        match self {
            Self::Closed
            | Self::NothingSigned { .. }
            | Self::CallsFail { .. }
            | Self::FewReplicas { .. }
            | Self::PlacesFull { .. }
            | Self::StoreAway { .. }
            | Self::DatabaseFails { .. }
            | Self::RecordsLost { .. }
            | Self::CapFull { .. }
            | Self::AgentRests { .. }
            | Self::AllDrain => Urgency::Bad,
            Self::ClockOff { .. }
            | Self::StoreGated { .. }
            | Self::StoreFlaw(_)
            | Self::RecordsWait { .. }
            | Self::OutboundFull { .. }
            | Self::CapNearlyFull { .. }
            | Self::AgentFails { .. }
            | Self::EventsDead { .. }
            | Self::EventsLate { .. } => Urgency::Watch,
            Self::IntakeStopped | Self::Draining { .. } => Urgency::Known,
        }
    }
}

impl Urgency {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Watch => "watch",
            Self::Known => "known",
        }
    }
}

#[cfg(test)]
mod tests;
