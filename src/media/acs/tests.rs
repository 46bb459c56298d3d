use proptest::prelude::*;

use super::*;
use crate::official::record;

const FRAME_24K: usize = 960;

fn stream() -> MediaStream {
    let mut stream = MediaStream::new(Encoding::Pcm24k);
    assert_eq!(read(&mut stream, METADATA), Ok(Event::Ignored));
    stream
}

const METADATA: &str = r#"{"kind":"AudioMetadata","audioMetadata":{"subscriptionId":"89e8cb59-b991-48b0-b154-1db84f16a077","encoding":"PCM","sampleRate":24000,"channels":1,"length":960}}"#;

fn read(stream: &mut MediaStream, message: &str) -> Result<Event, Fault> {
    stream.read(&Bytes::from(message.to_owned()))
}

fn audio(fields: &str) -> String {
    format!(r#"{{"kind":"AudioData","audioData":{{{fields}}}}}"#)
}

fn heard(read: Result<Event, Fault>) -> (Chunk, Duration) {
    let Ok(Event::Input(Input::CallerAudio { chunk, starts_at })) = read else {
        panic!("{read:?} is no audio");
    };
    (chunk, starts_at)
}

#[test]
fn audio_counts_once_it_is_described_and_stays_a_part_of_its_message() {
    let frame = Chunk::encode(&[7; FRAME_24K], Encoding::Pcm24k);
    let text = std::str::from_utf8(frame.text()).unwrap();
    let message = Bytes::from(audio(&format!(
        r#""timestamp":"2026-01-06T10:20:34.125Z","participantRawID":null,"data":"{text}","silent":false"#
    )));
    let mut early = MediaStream::new(Encoding::Pcm24k);
    assert_eq!(early.read(&message), Ok(Event::Ignored));
    let mut stream = stream();
    let (chunk, starts_at) = heard(stream.read(&message));
    assert_eq!((&chunk, starts_at), (&frame, Duration::ZERO));
    assert!(message.as_ptr_range().contains(&chunk.text().as_ptr()));
}

#[test]
fn both_casings_of_the_vendors_packages_are_understood() {
    let pascal = r#"{"Kind":"AudioData","AudioData":{"Data":"AAAAAAAA","Timestamp":"2026-01-06T10:20:34.125Z","Silent":false}}"#;
    let (chunk, _) = heard(read(&mut stream(), pascal));
    assert_eq!(chunk.samples(), [0; 6]);
    let metadata = r#"{"Kind":"AudioMetadata","AudioMetadata":{"Encoding":"pcm","SampleRate":24000,"Channels":1}}"#;
    let mut stream = MediaStream::new(Encoding::Pcm24k);
    assert_eq!(read(&mut stream, metadata), Ok(Event::Ignored));
    heard(read(&mut stream, pascal));
}

#[test]
fn silence_that_is_left_out_is_put_back() {
    let mut stream = stream();
    for left_out in [
        r#""silent":true"#,
        r#""data":"","silent":true"#,
        r#""data":null,"silent":true"#,
        r#""data":"""#, // A missing flag means silence in the vendor's samples.
    ] {
        let (chunk, _) = heard(read(&mut stream, &audio(left_out)));
        assert_eq!(chunk.samples(), [0; FRAME_24K], "{left_out}");
    }
    let nothing = read(&mut stream, &audio(r#""data":"","silent":false"#));
    assert_eq!(nothing, Ok(Event::Ignored));
}

#[test]
fn times_tell_a_hole_where_they_are_fine_enough() {
    let mut stream = stream();
    let mut at = |time: &str| {
        let fields = format!(r#""silent":true,"timestamp":"{time}""#);
        heard(read(&mut stream, &audio(&fields))).1.as_millis()
    };
    assert_eq!(at("2026-01-06T10:20:34.125Z"), 0);
    assert_eq!(at("2026-01-06T10:20:34.145Z"), 20);
    assert_eq!(at("2026-01-06T10:20:34.345Z"), 220);
    assert_eq!(at("2026-01-06T10:20:36Z"), 240); // Too coarse.
    assert_eq!(at("2026-01-06T10:20:30.000Z"), 260); // Backwards.
    assert_eq!(at("yesterday."), 280);
    assert_eq!(at("2027-01-06T10:20:30.000Z"), 60_300); // A jump of the clock.
}

#[test]
fn keys_come_as_characters_or_as_words() {
    for (sent, key) in [
        ("3", '3'),
        ("#", '#'),
        ("*", '*'),
        ("pound", '#'),
        ("Asterisk", '*'),
    ] {
        let message = format!(
            r#"{{"kind":"DtmfData","dtmfData":{{"data":"{sent}","timestamp":"2026-01-06T10:20:40Z","participantRawID":"4:+14255550123"}}}}"#
        );
        let pressed = Event::Input(Input::CallerPressed(key));
        assert_eq!(read(&mut stream(), &message), Ok(pressed));
    }
}

#[test]
fn what_makes_no_sense_is_told_apart() {
    for (message, expected) in [
        ("", Err(Fault::Garbled)),
        ("[]", Err(Fault::Garbled)),
        ("{}", Err(Fault::Garbled)),
        (r#"{"kind":7}"#, Err(Fault::Garbled)),
        (r#"{"kind":"AudioData"}"#, Err(Fault::Garbled)),
        (
            r#"{"kind":"AudioData","audioData":{"data":7}}"#,
            Err(Fault::Garbled),
        ),
        (
            r#"{"kind":"AudioData","audioData":{"data":"no base64!"}}"#,
            Err(Fault::Garbled),
        ),
        // Three bytes end within a sample.
        (
            r#"{"kind":"AudioData","audioData":{"data":"AAAA"}}"#,
            Err(Fault::Garbled),
        ),
        (
            r#"{"kind":"DtmfData","dtmfData":{"data":"??"}}"#,
            Err(Fault::Garbled),
        ),
        (r#"{"kind":"TranscriptionData"}"#, Ok(Event::Ignored)),
        (
            r#"{"kind":"AudioMetadata","audioMetadata":{"encoding":"PCM","sampleRate":16000,"channels":1,"length":640}}"#,
            Err(Fault::WrongFormat),
        ),
        (
            r#"{"kind":"AudioMetadata","audioMetadata":{"encoding":"PCM","sampleRate":24000,"channels":2}}"#,
            Err(Fault::WrongFormat),
        ),
        (
            r#"{"kind":"AudioMetadata","audioMetadata":{}}"#,
            Err(Fault::Garbled),
        ),
    ] {
        assert_eq!(read(&mut stream(), message), expected, "{message}");
    }
}

#[test]
fn our_messages_are_those_that_the_service_takes() {
    let chunk = Chunk::encode(&[0; 6], Encoding::Pcm24k);
    assert_eq!(
        stream().play(&chunk),
        r#"{"kind":"AudioData","audioData":{"data":"AAAAAAAA"}}"#
    );
    assert_eq!(
        MediaStream::clear(),
        r#"{"kind":"StopAudio","stopAudio":{}}"#
    );
}

#[test]
fn our_messages_are_recorded_to_be_held_against_the_vendors_own() {
    let mut messages = vec![MediaStream::clear()];
    for encoding in [Encoding::Pcm16k, Encoding::Pcm24k] {
        let frame = Chunk::encode(&vec![7; encoding.rate() as usize / 50], encoding);
        messages.push(MediaStream::new(encoding).play(&frame));
    }
    let texts = messages
        .iter()
        .map(|message| str::from_utf8(message).unwrap());
    record("acs-media.jsonl", texts);
}

proptest! {
    #[test]
    fn no_message_makes_us_panic(message in ".{0,200}", kind in "[A-Za-z]{0,12}", value in ".{0,20}") {
        let mut stream = stream();
        let _ = read(&mut stream, &message);
        let value = serde_json::to_string(&value).unwrap();
        let member = kind.chars().next().map_or(String::new(), |first| {
            format!("{}{}", first.to_ascii_lowercase(), &kind[1..])
        });
        let shaped = format!(r#"{{"kind":"{kind}","{member}":{{"data":{value},"timestamp":{value}}}}}"#);
        let _ = read(&mut stream, &shaped);
    }
}
