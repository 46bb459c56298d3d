use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::{
    call::Carrier,
    config::{KeptNumbers, RecordSettings},
    outbound::{
        Request,
        pace::{self, Pace},
    },
    record::{postgres_server::PostgresServer, unix_millis_i64},
};

const LIMITS: Limits = Limits {
    per_destination: 3,
    per_prefix: 1_000,
    per_key: 1_000,
    daily_calls: 1_000,
    daily_minutes: 1_000,
};

/// Runs a story on both databases, as two replicas that share one.
async fn on_both(story: impl AsyncFn([&Database; 2])) {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/records.db", folder.path().display());
    for url in [sqlite, server.database("outbound")] {
        let open = || {
            let settings = RecordSettings {
                url: SecretString::from(url.as_str()),
                numbers: KeptNumbers::Whole,
                secret: None,
                kept: Duration::from_secs(86_400),
                transcripts: true,
            };
            Database::open(&settings).unwrap()
        };
        let replicas = [open(), open()];
        replicas[0].migrate().await.unwrap();
        story([&replicas[0], &replicas[1]]).await;
        for replica in replicas {
            replica.close().await;
        }
    }
}

fn new(number: &str, api_key: &str) -> NewRow {
    let pending = CarrierCallId::pending(Carrier::Twilio);
    let row = Row {
        call: CallId::of(&pending),
        tenant: "default".to_owned(),
        body_hash: String::new(),
        pending,
        carrier_call: None,
        campaign: "default".to_owned(),
        agent: None,
        to: number.to_owned(),
        from: "+972722234567".to_owned(),
        terms: Request::read(&json!({"to": number})).unwrap().terms,
        stage: Stage::Reserving,
        created_at: unix_millis_i64(),
        dialed_at: None,
        rings_until: None,
        called_off_at: None,
    };
    NewRow {
        key: row.call.to_string(),
        api_key: api_key.to_owned(),
        holder: "r1".to_owned(),
        to_code: number.to_owned(),
        prefix_code: number.to_owned(),
        row,
    }
}

#[tokio::test]
async fn replicas_take_turns_with_the_carrier_together() {
    on_both(async |replicas| {
        let longest = Duration::from_secs(60);
        let pace = Pace::new(1, longest);
        let began = Instant::now();
        let asking = (0..140).map(|number| pace::next(replicas[number % 2], Carrier::Twilio, pace));
        let turns: Vec<_> = join_all(asking)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let granted = turns.iter().filter(|turn| turn.is_ok()).count();
        // The first at once, the last after a minute; and more while it was being asked.
        let most = 62 + usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!((61..=most).contains(&granted), "{granted} of {most}");
        let refused = turns.iter().find_map(|turn| turn.err()).unwrap();
        assert!(refused.again_in <= Duration::from_secs(2), "{refused:?}");
        let other = pace::next(replicas[0], Carrier::Acs, pace).await;
        assert!(other.unwrap().is_ok(), "another carrier has its own turns");
    })
    .await;
}

#[tokio::test]
async fn turns_do_not_wait_for_a_clock_that_was_set_back() {
    on_both(async |[replica, _]| {
        let pace = Pace::new(1, Duration::from_secs(1));
        assert!(
            pace::next(replica, Carrier::Twilio, pace)
                .await
                .unwrap()
                .is_ok()
        );
        let ahead = Sql::new("UPDATE outbound_turns SET next_at = next_at + 3600000");
        let ahead = replica.write(move |writing| Box::pin(ahead.execute(writing)));
        ahead.await.unwrap();
        assert!(
            pace::next(replica, Carrier::Twilio, pace)
                .await
                .unwrap()
                .is_ok()
        );
    })
    .await;
}

