//! Audio in other encodings, and Voice Live's dialect.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{Input, Session},
    CREATE,
    call::{Call, FLAT_UPDATE, manner, silence, speech},
};
use crate::{
    agent::{
        Dialect,
        parrot::{
            edge::{Ear, Mouth},
            hearing::level_db,
            voice,
            wire::Output,
        },
    },
    chunk::{Chunk, Encoding, duration_of},
    wire::in_order,
};

/// Returns a `session.update` that asks for `encoding` both ways.
fn asking_for(encoding: Encoding, dialect: Dialect) -> Value {
    let session = match (dialect, encoding) {
        (Dialect::OpenAi, _) => {
            let format = match encoding {
                Encoding::Mulaw => json!({ "type": "audio/pcmu" }),
                Encoding::Pcm16k | Encoding::Pcm24k => {
                    json!({ "type": "audio/pcm", "rate": encoding.rate() })
                }
            };
            let both = json!({ "format": format });
            json!({ "type": "realtime", "audio": { "input": both, "output": both } })
        }
        (Dialect::VoiceLive, Encoding::Mulaw) => json!({
            "input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw",
        }),
        (Dialect::VoiceLive, Encoding::Pcm16k) => json!({
            "input_audio_format": "pcm16", "input_audio_sampling_rate": 16_000,
            "output_audio_format": "pcm16_16000hz",
        }),
        (Dialect::VoiceLive, Encoding::Pcm24k) => json!({
            "input_audio_format": "pcm16", "input_audio_sampling_rate": 24_000,
            "output_audio_format": "pcm16",
        }),
    };
    json!({ "type": "session.update", "session": session })
}

#[test]
fn what_is_said_comes_back_in_every_encoding_of_each_dialect() {
    for (dialect, encoding) in [
        (Dialect::OpenAi, Encoding::Pcm24k),
        (Dialect::VoiceLive, Encoding::Mulaw),
        (Dialect::VoiceLive, Encoding::Pcm16k),
        (Dialect::VoiceLive, Encoding::Pcm24k),
    ] {
        let mut call = Call::of(manner(None), dialect);
        call.say(&asking_for(encoding, dialect).to_string());
        call.sent.clear();
        call.say(CREATE);
        call.run();
        let greeting = Ear::of(encoding).hear(&call.audio()).unwrap();
        assert_eq!(greeting.len(), voice::tune().len());
        assert!((level_db(&greeting) + 18.0).abs() < 0.5, "{encoding:?}");

        call.sent.clear();
        let words = [silence(400), speech(1_000), silence(600)].concat();
        let mut mouth = Mouth::of(encoding);
        for frame in words.chunks(160) {
            let said = Chunk::encode(&mouth.say(frame.to_vec()), encoding);
            let audio = str::from_utf8(said.text()).unwrap();
            let append = json!({ "type": "input_audio_buffer.append", "audio": audio });
            call.say(&append.to_string());
            call.now += duration_of(frame.len());
        }
        call.run();
        let answer = Ear::of(encoding).hear(&call.audio()).unwrap();
        let loud = answer.chunks(160).filter(|frame| level_db(frame) > -30.0);
        assert!(loud.count().abs_diff(50) <= 1, "{encoding:?}");
        assert_eq!(call.sent.last().unwrap()["type"], "response.done");
    }
}

