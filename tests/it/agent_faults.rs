//! What goes wrong with an agent ends in words, never in silence, and costs nobody else anything.

use callgate::{
    EndReason, What,
    parrot::{Fault, ParrotOptions},
};
use futures_util::future::join_all;

use crate::{
    agent::ScriptedAgent,
    audio::FRAME,
    cut::Proxy,
    gateway::{Call, TestGateway},
};

const APOLOGY: &str = "מצטערים, אירעה תקלה";
const GOODBYE: &str = "תודה על פנייתכם";

#[tokio::test]
async fn slow_each_fault_of_an_agent_ends_in_a_spoken_apology_with_its_own_reason() {
    use EndReason as End;
    let faults = [
        (Fault::Refuse, End::AgentUnreachable),
        (Fault::Unauthorized, End::AgentRefused),
        (Fault::RateLimit, End::AgentRefused),
        (Fault::Unavailable, End::AgentRefused),
        (Fault::HangTcp, End::AgentTooSlow),
        (Fault::HangUpgrade, End::AgentTooSlow),
        (Fault::HangSession, End::AgentTooSlow),
        (Fault::EarlyClose, End::AgentClosed),
        (Fault::CloseMidCall, End::AgentClosed),
        (Fault::Stall, End::AgentStalled),
        (Fault::Garbage, End::AgentGarbled),
        (Fault::HugeMessage, End::AgentGarbled),
        (Fault::WrongFormat, End::AgentWrongFormat),
        (Fault::FailedResponse, End::AgentFailed),
        (Fault::Expired, End::AgentExpired),
    ];
    let calls = faults.map(|(fault, reason)| async move {
        let mut gateway = TestGateway::with_parrot(with(fault), &[]).await;
        // One that does not even read cannot tell that it was left.
        let blind = gateway.parrot.take_if(|_| fault == Fault::HangTcp);
        let call = gateway.ring().await.connected().await;
        assert_eq!(call.line.closed().await, 1000, "{fault:?}");
        assert_eq!(gateway.ended(&call.sid).await, reason, "{fault:?}");
        let words = gateway.stream_ended(&call.sid).await;
        let expected = if fault == Fault::Expired {
            GOODBYE
        } else {
            APOLOGY
        };
        assert!(words.last_words().starts_with(expected), "{fault:?}");
        // The slot does not wait for the carrier's word.
        gateway.until_active(0).await;
        gateway.status(&call.sid, "completed").await;
        let ended = gateway.steps(&call.sid);
        let ends = ended.iter().filter(|step| matches!(step, What::Ended(_)));
        assert_eq!(ends.count(), 1, "{fault:?}");
        let line = reason_label(reason);
        assert_eq!(gateway.figure(&line).await, 1, "{line}");
        drop(call);
        gateway.finish().await;
        drop(blind);
    });
    join_all(calls).await;
}

