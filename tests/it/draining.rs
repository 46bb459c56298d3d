//! A gateway that is told to go: calls first, then the server, and nothing stays behind.

use std::future::pending;

use callgate::EndReason;
use tokio::sync::oneshot;

use crate::{
    audio::{FRAME, syllables},
    carrier::Reply,
    gateway::{BUSY, TestGateway, drained, eventually},
    line::stop,
};

const GOODBYE: &str = "תודה על פנייתכם";

#[tokio::test]
async fn while_a_gateway_drains_live_calls_go_on_and_no_others_begin() {
    let mut gateway = TestGateway::start().await;
    let call = gateway.ring().await.connected().await;
    let early = gateway.ring().await;
    gateway.status(&early.sid, "completed").await;
    let url = early.admitted().0.to_owned();
    call.line.until_played(9_600).await;
    let told = async {
        eventually(async || {
            let ready = gateway.carrier.get("/health/ready");
            Reply::to(ready).await.status == 503
        })
        .await;
        let live = gateway.carrier.page("/health/live").await;
        assert_eq!(
            live["status"], "alive",
            "a process that drains is not to be restarted"
        );
        assert_eq!(gateway.detail("status").await, "draining");
        let busy = gateway.ring().await;
        assert_eq!(busy.answer.last_words(), BUSY);
        assert_eq!(gateway.carrier.open(&url).await.err(), Some(503));
        // The call that is live has its conversation all the same.
        let played = call.line.played(0).len();
        call.line.speak(syllables(1_100.0, 30));
        call.line.until_played(played + 20 * FRAME).await;
        assert!(call.line.is_open());
        call.line.send(stop(&call.sid));
        call.line.closed().await;
    };
    drained(async { tokio::join!(gateway.drain(pending()), told) }).await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::CallerHungUp);
    drop(call);
    gateway.is_gone().await;
    gateway.parrot.take().unwrap().stop().await;
}

#[tokio::test]
async fn a_call_that_outlasts_the_drain_is_told_goodbye() {
    let mut gateway = TestGateway::with(&[("DRAIN_SECONDS", "1")]).await;
    let calls = [
        gateway.ring().await.connected().await,
        gateway.ring().await.connected().await,
    ];
    let told = async {
        for call in &calls {
            assert_eq!(call.line.closed().await, 1012);
            assert_eq!(gateway.ended(&call.sid).await, EndReason::Drained);
            let words = gateway.stream_ended(&call.sid).await;
            assert!(words.last_words().starts_with(GOODBYE));
        }
    };
    drained(async { tokio::join!(gateway.drain(pending()), told) }).await;
    gateway.is_gone().await;
    drop(calls);
    let parrot = gateway.parrot.take().unwrap();
    eventually(async || parrot.sessions() == 0).await;
    parrot.stop().await;
}

#[tokio::test]
async fn who_is_told_twice_to_go_goes_at_once() {
    let mut gateway = TestGateway::with(&[("DRAIN_SECONDS", "86400")]).await;
    let call = gateway.ring().await.connected().await;
    let ringing = gateway.ring().await;
    let (hurry, hurried) = oneshot::channel::<()>();
    let told = async {
        eventually(async || {
            let ready = gateway.carrier.get("/health/ready");
            Reply::to(ready).await.status == 503
        })
        .await;
        assert!(call.line.is_open());
        hurry.send(()).unwrap();
        call.line.closed().await; // In such a hurry it may be without a goodbye.
    };
    let ending = gateway.drain(async {
        let _ = hurried.await;
    });
    drained(async { tokio::join!(ending, told) }).await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::Stopped);
    gateway.is_gone().await;
    assert_eq!(ringing.answer.verbs()[0], "Connect");
    drop((call, ringing));
    let parrot = gateway.parrot.take().unwrap();
    eventually(async || parrot.sessions() == 0).await;
    parrot.stop().await;
}

#[tokio::test]
async fn an_idle_gateway_goes_at_once() {
    let gateway = TestGateway::with(&[("DRAIN_SECONDS", "86400")]).await;
    drained(gateway.drain(pending())).await;
    gateway.is_gone().await;
}
