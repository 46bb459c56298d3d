//! What a ringing call is answered with.

use std::{collections::HashSet, fs};

use futures_util::future::join_all;

use crate::{
    agent::ScriptedAgent,
    carrier::{CALLED, call_sid, ringing},
    gateway::TestGateway,
    twiml::Element,
};

#[tokio::test]
async fn a_call_is_connected_to_a_stream_with_its_ticket() {
    let gateway = TestGateway::start().await;
    let ringing = gateway.ring().await;
    assert_eq!(
        ringing.answer.child("Connect").name,
        ringing.answer.verbs()[0]
    );
    let connect = ringing.answer.child("Connect");
    let action = "https://voice.example.com/webhook/stream_ended";
    assert_eq!(connect.attribute("action"), action);
    assert_eq!(connect.verbs(), ["Stream"]);
    let (stream, ticket) = ringing.admitted();
    assert_eq!(stream, "wss://voice.example.com/twilio/media");
    assert!(
        ticket.len() >= 22,
        "128 random bits have 22 letters of base64"
    );
    assert!(!stream.contains(ticket) && !action.contains(ticket));
    gateway.status(&ringing.sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn the_same_webhook_at_the_same_moment_gives_one_slot_one_agent_and_one_answer() {
    let mut agent = ScriptedAgent::start().await;
    let settings = [("WORKERS", "2"), ("AGENT_GREETING", "none")];
    let gateway = TestGateway::with_agent(&agent.url, &settings).await;
    let sid = call_sid();
    let fields = ringing(&sid);
    let webhooks = (0..20).map(|_| gateway.carrier.webhook("/webhook/incoming_call", &fields));
    let bodies: HashSet<String> = join_all(webhooks)
        .await
        .into_iter()
        .map(|reply| reply.body)
        .collect();
    assert_eq!(bodies.len(), 1);
    assert_eq!(gateway.active_calls().await, 1);
    assert_eq!(gateway.figure("calls_started_total").await, 1);
    let mut session = agent.session().await;

    // A webhook that is repeated once the call has its media changes nothing either.
    let call = gateway.ring_as(&sid).await.connected().await;
    let again = gateway
        .carrier
        .webhook("/webhook/incoming_call", &fields)
        .await;
    assert_eq!(Some(&again.body), bodies.iter().next());
    assert_eq!(gateway.active_calls().await, 1);
    assert_eq!(session.hear_audio(160).await.len(), 160);
    call.hang_up().await;
    session.closed().await;
    assert!(agent.is_alone(), "the call had one agent");
    gateway.finish().await;
}

#[tokio::test]
async fn hostile_names_come_out_as_the_text_they_are() {
    let texts = tempfile::tempdir().unwrap();
    let directory = texts.path().join("twiml/he-IL");
    fs::create_dir_all(&directory).unwrap();
    let busy = r#"<?xml version="1.0" encoding="UTF-8"?>
<Response><Say voice="{{ caller }}">{{ caller_name }}|{{ called }}</Say><Hangup/></Response>"#;
    fs::write(directory.join("busy.xml"), busy).unwrap();
    let directory = texts.path().to_str().unwrap();
    let settings = [("MAX_ACTIVE_CALLS", "1"), ("TEMPLATES_DIR", directory)];
    let gateway = TestGateway::with(&settings).await;
    let first = gateway.ring().await;
    for hostile in [
        r#"</Say><Dial>+19005550100</Dial><Say voice=""#,
        r#"" onload='x' <!-- "#,
        "]]> <![CDATA[ &lt; &amp; &unknown; &#0;",
        "{{ called }}{% for x in y %}",
        "\u{0}\u{1}\u{8}\u{b}\u{1f}\u{7f}\u{85}",
        "\u{202e}evil\u{202c}\u{200f}\u{2066}",
        "line\r\nbreak\ttab",
        "\u{fffe}\u{ffff}\u{feff}",
        "שלום 👋🏽",
    ] {
        let sid = call_sid();
        let mut fields = ringing(&sid);
        fields.retain(|(name, _)| !["From", "CallerName"].contains(name));
        fields.extend([("From", hostile), ("CallerName", hostile)]);
        let reply = gateway.carrier.webhook("/webhook/incoming_call", &fields);
        let answer = reply.await.twiml();
        assert_eq!(answer.verbs(), ["Say", "Hangup"], "{hostile:?}");
        let say = answer.child("Say");
        assert_eq!(say.attributes.len(), 1, "{hostile:?}");
        assert!(say.children.is_empty(), "{hostile:?}");
        assert!(say.text.ends_with(&format!("|{CALLED}")), "{hostile:?}");
        if hostile.contains('<') && !hostile.contains('\u{0}') {
            assert!(say.text.starts_with(hostile), "{hostile:?} became {say:?}");
        }
    }
    gateway.status(&first.sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn hostile_numbers_are_answered_like_any_other() {
    let gateway = TestGateway::start().await;
    for hostile in [
        "",
        "anonymous",
        "client:<b>&\"",
        "\u{202e}+1",
        "sip:a@b;x='1'",
    ] {
        let sid = call_sid();
        let mut fields = ringing(&sid);
        fields.retain(|(name, _)| !["From", "To"].contains(name));
        fields.extend([("From", hostile), ("To", hostile)]);
        let reply = gateway.carrier.webhook("/webhook/incoming_call", &fields);
        let answer = reply.await.twiml();
        assert_eq!(answer.verbs()[0], "Connect", "{hostile:?}");
        gateway.status(&sid, "completed").await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_number_that_is_not_ours_is_not_in_service() {
    let numbers = [("TWILIO_NUMBERS", "+972720000000,+972720000001")];
    let gateway = TestGateway::with(&numbers).await;
    let ringing = gateway.ring().await;
    let words = "המספר שחייגתם אינו מחובר";
    assert!(ringing.answer.last_words().starts_with(words));
    assert_eq!(gateway.active_calls().await, 0);
    assert_eq!(gateway.parrot.as_ref().unwrap().sessions(), 0);
    gateway.finish().await;
    let gateway = TestGateway::with(&[("TWILIO_NUMBERS", CALLED)]).await;
    gateway.ring().await.connected().await.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn another_language_says_the_same() {
    let settings = [("DEFAULT_LANGUAGE", "en-US"), ("MAX_ACTIVE_CALLS", "1")];
    let gateway = TestGateway::with(&settings).await;
    let first = gateway.ring().await;
    let busy: Element = gateway.ring().await.answer;
    assert_eq!(busy.child("Say").attribute("language"), "en-US");
    assert_eq!(
        busy.last_words(),
        "The system is currently busy. Please try again in a few minutes or send us a WhatsApp \
         message."
    );
    let apology = gateway.stream_ended("CA1").await;
    assert!(apology.last_words().starts_with("We are sorry"));
    gateway.status(&first.sid, "completed").await;
    gateway.finish().await;
}
