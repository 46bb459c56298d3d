mod limits;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::*;
use crate::{
    Config, Running,
    admission::Scope,
    api::{Action, Change},
    fake_twilio::{Act, Callee, Customer, FakeTwilio, FakeTwilioOptions, Talk},
    outbound::{pace::Pace, rows::Stage},
    simulate::{script::Script, voice::Voices},
};

#[path = "../../tests/it/database.rs"]
mod database;

use self::database::Database;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ACCOUNT: &str = "AC00000000000000000000000000000001";
const GUARD: Duration = Duration::from_secs(30);

/// A gateway whose agent is a parrot, and the Twilio that it asks for calls.
struct House {
    twilio: FakeTwilio,
    running: Running,
    database: Database,
}

impl House {
    async fn open(settings: &[(&str, &str)]) -> Self {
        let database = Database::new();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = free.local_addr().unwrap();
        drop(free);
        let customer = Customer {
            gateway: format!("http://{address}").parse().unwrap(),
            public: None,
            auth_token: Some(TOKEN.into()),
            account_sid: ACCOUNT.to_owned(),
        };
        let talk = Talk {
            script: Script::Talk,
            talk_for: Duration::from_millis(300),
            voices: Arc::new(Voices::shipped(1)),
        };
        let options = FakeTwilioOptions::default();
        let twilio = FakeTwilio::start(options, customer, talk, None);
        let twilio = twilio.await.unwrap();
        let url = twilio.url();
        let config = Config::load(|name| {
            let set = settings.iter().find(|(set, _)| *set == name);
            let default = match name {
                "LISTEN" => address.to_string(),
                "TWILIO_AUTH_TOKEN" => TOKEN.to_owned(),
                "TWILIO_ACCOUNT_SID" => ACCOUNT.to_owned(),
                "TWILIO_API_BASE" => url.clone(),
                "DATABASE_URL" => database.url().to_owned(),
                "OUTBOUND_COUNTRIES" => "IL".to_owned(),
                "OUTBOUND_FROM" => "+972722234567".to_owned(),
                "OUTBOUND_CALLS_PER_SECOND" => "1000".to_owned(),
                _ => return set.map(|(_, value)| (*value).to_owned()),
            };
            Some(set.map_or(default, |(_, value)| (*value).to_owned()))
        });
        let running = Gateway::start(config.unwrap()).await.unwrap();
        let house = Self {
            twilio,
            running,
            database,
        };
        // A gateway takes calls before its tables are made.
        let records = &house.running.gateway().records.database;
        let nobody = crate::call::CarrierCallId::pending(crate::call::Carrier::Twilio);
        let nobody = crate::call::CallId::of(&nobody);
        house
            .until(async || rows::find(records, nobody).await.is_ok())
            .await;
        house
    }

    async fn place(&self, key: &str, body: &Value) -> Result<Placed, Refused> {
        let tenant = crate::campaign::Name::default_name();
        let asker = Asker {
            tenant: &tenant,
            api_key: "key",
            change: &Change::by_operator(Action::PlaceCall, ""),
        };
        place(self.running.gateway(), asker, key, body).await
    }

    async fn row(&self, id: &str) -> rows::Row {
        let gateway = self.running.gateway();
        let found = rows::find(&gateway.records.database, id.parse().unwrap()).await;
        found.unwrap().unwrap()
    }

