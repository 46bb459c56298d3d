//! What caller and agent hear of each other.

use std::{fs, time::Duration};

use callgate::{What, parrot::ParrotOptions};
use futures_util::SinkExt;
use serde_json::{Value, json};

use crate::{
    agent::ScriptedAgent,
    audio::{FRAME, SILENCE, loudness, share_of, syllables},
    gateway::TestGateway,
    line::{Heard, mark, media, start, stop, text},
};

/// The parrot's tune begins with it.
const FIRST_NOTE: f64 = 392.0;
/// How long the parrot's tune is.
const TUNE: usize = 9_600;
const QUICK: (&str, &str) = ("AGENT_VAD_SILENCE_MS", "200");

#[tokio::test]
async fn a_greeting_is_heard_and_what_the_caller_says_comes_back() {
    let gateway = TestGateway::with_parrot(quick(), &[QUICK]).await;
    let call = gateway.ring().await.connected().await;
    call.line.until_played(TUNE).await;
    let tune = call.line.played(0);
    assert!(loudness(&tune) > 1_000.0, "{}", loudness(&tune));
    let note = &tune[..1_600];
    assert!(
        share_of(FIRST_NOTE, note) > 0.5,
        "{}",
        share_of(FIRST_NOTE, note)
    );

    // A pitch that is not among the tune's.
    call.line.speak(syllables(1_100.0, 50));
    call.line.until_played(TUNE + 40 * FRAME).await;
    let echo = call.line.played(TUNE);
    assert!(loudness(&echo) > 2_000.0, "{}", loudness(&echo));
    let share = share_of(1_100.0, &echo);
    assert!(share > 0.8, "{share}");
    let steps = gateway.steps(&call.sid);
    let order = ["admitted", "connected", "agent_ready", "first_words"];
    let names = steps.iter().filter_map(What::name);
    let milestones: Vec<_> = names.filter(|name| order.contains(name)).collect();
    assert_eq!(milestones, order);
    // Both sides' words are written down.
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

#[tokio::test]
async fn speaking_over_the_agent_silences_it_and_tells_it_what_was_heard() {
    let record = tempfile::NamedTempFile::new().unwrap();
    let options = ParrotOptions {
        record: Some(record.path().to_owned()),
        ..quick()
    };
    let gateway = TestGateway::with_parrot(options, &[QUICK]).await;
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
    // What follows the clear is the answer alone.
    call.line.until_played(played + 20 * FRAME).await;
    let answer = call.line.played(played);
    assert!(share_of(1_100.0, &answer) > 0.7);
    assert!(share_of(784.0, &answer) < 0.1);
    call.hang_up().await;
    gateway.finish().await;
    let told: Vec<Value> = fs::read_to_string(record.path())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|message: &Value| message["type"] == "conversation.item.truncate")
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["audio_end_ms"], heard_ms);
    let played_ms = u64::try_from(played / 8).unwrap();
    assert!(
        heard_ms > 0 && heard_ms <= played_ms,
        "{heard_ms} of {played_ms}"
    );
}

