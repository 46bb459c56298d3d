//! Several gateways with one store are one gateway: a call's webhooks, its media and its end may
//! each reach another one.

use std::collections::{HashMap, HashSet};

use callgate::{EndReason, What};
use futures_util::future::join_all;

use crate::{
    agent::ScriptedAgent,
    carrier::{CALLER, call_sid, ringing},
    database::Database,
    gateway::{Call, Replicas, Ringing, eventually},
    line::{Line, stop},
};

const FINAL: [&str; 5] = ["completed", "busy", "failed", "no-answer", "canceled"];

#[tokio::test(flavor = "multi_thread")]
async fn every_cap_holds_for_all_replicas_together() {
    tokio::join!(
        a_cap_holds("MAX_ACTIVE_CALLS", "global"),
        a_cap_holds("MAX_CALLS_PER_TENANT", "tenant"),
        a_cap_holds("TELEPHONY_PER_CAMPAIGN_MAX_CONCURRENCY", "campaign"),
        a_cap_holds("MAX_SETUP_CALLS", "setup"),
    );
}

async fn a_cap_holds(cap: &str, scope: &str) {
    let replicas = Replicas::start(3, &[(cap, "5")]).await;
    let rings = (0..20).map(|call: usize| replicas[call % 3].ring());
    let rings = join_all(rings).await;
    let (admitted, refused): (Vec<_>, Vec<_>) = rings.into_iter().partition(Ringing::is_admitted);
    assert_eq!((admitted.len(), refused.len()), (5, 15), "{cap}");
    refused.iter().for_each(Ringing::refused_as_busy);
    assert_eq!(replicas.registered().await, 5, "{cap}");
    let refusals = format!(r#"calls_refused_total{{scope="{scope}",reason="full"}}"#);
    assert_eq!(replicas.figure(&refusals).await, 15, "{cap}");
    let name = if ["tenant", "campaign"].contains(&scope) {
        "default"
    } else {
        ""
    };
    for gateway in replicas.all() {
        let used = format!(r#"slots_used{{scope="{scope}",name="{name}"}}"#);
        eventually(async || gateway.figure(&used).await == 5).await;
    }
    // Media goes where it likes, and takes nothing more.
    let calls = admitted.into_iter().zip([0, 1, 2, 0, 1]);
    let calls = calls.map(|(call, replica)| call.on(&replicas[replica]).connected());
    let calls = join_all(calls).await;
    assert_eq!(replicas.registered().await, 5, "{cap}");
    if scope != "setup" {
        for gateway in replicas.all() {
            gateway.ring().await.refused_as_busy();
        }
    }
    join_all(calls.into_iter().map(Call::hang_up)).await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_ring_at_one_replica_talk_at_another_and_end_at_a_third() {
    let replicas = Replicas::start(3, &[]).await;
    let ringing = replicas[0].ring().await;
    replicas.until_agents(1).await;
    let call = ringing.on(&replicas[1]).connected().await;
    call.converses().await;
    replicas.until_agents(1).await; // The one that the first had called is sent away.
    let second = replicas[1].detail("replica").await;
    assert_eq!(second, replicas.owner(&call.sid).await);
    assert_eq!(replicas.registered().await, 1);
    let state = replicas.state(&call.sid).await;
    assert_eq!(
        (&state["state"], &state["replica"]),
        (&"live".into(), &second)
    );
    assert_eq!(state["caller"], "+9*******4567", "as the first has seen it");
    assert_eq!(replicas[0].steps(&call.sid), [What::Admitted]);
    replicas.until_active(1).await;
    call.converses().await;

    replicas[2].status(&call.sid, "completed").await;
    assert_eq!(replicas.registered().await, 0);
    call.line.closed().await;
    let reason = replicas[1].ended(&call.sid).await;
    assert_eq!(reason, EndReason::CarrierEnded);
    for gateway in replicas.all() {
        let words = gateway.stream_ended(&call.sid).await;
        assert_eq!(words.verbs(), ["Hangup"]);
    }
    let state = replicas.state(&call.sid).await;
    assert_eq!(
        (&state["state"], &state["end_reason"]),
        (&"ended".into(), &"carrier_ended".into())
    );
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_knows_what_the_caller_is_to_hear_when_a_stream_has_ended() {
    let mut agent = ScriptedAgent::start().await;
    let own_agent = [("OPENAI_REALTIME_URL", agent.url.as_str())];
    let replicas = Replicas::each(&[&[], &own_agent, &[("DRAIN_SECONDS", "1")]]).await;
    // The agent went away.
    let call = replicas[0].ring().await.on(&replicas[1]).connected().await;
    drop(agent.session().await);
    call.line.closed().await;
    assert_eq!(replicas[1].ended(&call.sid).await, EndReason::AgentClosed);
    let words = replicas[2].stream_ended(&call.sid).await;
    assert!(words.last_words().starts_with("מצטערים"), "{words:?}");
    replicas[0].status(&call.sid, "completed").await;
    // The caller hung up.
    let call = replicas[0].ring().await.on(&replicas[2]).connected().await;
    call.line.send(stop(&call.sid));
    call.line.closed().await;
    let words = replicas[1].stream_ended(&call.sid).await;
    assert_eq!(words.verbs(), ["Hangup"]);
    // The replica had to go.
    let call = replicas[0].ring().await.on(&replicas[2]).connected().await;
    let told = async {
        assert_eq!(call.line.closed().await, 1012);
        let words = replicas[0].stream_ended(&call.sid).await;
        assert!(words.last_words().starts_with("תודה"), "{words:?}");
    };
    tokio::join!(replicas[2].drain(std::future::pending()), told);
    replicas[0].status(&call.sid, "completed").await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_webhook_on_all_replicas_at_the_same_moment_is_one_call() {
    let replicas = Replicas::start(3, &[]).await;
    for _ in 0..10 {
        let sid = call_sid();
        let fields = ringing(&sid);
        let webhooks = (0..9).map(|at: usize| {
            let carrier = &replicas[at % 3].carrier;
            carrier.webhook("/webhook/incoming_call", &fields)
        });
        let replies = join_all(webhooks).await;
        let bodies: HashSet<_> = replies.into_iter().map(|reply| reply.body).collect();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
        assert_eq!(replicas.registered().await, 1);
        replicas.until_agents(1).await;
        let call = replicas[2].ring_as(&sid).await.connected().await;
        // Nor does a webhook that is repeated once the media is there change anything.
        for gateway in replicas.all() {
            let again = gateway.ring_as(&sid).await;
            assert_eq!(again.admitted().1, call.ticket);
        }
        assert_eq!(replicas.registered().await, 1);
        call.hang_up().await;
        replicas.until_agents(0).await;
    }
    assert_eq!(replicas.figure("calls_started_total").await, 10);
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_is_refused_everywhere_though_there_is_room_by_then() {
    let replicas = Replicas::start(3, &[("MAX_ACTIVE_CALLS", "1")]).await;
    let first = replicas[0].ring().await;
    let refused = replicas[1].ring().await;
    refused.refused_as_busy();
    replicas[2].status(&first.sid, "completed").await;
    assert_eq!(replicas.registered().await, 0);
    for gateway in replicas.all() {
        gateway.ring_as(&refused.sid).await.refused_as_busy();
    }
    assert_eq!(
        replicas.figure("calls_rejected_max_concurrent_total").await,
        1
    );
    let other = replicas[2].ring().await;
    assert!(other.is_admitted());
    replicas[0].status(&other.sid, "completed").await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_has_ended_is_admitted_by_no_replica() {
    let replicas = Replicas::start(3, &[]).await;
    // Its end was told before its beginning.
    let early = call_sid();
    replicas[0].status(&early, "completed").await;
    // Its end was told while it rang.
    let short = replicas[0].ring().await;
    replicas[1].status(&short.sid, "no-answer").await;
    // It had its whole life, and no status came.
    let whole = replicas[0].ring().await.on(&replicas[1]).connected().await;
    let whole_sid = whole.sid.clone();
    whole.line.send(stop(&whole_sid));
    whole.line.closed().await;
    replicas.until_registered(0).await;
    for sid in [&early, &short.sid, &whole_sid] {
        for gateway in replicas.all() {
            let again = gateway.ring_as(sid).await;
            assert_eq!(again.answer.verbs(), ["Hangup"], "{sid}");
        }
    }
    assert_eq!(replicas.registered().await, 0);
    // Nor does a ticket open a call that is over.
    let (sid, ticket) = (short.sid.clone(), short.admitted().1.to_owned());
    let socket = short.on(&replicas[2]).socket().await;
    Line::begin(socket, &sid, &ticket).await.closed().await;
    assert_eq!(replicas.registered().await, 0);
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_in_any_order_at_any_replica_end_a_call_once() {
    let replicas = Replicas::start(3, &[]).await;
    for (at, last) in FINAL.into_iter().enumerate() {
        let at = |step: usize| &replicas[(at + step) % 3];
        let call = at(0).ring().await.on(at(1)).connected().await;
        for (step, early) in ["in-progress", "initiated", "ringing", "in-progress", "new"]
            .into_iter()
            .enumerate()
        {
            at(step).status(&call.sid, early).await;
        }
        assert_eq!(replicas.registered().await, 1);
        assert!(call.line.is_open());
        at(2).status(&call.sid, last).await;
        assert_eq!(replicas.registered().await, 0, "{last}");
        let state = replicas.state(&call.sid).await;
        for (step, late) in ["ringing", "completed", "in-progress", last, "failed"]
            .into_iter()
            .enumerate()
        {
            at(step).status(&call.sid, late).await;
        }
        call.line.closed().await;
        assert_eq!(at(1).ended(&call.sid).await, EndReason::CarrierEnded);
        assert_eq!(replicas.registered().await, 0, "{last}");
        let settled = replicas.state(&call.sid).await;
        assert_eq!(settled["end_reason"], "carrier_ended", "{last}");
        assert_eq!(settled["ended_at"], state["ended_at"], "{last}");
    }
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_ticket_is_one_socket_on_whichever_replica() {
    let replicas = Replicas::start(3, &[]).await;
    let call = replicas[0].ring().await.on(&replicas[1]).connected().await;
    for gateway in replicas.all() {
        let socket = gateway.ring_as(&call.sid).await.socket().await;
        let second = Line::begin(socket, &call.sid, &call.ticket).await;
        second.closed().await;
    }
    assert_eq!(replicas.figure("tickets_refused_total").await, 3);
    call.converses().await;
    let second = replicas[1].detail("replica").await;
    assert_eq!(second, replicas.owner(&call.sid).await);
    assert_eq!(replicas.registered().await, 1);
    call.hang_up().await;

    // Nor do two sockets at the same moment make two calls.
    for _ in 0..10 {
        let ringing = replicas[0].ring().await;
        let (sid, ticket) = (ringing.sid.clone(), ringing.admitted().1.to_owned());
        let url = ringing.admitted().0.to_owned();
        let lines = replicas.all().map(async |gateway| {
            let socket = gateway.carrier.open(&url).await.unwrap();
            Line::begin(socket, &sid, &ticket).await
        });
        let lines = join_all(lines).await;
        eventually(async || lines.iter().filter(|line| line.is_open()).count() == 1).await;
        let line = lines.iter().find(|line| line.is_open()).unwrap();
        line.until_played(160).await;
        assert_eq!(replicas.registered().await, 1);
        line.send(stop(&sid));
        line.closed().await;
    }
    replicas.until_registered(0).await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_commands_work_as_they_are_written() {
    let database = Database::new();
    let replicas = Replicas::start(2, &[("DATABASE_URL", database.url())]).await;
    let redis = &replicas.redis;
    let ringing = replicas[0].ring().await;
    let sid = ringing.sid.clone();
    let lease = format!("calls:active:{sid}");
    let state = format!("calls:state:{sid}");
    let setup: u64 = redis.cli(&["TTL", &lease]).await.parse().unwrap();
    assert!((1..=20).contains(&setup), "{setup}");
    let call = ringing.on(&replicas[1]).connected().await;
    assert_eq!(redis.cli(&["SCARD", "calls:active"]).await, "1");
    assert_eq!(redis.cli(&["SMEMBERS", "calls:active"]).await, sid);
    assert_eq!(redis.cli(&["GET", "calls:active_count"]).await, "1");
    let left: u64 = redis.cli(&["TTL", &lease]).await.parse().unwrap();
    assert!((21..=30).contains(&left), "{left}");
    let text = redis.cli(&["GET", &state]).await;
    assert!(!text.contains(CALLER), "{text}");
    let told: HashMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(told["carrier_call_id"], sid.as_str());
    assert_eq!(told["state"], "live");
    assert_eq!(told["campaign"], "default");
    assert_eq!(told["degraded"], false);
    assert!(told["rang_at"].as_u64() <= told["connected_at"].as_u64());
    let kept: u64 = redis.cli(&["TTL", &state]).await.parse().unwrap();
    assert!((3_000..=3_600).contains(&kept), "{kept}");
    let unwritten = ["ZRANGE", "calls:unwritten", "0", "-1"];
    assert_eq!(redis.cli(&unwritten).await, sid);

    call.hang_up().await;
    assert_eq!(redis.cli(&["SCARD", "calls:active"]).await, "0");
    assert_eq!(redis.cli(&["SMEMBERS", "calls:active"]).await, "");
    // Nobody looks after it from here on: whoever writes its end says so.
    redis
        .cli(&["ZADD", "calls:unwritten", "XX", "9e15", &sid])
        .await;
    eventually(async || redis.cli(&unwritten).await.is_empty()).await;
    assert_eq!(redis.cli(&["TTL", &lease]).await, "-2");
    assert_eq!(redis.cli(&["GET", "calls:active_count"]).await, "0");
    let state = replicas.state(&sid).await;
    assert_eq!(state["state"], "ended");
    assert_eq!(state["end_reason"], "caller_hung_up");
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_with_other_prefixes_know_nothing_of_each_other() {
    let prefix = [("REDIS_KEY_PREFIX", "{north}:"), ("MAX_ACTIVE_CALLS", "1")];
    let south = Replicas::start(1, &[("MAX_ACTIVE_CALLS", "1")]).await;
    let north = south.another(&prefix).await;
    north.until_degraded(&[]).await;
    let there = north.ring().await.connected().await;
    let here = south[0].ring().await.connected().await;
    north.ring().await.refused_as_busy();
    south[0].ring().await.refused_as_busy();
    let members = south.redis.cli(&["SMEMBERS", "{north}:calls:active"]).await;
    assert_eq!(members, there.sid);
    let members = south.redis.cli(&["SMEMBERS", "calls:active"]).await;
    assert_eq!(members, here.sid);
    assert_eq!(north.detail("replicas").await, 1);
    assert_eq!(south[0].detail("replicas").await, 1);
    for key in south.redis.cli(&["KEYS", "*"]).await.lines() {
        assert!(
            key.starts_with("calls:") || key.starts_with("{north}:calls:"),
            "{key}"
        );
    }
    there.hang_up().await;
    here.hang_up().await;
    north.finish().await;
    south.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_forgets_its_scripts_is_taught_them_again_unnoticed() {
    let replicas = Replicas::start(2, &[]).await;
    let flush = || replicas.redis.cli(&["SCRIPT", "FLUSH"]);
    for _ in 0..5 {
        flush().await;
        let ringing = replicas[0].ring().await;
        flush().await;
        let call = ringing.on(&replicas[1]).connected().await;
        flush().await;
        call.hang_up().await;
        flush().await;
        assert_eq!(replicas.registered().await, 0);
    }
    for gateway in replicas.all() {
        assert_eq!(gateway.detail("degraded").await, serde_json::json!([]));
        let text = crate::carrier::Reply::to(gateway.carrier.get("/metrics")).await;
        assert!(
            !text.body.contains("slot_store_failures_total{"),
            "{}",
            text.body
        );
    }
    let degraded = replicas.figure("calls_admitted_without_store_total").await;
    assert_eq!(degraded, 0);
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_bring_no_media_leave_room_for_those_that_do() {
    let replicas = Replicas::start(2, &[("MAX_ACTIVE_CALLS", "10")]).await;
    // Six bursts, each as large as the cap, and none of these calls ever has media.
    let mut rung = 0;
    while rung < 60 {
        let rings = (0..10).map(|at: usize| replicas[at % 2].ring());
        for ringing in join_all(rings).await {
            rung += usize::from(ringing.is_admitted());
            replicas[0].status(&ringing.sid, "canceled").await;
        }
    }
    // What such a flood may have from then on is half of what is free.
    let flood = join_all((0..20).map(|at: usize| replicas[at % 2].ring())).await;
    let flood: Vec<_> = flood.into_iter().filter(Ringing::is_admitted).collect();
    assert_eq!(flood.len(), 5);
    // A place that it loses can be had by a caller who speaks, and is no set-up's any more then.
    let mut calls = Vec::new();
    for lost in &flood {
        replicas[1].status(&lost.sid, "canceled").await;
        calls.push(replicas[0].ring().await.on(&replicas[1]).connected().await);
    }
    assert_eq!(replicas.registered().await, 5);
    // Free are 5: a flood gets 2 of them.
    let flood = join_all((0..20).map(|at: usize| replicas[at % 2].ring())).await;
    let flood: Vec<_> = flood.into_iter().filter(Ringing::is_admitted).collect();
    assert_eq!(flood.len(), 2);
    join_all(
        flood
            .iter()
            .map(|call| replicas[0].status(&call.sid, "canceled")),
    )
    .await;
    join_all(calls.into_iter().map(Call::hang_up)).await;
    replicas.finish().await;
}