    /// Waits until a call is over; returns its state and its reason by its record.
    async fn over(&self, id: &str) -> (String, String) {
        self.until(async || self.row(id).await.stage == Stage::Over)
            .await;
        let database = &self.running.gateway().records.database;
        let mut found = (String::new(), String::new());
        timeout(GUARD, async {
            loop {
                let mut sql = crate::record::Sql::new(
                    "SELECT state, COALESCE(reason, '') FROM calls WHERE rank >= 90 AND call = ",
                );
                sql.bind(id.to_owned());
                let read = database.read(move |pool| async move { sql.read(&pool).await });
                if let Some(row) = read.await.unwrap().first() {
                    use sqlx::Row;
                    found = (row.get(0), row.get(1));
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the record is closed");
        found
    }

    async fn until(&self, wanted: impl AsyncFn() -> bool) {
        let wait = async {
            while !wanted().await {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(GUARD, wait).await.expect("it came in time");
    }

    /// Waits until no slot is held, and ends.
    async fn close(self) {
        let gateway = self.running.gateway().clone();
        self.until(async || gateway.admission.occupancy().active == 0)
            .await;
        let used = gateway.admission.usage(&gateway.campaigns.current());
        assert!(used.iter().all(|(_, used, _)| *used == 0), "{used:?}");
        let open = "SELECT call FROM outbound WHERE state <> 'over'";
        self.until(async || self.database.ask(open).await.is_empty())
            .await;
        self.twilio.stop().await;
        self.running.drain(std::future::ready(())).await;
    }
}

fn to(number: &str) -> Value {
    json!({"to": number, "ring_timeout": 5})
}

#[tokio::test]
async fn a_placed_call_is_picked_up_talks_and_leaves_nothing_behind() {
    let house = House::open(&[]).await;
    let body = json!({"to": "+972502345678", "metadata": {"order": 7}});
    let placed = house.place("one", &body).await.unwrap();
    assert_eq!(placed.state, "queued");
    let ended = house.over(&placed.id).await;
    assert_eq!(ended.0, "ended", "{ended:?}");
    let calls = house.twilio.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (&*calls[0].to, &*calls[0].from),
        ("+972502345678", "+972722234567")
    );
    let row = house.row(&placed.id).await;
    assert_eq!(row.carrier_call.unwrap().as_str(), calls[0].sid);
    let started = "SELECT event FROM events WHERE kind = 'call.started'";
    assert_eq!(house.database.ask(started).await.len(), 1);
    let agents = "SELECT call FROM calls WHERE agent IS NOT NULL";
    assert_eq!(house.database.ask(agents).await.len(), 1);
    house.close().await;
}

#[tokio::test]
async fn the_same_key_a_hundred_times_at_once_calls_once_and_another_body_is_refused() {
    let house = House::open(&[]).await;
    let body = to("+972502345678");
    let asking = (0..100).map(|_| house.place("one", &body));
    let answers: Vec<Placed> = join_all(asking)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    house.over(&answers[0].id).await;
    assert_eq!(house.place("one", &body).await.as_ref(), Ok(&answers[0]));
    let other = house.place("one", &to("+972502345679")).await;
    assert_eq!(other, Err(Refused::OtherBody));
    assert_eq!(house.twilio.calls().len(), 1);
    house.close().await;
}

#[tokio::test]
async fn a_number_that_many_ask_for_at_the_same_moment_is_called_once() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Rings);
    let body = to("+972502345678");
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    let asking = keys.iter().map(|key| house.place(key, &body));
    let (placed, refused): (Vec<_>, Vec<_>) =
        join_all(asking).await.into_iter().partition(Result::is_ok);
    assert_eq!((placed.len(), refused.len()), (1, 19), "{refused:?}");
    for refused in refused {
        let Err(Refused::TooMany { cap, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(cap, "calls_to_one_number_at_a_time");
    }
    house.over(&placed[0].as_ref().unwrap().id).await;
    assert_eq!(house.twilio.calls().len(), 1);
    house.close().await;
}

#[tokio::test]
async fn who_does_not_pick_up_costs_no_slot() {
    let house = House::open(&[]).await;
    for (callee, number, reason) in [
        (Callee::Busy, "+972502345671", "busy"),
        (Callee::NoAnswer, "+972502345672", "no_answer"),
        (Callee::Failed, "+972502345673", "not_placed"),
    ] {
        house.twilio.callees(callee);
        let placed = house.place(number, &to(number)).await.unwrap();
        let ended = house.over(&placed.id).await;
        assert_eq!(ended, ("failed".to_owned(), reason.to_owned()));
    }
    house.close().await;
}

#[tokio::test]
async fn what_the_carrier_may_have_done_is_never_asked_for_again() {
    let house = House::open(&[]).await;
    house.twilio.then(&[Act::TakeThenCut]);
    let placed = house.place("cut", &to("+972502345671")).await.unwrap();
    assert_eq!(house.over(&placed.id).await.0, "ended");
    house.twilio.then(&[Act::TakeThenFail(503)]);
    let placed = house.place("failed", &to("+972502345672")).await.unwrap();
    assert_eq!(house.over(&placed.id).await.0, "ended");
    house
        .twilio
        .then(&[Act::Throttle(Some(1)), Act::Throttle(None)]);
    let placed = house
        .place("throttled", &to("+972502345673"))
        .await
        .unwrap();
    assert_eq!(house.over(&placed.id).await.0, "ended");
    house.twilio.then(&[Act::Refuse(21_211)]);
    let placed = house.place("refused", &to("+972502345674")).await.unwrap();
    let ended = house.over(&placed.id).await;
    assert_eq!(ended, ("failed".to_owned(), "not_placed".to_owned()));
    assert_eq!(house.twilio.calls().len(), 3);
    house.close().await;
}

#[tokio::test]
async fn a_machine_is_hung_up_on_or_talked_to() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Machine);
    let body = json!({"to": "+972502345671", "machine_detection": "detect"});
    let placed = house.place("one", &body).await.unwrap();
    assert_eq!(house.over(&placed.id).await.1, "machine_answered");
    let body = json!({
        "to": "+972502345672",
        "machine_detection": "detect_message_end",
        "when_machine": "talk",
    });
    let placed = house.place("two", &body).await.unwrap();
    assert_eq!(house.over(&placed.id).await.0, "ended");
    house.close().await;
}

#[tokio::test]
async fn a_call_that_rings_can_be_ended() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Rings);
    let placed = house.place("one", &to("+972502345671")).await.unwrap();
    let calls = house
        .twilio
        .until(|calls| calls.iter().any(|it| it.status == "ringing"));
    let call = timeout(GUARD, calls).await.unwrap().remove(0);
    house
        .until(async || house.row(&placed.id).await.carrier_call.is_some())
        .await;
    let name = crate::call::CarrierCallId::try_from(call.sid).unwrap();
    hang_up(house.running.gateway(), placed.id.parse().unwrap(), &name).await;
    assert_eq!(house.over(&placed.id).await.1, "canceled");
    let over = house.twilio.until(|calls| calls[0].is_over());
    timeout(GUARD, over).await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn a_call_of_which_the_carrier_cannot_tell_fails_after_a_while_and_frees_its_number() {
    let house = House::open(&[("TWILIO_API_BASE", "http://127.0.0.1:1")]).await;
    let unknown = leave(&house, Stage::Unknown, "+972502345671").await;
    let lately = leave(&house, Stage::Unknown, "+972502345672").await;
    house
        .database
        .ask(
            "UPDATE outbound SET rings_until = rings_until - 910000 \
             WHERE to_number = '+972502345671'",
        )
        .await;
    let ended = house.over(&unknown.call.to_string()).await;
    assert_eq!(ended, ("failed".to_owned(), "untold".to_owned()));
    let row = house.row(&lately.call.to_string()).await;
    assert_eq!(row.stage, Stage::Unknown, "it may still be told of");
    house
        .database
        .ask("UPDATE outbound SET rings_until = rings_until - 910000")
        .await;
    house.over(&lately.call.to_string()).await;
    assert!(house.twilio.calls().is_empty());
    house.close().await;
}

#[tokio::test]
async fn nobody_is_called_who_may_not_be() {
    let house = House::open(&[]).await;
    for (body, field) in [
        (to("+12025550123"), "to"),
        (to("+9721900123456"), "to"),
        (to("+870773111632"), "to"),
        (
            json!({"to": "+972502345678", "campaign": "nobody's"}),
            "campaign",
        ),
        (json!({"to": "+972502345678", "from": "1"}), "from"),
    ] {
        let refused = house.place("one", &body).await.unwrap_err();
        let Refused::Invalid { field: named, .. } = refused else {
            panic!("{body}: {refused:?}");
        };
        assert_eq!(named, field, "{body}");
    }
    assert!(house.twilio.calls().is_empty());
    house.close().await;
}

/// Puts a call into the database as a replica left it that has died.
async fn leave(house: &House, stage: Stage, number: &str) -> rows::Row {
    leave_since(house, stage, number, rows::HELD_MS).await
}

async fn leave_since(house: &House, stage: Stage, number: &str, ago_ms: i64) -> rows::Row {
    leave_as(house, "a-dead-one", stage, number, ago_ms).await
}

async fn leave_as(
    house: &House,
    holder: &str,
    stage: Stage,
    number: &str,
    ago_ms: i64,
) -> rows::Row {
    let gateway = house.running.gateway();
    let pending = crate::call::CarrierCallId::pending(crate::call::Carrier::Twilio);
    let now = place::now();
    let body = to(number);
    let row = rows::Row {
        call: crate::call::CallId::of(&pending),
        tenant: "default".to_owned(),
        body_hash: String::new(),
        pending,
        carrier_call: None,
        campaign: "default".to_owned(),
        agent: Some(crate::campaign::Name::default_name()),
        to: number.to_owned(),
        from: "+972722234567".to_owned(),
        terms: Request::read(&body).unwrap().terms,
        stage,
        created_at: now,
        dialed_at: None,
        rings_until: None,
    };
    let new = rows::NewRow {
        row: rows::Row {
            stage: Stage::Reserving,
            ..row.clone()
        },
        key: number.to_owned(),
        api_key: "key".to_owned(),
        holder: holder.to_owned(),
        to_code: number.to_owned(),
    };
    let limits = rows::Limits {
        per_destination: 3,
        per_key: 100,
        daily_calls: 100,
        daily_minutes: 100,
    };
    let records = &gateway.records;
    let noted = rows::note(&records.database, new, limits).await;
    assert!(matches!(noted.unwrap(), rows::Noted::New));
    if stage != Stage::Reserving {
        bring_to(house, &row, stage).await;
    }
    // Nobody may take it over before it is where it is to be left.
    let mut sql = crate::record::Sql::new("UPDATE outbound SET created_at = created_at - ");
    sql.bind(ago_ms).push(", held_until = held_until - ");
    sql.bind(ago_ms).push(" WHERE call = ");
    sql.bind(row.call.to_string());
    let leaving = records
        .database
        .write(move |writing| Box::pin(sql.execute(writing)));
    leaving.await.unwrap();
    row
}

async fn bring_to(house: &House, row: &rows::Row, stage: Stage) {
    let (records, now) = (&house.running.gateway().records, place::now());
    let change = Change::by_operator(Action::PlaceCall, "");
    let (agent, numbers) = (row.agent.as_ref().unwrap(), &records.numbers);
    let pace = Pace::new(1_000, GUARD);
    let queued = rows::queue(&records.database, row, agent, change, pace, numbers).await;
    assert!(matches!(queued.unwrap(), rows::Queued::At(_)));
    let step = rows::Move {
        dialed_at: Some(now),
        rings_until: Some(now + 6_000),
        ..rows::Move::new(row.call, &[Stage::Queued], stage)
    };
    assert!(rows::advance(&records.database, step).await.unwrap());
}

#[tokio::test]
async fn what_a_dead_replica_has_not_asked_for_is_asked_for_and_the_rest_is_looked_for() {
    let house = House::open(&[]).await;
    let queued = leave(&house, Stage::Queued, "+972502345671").await;
    let dialing = leave(&house, Stage::Dialing, "+972502345672").await;
    let reserving = leave(&house, Stage::Reserving, "+972502345673").await;
    assert_eq!(house.over(&queued.call.to_string()).await.0, "ended");
    let ended = house.over(&dialing.call.to_string()).await;
    assert_eq!(ended, ("failed".to_owned(), "not_placed".to_owned()));
    let calls = house.twilio.calls();
    assert_eq!(calls.len(), 1, "only what was not asked for");
    assert_eq!(calls[0].to, "+972502345671");
    let gateway = house.running.gateway();
    let gone = async || {
        let found = rows::find(&gateway.records.database, reserving.call).await;
        found.unwrap().is_none()
    };
    house.until(gone).await;
    house.close().await;
}

#[tokio::test]
async fn a_call_that_is_over_without_a_word_in_its_record_is_closed_there_later() {
    let house = House::open(&[]).await;
    let lately = leave_since(&house, Stage::Over, "+972502345671", 0).await;
    let long_ago = leave_since(&house, Stage::Over, "+972502345672", 0).await;
    for ages in [
        "UPDATE outbound SET held_until = 0 WHERE to_number = '+972502345672'",
        "UPDATE calls SET rang_at = rang_at - 90000 WHERE call IN \
         (SELECT call FROM outbound WHERE to_number = '+972502345672')",
    ] {
        house.database.ask(ages).await;
    }
    let ended = house.over(&long_ago.call.to_string()).await;
    let lost = "instance_lost".to_owned();
    assert_eq!(ended, (lost.clone(), lost));
    let open = "SELECT call FROM calls WHERE rank < 90";
    let open = house.database.ask(open).await;
    assert_eq!(open.len(), 1, "{open:?}: its last word may be on its way");
    assert!(format!("{open:?}").contains(&lately.call.to_string()));
    house.close().await;
}

#[tokio::test]
async fn what_no_task_drives_any_more_is_seen_to_though_its_replica_lives() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let row = leave_as(&house, &me, Stage::Reserving, "+972502345671", 31_000).await;
    let gateway = house.running.gateway();
    let gone = async || {
        let found = rows::find(&gateway.records.database, row.call).await;
        found.unwrap().is_none()
    };
    house.until(gone).await;
    house.close().await;
}

#[tokio::test]
async fn a_call_that_was_picked_up_and_never_told_of_again_is_over_once_none_lasts_that_long() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let row = leave_as(&house, &me, Stage::Answered, "+972502345671", 0).await;
    house
        .database
        .ask("UPDATE outbound SET rings_until = rings_until - 90000000")
        .await;
    let call = row.call.to_string();
    house
        .until(async || house.row(&call).await.stage == Stage::Over)
        .await;
    house.close().await;
}

