//! What has become of calls of whose ends nobody has told that they are written.

use super::*;
use crate::admission::state::{Fate, Orphan};

/// Returns the state of a call of `r1`, with some fields more.
fn state_of(fields: &str) -> String {
    format!(
        r#"{{"tenant":"acme","campaign":"sales","agent":"default","replica":"r1",
        "caller":"+9*******4567",{fields}}}"#
    )
}

/// Stores a call's state and looks who tells of it, while these replicas live.
async fn fate(state: &str, alive: &[&str]) -> (Fate, i64) {
    let server = RedisServer::start();
    let store = connected(&server.url(), "", "looker").await;
    for replica in alive {
        let replica = connected(&server.url(), "", replica).await;
        renew(&replica, &[]).await.unwrap();
    }
    store.note(&call("CA1"), state).await.unwrap();
    server.ask::<()>("EXPIRE calls:state:CA1 60");
    let fate = store.fate(&call("CA1")).await.unwrap();
    (fate, server.ask("TTL calls:state:CA1"))
}

#[tokio::test]
async fn a_call_is_lost_once_nobody_lives_who_knows_of_it() {
    let inbound = r#""scopes":["global","tenant:acme"]"#;
    for (fields, alive, is_lost) in [
        (r#""state":"live""#, vec![], true),
        (r#""state":"ringing""#, vec!["r2"], true),
        (r#""state":"live""#, vec!["r1"], false),
        (r#""state":"ended","ended_by":"r2""#, vec![], true),
        (r#""state":"ended","ended_by":"r2""#, vec!["r3"], true),
        (r#""state":"ended","ended_by":"r2""#, vec!["r2"], false),
        (r#""state":"ended","ended_by":"r2""#, vec!["r1"], false),
        (r#""state":"ended""#, vec!["r1"], false),
        (r#""state":"ended""#, vec!["r2"], true),
    ] {
        let state = state_of(&format!("{fields},{inbound}"));
        let (fate, kept_for) = fate(&state, &alive).await;
        let expected = if is_lost {
            Fate::Lost(Orphan::read(&state).unwrap())
        } else {
            Fate::Open
        };
        assert_eq!(fate, expected, "{fields} while {alive:?} live");
        // What is lost may have to wait for the database.
        assert_eq!(kept_for > 60, is_lost, "{fields}: {kept_for} s");
    }
}

#[tokio::test]
async fn nothing_is_to_be_written_of_who_has_a_record_before_the_carrier_is_asked() {
    let outbound = r#""scopes":["global","outbound","tenant:acme"]"#;
    for (phase, is_settled) in [("ringing", true), ("ended", true), ("live", false)] {
        let state = state_of(&format!(r#""state":"{phase}",{outbound}"#));
        let (fate, _) = fate(&state, &[]).await;
        assert_eq!(fate == Fate::Settled, is_settled, "{phase}: {fate:?}");
    }
    let (fate, _) = fate("{}", &[]).await;
    assert_eq!(fate, Fate::Settled, "nobody knows whose it was");
}

#[tokio::test]
async fn a_call_that_somebody_has_is_not_lost_whoever_had_it_before() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    live(&store, "CA1").await;
    let state = state_of(r#""state":"live""#);
    store.note(&call("CA1"), &state).await.unwrap();
    store.leave().await.unwrap();
    assert_eq!(store.fate(&call("CA1")).await.unwrap(), Fate::Open);
}

#[tokio::test]
async fn who_tells_of_an_end_that_was_anothers_is_in_the_state() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    let other = connected(&server.url(), "", "r2").await;
    acquire(&store, "CA1").await.unwrap();
    let state = state_of(r#""state":"live""#);
    store.note(&call("CA1"), &state).await.unwrap();
    other.end(&call("CA1"), &ending()).await.unwrap();
    let state = store.state(&call("CA1")).await.unwrap().unwrap();
    let orphan = Orphan::read(&state).unwrap();
    assert_eq!(orphan.knowers().collect::<Vec<_>>(), ["r1", "r2"]);
}
