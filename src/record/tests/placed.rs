//! Calls that we place: what is noted by either of their names comes to one row, and is told once.

use super::*;

/// What becomes of a call that we place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Talks,
    /// Nobody picks up.
    Rings,
    /// Somebody picks up when there is no room.
    Refused,
}

/// What is noted of such a call: by its first name, or by its carrier's.
#[derive(Debug, Clone)]
enum Noted {
    First(Millis, Fact),
    Named(Millis, Fact),
    /// Its carrier's name becomes known.
    Bound,
}

fn story(fate: Fate, placed_as: &CarrierCallId) -> impl Strategy<Value = Vec<Noted>> + use<> {
    let happened = Fact::Happened;
    let arrived = |refused| {
        Fact::Arrived(Box::new(Arrival {
            direction: Direction::Outbound,
            placed_as: Some(placed_as.clone()),
            ..*arrived(refused)
        }))
    };
    let mut all = vec![
        Noted::First(10, happened(What::Dialing)),
        Noted::First(11, happened(What::Unsure)),
        Noted::Named(12, happened(What::Rings)),
        Noted::Bound,
    ];
    match fate {
        Fate::Talks => all.extend([
            Noted::Named(20, arrived(false)),
            Noted::Named(20, happened(What::Admitted)),
            Noted::Named(21, happened(What::PickedUp)),
            Noted::Named(30, happened(What::Connected)),
            Noted::Named(40, Fact::Talked(Duration::from_secs(3))),
            Noted::Named(50, happened(What::Ended(EndReason::CallerHungUp))),
        ]),
        Fate::Rings => {
            all.push(Noted::First(
                50,
                happened(What::Ended(EndReason::NotPlaced)),
            ));
            all.push(Noted::Named(50, happened(What::Ended(EndReason::NoAnswer))));
        }
        Fate::Refused => all.extend([
            Noted::Named(20, arrived(true)),
            Noted::Named(50, happened(What::Ended(EndReason::CarrierEnded))),
        ]),
    }
    Just(all).prop_shuffle()
}

async fn place(kept: &Kept, placed_as: &CarrierCallId) {
    let call = CallId::of(placed_as).to_string();
    let mut row = Sql::new(
        "INSERT INTO outbound (call, tenant, idempotency_key, body_hash, api_key, pending, \
         campaign, to_number, from_number, request, state, created_at, holder, held_until) VALUES ",
    );
    row.rows(&[()], |fields, ()| {
        fields.push(call.clone()).push("acme").push(call.clone());
        fields
            .push("")
            .push("key")
            .push(placed_as.as_str().to_owned());
        fields.push("sales").push(call.clone()).push("").push("{}");
        fields.push("dialing").push(1_i64).push("r1").push(1_i64);
    });
    let mut record = Sql::new(
        "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, state, rank, \
         rang_at) VALUES ",
    );
    record.rows(&[()], |fields, ()| {
        fields
            .push(call.clone())
            .push(placed_as.as_str().to_owned());
        fields
            .push("twilio")
            .push("outbound")
            .push("acme")
            .push("sales");
        fields.push("queued").push(10_i64).push(5_i64);
    });
    for sql in [row, record] {
        let written = kept
            .database
            .write(move |writing| Box::pin(sql.execute(writing)));
        assert_eq!(written.await.unwrap(), 1);
    }
}

