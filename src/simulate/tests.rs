//! Whole calls against a small gateway on loopback.

mod gateway;
mod runs;

use std::time::Duration;

use audio_codec_algorithms::decode_ulaw;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::gateway::{Answers, Gateway, Reply};
use super::{
    outcome::{CallEvent, CallResult, StreamEnd},
    plan::CallPlan,
    script::Script,
    voice::{Voices, sounds},
};
use crate::{chunk::Encoding, official::record};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const CONNECT: &str = r#"<Response><Connect action="/webhook/stream_ended?a=b">
    <Stream url="{ws}/media"><Parameter name="ticket" value="t1"/></Stream></Connect></Response>"#;
const HANG_UP: &str = "<Response><Hangup/></Response>";
const SORRY: &str = r#"<Response><Say language="he-IL">סליחה, משהו השתבש.</Say></Response>"#;

fn plan(script: Script) -> CallPlan {
    CallPlan {
        from: "+972501234567".into(),
        to: "+972721234567".into(),
        script,
        talk_for: Duration::from_millis(300),
        echo: false,
        keys: String::new(),
        record: None,
        fallback: None,
        voices: Voices::of_tests(),
        seed: 1,
    }
}

fn connects(path: &str, _: usize) -> (u16, &'static str) {
    match path {
        "/webhook/incoming_call" => (200, CONNECT),
        "/webhook/stream_ended?a=b" => (200, SORRY),
        _ => (204, ""),
    }
}

fn echoes(message: &Value, _: usize) -> Vec<Reply> {
    if message["event"] != "media" {
        return Vec::new();
    }
    let payload = &message["media"]["payload"];
    let media = json!({"event": "media", "media": {"payload": payload}});
    vec![Reply::Say(media)]
}

fn is_mute(_: &Value, _: usize) -> Vec<Reply> {
    Vec::new()
}

#[tokio::test]
async fn a_caller_who_is_stopped_while_it_rings_has_not_been_failed() {
    let gateway = Gateway::start(connects, echoes).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let (outcome, _) = gateway.call_until(plan(Script::Talk), &stop).await;
    assert_eq!(outcome.result, CallResult::Answered);
    assert_eq!(outcome.streams[0].ended, StreamEnd::CallerHungUp);
    assert_eq!(outcome.faults, [""; 0]);
}

#[tokio::test]
async fn a_caller_talks_and_hangs_up() {
    let gateway = Gateway::start(connects, echoes).await;
    let (outcome, events) = gateway.call(Script::Talk).await;
    assert_eq!(outcome.result, CallResult::Answered);
    assert_eq!(outcome.faults, [""; 0]);
    assert_eq!(outcome.streams[0].ended, StreamEnd::CallerHungUp);
    assert_eq!(
        gateway.paths(),
        ["/webhook/incoming_call", "/webhook/call_status"]
    );
    assert_eq!(gateway.field(0, "CallStatus"), "ringing");
    assert_eq!(gateway.field(0, "From"), "+972501234567");
    assert_eq!(gateway.field(0, "CallSid"), outcome.carrier_call);
    assert_eq!(gateway.field(1, "CallStatus"), "completed");
    assert!(gateway.field(1, "Timestamp").ends_with(" +0000"));
    record("twilio-simulator.jsonl", gateway.signed());

    assert_eq!(gateway.heard("connected").len(), 1);
    let start = &gateway.heard("start")[0];
    assert_eq!(start["start"]["callSid"], outcome.carrier_call.as_str());
    assert_eq!(start["start"]["customParameters"], json!({"ticket": "t1"}));
    let media = gateway.heard("media");
    assert!(media.len() >= 15);
    for (at, message) in media.iter().enumerate() {
        assert_eq!(message["media"]["chunk"], (at + 1).to_string());
        assert_eq!(message["media"]["timestamp"], (at * 20).to_string());
        assert_eq!(message["sequenceNumber"], (at + 2).to_string());
        assert_eq!(message["streamSid"], start["streamSid"]);
    }
    assert_eq!(gateway.heard("stop").len(), 1);
    let ended = CallEvent::Ended(CallResult::Answered);
    assert_eq!(events.last(), Some(&ended));
    assert!(events.contains(&CallEvent::Connected));
}

