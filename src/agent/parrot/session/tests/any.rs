//! Whatever a client may send.

use std::time::Duration;

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::{
    super::{Input, LONGEST_SESSION},
    call::{Call, FLAT_UPDATE, UPDATE, append, manner, silence, speech},
};
use crate::agent::{Dialect, parrot::Fault};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_client_can_break_or_fill_a_session(
        dialect in proptest::sample::select(vec![Dialect::OpenAi, Dialect::VoiceLive]),
        fault in proptest::option::of(proptest::sample::select(<Fault as clap::ValueEnum>::value_variants())),
        acts in vec((any_message(), 0..3_u64), 0..300),
    ) {
        let mut call = Call::of(manner(fault), dialect);
        call.say(match dialect {
            Dialect::OpenAi => UPDATE,
            Dialect::VoiceLive => FLAT_UPDATE,
        });
        for (message, seconds) in acts {
            call.sent.clear();
            call.now += Duration::from_secs(seconds);
            match message {
                Some(message) => call.say(&message),
                None => call.put(Input::BinaryMessage),
            }
            prop_assert!(call.sent.len() < 40);
            if call.session.deadline() < LONGEST_SESSION {
                call.tick();
            }
            prop_assert!(call.session.conversation.len() <= 200);
            prop_assert!(call.session.decoded.capacity() <= 8 * 1024);
        }
    }
}

fn any_message() -> impl Strategy<Value = Option<String>> {
    let ids = prop_oneof![Just("item_t1"), Just("item_t2"), Just("item_t3"), Just("x")];
    let kinds = proptest::sample::select(vec![
        "session.update",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "input_audio_buffer.clear",
        "conversation.item.create",
        "conversation.item.truncate",
        "conversation.item.delete",
        "response.create",
        "response.cancel",
        "else",
    ]);
    let append = (0..2_u8, 1..2_000_u32).prop_map(|(loud, ms)| {
        let audio = if loud == 1 { speech(ms) } else { silence(ms) };
        append(&audio)
    });
    let event = (kinds, ids, any::<u16>(), "[a-z]{0,70}").prop_map(|(kind, id, end, name)| {
        let (format, flat) = match end % 8 {
            0 => (json!({ "type": "audio/pcm", "rate": 24_000 }), "pcm16"),
            _ => (json!({ "type": "audio/pcmu" }), "g711_ulaw"),
        };
        json!({
            "type": kind, "event_id": name, "item_id": id, "content_index": 0,
            "audio_end_ms": end, "item": { "type": "message", "id": name }, "audio": name,
            "session": {
                "type": "realtime", "instructions": name,
                "input_audio_format": flat, "output_audio_format": flat,
                "audio": { "input": { "format": format }, "output": { "format": format } },
            },
        })
        .to_string()
    });
    prop_oneof![
        3 => append.prop_map(Some),
        4 => event.prop_map(Some),
        1 => any::<String>().prop_map(Some),
        1 => Just(None),
    ]
}
