//! What an operator should know, in plain words and with figures.

use std::fmt;

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

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IntakeStopped => write!(
                f,
                "The intake is stopped: new callers hear that the line is busy, on every replica."
            ),
            Self::StoreAway { for_s, more } => write!(
                f,
                "Redis has been unreachable for {}: callgate admits {}.",
                For(*for_s),
                Alone(*more)
            ),
            Self::StoreGated { for_s, more } => write!(
                f,
                "Redis is back, and replicas have been registering their calls for {}: until they \
                 have, callgate admits {}.",
                For(*for_s),
                Alone(*more)
            ),
            Self::StoreFlaw(flaw) => write!(f, "{flaw}."),
            Self::DatabaseFails {
                for_s,
                waiting,
                why,
            } => write!(
                f,
                "The database has taken nothing for {}, and {waiting} facts wait for it; calls go \
                 on. ({why})",
                For(*for_s)
            ),
            Self::RecordsWait { waiting } => {
                write!(
                    f,
                    "The database is slow: {waiting} facts wait to be written."
                )
            }
            Self::RecordsLost { dropped, refused } => write!(
                f,
                "Records are lost since the start: {dropped} facts found no room, and the \
                 database did not take {refused}."
            ),
            Self::CapFull { scope, cap } => write!(
                f,
                "{} is full: all {cap} slots are taken, and further callers hear that the line is \
                 busy.",
                Capped(scope)
            ),
            Self::CapNearlyFull { scope, used, cap } => {
                write!(
                    f,
                    "{} is nearly full: {used} of {cap} slots are taken.",
                    Capped(scope)
                )
            }
            Self::AgentRests {
                agent,
                failures,
                tries,
            } => write!(
                f,
                "The agent {agent} is left alone for a moment, because it keeps failing: \
                 {failures} of its last {tries} connections failed."
            ),
            Self::AgentFails {
                agent,
                failures,
                tries,
                why,
            } => write!(
                f,
                "The agent {agent} failed in {failures} of its last {tries} connections, at last \
                 with {why}."
            ),
            Self::EventsDead { endpoint, dead } => write!(
                f,
                "{dead} events for {endpoint} are dead: they were tried for a day. Send them again \
                 with callgate events resend-all."
            ),
            Self::EventsLate {
                endpoint,
                waiting,
                oldest_s,
            } => write!(
                f,
                "{waiting} events wait for {endpoint}, the oldest for {}.",
                For(*oldest_s)
            ),
            Self::Draining { replicas, live } => write!(
                f,
                "{} drains, with {live} connections to go: {}.",
                Count(replicas.len(), "replica"),
                replicas.join(", ")
            ),
            Self::AllDrain => write!(
                f,
                "Every replica drains: nobody takes new calls, and callers hear that the line is \
                 busy."
            ),
        }
    }
}

/// A time for people: to ten seconds, so that it is not read out anew each second.
struct For(u64);
/// How many more calls are admitted.
struct Alone(Option<u32>);
/// A scope as the beginning of a sentence.
struct Capped<'a>(&'a str);
struct Count(usize, &'static str);

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..10 => write!(f, "a few seconds"),
            10..120 => write!(f, "{} s", self.0 / 10 * 10),
            120..7_200 => write!(f, "{} min", self.0 / 60),
            7_200.. => write!(f, "{} h", self.0 / 3_600),
        }
    }
}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, "every call (REDIS_OUTAGE=open)"),
            Some(0) => write!(f, "no more calls on its own"),
            Some(1) => write!(f, "at most 1 more call on its own"),
            Some(more) => write!(f, "at most {more} more calls on its own"),
        }
    }
}

impl fmt::Display for Capped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once(':') {
            Some((kind, name)) => write!(f, "The cap of the {kind} {name}"),
            None => write!(f, "The {} cap", self.0),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        let many = if *count == 1 { "" } else { "s" };
        write!(f, "{count} {what}{many}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::AgentHealth,
        operator::{
            snapshot::{Cap, Endpoint, Replica},
            view::{AgentView, RecordsView, StoreView},
        },
    };

    fn replica(name: &str, draining: bool) -> Replica {
        Replica {
            name: name.to_owned(),
            is_here: name == "r1",
            is_seen: true,
            draining,
            connections: 4,
            places: 100,
            version: String::new(),
        }
    }

    fn quiet() -> Snapshot {
        Snapshot {
            replicas: vec![replica("r1", false), replica("r2", false)],
            ..Snapshot::default()
        }
    }

    fn agent(resting: bool, failures: u32, tries: u32) -> Vec<AgentView> {
        vec![AgentView {
            name: "sales".to_owned(),
            kind: "openai".to_owned(),
            resting,
            health: AgentHealth {
                tries,
                failures,
                failed: Some(("agent_refused".to_owned(), 3)),
                ..AgentHealth::default()
            },
            budgets: Vec::new(),
        }]
    }