#[tokio::test]
async fn echoed_frames_are_found_and_a_recording_has_both_sides() {
    fn loud_then_echoes(message: &Value, frames: usize) -> Vec<Reply> {
        let mut replies = echoes(message, frames);
        if message["event"] == "start" {
            let payload = "gICA".repeat(320); // 120 ms as loud as can be.
            replies.push(Reply::Say(
                json!({"event": "media", "media": {"payload": payload}}),
            ));
        }
        replies
    }
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(connects, loud_then_echoes).await;
    let recorded = CallPlan {
        echo: true,
        record: Some(folder.path().to_owned()),
        talk_for: Duration::from_secs(1),
        ..plan(Script::Silent)
    };
    let (outcome, events) = gateway.call_as(recorded).await;
    let stream = &outcome.streams[0];
    let echo = stream.echo.as_ref().unwrap();
    assert_eq!(echo.sent, stream.frames_sent);
    assert!(!echo.round_trip.is_empty());
    assert_eq!((echo.duplicated, echo.reordered), (0, 0));
    assert!(stream.heard.first.is_some());
    assert!(stream.first_audio_from_webhook > stream.heard.first);

    let path = stream.recording.clone().unwrap();
    assert!(events.contains(&CallEvent::Recorded(path.clone())));
    let wav = hound::WavReader::open(path).unwrap();
    assert_eq!(wav.spec().channels, 2);
    let samples: Vec<i16> = wav.into_samples().map(Result::unwrap).collect();
    let (said, heard): (Vec<_>, Vec<_>) = samples
        .chunks_exact(2)
        .map(|both| (both[0], both[1]))
        .unzip();
    let loud = decode_ulaw(0x80);
    assert!(said.len() >= 15 * 160);
    assert!(said.iter().all(|&sample| sample.abs() < 400));
    assert_eq!(heard.iter().filter(|&&sample| sample == loud).count(), 960);
}

#[tokio::test]
async fn marks_come_back_in_order_and_at_once_after_a_clear() {
    fn marks(message: &Value, _: usize) -> Vec<Reply> {
        let media = json!({"event": "media", "media": {"payload": "gICA".repeat(8_000)}});
        let mark = |name| Reply::Say(json!({"event": "mark", "mark": {"name": name}}));
        match (message["event"].as_str(), message["mark"]["name"].as_str()) {
            (Some("start"), _) => vec![mark("at once"), Reply::Say(media), mark("3 s"), mark("b")],
            (_, Some("at once")) => vec![Reply::Say(json!({"event": "clear"}))],
            (_, Some("b")) => vec![Reply::Close],
            _ => Vec::new(),
        }
    }
    let gateway = Gateway::start(connects, marks).await;
    let outcome = gateway.long_call().await;
    let names: Vec<_> = gateway.heard("mark");
    let names: Vec<_> = names.iter().map(|mark| &mark["mark"]["name"]).collect();
    assert_eq!(names, ["at once", "3 s", "b"]);
    assert_eq!(outcome.faults, [""; 0]);
}

#[tokio::test]
async fn a_caller_whose_agent_is_gone_is_told_so() {
    fn hangs_up(_: &Value, frames: usize) -> Vec<Reply> {
        if frames < 2 {
            Vec::new()
        } else {
            vec![Reply::Close]
        }
    }
    let gateway = Gateway::start(connects, hangs_up).await;
    let outcome = gateway.long_call().await;
    assert_eq!(outcome.result, CallResult::Apology);
    assert_eq!(outcome.said[0].text, "סליחה, משהו השתבש.");
    assert_eq!(outcome.said[0].language.as_deref(), Some("he-IL"));
    let ended = &outcome.streams[0].ended;
    assert!(matches!(ended, StreamEnd::GatewayClosed(_)), "{ended:?}");
    assert_eq!(
        gateway.paths(),
        [
            "/webhook/incoming_call",
            "/webhook/stream_ended?a=b",
            "/webhook/call_status"
        ]
    );
    assert_eq!(gateway.field(1, "CallStatus"), "in-progress");
    assert_eq!(outcome.faults, [""; 0]);
}

