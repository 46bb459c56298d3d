//! Slots come back by themselves, and owners that were away come back too.

use std::cell::Cell;

use callgate::EndReason;
use serde_json::json;

use crate::{
    cut::Proxy,
    database::Database,
    gateway::{Replicas, TestGateway, eventually},
    line::Line,
    redis::Redis,
};

/// The shortest lease there is.
const SHORT: (&str, &str) = ("TELEPHONY_SEMAPHORE_TTL_SEC", "15");

#[tokio::test(flavor = "multi_thread")]
async fn slow_leases_lapse_and_owners_come_back() {
    tokio::join!(
        a_call_whose_media_reaches_no_replica_gives_its_slot_back(),
        a_live_call_keeps_its_slot_for_longer_than_its_lease(),
        an_owner_that_was_cut_off_finds_its_call_above_the_cap(),
        an_owner_that_was_cut_off_is_silent_about_a_call_that_another_has_taken_over(),
        a_ticket_that_was_shown_on_both_sides_of_a_cut_is_one_call_afterwards(),
    );
}

async fn a_call_whose_media_reaches_no_replica_gives_its_slot_back() {
    let replicas = Replicas::start(3, &[("MAX_ACTIVE_CALLS", "1")]).await;
    let ringing = replicas[0].ring().await;
    replicas.until_agents(1).await;
    let began = tokio::time::Instant::now();
    replicas.until_registered(0).await;
    let held = began.elapsed().as_secs_f64();
    assert!(held > 18.0, "{held} s");
    assert_eq!(replicas[0].ended(&ringing.sid).await, EndReason::NoMedia);
    let state = replicas.state(&ringing.sid).await;
    assert_eq!(
        (&state["state"], &state["end_reason"]),
        (&json!("ended"), &json!("no_media"))
    );
    replicas.until_agents(0).await;
    // Its ticket is worth nothing now, wherever it is shown.
    let ticket = ringing.admitted().1.to_owned();
    let sid = ringing.sid.clone();
    let late = ringing.on(&replicas[1]).socket().await;
    Line::begin(late, &sid, &ticket).await.closed().await;
    assert_eq!(replicas.registered().await, 0);
    replicas[2]
        .ring()
        .await
        .on(&replicas[1])
        .connected()
        .await
        .hang_up()
        .await;
    replicas.finish().await;
}

async fn a_live_call_keeps_its_slot_for_longer_than_its_lease() {
    let replicas = Replicas::start(2, &[("MAX_ACTIVE_CALLS", "1"), SHORT]).await;
    let call = replicas[0].ring().await.on(&replicas[1]).connected().await;
    let lease = format!("calls:active:{}", call.sid);
    let left = async || -> i64 { replicas.redis.cli(&["PTTL", &lease]).await.parse().unwrap() };
    // Renewed four times, it has outlived what it began with.
    for _ in 0..4 {
        let before = Cell::new(left().await);
        assert!((1..=15_000).contains(&before.get()), "{before:?} ms");
        eventually(async || {
            let left = left().await;
            before.replace(left) < left
        })
        .await;
        replicas[0].ring().await.refused_as_busy();
    }
    assert_eq!(replicas.figure("leases_lapsed_total").await, 0);
    call.hang_up().await;
    replicas.finish().await;
}

/// Two replicas over one store, the first by way of a cable that can be stalled.
async fn by_cable(settings: &[(&str, &str)]) -> (Replicas, Proxy) {
    let redis = Redis::start().await;
    redis.cli(&["SET", "calls:gen", "an earlier one"]).await;
    let cable = Proxy::before(&redis.url()).await;
    let mut far = settings.to_vec();
    far.push(("REDIS_URL", &cable.url));
    let replicas = Replicas::over(redis, &[&far, settings]).await;
    replicas.healthy().await;
    (replicas, cable)
}