    fn cap(scope: &str, used: u32, most: u32) -> Vec<Cap> {
        let scope = scope.to_owned();
        vec![Cap { scope, used, most }]
    }

    fn store(answers: bool, more: Option<u32>) -> StoreView {
        StoreView {
            answers,
            for_s: 47,
            more,
        }
    }

    #[test]
    fn nothing_is_said_where_all_is_well() {
        assert_eq!(warnings(&quiet()), []);
        let well = Snapshot {
            caps: cap("global", 13, 15),
            agents: agent(false, 1, 64),
            ..quiet()
        };
        assert_eq!(warnings(&well), []);
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table of warnings")]
    fn each_trouble_is_told_in_plain_words_with_its_figures() {
        let table = [
            (
                Snapshot {
                    store: Some(store(false, Some(7))),
                    ..quiet()
                },
                vec![
                    "Redis has been unreachable for 40 s: callgate admits at most 7 more calls on \
                      its own.",
                ],
            ),
            (
                Snapshot {
                    store: Some(store(false, Some(0))),
                    ..quiet()
                },
                vec![
                    "Redis has been unreachable for 40 s: callgate admits no more calls on its own.",
                ],
            ),
            (
                Snapshot {
                    store: Some(store(true, None)),
                    ..quiet()
                },
                vec![
                    "Redis is back, and replicas have been registering their calls for 40 s: until \
                      they have, callgate admits every call (REDIS_OUTAGE=open).",
                ],
            ),
            (
                Snapshot {
                    intake_stopped: true,
                    caps: cap("campaign:sales", 5, 5),
                    ..quiet()
                },
                vec![
                    "The cap of the campaign sales is full: all 5 slots are taken, and further \
                     callers hear that the line is busy.",
                    "The intake is stopped: new callers hear that the line is busy, on every replica.",
                ],
            ),
            (
                Snapshot {
                    caps: cap("global", 14, 15),
                    ..quiet()
                },
                vec!["The global cap is nearly full: 14 of 15 slots are taken."],
            ),
            (
                Snapshot {
                    caps: cap("setup", 0, 0),
                    ..quiet()
                },
                vec![],
            ),
            (
                Snapshot {
                    records: RecordsView {
                        waiting: 812,
                        failing: Some("connection refused".to_owned()),
                        failing_for_s: 300,
                        ..RecordsView::default()
                    },
                    ..quiet()
                },
                vec![
                    "The database has taken nothing for 5 min, and 812 facts wait for it; calls go \
                      on. (connection refused)",
                ],
            ),
            (
                Snapshot {
                    records: RecordsView {
                        waiting: 1_000,
                        dropped: 2,
                        ..RecordsView::default()
                    },
                    ..quiet()
                },
                vec![
                    "Records are lost since the start: 2 facts found no room, and the database did \
                     not take 0.",
                    "The database is slow: 1000 facts wait to be written.",
                ],
            ),
            (
                Snapshot {
                    agents: agent(true, 3, 9),
                    ..quiet()
                },
                vec![
                    "The agent sales is left alone for a moment, because it keeps failing: 3 of its \
                      last 9 connections failed.",
                ],
            ),
            (
                Snapshot {
                    agents: agent(false, 1, 10),
                    ..quiet()
                },
                vec![
                    "The agent sales failed in 1 of its last 10 connections, at last with \
                      agent_refused.",
                ],
            ),
            (
                Snapshot {
                    endpoints: vec![Endpoint {
                        tenant: "acme".to_owned(),
                        name: "crm".to_owned(),
                        waiting: 3,
                        oldest_s: 7_300,
                        dead: 12,
                    }],
                    ..quiet()
                },
                vec![
                    "12 events for acme/crm are dead: they were tried for a day. Send them again \
                     with callgate events resend-all.",
                    "3 events wait for acme/crm, the oldest for 2 h.",
                ],
            ),
            (
                Snapshot {
                    replicas: vec![replica("r1", false), replica("r2", true)],
                    ..quiet()
                },
                vec!["1 replica drains, with 4 connections to go: r2."],
            ),
            (
                Snapshot {
                    replicas: vec![replica("r1", true)],
                    ..quiet()
                },
                vec![
                    "Every replica drains: nobody takes new calls, and callers hear that the line \
                     is busy.",
                    "1 replica drains, with 4 connections to go: r1.",
                ],
            ),
            (
                Snapshot {
                    store_flaws: vec!["the slot store is a read-only replica".into()],
                    ..quiet()
                },
                vec!["the slot store is a read-only replica."],
            ),
        ];
        for (snapshot, expected) in table {
            let told: Vec<String> = warnings(&snapshot)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(told, expected);
        }
    }
}
