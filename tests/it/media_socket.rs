//! The media socket: whose it is, and what may come over it.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use callgate::{EndReason, What};

use crate::{
    agent::ScriptedAgent,
    audio::FRAME,
    carrier::{Socket, call_sid},
    gateway::{TestGateway, drained},
    line::{Line, STREAM, media, start, stop, text},
};

/// What tells which audio has reached an agent.
const FIRST: [u8; FRAME] = [0x11; FRAME];
const SECOND: [u8; FRAME] = [0x22; FRAME];
const QUIET: (&str, &str) = ("AGENT_GREETING", "none");

#[tokio::test]
async fn a_socket_without_the_calls_own_unused_ticket_is_closed_and_nothing_is_heard_of_it() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[QUIET]).await;
    let ringing = gateway.ring().await;
    let mut session = agent.session().await;
    let other = gateway.ring().await;
    agent.session().await;
    let (_, ticket) = ringing.admitted();
    let (_, others) = other.admitted();
    let mut forged = ticket.to_owned().into_bytes();
    let last = forged.last_mut().unwrap();
    *last = if *last == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let unknown = call_sid();
    for (what, sid, ticket) in [
        ("no ticket", ringing.sid.as_str(), ""),
        ("a forged one", &ringing.sid, forged.as_str()),
        ("half of it", &ringing.sid, &ticket[..ticket.len() / 2]),
        ("another call's", &ringing.sid, others),
        ("a wrong CallSid", &other.sid, ticket),
        ("an unknown CallSid", &unknown, ticket),
    ] {
        let mut socket = ringing.socket().await;
        send(&mut socket, &start(sid, ticket)).await;
        for _ in 0..10 {
            send(&mut socket, &media(0, &FIRST)).await;
        }
        let code = closed(socket).await;
        assert_eq!(code, 1008, "{what}");
    }
    // None of that has used up the ticket, nor has an agent heard a word of it.
    let call = ringing.connected().await;
    call.line.speak(SECOND.to_vec());
    let mut heard = Vec::new();
    while !heard.ends_with(&SECOND) {
        heard = session.hear_audio(FRAME).await;
        assert!(!heard.contains(&FIRST[0]), "audio of a stranger");
    }
    assert_eq!(gateway.active_calls().await, 2);
    gateway.status(&other.sid, "completed").await;
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let gateway = TestGateway::start().await;
    let first = gateway.ring().await.connected().await;
    let again = gateway.ring_as(&first.sid).await;
    let second = Line::begin(again.socket().await, &first.sid, &first.ticket).await;
    assert_eq!(second.closed().await, 1008);
    assert!(first.line.is_open());
    assert_eq!(gateway.active_calls().await, 1);
    first.agent_speaks().await;
    first.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn what_comes_before_the_start_belongs_to_nobody() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[QUIET]).await;
    let ringing = gateway.ring().await;
    let mut session = agent.session().await;
    let mut socket = ringing.socket().await;
    for early in [
        media(0, &FIRST),
        json!({"event": "connected"}),
        media(20, &FIRST),
    ] {
        send(&mut socket, &early).await;
    }
    send(&mut socket, &start(&ringing.sid, ringing.admitted().1)).await;
    send(&mut socket, &media(0, &SECOND)).await;
    assert_eq!(session.hear_audio(FRAME).await, SECOND);
    send(&mut socket, &stop(&ringing.sid)).await;
    assert_eq!(closed(socket).await, 1000);
    assert_eq!(gateway.ended(&ringing.sid).await, EndReason::CallerHungUp);
    gateway.finish().await;
}

#[tokio::test]
async fn a_second_start_is_ignored_unless_it_names_another_stream() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[QUIET]).await;
    for field in ["streamSid", "callSid", "a media's streamSid"] {
        let ringing = gateway.ring().await;
        let mut session = agent.session().await;
        let mut socket = ringing.socket().await;
        let start = start(&ringing.sid, ringing.admitted().1);
        send(&mut socket, &start).await;
        send(&mut socket, &start).await;
        send(&mut socket, &media(0, &FIRST)).await;
        assert_eq!(session.hear_audio(FRAME).await, FIRST, "{field}");
        let mut other = start;
        if field == "a media's streamSid" {
            other = media(20, &SECOND);
            other["streamSid"] = "MZ2".into();
        } else {
            other["start"][field] = "XX00000000000000000000000000000002".into();
        }
        send(&mut socket, &other).await;
        assert_eq!(closed(socket).await, 1008, "{field}");
        let reason = gateway.ended(&ringing.sid).await;
        assert_eq!(reason, EndReason::CarrierGarbled, "{field}");
        session.closed().await;
        gateway.stream_ended(&ringing.sid).await.last_words();
    }
    gateway.finish().await;
}