#[test]
fn voice_live_begins_with_a_flat_session() {
    let mut session = Session::new(manner(None), Dialect::VoiceLive, "t".to_owned(), 3_600);
    let mut sent = session.handle(Duration::ZERO, Input::Opened);
    let Some(Output::Text(created)) = sent.next() else {
        panic!("a text expected");
    };
    let created: Value = serde_json::from_str(&created).unwrap();
    insta::assert_snapshot!(in_order(&created), @r#"{"event_id":"event_t1","session":{"expires_at":3600,"id":"sess_t","input_audio_format":"pcm16","input_audio_sampling_rate":24000,"input_audio_transcription":null,"instructions":"","modalities":["text","audio"],"model":"parrot","output_audio_format":"pcm16","tool_choice":"auto","tools":[],"turn_detection":{"auto_truncate":false,"create_response":true,"interrupt_response":true,"prefix_padding_ms":300,"silence_duration_ms":500,"threshold":0.5,"type":"server_vad"},"voice":{"name":"marin","type":"openai"}},"type":"session.created"}"#);
    drop(sent);
    let mut call = Call::of(manner(None), Dialect::VoiceLive);
    call.say(FLAT_UPDATE);
    let session = &call.sent[1]["session"];
    assert_eq!(session["voice"]["name"], "he-IL-HilaNeural");
    assert_eq!(session["input_audio_format"], "g711_ulaw");
    assert_eq!(session["input_audio_sampling_rate"], 8_000);
    assert_eq!(session["turn_detection"]["type"], "azure_semantic_vad");
    assert_eq!(session["turn_detection"]["auto_truncate"], false);
}

#[test]
fn voice_live_has_its_own_names_for_what_happens() {
    let mut call = Call::flat(None);
    call.hear(&speech(500));
    call.hear(&silence(600));
    call.run();
    insta::assert_snapshot!(call.kinds(), @r"
    input_audio_buffer.speech_started
    input_audio_buffer.speech_stopped
    input_audio_buffer.committed
    conversation.item.created
    conversation.item.input_audio_transcription.completed
    response.created
    response.output_item.added
    conversation.item.created
    response.content_part.added
    response.audio_transcript.delta
    response.audio.delta x3
    response.audio.done
    response.audio_transcript.done
    response.content_part.done
    response.output_item.done
    response.done
    ");
    let item = &call.sent.last().unwrap()["response"]["output"][0];
    assert_eq!(item["content"][0]["type"], "audio");
}

#[test]
fn an_answer_is_cut_by_the_clock_where_the_client_wants_that() {
    let on = r#"{"type":"session.update","session":{"turn_detection":{"type":"azure_semantic_vad","auto_truncate":true}}}"#;
    for (update, pause, cut) in [(on, 0, 1), (on, 2_000, 0), (FLAT_UPDATE, 0, 0)] {
        let mut call = Call::flat(None);
        call.say(update);
        call.say(CREATE);
        let began = call.now;
        call.run(); // It is sent in a quarter of the time that it takes to hear it.
        call.hear(&silence(pause));
        call.sent.clear();
        call.hear(&speech(200));
        let cuts = call.sent.iter();
        let cuts: Vec<_> = cuts
            .filter(|event| event["type"] == "conversation.item.truncated")
            .collect();
        assert_eq!(cuts.len(), cut, "{update}");
        for event in cuts {
            let heard = Duration::from_millis(event["audio_end_ms"].as_u64().unwrap());
            assert!(began + heard <= call.now && heard < Duration::from_millis(1_200));
        }
    }
}

#[test]
fn what_voice_live_would_not_take_is_refused() {
    for session in [
        r#"{"input_audio_format":"pcm16","input_audio_sampling_rate":44100}"#,
        r#"{"input_audio_format":"g711_ulaw","input_audio_sampling_rate":16000}"#,
        r#"{"input_audio_format":{"type":"audio/pcmu"}}"#,
        r#"{"input_audio_sampling_rate":16000}"#,
        r#"{"output_audio_format":"pcm16-16000hz"}"#,
        r#"{"output_audio_format":"g711_alaw"}"#,
        r#"{"voice":"marin"}"#,
        r#"{"turn_detection":{"type":"guess"}}"#,
    ] {
        let mut call = Call::flat(None);
        call.say(&format!(
            r#"{{"type":"session.update","session":{session}}}"#
        ));
        assert_eq!(call.code(), "invalid_value", "{session}");
    }
    let mut call = Call::of(manner(None), Dialect::VoiceLive);
    call.say(r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#);
    assert_eq!(call.code(), "invalid_value"); // A sample and a half.
}
