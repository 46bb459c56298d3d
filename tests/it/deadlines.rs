//! What does not come in time is not waited for. These deadlines are long, so they run out at the
//! same time.

use std::time::Duration;

use callgate::EndReason;
use serde_json::json;
use tokio::time::interval;

use crate::{
    agent::ScriptedAgent,
    audio::{FRAME, SILENCE},
    cut::Proxy,
    gateway::{TestGateway, eventually},
    line::{Line, media, start},
    media_socket::{closed, send},
};

#[tokio::test]
async fn slow_what_does_not_come_in_time_is_not_waited_for() {
    tokio::join!(
        a_call_whose_media_never_comes_gives_its_slot_back(),
        a_socket_that_does_not_say_whose_it_is_is_closed(),
        a_socket_that_brings_nothing_and_a_call_that_goes_on_for_ever_are_ended(),
        a_socket_that_answers_no_ping_is_ended(),
        an_agent_that_falls_silent_though_it_is_connected_ends_the_call(),
    );
}

async fn a_call_whose_media_never_comes_gives_its_slot_back() {
    let gateway = TestGateway::with_slots(1).await;
    let ringing = gateway.ring().await;
    let parrot = gateway.parrot.as_ref().unwrap();
    eventually(async || parrot.sessions() == 1).await;
    assert_eq!(gateway.ended(&ringing.sid).await, EndReason::NoMedia);
    assert_eq!(gateway.active_calls().await, 0);
    eventually(async || parrot.sessions() == 0).await;
    let late = Line::begin(ringing.socket().await, &ringing.sid, ringing.admitted().1);
    late.await.closed().await;
    assert_eq!(gateway.active_calls().await, 0);
    gateway.ring().await.connected().await.hang_up().await;
    gateway.finish().await;
}

async fn a_socket_that_does_not_say_whose_it_is_is_closed() {
    let gateway = TestGateway::start().await;
    let ringing = gateway.ring().await;
    let mut silent = ringing.socket().await;
    let mut babbling = ringing.socket().await;
    send(&mut silent, &json!({"event": "connected"})).await;
    for _ in 0..100 {
        send(&mut babbling, &media(0, &[SILENCE; FRAME])).await;
    }
    let (silent, babbling) = tokio::join!(closed(silent), closed(babbling));
    assert_eq!((silent, babbling), (1008, 1008));
    // The call itself can still be brought.
    ringing.connected().await.hang_up().await;
    gateway.finish().await;
}

async fn a_socket_that_brings_nothing_and_a_call_that_goes_on_for_ever_are_ended() {
    let gateway = TestGateway::start().await;
    let bounded = TestGateway::with(&[("MAX_CALL_SECONDS", "10")]).await;
    let no_media = async {
        let ringing = gateway.ring().await;
        let mut socket = ringing.socket().await;
        send(&mut socket, &start(&ringing.sid, ringing.admitted().1)).await;
        assert_eq!(closed(socket).await, 1000);
        let reason = gateway.ended(&ringing.sid).await;
        assert_eq!(reason, EndReason::MediaStalled);
        gateway.stream_ended(&ringing.sid).await
    };
    let too_long = async {
        let call = bounded.ring().await.connected().await;
        assert_eq!(call.line.closed().await, 1000);
        assert_eq!(bounded.ended(&call.sid).await, EndReason::TooLong);
        bounded.stream_ended(&call.sid).await
    };
    let (apology, goodbye) = tokio::join!(no_media, too_long);
    assert!(apology.last_words().starts_with("מצטערים"));
    assert!(goodbye.last_words().starts_with("תודה"));
    gateway.finish().await;
    bounded.finish().await;
}

async fn a_socket_that_answers_no_ping_is_ended() {
    let gateway = TestGateway::start().await;
    let ringing = gateway.ring().await;
    let mut socket = ringing.socket().await;
    send(&mut socket, &start(&ringing.sid, ringing.admitted().1)).await;
    // Talks and never listens, so that no ping is answered.
    let talking = async {
        let mut frames = interval(Duration::from_millis(20));
        loop {
            frames.tick().await;
            send(&mut socket, &media(0, &[SILENCE; FRAME])).await;
        }
    };
    let reason = tokio::select! {
        () = talking => unreachable!("a caller who does not listen"),
        reason = gateway.ended(&ringing.sid) => reason,
    };
    assert_eq!(reason, EndReason::CarrierUnresponsive);
    drop(socket);
    gateway.finish().await;
}

async fn an_agent_that_falls_silent_though_it_is_connected_ends_the_call() {
    let mut agent = ScriptedAgent::start().await;
    let proxy = Proxy::before(&agent.url).await;
    let gateway = TestGateway::with_agent(&proxy.url, &[]).await;
    let call = gateway.ring().await.connected().await;
    let mut session = agent.session().await;
    assert_eq!(
        session.hear_words().await.unwrap()["type"],
        "response.create"
    );
    proxy.stall();
    session.begin_response().await; // Nobody hears it any more.
    assert_eq!(gateway.ended(&call.sid).await, EndReason::AgentStalled);
    call.line.closed().await;
    gateway.finish().await;
}
