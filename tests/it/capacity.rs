//! Every call has one slot, and every slot comes back.

use callgate::EndReason;
use futures_util::future::join_all;

use crate::{
    carrier::call_sid,
    gateway::{Call, Ringing, TestGateway},
    line::{Line, stop},
};

const FINAL: [&str; 5] = ["completed", "busy", "failed", "no-answer", "canceled"];

#[tokio::test]
async fn a_hung_up_call_gives_its_slot_to_the_next_caller() {
    let gateway = TestGateway::with_slots(1).await;
    let first = gateway.ring().await.connected().await;
    gateway.ring().await.refused_as_busy();
    let sid = first.sid.clone();
    first.hang_up().await;
    gateway.until_active(0).await;
    // Had the carrier asked what follows: nothing does.
    assert_eq!(gateway.stream_ended(&sid).await.verbs(), ["Hangup"]);
    gateway.ring().await.connected().await.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn exactly_as_many_calls_come_in_as_there_are_slots() {
    let settings = [("MAX_ACTIVE_CALLS", "5"), ("WORKERS", "2")];
    let gateway = TestGateway::with(&settings).await;
    let calls = join_all((0..20).map(|_| gateway.ring())).await;
    let (admitted, refused): (Vec<_>, Vec<_>) = calls
        .into_iter()
        .partition(|call| call.answer.verbs()[0] == "Connect");
    assert_eq!((admitted.len(), refused.len()), (5, 15));
    for call in &refused {
        call.refused_as_busy();
        // The same webhook again is the same call, and hears the same.
        gateway.ring_as(&call.sid).await.refused_as_busy();
    }
    assert_eq!(gateway.detail("at_capacity").await, true);
    let refusals = "calls_rejected_max_concurrent_total";
    assert_eq!(gateway.figure(refusals).await, 15);
    let calls = join_all(admitted.into_iter().map(Ringing::connected)).await;
    assert_eq!(gateway.active_calls().await, 5);
    join_all(calls.into_iter().map(Call::hang_up)).await;
    gateway.finish().await;
}

#[tokio::test]
async fn each_scope_has_its_own_cap() {
    for cap in [
        "TELEPHONY_GLOBAL_MAX_CONCURRENCY",
        "MAX_CALLS_PER_TENANT",
        "TELEPHONY_PER_CAMPAIGN_MAX_CONCURRENCY",
        "MAX_SETUP_CALLS",
    ] {
        let gateway = TestGateway::with(&[(cap, "1")]).await;
        let first = gateway.ring().await;
        gateway.ring().await.refused_as_busy();
        let first = first.connected().await;
        let second = gateway.ring().await;
        if cap == "MAX_SETUP_CALLS" {
            assert_eq!(second.answer.verbs()[0], "Connect", "{cap}");
        } else {
            second.refused_as_busy();
        }
        gateway.status(&second.sid, "completed").await;
        first.hang_up().await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn a_final_status_frees_the_slot_of_a_call_whose_media_has_not_come() {
    let gateway = TestGateway::with_slots(1).await;
    for status in FINAL {
        let ringing = gateway.ring().await;
        for early in ["initiated", "ringing", "in-progress", "something-new"] {
            gateway.status(&ringing.sid, early).await;
        }
        assert_eq!(gateway.active_calls().await, 1);
        gateway.status(&ringing.sid, status).await;
        assert_eq!(gateway.active_calls().await, 0, "{status}");
        // Repeated, late, or another one: all of it changes nothing.
        for again in ["ringing", status, "completed", "in-progress"] {
            gateway.status(&ringing.sid, again).await;
        }
        assert_eq!(gateway.active_calls().await, 0, "{status}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_that_has_ended_is_never_admitted_again() {
    let gateway = TestGateway::with_slots(1).await;
    // Its end was told before its beginning.
    let early = call_sid();
    gateway.status(&early, "completed").await;
    // Its end was told while it rang, and its webhook comes again.
    let short = gateway.ring().await;
    gateway.status(&short.sid, "no-answer").await;
    // It had its whole life.
    let whole = gateway.ring().await.connected().await;
    let whole_sid = whole.sid.clone();
    whole.hang_up().await;
    gateway.until_active(0).await;
    for sid in [&early, &short.sid, &whole_sid] {
        let again = gateway.ring_as(sid).await;
        assert_eq!(again.answer.verbs(), ["Hangup"], "{sid}");
    }
    assert_eq!(gateway.active_calls().await, 0);
    // Nor does its ticket open a call.
    let socket = short.socket().await;
    let line = Line::begin(socket, &short.sid, short.admitted().1).await;
    line.closed().await;
    assert_eq!(gateway.active_calls().await, 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_final_status_ends_a_call_whose_media_is_still_open() {
    let gateway = TestGateway::with_slots(1).await;
    let call = gateway.ring().await.connected().await;
    gateway.status(&call.sid, "completed").await;
    call.line.closed().await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::CarrierEnded);
    gateway.status(&call.sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_call_that_hangs_up_before_its_agent_is_there_gives_everything_back() {
    let gateway = TestGateway::with_slots(1).await;
    let call = gateway.ring().await.connected().await;
    call.line.send(stop(&call.sid));
    call.line.closed().await;
    gateway.until_active(0).await;
    gateway.finish().await;
}
