//! What becomes of an operation when the server fails.

use super::*;

/// Returns everything that is stored, by key.
fn stored(server: &RedisServer) -> Vec<(String, String)> {
    let mut keys = server.ask::<Vec<String>>("KEYS *");
    keys.sort();
    let dumps = keys.into_iter().map(|key| {
        let dump = server.ask::<redis::Value>(&format!("DUMP {key}"));
        (key, format!("{dump:?}"))
    });
    dumps.collect()
}

fn class<T: fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    result.expect_err("it fails").class()
}

#[tokio::test]
async fn a_server_that_has_forgotten_the_scripts_is_sent_them_again() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    acquire(&store, "CA1").await.unwrap();
    server.ask::<()>("SCRIPT FLUSH");
    let lease = live(&store, "CA1").await;
    server.ask::<()>("SCRIPT FLUSH");
    renew(&store, &[&lease]).await.unwrap();
    server.ask::<()>("SCRIPT FLUSH");
    let released = release(&store, &lease).await.unwrap();
    assert!(matches!(released, Released::Freed { active: 0, .. }));
}

#[tokio::test]
async fn a_full_server_takes_slots_back_and_gives_none() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    acquire(&store, "CA1").await.unwrap();
    let lease = live(&store, "CA1").await;
    server.ask::<()>("CONFIG SET maxmemory 1");
    let before = stored(&server);
    assert_eq!(class(acquire(&store, "CA2").await), "oom");
    assert_eq!(class(adopt(&store, "CA2", "{}").await), "oom");
    assert_eq!(class(renew(&store, &[&lease]).await), "oom");
    assert_eq!(stored(&server), before, "what fails has written nothing");
    let released = release(&store, &lease).await.unwrap();
    assert!(matches!(released, Released::Freed { active: 0, .. }));
    server.ask::<()>("CONFIG SET maxmemory 0");
    let admitted = acquire(&store, "CA2").await.unwrap();
    assert!(matches!(admitted, Acquired::Admitted { .. }));
}

#[tokio::test]
async fn a_primary_that_was_demoted_changes_nothing() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    acquire(&store, "CA1").await.unwrap();
    let lease = live(&store, "CA1").await;
    server.ask::<()>("REPLICAOF 127.0.0.1 1");
    let before = stored(&server);
    assert_eq!(class(acquire(&store, "CA2").await), "readonly");
    assert_eq!(class(adopt(&store, "CA2", "{}").await), "readonly");
    assert_eq!(class(renew(&store, &[&lease]).await), "readonly");
    assert_eq!(class(release(&store, &lease).await), "readonly");
    assert_eq!(stored(&server), before);
    let inspected = store.inspect().await.unwrap();
    assert_eq!(inspected.flaws(), [link::Flaw::ReadOnly]);
}

#[tokio::test]
async fn a_server_that_runs_somebodys_endless_script_is_busy() {
    let server = RedisServer::start_with(&["--lua-time-limit", "1"]);
    let store = deciding(&server).await;
    let mut endless = redis::cmd("EVAL");
    endless.arg("while true do end").arg(0);
    let _socket = server.send(&endless);
    while server.try_ask::<String>("PING").is_ok() {}
    assert_eq!(class(acquire(&store, "CA1").await), "busy");
    server.ask::<()>("SCRIPT KILL");
    while server.try_ask::<String>("PING").is_err() {}
    acquire(&store, "CA1").await.unwrap();
}

#[tokio::test]
async fn nobody_waits_longer_than_the_budget_for_a_server_that_hangs() {
    let server = RedisServer::start();
    let mut store = deciding(&server).await;
    acquire(&store, "CA0").await.unwrap(); // Now it knows the script as well.
    alone(&mut store).budget = BUDGET;
    server.pause();
    tokio::time::pause(); // From here on it only goes on while everybody waits.
    let hung = acquire(&store, "CA1").await;
    assert!(matches!(hung, Err(StoreError::TooSlow(BUDGET))), "{hung:?}");
    let hung = renew(&store, &[]).await;
    assert_eq!(class(hung), "timeout", "a heartbeat gives up as well");
    tokio::time::resume();
    server.resume();
    alone(&mut store).budget = LONG;
    // What it was asked while it hung, it has done by now, and its late answers confuse nobody.
    let late = acquire(&store, "CA1").await.unwrap();
    assert!(
        matches!(late, Acquired::Repeated(Kept::Admitted(_))),
        "{late:?}"
    );
    let admitted = acquire(&store, "CA2").await.unwrap();
    let Acquired::Admitted { used, .. } = admitted else {
        panic!("there is room: {admitted:?}");
    };
    assert_eq!(used[0], 3);
}

