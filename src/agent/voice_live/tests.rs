use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    agent::{Complaint, Dialect, openai},
    config::Config,
    session::{Answered, ItemId, Speaker},
    wire::in_order,
};

const NEEDED: [(&str, &str); 3] = [
    ("AGENT", "voice_live"),
    (
        "VOICE_LIVE_URL",
        "wss://acme.services.ai.azure.com/voice-live/realtime",
    ),
    ("VOICE_LIVE_API_KEY", "a-key"),
];

fn session(settings: &[(&str, &str)], language: &str, encoding: Encoding) -> Value {
    let config = Config::load(|name| {
        let mut set = settings.iter().chain(&NEEDED);
        let found = set.find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    });
    let campaign = Campaign::plain(language.parse().unwrap(), None);
    let update = session_update(&config.unwrap().agent, &campaign, encoding);
    let mut update: Value = serde_json::from_str(&update).unwrap();
    assert_eq!(update["type"], "session.update");
    update["session"].take()
}

fn decoded(message: &str) -> Result<Event, Garbled> {
    let message = Bytes::from(message.to_owned());
    openai::decode(&message, Dialect::VoiceLive, Encoding::Mulaw)
}

#[test]
fn a_session_for_a_hebrew_caller_on_the_telephone() {
    let session = session(
        &[("AGENT_INSTRUCTIONS", "Be brief.")],
        "he-IL",
        Encoding::Mulaw,
    );
    insta::assert_snapshot!(serde_json::to_string_pretty(&in_order(&session)).unwrap(), @r#"
    {
      "input_audio_echo_cancellation": {
        "type": "server_echo_cancellation"
      },
      "input_audio_format": "g711_ulaw",
      "input_audio_noise_reduction": {
        "type": "azure_deep_noise_suppression"
      },
      "input_audio_sampling_rate": 8000,
      "input_audio_transcription": {
        "language": "he",
        "model": "gpt-4o-transcribe"
      },
      "instructions": "Be brief.",
      "modalities": [
        "text",
        "audio"
      ],
      "output_audio_format": "g711_ulaw",
      "tool_choice": "auto",
      "tools": [
        {
          "description": "Ends the call. Say goodbye before: the call ends once the caller has heard it.",
          "name": "end_call",
          "parameters": {
            "additionalProperties": false,
            "properties": {},
            "required": [],
            "type": "object"
          },
          "type": "function"
        }
      ],
      "turn_detection": {
        "auto_truncate": false,
        "create_response": true,
        "interrupt_response": true,
        "prefix_padding_ms": 420,
        "silence_duration_ms": 500,
        "speech_duration_ms": 80,
        "threshold": 0.5,
        "type": "azure_semantic_vad"
      },
      "voice": {
        "name": "he-IL-HilaNeural",
        "type": "azure-standard"
      }
    }
    "#);
}

#[test]
fn what_can_be_left_out_is_and_an_agent_of_foundrys_has_its_own_instructions() {
    let session = session(
        &[
            ("VOICE_LIVE_NOISE_SUPPRESSION", "none"),
            ("VOICE_LIVE_ECHO_CANCELLATION", "0"),
            ("VOICE_LIVE_AUTO_TRUNCATE", "1"),
            ("VOICE_LIVE_AGENT_NAME", "clinic"),
            ("VOICE_LIVE_PROJECT_NAME", "acme"),
            ("AGENT_TURN_DETECTION", "server_vad"),
            ("AGENT_VAD_THRESHOLD", "75"),
            ("AGENT_VAD_SILENCE_MS", "700"),
            ("AGENT_TRANSCRIPTION_MODEL", "none"),
            ("AGENT_VOICE", "cedar"),
        ],
        "en-US",
        Encoding::Pcm24k,
    );
    insta::assert_snapshot!(in_order(&session), @r#"{"input_audio_format":"pcm16","input_audio_sampling_rate":24000,"modalities":["text","audio"],"output_audio_format":"pcm16","turn_detection":{"auto_truncate":true,"create_response":true,"interrupt_response":true,"prefix_padding_ms":400,"silence_duration_ms":700,"threshold":0.75,"type":"server_vad"},"voice":{"name":"cedar","type":"openai"}}"#);
}

#[test]
fn voice_and_transcription_are_in_the_callers_language() {
    let text_model = ("VOICE_LIVE_MODEL", "gpt-4.1");
    let azures = ("AGENT_TRANSCRIPTION_MODEL", "azure-speech");
    let avri = ("AGENT_VOICE", "he-IL-AvriNeural");
    let cases: [(&[(&str, &str)], _, _, _, _); 6] = [
        (&[], "he-IL", "he-IL-HilaNeural", "gpt-4o-transcribe", "he"),
        (&[], "fr-FR", "en-US-AvaNeural", "gpt-4o-transcribe", "fr"),
        (
            &[text_model],
            "he",
            "he-IL-HilaNeural",
            "azure-speech",
            "he-IL",
        ),
        (
            &[text_model],
            "en-GB",
            "en-US-AvaNeural",
            "azure-speech",
            "en-GB",
        ),
        (
            &[azures, avri],
            "he-IL",
            "he-IL-AvriNeural",
            "azure-speech",
            "he-IL",
        ),
        (
            &[("AGENT_TRANSCRIPTION_MODEL", "mai-transcribe-1")],
            "he-IL",
            "he-IL-HilaNeural",
            "mai-transcribe-1",
            "he-IL",
        ),
    ];
    for (settings, language, voice, model, spoken) in cases {
        let session = session(settings, language, Encoding::Mulaw);
        let transcription = json!({"model": model, "language": spoken});
        assert_eq!(session["voice"]["name"], voice, "{settings:?} {language}");
        assert_eq!(session["input_audio_transcription"], transcription);
    }
}

#[test]
fn each_encoding_is_asked_for_and_recognised_by_its_name() {
    for (encoding, input, rate, output) in [
        (Encoding::Mulaw, "g711_ulaw", 8_000, "g711_ulaw"),
        (Encoding::Pcm16k, "pcm16", 16_000, "pcm16_16000hz"),
        (Encoding::Pcm24k, "pcm16", 24_000, "pcm16"),
    ] {
        let session = session(&[], "he-IL", encoding);
        assert_eq!(session["input_audio_format"], input);
        assert_eq!(session["input_audio_sampling_rate"], rate);
        assert_eq!(session["output_audio_format"], output);
        for other in [Encoding::Mulaw, Encoding::Pcm16k, Encoding::Pcm24k] {
            let fits = fits(Some(input), Some(rate), Some(output), other);
            assert_eq!(fits, other == encoding);
        }
    }
    let pcm = |rate, output| fits(Some("pcm16"), rate, Some(output), Encoding::Pcm16k);
    assert!(pcm(Some(16_000), "pcm16-16000hz"), "as it was once spelled");
    assert!(
        !pcm(None, "pcm16_16000hz"),
        "24,000 unless something is said"
    );
    assert!(fits(
        Some("g711_ulaw"),
        None,
        Some("g711_ulaw"),
        Encoding::Mulaw
    ));
    assert!(!fits(None, Some(8_000), Some("g711_ulaw"), Encoding::Mulaw));
    assert!(!fits(Some("g711_ulaw"), Some(8_000), None, Encoding::Mulaw));
}

#[test]
fn an_acknowledgement_fits_or_does_not() {
    for (session, fits) in [
        (
            r#"{"id":"sess_1","model":"gpt-realtime","modalities":["text","audio"],"voice":{"type":"azure-standard","name":"he-IL-HilaNeural"},"input_audio_format":"g711_ulaw","input_audio_sampling_rate":8000,"output_audio_format":"g711_ulaw","turn_detection":{"type":"azure_semantic_vad"},"expires_at":1795003600}"#,
            true,
        ),
        (
            r#"{"input_audio_format":"g711_ulaw","input_audio_sampling_rate":null,"output_audio_format":"g711_ulaw"}"#,
            true,
        ),
        (
            r#"{"input_audio_format":"pcm16","output_audio_format":"g711_ulaw"}"#,
            false,
        ),
        (
            r#"{"input_audio_format":"g711_ulaw","output_audio_format":"pcm16"}"#,
            false,
        ),
        // What the other dialect would say is no answer here.
        (
            r#"{"audio":{"input":{"format":{"type":"audio/pcmu"}},"output":{"format":{"type":"audio/pcmu"}}}}"#,
            false,
        ),
        ("{}", false),
    ] {
        let updated = format!(r#"{{"type":"session.updated","session":{session}}}"#);
        assert_eq!(decoded(&updated), Ok(Event::Updated { fits }), "{session}");
    }
}

#[test]
fn what_the_service_reports_becomes_what_happened() {
    let item = || ItemId::new(Bytes::from_static(b"item_a1"));
    let said = |who, text: &str| Input::Said {
        who,
        text: text.to_owned(),
    };
    for (message, expected) in [
        (
            r#"{"type":"input_audio_buffer.speech_started","event_id":"e3","audio_start_ms":1480,"item_id":"item_u1"}"#,
            Input::AgentInterrupted,
        ),
        (
            r#"{"type":"input_audio_buffer.committed","event_id":"e5","item_id":"item_u1","previous_item_id":null}"#,
            Input::AgentWillAnswer,
        ),
        (
            r#"{"type":"response.created","response":{"object":"realtime.response","id":"resp_1","status":"in_progress","output":[]}}"#,
            Input::AgentAnswering,
        ),
        (
            r#"{"type":"response.audio.done","response_id":"resp_1","item_id":"item_a1","output_index":0,"content_index":0}"#,
            Input::AgentFinished(item()),
        ),
        (
            r#"{"type":"response.audio_transcript.done","response_id":"resp_1","item_id":"item_a1","output_index":0,"content_index":0,"transcript":"Shalom"}"#,
            said(Speaker::Agent, "Shalom"),
        ),
        (
            r#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"item_u1","content_index":0,"transcript":"Tuesday?"}"#,
            said(Speaker::Caller, "Tuesday?"),
        ),
        (
            r#"{"type":"response.done","response":{"id":"resp_1","status":"completed","usage":{"output_token_details":{"reasoning_tokens":0}}}}"#,
            Input::AgentAnswered(Answered::Fully),
        ),
        // Signs of life: the service's own truncation, a warning, and what is nothing to us.
        (
            r#"{"type":"conversation.item.truncated","item_id":"item_a1","content_index":0,"audio_end_ms":1460}"#,
            Input::AgentAlive,
        ),
        (
            r#"{"type":"warning","warning":{"message":"no such voice","code":"voice_fallback","param":"voice"}}"#,
            Input::AgentAlive,
        ),
        (
            r#"{"type":"conversation.item.created","previous_item_id":null,"item":{"id":"item_u1","type":"message"}}"#,
            Input::AgentAlive,
        ),
        (
            r#"{"type":"response.audio_timestamp.delta","item_id":"item_a1","audio_offset_ms":0,"audio_duration_ms":387,"text":"Shalom","timestamp_type":"word"}"#,
            Input::AgentAlive,
        ),
        (
            r#"{"type":"conversation.item.input_audio_transcription.failed","item_id":"item_u1","content_index":0,"error":{"type":"server_error","code":null,"message":"no","param":null}}"#,
            Input::AgentAlive,
        ),
        (
            r#"{"type":"response.invocation.delta","response_id":"resp_1","delta":{"step":"thinking"}}"#,
            Input::AgentAlive,
        ),
    ] {
        let decoded = match decoded(message) {
            Ok(Event::Answered(answered, _)) => Ok(Event::Input(Input::AgentAnswered(answered))),
            other => other,
        };
        assert_eq!(decoded, Ok(Event::Input(expected)), "{message}");
    }
    let audio = decoded(
        r#"{"type":"response.audio.delta","response_id":"resp_1","item_id":"item_a1","output_index":0,"content_index":0,"delta":"//9/f39/"}"#,
    );
    let Ok(Event::Input(Input::AgentAudio { item, chunk })) = audio else {
        panic!("audio expected");
    };
    assert_eq!(item.as_bytes(), b"item_a1");
    assert_eq!(chunk.samples(), [0xFF, 0xFF, 0x7F, 0x7F, 0x7F, 0x7F]);
    assert_eq!(
        decoded(r#"{"type":"response.audio.delta","item_id":"item_a1","delta":{"a":1}}"#),
        Err(Garbled)
    );
    let error = r#"{"type":"error","error":{"type":"invalid_request_error","code":"session_expired","message":"over","param":null,"event_id":null}}"#;
    assert_eq!(decoded(error), Ok(Event::Complaint(Complaint::Expired)));
}

/// Messages that are almost right, and others.
fn any_message() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec![
        "session.created",
        "session.updated",
        "response.audio.delta",
        "response.audio.done",
        "response.audio_transcript.done",
        "response.invocation.delta",
        "response.done",
        "warning",
        "error",
        "else",
    ]);
    let values = prop::sample::select(vec![
        "null",
        "{}",
        "[]",
        "7",
        "-1e300",
        r#""""#,
        r#""//9/""#,
        r#"{"input_audio_format":7}"#,
        r#"{"input_audio_sampling_rate":-1}"#,
        r#"{"status":"failed","status_details":{"error":{"code":"x"}}}"#,
    ]);
    let names = prop::sample::select(vec![
        "session",
        "delta",
        "item_id",
        "transcript",
        "response",
        "error",
        "warning",
        "rate_limits",
    ]);
    let fields = prop::collection::vec((names, values), 0..4);
    let event = (kinds, fields).prop_map(|(kind, fields)| {
        let fields = fields
            .iter()
            .map(|(name, value)| format!(r#","{name}":{value}"#));
        format!(r#"{{"type":"{kind}"{}}}"#, fields.collect::<String>())
    });
    prop_oneof![3 => event, 1 => ".{0,200}"]
}

proptest! {
    #[test]
    fn no_message_makes_us_panic(message in any_message()) {
        for dialect in [Dialect::OpenAi, Dialect::VoiceLive] {
            for encoding in [Encoding::Mulaw, Encoding::Pcm16k, Encoding::Pcm24k] {
                let message = Bytes::from(message.clone());
                let _ = openai::decode(&message, dialect, encoding);
            }
        }
    }
}