#[tokio::test]
async fn audio_that_is_not_a_telephones_ends_the_socket() {
    let gateway = TestGateway::start().await;
    for (field, value) in [
        ("encoding", json!("audio/x-l16")),
        ("sampleRate", json!(16_000)),
        ("channels", json!(2)),
    ] {
        let ringing = gateway.ring().await;
        let mut socket = ringing.socket().await;
        let mut start = start(&ringing.sid, ringing.admitted().1);
        start["start"]["mediaFormat"][field] = value;
        send(&mut socket, &start).await;
        assert_eq!(closed(socket).await, 1008, "{field}");
        gateway.status(&ringing.sid, "completed").await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn whatever_a_socket_sends_ends_that_socket_only() {
    let gateway = TestGateway::start().await;
    let bystander = gateway.ring().await.connected().await;
    let text = |text: &str| vec![Message::text(text.to_owned()); 200];
    for (what, messages, codes) in [
        ("no JSON", text("so this is not JSON"), &[1008][..]),
        ("no object", text("[[[[[[[[[[]]]]]]]]]]"), &[1008]),
        ("no event", text("{}"), &[1008]),
        (
            "wrong types",
            text(r#"{"event":"media","media":7}"#),
            &[1008],
        ),
        (
            "no base64",
            text(r#"{"event":"media","media":{"payload":"\"!"}}"#),
            &[1008],
        ),
        ("deep JSON", text(&"[".repeat(10_000)), &[1008]),
        (
            "binary",
            vec![Message::binary(vec![0, 159, 146]); 200],
            &[1008],
        ),
        (
            "an oversized message",
            text(&format!(r#"{{"event":"{}"}}"#, "x".repeat(70 << 10))),
            &[1008, 1009, 1006],
        ),
        (
            "a flood of pings",
            vec![Message::Ping("x".into()); 1_000],
            &[1008],
        ),
    ] {
        let ringing = gateway.ring().await;
        let mut socket = ringing.socket().await;
        send(&mut socket, &start(&ringing.sid, ringing.admitted().1)).await;
        let connected = |step: &What| (*step == What::Connected).then_some(());
        gateway.until_steps(&ringing.sid, connected).await;
        for message in messages {
            // The gateway may have closed before the last of them.
            let _ = socket.feed(message).await;
        }
        let _ = socket.flush().await;
        let code = closed(socket).await;
        assert!(codes.contains(&code), "{what}: {code}");
        let reason = gateway.ended(&ringing.sid).await;
        assert_eq!(reason, EndReason::CarrierGarbled, "{what}");
        gateway.until_active(1).await;
    }
    let before = bystander.line.until(|heard| Some(heard.sent)).await;
    bystander
        .line
        .until(|heard| (heard.sent > before + 10).then_some(()))
        .await;
    assert!(bystander.line.is_open());
    bystander.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_message_that_makes_no_sense_is_forgiven() {
    let gateway = TestGateway::start().await;
    let call = gateway.ring().await.connected().await;
    call.line
        .send(json!({"event": "something-new", "streamSid": STREAM}));
    call.line
        .send(json!({"event": "media", "streamSid": STREAM}));
    call.line.send(json!(["nothing"]));
    call.agent_speaks().await;
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_socket_that_breaks_off_without_a_stop_gives_everything_back() {
    let gateway = TestGateway::with_slots(1).await;
    let call = gateway.ring().await.connected().await;
    let sid = call.sid.clone();
    drop(call);
    assert_eq!(gateway.ended(&sid).await, EndReason::CarrierLost);
    gateway.until_active(0).await;
    let words = gateway.stream_ended(&sid).await;
    assert!(words.last_words().starts_with("מצטערים"));
    gateway.finish().await;
}

#[tokio::test]
async fn a_stop_before_the_start_ends_the_socket() {
    let gateway = TestGateway::start().await;
    let ringing = gateway.ring().await;
    let mut socket = ringing.socket().await;
    send(&mut socket, &stop(&ringing.sid)).await;
    closed(socket).await;
    gateway.status(&ringing.sid, "completed").await;
    gateway.finish().await;
}

pub async fn send(socket: &mut Socket, message: &Value) {
    // The gateway may have closed already: the reader of the socket finds out.
    let _ = socket.send(text(message)).await;
}

/// Waits until the gateway has closed the socket; 1006 if it only broke off.
pub async fn closed(mut socket: Socket) -> u16 {
    let closed = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => {
                    return frame.map_or(1005, |frame| frame.code.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return 1006,
            }
        }
    };
    drained(closed).await
}