#[tokio::test]
async fn an_answer_that_meets_a_rate_limit_is_asked_for_again() {
    let fault = with(Fault::RateLimitedResponse);
    let gateway = TestGateway::with_parrot(fault, &[]).await;
    let call = gateway.ring().await.connected().await;
    call.line.until_played(20 * FRAME).await;
    assert!(call.line.is_open());
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_agent_that_floods_is_no_burden_to_its_own_call_or_another() {
    let gateway = TestGateway::with_parrot(with(Fault::Flood), &[]).await;
    let calls = [
        gateway.ring().await.connected().await,
        gateway.ring().await.connected().await,
    ];
    for call in &calls {
        call.line.until_played(50 * FRAME).await;
        // The caller's phone is fed as it plays, so that an interruption is exact.
        let waiting = call.line.until(|heard| Some(heard.waiting)).await;
        assert!(
            waiting <= 8_000 * 5 / 2,
            "{waiting} bytes wait at the carrier"
        );
    }
    join_all(calls.map(Call::hang_up)).await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_agent_that_says_too_much_is_not_read_any_further() {
    /// An hour, in pieces of 5 s: no socket's buffers hold as much.
    const PIECES: usize = 720;
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[("AGENT_GREETING", "none")]).await;
    let call = gateway.ring().await.connected().await;
    let mut session = agent.session().await;
    session.begin_response().await;
    let flood = async {
        for _ in 0..PIECES {
            session.speak("item_1", &vec![0x11; 40_000]).await;
        }
    };
    tokio::select! {
        () = flood => panic!("an hour of audio was taken in at once"),
        () = call.line.until_played(100 * FRAME) => {}
    }
    // Neither is the caller deaf meanwhile, nor does the call not end.
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_agent_that_vanishes_in_the_middle_of_a_call_ends_it_with_an_apology() {
    let agent = callgate::parrot::Parrot::start(on_any_port())
        .await
        .unwrap();
    let proxy = Proxy::before(&agent.url()).await;
    let gateway = TestGateway::with_agent(&proxy.url, &[]).await;
    let call = gateway.ring().await.connected().await;
    call.line.until_played(10 * FRAME).await;
    proxy.cut();
    call.line.closed().await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::AgentClosed);
    let words = gateway.stream_ended(&call.sid).await;
    assert!(words.last_words().starts_with(APOLOGY));
    gateway.finish().await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_that_keeps_failing_is_left_alone_and_callers_hear_so_at_once() {
    let agent = callgate::parrot::Parrot::start(ParrotOptions {
        fault: Some(Fault::Unavailable),
        ..on_any_port()
    });
    let agent = agent.await.unwrap();
    let gateway = TestGateway::with_agent(&agent.url(), &[]).await;
    assert_eq!(gateway.detail("agent_resting").await, false);
    for _ in 0..3 {
        let call = gateway.ring().await.connected().await;
        assert_eq!(gateway.ended(&call.sid).await, EndReason::AgentRefused);
    }
    assert_eq!(gateway.detail("agent_resting").await, true);
    agent.stop().await;
    // Before being answered. A machine so slow that the rest is over by now lets one call try.
    let mut ringing = gateway.ring().await;
    while ringing.is_admitted() {
        let call = ringing.connected().await;
        gateway.ended(&call.sid).await;
        ringing = gateway.ring().await;
    }
    ringing.refused_as_busy();
    let refused = r#"calls_refused_total{scope="agent",reason="resting"}"#;
    assert_eq!(gateway.figure(refused).await, 1);
    gateway.finish().await;
}

#[tokio::test]
async fn an_agent_that_fails_for_one_call_serves_the_next() {
    let mut agent = ScriptedAgent::start().await;
    let gateway = TestGateway::with_agent(&agent.url, &[]).await;
    let first = gateway.ring().await.connected().await;
    let second = gateway.ring().await.connected().await;
    let broken = agent.session().await;
    let mut sound = agent.session().await;
    drop(broken);
    tokio::select! {
        _ = first.line.closed() => {}
        _ = second.line.closed() => {}
    }
    assert_ne!(first.line.is_open(), second.line.is_open());
    sound.begin_response().await;
    sound.speak("item_1", &[0x11; 800]).await;
    let survivor = if first.line.is_open() { first } else { second };
    survivor.line.until_played(800).await;
    survivor.hang_up().await;
    gateway.finish().await;
}

fn with(fault: Fault) -> ParrotOptions {
    ParrotOptions {
        fault: Some(fault),
        ..ParrotOptions::default()
    }
}

fn on_any_port() -> ParrotOptions {
    ParrotOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        ..ParrotOptions::default()
    }
}

fn reason_label(reason: EndReason) -> String {
    let name = serde_json::to_value(reason).unwrap();
    let labels = format!("carrier=\"twilio\",reason={name},blame=\"agent\"");
    format!("calls_ended_total{{{labels}}}")
}