#[tokio::test]
async fn how_many_marks_came_back_is_a_step_of_the_call() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[("AGENT_GREETING", "none")]).await;
    let call = gateway.ring().await.connected().await;
    let mut session = agent.session().await;
    for (item, all) in [("item_1", 4_000), ("item_2", 8_000)] {
        session.begin_response().await;
        session.speak(item, &[0x11; 4_000]).await;
        session.end_response(item).await;
        call.line
            .until(|heard| (heard.received == all && heard.waiting == 0).then_some(()))
            .await;
        // What is said from here on is not returned.
        call.line.withhold_marks(true);
    }
    let sid = call.sid.clone();
    call.hang_up().await;
    let marked = |step: &What| {
        let What::Marked { sent, returned } = step else {
            return None;
        };
        Some((*sent, *returned))
    };
    // Half a second of audio has a mark each 180 ms, and one at its end, which may be late.
    let (sent, returned) = gateway.until_step_of(&sid, marked).await;
    assert_eq!(sent, 6);
    assert!((2..=3).contains(&returned), "{returned}");
    session.closed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn only_marks_that_came_back_since_the_last_clear_count_as_heard() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[]).await;
    let call = gateway.ring().await.connected().await;
    call.line.withhold_marks(true);
    let mut session = agent.session().await;
    assert_eq!(
        session.hear_words().await.unwrap()["type"],
        "response.create"
    );

    // Nothing is said to have been heard, so the item never was.
    session.begin_response().await;
    session.speak("item_1", &[0x11; 4_000]).await;
    session.end_response("item_1").await;
    call.line
        .until(|heard| (heard.received == 4_000).then_some(()))
        .await;
    session.hears_speech().await;
    let told = session.hear_words().await.unwrap();
    assert_eq!(
        told,
        json!({"type": "conversation.item.delete", "item_id": "item_1"})
    );

    // The first item's marks come back late: they say nothing about the second one.
    session.begin_response().await;
    session.speak("item_2", &[0x22; 4_000]).await;
    session.end_response("item_2").await;
    call.line
        .until(|heard| (heard.received == 8_000).then_some(()))
        .await;
    for number in 0..100 {
        call.line.send(mark(&format!("g0:m{number}")));
    }
    call.line.send(mark("not ours"));
    // A key follows the marks through the gateway.
    call.line.press("7");
    assert_eq!(
        session.hear_words().await.unwrap()["type"],
        "conversation.item.create"
    );
    assert_eq!(
        session.hear_words().await.unwrap()["type"],
        "response.create"
    );
    session.hears_speech().await;
    let told = session.hear_words().await.unwrap();
    assert_eq!(
        told,
        json!({"type": "conversation.item.delete", "item_id": "item_2"})
    );
    let cleared = |heard: &Heard| (heard.clears.len() == 2).then_some(());
    call.line.until(cleared).await;

    // What the caller has heard to its end is not interrupted.
    call.line.withhold_marks(false);
    session.begin_response().await;
    session.speak("item_3", &[0x33; 800]).await;
    session.end_response("item_3").await;
    call.line
        .until(|heard| (heard.received == 8_800 && heard.waiting == 0).then_some(()))
        .await;
    call.line.press("8");
    assert_eq!(
        session.hear_words().await.unwrap()["type"],
        "conversation.item.create"
    );
    assert_eq!(
        session.hear_words().await.unwrap()["type"],
        "response.create"
    );
    session.hears_speech().await;
    call.line.press("9");
    assert_eq!(
        session.hear_words().await.unwrap()["type"],
        "conversation.item.create"
    );
    assert_eq!(call.line.until(|heard| Some(heard.clears.len())).await, 2);
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn audio_of_an_interrupted_answer_is_not_played() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[("AGENT_GREETING", "none")]).await;
    let call = gateway.ring().await.connected().await;
    let mut session = agent.session().await;
    session.begin_response().await;
    session.speak("item_1", &[0x11; 4_000]).await;
    call.line
        .until(|heard| (heard.received == 4_000).then_some(()))
        .await;
    session.hears_speech().await;
    session.speak("item_1", &[0x11; 4_000]).await; // It was under way.
    session.end_response("item_1").await;
    session.begin_response().await;
    session.speak("item_2", &[0x22; 800]).await;
    session.end_response("item_2").await;
    call.line
        .until(|heard| (heard.received >= 4_800).then_some(()))
        .await;
    let cleared = call.line.until(|heard| heard.clears.first().copied()).await;
    call.line.until_played(cleared + 800).await;
    assert!(
        call.line
            .played(cleared)
            .iter()
            .all(|&sample| sample == 0x22)
    );
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn the_first_words_wait_for_an_agent_that_is_late() {
    let options = ParrotOptions {
        delay: Duration::from_millis(600),
        ..quick()
    };
    let settings = [QUICK, ("AGENT_GREETING", "none")];
    let gateway = TestGateway::with_parrot(options, &settings).await;
    let call = gateway.ring().await.connected().await;
    call.line.speak(syllables(1_100.0, 30));
    call.line.until_played(25 * FRAME).await;
    let ready = gateway.steps(&call.sid);
    let is_ready = |step: &What| matches!(step, What::AgentReady { .. });
    assert!(ready.iter().any(is_ready));
    let echo = call.line.played(0);
    assert!(
        share_of(1_100.0, &echo) > 0.8,
        "{}",
        share_of(1_100.0, &echo)
    );
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn audio_reaches_the_other_side_as_it_was_and_in_order() {
    let mut agent = ScriptedAgent::start().await;
    let settings = [("AGENT_GREETING", "none"), ("WORKERS", "2")];
    let gateway = TestGateway::with_agent(&agent.url, &settings).await;
    let call = gateway.ring().await.connected().await;
    let mut session = agent.session().await;
    let words: Vec<u8> = (0..50 * FRAME)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect();
    call.line.speak(words.clone());
    let mut heard = session.hear_audio(60 * FRAME).await;
    let begin = heard
        .windows(8)
        .position(|part| part == &words[..8])
        .unwrap();
    assert!(heard[..begin].iter().all(|&sample| sample == SILENCE));
    heard.drain(..begin);
    while heard.len() < words.len() {
        heard.extend(session.hear_audio(FRAME).await);
    }
    assert!(
        heard[..words.len()] == words[..],
        "not a sample is lost or changed"
    );
    session.begin_response().await;
    for part in words.chunks(999) {
        session.speak("item_1", part).await;
    }
    session.end_response("item_1").await;
    call.line.until_played(words.len()).await;
    assert!(call.line.played(0) == words);
    call.hang_up().await;
    session.closed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn the_session_is_set_up_for_telephone_audio_and_the_callers_language() {
    let mut agent = ScriptedAgent::start().await;
    let settings = [
        ("AGENT_INSTRUCTIONS", "Be brief."),
        ("AGENT_VOICE", "cedar"),
    ];
    let gateway = TestGateway::with_agent(&agent.url, &settings).await;
    let ringing = gateway.ring().await;
    let session = agent.session().await; // While the phone rings: there is no media yet.
    let audio = &session.settings["audio"];
    assert_eq!(session.settings["type"], "realtime");
    assert_eq!(session.settings["instructions"], "Be brief.");
    assert_eq!(audio["input"]["format"], json!({"type": "audio/pcmu"}));
    assert_eq!(audio["output"]["format"], json!({"type": "audio/pcmu"}));
    assert_eq!(audio["output"]["voice"], "cedar");
    assert_eq!(audio["input"]["turn_detection"]["type"], "server_vad");
    assert_eq!(audio["input"]["transcription"]["language"], "he");
    gateway.status(&ringing.sid, "completed").await;
    let mut session = session;
    session.closed().await; // Nobody claimed it.
    gateway.finish().await;
}

#[tokio::test]
async fn each_vendor_is_shown_its_key_in_its_own_way() {
    let mut agent = ScriptedAgent::start().await;
    for (kind, header, value) in [
        ("openai", "authorization", "Bearer sk-test"),
        ("azure_openai", "api-key", "sk-test"),
    ] {
        let settings = [("AGENT", kind), ("OPENAI_REALTIME_MODEL", "a-model")];
        let gateway = TestGateway::with_agent(&agent.url, &settings).await;
        let ringing = gateway.ring().await;
        let mut session = agent.session().await;
        assert_eq!(session.uri.query(), Some("model=a-model"), "{kind}");
        assert_eq!(session.headers[header], value, "{kind}");
        for other in ["authorization", "api-key", "openai-beta"] {
            let expected = other == header;
            assert_eq!(
                session.headers.contains_key(other),
                expected,
                "{kind} {other}"
            );
        }
        gateway.status(&ringing.sid, "completed").await;
        session.closed().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn silence_that_the_carrier_leaves_out_is_heard_as_silence() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[("AGENT_GREETING", "none")]).await;
    let ringing = gateway.ring().await;
    let mut session = agent.session().await;
    let mut socket = ringing.socket().await;
    for message in [
        start(&ringing.sid, ringing.admitted().1),
        media(0, &[0x11; FRAME]),
        media(1_020, &[0x22; FRAME]),
    ] {
        socket.send(text(&message)).await.unwrap();
    }
    let mut heard = session.hear_audio(FRAME).await;
    while !heard.contains(&0x22) {
        heard.extend(session.hear_audio(FRAME).await);
    }
    let at = heard.iter().position(|&sample| sample == 0x22).unwrap();
    assert_eq!(&heard[..FRAME], &[0x11; FRAME]);
    assert!(heard[FRAME..at].iter().all(|&sample| sample == SILENCE));
    let hole = at - FRAME;
    assert!(
        (7_520..=8_480).contains(&hole),
        "a second of silence, not {hole} samples"
    );
    socket.send(text(&stop(&ringing.sid))).await.unwrap();
    gateway.ended(&ringing.sid).await;
    gateway.finish().await;
}

fn quick() -> ParrotOptions {
    ParrotOptions {
        answer_after: Duration::from_millis(100),
        ..ParrotOptions::default()
    }
}
