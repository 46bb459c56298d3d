//! What all replicas may ask of an agent together: whoever is one too many hears so before being
//! answered.

use std::{fs, future::pending};

use crate::{
    agent::ScriptedAgent,
    gateway::{Replicas, eventually},
};

const SUPPORT: &str = "+97221111111";

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_one_dial_too_many_for_all_replicas_hears_busy_before_being_answered() {
    let replicas = Replicas::start(2, &[("AGENT_CONNECTIONS_PER_MINUTE", "30")]).await;
    for call in 0..30 {
        let ringing = replicas[call % 2].ring().await;
        assert!(ringing.is_admitted(), "call {call}");
        // Its slot comes back, and its dial does not.
        replicas[0].status(&ringing.sid, "completed").await;
    }
    for gateway in replicas.all() {
        gateway.ring().await.refused_as_busy();
        let used = r#"agent_budget_used{agent="default",budget="dials"}"#;
        eventually(async || gateway.figure(used).await == 30).await;
    }
    let refused = r#"calls_refused_total{scope="agent",reason="dials"}"#;
    assert_eq!(replicas.figure(refused).await, 2);
    assert_eq!(replicas.registered().await, 0);
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_first_agent_has_no_room_the_second_talks_on_whichever_replica() {
    let (mut first, mut second) = (ScriptedAgent::start().await, ScriptedAgent::start().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callgate.toml");
    let text = format!(
        "[agents.first]\nurl = \"{}\"\nmax_sessions = 1\n\
         [agents.second]\nurl = \"{}\"\nmax_sessions = 1\n\
         [campaigns.support]\nnumbers = [\"{SUPPORT}\"]\n\
         agent = \"first\"\nsecond_agent = \"second\"\n",
        first.url, second.url
    );
    fs::write(&file, text).unwrap();
    let settings = [("CALLGATE_CONFIG", file.to_str().unwrap())];
    let replicas = Replicas::start(2, &settings).await;
    let one = replicas[0].ring_number(SUPPORT).await.connected().await;
    let _one = first.session().await;
    let other = replicas[1].ring_number(SUPPORT).await;
    let _there = second.session().await;
    assert_eq!(replicas.state(&other.sid).await["agent"], "second");
    // Its media reaches another replica than its webhook did.
    let other = other.on(&replicas[0]).connected().await;
    let _here = second.session().await;
    assert!(first.is_alone());
    for gateway in replicas.all() {
        gateway.ring_number(SUPPORT).await.refused_as_busy();
    }
    let refused = r#"calls_refused_total{scope="agent",reason="full"}"#;
    assert_eq!(replicas.figure(refused).await, 2);
    one.hang_up().await;
    let next = replicas[1].ring_number(SUPPORT).await;
    let _next = first.session().await;
    replicas[0].status(&next.sid, "completed").await;
    other.hang_up().await;
    replicas.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_keeps_failing_at_one_replica_is_left_alone_by_the_other_too() {
    let gone = [("OPENAI_REALTIME_URL", "ws://127.0.0.1:1/")];
    let replicas = Replicas::each(&[&gone, &[]]).await;
    for _ in 0..3 {
        let call = replicas[0].ring().await.connected().await;
        replicas[0].ended(&call.sid).await;
        replicas[0].status(&call.sid, "completed").await;
    }
    let resting = "calls:resting:default";
    eventually(async || replicas.redis.cli(&["EXISTS", resting]).await == "1").await;
    // However slow this machine is, the rest is not over before somebody has rung.
    replicas.redis.cli(&["PEXPIRE", resting, "3600000"]).await;
    replicas[1].ring().await.refused_as_busy();
    eventually(async || replicas[1].detail("agents").await["default"]["resting"] == true).await;
    let refused = r#"calls_refused_total{scope="agent",reason="resting"}"#;
    assert_eq!(replicas[1].figure(refused).await, 1);
    // Who has failed itself may tell of its rest once more, after the other's word that it is over.
    replicas[0].drain(pending()).await;
    // Once it is over, one call may try; it is reached, and so by everybody.
    replicas.redis.cli(&["PEXPIRE", resting, "60000"]).await;
    let call = replicas[1].ring().await.connected().await;
    call.agent_speaks().await;
    eventually(async || replicas.redis.cli(&["EXISTS", resting]).await == "0").await;
    call.hang_up().await;
    replicas.finish().await;
}
