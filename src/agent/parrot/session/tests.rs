mod any;
mod call;
mod dialects;

use serde_json::json;

use self::call::{Call, FLAT_UPDATE, UPDATE, manner, silence, speech};
use super::*;
use crate::{agent::parrot::voice, chunk::duration_of, wire::in_order};

const CREATE: &str = r#"{"type":"response.create"}"#;
const CANCEL: &str = r#"{"type":"response.cancel","event_id":"mine"}"#;

#[test]
fn a_session_begins_with_pcm_and_acknowledges_what_it_is_told() {
    let mut call = Call::new(None);
    let created = call.sent.remove(0);
    assert_eq!(created["type"], "session.created");
    assert_eq!(created["session"]["expires_at"], 3600);
    let format = &created["session"]["audio"]["output"]["format"];
    assert_eq!(*format, json!({ "type": "audio/pcm", "rate": 24_000 }));
    call.say(UPDATE);
    let audio = &call.sent[0]["session"]["audio"];
    assert_eq!(call.sent[0]["type"], "session.updated");
    assert_eq!(audio["input"]["format"], json!({ "type": "audio/pcmu" }));
    assert_eq!(audio["output"]["format"], json!({ "type": "audio/pcmu" }));
    assert_eq!(audio["output"]["voice"], "cedar");
    assert_eq!(audio["input"]["turn_detection"]["silence_duration_ms"], 500);
}

#[test]
fn a_greeting_is_one_whole_response() {
    let mut call = Call::updated(None);
    call.say(CREATE);
    call.run();
    insta::assert_snapshot!(call.kinds(), @r"
    response.created
    rate_limits.updated
    response.output_item.added
    conversation.item.added
    response.content_part.added
    response.output_audio_transcript.delta
    response.output_audio.delta x5
    response.output_audio.done
    response.output_audio_transcript.done
    response.content_part.done
    response.output_item.done
    conversation.item.done
    response.done
    ");
    let done = call.sent.last().unwrap();
    insta::assert_snapshot!(in_order(&done["response"]["usage"]), @r#"{"input_token_details":{"audio_tokens":0,"cached_tokens":0,"cached_tokens_details":{"audio_tokens":0,"image_tokens":0,"text_tokens":0},"image_tokens":0,"text_tokens":0},"input_tokens":0,"output_token_details":{"audio_tokens":24,"text_tokens":0},"output_tokens":24,"total_tokens":24}"#);
    assert_eq!(call.audio(), voice::tune());
}

#[test]
fn what_the_caller_said_is_said_back() {
    let mut call = Call::updated(None);
    let speech = speech(1_800);
    call.hear(&silence(400));
    call.hear(&speech);
    assert_eq!(call.kinds(), "input_audio_buffer.speech_started");
    assert_eq!(call.sent[0]["audio_start_ms"], 100); // 300 ms of padding.
    call.hear(&silence(500));
    let stopped = call.heard_at;
    assert_eq!(
        call.session.deadline(),
        stopped + Duration::from_millis(500)
    );
    call.run();
    insta::assert_snapshot!(call.kinds(), @r"
    input_audio_buffer.speech_started
    input_audio_buffer.speech_stopped
    input_audio_buffer.committed
    conversation.item.added
    conversation.item.done
    conversation.item.input_audio_transcription.completed
    response.created
    rate_limits.updated
    response.output_item.added
    conversation.item.added
    response.content_part.added
    response.output_audio_transcript.delta
    response.output_audio.delta x7
    response.output_audio.done
    response.output_audio_transcript.done
    response.content_part.done
    response.output_item.done
    conversation.item.done
    response.done
    ");
    let answer = call.audio();
    assert_eq!(answer[2_400..][..speech.len()], speech);
    assert!((duration_of(answer.len()).as_millis()).abs_diff(2_200) <= 40);
    let done = &call.sent.last().unwrap()["response"];
    let transcript = &done["output"][0]["content"][0]["transcript"];
    assert_eq!(*transcript, "(parrot) you spoke for 1.8 s");
    assert!(call.now < stopped + Duration::from_secs(1));
}

#[test]
fn speech_interrupts_an_answer() {
    let mut call = Call::updated(None);
    call.say(CREATE);
    call.sent.clear();
    call.hear(&speech(200));
    assert!(
        call.kinds()
            .starts_with("input_audio_buffer.speech_started")
    );
    let done = call.sent.last().unwrap();
    assert_eq!(done["response"]["status"], "cancelled");
    assert_eq!(
        done["response"]["status_details"]["reason"],
        "turn_detected"
    );
    assert_eq!(done["response"]["output"][0]["status"], "incomplete");
}

#[test]
fn an_answer_waits_for_the_client_if_turns_are_its_business() {
    let mut call = Call::updated(None);
    call.say(
        r#"{"type":"session.update","session":{"type":"realtime","audio":{"input":{"turn_detection":
        {"type":"server_vad","create_response":false,"interrupt_response":false}}}}}"#,
    );
    call.sent.clear();
    call.hear(&speech(500));
    call.hear(&silence(600));
    assert_eq!(call.session.deadline(), LONGEST_SESSION);
    call.say(CREATE);
    call.hear(&speech(500));
    call.run();
    assert_eq!(call.sent.last().unwrap()["response"]["status"], "completed");
    assert_eq!(call.audio().len(), 8 * 600); // What was committed, with 100 ms of tail.
}

