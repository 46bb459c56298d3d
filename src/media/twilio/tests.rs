use super::*;

const START: &str = r#"{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{"accountSid":"AC1","callSid":"CA1","streamSid":"MZ1","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"customParameters":{"ticket":"t"}}}"#;

fn read(stream: &mut MediaStream, message: &str) -> Result<Event, Fault> {
    stream.read(&Bytes::from(message.to_owned()))
}

fn started() -> MediaStream {
    let mut stream = MediaStream::default();
    assert!(matches!(read(&mut stream, START), Ok(Event::Started(_))));
    stream
}

#[test]
fn a_stream_starts_once_and_says_whose_it_is() {
    let mut stream = MediaStream::default();
    let connected = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#;
    assert_eq!(read(&mut stream, connected), Ok(Event::Ignored));
    let Ok(Event::Started(start)) = read(&mut stream, START) else {
        panic!("a start expected");
    };
    assert_eq!(
        (start.call.as_str(), start.account.as_str()),
        ("CA1", "AC1")
    );
    assert_eq!(start.parameters["ticket"], "t");
    assert_eq!(read(&mut stream, START), Ok(Event::Ignored));
    for (changed, to) in [("CA1", "CA2"), ("MZ1", "MZ2")] {
        let other = START.replace(changed, to);
        assert_eq!(read(&mut stream, &other), Err(Fault::OtherStream));
    }
}

#[test]
fn audio_counts_from_the_start_on_and_keeps_its_place() {
    let media = |at: &str| {
        format!(
            r#"{{"event":"media","sequenceNumber":"7","streamSid":"MZ1","media":{{"track":"inbound","chunk":"6"{at},"payload":"//7+/v7+"}}}}"#
        )
    };
    let mut stream = MediaStream::default();
    assert_eq!(read(&mut stream, &media("")), Ok(Event::Ignored));
    let mut stream = started();
    for (at, expected) in [
        (r#","timestamp":"124""#, 124),
        ("", 144),
        (r#","timestamp":"x""#, 164),
    ] {
        let Ok(Event::Input(Input::CallerAudio { starts_at, chunk })) =
            read(&mut stream, &media(at))
        else {
            panic!("audio expected");
        };
        assert_eq!(starts_at, Duration::from_millis(expected));
        assert_eq!(chunk.samples(), [0xFF, 0xFE, 0xFE, 0xFE, 0xFE, 0xFE]);
    }
}

#[test]
fn keys_marks_and_the_stop_are_understood() {
    let mut stream = started();
    let dtmf = r#"{"event":"dtmf","streamSid":"MZ1","sequenceNumber":"90","dtmf":{"track":"inbound_track","digit":"5"}}"#;
    assert_eq!(
        read(&mut stream, dtmf),
        Ok(Event::Input(Input::CallerPressed('5')))
    );
    let mark =
        r#"{"event":"mark","sequenceNumber":"203","streamSid":"MZ1","mark":{"name":"g3:m17"}}"#;
    let heard = Mark {
        generation: 3,
        number: 17,
    };
    assert_eq!(
        read(&mut stream, mark),
        Ok(Event::Input(Input::CallerHeard(heard)))
    );
    assert_eq!(
        read(&mut stream, &mark.replace("g3:m17", "theirs")),
        Ok(Event::Ignored)
    );
    let stop = r#"{"event":"stop","sequenceNumber":"950","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}"#;
    assert_eq!(
        read(&mut stream, stop),
        Ok(Event::Input(Input::CallerHungUp))
    );
}

#[test]
fn our_messages_have_exactly_the_fields_that_twilio_takes() {
    let mut stream = started();
    let text = |message: Option<Bytes>| String::from_utf8(message.unwrap().to_vec()).unwrap();
    let chunk = Chunk::encode(&[0xFF; 3], Encoding::Mulaw);
    assert_eq!(
        text(stream.play(&chunk)),
        r#"{"event":"media","streamSid":"MZ1","media":{"payload":"////"}}"#
    );
    assert_eq!(
        text(stream.mark(Mark {
            generation: 3,
            number: 17
        })),
        r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"g3:m17"}}"#
    );
    assert_eq!(
        text(stream.clear()),
        r#"{"event":"clear","streamSid":"MZ1"}"#
    );
    assert_eq!(MediaStream::default().play(&chunk), None);
}

#[test]
fn what_is_not_a_stream_of_telephone_audio_is_told_apart() {
    for (message, fault) in [
        ("", Fault::Garbled),
        ("[]", Fault::Garbled),
        (r#"{"event":7}"#, Fault::Garbled),
        (r#"{"event":"media","streamSid":"MZ1"}"#, Fault::Garbled),
        (
            r#"{"event":"media","streamSid":"MZ1","media":{"payload":"a\"b="}}"#,
            Fault::Garbled,
        ),
        (
            r#"{"event":"media","streamSid":"MZ9","media":{"payload":"AAAA"}}"#,
            Fault::OtherStream,
        ),
        (
            r#"{"event":"dtmf","streamSid":"MZ1","dtmf":{"digit":"12"}}"#,
            Fault::Garbled,
        ),
    ] {
        assert_eq!(read(&mut started(), message), Err(fault), "{message}");
    }
    for (changed, to, fault) in [
        ("audio/x-mulaw", "audio/pcm", Fault::WrongFormat),
        ("8000", "16000", Fault::WrongFormat),
        (r#""callSid":"CA1""#, r#""callSid":"CA*""#, Fault::Garbled),
        (r#""MZ1""#, r#""MZ\"1""#, Fault::Garbled),
    ] {
        let start = START.replace(changed, to);
        assert_eq!(
            read(&mut MediaStream::default(), &start),
            Err(fault),
            "{start}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_message_makes_us_panic(message in ".{0,200}") {
        let _ = read(&mut started(), &message);
    }
}
