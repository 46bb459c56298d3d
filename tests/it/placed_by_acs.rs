//! Calls that a program has ACS place and hang up, through `/v1` and a fake ACS.

use std::process::Stdio;

use callgate::{
    Script, What,
    fake_acs::{AskedFor, Deed, FakeAcsOptions, Phones},
    fake_twilio::{Act, CallFaults, Callee, Talk},
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::{
    acs::{AcsHouse, way_to},
    audio::voices,
    gateway::{Settings, eventually},
    line::GUARD,
    process::command,
};

/// A gateway and the ACS that it asks for calls, and a program that has it ask.
struct Office {
    house: AcsHouse,
    key: String,
}

impl Office {
    /// Who picks up talks until hung up on.
    async fn open(callee: Callee, more: Settings<'_>) -> Self {
        let mut settings = more.to_vec();
        settings.extend([
            ("OUTBOUND_COUNTRIES", "IL"),
            ("OUTBOUND_FROM", "+972722234567"),
            ("OUTBOUND_CALLS_PER_SECOND", "1000"),
        ]);
        let house = AcsHouse::with(FakeAcsOptions::on_a_free_port(), &settings).await;
        house.acs.connect(Phones {
            gateway: way_to(&house.gateway.carrier),
            callee,
            faults: CallFaults::default(),
            talk: Talk {
                script: Script::Talk,
                talk_for: GUARD,
                voices: voices(),
            },
            ended: None,
        });
        let folder = tempfile::tempdir().unwrap();
        let database = [("DATABASE_URL", house.gateway.database.url())];
        let made = command(&database, &folder)
            .args(["keys", "create", "--name", "test", "--json"])
            .args(["--tenant", "default", "--scopes", "calls:read,calls:write"])
            .stdout(Stdio::piped())
            .output();
        let made: Value = serde_json::from_slice(&made.await.unwrap().stdout).unwrap();
        let key = made["key"].as_str().unwrap().to_owned();
        Self { house, key }
    }

    /// Asks for a call to a number that is the request's name as well; returns what is answered.
    async fn ask(&self, number: &str, more: &Value) -> (u16, Value) {
        let mut body = json!({"to": number, "ring_timeout": 5});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let request = self.house.gateway.carrier.post("/v1/calls").json(&body);
        let request = request.header("Idempotency-Key", number);
        answer(request.bearer_auth(&self.key)).await
    }

    async fn place(&self, number: &str) -> String {
        let (status, body) = self.ask(number, &json!({})).await;
        assert_eq!(status, 201, "{body}");
        body["call_id"].as_str().unwrap().to_owned()
    }

    async fn show(&self, call: &str) -> Value {
        let request = self.house.gateway.carrier.get(&format!("/v1/calls/{call}"));
        answer(request.bearer_auth(&self.key)).await.1
    }

    async fn hang_up(&self, call: &str) {
        let path = format!("/v1/calls/{call}");
        let request = self.house.gateway.carrier.delete(&path);
        let (status, body) = answer(request.bearer_auth(&self.key)).await;
        assert_eq!(status, 202, "{body}");
    }

    async fn until(&self, call: &str, state: &str) {
        eventually(async || {
            let shown = self.show(call).await;
            let is_so = shown["state"] == state;
            assert!(is_so || shown["ended_at"].is_null(), "not {state}: {shown}");
            is_so
        })
        .await;
    }

    /// Waits until a call is over for this reason, and has given its slot back.
    async fn until_over(&self, call: &str, state: &str, reason: &str) {
        self.until(call, state).await;
        assert_eq!(self.show(call).await["reason"], reason);
        self.house.gateway.until_active(0).await;
    }

    /// Waits until ACS has a connection for a call, and the record says so.
    async fn until_placed(&self, call: &str) {
        eventually(async || {
            let placed = self.house.acs.placed();
            let name = &self.show(call).await["carrier_call_id"];
            placed.iter().any(|it| *name == *it.connection)
        })
        .await;
    }

    /// Asserts that nothing is held anywhere, and ends.
    async fn finish(self) {
        let acs = &self.house.acs;
        eventually(async || acs.placed().iter().all(|call| call.is_over)).await;
        let open = "SELECT call FROM outbound WHERE state <> 'over'";
        let database = &self.house.gateway.database;
        eventually(async || database.ask(open).await.is_empty()).await;
        assert!(!acs.saw("").contains(&Deed::Unsigned));
        self.house.finish().await;
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn whoever_acs_calls_talks_with_the_agent_until_a_program_hangs_up() {
    // Twilio could place it as well, and is not asked to.
    let account = "AC00000000000000000000000000000001";
    let settings = [("OUTBOUND_CARRIER", "acs"), ("TWILIO_ACCOUNT_SID", account)];
    let office = Office::open(Callee::Answers, &settings).await;
    let call = office.place("+972502345678").await;
    office.until(&call, "connected").await;
    let placed = office.house.acs.placed().remove(0);
    assert_eq!(
        (&*placed.to, &*placed.from),
        ("+972502345678", "+972722234567")
    );
    let spoke = |step: &What| (*step == What::FirstWords).then_some(());
    let gateway = &office.house.gateway;
    gateway.until_steps(&placed.connection, spoke).await;
    let record = office.show(&call).await;
    assert_eq!(
        (&record["carrier"], &record["direction"]),
        (&"acs".into(), &"outbound".into())
    );
    office.hang_up(&call).await;
    office.until_over(&call, "ended", "requested").await;
    assert_eq!(office.house.acs.placed().len(), 1);
    let events = "SELECT kind, COUNT(*) FROM events WHERE kind IN ('call.started', 'call.ended') \
                  GROUP BY kind ORDER BY kind";
    let told = ["call.ended 1", "call.started 1"];
    eventually(async || office.house.gateway.database.ask(events).await == told).await;
    office.finish().await;
}

#[tokio::test]
async fn who_does_not_pick_up_costs_no_slot() {
    let office = Office::open(Callee::Rings, &[]).await;
    let mut calls = Vec::new();
    for (callee, number, reason) in [
        (Callee::Rings, "+972502345674", "no_answer"), // Until we hang up.
        (Callee::Busy, "+972502345671", "busy"),
        (Callee::NoAnswer, "+972502345672", "no_answer"),
        (Callee::Failed, "+972502345673", "not_placed"),
    ] {
        office.house.acs.callees(callee);
        let call = office.place(number).await;
        office.until_placed(&call).await;
        calls.push((call, reason));
    }
    for (call, reason) in calls {
        office.until(&call, "failed").await;
        assert_eq!(office.show(&call).await["reason"], reason);
    }
    office.house.gateway.until_active(0).await;
    office.finish().await;
}

#[tokio::test]
async fn what_acs_may_have_done_is_asked_for_again_by_the_same_id_and_rings_once() {
    let office = Office::open(Callee::Busy, &[]).await;
    for (acts, number) in [
        (&[Act::TakeThenCut][..], "+972502345671"),
        (&[Act::TakeThenFail(503)], "+972502345672"),
        (&[Act::Fail(500)], "+972502345673"),
        (&[Act::Cut], "+972502345674"),
        (&[Act::Throttle(None), Act::Throttle(None)], "+972502345675"),
    ] {
        office.house.acs.then(acts);
        let call = office.place(number).await;
        office.until_over(&call, "failed", "busy").await;
        let placed = office.house.acs.placed();
        let of_number = placed.iter().filter(|it| it.to == number);
        assert_eq!(of_number.count(), 1, "{acts:?}");
    }
    office.house.acs.then(&[Act::Refuse(8_523)]);
    let call = office.place("+972502345676").await;
    office.until_over(&call, "failed", "not_placed").await;
    assert_eq!(office.house.acs.placed().len(), 5);
    office.finish().await;
}

#[tokio::test]
async fn a_call_is_found_again_that_was_cut_off_and_is_talked_on() {
    let office = Office::open(Callee::Answers, &[]).await;
    office.house.acs.then(&[Act::TakeThenCut]);
    let call = office.place("+972502345671").await;
    office.until(&call, "connected").await;
    office.hang_up(&call).await;
    office.until_over(&call, "ended", "requested").await;
    assert_eq!(office.house.acs.placed().len(), 1);
    office.finish().await;
}

#[tokio::test]
async fn a_call_lasts_no_longer_than_what_is_left_of_the_day() {
    let office = Office::open(Callee::Answers, &[("MAX_DAILY_MINUTES", "1")]).await;
    let first = office.place("+972502345678").await;
    office.until(&first, "connected").await;
    let long_ago = "UPDATE calls SET connected_at = connected_at - 50000";
    office.house.gateway.database.ask(long_ago).await;
    let second = office.place("+972502345679").await;
    office.until(&second, "ended").await;
    assert_eq!(office.show(&second).await["reason"], "too_long");
    // It was asked for when there was a whole minute.
    assert_eq!(office.show(&first).await["state"], "connected");
    office.hang_up(&first).await;
    office.until_over(&first, "ended", "requested").await;
    office.finish().await;
}

#[tokio::test]
async fn a_program_hangs_up_a_call_that_rings() {
    let office = Office::open(Callee::Rings, &[]).await;
    let more = json!({"ring_timeout": 120});
    // Of the second nobody tells: its name is learnt by asking again.
    for (acts, number) in [
        (&[Act::Take][..], "+972502345671"),
        (&[Act::TakeThenCut], "+972502345672"),
    ] {
        office.house.acs.then(acts);
        let (status, body) = office.ask(number, &more).await;
        assert_eq!(status, 201, "{body}");
        let call = body["call_id"].as_str().unwrap();
        office.until_placed(call).await;
        office.hang_up(call).await;
        office.until_over(call, "failed", "canceled").await;
        let hung_up = |placed: &AskedFor| placed.is_over;
        eventually(async || office.house.acs.placed().iter().all(hung_up)).await;
    }
    assert_eq!(office.house.acs.placed().len(), 2);
    assert!(office.house.acs.saw("").contains(&Deed::Repeated));
    office.finish().await;
}

#[tokio::test]
async fn what_a_dead_replica_was_asking_for_is_asked_for_by_the_same_id() {
    let office = Office::open(Callee::Rings, &[]).await;
    let more = json!({"ring_timeout": 60});
    let (status, body) = office.ask("+972502345671", &more).await;
    assert_eq!(status, 201, "{body}");
    let call = body["call_id"].as_str().unwrap();
    office.until_placed(call).await;
    let database = &office.house.gateway.database;
    let dies = "UPDATE outbound SET holder = 'a-dead-one', held_until = 0, state = 'dialing', \
                carrier_call = NULL";
    database.ask(dies).await;
    let named = "SELECT carrier_call FROM outbound WHERE state = 'placed'";
    let connection = office.house.acs.placed().remove(0).connection;
    eventually(async || database.ask(named).await == [connection.as_str()]).await;
    assert_eq!(office.house.acs.placed().len(), 1);
    office.hang_up(call).await;
    office.until_over(call, "failed", "canceled").await;
    office.finish().await;
}

#[tokio::test]
async fn a_request_that_acs_cannot_fulfil_is_told_why() {
    let office = Office::open(Callee::Answers, &[]).await;
    let machine = json!({"machine_detection": "detect"});
    let (status, body) = office.ask("+972502345671", &machine).await;
    let field = &body["error"]["field"];
    assert_eq!(
        (status, field),
        (400, &"machine_detection".into()),
        "{body}"
    );
    office.finish().await;

    let office = Office::open(Callee::Answers, &[("OUTBOUND_CARRIER", "twilio")]).await;
    let (status, body) = office.ask("+972502345671", &json!({})).await;
    let error = &body["error"];
    assert_eq!((status, &error["code"]), (409, &"outbound_closed".into()));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("TWILIO_ACCOUNT_SID"), "{message}");
    assert!(office.house.acs.placed().is_empty());
    office.finish().await;
}
