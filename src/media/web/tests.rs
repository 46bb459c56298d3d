use super::*;

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
    let pong = Event::Reply(Message::Text(r#"{"Id":7,"Kind":"Pong"}"#.into()));
    assert_eq!(read(r#"{"Kind":"Ping","Id":7}"#), Ok(pong));
    assert_eq!(read(r#"{"Kind":"Future","Data":{}}"#), Ok(Event::Ignored));
    for garbled in ["", "7", "{}", r#"{"Kind":7}"#, r#"{"Kind":"Ping","Id":-1}"#] {
        assert_eq!(read(garbled), Err(Fault::Garbled), "{garbled}");
    }
}

#[test]
fn the_page_is_told_in_its_own_words() {
    let said = MediaStream::said(Speaker::Caller, "say \"hello\"");
    assert_eq!(
        said,
        r#"{"Kind":"Transcription","Speaker":"caller","Text":"say \"hello\""}"#
    );
    let ended = MediaStream::tell(State::Ended(EndReason::AgentTooSlow), &Language::default());
    assert_eq!(
        ended,
        r#"{"Kind":"State","Language":"he-IL","Reason":"agent_too_slow","State":"ended"}"#
    );
    let clear = r#"{"Kind":"StopAudio","AudioData":null,"StopAudio":{}}"#;
    assert_eq!(MediaStream::clear(), clear);
}
