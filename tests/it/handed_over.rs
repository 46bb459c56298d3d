//! Calls that an agent hands over: where they go on, and who is told so.

use callgate::{
    EndReason, ToolOutcome, What,
    fake_acs::{Deed, FakeAcsOptions, Fault},
};
use serde_json::json;

use crate::{
    acs::AcsHouse,
    agent::{ScriptedAgent, Session},
    audio::FRAME,
    campaign_file::{File, SALES, SUPPORT},
    carrier::{ACCOUNT, ringing},
    gateway::{Call, Replicas, TestGateway, eventually},
    pcm,
    placed_calls::key_in,
    rest::{self, RestServer},
    tools::{ALL, DIRECTORY, RECEPTION, acs, all_used, campaign, result, used, uses, using},
    twiml::Element,
};

/// Has the agent hand its call over to the reception.
async fn hands_over(agent: &mut Session) {
    let reception = r#"{"destination":"reception"}"#;
    uses(agent, "call_1", "transfer_call", reception).await;
}

/// Returns what Twilio is told that asks how a call to this number goes on.
async fn goes_on(gateway: &TestGateway, call: &Call<'_>, called: &str) -> Element {
    let mut fields = ringing(&call.sid);
    fields.retain(|(name, _)| *name != "To");
    fields.push(("To", called));
    let reply = gateway.carrier.webhook("/webhook/stream_ended", &fields);
    reply.await.twiml()
}

/// Asserts that the carrier is told to ring at reception.
async fn is_handed_over(gateway: &TestGateway, sid: &str, caller_id: Option<&str>) {
    let answer = gateway.stream_ended(sid).await;
    assert_eq!(answer.verbs(), ["Dial"]);
    let dial = answer.child("Dial");
    assert_eq!(dial.text, RECEPTION);
    let action = "https://voice.example.com/webhook/transfer_ended";
    assert_eq!(dial.attribute("action"), action);
    assert_eq!(dial.attribute("timeLimit"), "14400");
    let shown = dial.attributes.iter().find(|(name, _)| name == "callerId");
    assert_eq!(shown.map(|(_, number)| number.as_str()), caller_id);
}

/// Returns what became of a call that was handed over: whether anybody has answered.
fn fates(steps: &[What]) -> Vec<bool> {
    let fate = |step: &What| {
        let What::TransferEnded { answered } = step else {
            return None;
        };
        Some(*answered)
    };
    steps.iter().filter_map(fate).collect()
}

