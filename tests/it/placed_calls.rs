//! Calls that a program places and hangs up, through `/v1` and a fake Twilio.

use std::process::Stdio;

use callgate::{
    Script, What,
    fake_twilio::{Callee, Customer, FakeTwilio, FakeTwilioOptions, Placed, Talk},
};
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    audio::voices,
    carrier::{ACCOUNT, PUBLIC_URL, TOKEN},
    database::Database,
    gateway::{Replicas, TestGateway, eventually, free_address},
    line::GUARD,
    process::command,
    redis::Redis,
    traces,
};

const ALL: &str = "calls:read,calls:write";

/// A gateway, and the Twilio that it asks for calls. Who picks up there talks until hung up on.
struct House {
    gateway: TestGateway,
    twilio: FakeTwilio,
}

/// What a request was answered.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

/// Starts a Twilio that tells the gateway at `address` of its calls.
async fn twilio_of(address: &str, callee: Callee) -> FakeTwilio {
    let customer = Customer {
        gateway: format!("http://{address}").parse().unwrap(),
        public: Some(PUBLIC_URL.parse().unwrap()),
        auth_token: Some(TOKEN.into()),
        account_sid: ACCOUNT.to_owned(),
    };
    let talk = Talk {
        script: Script::Talk,
        talk_for: GUARD,
        voices: voices(),
    };
    let options = FakeTwilioOptions {
        callee,
        ..FakeTwilioOptions::default()
    };
    let twilio = FakeTwilio::start(options, customer, talk, None);
    twilio.await.unwrap()
}

/// Returns what lets a gateway place calls through the Twilio at `url`.
fn placing(url: &str) -> [(&str, &str); 5] {
    [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_API_BASE", url),
        ("OUTBOUND_COUNTRIES", "IL"),
        ("OUTBOUND_FROM", "+972722234567"),
        ("OUTBOUND_CALLS_PER_SECOND", "1000"),
    ]
}

/// Makes a key by the command.
pub async fn key_in(database: &Database, tenant: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let made = command(&[("DATABASE_URL", database.url())], &folder)
        .args(["keys", "create", "--name", "test", "--json"])
        .args(["--tenant", tenant, "--scopes", ALL])
        .stdout(Stdio::piped())
        .output();
    let made: Value = serde_json::from_slice(&made.await.unwrap().stdout).unwrap();
    made["key"].as_str().unwrap().to_owned()
}

/// Asks a gateway for a call, by a name for the request.
async fn place_by(gateway: &TestGateway, key: &str, name: &str, body: &Value) -> Answer {
    let request = gateway.carrier.post("/v1/calls").json(body);
    Answer::to(request.bearer_auth(key).header("Idempotency-Key", name)).await
}

impl House {
    async fn start(callee: Callee, more: &[(&str, &str)]) -> Self {
        let address = free_address();
        let twilio = twilio_of(&address, callee).await;
        let url = twilio.url();
        let mut settings = more.to_vec();
        settings.push(("LISTEN", &address));
        settings.extend(placing(&url));
        let gateway = TestGateway::with(&settings).await;
        Self { gateway, twilio }
    }

    async fn key(&self, tenant: &str) -> String {
        key_in(&self.gateway.database, tenant).await
    }

    /// Asks for a call, by a name for the request.
    async fn place(&self, key: &str, name: &str, body: &Value) -> Answer {
        place_by(&self.gateway, key, name, body).await
    }

    async fn show(&self, key: &str, call: &str) -> Answer {
        let path = format!("/v1/calls/{call}");
        Answer::to(self.gateway.carrier.get(&path).bearer_auth(key)).await
    }

    async fn hang_up(&self, key: &str, call: &str) -> Answer {
        let path = format!("/v1/calls/{call}");
        Answer::to(self.gateway.carrier.delete(&path).bearer_auth(key)).await
    }

    /// Waits until a call's record says that it is in this state.
    async fn until(&self, key: &str, call: &str, state: &str) {
        eventually(async || self.show(key, call).await.body["state"] == state).await;
    }

