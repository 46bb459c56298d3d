//! What operators read with `redis-cli`, as it is documented.

use std::collections::HashMap;

use super::*;

#[tokio::test]
async fn operators_read_what_is_documented() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    acquire(&store, "CA1").await.unwrap();
    assert_eq!(server.ask::<u32>("SCARD calls:active"), 1);
    assert_eq!(server.ask::<Vec<String>>("SMEMBERS calls:active"), ["CA1"]);
    assert_eq!(server.ask::<String>("GET calls:active_count"), "1");
    let set_up = server.ask::<i64>("TTL calls:active:CA1");
    assert!(
        (15..=20).contains(&set_up),
        "{set_up} s for its media to come"
    );

    let lease = live(&store, "CA1").await;
    let lasts = server.ask::<i64>("TTL calls:active:CA1");
    assert!((25..=30).contains(&lasts), "{lasts} s unless it is renewed");
    let owner = server.ask::<String>("GET calls:active:CA1");
    assert_eq!(owner, format!("{} r1", lease.epoch));
    assert_eq!(server.ask::<u32>("ZCARD calls:lease"), 1);
    assert_eq!(server.ask::<u32>("ZCARD calls:lease:tenant:acme"), 1);
    assert_eq!(server.ask::<u32>("ZCARD calls:lease:setup"), 0);
    let state = server.ask::<String>("GET calls:state:CA1");
    assert!(state.contains(r#""state":"live""#), "{state}");

    release(&store, &lease).await.unwrap();
    assert_eq!(server.ask::<u32>("SCARD calls:active"), 0);
    assert_eq!(server.ask::<String>("GET calls:active_count"), "0");
    assert_eq!(server.ask::<i64>("TTL calls:active:CA1"), -2);
    assert_eq!(
        server.ask::<String>("GET calls:ended:CA1"),
        "caller_hung_up"
    );
}

#[tokio::test]
async fn a_calls_state_gathers_what_each_replica_knows_of_it() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    let state = async |id| {
        let state = store.state(&call(id)).await.unwrap().unwrap();
        serde_json::from_str::<HashMap<String, serde_json::Value>>(&state).unwrap()
    };
    acquire(&store, "CA1").await.unwrap();
    live(&store, "CA1").await;
    store
        .note(&call("CA1"), r#"{"recording":"https://…"}"#)
        .await
        .unwrap();
    let known = state("CA1").await;
    assert_eq!(known["state"], "live", "as the one says that has its media");
    assert_eq!(
        known["scopes"][1], "tenant:acme",
        "as the one said that admitted it"
    );
    assert_eq!(known["recording"], "https://…");
    store.end(&call("CA1"), &ending()).await.unwrap();
    let known = state("CA1").await;
    assert_eq!(known["state"], "ended");
    assert_eq!(known["end_reason"], "caller_hung_up");
    assert!(known["ended_at"].is_u64());
}

#[tokio::test]
async fn a_call_whose_media_comes_after_its_slot_was_given_up_does_not_look_ended() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    let Acquired::Admitted { epoch, .. } = acquire(&store, "CA1").await.unwrap() else {
        panic!("there is room");
    };
    let given_up = Ending {
        reason: EndReason::NoMedia,
        forever: false,
        had_media: false,
        ..ending()
    };
    let lease = Lease {
        call: call("CA1"),
        epoch,
    };
    let released = store.release(&lease, &scopes(), &given_up).await;
    released.unwrap();
    live(&store, "CA1").await;
    let state = server.ask::<String>("GET calls:state:CA1");
    assert!(!state.contains("end"), "{state}");
}

#[tokio::test]
async fn a_replica_that_leaves_is_counted_no_more() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    let sibling = connected(&server.url(), "", "r2").await;
    let seen = renew(&sibling, &[]).await.unwrap();
    assert_eq!((seen.replicas, seen.siblings, seen.places), (2, 1, 3));
    store.leave().await.unwrap();
    let seen = renew(&sibling, &[]).await.unwrap();
    assert_eq!((seen.replicas, seen.siblings, seen.places), (1, 0, 0));
}

#[tokio::test]
async fn with_a_prefix_in_braces_all_keys_are_in_one_slot_of_a_cluster() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    server.ask::<()>("CLUSTER ADDSLOTSRANGE 0 16383");
    while !server
        .ask::<String>("CLUSTER INFO")
        .contains("cluster_state:ok")
    {
        tokio::task::yield_now().await;
    }
    let rights = access::RIGHTS.replace("~calls", "~{gw}:calls");
    server.ask::<()>(&format!(
        "ACL SETUSER gateway on >sesame {rights} +cluster|slots +ping"
    ));
    let settings = RedisSettings {
        cluster: true,
        ..settings(&server.url_as("gateway", "sesame"), "{gw}:")
    };
    let store = patient(&settings, "r1");
    assert_eq!(store.inspect().await.unwrap().flaws(), []);
    everything(&store).await.unwrap();
    server.ask::<()>("DEL {gw}:calls:gen:recover");
    acquire(&store, "CA3").await.unwrap();
    live(&store, "CA3").await;
    let said = server.ask::<Vec<Value>>("ACL LOG");
    assert_eq!(said, [], "nothing was denied");
    let keys = server.ask::<Vec<String>>("KEYS *");
    assert!(keys.len() > 10, "{keys:?}");
    let slots = keys.iter().map(|key| {
        assert!(key.starts_with("{gw}:calls:"), "{key}");
        server.ask::<u32>(&format!("CLUSTER KEYSLOT {key}"))
    });
    let mut slots: Vec<u32> = slots.collect();
    slots.dedup();
    assert_eq!(slots.len(), 1, "{keys:?}");
    assert_eq!(server.ask::<u32>("SCARD {gw}:calls:active"), 1);
}

#[tokio::test]
async fn a_cluster_that_we_were_not_told_of_is_a_flaw() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    let store = connected(&server.url(), "", "r1").await;
    let inspected = store.inspect().await.unwrap();
    assert_eq!(inspected.flaws(), [link::Flaw::IsCluster]);
}