async fn note(kept: &Kept, placed_as: &CarrierCallId, name: &CarrierCallId, noted: Vec<Noted>) {
    let (first, name) = (placed_as.clone(), name.clone());
    let written = kept.database.write(move |writing| {
        Box::pin(async move {
            let numbers = Numbers::new(&settings("sqlite:"));
            let entry = |call: &CarrierCallId, at: &Millis, fact: &Fact| Entry {
                id: Uuid::new_v5(
                    &Uuid::NAMESPACE_OID,
                    format!("{name} {at} {fact:?}").as_bytes(),
                ),
                call: call.clone(),
                at: *at,
                fact: fact.clone(),
            };
            let mut entries = Vec::new();
            for noted in &noted {
                match noted {
                    Noted::First(at, fact) => entries.push(entry(&first, at, fact)),
                    Noted::Named(at, fact) => entries.push(entry(&name, at, fact)),
                    Noted::Bound => {
                        let bound = crate::record::placed::bind(
                            writing,
                            CallId::of(&first),
                            &name,
                            &Nobody,
                        );
                        assert!(bound.await?);
                    }
                }
            }
            writer::write(writing, &entries, &numbers, &Nobody, "r1").await
        })
    });
    written.await.unwrap();
}

#[tokio::test]
async fn a_placed_call_begins_once_and_ends_once_whatever_is_written_first() {
    on_both(async |kept| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for number in 0..60_usize {
            let fate = [Fate::Talks, Fate::Rings, Fate::Refused][number % 3];
            let placed_as = CarrierCallId::pending(crate::call::Carrier::Twilio);
            let name = call(&format!("CA{number}-{fate:?}"));
            place(kept, &placed_as).await;
            let noted = story(fate, &placed_as).new_tree(&mut runner).unwrap();
            let noted = noted.current();
            let size = 1 + number % 5;
            for part in noted.chunks(size).chain(noted.chunks(size)) {
                note(kept, &placed_as, &name, part.to_vec()).await;
            }
        }
        let rows =
            "SELECT COUNT(*), SUM(CASE WHEN direction = 'outbound' THEN 1 ELSE 0 END) FROM calls";
        assert_eq!(kept.ask(rows).await, ["60 60"], "no row is left of its own");
        let talked = "SELECT DISTINCT state, reason, connected_at, ended_at, talked_ms, agent \
                      FROM calls WHERE carrier_call LIKE '%Talks'";
        assert_eq!(
            kept.ask(talked).await,
            ["ended caller_hung_up 30 50 3000 default"]
        );
        let answered = "SELECT state, COUNT(*) FROM outbound GROUP BY state ORDER BY state";
        assert_eq!(kept.ask(answered).await, ["answered 20", "placed 40"]);
        let begins = "SELECT at, COUNT(*), COUNT(DISTINCT call) FROM events \
                      WHERE kind = 'call.started' GROUP BY at";
        assert_eq!(kept.ask(begins).await, ["20 20 20"]);
        let ends = "SELECT COUNT(*), COUNT(DISTINCT call) FROM events \
                    WHERE kind IN ('call.ended', 'call.refused')";
        assert_eq!(kept.ask(ends).await, ["60 60"]);
        let strays = "SELECT event FROM events WHERE call NOT IN (SELECT call FROM calls)";
        assert_eq!(kept.ask(strays).await, [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_call_that_has_a_name_gets_no_other() {
    on_both(async |kept| {
        let placed_as = CarrierCallId::pending(crate::call::Carrier::Twilio);
        let of = CallId::of(&placed_as);
        let found = async || find_placed(&kept.database, of).await.unwrap();
        assert_eq!(found().await, None);
        place(kept, &placed_as).await;
        let rank = State::Queued.rank();
        assert_eq!(found().await, Some((placed_as.clone(), rank)));
        for (name, is_taken) in [("CAfirst", true), ("CAsecond", false), ("CAfirst", true)] {
            let name = call(name);
            let bound = kept.database.write(move |writing| {
                Box::pin(
                    async move { crate::record::placed::bind(writing, of, &name, &Nobody).await },
                )
            });
            assert_eq!(bound.await.unwrap(), is_taken);
        }
        for names in [
            "SELECT carrier_call FROM outbound",
            "SELECT carrier_call FROM calls",
        ] {
            assert_eq!(kept.ask(names).await, ["CAfirst"]);
        }
        assert_eq!(found().await, Some((call("CAfirst"), rank)));
    })
    .await;
}