    /// Asserts that nothing is held, and ends.
    async fn finish(self) {
        let over = self.twilio.until(|calls| calls.iter().all(Placed::is_over));
        timeout(GUARD, over).await.expect("every call is over");
        self.gateway.finish().await;
        self.twilio.stop().await;
    }
}

impl Answer {
    async fn to(request: RequestBuilder) -> Self {
        let response = request.header("X-Request-Id", "r-1").send().await.unwrap();
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.json().await.unwrap(),
        }
    }

    fn call(&self) -> String {
        assert_eq!(self.status, 201, "{}", self.body);
        self.body["call_id"].as_str().unwrap().to_owned()
    }

    /// Asserts that a request was refused for this cap, and that it says when to ask again.
    fn refused_for(&self, code: &str, cap: &str, value: u32, used: impl Into<Option<u32>>) {
        let error = &self.body["error"];
        assert_eq!(
            (self.status, &error["code"]),
            (429, &code.into()),
            "{error}"
        );
        let told = (&error["cap"], &error["value"]);
        assert_eq!(told, (&cap.into(), &value.into()), "{error}");
        assert_eq!(error["used"], json!(used.into()), "{error}");
        let wait = self.headers["retry-after"].to_str().unwrap();
        assert!(wait.parse::<u32>().unwrap() >= 1, "{wait}");
    }

    /// Asserts that a request was refused for a field.
    fn refused_because_of(&self, field: &str) {
        let error = &self.body["error"];
        assert_eq!(
            (self.status, &error["field"]),
            (400, &field.into()),
            "{error}"
        );
        assert_eq!(error["code"], "invalid_request");
    }
}

#[tokio::test]
async fn a_program_places_a_call_and_hangs_it_up() {
    let house = House::start(Callee::Answers, &[]).await;
    let (ours, theirs) = (house.key("default").await, house.key("other").await);
    let body = json!({"to": "+972502345678", "metadata": {"order": 7}, "from": null});
    let placed = house.place(&ours, "order-7", &body).await;
    let call = placed.call();
    assert_eq!(
        placed.headers["location"],
        format!("/v1/calls/{call}").as_str()
    );
    assert_eq!(placed.body["to"], "+972502345678");
    house.until(&ours, &call, "connected").await;
    let again = house.place(&ours, "order-7", &body).await;
    assert_eq!((again.call(), &again.body), (call.clone(), &placed.body));
    let other = json!({"to": "+972502345679"});
    let other = house.place(&ours, "order-7", &other).await;
    let code = &other.body["error"]["code"];
    assert_eq!(
        (other.status, code),
        (409, &"idempotency_key_reused".into())
    );
    let sid = house.twilio.calls()[0].sid.clone();
    let spoke = |step: &What| (*step == What::FirstWords).then_some(());
    house.gateway.until_steps(&sid, spoke).await;

    let unknown = "00000000-0000-4000-8000-000000000000";
    for answers in [
        [
            house.show(&theirs, &call).await,
            house.show(&ours, unknown).await,
        ],
        [
            house.hang_up(&theirs, &call).await,
            house.hang_up(&ours, unknown).await,
        ],
    ] {
        assert_eq!((answers[0].status, answers[1].status), (404, 404));
        assert_eq!(answers[0].body, answers[1].body);
    }
    assert_eq!(house.show(&ours, &call).await.body["state"], "connected");

    let both = tokio::join!(house.hang_up(&ours, &call), house.hang_up(&ours, &call));
    for hung_up in <[Answer; 2]>::from(both) {
        let told = &hung_up.body["call_id"];
        assert_eq!((hung_up.status, told), (202, &call.as_str().into()));
        house.until(&ours, &call, "ended").await;
    }
    let record = house.show(&ours, &call).await.body;
    assert_eq!(
        (
            &record["reason"],
            &record["direction"],
            &record["metadata"]["order"]
        ),
        (&"requested".into(), &"outbound".into(), &7.into())
    );
    assert_eq!(house.twilio.calls().len(), 1);
    let audit = "SELECT action, actor, tenant, target, request_id FROM audit \
                 WHERE action LIKE 'calls.%' ORDER BY at, entry";
    let who = format!("key:{} default {call} r-1", &ours[3..11]);
    let expected = [
        format!("calls.create {who}"),
        format!("calls.hang_up {who}"),
    ];
    assert_eq!(house.gateway.database.ask(audit).await, expected);
    let events = "SELECT kind, COUNT(*) FROM events WHERE kind IN ('call.started', 'call.ended') \
                  GROUP BY kind ORDER BY kind";
    eventually(async || {
        house.gateway.database.ask(events).await == ["call.ended 1", "call.started 1"]
    })
    .await;
    house.finish().await;
}

