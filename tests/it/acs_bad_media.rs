//! Messages of a media socket that make no sense: some are let pass, and none is acted on.

use base64::{Engine, engine::general_purpose::STANDARD};
use callgate::{EndReason, fake_acs::Deed};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::{
    acs::AcsHouse,
    pcm::{FRAME, Heard, metadata, syllables},
};

/// How long the parrot's greeting is.
const TUNE: usize = 60 * FRAME;

/// How many rows are tried at once: most of their time they wait for words to be played.
const AT_ONCE: usize = 4;
/// How many messages may make no sense.
const MOST_GARBLED: u64 = 20;

const GARBLED: &str = "carrier_messages_garbled_total";
const ENDED: &str = r#"calls_ended_total{carrier="acs",reason="carrier_garbled",blame="carrier"}"#;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It counts as garbled; one more than a socket may send ends the call.
    Garbled,
    /// It ends the call.
    Ends,
    /// Nobody takes notice.
    Ignored,
}

#[tokio::test]
async fn messages_that_make_no_sense_are_let_pass_until_they_are_too_many() {
    let frame = STANDARD.encode([0; 2 * FRAME]);
    let long = "A".repeat(10 * (64 << 10));
    let audio = |data: Value| json!({"kind": "AudioData", "audioData": data});
    let rows = [
        (
            "audio of odd length",
            audio(json!({"data": STANDARD.encode([0; 2 * FRAME - 1]), "silent": false})),
            Fate::Garbled,
        ),
        (
            "audio that is no base64",
            audio(json!({"data": "?", "silent": false})),
            Fate::Garbled,
        ),
        (
            "audio of another type",
            audio(json!({"data": 7})),
            Fate::Garbled,
        ),
        (
            "a flag of another type",
            audio(json!({"data": frame, "silent": "no"})),
            Fate::Garbled,
        ),
        ("no audio data", json!({"kind": "AudioData"}), Fate::Garbled),
        (
            "audio data of another type",
            audio(json!("x")),
            Fate::Garbled,
        ),
        (
            "no kind",
            json!({"audioData": {"data": frame}}),
            Fate::Garbled,
        ),
        (
            "a kind of another type",
            json!({"kind": 7, "audioData": {"data": frame}}),
            Fate::Garbled,
        ),
        (
            "a kind of the future",
            json!({"kind": "MarkData", "markData": {"id": "1"}}),
            Fate::Ignored,
        ),
        ("no message", json!([]), Fate::Garbled),
        ("no key", json!({"kind": "DtmfData"}), Fate::Garbled),
        (
            "a key of another type",
            json!({"kind": "DtmfData", "dtmfData": {"data": 7}}),
            Fate::Garbled,
        ),
        (
            "a key that no phone has",
            json!({"kind": "DtmfData", "dtmfData": {"data": "3333333333"}}),
            Fate::Garbled,
        ),
        (
            "a description without its fields",
            json!({"kind": "AudioMetadata", "audioMetadata": {}}),
            Fate::Garbled,
        ),
        (
            "a description of another rate",
            metadata(16_000),
            Fate::Ends,
        ),
        (
            "audio ten times too long",
            audio(json!({"data": long, "silent": false})),
            Fate::Ends,
        ),
    ];
    let tried = rows.map(|(what, message, fate)| Box::pin(is_met(what, message, fate)));
    let tried = stream::iter(tried).buffer_unordered(AT_ONCE);
    tried.collect::<()>().await;
}

/// Sends a message on a call of its own, as often as it is let pass, and once more.
async fn is_met(what: &str, message: Value, fate: Fate) {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    call.line.until_played(FRAME).await;
    let send = |times| (0..times).for_each(|_| call.line.send(message.clone()));
    if fate != Fate::Ends {
        send(MOST_GARBLED);
        // The caller is heard as before: the agent is interrupted, or answers where it was through.
        call.line.speak(syllables(1_100.0, 30));
        let is_heard = |heard: &Heard| !heard.stops.is_empty() || heard.played.len() > TUNE;
        call.line.until(|heard| is_heard(heard).then_some(())).await;
        assert_eq!(house.gateway.active_calls().await, 1, "{what}");
    }
    send(1);
    if fate == Fate::Ignored {
        call.line.close();
        let reason = house.ended(&call.call).await;
        assert_eq!(reason, EndReason::CallerHungUp, "{what}");
    } else {
        assert_eq!(call.line.closed().await, 1008, "{what}");
        let reason = house.ended(&call.call).await;
        assert_eq!(reason, EndReason::CarrierGarbled, "{what}");
        assert_eq!(house.gateway.figure(ENDED).await, 1, "{what}");
        // ACS goes on with the call in silence, unless it is ended there.
        house.until(&call.call, |deed| *deed == Deed::HungUp).await;
    }
    let garbled = if fate == Fate::Garbled {
        MOST_GARBLED + 1
    } else {
        0
    };
    assert_eq!(house.gateway.figure(GARBLED).await, garbled, "{what}");
    drop(call);
    house.finish().await;
}