#[tokio::test]
async fn only_so_many_callers_wait_at_once_and_none_for_a_server_known_to_be_away() {
    let server = RedisServer::start();
    let mut store = deciding(&server).await;
    alone(&mut store).budget = BUDGET;
    let store = Arc::new(store);
    server.pause();
    tokio::time::pause();
    let callers: Vec<_> = (0..200)
        .map(|caller| {
            let store = Arc::clone(&store);
            let acquire = async move { acquire(&store, &format!("CA{caller}")).await };
            store_tasks().spawn(acquire)
        })
        .collect();
    while store.inner.in_flight.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    store.set_away(true); // As soon as the first of them has failed.
    let mut classes = Vec::new();
    for caller in callers {
        classes.push(class(caller.await.unwrap()));
    }
    let waited = classes.iter().filter(|class| **class == "timeout").count();
    assert_eq!(waited, MOST_IN_FLIGHT);
    let turned_away = classes.iter().filter(|class| **class == "away").count();
    assert_eq!(turned_away, 200 - MOST_IN_FLIGHT);
    server.resume();
}

fn store_tasks() -> TaskTracker {
    TaskTracker::new()
}

#[tokio::test]
async fn a_server_that_comes_back_empty_decides_once_all_replicas_have_renewed() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    acquire(&store, "CA1").await.unwrap();
    let lease = live(&store, "CA1").await;
    server.kill();
    assert_eq!(class(acquire(&store, "CA2").await), "io");
    server.restart();
    while renew(&store, &[]).await.is_err() {
        store.reconnect();
    }
    assert_eq!(acquire(&store, "CA2").await.unwrap(), Acquired::Resync);
    let renewed = renew(&store, &[&lease]).await.unwrap();
    assert!(renewed.gated);
    assert_eq!(
        renewed.news,
        [(call("CA1"), super::News::TakenIn(lease.epoch))]
    );
    assert_eq!(acquire(&store, "CA2").await.unwrap(), Acquired::Resync);
    let gate = server.ask::<i64>("PTTL calls:gen:recover");
    assert!((1..=3_000).contains(&gate), "{gate} ms");
    server.ask::<()>("DEL calls:gen:recover");
    assert!(!renew(&store, &[&lease]).await.unwrap().gated);
    let admitted = acquire(&store, "CA2").await.unwrap();
    let Acquired::Admitted { epoch, used, .. } = admitted else {
        panic!("there is room: {admitted:?}");
    };
    assert!(epoch > lease.epoch);
    assert_eq!(used, [2, 1, 2, 1]);
}

#[tokio::test]
async fn a_server_that_was_flushed_gates_until_it_is_renewed() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    server.flush();
    assert_eq!(acquire(&store, "CA1").await.unwrap(), Acquired::Resync);
    assert_eq!(stored(&server), [], "who only asks leaves nothing there");
    let adopted = adopt(&store, "CA1", "{}").await.unwrap();
    assert!(matches!(adopted, Adopted::Live { gated: true, .. }));
}

#[tokio::test]
async fn a_store_that_has_never_connected_is_away_for_callers() {
    let store = patient(&settings("redis://127.0.0.1:1/", ""), "r1");
    assert_eq!(class(acquire(&store, "CA1").await), "away");
    assert_eq!(class(renew(&store, &[]).await), "io");
}

#[tokio::test]
async fn who_carried_a_call_that_the_store_was_not_told_of_gives_its_waiting_slot_back() {
    let server = RedisServer::start();
    let admits = deciding(&server).await;
    let carries = connected(&server.url(), "", "another").await;
    acquire(&admits, "CA1").await.unwrap();
    let unheard = Lease {
        call: call("CA1"),
        epoch: 0,
    };
    // One that waits for the media as well says nothing about it.
    let released = release(&carries, &unheard).await.unwrap();
    assert_eq!(released, Released::Stale);
    let ending = Ending {
        had_media: true,
        ..ending()
    };
    let released = carries.release(&unheard, &scopes(), &ending).await.unwrap();
    assert!(matches!(released, Released::Freed { active: 0, .. }));
    // Nor does one that carried it take it from who carries it now.
    acquire(&admits, "CA2").await.unwrap();
    live(&admits, "CA2").await;
    let unheard = Lease {
        call: call("CA2"),
        epoch: 0,
    };
    let released = carries.release(&unheard, &scopes(), &ending).await.unwrap();
    assert_eq!(released, Released::Stale);
}