#[tokio::test]
async fn caps_are_told_with_their_names_and_when_to_ask_again() {
    let settings = [("MAX_OUTBOUND_CALLS", "1"), ("MAX_DAILY_CALLS", "2")];
    let house = House::start(Callee::Rings, &settings).await;
    let key = house.key("default").await;
    let to = |number: &str| json!({"to": number, "ring_timeout": 60});
    let first = house.place(&key, "1", &to("+972502345671")).await.call();
    let at_once = house.place(&key, "2", &to("+972502345671")).await;
    let code = "rate_limit_exceeded";
    at_once.refused_for(code, "calls_to_one_number_at_a_time", 1, None);
    let full = house.place(&key, "2", &to("+972502345672")).await;
    full.refused_for(code, "outbound", 1, 1);
    house.until(&key, &first, "ringing").await;
    assert_eq!(house.hang_up(&key, &first).await.status, 202);
    house.until(&key, &first, "failed").await;
    let record = house.show(&key, &first).await.body;
    assert_eq!(record["reason"], "canceled");
    house.gateway.until_active(0).await;
    // The name of a refused request may be used again.
    let second = house.place(&key, "2", &to("+972502345672")).await.call();
    house.hang_up(&key, &second).await;
    house.until(&key, &second, "failed").await;
    let spent = house.place(&key, "3", &to("+972502345673")).await;
    spent.refused_for("usage_cap_exceeded", "calls_of_the_day", 2, 2);
    let audit = "SELECT action, COUNT(*) FROM audit WHERE action LIKE 'calls.%' GROUP BY action \
                 ORDER BY action";
    let expected = ["calls.create 2", "calls.hang_up 2"];
    assert_eq!(house.gateway.database.ask(audit).await, expected);
    house.finish().await;
}

/// Nobody looks for ever for the end of a call that is not placed.
#[tokio::test]
async fn a_call_that_has_no_turn_leaves_nothing_in_redis() {
    let redis = Redis::start().await;
    let url = redis.url();
    let settings = [
        ("REDIS_URL", url.as_str()),
        ("REDIS_TIMEOUT_MS", "1000"),
        ("OUTBOUND_CALLS_PER_SECOND", "1"),
        ("OUTBOUND_WAIT_SECONDS", "1"),
    ];
    let house = House::start(Callee::Busy, &settings).await;
    house.gateway.until_degraded(&[]).await;
    let key = house.key("default").await;
    let ask = async |at: usize| {
        let body = json!({"to": format!("+97250234567{at}"), "ring_timeout": 5});
        house.place(&key, &at.to_string(), &body).await
    };
    let answers = futures_util::future::join_all((0..6).map(ask)).await;
    let cap = |answer: &Answer| answer.body["error"]["cap"].clone();
    let caps: Vec<_> = answers.iter().map(cap).collect();
    assert!(caps.contains(&"calls_per_second".into()), "{caps:?}");
    eventually(async || redis.cli(&["ZCARD", "calls:unwritten"]).await == "0").await;
    assert_eq!(house.gateway.figure("calls_looked_after_total").await, 0);
    // One whose slot was taken though nobody heard so.
    let stray = "out-00000000-0000-4000-8000-000000000000";
    let replica = house.gateway.detail("replica").await;
    let state = json!({"tenant": "default", "campaign": "default", "agent": "default",
        "state": "ringing", "replica": replica, "scopes": ["global", "outbound"]});
    let key = format!("calls:state:{stray}");
    redis.cli(&["SET", &key, &state.to_string()]).await;
    redis.cli(&["ZADD", "calls:unwritten", "0", stray]).await;
    eventually(async || redis.cli(&["ZCARD", "calls:unwritten"]).await == "0").await;
    assert_eq!(house.gateway.figure("calls_looked_after_total").await, 1);
    house.finish().await;
}

