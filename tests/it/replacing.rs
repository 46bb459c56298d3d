//! A replica that goes, or has no place left, and the siblings that take its callers.

use std::future::pending;

use callgate::EndReason;

use crate::{
    carrier::Reply,
    gateway::{BUSY, Call, Replicas, TestGateway, drained, eventually},
    line::stop,
};

const ONE_PLACE: &[(&str, &str)] = &[("MAX_CONNECTIONS", "1")];

#[tokio::test(flavor = "multi_thread")]
async fn a_full_replica_sends_its_callers_to_one_that_has_places() {
    let replicas = Replicas::each(&[ONE_PLACE, &[]]).await;
    let (full, free) = (&replicas[0], &replicas[1]);
    let first = full.ring().await.connected().await;
    replicas.until_agents(1).await;
    let ringing = full.ring().await;
    assert_eq!(
        full.carrier.open(ringing.admitted().0).await.err(),
        Some(503)
    );
    // It cannot carry the call, so it calls no agent for it.
    assert_eq!(replicas.parrot.sessions(), 1);
    let second = ringing.on(free).connected().await;
    second.converses().await;
    replicas.until_agents(2).await;
    first.hang_up().await;
    second.hang_up().await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_turned_away_when_no_replica_has_a_place() {
    let replicas = Replicas::each(&[ONE_PLACE, ONE_PLACE]).await;
    let first = replicas[0].ring().await.connected().await;
    let second = replicas[1].ring().await.connected().await;
    for gateway in replicas.all() {
        // What the siblings have left is as old as their last tick.
        eventually(async || {
            let ringing = gateway.ring().await;
            gateway.status(&ringing.sid, "completed").await;
            !ringing.is_admitted()
        })
        .await;
        gateway.ring().await.refused_as_busy();
        let refusals = r#"calls_refused_total{scope="global",reason="connections"}"#;
        assert!(gateway.figure(refusals).await > 0);
    }
    assert_eq!(replicas.registered().await, 2);
    first.hang_up().await;
    let third = replicas[0].ring().await.connected().await;
    third.hang_up().await;
    second.hang_up().await;
    replicas.finish().await;
}

async fn a_replica_that_drains_admits_calls_for_its_siblings_to_carry() {
    let replicas = Replicas::start(2, &[]).await;
    let (leaving, staying) = (&replicas[0], &replicas[1]);
    let live = staying.ring().await.on(leaving).connected().await;
    live.converses().await;
    replicas.until_agents(1).await;
    let told = async {
        until_draining(leaving).await;
        let ringing = leaving.ring().await;
        assert_eq!(
            leaving.carrier.open(ringing.admitted().0).await.err(),
            Some(503)
        );
        assert_eq!(replicas.parrot.sessions(), 1, "it calls no agent");
        // The same webhook at the sibling is the same call.
        let again = staying.ring_as(&ringing.sid).await;
        assert_eq!(again.admitted(), ringing.admitted());
        let call = ringing.on(staying).connected().await;
        call.converses().await;
        assert_eq!(
            replicas.owner(&call.sid).await,
            staying.detail("replica").await
        );
        leaving.status(&call.sid, "completed").await;
        call.line.closed().await;
        assert_eq!(staying.ended(&call.sid).await, EndReason::CarrierEnded);
        live.converses().await;
        live.line.send(stop(&live.sid));
        live.line.closed().await;
    };
    drained(async { tokio::join!(leaving.drain(pending()), told) }).await;
    assert_eq!(leaving.ended(&live.sid).await, EndReason::CallerHungUp);
    eventually(async || staying.detail("replicas").await == 1).await;

    // Nobody is left but this one: now it says busy when it goes.
    let last = staying.ring().await.connected().await;
    let told = async {
        until_draining(staying).await;
        assert_eq!(staying.ring().await.answer.last_words(), BUSY);
        assert!(last.line.is_open());
        last.line.send(stop(&last.sid));
        last.line.closed().await;
    };
    drained(async { tokio::join!(staying.drain(pending()), told) }).await;
    replicas.finish().await;
}

async fn replicas_that_all_drain_say_busy() {
    let replicas = Replicas::start(2, &[]).await;
    let lives = [
        replicas[0].ring().await.connected().await,
        replicas[1].ring().await.connected().await,
    ];
    let told = async {
        for gateway in replicas.all() {
            until_draining(gateway).await;
        }
        for gateway in replicas.all() {
            eventually(async || {
                let ringing = gateway.ring().await;
                gateway.status(&ringing.sid, "completed").await;
                !ringing.is_admitted()
            })
            .await;
            gateway.ring().await.refused_as_busy();
        }
        assert_eq!(replicas.registered().await, 2);
        for live in &lives {
            live.converses().await;
            live.line.send(stop(&live.sid));
            live.line.closed().await;
        }
    };
    let (first, second) = (&replicas[0], &replicas[1]);
    drained(async { tokio::join!(first.drain(pending()), second.drain(pending()), told) }).await;
    drop(lives);
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_drains_leaves_its_callers_to_whoever_stays() {
    tokio::join!(
        a_replica_that_drains_admits_calls_for_its_siblings_to_carry(),
        replicas_that_all_drain_say_busy(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_are_replaced_one_after_another_and_no_call_is_cut() {
    let replicas = Replicas::start(3, &[("MAX_ACTIVE_CALLS", "8")]).await;
    let mut successors: Vec<TestGateway> = Vec::new();
    for _ in 0..3 {
        successors.push(replicas.another(&[("MAX_ACTIVE_CALLS", "8")]).await);
    }
    for at in 0..3 {
        let (old, new) = (&replicas[at], &successors[at]);
        eventually(async || old.detail("replicas").await == 6 - at).await;
        let calls = [
            new.ring().await.on(old).connected().await,
            old.ring().await.connected().await,
        ];
        let waiting = old.ring().await;
        let told = async {
            until_draining(old).await;
            // Who was ringing there, and who rings there now, goes to the new one.
            let moved = waiting.on(new).connected().await;
            let another = old.ring().await.on(new).connected().await;
            for call in calls.iter().chain([&moved, &another]) {
                call.converses().await;
            }
            assert_eq!(replicas.registered().await, 4);
            for call in calls {
                let sid = call.sid.clone();
                call.line.send(stop(&sid));
                call.line.closed().await;
                assert_eq!(old.ended(&sid).await, EndReason::CallerHungUp);
                new.status(&sid, "completed").await;
            }
            moved.hang_up().await;
            another.hang_up().await;
        };
        drained(async { tokio::join!(old.drain(pending()), told) }).await;
        old.is_gone().await;
    }
    let calls = [successors[0].ring().await, successors[1].ring().await];
    for (call, new) in calls.into_iter().zip([1, 2]) {
        let call: Call<'_> = call.on(&successors[new]).connected().await;
        call.hang_up().await;
    }
    replicas.until_registered(0).await;
    for new in successors {
        new.finish().await;
    }
    replicas.finish().await;
}

async fn until_draining(gateway: &TestGateway) {
    eventually(async || {
        let ready = gateway.carrier.get("/health/ready");
        Reply::to(ready).await.status == 503
    })
    .await;
}
