//! What has become of calls of whose ends nobody has told that they are written.

use super::*;
use crate::{
    admission::state::{Fate, Orphan},
    recent::Millis,
    record::unix_millis,
};

const YEAR: Millis = 365 * 86_400_000;

/// Returns the state of a call of `r1` that rang at some time, with some fields more.
fn state_of(rang_at: Millis, fields: &str) -> String {
    format!(
        r#"{{"tenant":"acme","campaign":"sales","agent":"default","replica":"r1",
        "caller":"+9*******4567","rang_at":{rang_at},{fields}}}"#
    )
}

/// Stores a call's state and looks who tells of it, while these replicas live. Returns also for how
/// many seconds the state is kept from then on.
async fn fate(state: &str, alive: &[&str]) -> (Fate, i64) {
    let server = RedisServer::start();
    let store = connected(&server.url(), "", "looker").await;
    for replica in alive {
        let replica = connected(&server.url(), "", replica).await;
        renew(&replica, &[]).await.unwrap();
    }
    store.note(&call("CA1"), state).await.unwrap();
    server.ask::<()>("EXPIRE calls:state:CA1 60");
    let fate = store.fate(&call("CA1"), false).await.unwrap();
    (fate, server.ask("TTL calls:state:CA1"))
}

#[tokio::test]
async fn a_call_is_lost_once_nobody_lives_who_knows_of_it() {
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
        let state = state_of(unix_millis(), fields);
        let (fate, _) = fate(&state, &alive).await;
        let expected = if is_lost {
            Fate::Lost(Orphan::read(&state).unwrap())
        } else {
            Fate::Open
        };
        assert_eq!(fate, expected, "{fields} while {alive:?} live");
    }
    let (fate, _) = fate("{}", &[]).await;
    assert_eq!(fate, Fate::Settled, "nobody knows whose it was");
}

#[tokio::test]
async fn what_is_known_of_a_call_is_kept_while_it_waits_but_for_no_more_than_a_day() {
    for (rang_at, alive, is_kept) in [
        (unix_millis(), vec![], true),
        (unix_millis(), vec!["r1"], true),
        (unix_millis() - YEAR, vec![], false),
    ] {
        let state = state_of(rang_at, r#""state":"ended""#);
        let (_, seconds) = fate(&state, &alive).await;
        assert_eq!(seconds > 60, is_kept, "{seconds} s of {rang_at}, {alive:?}");
    }
}

#[tokio::test]
async fn a_call_that_somebody_has_is_not_lost_whoever_had_it_before() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    live(&store, "CA1").await;
    let state = state_of(unix_millis(), r#""state":"live""#);
    store.note(&call("CA1"), &state).await.unwrap();
    store.leave().await.unwrap();
    assert_eq!(store.fate(&call("CA1"), false).await.unwrap(), Fate::Open);
}

/// Who carries a call notes its end, whoever else is told of it first.
#[tokio::test]
async fn who_notes_the_end_of_a_call_that_waits_for_its_media_is_in_its_state() {
    let server = RedisServer::start();
    let store = deciding(&server).await;
    let sibling = connected(&server.url(), "", "r2").await;
    for (id, waits) in [("CA1", true), ("CA2", false)] {
        acquire(&store, id).await.unwrap();
        if !waits {
            live(&store, id).await;
        }
        let state = state_of(unix_millis(), r#""state":"live""#);
        store.note(&call(id), &state).await.unwrap();
        sibling.end(&call(id), &ending()).await.unwrap();
        let state = store.state(&call(id)).await.unwrap().unwrap();
        let orphan = Orphan::read(&state).unwrap();
        let knowers: Vec<_> = orphan.knowers(false).collect();
        let expected: &[&str] = if waits { &["r1", "r2"] } else { &["r1"] };
        assert_eq!(knowers, expected, "{id}");
    }
}

/// Its end is all that the sibling knew of it.
#[tokio::test]
async fn whoever_has_written_an_end_need_not_be_waited_for() {
    let server = RedisServer::start();
    let sibling = connected(&server.url(), "", "r2").await;
    renew(&sibling, &[]).await.unwrap();
    let state = state_of(unix_millis(), r#""state":"ended","ended_by":"r2""#);
    sibling.note(&call("CA1"), &state).await.unwrap();
    for (end_is_written, is_lost) in [(false, false), (true, true)] {
        let fate = sibling.fate(&call("CA1"), end_is_written).await.unwrap();
        assert_eq!(matches!(fate, Fate::Lost(_)), is_lost, "{fate:?}");
    }
    renew(&connected(&server.url(), "", "r1").await, &[])
        .await
        .unwrap();
    let fate = sibling.fate(&call("CA1"), true).await.unwrap();
    assert_eq!(fate, Fate::Open, "its own replica may write whose it was");
}