#[tokio::test]
async fn a_socket_that_breaks_is_a_fault_and_the_call_goes_on() {
    fn breaks(_: &Value, frames: usize) -> Vec<Reply> {
        if frames < 2 {
            Vec::new()
        } else {
            vec![Reply::Break]
        }
    }
    let gateway = Gateway::start(connects, breaks).await;
    let outcome = gateway.long_call().await;
    assert_eq!(outcome.result, CallResult::Apology);
    assert!(outcome.faults[0].contains("31903"), "{:?}", outcome.faults);
}

#[tokio::test]
async fn a_slow_reader_may_be_cut_off() {
    fn gives_up(message: &Value, frames: usize) -> Vec<Reply> {
        if frames < 60 {
            echoes(message, frames)
        } else {
            vec![Reply::Break]
        }
    }
    let gateway = Gateway::start(connects, gives_up).await;
    let slow = CallPlan {
        talk_for: Duration::from_mins(1),
        ..plan(Script::SlowReader)
    };
    let (outcome, _) = gateway.call_as(slow).await;
    assert_eq!(outcome.result, CallResult::Apology);
    assert!(outcome.is_well(), "{:?}", outcome.faults);
}

#[tokio::test]
async fn a_refused_caller_hears_why() {
    fn rejects(_: &str, _: usize) -> (u16, &'static str) {
        (200, r#"<Response><Reject reason="busy"/></Response>"#)
    }
    fn says_so(_: &str, _: usize) -> (u16, &'static str) {
        (
            200,
            r#"<Response><Say language="he-IL">תפוס</Say><Hangup/></Response>"#,
        )
    }
    for (answers, said, status) in [(rejects as Answers, 0, "busy"), (says_so, 1, "completed")] {
        let gateway = Gateway::start(answers, is_mute).await;
        let (outcome, _) = gateway.call(Script::Talk).await;
        assert_eq!(outcome.result, CallResult::Busy);
        assert_eq!(outcome.said.len(), said);
        assert_eq!(gateway.field(1, "CallStatus"), status);
        assert!(outcome.is_well());
    }
}

#[tokio::test]
async fn a_gateway_that_fails_is_counted_and_the_fallback_speaks() {
    fn forbids(path: &str, _: usize) -> (u16, &'static str) {
        if path == "/webhook/incoming_call" {
            (403, "")
        } else {
            (204, "")
        }
    }
    let gateway = Gateway::start(forbids, is_mute).await;
    let with_fallback = CallPlan {
        fallback: Some(SORRY.into()),
        ..plan(Script::Talk)
    };
    for (plan, said) in [(plan(Script::Talk), 0), (with_fallback, 1)] {
        let (outcome, _) = gateway.call_as(plan).await;
        let CallResult::Failed(why) = &outcome.result else {
            panic!("{:?}", outcome.result);
        };
        assert!(why.contains("403: is --auth-token the gateway's"), "{why}");
        assert_eq!(outcome.failed_webhooks, 1);
        assert_eq!(outcome.said.len(), said);
        assert_eq!(outcome.fell_back, said == 1);
    }
    assert_eq!(gateway.field(1, "CallStatus"), "failed");
}

#[tokio::test]
async fn a_cut_call_says_nothing_more() {
    let gateway = Gateway::start(connects, is_mute).await;
    let (outcome, _) = gateway.call(Script::Drop).await;
    assert_eq!(outcome.streams[0].ended, StreamEnd::Cut);
    assert_eq!(gateway.paths(), ["/webhook/incoming_call"]);
    assert_eq!(gateway.heard("stop").len(), 0);
    assert!(outcome.is_well());
}

#[tokio::test]
async fn a_repeated_webhook_wants_the_same_answer() {
    fn another_each_time(path: &str, before: usize) -> (u16, &'static str) {
        match (path, before) {
            ("/webhook/incoming_call", 0) => (200, SORRY),
            ("/webhook/incoming_call", _) => (200, HANG_UP),
            _ => (204, ""),
        }
    }
    fn the_same(path: &str, _: usize) -> (u16, &'static str) {
        another_each_time(path, 0)
    }
    for (answers, faults) in [(the_same as Answers, 0), (another_each_time, 1)] {
        let gateway = Gateway::start(answers, is_mute).await;
        let (outcome, _) = gateway.call(Script::RepeatWebhook).await;
        assert_eq!(outcome.faults.len(), faults, "{:?}", outcome.faults);
        assert_eq!(gateway.paths().len(), 4);
        assert_eq!(gateway.field(0, "CallSid"), gateway.field(1, "CallSid"));
    }
}

#[tokio::test]
async fn documents_that_lead_around_in_a_circle_end() {
    fn around(path: &str, _: usize) -> (u16, &'static str) {
        match path {
            "/webhook/call_status" => (204, ""),
            _ => (200, "<Response><Redirect>/again</Redirect></Response>"),
        }
    }
    let gateway = Gateway::start(around, is_mute).await;
    let (outcome, _) = gateway.call(Script::Talk).await;
    assert!(matches!(&outcome.result, CallResult::Failed(why) if why.contains("circle")));
    assert_eq!(gateway.paths().len(), 11);
}

#[tokio::test]
async fn a_caller_leaves_a_message() {
    fn voicemail(path: &str, _: usize) -> (u16, &'static str) {
        match path {
            "/webhook/incoming_call" => (
                200,
                r#"<Response><Say>busy</Say><Record action="/done"/></Response>"#,
            ),
            "/done" => (200, HANG_UP),
            _ => (204, ""),
        }
    }
    let gateway = Gateway::start(voicemail, is_mute).await;
    let (outcome, _) = gateway.call(Script::Talk).await;
    assert_eq!(outcome.result, CallResult::Busy);
    assert!(outcome.left_a_message);
    assert_eq!(gateway.field(1, "RecordingDuration"), "3");
}

#[tokio::test]
async fn a_message_that_twilio_would_not_understand_is_a_fault_once_a_stream() {
    fn talks_nonsense(message: &Value, _: usize) -> Vec<Reply> {
        match message["event"].as_str() {
            Some("media") => vec![Reply::Say(json!({"event": "speak"}))],
            _ => Vec::new(),
        }
    }
    let gateway = Gateway::start(connects, talks_nonsense).await;
    let (outcome, _) = gateway.call(Script::Silent).await;
    assert_eq!(outcome.faults.len(), 1, "{:?}", outcome.faults);
    assert!(!outcome.is_well());
}

#[tokio::test]
async fn an_interrupted_agent_stops_and_the_time_that_takes_is_known() {
    fn stops_when_spoken_to(message: &Value, _: usize) -> Vec<Reply> {
        let payload = message["media"]["payload"].as_str().unwrap_or_default();
        let samples = STANDARD.decode(payload).unwrap();
        if message["event"] == "start" {
            let media = json!({"event": "media", "media": {"payload": "gICA".repeat(80_000)}});
            vec![Reply::Say(media)]
        } else if sounds(&samples, Encoding::Mulaw).is_some() {
            vec![Reply::Say(json!({"event": "clear"})), Reply::Close]
        } else {
            Vec::new()
        }
    }
    let gateway = Gateway::start(connects, stops_when_spoken_to).await;
    let impatient = CallPlan {
        talk_for: Duration::from_mins(1),
        ..plan(Script::BargeIn)
    };
    let (outcome, events) = gateway.call_as(impatient).await;
    let stream = &outcome.streams[0];
    assert_eq!((stream.sentences, stream.interrupted.len()), (1, 1));
    assert_eq!(stream.ignored_interruptions, 0);
    let stopped = CallEvent::StopsTheAgent(stream.interrupted[0]);
    assert!(events.contains(&stopped), "{events:?}");
}

#[tokio::test]
async fn keys_are_pressed_one_after_the_other() {
    let gateway = Gateway::start(connects, is_mute).await;
    let pressing = CallPlan {
        keys: "1#".into(),
        talk_for: Duration::from_millis(1_400),
        ..plan(Script::Silent)
    };
    gateway.call_as(pressing).await;
    let keys = gateway.heard("dtmf");
    let keys: Vec<_> = keys.iter().map(|key| &key["dtmf"]["digit"]).collect();
    assert_eq!(keys, ["1", "#"]);
}