#[tokio::test]
async fn calls_to_one_number_and_of_one_key_are_counted_one_by_one() {
    on_both(async |replicas| {
        // Over as soon as it is noted, so that only its count stands in the way of the next one.
        let place = async |at: usize, new: NewRow, limits| {
            let call = new.row.call;
            match note(replicas[at % 2], new, limits).await.unwrap() {
                Noted::New => {
                    let now = unix_millis_i64();
                    let finished = finish(replicas[at % 2], call, None, 0, now).await;
                    assert_eq!(finished.unwrap().unwrap().was, Stage::Reserving);
                    true
                }
                Noted::Engaged
                | Noted::TooOften(_)
                | Noted::TooManyAlike(_)
                | Noted::TooManyOfKey(_) => false,
                other @ (Noted::Known(_)
                | Noted::CallsSpent { .. }
                | Noted::MinutesSpent { .. }) => panic!("{other:?}"),
            }
        };
        for round in 0..8 {
            let number = format!("+97250234567{round}");
            let asking = (0..16).map(|at| place(at, new(&number, "many"), LIMITS));
            let placed = join_all(asking).await.into_iter().filter(|placed| *placed);
            assert!(placed.count() <= 3, "{number}");
        }
        let limits = Limits {
            per_key: 5,
            ..LIMITS
        };
        let numbers: Vec<String> = (10..40)
            .map(|number| format!("+9725023456{number}"))
            .collect();
        let asking = numbers.iter().enumerate();
        let asking = asking.map(|(at, number)| place(at, new(number, "few"), limits));
        let placed = join_all(asking).await.into_iter().filter(|placed| *placed);
        assert_eq!(placed.count(), 5);
        let now = unix_millis_i64();
        let spent = is_key_spent(replicas[0], "few", now, limits).await;
        assert_eq!(spent.unwrap().map(|all| all.count), Some(5));
        let spent = is_key_spent(replicas[0], "few", now + 61_000, limits).await;
        assert_eq!(spent.unwrap(), None);
        // Of a limit that was lowered, all but as many have to be long ago.
        let ages = "UPDATE outbound SET created_at = created_at - 30000 WHERE call = \
                    (SELECT call FROM outbound WHERE api_key = 'few' ORDER BY created_at LIMIT 1)";
        let write = replicas[0].write(move |writing| Box::pin(Sql::new(ages).execute(writing)));
        write.await.unwrap();
        let spent = async |per_key| {
            let limits = Limits { per_key, ..LIMITS };
            let spent = is_key_spent(replicas[0], "few", now, limits).await;
            spent.unwrap().unwrap().first_at
        };
        let (of_five, of_four) = (spent(5).await, spent(4).await);
        assert!(of_four - of_five > 20_000, "{of_four} {of_five}");
    })
    .await;
}

#[tokio::test]
async fn a_call_fails_or_is_let_go_of_only_by_its_holder_and_only_where_it_was_believed_to_be() {
    on_both(async |[replica, _]| {
        let new = new("+972502345671", "key");
        let (call, now) = (new.row.call, unix_millis_i64());
        note(replica, new, LIMITS).await.unwrap();
        let believed = |holder: &str, at| {
            let holder = holder.to_owned();
            finish(
                replica,
                call,
                Some(Belief {
                    at,
                    holder: Some(holder),
                }),
                0,
                now,
            )
        };
        let is_left = async || {
            let left = keep(replica, "r3".to_owned(), unix_millis_i64()).await;
            !left.unwrap().is_empty()
        };
        assert_eq!(believed("r1", &[Stage::Queued]).await.unwrap(), None);
        let_go(replica, call, "r1".to_owned()).await.unwrap();
        assert!(!is_left().await, "it is not queued");
        let queued = Move::new(call, &[Stage::Reserving], Stage::Queued);
        assert!(advance(replica, queued).await.unwrap());
        let_go(replica, call, "r2".to_owned()).await.unwrap();
        assert!(!is_left().await, "it is another's");
        assert_eq!(believed("r2", &[Stage::Queued]).await.unwrap(), None);
        let_go(replica, call, "r1".to_owned()).await.unwrap();
        assert!(is_left().await, "who looks next has it");
        assert_eq!(believed("r1", &[Stage::Queued]).await.unwrap(), None);
        let over = believed("r3", &[Stage::Dialing, Stage::Queued]).await;
        let queued = Finished {
            was: Stage::Queued,
            called_off: false,
        };
        assert_eq!(over.unwrap(), Some(queued));
    })
    .await;
}

#[tokio::test]
async fn a_call_that_was_called_off_is_not_dialed_whatever_was_under_way() {
    on_both(async |[replica, other]| {
        let new = new("+972502345671", "key");
        let (call, now) = (new.row.call, unix_millis_i64());
        note(replica, new, LIMITS).await.unwrap();
        let moves = async |from, to| advance(replica, Move::new(call, from, to)).await.unwrap();
        assert!(moves(&[Stage::Reserving], Stage::Queued).await);
        assert!(moves(&[Stage::Queued], Stage::Dialing).await);
        let off = call_off(other, call, now).await.unwrap().unwrap();
        assert_eq!((off.stage, off.called_off_at), (Stage::Dialing, Some(now)));
        // The carrier has not done it, and it waits for another turn.
        assert!(moves(&[Stage::Dialing], Stage::Queued).await);
        assert!(!moves(&[Stage::Queued], Stage::Dialing).await);
        let off = call_off(other, call, now + 1_000).await.unwrap().unwrap();
        assert_eq!(off.called_off_at, Some(now), "it was called off before");
        let overdue = overdue(replica, "r1".to_owned(), now, Duration::ZERO).await;
        assert_eq!(overdue.unwrap().len(), 1, "somebody sees to it");
        let finished = finish(replica, call, None, 0, now).await.unwrap();
        let queued = Finished {
            was: Stage::Queued,
            called_off: true,
        };
        assert_eq!(finished, Some(queued));
        assert!(call_off(other, call, now).await.unwrap().is_none());
    })
    .await;
}
