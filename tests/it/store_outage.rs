//! A store that dies, hangs, forgets or refuses: calls go on, new ones come in by each replica's
//! share, and once it is back it holds what is true.

use std::time::Duration;

use callgate::{EndReason, What};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    carrier::Reply,
    gateway::{Call, Replicas, Ringing, TestGateway, eventually},
    line::stop,
    redis::Redis,
};

const AWAY: &[&str] = &["capacity_store"];
const BEHIND_GATE: &[&str] = &["capacity_resync"];
const HEALTHY: &[&str] = &[];

/// How a store goes, and how it comes back.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// It dies, and comes back empty.
    Dies,
    /// It answers nothing, and comes back with all that it knew.
    Hangs,
}

impl Fault {
    async fn begin(self, redis: &Redis) {
        match self {
            Self::Dies => redis.kill().await,
            Self::Hangs => redis.stop().await,
        }
    }

    async fn end(self, redis: &Redis) {
        match self {
            Self::Dies => redis.restart().await,
            Self::Hangs => redis.cont().await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_or_hangs_costs_no_call_and_no_cap() {
    tokio::join!(
        calls_go_on_and_others_come_in_by_share(Fault::Dies),
        calls_go_on_and_others_come_in_by_share(Fault::Hangs),
    );
}

async fn calls_go_on_and_others_come_in_by_share(fault: Fault) {
    let replicas = Replicas::start(2, &[("MAX_ACTIVE_CALLS", "10")]).await;
    let mut calls = vec![
        replicas[1].ring().await.on(&replicas[0]).connected().await,
        replicas[1].ring().await.on(&replicas[0]).connected().await,
        replicas[0].ring().await.on(&replicas[1]).connected().await,
    ];
    replicas.until_active(3).await;
    // The set-up scope's count is a tick old too.
    for gateway in replicas.all() {
        let setup = r#"slots_used{scope="setup",name=""}"#;
        eventually(async || gateway.figure(setup).await == 0).await;
    }

    fault.begin(&replicas.redis).await;
    // The callers that find it out wait a moment for it, and no longer.
    let mut admitted = admitted(&replicas, 20).await;
    // 7 were free: 3 for each of the two.
    assert_eq!(admitted.len(), 6, "{fault:?}");
    replicas.until_degraded(AWAY).await;
    for gateway in replicas.all() {
        assert_eq!(gateway.figure("slot_store_degraded").await, 1);
        let refused = r#"calls_refused_total{scope="global",reason="outage"}"#;
        assert!(gateway.figure(refused).await > 0, "{fault:?}");
        let ready = Reply::to(gateway.carrier.get("/health/ready")).await;
        assert_eq!(ready.status, 200, "it serves");
    }
    let without_store = "calls_admitted_without_store_total";
    assert_eq!(replicas.figure(without_store).await, 6);
    join_all(calls.iter().map(Call::converses)).await;
    // Media of what was admitted meanwhile goes where it likes.
    let moved = admitted.split_off(3);
    let mut sids: Vec<String> = admitted
        .iter()
        .chain(&moved)
        .map(|call| call.sid.clone())
        .collect();
    for call in admitted {
        calls.push(call.connected().await);
    }
    for call in moved {
        let there = &replicas[usize::from(std::ptr::eq(call.gateway(), &raw const replicas[0]))];
        calls.push(call.on(there).connected().await);
    }
    // Nobody gets a second share for it.
    assert!(self::admitted(&replicas, 6).await.is_empty(), "{fault:?}");
    // What a call leaves is room for another.
    let leaves = calls.remove(0);
    leaves.line.send(stop(&leaves.sid));
    leaves.line.closed().await;
    assert_eq!(
        replicas[0].ended(&leaves.sid).await,
        EndReason::CallerHungUp
    );
    join_all(calls.iter().map(Call::converses)).await;
    let waiting = replicas[0].ring().await;
    assert!(waiting.is_admitted(), "{fault:?}");
    sids.push(waiting.sid.clone());

    fault.end(&replicas.redis).await;
    replicas.until_degraded(HEALTHY).await;
    assert_eq!(replicas.registered().await, calls.len() + 1, "{fault:?}");
    for sid in &sids {
        let state = replicas.state(sid).await;
        assert_eq!(state["degraded"], true, "{fault:?}: {state}");
    }
    for gateway in replicas.all() {
        assert_eq!(gateway.figure("slot_store_degraded").await, 0);
        assert_eq!(gateway.figure("slot_store_gated").await, 0);
    }
    // The cap is what it was: one call short of ten.
    let mut last = Vec::new();
    while last.is_empty() {
        last = self::admitted(&replicas, 4).await;
    }
    assert_eq!(last.len(), 1, "{fault:?}");
    assert!(self::admitted(&replicas, 4).await.is_empty(), "{fault:?}");
    assert_eq!(replicas.figure("admissions_over_cap_total").await, 0);
    replicas[1].status(&last[0].sid, "completed").await;
    replicas[1].status(&waiting.sid, "completed").await;
    join_all(calls.iter().map(Call::converses)).await;
    join_all(calls.into_iter().map(Call::hang_up)).await;
    replicas.finish().await;
}

/// Rings so many times, all at the same moment, at one replica after another.
async fn admitted(replicas: &Replicas, rings: usize) -> Vec<Ringing<'_>> {
    let replica = |ring: usize| &replicas[ring % replicas.all().count()];
    let rings = join_all((0..rings).map(|ring| replica(ring).ring())).await;
    rings.into_iter().filter(Ringing::is_admitted).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_without_its_store_and_joins_it_when_it_appears() {
    let redis = Redis::start().await;
    redis.kill().await;
    let cap = [("MAX_ACTIVE_CALLS", "5")];
    let replicas = Replicas::over(redis, &[&cap, &cap]).await;
    for gateway in replicas.all() {
        let ready = Reply::to(gateway.carrier.get("/health/ready")).await;
        assert_eq!(ready.status, 200);
        assert_eq!(gateway.detail("degraded").await, json!(AWAY));
    }
    // Nothing is known of what is free: half of the cap each, rounded up.
    let calls = admitted(&replicas, 12).await;
    assert_eq!(calls.len(), 6);
    let one_too_many = calls.last().unwrap().sid.clone();
    replicas[0].status(&one_too_many, "completed").await;
    replicas[1].status(&one_too_many, "completed").await;
    let calls = calls.into_iter().filter(|call| call.sid != one_too_many);
    let calls = join_all(calls.map(Ringing::connected)).await;
    assert_eq!(calls.len(), 5);

    replicas.redis.restart().await;
    replicas.healthy().await;
    assert_eq!(replicas.registered().await, 5);
    assert!(admitted(&replicas, 4).await.is_empty());
    join_all(calls.into_iter().map(Call::hang_up)).await;
    let next = replicas[0].ring().await.on(&replicas[1]).connected().await;
    assert_eq!(replicas.state(&next.sid).await["degraded"], false);
    next.hang_up().await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_store_is_gated_when_the_first_replica_meets_it() {
    let cap = [("MAX_ACTIVE_CALLS", "4")];
    let replicas = Replicas::over(Redis::start().await, &[&cap, &cap]).await;
    replicas.until_degraded(BEHIND_GATE).await;
    assert_eq!(replicas[0].figure("slot_store_gated").await, 1);
    let calls = admitted(&replicas, 10).await;
    assert!(calls.len() <= 4, "{}", calls.len());
    assert_eq!(
        replicas.registered().await,
        calls.len(),
        "registered at once"
    );
    replicas.healthy().await;
    assert_eq!(replicas.registered().await, calls.len());
    for call in &calls {
        replicas[0].status(&call.sid, "completed").await;
    }
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_forgets_its_replicas_tell_it_and_the_cap_holds_meanwhile() {
    tokio::join!(
        the_cap_holds_over_a_loss(true),
        the_cap_holds_over_a_loss(false)
    );
}

async fn the_cap_holds_over_a_loss(of_the_process: bool) {
    let replicas = Replicas::start(3, &[("MAX_ACTIVE_CALLS", "6")]).await;
    let mut calls = Vec::new();
    for at in 0..5 {
        let ringing = replicas[at % 3].ring().await;
        calls.push(ringing.on(&replicas[(at + 1) % 3]).connected().await);
    }
    replicas.until_active(5).await;
    if of_the_process {
        replicas.redis.restart().await;
    } else {
        replicas.redis.cli(&["FLUSHALL"]).await;
    }
    // One is free, and one comes in, however many ask for it and whenever.
    let mut more = admitted(&replicas, 9).await;
    replicas.until_registered(5 + more.len()).await;
    while more.is_empty() {
        more = admitted(&replicas, 3).await;
    }
    for _ in 0..3 {
        more.extend(admitted(&replicas, 3).await);
    }
    assert_eq!(more.len(), 1);
    replicas.until_degraded(HEALTHY).await;
    assert_eq!(replicas.registered().await, 6);
    assert!(admitted(&replicas, 6).await.is_empty());
    assert_eq!(replicas.figure("admissions_over_cap_total").await, 0);
    assert_eq!(replicas.figure("leases_lost_total").await, 0);
    for call in &calls {
        let state = replicas.state(&call.sid).await;
        assert_eq!(state["state"], "live", "{state}");
    }
    join_all(calls.iter().map(Call::converses)).await;
    replicas[0].status(&more[0].sid, "completed").await;
    for call in calls {
        call.hang_up().await;
    }
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_what_an_outage_has_left_behind_is_true_afterwards() {
    tokio::join!(
        an_outage_that_is_longer_than_a_lease_lets_nobody_in_above_the_cap(),
        what_happens_during_an_outage_the_store_is_told_afterwards(Fault::Dies),
        what_happens_during_an_outage_the_store_is_told_afterwards(Fault::Hangs),
    );
}

async fn an_outage_that_is_longer_than_a_lease_lets_nobody_in_above_the_cap() {
    let settings = [
        ("MAX_ACTIVE_CALLS", "6"),
        ("TELEPHONY_SEMAPHORE_TTL_SEC", "15"),
    ];
    let replicas = Replicas::start(2, &settings).await;
    let mut calls = Vec::new();
    for at in [0, 0, 0, 1] {
        calls.push(replicas[at].ring().await.connected().await);
    }
    replicas.until_active(4).await;
    replicas.redis.stop().await;
    replicas.until_degraded(AWAY).await;
    let more = admitted(&replicas, 8).await;
    assert_eq!(more.len(), 2);
    calls.extend(join_all(more.into_iter().map(Ringing::connected)).await);
    // A server that is stopped cannot be asked whether the leases have lapsed.
    sleep(Duration::from_secs(17)).await;
    assert!(admitted(&replicas, 4).await.is_empty());
    join_all(calls.iter().map(Call::converses)).await;

    replicas.redis.cont().await;
    let healthy = async || {
        let degraded = join_all(replicas.all().map(|gateway| gateway.detail("degraded"))).await;
        degraded.iter().all(|degraded| *degraded == json!(HEALTHY))
    };
    while !healthy().await {
        assert!(admitted(&replicas, 4).await.is_empty());
    }
    assert!(admitted(&replicas, 4).await.is_empty());
    assert_eq!(replicas.registered().await, 6);
    assert_eq!(replicas.figure("admissions_over_cap_total").await, 0);
    join_all(calls.iter().map(Call::converses)).await;
    join_all(calls.into_iter().map(Call::hang_up)).await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_admitted_without_the_store_may_have_its_media_elsewhere() {
    tokio::join!(
        one_slot_afterwards(Fault::Dies),
        one_slot_afterwards(Fault::Hangs)
    );
}

async fn one_slot_afterwards(fault: Fault) {
    let replicas = Replicas::start(3, &[("MAX_ACTIVE_CALLS", "9")]).await;
    fault.begin(&replicas.redis).await;
    replicas.until_degraded(AWAY).await;
    let call = replicas[0].ring().await.on(&replicas[1]).connected().await;
    call.converses().await;
    // The ticket has been used, and the replica that took it remembers.
    let again = replicas[0].ring_as(&call.sid).await;
    let again = again.on(&replicas[1]).socket().await;
    let again = crate::line::Line::begin(again, &call.sid, &call.ticket).await;
    again.closed().await;

    fault.end(&replicas.redis).await;
    replicas.healthy().await;
    assert_eq!(replicas.registered().await, 1, "{fault:?}");
    let count = replicas.redis.cli(&["GET", "calls:active_count"]).await;
    assert_eq!(count, "1");
    let second = replicas[1].detail("replica").await;
    assert_eq!(second, replicas.owner(&call.sid).await, "{fault:?}");
    let state = replicas.state(&call.sid).await;
    assert_eq!(state["degraded"], true, "{fault:?}: {state}");
    assert_eq!(state["state"], "live", "{fault:?}: {state}");
    replicas.until_agents(1).await;
    replicas.until_active(1).await;
    call.converses().await;
    replicas[2].status(&call.sid, "completed").await;
    call.line.closed().await;
    assert_eq!(replicas.registered().await, 0, "{fault:?}");
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_decides_who_comes_in_without_the_store() {
    tokio::join!(everybody_comes_in(), nobody_comes_in());
}

async fn everybody_comes_in() {
    let open = [("REDIS_OUTAGE", "open"), ("MAX_ACTIVE_CALLS", "2")];
    let replicas = Replicas::start(2, &open).await;
    let live = replicas[0].ring().await.connected().await;
    replicas.redis.kill().await;
    replicas.until_degraded(AWAY).await;
    let more = admitted(&replicas, 6).await;
    assert_eq!(more.len(), 6);
    let more = join_all(more.into_iter().map(Ringing::connected)).await;
    join_all(more.iter().map(Call::converses)).await;
    replicas.redis.restart().await;
    replicas.until_degraded(HEALTHY).await;
    // All are counted, and the cap is what it was.
    assert_eq!(replicas.registered().await, 7);
    assert!(admitted(&replicas, 4).await.is_empty());
    join_all(more.into_iter().map(Call::hang_up)).await;
    live.converses().await;
    let second = replicas[1].ring().await.connected().await;
    assert!(admitted(&replicas, 4).await.is_empty());
    second.hang_up().await;
    live.hang_up().await;
    replicas.finish().await;
}

async fn nobody_comes_in() {
    let closed = [("REDIS_OUTAGE", "closed"), ("MAX_ACTIVE_CALLS", "9")];
    let replicas = Replicas::start(2, &closed).await;
    let live = replicas[0].ring().await.connected().await;
    let waiting = replicas[0].ring().await;
    replicas.redis.kill().await;
    let refused = join_all((0..6).map(|at| replicas[at % 2].ring())).await;
    refused.iter().for_each(Ringing::refused_as_busy);
    replicas.until_degraded(AWAY).await;
    // Who was let in before may come, and who talks goes on.
    let second = waiting.on(&replicas[1]).connected().await;
    live.converses().await;
    second.converses().await;
    replicas.redis.restart().await;
    replicas.until_degraded(HEALTHY).await;
    assert_eq!(replicas.registered().await, 2);
    assert!(replicas[0].ring().await.on(&replicas[1]).is_admitted());
    for sid in replicas
        .redis
        .cli(&["SMEMBERS", "calls:active"])
        .await
        .lines()
    {
        replicas[0].status(sid, "completed").await;
    }
    live.line.closed().await;
    second.line.closed().await;
    replicas.finish().await;
}

async fn what_happens_during_an_outage_the_store_is_told_afterwards(fault: Fault) {
    let replicas = Replicas::start(2, &[("MAX_ACTIVE_CALLS", "12")]).await;
    let (here, there) = (&replicas[0], &replicas[1]);
    let hung_up = here.ring().await.connected().await;
    let told_there = here.ring().await.connected().await;
    let waited = here.ring().await;
    replicas.until_active(3).await;

    fault.begin(&replicas.redis).await;
    replicas.until_degraded(AWAY).await;
    // Live before, and over now: by the caller, and by the carrier's word at another replica.
    hang_up(here, &hung_up).await;
    there.status(&told_there.sid, "completed").await;
    // Never had media: ended where it rang.
    here.status(&waited.sid, "no-answer").await;
    // Begun and ended without the store, here or with its end told there.
    let whole = here.ring().await.connected().await;
    hang_up(here, &whole).await;
    let short = here.ring().await;
    here.status(&short.sid, "canceled").await;
    let short_there = here.ring().await;
    there.status(&short_there.sid, "canceled").await;
    // Turned away.
    let mut refused = Vec::new();
    while refused.is_empty() {
        refused = join_all((0..8).map(|_| there.ring())).await;
        refused.retain(|call| !call.is_admitted());
    }
    let refused = refused.remove(0);
    refused.refused_as_busy();

    fault.end(&replicas.redis).await;
    replicas.until_degraded(HEALTHY).await;
    for (sid, reason) in [
        (&hung_up.sid, "caller_hung_up"),
        (&told_there.sid, "carrier_ended"),
        (&waited.sid, "carrier_ended"),
        (&whole.sid, "caller_hung_up"),
        (&short.sid, "carrier_ended"),
        (&short_there.sid, "carrier_ended"),
    ] {
        eventually(async || replicas.state(sid).await["state"] == "ended").await;
        let state = replicas.state(sid).await;
        assert_eq!(state["end_reason"], reason, "{fault:?}: {state}");
        // Whoever watches hears of it too, and so does the record.
        let is_end = |what: &What| matches!(what, What::Ended(why) if why.as_str() == reason);
        eventually(async || {
            let mut steps = replicas.all().flat_map(|gateway| gateway.steps(sid));
            steps.any(|what| is_end(&what))
        })
        .await;
        for gateway in replicas.all() {
            let again = gateway.ring_as(sid).await;
            assert_eq!(again.answer.verbs(), ["Hangup"], "{fault:?}: {reason}");
        }
        let members = replicas.redis.cli(&["SMEMBERS", "calls:active"]).await;
        assert!(!members.contains(sid.as_str()), "{fault:?}: {reason}");
    }
    told_there.line.closed().await;
    for gateway in replicas.all() {
        gateway.ring_as(&refused.sid).await.refused_as_busy();
    }
    for sid in replicas
        .redis
        .cli(&["SMEMBERS", "calls:active"])
        .await
        .lines()
    {
        there.status(sid, "completed").await;
    }
    replicas.finish().await;
}

async fn hang_up(gateway: &TestGateway, call: &Call<'_>) {
    call.line.send(stop(&call.sid));
    call.line.closed().await;
    assert_eq!(gateway.ended(&call.sid).await, EndReason::CallerHungUp);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_or_lingers_is_one_that_is_away() {
    tokio::join!(
        is_away_while(
            "oom",
            &["CONFIG", "SET", "maxmemory", "1"],
            &["CONFIG", "SET", "maxmemory", "0"],
        ),
        is_away_while(
            "readonly",
            &["REPLICAOF", "127.0.0.1", "1"],
            &["REPLICAOF", "NO", "ONE"]
        ),
        is_away_while(
            "noperm",
            &["ACL", "SETUSER", "default", "-evalsha", "-eval"],
            &["ACL", "SETUSER", "default", "+@all"],
        ),
        is_away_while(
            "timeout",
            &["CLIENT", "PAUSE", "6000"],
            &["CLIENT", "UNPAUSE"]
        ),
    );
}

async fn is_away_while(class: &str, begin: &[&str], end: &[&str]) {
    let replicas = Replicas::start(2, &[("MAX_ACTIVE_CALLS", "9")]).await;
    let call = replicas[0].ring().await.on(&replicas[1]).connected().await;
    replicas.until_active(1).await;
    replicas.redis.cli(begin).await;
    replicas.until_degraded(AWAY).await;
    let more = admitted(&replicas, 12).await;
    assert_eq!(more.len(), 8, "{class}");
    let more = join_all(more.into_iter().map(Ringing::connected)).await;
    call.converses().await;
    let counted = format!("class=\"{class}\"");
    eventually(async || {
        let text = Reply::to(replicas[0].carrier.get("/metrics")).await.body;
        let mut failures = text
            .lines()
            .filter(|line| line.starts_with("slot_store_failures_total{"));
        failures.any(|line| line.contains(&counted))
    })
    .await;

    replicas.redis.cli(end).await;
    replicas.until_degraded(HEALTHY).await;
    assert_eq!(replicas.registered().await, 9, "{class}");
    assert!(admitted(&replicas, 4).await.is_empty(), "{class}");
    call.converses().await;
    join_all(more.into_iter().map(Call::hang_up)).await;
    call.hang_up().await;
    replicas.finish().await;
}
