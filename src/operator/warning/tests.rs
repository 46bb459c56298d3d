use super::*;
use crate::{
    agent::AgentHealth,
    operator::{
        snapshot::{Endpoint, Replica},
        view::{AgentView, RecordsView, StoreView},
    },
    telemetry::Tally,
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
        ways_in: 1,
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
    let few = Tally {
        signed: 0,
        unsigned: 3,
        ended: 100,
        failed: 5,
    };
    let some = Tally {
        signed: 1,
        unsigned: 900,
        ..few
    };
    for lately in [few, some] {
        let well = Snapshot { lately, ..quiet() };
        assert_eq!(warnings(&well), []);
    }
    // Nobody can be seen then.
    let away = Snapshot {
        is_shared: true,
        least_replicas: 3,
        store: Some(store(false, Some(7))),
        ..quiet()
    };
    assert_eq!(warnings(&away).len(), 1);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of warnings")]
fn each_trouble_is_told_in_plain_words_with_its_figures() {
    let table = [
        (
            Snapshot {
                ways_in: 0,
                clock_skew: -7.4,
                ..quiet()
            },
            vec![
                "Nobody can call: no carrier is open. Set TWILIO_AUTH_TOKEN, or \
                 ACS_CONNECTION_STRING and EVENTGRID_SECRET.",
                "This replica's clock is 7 s behind the store's: tokens and signatures go by it.",
            ],
        ),
        (
            Snapshot {
                lately: Tally {
                    unsigned: 4,
                    ended: 90,
                    failed: 5,
                    ..Tally::default()
                },
                ..quiet()
            },
            vec![
                "Callers do not get through: in the last ten minutes 4 requests came without a \
                 good signature, and none with one. Run callgate check: PUBLIC_URL and the \
                 carrier's secret have to be right.",
                "5 of the 90 calls that ended in the last ten minutes ended by a fault: the \
                 carrier's, an agent's or ours. /calls says of each whose.",
            ],
        ),
        (
            Snapshot {
                is_shared: true,
                least_replicas: 3,
                replicas: vec![Replica {
                    connections: 100,
                    ..replica("r1", false)
                }],
                ..quiet()
            },
            vec![
                "Of 3 replicas that there should be at least (LEAST_REPLICAS), 1 can be seen.",
                "r1 has no place for another media socket: all 100 are taken (MAX_CONNECTIONS).",
            ],
        ),
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
            vec!["Redis has been unreachable for 40 s: callgate admits no more calls on its own."],
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
                caps: [
                    cap("global", 15, 15),
                    cap("tenant:default", 15, 15),
                    cap("outbound", 10, 10),
                ]
                .concat(),
                ..quiet()
            },
            vec![
                "The global cap is full: all 15 slots are taken, and further callers hear that \
                 the line is busy.",
                "All 10 slots of calls that are placed are taken: programs that ask for another \
                 are told to come again.",
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