#[tokio::test]
async fn a_call_that_takes_its_turn_waits_for_a_database_that_is_away() {
    let house = House::open(&[]).await;
    let away = "ALTER TABLE outbound_turns RENAME TO outbound_turns_away";
    let back = "ALTER TABLE outbound_turns_away RENAME TO outbound_turns";
    let row = leave(&house, Stage::Queued, "+972502345671").await;
    house.database.ask(away).await;
    let gateway = house.running.gateway().clone();
    let holds = async |slots| gateway.admission.occupancy().active == slots;
    house.until(async || holds(1).await).await;
    // Written after its turn was asked for, and so refused later than that.
    let other = house.place("other", &to("+972502345672")).await;
    assert!(
        matches!(other, Err(Refused::Unavailable { .. })),
        "{other:?}"
    );
    assert!(holds(1).await, "it keeps its slot");
    house.database.ask(back).await;
    assert_eq!(house.over(&row.call.to_string()).await.0, "ended");
    assert_eq!(house.twilio.calls().len(), 1);
    house.close().await;
}

#[tokio::test]
async fn a_call_that_has_come_along_meanwhile_does_not_fail() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let queued = leave_as(&house, &me, Stage::Placed, "+972502345671", 0).await;
    let gateway = house.running.gateway();
    let row = rows::Row {
        stage: Stage::Queued,
        ..queued
    };
    let fails = async |at| {
        let reason = crate::call::EndReason::NotPlaced;
        progress::fail(gateway, &row, at, reason).await
    };
    assert!(!fails(&[Stage::Queued]).await);
    assert_eq!(house.row(&row.call.to_string()).await.stage, Stage::Placed);
    assert!(fails(&[Stage::Placed]).await);
    assert!(!fails(&[Stage::Placed]).await, "and it fails once");
    let ended = house.over(&row.call.to_string()).await;
    assert_eq!(ended, ("failed".to_owned(), "not_placed".to_owned()));
    house.close().await;
}