/// A sibling that has heard of a call's end notes that alone, and not that somebody talked.
#[tokio::test]
async fn slow_a_call_that_was_picked_up_is_lost_with_its_replica_though_a_sibling_knows_its_end() {
    let redis = Redis::start().await;
    let url = redis.url();
    let settings = [("REDIS_URL", url.as_str()), ("REDIS_TIMEOUT_MS", "1000")];
    let house = House::start(Callee::Rings, &settings).await;
    house.gateway.until_degraded(&[]).await;
    let key = house.key("default").await;
    let body = json!({"to": "+972502345671", "ring_timeout": 120});
    let call = house.place(&key, "1", &body).await.call();
    house.until(&key, &call, "ringing").await;
    // As if a replica that is gone had carried it, under another name.
    let name = "CA0000000000000000000000000000abcd";
    let state = json!({"tenant": "default", "campaign": "default", "agent": "default",
        "state": "ended", "end_reason": "carrier_ended", "replica": "gone", "call_id": call,
        "scopes": ["global", "outbound"]});
    let state_key = format!("calls:state:{name}");
    let left = async || {
        redis.cli(&["SET", &state_key, &state.to_string()]).await;
        redis.cli(&["ZADD", "calls:unwritten", "0", name]).await;
        let marked = ["ZSCORE", "calls:unwritten", name];
        eventually(async || redis.cli(&marked).await.is_empty()).await;
        house.gateway.database.ask("SELECT state FROM calls").await
    };
    assert_eq!(
        left().await,
        ["ringing"],
        "whoever goes on with it closes it"
    );
    let picked_up = "UPDATE outbound SET state = 'answered'";
    house.gateway.database.ask(picked_up).await;
    assert_eq!(left().await, ["instance_lost"]);
    assert_eq!(house.hang_up(&key, &call).await.status, 202);
    house.finish().await;
}

#[tokio::test]
async fn a_call_that_was_handed_over_is_hung_up_at_its_carrier_though_its_record_is_closed() {
    let house = House::start(Callee::Rings, &[]).await;
    let key = house.key("default").await;
    let body = json!({"to": "+972502345671", "ring_timeout": 120});
    let call = house.place(&key, "1", &body).await.call();
    house.until(&key, &call, "ringing").await;
    // As if somebody had picked up, and the agent had handed the call over.
    for handed_over in [
        "UPDATE outbound SET state = 'answered'",
        "UPDATE calls SET state = 'ended', rank = 90, reason = 'transferred', ended_at = rang_at",
    ] {
        house.gateway.database.ask(handed_over).await;
    }
    assert_eq!(house.hang_up(&key, &call).await.status, 202);
    let over = house.twilio.until(|calls| calls[0].is_over());
    let calls = timeout(GUARD, over).await.expect("it is hung up");
    assert_ne!(calls[0].status, "no-answer");
    house.finish().await;
}