async fn an_owner_that_was_cut_off_finds_its_call_above_the_cap() {
    let database = Database::new();
    let shared = ("DATABASE_URL", database.url());
    let (replicas, cable) = by_cable(&[("MAX_ACTIVE_CALLS", "2"), SHORT, shared]).await;
    let (cut_off, other) = (&replicas[0], &replicas[1]);
    let first = other.ring().await.on(cut_off).connected().await;
    replicas.until_active(1).await;
    cable.stall();
    cut_off.until_degraded(&["capacity_store"]).await;
    first.converses().await;
    // Nobody renews it, so its slot becomes another's.
    let lapsed = "leases_lapsed_total";
    eventually(async || other.figure(lapsed).await == 1).await;
    other.until_active(0).await;
    let taken = [
        other.ring().await.connected().await,
        other.ring().await.connected().await,
    ];
    assert_eq!(replicas.registered().await, 2);
    first.converses().await;
    let looked_after = ["ZSCORE", "calls:unwritten", &first.sid];
    let at = replicas.redis.cli(&looked_after).await;
    eventually(async || replicas.redis.cli(&looked_after).await != at).await;

    cable.flow();
    replicas.until_registered(3).await;
    replicas.until_degraded(&[]).await;
    let over = "admissions_over_cap_total";
    assert_eq!(replicas.figure(over).await, 1);
    assert_eq!(replicas.figure("leases_lost_total").await, 0);
    first.converses().await;
    // Who comes in next waits until there is room again.
    for end in taken {
        cut_off.ring().await.refused_as_busy();
        other.ring().await.refused_as_busy();
        end.hang_up().await;
    }
    let next = cut_off.ring().await.on(other).connected().await;
    first.hang_up().await;
    next.hang_up().await;
    // Its owner has shown in the database all the while that it lives.
    let ends = "SELECT COUNT(*) FROM events WHERE kind = 'call.ended'";
    eventually(async || database.ask(ends).await == ["4"]).await;
    let lost = "SELECT COUNT(*) FROM events WHERE body LIKE '%instance_lost%'";
    assert_eq!(database.ask(lost).await, ["0"]);
    replicas.finish().await;
}

async fn an_owner_that_was_cut_off_is_silent_about_a_call_that_another_has_taken_over() {
    let (replicas, cable) = by_cable(&[]).await;
    let (cut_off, other) = (&replicas[0], &replicas[1]);
    let call = other.ring().await.on(cut_off).connected().await;
    cable.stall();
    // The store forgets that the ticket was used, so the other replica takes it.
    replicas.redis.cli(&["FLUSHALL"]).await;
    let taken = other.ring_as(&call.sid).await;
    assert_eq!(taken.admitted().1, call.ticket);
    let taken = taken.connected().await;
    cable.flow();
    // Who was cut off lets go, and says nothing of it.
    call.line.closed().await;
    assert_eq!(cut_off.ended(&call.sid).await, EndReason::TakenOver);
    assert_eq!(cut_off.figure("leases_lost_total").await, 1);
    replicas.healthy().await;
    only_one_carries(&replicas, &call.sid, other).await;
    taken.converses().await;
    taken.hang_up().await;
    replicas.finish().await;
}

async fn a_ticket_that_was_shown_on_both_sides_of_a_cut_is_one_call_afterwards() {
    let (replicas, cable) = by_cable(&[]).await;
    let (cut_off, other) = (&replicas[0], &replicas[1]);
    let ringing = other.ring().await;
    cable.stall();
    cut_off.until_degraded(&["capacity_store"]).await;
    let sid = ringing.sid.clone();
    let calls = [
        (cut_off, ringing.on(cut_off).connected().await),
        (other, other.ring_as(&sid).await.connected().await),
    ];
    cable.flow();
    replicas.healthy().await;
    let open = || calls.iter().filter(|(_, call)| call.line.is_open());
    eventually(async || open().count() == 1).await;
    let (carries, call) = open().next().unwrap();
    only_one_carries(&replicas, &sid, carries).await;
    call.converses().await;
    replicas[0].status(&sid, "completed").await;
    for (_, call) in &calls {
        call.line.closed().await;
    }
    replicas.finish().await;
}

async fn only_one_carries(replicas: &Replicas, sid: &str, carries: &TestGateway) {
    assert_eq!(replicas.registered().await, 1);
    let name = carries.detail("replica").await;
    assert_eq!(name, replicas.owner(sid).await);
    assert_eq!(replicas.figure("connections_active").await, 1);
    replicas.until_agents(1).await;
}
