//! What agents do beside talking, and what they are not let do.

use std::{fmt::Write, time::Duration};

use callgate::{
    EndReason, ToolOutcome, What,
    fake_acs::{Deed, FakeAcsOptions, Fault},
    parrot::{ParrotOptions, ToolRequest},
};
use serde_json::{Value, json};

use crate::{
    acs::AcsHouse,
    agent::{ScriptedAgent, Session},
    audio::{FRAME, share_of},
    campaign_file::{File, SALES, SUPPORT},
    gateway::{TestGateway, eventually},
    pcm,
    tool_server::{Act, ToolServer},
};

pub const RECEPTION: &str = "+97223333333";
pub const ALL: (&str, &str) = ("AGENT_TOOLS", "end_call,transfer_call,send_dtmf");
pub const DIRECTORY: (&str, &str) = ("AGENT_TRANSFERS", "reception=+97223333333");

/// A parrot that uses these tools, the first one when the caller presses 1.
pub fn using(tools: &[(&str, &str)]) -> ParrotOptions {
    let request = |(name, arguments): &(&str, &str)| ToolRequest {
        name: (*name).to_owned(),
        arguments: (*arguments).to_owned(),
    };
    ParrotOptions {
        answer_after: Duration::from_millis(100),
        tool_calls: tools.iter().map(request).collect(),

        ..ParrotOptions::default()
    }
}

/// Has an agent use a tool, in an answer of its own.
pub async fn uses(agent: &mut Session, id: &str, tool: &str, arguments: &str) {
    agent.begin_response().await;
    let item = json!({
        "id": format!("item_{id}"), "type": "function_call", "status": "completed",
        "call_id": id, "name": tool, "arguments": arguments,
    });
    let done = json!({"response_id": "resp_1", "output_index": 0, "item": item});
    let mut told = done;
    told["type"] = "response.output_item.done".into();
    agent.say(told).await;
    let response = json!({"id": "resp_1", "status": "completed"});
    agent
        .say(json!({"type": "response.done", "response": response}))
        .await;
}

/// Returns what the agent is told of a use, once it is asked to go on.
pub async fn result(agent: &mut Session, id: &str) -> String {
    let told = agent.hear_words().await.expect("the call goes on");
    assert_eq!(told["type"], "conversation.item.create", "{told}");
    assert_eq!(told["item"]["type"], "function_call_output");
    assert_eq!(told["item"]["call_id"], id);
    let asked = agent.hear_words().await.expect("the call goes on");
    assert_eq!(asked["type"], "response.create");
    told["item"]["output"].as_str().unwrap().to_owned()
}

pub fn used(step: &What) -> Option<(String, ToolOutcome)> {
    let What::ToolUsed { tool, outcome, .. } = step else {
        return None;
    };
    let tool = tool.as_ref().map_or("", |tool| tool.as_str());
    Some((tool.to_owned(), *outcome))
}

pub fn all_used(gateway: &TestGateway, sid: &str) -> Vec<(String, ToolOutcome)> {
    gateway.steps(sid).iter().filter_map(used).collect()
}

pub fn campaign(name: &str, number: &str, agent: &str, rest: &str) -> String {
    format!(
        "[agents.{name}]\nurl = \"{agent}\"\ngreeting = \"none\"\n\
         [campaigns.{name}]\nnumbers = [\"{number}\"]\nagent = \"{name}\"\n{rest}\n"
    )
}

fn http_tool(campaign: &str, name: &str, url: &str) -> String {
    format!(
        "[[campaigns.{campaign}.http_tools]]\nname = \"{name}\"\ndescription = \"Does {name}.\"\n\
         url = \"{url}\"\ntimeout_seconds = 1\nparameters = {{ type = \"object\", properties = \
         {{ day = {{ type = \"string\", maxLength = 20 }} }}, required = [\"day\"], \
         additionalProperties = false }}\n"
    )
}