#[tokio::test]
async fn a_wrong_request_is_told_its_field_and_calls_nobody() {
    let house = House::start(Callee::Answers, &[]).await;
    let key = house.key("default").await;
    let good = json!({"to": "+972502345678"});
    let nameless = house.gateway.carrier.post("/v1/calls").json(&good);
    let nameless = Answer::to(nameless.bearer_auth(&key)).await;
    nameless.refused_because_of("Idempotency-Key");
    let twice = house.gateway.carrier.post("/v1/calls").json(&good);
    let twice = twice.header("Idempotency-Key", "1");
    let twice = twice.header("Idempotency-Key", "2").bearer_auth(&key);
    Answer::to(twice)
        .await
        .refused_because_of("Idempotency-Key");
    for (name, body, field) in [
        ("a b", good, "Idempotency-Key"),
        ("1", json!({}), "to"),
        ("1", json!({"to": "0502345678"}), "to"),
        ("1", json!({"to": "+12025550123"}), "to"),
        ("1", json!({"to": "+972502345678", "colour": 1}), "colour"),
        ("1", json!({"to": "+972502345678", "from": "1"}), "from"),
        (
            "1",
            json!({"to": "+972502345678", "campaign": "theirs"}),
            "campaign",
        ),
        (
            "1",
            json!({"to": "+972502345678", "agent": {"voice": 1}}),
            "agent.voice",
        ),
    ] {
        house
            .place(&key, name, &body)
            .await
            .refused_because_of(field);
    }
    let huge = json!({"to": "x".repeat(70_000)});
    assert_eq!(house.place(&key, "1", &huge).await.status, 413);
    assert!(house.twilio.calls().is_empty());
    let rows = "SELECT COUNT(*) FROM audit WHERE action LIKE 'calls.%'";
    assert_eq!(house.gateway.database.ask(rows).await, ["0"]);
    house.finish().await;
}

#[tokio::test]
async fn a_call_that_one_replica_places_and_another_carries_is_one_trace() {
    let collector = traces::collector().await;
    let address = free_address();
    let twilio = twilio_of(&address, Callee::Answers).await;
    let (database, url, twilio_url) = (Database::new(), collector.url(""), twilio.url());
    let mut settings = placing(&twilio_url).to_vec();
    settings.extend(traces::told(&url));
    settings.push(("DATABASE_URL", database.url()));
    let carries = [&settings[..], &[("LISTEN", &address)]].concat();
    let replicas = Replicas::each(&[&settings, &carries]).await;
    let key = key_in(&database, "default").await;
    let body = json!({"to": "+972502345678"});
    let call = place_by(&replicas[0], &key, "1", &body).await.call();
    replicas[1].until_active(1).await;
    let spoke = |step: &What| (*step == What::FirstWords).then_some(());
    eventually(async || !twilio.calls().is_empty()).await;
    let sid = twilio.calls()[0].sid.clone();
    replicas[1].until_steps(&sid, spoke).await;
    let path = format!("/v1/calls/{call}");
    let request = replicas[0].carrier.delete(&path).bearer_auth(&key);
    assert_eq!(Answer::to(request).await.status, 202);
    replicas.until_active(0).await;
    let over = twilio.until(|calls| calls.iter().all(Placed::is_over));
    timeout(GUARD, over).await.expect("the call is over");
    replicas.finish().await;
    twilio.stop().await;
    let spans = traces::spans(&collector);
    traces::assert_one_trace(&spans, &call);
    let story = traces::story(&spans);
    assert_eq!(story[..2], ["request", "admission"]);
    for part in ["pick up", "agent connect", "session", "release"] {
        assert!(story.contains(&part), "{part} in {story:?}");
    }
}

#[tokio::test]
async fn a_placed_call_that_nobody_picks_up_is_one_trace() {
    let collector = traces::collector().await;
    let url = collector.url("");
    let house = House::start(Callee::Rings, &traces::told(&url)).await;
    let key = house.key("default").await;
    let body = json!({"to": "+972502345678", "ring_timeout": 60});
    let call = house.place(&key, "1", &body).await.call();
    house.until(&key, &call, "ringing").await;
    assert_eq!(house.hang_up(&key, &call).await.status, 202);
    house.until(&key, &call, "failed").await;
    house.finish().await;
    let spans = traces::spans(&collector);
    traces::assert_one_trace(&spans, &call);
    assert_eq!(traces::story(&spans)[..3], ["call", "request", "admission"]);
}
