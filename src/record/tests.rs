mod placed;
mod telling;
mod trouble;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{prelude::*, strategy::ValueTree};
use secrecy::SecretString;
use serde_json::Value;
use sqlx::{Connection, Row};
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::{lost::Lookout, postgres_server::PostgresServer, row::CallRow, writer::Writer, *};
use crate::{
    admission::{Reason, Refusal, Scope},
    call::{CallerId, EndReason},
    config::KeptNumbers,
    recording::{Recording, RecordingId},
    session::Speaker,
    wire::in_order,
};

/// A database of either kind, and what goes with it.
struct Kept {
    database: Database,
    recorder: Recorder,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Kept {
    async fn open(url: &str) -> Self {
        let settings = settings(url);
        let database = Database::open(&settings).unwrap();
        database.migrate().await.unwrap();
        let (recorder, writer) = recorder(&database, &settings, "r1");
        let stop = CancellationToken::new();
        database.spawn(writer.run(stop.clone()));
        Self {
            database,
            recorder,
            stop,
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn written(&self) {
        while self.recorder.standing().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the rows of a question as text, each column after another.
    async fn ask(&self, question: &'static str) -> Vec<String> {
        let rows = self
            .database
            .read(move |pool| async move { Sql::new(question).read(&pool).await });
        let rows = rows.await.unwrap();
        rows.iter()
            .map(|row| {
                let columns = (0..row.len()).map(|at| {
                    let text = row.try_get::<Option<String>, _>(at);
                    let text = text.map(|text| match text.as_deref().map(serde_json::from_str) {
                        Some(Ok(details @ Value::Object(_))) => in_order(&details).to_string(),
                        _ => text.unwrap_or_else(|| "-".to_owned()),
                    });
                    text.unwrap_or_else(|_| row.get::<i64, _>(at).to_string())
                });
                columns.collect::<Vec<_>>().join(" ")
            })
            .collect()
    }

    fn lookout(&self, replica: &str) -> Lookout {
        Lookout {
            database: self.database.clone(),
            told: Arc::new(Nobody),
            replica: replica.to_owned(),
            living: lost::Living::default(),
        }
    }

    async fn close(self) {
        self.stop.cancel();
        self.database.close().await;
    }
}

fn settings(url: &str) -> RecordSettings {
    RecordSettings {
        url: SecretString::from(url),
        numbers: KeptNumbers::Whole,
        secret: None,
        kept: Duration::from_secs(86_400),
        transcripts: true,
    }
}

#[tokio::test]
async fn what_is_said_takes_no_more_room_while_it_waits_than_is_kept_of_it() {
    let settings = settings("sqlite::memory:");
    let database = Database::open(&settings).unwrap();
    let (recorder, mut writer) = recorder(&database, &settings, "r1");
    let endless = "א\0".repeat(1 << 20);
    recorder.note(&call("CA1"), said(&endless));
    let waits = writer.first_waiting().await.unwrap();
    let Fact::Happened(What::Said { text, .. }) = waits.fact else {
        panic!("{waits:?}");
    };
    assert_eq!(text, "א".repeat(LONGEST_WORDS));
    database.close().await;
}

fn recorder(database: &Database, settings: &RecordSettings, replica: &str) -> (Recorder, Writer) {
    let numbers = Arc::new(Numbers::new(settings));
    Recorder::new(database, numbers, Arc::new(Nobody), replica, true)
}

/// Runs a story on both databases.
async fn on_both(story: impl AsyncFn(&Kept)) {
    let server = PostgresServer::start();
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite://{}/records.db", folder.path().display());
    for url in [sqlite, server.database("records")] {
        let kept = Kept::open(&url).await;
        story(&kept).await;
        kept.close().await;
    }
}

fn call(name: &str) -> CarrierCallId {
    CarrierCallId::try_from(name.to_owned()).unwrap()
}

fn arrival(refused: bool) -> Fact {
    Fact::Arrived(arrived(refused))
}

fn arrived(refused: bool) -> Box<Arrival> {
    Box::new(Arrival {
        direction: Direction::Inbound,
        tenant: "acme".parse().unwrap(),
        campaign: "sales".parse().unwrap(),
        agent: (!refused).then(Name::default_name),
        caller: CallerId::read("+972501234567"),
        called: CallerId::read("+97221111111"),
        refused: refused.then_some(Refusal {
            reason: Reason::Full,
            scope: Scope::Global,
            used: 15,
            cap: 15,
        }),
        placed_as: None,
        seen: None,
    })
}

/// The same call, as whoever takes it for lost knows it.
fn lost() -> Fact {
    Fact::Lost {
        arrival: arrived(false),
        rang_at: None,
    }
}

fn said(text: &str) -> Fact {
    Fact::Happened(What::Said {
        who: Speaker::Caller,
        text: text.to_owned(),
    })
}

fn message(last: &str) -> Fact {
    let id = format!("RE0123456789abcdef0123456789abcde{last}");
    Fact::Happened(What::LeftMessage(Recording {
        id: RecordingId::read(&id).unwrap(),
        url: Url::parse("https://api.twilio.com/RE1").unwrap(),
        duration: Duration::from_secs(7),
    }))
}

#[tokio::test]
async fn a_call_leaves_a_row_its_steps_its_words_and_its_events() {
    on_both(async |kept| {
        let (answered, refused) = (call("CA1"), call("CA2"));
        for fact in [
            arrival(false),
            Fact::Happened(What::Connected),
            said("shalom\0"),
            Fact::Talked(Duration::from_millis(1_500)),
            Fact::Happened(What::Ended(EndReason::CallerHungUp)),
        ] {
            kept.recorder.note(&answered, fact);
        }
        for fact in [arrival(true), message("f")] {
            kept.recorder.note(&refused, fact);
        }
        kept.written().await;
        let row = "SELECT carrier_call, tenant, campaign, caller, caller_shown, state, reason, \
                   blame, scope, talked_ms, replica FROM calls ORDER BY carrier_call";
        assert_eq!(
            kept.ask(row).await,
            [
                "CA1 acme sales +972501234567 +9*******4567 ended caller_hung_up caller - 1500 r1",
                "CA2 acme sales +972501234567 +9*******4567 rejected_capacity full - global - r1",
            ]
        );
        let steps = "SELECT carrier_call, what, details FROM steps NATURAL JOIN calls \
                     ORDER BY carrier_call, step";
        assert_eq!(
            kept.ask(steps).await,
            [
                "CA1 admitted -",
                "CA1 connected -",
                r#"CA1 ended {"blame":"caller","reason":"caller_hung_up"}"#,
                r#"CA2 refused {"cap":15,"reason":"full","scope":"global","used":15}"#,
                r#"CA2 left_message {"recording":"RE0123456789abcdef0123456789abcdef","seconds":7}"#,
            ]
        );
        assert_eq!(kept.ask("SELECT who, text FROM words").await, ["caller shalom"]);
        let recordings = "SELECT recording, seconds FROM recordings";
        let expected = ["RE0123456789abcdef0123456789abcdef 7"];
        assert_eq!(kept.ask(recordings).await, expected);
        let events = "SELECT carrier_call, kind FROM events NATURAL JOIN \
                      (SELECT call, carrier_call FROM calls) AS named ORDER BY carrier_call, kind";
        assert_eq!(
            kept.ask(events).await,
            [
                "CA1 call.ended",
                "CA1 call.started",
                "CA1 call.transcript",
                "CA2 call.refused",
                "CA2 voicemail.received",
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn whoever_rings_by_a_text_that_postgres_refuses_has_a_record_all_the_same() {
    on_both(async |kept| {
        let mut arrival = arrived(false);
        arrival.caller = CallerId::read("client:da\0na");
        arrival.called = CallerId::read("sip:sales\0@example.com");
        kept.recorder.note(&call("CA1"), Fact::Arrived(arrival));
        kept.written().await;
        assert_eq!(
            kept.ask("SELECT tenant, caller, called FROM calls").await,
            ["acme client:dana sip:sales@example.com"]
        );
        assert_eq!(kept.recorder.standing().refused, 0);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_is_not_taken_costs_no_other_its_place() {
    on_both(async |kept| {
        kept.recorder.note(&call("CA1"), arrival(false));
        let impossible = Fact::Used(Box::new(Usage {
            agent: Name::default_name(),
            model: "a\0b".to_owned(), // Postgres takes no such text.
            text_in: 1,
            audio_in: 0,
            cached_in: 0,
            text_out: 0,
            audio_out: 0,
            lasted: Duration::ZERO,
            cost_micros: 0,
        }));
        kept.recorder.note(&call("CA2"), impossible);
        kept.recorder.note(&call("CA3"), arrival(false));
        kept.written().await;
        let rows = kept.ask("SELECT carrier_call FROM calls").await;
        assert!(
            rows.contains(&"CA1".to_owned()) && rows.contains(&"CA3".to_owned()),
            "{rows:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_closes_calls_has_room_where_there_is_none_for_words_or_for_more_calls() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&format!("sqlite://{}/records.db", folder.path().display()));
    let database = Database::open(&settings).unwrap();
    // Nobody writes: as if the database was away.
    let (recorder, _writer) = recorder(&database, &settings, "r1");
    let counts = || {
        let standing = recorder.standing();
        (standing.waiting, standing.dropped)
    };
    recorder.note(&call("CA0"), arrival(false));
    for _ in 0..60_000 {
        recorder.note(&call("CA0"), said("shalom"));
    }
    assert_eq!(counts(), (30_000, 30_001));
    for number in 0..20_000 {
        recorder.note(&call(&format!("CR{number}")), arrival(true));
    }
    assert_eq!(counts(), (40_000, 40_001));
    let ended = || Fact::Happened(What::Ended(EndReason::CallerHungUp));
    for _ in 0..10_001 {
        recorder.note(&call("CA0"), ended());
    }
    assert_eq!(counts(), (50_000, 40_002));
}

#[tokio::test]
async fn an_end_that_is_being_committed_is_not_taken_for_a_loss() {
    let server = PostgresServer::start();
    let url = server.database("records");
    let kept = Kept::open(&url).await;
    kept.recorder.note(&call("CA1"), arrival(false));
    kept.recorder
        .note(&call("CA1"), Fact::Happened(What::Connected));
    kept.written().await;
    // What its replica was about to commit when it was taken for gone.
    let mut its_own = sqlx::postgres::PgConnection::connect(&url).await.unwrap();
    let ends = "BEGIN; UPDATE calls SET state = 'ended', rank = 90, reason = 'caller_hung_up'";
    sqlx::raw_sql(ends).execute(&mut its_own).await.unwrap();
    let lookout = kept.lookout("r1");
    let closing = lookout.leave();
    let committing = async {
        let waits = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted";
        while kept.ask(waits).await == ["0"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sqlx::raw_sql("COMMIT").execute(&mut its_own).await.unwrap();
    };
    let (closed, ()) = tokio::join!(closing, committing);
    closed.unwrap();
    let row = "SELECT state, reason FROM calls";
    assert_eq!(kept.ask(row).await, ["ended caller_hung_up"]);
    kept.close().await;
}

#[tokio::test]
async fn rows_wait_for_a_database_that_is_away() {
    let server = PostgresServer::start();
    let kept = Kept::open(&server.database("records")).await;
    kept.recorder.note(&call("CA1"), arrival(false));
    kept.written().await;
    server.kill();
    for number in 0..2_000 {
        kept.recorder
            .note(&call(&format!("CB{number}")), arrival(true));
    }
    while kept.recorder.standing().failing.is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(kept.recorder.standing().waiting, 2_000);
    server.restart();
    kept.written().await;
    let standing = kept.recorder.standing();
    assert_eq!(
        (standing.dropped, standing.refused, standing.failing),
        (0, 0, None)
    );
    assert_eq!(kept.ask("SELECT COUNT(*) FROM calls").await, ["2001"]);
    kept.close().await;
}

#[tokio::test]
async fn numbers_are_kept_as_the_settings_say() {
    let secret = Some(SecretString::from("0123456789abcdef"));
    let number = CallerId::read("+972501234567");
    let keep = |numbers, secret: Option<SecretString>| {
        let settings = RecordSettings {
            numbers,
            secret,
            ..settings("sqlite:")
        };
        Numbers::new(&settings).keep(&number)
    };
    let whole = keep(KeptNumbers::Whole, None);
    assert_eq!(whole.found_by.as_deref(), Some("+972501234567"));
    let hashed = keep(KeptNumbers::Hashed, secret.clone());
    let code = hashed.found_by.clone().unwrap();
    assert!(code.starts_with("h:") && code.len() == 66, "{code}");
    assert_eq!(keep(KeptNumbers::Hashed, secret).found_by, hashed.found_by);
    let other = keep(
        KeptNumbers::Hashed,
        Some(SecretString::from("another secret 16")),
    );
    assert_ne!(other.found_by, hashed.found_by);
    assert_eq!(keep(KeptNumbers::Masked, None).found_by, None);
    assert_eq!(hashed.shown, "+9*******4567");
}

#[test]
fn nobody_can_try_all_numbers_against_the_code_of_a_masked_one() {
    let process = |numbers| {
        Numbers::new(&RecordSettings {
            numbers,
            secret: None,
            ..settings("sqlite:")
        })
    };
    let code = |numbers: &Numbers| numbers.code("+972501234567");
    let (masked, whole) = (process(KeptNumbers::Masked), process(KeptNumbers::Whole));
    assert_eq!(code(&masked), code(&masked));
    assert_ne!(code(&masked), code(&process(KeptNumbers::Masked)));
    assert_eq!(code(&whole), code(&process(KeptNumbers::Whole)));
}

/// What can be noted of one call, with the time at which it happened.
fn facts() -> impl Strategy<Value = Vec<(Millis, Fact)>> {
    let ended = |reason| Fact::Happened(What::Ended(reason));
    let all = vec![
        (10, arrival(false)),
        (11, Fact::Happened(What::Admitted)),
        (20, Fact::Happened(What::Connected)),
        (30, ended(EndReason::TakenOver)),
        (40, said("hello")),
        (50, Fact::Talked(Duration::from_secs(3))),
        (55, lost()),
        (60, ended(EndReason::CallerHungUp)),
    ];
    Just(all).prop_shuffle()
}

proptest! {
    #[test]
    fn facts_in_any_order_come_to_the_same_row(facts in facts()) {
        let mut row = CallRow::new(call("CA1"), facts[0].0);
        for (at, fact) in &facts {
            row.learn(*at, fact);
        }
        prop_assert_eq!(row.state, State::Ended);
        prop_assert_eq!(row.reason.as_deref(), Some("caller_hung_up"));
        prop_assert_eq!((row.rang_at, row.connected_at, row.ended_at), (10, Some(20), Some(60)));
        prop_assert_eq!(row.talked_ms, Some(3_000));
    }
}

/// The same over both databases, with the facts spread over transactions of any size, told twice.
#[tokio::test]
async fn facts_in_any_order_and_any_transaction_come_to_the_same_row() {
    on_both(async |kept| {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut rows: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for number in 0..40_u32 {
            let facts = facts().new_tree(&mut runner).unwrap().current();
            let name = call(&format!("CA{number}"));
            let entries: Vec<Entry> = facts
                .into_iter()
                .map(|(at, fact)| Entry {
                    id: Uuid::now_v7(),
                    call: name.clone(),
                    at,
                    fact,
                })
                .collect();
            let size = 1 + number as usize % 7;
            for part in entries.chunks(size).chain(entries.chunks(size)) {
                let part = part.to_vec();
                let written = kept.database.write(move |writing| {
                    Box::pin(async move {
                        let numbers = Numbers::new(&settings("sqlite:"));
                        writer::write(writing, &part, &numbers, &Nobody, "r1").await
                    })
                });
                written.await.unwrap();
            }
        }
        for row in kept
            .ask(
                "SELECT state, reason, blame, rang_at, connected_at, ended_at, talked_ms, agent, \
                 COUNT(*) FROM calls GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
            )
            .await
        {
            rows.entry(row).or_default();
        }
        let only = "ended caller_hung_up caller 10 20 60 3000 default 40";
        assert_eq!(rows.keys().collect::<Vec<_>>(), [only]);
        let events = kept
            .ask("SELECT kind, COUNT(*) FROM events GROUP BY 1 ORDER BY 1")
            .await;
        assert_eq!(
            events,
            ["call.ended 40", "call.started 40", "call.transcript 40"]
        );
        assert_eq!(kept.ask("SELECT COUNT(*) FROM words").await, ["40"]);
    })
    .await;
}

#[tokio::test]
async fn what_a_tenant_used_up_of_a_day_goes_with_what_is_too_old() {
    on_both(async |kept| {
        let now = unix_millis_i64();
        let days = 86_400_000;
        for at in [now - 3 * days, now - days, now] {
            let mut sql = Sql::new(
                "INSERT INTO outbound_days (tenant, day, calls, talked_ms) VALUES ('acme', ",
            );
            sql.bind(day(at)).push(", 1, 1)");
            let written = kept
                .database
                .write(move |writing| Box::pin(sql.execute(writing)));
            written.await.unwrap();
        }
        let kept_for = Duration::from_secs(86_400);
        sweep(&kept.database, kept_for, now).await.unwrap();
        let left = kept.ask("SELECT day FROM outbound_days ORDER BY day").await;
        assert_eq!(left, [day(now - days), day(now)]);
    })
    .await;
}

/// What was told late of a call whose record is deleted, or of one whose refusal was never written.
#[tokio::test]
async fn what_nobody_knows_whose_it_is_goes_after_a_day() {
    on_both(async |kept| {
        kept.recorder.note(&call("CA1"), message("1"));
        kept.recorder.note(&call("CA2"), arrival(true));
        kept.written().await;
        let rows = "SELECT carrier_call FROM calls ORDER BY 1";
        let kept_for = Duration::from_secs(90 * 86_400);
        let (now, hour) = (unix_millis_i64(), 3_600_000);
        sweep(&kept.database, kept_for, now + hour).await.unwrap();
        assert_eq!(kept.ask(rows).await, ["CA1", "CA2"]);
        sweep(&kept.database, kept_for, now + 26 * hour)
            .await
            .unwrap();
        assert_eq!(kept.ask(rows).await, ["CA2"]);
        assert_eq!(kept.ask("SELECT COUNT(*) FROM recordings").await, ["0"]);
    })
    .await;
}