#[tokio::test]
async fn an_agent_that_obeys_everything_does_nothing_that_its_campaign_does_not_allow() {
    use ToolOutcome::{Invalid, TooLong, Unknown};
    let (mut agent, server) = (ScriptedAgent::start().await, ToolServer::start(&[]).await);
    let mut text = campaign(
        "support",
        SUPPORT,
        &agent.url,
        "tools = [\"transfer_call\", \"send_dtmf\"]",
    );
    let _ = writeln!(
        text,
        "[campaigns.support.transfer]\nreception = \"{RECEPTION}\""
    );
    text += &http_tool("support", "find_slot", &server.url);
    text += &campaign("sales", SALES, &agent.url, "tools = [\"end_call\"]");
    text += &http_tool("sales", "refund", &server.url);
    let file = File::new(&text);
    let gateway = file.gateway(&[("GUARD_ALLOW", "127.0.0.0/8")]).await;
    let call = gateway.ring_number(SUPPORT).await.connected().await;
    let mut session = agent.session().await;
    let offered: Vec<_> = session.settings["tools"].as_array().unwrap().clone();
    let offered: Vec<_> = offered.iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(offered, ["transfer_call", "send_dtmf", "find_slot"]);

    let long = format!(r#"{{"day":"{}"}}"#, "x".repeat(17_000));
    let commands = [
        ("place_call", r#"{"to":"+97229999999"}"#, "", Unknown),
        ("call-97229999999", "{}", "", Unknown), // A name, and somebody's number.
        ("+97229999999", "{}", "", Unknown),     // No name.
        ("end_call", "{}", "", Unknown),         // Not among the campaign's.
        ("refund", r#"{"day":"monday"}"#, "", Unknown), // Another campaign's.
        (
            "transfer_call",
            r#"{"destination":"boss"}"#,
            "transfer_call",
            Invalid,
        ),
        (
            "transfer_call",
            r#"{"destination":"+97229999999"}"#,
            "transfer_call",
            Invalid,
        ),
        (
            "transfer_call",
            r#"{"destination":"reception","to":"+1900"}"#,
            "transfer_call",
            Invalid,
        ),
        ("transfer_call", "{}", "transfer_call", Invalid),
        ("send_dtmf", r#"{"digits":"12x"}"#, "send_dtmf", Invalid),
        ("send_dtmf", r#"{"digits":12}"#, "send_dtmf", Invalid),
        ("find_slot", r#"{"day":7}"#, "find_slot", Invalid),
        (
            "find_slot",
            r#"{"day":"monday","url":"http://169.254.169.254/"}"#,
            "find_slot",
            Invalid,
        ),
        ("find_slot", "so this is not JSON", "find_slot", Invalid),
        ("find_slot", long.as_str(), "find_slot", TooLong),
    ];
    for (number, (tool, arguments, ..)) in commands.iter().enumerate() {
        let id = format!("call_{number}");
        uses(&mut session, &id, tool, arguments).await;
        let told: Value = serde_json::from_str(&result(&mut session, &id).await).unwrap();
        let advice = told["error"].as_str().unwrap();
        assert!(advice.len() > 10 && advice.len() < 1_200, "{advice}");
    }
    let expected: Vec<_> = commands
        .iter()
        .map(|(.., tool, outcome)| ((*tool).to_owned(), *outcome))
        .collect();
    eventually(async || all_used(&gateway, &call.sid) == expected).await;
    let figure = r#"tool_uses_total{tool="unknown",outcome="unknown"}"#;
    assert_eq!(gateway.figure(figure).await, 5);
    assert_eq!(server.requests().len(), 0, "nothing reached the outside");
    assert!(call.line.is_open());

    // Five in one answer are one too many.
    session.begin_response().await;
    for number in 0..5 {
        let item = json!({
            "type": "function_call", "status": "completed", "call_id": format!("many_{number}"),
            "name": "send_dtmf", "arguments": "{}",
        });
        session
            .say(json!({"type": "response.output_item.done", "item": item}))
            .await;
    }
    for number in 0..5 {
        let told = session.hear_words().await.unwrap();
        let output = told["item"]["output"].as_str().unwrap();
        assert_eq!(output.contains("too many"), number == 4, "{output}");
    }
    let too_many = Some(("send_dtmf".to_owned(), ToolOutcome::TooMany));
    eventually(async || all_used(&gateway, &call.sid).last().cloned() == too_many).await;
    call.hang_up().await;
    session.closed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_http_tool_is_asked_and_what_it_answers_is_told() {
    use ToolOutcome::{Cancelled, Done, Failed, TimedOut};
    let mut agent = ScriptedAgent::start().await;
    let acts = [
        Act::Answer(200, "application/json", r#"{"slot":"10:00"}"#.to_owned()),
        Act::Answer(500, "text/plain", "canary".to_owned()),
        Act::Answer(200, "text/plain", "x".repeat(17 << 10)),
        Act::Cut,
        Act::Hang,
        Act::Hang,
    ];
    let server = ToolServer::start(&acts).await;
    let rest = http_tool("support", "find_slot", &server.url);
    let file = File::new(&campaign("support", SUPPORT, &agent.url, &rest));
    let gateway = file.gateway(&[("GUARD_ALLOW", "127.0.0.0/8")]).await;
    let call = gateway.ring_number(SUPPORT).await.connected().await;
    let mut session = agent.session().await;
    let arguments = r#"{"day":"tuesday"}"#;
    for (number, expected) in [
        r#"{"slot":"10:00"}"#,
        "status 500",
        "longer than 16 KiB",
        "cannot be reached",
        "in time",
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("call_{number}");
        uses(&mut session, &id, "find_slot", arguments).await;
        let told = result(&mut session, &id).await;
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains("canary"), "{told}");
    }
    let asked = server.requests();
    assert_eq!(asked[0].line, "POST /tool HTTP/1.1");
    let body: Value = serde_json::from_str(&asked[0].body).unwrap();
    assert_eq!(body["tool"], "find_slot");
    assert_eq!(body["arguments"], json!({"day": "tuesday"}));
    assert_eq!(body["campaign"], "support");
    assert_eq!(body["call_id"].as_str().unwrap().len(), 36);
    // What is under way when the call ends is given up.
    uses(&mut session, "call_9", "find_slot", arguments).await;
    eventually(async || server.requests().len() == 6).await;
    call.line.send(crate::line::stop(&call.sid));
    assert_eq!(gateway.ended(&call.sid).await, EndReason::CallerHungUp);
    server.until_left().await;
    let outcomes: Vec<_> = all_used(&gateway, &call.sid)
        .into_iter()
        .map(|(_, it)| it)
        .collect();
    assert_eq!(
        outcomes,
        [Done, Failed, Failed, Failed, TimedOut, Cancelled]
    );
    assert!(matches!(
        gateway.steps(&call.sid).last(),
        Some(What::Ended(_))
    ));
    drop(call);
    gateway.finish().await;
}

#[tokio::test]
async fn an_address_that_is_not_public_is_asked_nothing_in_production() {
    let server = ToolServer::start(&[]).await;
    let text = [
        campaign("support", SUPPORT, "ws://127.0.0.1:1/", ""),
        http_tool("support", "find_slot", &server.url),
    ]
    .concat();
    let file = File::new(&text);
    let mistake = file.mistakes(&[]).await;
    assert!(mistake.contains("http_tools[1].url"), "{mistake}");
    assert!(!mistake.contains(&server.url), "{mistake}");
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn an_agent_that_ends_the_call_is_heard_to_the_end() {
    let gateway = TestGateway::with_parrot(using(&[("end_call", "{}")]), &[]).await;
    let call = gateway.ring().await.connected().await;
    call.line.until_played(20 * FRAME).await; // By then the agent has sent all of its tune.
    call.line.press("1");
    assert_eq!(gateway.ended(&call.sid).await, EndReason::AgentHungUp);
    let heard = call
        .line
        .until(|heard| heard.closed.map(|_| heard.played.len()))
        .await;
    assert!(heard >= 9_600, "the tune was cut after {heard} samples");
    assert_eq!(call.line.closed().await, 1000);
    assert_eq!(gateway.stream_ended(&call.sid).await.verbs(), ["Hangup"]);
    assert_eq!(
        all_used(&gateway, &call.sid),
        [("end_call".to_owned(), ToolOutcome::Done)]
    );
    let figure = r#"calls_ended_total{carrier="twilio",reason="agent_hung_up",blame="operator"}"#;
    assert_eq!(gateway.figure(figure).await, 1);
    drop(call);
    gateway.finish().await;
}

#[tokio::test]
async fn keys_are_heard_as_tones_on_the_telephone() {
    let tools = [("send_dtmf", r#"{"digits":"5w#"}"#)];
    let none = ("AGENT_GREETING", "none");
    let gateway = TestGateway::with_parrot(using(&tools), &[ALL, DIRECTORY, none]).await;
    let call = gateway.ring().await.connected().await;
    let ready = |step: &What| matches!(step, What::AgentReady { .. }).then_some(());
    gateway.until_steps(&call.sid, ready).await;
    call.line.press("1");
    let all = 800 + 800 + 4_000 + 800 + 800;
    call.line.until_played(all).await;
    let heard = call.line.played(0);
    for (tone, from) in [([770.0, 1_336.0], 0), ([941.0, 1_477.0], 5_600)] {
        for frequency in tone {
            let share = share_of(frequency, &heard[from..from + 800]);
            assert!(share > 0.3, "{frequency}: {share}");
        }
    }
    let sent = ("send_dtmf".to_owned(), ToolOutcome::Done);
    assert_eq!(gateway.until_steps(&call.sid, used).await, sent);
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn acs_presses_keys_itself_and_is_hung_up_when_the_agent_wants_it() {
    let tools = [("send_dtmf", r#"{"digits":"1w#"}"#), ("end_call", "{}")];
    let house = acs(&tools, &[]).await;
    let call = house.connected().await;
    call.line.until_played(20 * pcm::FRAME).await;
    call.line.press("1");
    for keys in ["one", "pound"] {
        let pressed = Deed::Pressed(keys.to_owned());
        house.until(&call.call, |deed| *deed == pressed).await;
    }
    let sent = ("send_dtmf".to_owned(), ToolOutcome::Done);
    let correlation = call.call.correlation();
    assert_eq!(house.gateway.until_steps(correlation, used).await, sent);
    call.line.until_played(80 * pcm::FRAME).await; // It goes on with its tune, all of which is there.
    call.line.press("2");
    assert_eq!(house.ended(&call.call).await, EndReason::AgentHungUp);
    house.until(&call.call, |deed| *deed == Deed::HungUp).await;
    drop(call);
    house.finish().await;
}

pub async fn acs(tools: &[(&str, &str)], faults: &[Fault]) -> AcsHouse {
    let options = FakeAcsOptions {
        faults: faults.to_vec(),
        ..FakeAcsOptions::on_a_free_port()
    };
    AcsHouse::with_parrot(using(tools), options, &[ALL, DIRECTORY]).await
}
