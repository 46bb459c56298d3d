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

/// Lets time go by, as far as the database can tell.
async fn later(replica: &Database, ms: i64) {
    let mut sql = Sql::new("UPDATE outbound SET created_at = created_at - ");
    sql.bind(ms).push(", held_until = held_until - ").bind(ms);
    sql.push(", dialed_at = dialed_at - ").bind(ms);
    sql.push(", rings_until = rings_until - ").bind(ms);
    let write = replica.write(move |writing| Box::pin(sql.execute(writing)));
    write.await.unwrap();
}

async fn write(replica: &Database, statement: String) {
    let sql = Sql::new(&statement);
    let write = replica.write(move |writing| Box::pin(sql.execute(writing)));
    assert!(write.await.unwrap() > 0);
}

async fn count(replica: &Database, question: &'static str) -> i64 {
    let counting = replica
        .write(move |writing| Box::pin(async move { number(writing, Sql::new(question)).await }));
    counting.await.unwrap().unwrap()
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
        read_at: unix_millis_i64(),
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
                Noted::New(_) => {
                    let finished = finish(replicas[at % 2], call, None, 0).await;
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
        let spent = is_key_spent(replicas[0], "few", limits).await;
        assert_eq!(spent.unwrap().map(|all| all.count), Some(5));
        // Of a limit that was lowered, all but as many have to be long ago.
        let ages = "UPDATE outbound SET created_at = created_at - 30000 WHERE call = \
                    (SELECT call FROM outbound WHERE api_key = 'few' ORDER BY created_at LIMIT 1)";
        let write = replicas[0].write(move |writing| Box::pin(Sql::new(ages).execute(writing)));
        write.await.unwrap();
        let spent = async |per_key| {
            let limits = Limits { per_key, ..LIMITS };
            let spent = is_key_spent(replicas[0], "few", limits).await;
            spent.unwrap().unwrap().first_ago
        };
        let (of_five, of_four) = (spent(5).await, spent(4).await);
        assert!(of_five - of_four > 20_000, "{of_four} {of_five}");
        later(replicas[0], 61_000).await;
        let spent = is_key_spent(replicas[0], "few", limits).await;
        assert_eq!(spent.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_call_fails_or_is_let_go_of_only_by_its_holder_and_only_where_it_was_believed_to_be() {
    on_both(async |[replica, _]| {
        let new = new("+972502345671", "key");
        let call = new.row.call;
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
            )
        };
        let is_left = async || {
            let left = keep(replica, "r3".to_owned()).await;
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
async fn a_call_moves_on_only_from_where_it_was_believed_to_be() {
    on_both(async |[replica, other]| {
        let new = new("+972502345671", "key");
        let call = new.row.call;
        note(replica, new, LIMITS).await.unwrap();
        let moves = async |by, from, to| advance(by, Move::new(call, from, to)).await.unwrap();
        assert!(moves(replica, &[Stage::Reserving], Stage::Queued).await);
        assert!(moves(replica, &[Stage::Queued], Stage::Dialing).await);
        // Who has missed that it is dialed must not have it dialed again.
        assert!(!moves(other, &[Stage::Queued], Stage::Dialing).await);
        assert!(!moves(other, &[Stage::Reserving], Stage::Queued).await);
        let row = find(other, call).await.unwrap().unwrap();
        assert_eq!(row.stage, Stage::Dialing);
        assert!(moves(other, &[Stage::Dialing], Stage::Unknown).await);
    })
    .await;
}

#[tokio::test]
async fn a_call_that_was_called_off_is_not_dialed_whatever_was_under_way() {
    on_both(async |[replica, other]| {
        let new = new("+972502345671", "key");
        let call = new.row.call;
        note(replica, new, LIMITS).await.unwrap();
        let moves = async |from, to| advance(replica, Move::new(call, from, to)).await.unwrap();
        assert!(moves(&[Stage::Reserving], Stage::Queued).await);
        assert!(moves(&[Stage::Queued], Stage::Dialing).await);
        let off = call_off(other, call).await.unwrap().unwrap();
        assert_eq!(off.stage, Stage::Dialing);
        let since = off.called_off_at.unwrap();
        // The carrier has not done it, and it waits for another turn.
        assert!(moves(&[Stage::Dialing], Stage::Queued).await);
        assert!(!moves(&[Stage::Queued], Stage::Dialing).await);
        later(replica, 1_000).await;
        let off = call_off(other, call).await.unwrap().unwrap();
        assert_eq!(off.called_off_at, Some(since), "it was called off before");
        let overdue = overdue(replica, "r1".to_owned(), Duration::ZERO).await;
        assert_eq!(overdue.unwrap().len(), 1, "somebody sees to it");
        let finished = finish(replica, call, None, 0).await.unwrap();
        let queued = Finished {
            was: Stage::Queued,
            called_off: true,
        };
        assert_eq!(finished, Some(queued));
        assert!(call_off(other, call).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn what_a_replica_with_a_wrong_clock_has_noted_counts_and_is_held_for_as_long_as_any_other() {
    on_both(async |[replica, other]| {
        for (at, wrong_by) in [-25 * 3_600_000, 25 * 3_600_000].into_iter().enumerate() {
            let mut new = new(&format!("+97250234567{at}"), "key");
            new.row.created_at += wrong_by;
            let (call, key) = (new.row.call, new.key.clone());
            let before = unix_millis_i64();
            let Noted::New(row) = note(replica, new, LIMITS).await.unwrap() else {
                panic!("it is new");
            };
            assert!((before..before + 60_000).contains(&row.created_at));
            let taken = keep(other, "r2".to_owned()).await.unwrap();
            assert!(taken.is_empty(), "r1 looks after it");
            finish(replica, call, None, 0).await.unwrap().unwrap();
            keep(other, "r2".to_owned()).await.unwrap();
            let known = by_key(other, "default", &key).await.unwrap();
            assert!(known.is_some(), "who asks again by its key is told of it");
            let codes = "SELECT COUNT(*) FROM outbound WHERE to_code <> '' AND prefix_code <> ''";
            assert_eq!(count(replica, codes).await, 1 + i64::try_from(at).unwrap());
        }
        later(replica, 3_601_000).await;
        keep(other, "r2".to_owned()).await.unwrap();
        let calls = "SELECT COUNT(*) FROM outbound WHERE to_code = '' AND prefix_code = ''";
        assert_eq!(count(replica, calls).await, 2, "they count for an hour");
        later(replica, 23 * 3_600_000).await;
        keep(other, "r2".to_owned()).await.unwrap();
        let calls = "SELECT COUNT(*) FROM outbound";
        assert_eq!(count(replica, calls).await, 0, "keys are known for a day");
    })
    .await;
}

#[tokio::test]
async fn a_call_that_was_handed_over_is_asked_after_now_and_then_and_after_the_others() {
    on_both(async |[replica, _]| {
        let number_of = |at: usize| format!("+97250234{at:04}");
        let answered = 120;
        for at in 0..=answered {
            let new = new(&number_of(at), "key");
            let call = new.row.call;
            let limits = Limits {
                per_prefix: 10_000,
                ..LIMITS
            };
            note(replica, new, limits).await.unwrap();
            let stage = if at == answered {
                Stage::Unknown
            } else {
                Stage::Answered
            };
            let picked_up = Move {
                rings_for: Some(Duration::ZERO),
                ..Move::new(call, &[Stage::Reserving], stage)
            };
            assert!(advance(replica, picked_up).await.unwrap());
        }
        // All of them have ended here a while ago, and one of them just before that.
        let closed = "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, \
             state, rank, rang_at, ended_at) SELECT call, pending, 'twilio', 'outbound', tenant, \
             campaign, 'ended', 90, created_at, created_at FROM outbound WHERE state = 'answered'";
        write(replica, closed.to_owned()).await;
        let clock = replica.kind().clock();
        let ended = |ago: i64| format!("UPDATE calls SET ended_at = {clock} - {ago}");
        let overdue = async || {
            let overdue = overdue(replica, "r1".to_owned(), Duration::from_secs(3_600)).await;
            overdue.unwrap()
        };
        write(replica, ended(7_000)).await;
        let found = overdue().await;
        assert_eq!((found.len(), found[0].stage), (100, Stage::Unknown));
        write(replica, ended(60_000)).await;
        assert_eq!(
            overdue().await.len(),
            1,
            "the others are asked after by the minute"
        );
        let unheard = async |after: String| {
            let some = carried_by_nobody(replica, "r1".to_owned(), after).await;
            some.unwrap()
        };
        let mut after = String::new();
        let mut all = Vec::new();
        loop {
            let some = unheard(after).await;
            let Some(last) = some.last() else {
                break;
            };
            after = last.call.to_string();
            all.extend(some);
        }
        assert_eq!(all.len(), answered);
        assert!(all.iter().all(|row| row.stage == Stage::Answered));
        // Nor is heard of those which, by their records, ring on though they were picked up.
        let rank = |rank: i64| format!("UPDATE calls SET rank = {rank}");
        write(replica, rank(40)).await;
        assert!(!unheard(String::new()).await.is_empty());
        write(replica, rank(50)).await;
        assert!(unheard(String::new()).await.is_empty(), "they talk");
    })
    .await;
}

#[tokio::test]
async fn a_call_is_dialed_and_rings_by_the_databases_clock() {
    on_both(async |[replica, _]| {
        let new = new("+972502345671", "key");
        let call = new.row.call;
        note(replica, new, LIMITS).await.unwrap();
        let queued = Move::new(call, &[Stage::Reserving], Stage::Queued);
        assert!(advance(replica, queued).await.unwrap());
        let dials = Move {
            dials: true,
            rings_for: Some(Duration::from_secs(60)),
            ..Move::new(call, &[Stage::Queued], Stage::Dialing)
        };
        assert!(advance(replica, dials).await.unwrap());
        let row = find(replica, call).await.unwrap().unwrap();
        let (dialed_at, rings_until) = (row.dialed_at.unwrap(), row.rings_until.unwrap());
        assert_eq!(rings_until - dialed_at, 60_000);
        assert!(
            (row.created_at..=row.read_at).contains(&dialed_at),
            "{row:?}"
        );
        let overdue = async || {
            let overdue = overdue(replica, "r1".to_owned(), Duration::ZERO).await;
            overdue.unwrap().len()
        };
        assert_eq!(overdue().await, 0);
        later(replica, 31_000).await;
        assert_eq!(overdue().await, 1, "no request takes that long");
    })
    .await;
}