#[test]
fn without_turn_detection_the_client_commits() {
    let mut call = Call::updated(None);
    call.say(
        r#"{"type":"session.update","session":{"type":"realtime",
        "audio":{"input":{"turn_detection":null}}}}"#,
    );
    call.sent.clear();
    call.say(r#"{"type":"input_audio_buffer.commit"}"#);
    assert_eq!(call.code(), "input_audio_buffer_commit_empty");
    let speech = speech(700);
    call.hear(&speech);
    call.say(r#"{"type":"input_audio_buffer.commit"}"#);
    call.say(CREATE);
    call.run();
    assert_eq!(call.audio(), speech);
}

#[test]
fn what_cannot_be_obeyed_is_an_error_that_names_the_event() {
    let cases = [
        (CANCEL, "response_cancel_not_active"),
        (
            r#"{"type":"response.sing","event_id":"mine"}"#,
            "invalid_value",
        ),
        (
            r#"{"type":"conversation.item.truncate","event_id":"mine","item_id":"x","content_index":0,"audio_end_ms":1}"#,
            "item_truncate_invalid_item_id",
        ),
        (
            r#"{"type":"conversation.item.delete","event_id":"mine","item_id":"x"}"#,
            "item_delete_invalid_item_id",
        ),
        (
            r#"{"type":"input_audio_buffer.append","event_id":"mine","audio":"?"}"#,
            "invalid_value",
        ),
        (
            r#"{"type":"session.update","event_id":"mine","session":{}}"#,
            "missing_required_parameter",
        ),
        (
            r#"{"type":"session.update","event_id":"mine","session":{"type":"realtime","audio":{"input":{"format":{"type":"audio/pcm","rate":16000}}}}}"#,
            "invalid_value",
        ),
        (
            r#"{"type":"session.update","event_id":"mine","session":{"type":"realtime","audio":{"input":{"turn_detection":{"type":"azure_semantic_vad"}}}}}"#,
            "invalid_value",
        ),
        (
            r#"{"type":"session.update","event_id":"mine","session":{"type":"realtime","audio":{"input":{"turn_detection":{"type":"server_vad","threshold":2}}}}}"#,
            "invalid_value",
        ),
    ];
    for (message, code) in cases {
        let mut call = Call::updated(None);
        call.say(message);
        assert_eq!(call.sent.len(), 1, "{message}");
        assert_eq!(call.code(), code, "{message}");
        assert_eq!(call.sent[0]["error"]["event_id"], "mine", "{message}");
    }
    let mut call = Call::updated(None);
    call.say(CREATE);
    call.say(CREATE);
    assert_eq!(call.code(), "conversation_already_has_active_response");
}

#[test]
fn an_item_is_truncated_to_no_more_than_was_said() {
    let mut call = Call::updated(None);
    call.say(CREATE);
    call.run();
    let item = call.sent.last().unwrap()["response"]["output"][0]["id"].clone();
    let cut = |end: u32| {
        json!({ "type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": end }).to_string()
    };
    call.say(&cut(1_201));
    assert_eq!(call.code(), "invalid_value");
    let message = &call.sent.last().unwrap()["error"]["message"];
    assert_eq!(
        *message,
        "Audio content of 1200ms is already shorter than 1201ms"
    );
    call.say(&cut(700));
    assert_eq!(call.sent.last().unwrap()["audio_end_ms"], 700);
    call.say(&cut(701));
    assert_eq!(call.code(), "invalid_value");
    call.say(&json!({ "type": "conversation.item.delete", "item_id": item }).to_string());
    assert_eq!(
        call.sent.last().unwrap()["type"],
        "conversation.item.deleted"
    );
}

#[test]
fn a_slow_parrot_takes_its_time_to_acknowledge() {
    let mut manner = manner(None);
    manner.delay = Duration::from_secs(2);
    let mut call = Call::with(manner);
    call.sent.clear();
    call.say(UPDATE);
    assert_eq!(call.kinds(), "");
    assert_eq!(call.session.deadline(), Duration::from_secs(2));
    call.run();
    assert_eq!(call.kinds(), "session.updated");
}

#[test]
fn an_echo_is_what_was_sent_at_once() {
    let mut manner = manner(None);
    manner.echo = true;
    let mut call = Call::with(manner);
    call.say(UPDATE);
    call.sent.clear();
    let speech = speech(60);
    speech.chunks(160).for_each(|frame| call.hear(frame));
    call.say(r#"{"type":"input_audio_buffer.append","audio":"\"\"\"\""}"#);
    insta::assert_snapshot!(call.kinds(), @r"
    response.created
    rate_limits.updated
    response.output_audio.delta x3
    error
    ");
    assert_eq!(call.audio(), speech);
}

#[test]
fn faults_show() {
    for dialect in [Dialect::OpenAi, Dialect::VoiceLive] {
        faults_show_in(dialect);
    }
}

fn faults_show_in(dialect: Dialect) {
    let (update, delta) = match dialect {
        Dialect::OpenAi => (UPDATE, "response.output_audio.delta"),
        Dialect::VoiceLive => (FLAT_UPDATE, "response.audio.delta"),
    };
    let kinds = |fault| {
        let mut call = Call::of(manner(Some(fault)), dialect);
        call.say(update);
        call.say(CREATE);
        for _ in 0..20 {
            if call.session.deadline() < LONGEST_SESSION {
                call.tick();
            }
        }
        call.kinds()
    };
    assert_eq!(kinds(Fault::HangSession), "");
    assert!(kinds(Fault::EarlyClose).ends_with("session.updated\nclose 1000"));
    let broken_off = kinds(Fault::CloseMidCall);
    assert!(
        broken_off.ends_with(&format!("{delta} x3\nclose 1011")),
        "{broken_off}"
    );
    assert!(kinds(Fault::Stall).ends_with(&format!("{delta} x3")));
    assert!(kinds(Fault::Expired).ends_with("response.done\nerror\nclose 1001"));
    assert!(kinds(Fault::WrongFormat).ends_with("response.done"));
    assert!(kinds(Fault::Flood).ends_with(&format!("{delta} x20")));
    assert!(kinds(Fault::HugeMessage).ends_with("fragment x21"));
    let garbage = kinds(Fault::Garbage);
    assert!(
        garbage.contains("binary") && garbage.contains("response.sung"),
        "{garbage}"
    );
}

#[test]
fn failed_responses_say_why_and_a_rate_limit_passes() {
    let mut call = Call::updated(Some(Fault::FailedResponse));
    call.say(CREATE);
    call.say(CREATE);
    for response in call
        .sent
        .iter()
        .filter(|event| event["type"] == "response.done")
    {
        let details = &response["response"]["status_details"];
        assert_eq!(details["error"]["code"], "insufficient_quota");
    }
    let mut call = Call::updated(Some(Fault::RateLimitedResponse));
    call.say(CREATE);
    assert_eq!(call.sent.last().unwrap()["response"]["status"], "failed");
    call.say(CREATE);
    call.run();
    assert_eq!(call.sent.last().unwrap()["response"]["status"], "completed");
}

#[test]
fn a_flood_and_a_huge_message_end() {
    for (fault, bytes) in [(Fault::Flood, 4_800_000), (Fault::HugeMessage, 100_000_000)] {
        let manner = manner(Some(fault));
        let mut session = Session::new(manner, Dialect::OpenAi, "t".to_owned(), 3_600);
        session.handle(Duration::ZERO, Input::Message(UPDATE));
        session.handle(Duration::ZERO, Input::Message(CREATE));
        let mut sent = 0;
        while session.deadline() < LONGEST_SESSION {
            for output in session.handle(Duration::from_secs(1), Input::Tick) {
                sent += match output {
                    Output::Text(text) => text.len(),
                    Output::Fragment { text, .. } => text.len(),
                    Output::Binary(_) | Output::Close { .. } => 0,
                };
            }
        }
        assert!(bytes < sent, "{fault:?}");
    }
}

#[test]
fn a_session_ends_after_an_hour() {
    let mut call = Call::updated(None);
    call.run();
    call.tick();
    assert_eq!(call.now, LONGEST_SESSION);
    assert_eq!(call.kinds(), "error\nclose 1001");
}
