//! Calls that Azure Voice Live would answer, by the parrot in its dialect.

use std::{fs, time::Duration};

use callgate::{
    EndReason, What,
    parrot::{Fault, ParrotOptions},
};
use serde_json::Value;

use crate::{
    agent::ScriptedAgent,
    audio::{FRAME, loudness, share_of, syllables},
    gateway::{Settings, TestGateway},
    rest::{Act, RestServer},
};

/// How long the parrot's tune is.
const TUNE: usize = 9_600;
const QUICK: (&str, &str) = ("AGENT_VAD_SILENCE_MS", "200");

fn quick() -> ParrotOptions {
    ParrotOptions {
        answer_after: Duration::from_millis(100),
        ..ParrotOptions::default()
    }
}

#[tokio::test]
async fn a_greeting_is_heard_and_both_sides_are_written_down() {
    let gateway = TestGateway::with_voice_live(quick(), &[QUICK]).await;
    let call = gateway.ring().await.connected().await;
    call.line.until_played(TUNE).await;
    let tune = call.line.played(0);
    assert!(loudness(&tune) > 1_000.0, "{}", loudness(&tune));
    call.line.speak(syllables(1_100.0, 50));
    call.line.until_played(TUNE + 40 * FRAME).await;
    let share = share_of(1_100.0, &call.line.played(TUNE));
    assert!(share > 0.8, "{share}");
    for words in ["a short tune", "you spoke for", "s of speech"] {
        let said = |step: &What| {
            let What::Said { text, .. } = step else {
                return None;
            };
            text.contains(words).then_some(())
        };
        gateway.until_steps(&call.sid, said).await;
    }
    call.hang_up().await;
    gateway.finish().await;
}

/// Speaks over the greeting; returns how much the gateway says was heard, and what it told the
/// agent of that.
async fn speak_over(settings: Settings<'_>) -> (u64, Vec<Value>) {
    let record = tempfile::NamedTempFile::new().unwrap();
    let options = ParrotOptions {
        record: Some(record.path().to_owned()),
        ..quick()
    };
    let gateway = TestGateway::with_voice_live(options, settings).await;
    let call = gateway.ring().await.connected().await;
    call.line.until_played(30 * FRAME).await;
    call.line.speak(syllables(1_100.0, 30));
    let played = call.line.until(|heard| heard.clears.first().copied()).await;
    assert!(played < TUNE, "the tune was over before the caller spoke");
    let interrupted = |step: &What| {
        let What::Interrupted { heard_ms } = step else {
            return None;
        };
        Some(*heard_ms)
    };
    let heard_ms = gateway.until_steps(&call.sid, interrupted).await;
    // What follows the clear is the answer alone; it begins with what came before the words.
    call.line.until_played(played + 45 * FRAME).await;
    assert!(share_of(1_100.0, &call.line.played(played)) > 0.7);
    call.hang_up().await;
    gateway.finish().await;
    let told = fs::read_to_string(record.path()).unwrap();
    let told = told
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|message| {
            message["type"] == "conversation.item.truncate"
                || message["type"] == "conversation.item.delete"
        });
    (heard_ms, told.collect())
}

#[tokio::test]
async fn speaking_over_the_agent_silences_it_and_tells_it_what_was_heard() {
    let (heard_ms, told) = speak_over(&[QUICK]).await;
    assert!(heard_ms > 0);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["audio_end_ms"], heard_ms);
}

#[tokio::test]
async fn an_agent_that_truncates_by_itself_is_not_told_to() {
    let itself = ("VOICE_LIVE_AUTO_TRUNCATE", "1");
    let (_, told) = speak_over(&[QUICK, itself]).await;
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn an_agent_that_fails_is_apologised_for() {
    for (fault, reason) in [
        (Fault::WrongFormat, EndReason::AgentWrongFormat),
        (Fault::CloseMidCall, EndReason::AgentClosed),
        (Fault::Garbage, EndReason::AgentGarbled),
        (Fault::HugeMessage, EndReason::AgentGarbled),
        (Fault::FailedResponse, EndReason::AgentFailed),
    ] {
        let options = ParrotOptions {
            fault: Some(fault),
            ..quick()
        };
        let gateway = TestGateway::with_voice_live(options, &[]).await;
        let call = gateway.ring().await.connected().await;
        assert_eq!(call.line.closed().await, 1000, "{fault:?}");
        assert_eq!(gateway.ended(&call.sid).await, reason, "{fault:?}");
        let words = gateway.stream_ended(&call.sid).await;
        assert!(words.last_words().starts_with("מצטערים"), "{fault:?}");
        gateway.status(&call.sid, "completed").await;
        drop(call);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn the_service_is_shown_a_key_and_asked_for_a_model() {
    let mut agent = ScriptedAgent::start().await;
    let url = agent.url.replace("/v1/realtime", "/voice-live/realtime");
    let settings = [
        ("AGENT", "voice_live"),
        ("VOICE_LIVE_URL", &*url),
        ("VOICE_LIVE_API_KEY", "key-test"),
    ];
    let gateway = TestGateway::with_agent("", &settings).await;
    let ringing = gateway.ring().await;
    let mut session = agent.session().await;
    let query = "api-version=2026-07-15&model=gpt-realtime";
    assert_eq!(session.uri.query(), Some(query));
    assert_eq!(session.headers["api-key"], "key-test");
    assert!(!session.headers.contains_key("authorization"));
    assert_eq!(session.settings["voice"]["name"], "he-IL-HilaNeural");
    gateway.status(&ringing.sid, "completed").await;
    session.closed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_application_shows_a_token_that_it_fetches_once() {
    let token = r#"{"token_type":"Bearer","expires_in":3599,"access_token":"eyJ0.e30.c2ln"}"#;
    let login = RestServer::start(&[Act::Answer(200, "", token)]).await;
    let mut agent = ScriptedAgent::start().await;
    let url = agent.url.replace("/v1/realtime", "/voice-live/realtime");
    let settings = [
        ("AGENT", "voice_live"),
        ("VOICE_LIVE_URL", &*url),
        ("VOICE_LIVE_TENANT_ID", "contoso.example.com"),
        ("VOICE_LIVE_CLIENT_ID", "an-application"),
        ("VOICE_LIVE_CLIENT_SECRET", "its-secret"),
        ("ENTRA_LOGIN_URL", &login.url),
        ("VOICE_LIVE_AGENT_NAME", "clinic"),
        ("VOICE_LIVE_PROJECT_NAME", "acme"),
    ];
    let gateway = TestGateway::with_agent("", &settings).await;
    for _ in 0..2 {
        let ringing = gateway.ring().await;
        let mut session = agent.session().await;
        let query = "api-version=2026-07-15&agent-name=clinic&agent-project-name=acme";
        assert_eq!(session.uri.query(), Some(query));
        assert_eq!(session.headers["authorization"], "Bearer eyJ0.e30.c2ln");
        assert!(!session.headers.contains_key("api-key"));
        assert!(session.settings.get("instructions").is_none());
        gateway.status(&ringing.sid, "completed").await;
        session.closed().await;
    }
    let asked = login.requests(1).await;
    assert_eq!(login.count(), 1);
    let path = "POST /contoso.example.com/oauth2/v2.0/token HTTP/1.1";
    assert_eq!(asked[0].line, path);
    assert_eq!(asked[0].field("client_secret"), Some("its-secret"));
    gateway.finish().await;
}