#[tokio::test]
async fn a_call_that_is_handed_over_goes_on_elsewhere_and_gives_its_slot_back() {
    let tools = [("transfer_call", r#"{"destination":"reception"}"#)];
    let caller_id = ("AGENT_TRANSFER_CALLER_ID", "+97221111111");
    let gateway = TestGateway::with_parrot(using(&tools), &[ALL, DIRECTORY, caller_id]).await;
    let call = gateway.ring().await.connected().await;
    call.line.until_played(20 * FRAME).await;
    call.line.press("1");
    assert_eq!(gateway.ended(&call.sid).await, EndReason::Transferred);
    gateway.until_active(0).await;
    call.line.closed().await;
    is_handed_over(&gateway, &call.sid, Some("+97221111111")).await;
    // Twilio tells how it went, and the rest of the story.
    for (fate, verbs) in [
        ("busy", &["Say", "Hangup"][..]),
        ("no-answer", &["Say", "Hangup"]),
        ("failed", &["Say", "Hangup"]),
        ("completed", &["Hangup"]),
    ] {
        let mut fields = ringing(&call.sid);
        fields.push(("DialCallStatus", fate));
        let reply = gateway.carrier.webhook("/webhook/transfer_ended", &fields);
        assert_eq!(reply.await.twiml().verbs(), verbs, "{fate}");
    }
    gateway.status(&call.sid, "completed").await;
    let all = [false, false, false, true];
    eventually(async || fates(&gateway.steps(&call.sid)) == all).await;
    let steps = gateway.steps(&call.sid);
    let ends = steps.iter().filter(|step| matches!(step, What::Ended(_)));
    assert_eq!(ends.count(), 1);
    drop(call);
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_that_was_handed_over_is_hung_up_at_twilio_though_its_record_is_closed() {
    let rest = RestServer::start(&[]).await;
    let tools = [("transfer_call", r#"{"destination":"reception"}"#)];
    let at_twilio = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_API_BASE", &rest.url),
    ];
    let settings = [&[ALL, DIRECTORY], &at_twilio[..]].concat();
    let gateway = TestGateway::with_parrot(using(&tools), &settings).await;
    let (ours, theirs) = (
        key_in(&gateway.database, "default").await,
        key_in(&gateway.database, "other").await,
    );
    let talks = gateway.ring().await.connected().await;
    talks.line.until_played(20 * FRAME).await;
    talks.line.press("1");
    assert_eq!(gateway.ended(&talks.sid).await, EndReason::Transferred);
    talks.line.closed().await;
    is_handed_over(&gateway, &talks.sid, None).await;
    let over = "SELECT call FROM calls WHERE reason = 'transferred'";
    eventually(async || !gateway.database.ask(over).await.is_empty()).await;
    let call = gateway.database.ask(over).await.remove(0);
    let page = gateway.carrier.get(&format!("/calls/{call}"));
    let page = page.send().await.unwrap().text().await.unwrap();
    let button = format!("/actions/hang-up?to={call}");
    assert!(page.contains(&button), "operators may end it: {page}");
    let hang_up = async |key: &str, call: &str| {
        let path = format!("/v1/calls/{call}");
        let request = gateway.carrier.delete(&path).bearer_auth(key);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(hang_up(&theirs, &call).await, 404);
    // Twilio does not do it at once, and is asked again by us alone.
    rest.then(&rest::Act::Answer(503, "", "{}"), 2);
    assert_eq!(hang_up(&ours, &call).await, 202);
    rest.requests(3).await;
    assert_eq!(hang_up(&ours, &call).await, 202);
    let next = gateway.ring().await.connected().await;
    let live = "SELECT call FROM calls WHERE state = 'connected'";
    eventually(async || !gateway.database.ask(live).await.is_empty()).await;
    let live = gateway.database.ask(live).await.remove(0);
    assert_eq!(hang_up(&ours, &live).await, 202);
    let requests = rest.requests(4).await;
    let sids = [&talks.sid, &talks.sid, &talks.sid, &next.sid];
    for (request, sid) in requests.iter().zip(sids) {
        let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Calls/{sid}.json");
        assert_eq!(request.line, format!("POST {path} HTTP/1.1"));
        let completed = ("Status".to_owned(), "completed".to_owned());
        assert_eq!(request.fields, [completed]);
    }
    let audited = "SELECT COUNT(*) FROM audit WHERE action = 'calls.hang_up'";
    assert_eq!(gateway.database.ask(audited).await, ["2"]);
    gateway.until_active(0).await;
    drop((talks, next));
    gateway.finish().await;
}

#[tokio::test]
async fn an_agent_that_obeys_everything_transfers_nobody_who_has_not_pressed_the_key() {
    let mut agent = ScriptedAgent::start().await;
    let key = ("AGENT_TRANSFER_KEY", "2");
    let settings = [ALL, DIRECTORY, key, ("AGENT_GREETING", "none")];
    let gateway = TestGateway::with_agent(&agent.url, &settings).await;
    let call = gateway.ring().await.connected().await;
    let mut agent = agent.session().await;
    let reception = r#"{"destination":"reception"}"#;
    uses(&mut agent, "call_2", "transfer_call", reception).await;
    let told = result(&mut agent, "call_2").await;
    assert!(told.contains("has to press 2"), "{told}");
    // Nor does the agent press it.
    uses(&mut agent, "call_3", "send_dtmf", r#"{"digits":"12"}"#).await;
    let told = result(&mut agent, "call_3").await;
    assert!(told.contains("the caller's alone"), "{told}");
    call.line.press("2");
    for expected in ["conversation.item.create", "response.create"] {
        let told = agent.hear_words().await.expect("the call goes on");
        assert_eq!(told["type"], expected, "{told}");
    }
    hands_over(&mut agent).await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::Transferred);
    let outcomes = all_used(&gateway, &call.sid);
    let outcomes: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    let expected = [
        ToolOutcome::Unconfirmed,
        ToolOutcome::Impossible,
        ToolOutcome::Done,
    ];
    assert_eq!(outcomes, expected);
    is_handed_over(&gateway, &call.sid, None).await;
    drop(call);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_knows_where_a_call_that_was_handed_over_goes_on() {
    let mut agent = ScriptedAgent::start().await;
    let url = agent.url.clone();
    let settings = [ALL, DIRECTORY, ("OPENAI_REALTIME_URL", url.as_str())];
    let replicas = Replicas::start(2, &settings).await;
    let call = replicas[0].ring().await.connected().await;
    let mut session = agent.session().await;
    hands_over(&mut session).await;
    assert_eq!(replicas[0].ended(&call.sid).await, EndReason::Transferred);
    call.line.closed().await;
    let noted = json!({"campaign": "default", "destination": "reception"});
    assert_eq!(replicas.state(&call.sid).await["transfer"], noted);
    is_handed_over(&replicas[1], &call.sid, None).await;
    drop(call);
    session.closed().await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_while_a_call_is_handed_over_is_told_later() {
    let mut agent = ScriptedAgent::start().await;
    let url = agent.url.clone();
    let settings = [
        ALL,
        DIRECTORY,
        ("OPENAI_REALTIME_URL", url.as_str()),
        ("REDIS_TIMEOUT_MS", "60"),
    ];
    let replicas = Replicas::start(1, &settings).await;
    let call = replicas[0].ring().await.connected().await;
    let mut session = agent.session().await;
    let _ = replicas.redis.cli(&["CLIENT", "PAUSE", "1000"]).await;
    hands_over(&mut session).await;
    assert_eq!(replicas[0].ended(&call.sid).await, EndReason::Transferred);
    call.line.closed().await;
    let _ = replicas.redis.cli(&["CLIENT", "UNPAUSE"]).await;
    let noted = json!({"campaign": "default", "destination": "reception"});
    eventually(async || replicas.state(&call.sid).await["transfer"] == noted).await;
    drop(call);
    session.closed().await;
    replicas.finish().await;
}

#[tokio::test]
async fn acs_hands_a_call_over_and_is_not_hung_up_on() {
    let house = acs(&[("transfer_call", r#"{"destination":"reception"}"#)], &[]).await;
    let call = house.connected().await;
    call.line.until_played(20 * pcm::FRAME).await;
    call.line.press("1");
    assert_eq!(house.ended(&call.call).await, EndReason::Transferred);
    let transferred = Deed::Transferred(RECEPTION.to_owned());
    house.until(&call.call, |deed| *deed == transferred).await;
    let told = Deed::Told("CallDisconnected", 200);
    house.until(&call.call, |deed| *deed == told).await;
    assert_eq!(house.count(&call.call, &Deed::HungUp), 0);
    let steps = || house.gateway.steps(call.call.correlation());
    eventually(async || fates(&steps()) == [true]).await;
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn a_caller_of_acs_whom_nobody_takes_hears_so() {
    let tools = [("transfer_call", r#"{"destination":"reception"}"#)];
    let house = acs(&tools, &[Fault::TransferFailed]).await;
    let call = house.connected().await;
    call.line.until_played(20 * pcm::FRAME).await;
    call.line.press("1");
    assert_eq!(house.ended(&call.call).await, EndReason::Transferred);
    let says = |deed: &Deed| matches!(deed, Deed::Plays(file) if file.ends_with("apology.wav"));
    house.until(&call.call, says).await;
    house.until(&call.call, |deed| *deed == Deed::HungUp).await;
    let steps = || house.gateway.steps(call.call.correlation());
    eventually(async || fates(&steps()) == [false]).await;
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn what_a_caller_of_acs_has_agreed_to_holds_when_another_socket_carries_the_call_on() {
    let mut agent = ScriptedAgent::start().await;
    let settings = [
        ALL,
        DIRECTORY,
        ("AGENT_TRANSFER_KEY", "2"),
        ("AGENT_GREETING", "none"),
        ("OPENAI_REALTIME_URL", agent.url.as_str()),
    ];
    let house = AcsHouse::with(FakeAcsOptions::on_a_free_port(), &settings).await;
    let call = house.connected().await;
    let mut session = agent.session().await;
    call.line.press("2");
    for expected in ["conversation.item.create", "response.create"] {
        let told = session.hear_words().await.expect("the call goes on");
        assert_eq!(told["type"], expected, "{told}");
    }
    drop(call.line);
    let socket = house.open(&call.call, &call.answered).await.unwrap();
    let line = pcm::PcmLine::over(socket, pcm::Tongue::Acs);
    hands_over(&mut session).await;
    assert_eq!(house.ended(&call.call).await, EndReason::Transferred);
    let transferred = Deed::Transferred(RECEPTION.to_owned());
    house.until(&call.call, |deed| *deed == transferred).await;
    // Whoever is gone before tells of no end, and that is waited for.
    let told = Deed::Told("CallDisconnected", 200);
    house.until(&call.call, |deed| *deed == told).await;
    drop((line, call.call));
    house.finish().await;
}

#[tokio::test]
async fn a_call_from_a_browser_is_not_handed_over_and_goes_on() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[ALL, DIRECTORY]).await;
    let line = crate::web_calls::call(&gateway).await;
    let mut session = agent.session().await;
    let greeting = session.hear_words().await.unwrap();
    assert_eq!(greeting["type"], "response.create");
    hands_over(&mut session).await;
    let told = result(&mut session, "call_1").await;
    assert!(told.contains("cannot be transferred"), "{told}");
    let impossible = ("transfer_call".to_owned(), ToolOutcome::Impossible);
    assert_eq!(gateway.until_step_of("web-", used).await, impossible);
    uses(&mut session, "call_2", "end_call", "{}").await;
    assert_eq!(
        crate::web_calls::ended(&gateway).await,
        EndReason::AgentHungUp
    );
    assert_eq!(line.closed().await, 1000);
    gateway.finish().await;
}

/// Nobody has the destination any more that the agent has been offered.
#[tokio::test]
async fn a_destination_that_is_gone_by_now_is_apologised_for() {
    let mut agent = ScriptedAgent::start().await;
    let text = |directory: &str| {
        let rest =
            format!("tools = [\"transfer_call\"]\n[campaigns.support.transfer]\n{directory}");
        campaign("support", SUPPORT, &agent.url, &rest)
    };
    let (with, without) = (
        text("reception = \"+97223333333\""),
        text("sales = \"+97224444444\""),
    );
    let file = File::new(&with);
    let gateway = file.gateway(&[]).await;
    let call: Call<'_> = gateway.ring_number(SUPPORT).await.connected().await;
    let mut session = agent.session().await;
    hands_over(&mut session).await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::Transferred);
    file.write(&without);
    gateway.reload().await;
    let answer = goes_on(&gateway, &call, SUPPORT).await;
    assert_eq!(answer.verbs(), ["Say", "Hangup"]);
    drop(call);
    gateway.finish().await;
}

/// Each tenant has a reception: a call goes on at that of the campaign whose agent had it.
#[tokio::test]
async fn a_call_is_never_handed_over_to_the_reception_of_another_campaign() {
    let mut agent = ScriptedAgent::start().await;
    let with = |name: &str, number: &str, reception: &str| {
        let directory = format!(
            "tools = [\"transfer_call\"]\n[campaigns.{name}.transfer]\nreception = \"{reception}\""
        );
        campaign(name, number, &agent.url, &directory)
    };
    let other = "+97224444444";
    let before = [
        with("support", SUPPORT, RECEPTION),
        with("sales", SALES, other),
    ]
    .concat();
    // Support has another number by now, and its former one is of sales; or it is gone.
    let moved = [
        with("support", "+97225555555", RECEPTION),
        with("sales", SUPPORT, other),
    ]
    .concat();
    let gone = with("sales", SUPPORT, other);
    let file = File::new(&before);
    let gateway = file.gateway(&[]).await;
    let call: Call<'_> = gateway.ring_number(SUPPORT).await.connected().await;
    let mut session = agent.session().await;
    hands_over(&mut session).await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::Transferred);
    for (text, number, verbs) in [
        (&before, SUPPORT, &["Dial"][..]),
        (&before, "+97229999999", &["Dial"]), // Nobody answers it.
        (&moved, SUPPORT, &["Dial"]),
        (&gone, SUPPORT, &["Say", "Hangup"]),
    ] {
        file.write(text);
        gateway.reload().await;
        let answer = goes_on(&gateway, &call, number).await;
        assert_eq!(answer.verbs(), verbs, "{text}");
        if verbs == ["Dial"] {
            assert_eq!(answer.child("Dial").text, RECEPTION, "{text}");
        }
    }
    drop(call);
    gateway.finish().await;
}
