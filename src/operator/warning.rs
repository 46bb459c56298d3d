//! What an operator should know, in plain words and with figures.

mod words;

use crate::operator::snapshot::Snapshot;

/// How much of a cap may be used before it is as good as full, in percent.
const NEARLY_FULL: u32 = 90;
/// How many facts may wait for the database, and how long an event, before it is worth a word.
const MANY_WAIT: usize = 1_000;
const LATE_S: u64 = 300;

/// Something that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    IntakeStopped,
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
    for cap in snapshot.caps.iter().filter(|cap| cap.most > 0) {
        let scope = cap.scope.clone();
        if cap.used >= cap.most {
            warnings.push(Warning::CapFull {
                scope,
                cap: cap.most,
            });
        } else if u64::from(cap.used) * 100 >= u64::from(cap.most) * u64::from(NEARLY_FULL) {
            let (used, cap) = (cap.used, cap.most);
            warnings.push(Warning::CapNearlyFull { scope, used, cap });
        }
    }
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
            Self::StoreAway { .. }
            | Self::DatabaseFails { .. }
            | Self::RecordsLost { .. }
            | Self::CapFull { .. }
            | Self::AgentRests { .. }
            | Self::AllDrain => Urgency::Bad,
            Self::StoreGated { .. }
            | Self::StoreFlaw(_)
            | Self::RecordsWait { .. }
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
