use serde_json::{Value, json};

use super::*;

fn json_of(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap()
}

#[test]
fn binary_messages_are_audio_in_order() {
    let mut stream = MediaStream::default();
    for n in 0..3 {
        let heard = stream.hear(&Bytes::from(vec![1; 960]));
        let chunk = Chunk::encode(&[1; 960], ENCODING);
        let starts_at = FRAME * n;
        let expected = Event::Input(Input::CallerAudio { chunk, starts_at });
        assert_eq!(heard, Ok(expected));
    }
    assert_eq!(stream.hear(&Bytes::new()), Ok(Event::Ignored));
    assert_eq!(
        stream.hear(&Bytes::from_static(b"odd")),
        Err(Fault::Garbled)
    );
}

#[test]
fn a_ping_is_answered_and_the_rest_ignored() {
    let read = |text: &'static str| MediaStream::read(&Bytes::from_static(text.as_bytes()));
    let Ok(Event::Reply(Message::Text(pong))) = read(r#"{"Kind":"Ping","Id":7}"#) else {
        panic!("a ping is answered");
    };
    assert_eq!(json_of(pong.as_bytes()), json!({"Kind": "Pong", "Id": 7}));
    assert_eq!(read(r#"{"Kind":"Future","Data":{}}"#), Ok(Event::Ignored));
    for garbled in ["", "7", "{}", r#"{"Kind":7}"#, r#"{"Kind":"Ping","Id":-1}"#] {
        assert_eq!(read(garbled), Err(Fault::Garbled), "{garbled}");
    }
}

#[test]
fn the_page_is_told_in_its_own_words() {
    let said = MediaStream::said(Speaker::Caller, "say \"hello\"");
    let expected = json!({"Kind": "Transcription", "Speaker": "caller", "Text": "say \"hello\""});
    assert_eq!(json_of(&said), expected);
    let ended = MediaStream::tell(State::Ended(EndReason::AgentTooSlow), &Language::default());
    let expected = json!({
        "Kind": "State", "Language": "he-IL", "Reason": "agent_too_slow", "State": "ended",
    });
    assert_eq!(json_of(&ended), expected);
    let clear = r#"{"Kind":"StopAudio","AudioData":null,"StopAudio":{}}"#;
    assert_eq!(MediaStream::clear(), clear);
}
