//! What the database keeps of whole calls.

use std::time::Duration;

use serde_json::json;
use sqlx::{AnyConnection, Connection};
use tokio::time::{sleep, timeout};

use crate::{
    carrier::{call_sid, ringing},
    database::Database,
    gateway::{TestGateway, eventually},
    process::Program,
    redis::Redis,
};

const CALLS: &str = "SELECT carrier_call, direction, tenant, campaign, agent, caller_shown, \
                     called_shown, state, reason, blame, scope FROM calls ORDER BY rang_at, call";

#[tokio::test]
async fn answered_and_refused_calls_are_recorded() {
    let gateway = TestGateway::with_slots(1).await;
    let answered = gateway.ring().await.connected().await;
    let refused = gateway.ring().await;
    let (first, second) = (answered.sid.clone(), refused.sid.clone());
    gateway.ring_as(&second).await; // The same again is no other call.
    answered.hang_up().await;
    let common = "inbound default default";
    let expected = [
        format!(
            "{first} {common} default +9*******4567 +9*******4567 ended caller_hung_up caller -"
        ),
        format!("{second} {common} - +9*******4567 +9*******4567 rejected_capacity full - global"),
    ];
    eventually(async || gateway.database.ask(CALLS).await == expected).await;
    let events = "SELECT kind, COUNT(*) FROM events GROUP BY kind ORDER BY kind";
    eventually(async || {
        let events = gateway.database.ask(events).await;
        events.starts_with(&["call.ended 1".to_owned(), "call.refused 1".to_owned()])
            && events.contains(&"call.started 1".to_owned())
    })
    .await;
    let health = gateway.detail("records").await;
    assert_eq!(
        (&health["call_log"], &health["dropped"]),
        (&"ok".into(), &0.into())
    );
    gateway.finish().await;
}

/// Returns what replicas share.
fn sharing<'a>(redis: &'a str, database: &'a Database) -> [(&'a str, &'a str); 4] {
    [
        ("REDIS_URL", redis),
        // What is admitted while a machine stumbles would be in no store.
        ("REDIS_TIMEOUT_MS", "1000"),
        ("DATABASE_URL", database.url()),
        ("TICKET_SECRET", "a-secret-that-signs-tickets"),
    ]
}

/// Brings a call to a replica, and waits until others can know of it.
async fn rings_at(replica: &Program, redis: &Redis, sid: &str) {
    let fields = ringing(sid);
    let answer = replica.carrier.webhook("/webhook/incoming_call", &fields);
    answer.await.twiml();
    eventually(async || redis.cli(&["SISMEMBER", "calls:active", sid]).await == "1").await;
}

/// What a replica knew of its calls dies with it, but for what it had committed and what the store
/// of slots keeps: others close all of them, also if the first that finds out dies as well.
#[tokio::test(flavor = "multi_thread")]
async fn slow_the_calls_of_a_replica_that_is_killed_are_closed_by_another() {
    let redis = Redis::start().await;
    let (database, url) = (Database::new(), redis.url());
    let brief = ("TELEPHONY_SEMAPHORE_TTL_SEC", "15");
    let settings = [&sharing(&url, &database)[..], &[brief]].concat();
    let mut first = Program::start(&settings).await;
    let mut victim = Program::start(&settings).await;
    let talking = call_sid();
    let line = victim.call(&talking).await;
    let connected = "SELECT state FROM calls";
    eventually(async || database.ask(connected).await == ["connected"]).await;
    // Of these nothing can be committed.
    let held = hold(database.url()).await;
    let (rings, over) = (call_sid(), call_sid());
    for sid in [&rings, &over] {
        rings_at(&victim, &redis, sid).await;
    }
    let mut done = ringing(&over);
    done.retain(|(name, _)| *name != "CallStatus");
    done.push(("CallStatus", "completed"));
    victim.carrier.webhook("/webhook/call_status", &done).await;
    let known = "SELECT carrier_call FROM calls";
    assert_eq!(database.ask(known).await, [talking.as_str()]);
    victim.signal("-KILL");
    victim.ended().await;
    drop(line);
    // A sibling is told that the stream is over, and has nothing of the call to write.
    let ended = ringing(&talking);
    first.carrier.webhook("/webhook/stream_ended", &ended).await;
    eventually(async || redis.cli(&["SCARD", "calls:active"]).await == "0").await;
    first.signal("-KILL");
    first.ended().await;
    let second = Program::start(&settings).await;
    held.close().await.unwrap();
    let ends = "SELECT carrier_call, state, reason, blame, tenant FROM calls ORDER BY rang_at";
    let expected = [&talking, &rings, &over]
        .map(|sid| format!("{sid} instance_lost instance_lost callgate default"));
    let closed = async {
        while !{
            let ends = database.ask(ends).await;
            expected.iter().all(|end| ends.contains(end))
        } {
            sleep(Duration::from_millis(200)).await;
        }
    };
    let closed = timeout(Duration::from_secs(60), closed).await;
    assert!(closed.is_ok(), "{:?}", database.ask(ends).await);
    let told = "SELECT kind, COUNT(*) FROM events GROUP BY kind ORDER BY kind";
    let told = database.ask(told).await;
    assert!(told.contains(&"call.ended 3".to_owned()), "{told:?}");
    assert!(second.carrier.figure("calls_looked_after_total").await > 0);
    second.terminate();
}

/// What the store keeps of a call outlives its slot, and says that it is live.
#[tokio::test]
async fn slow_a_call_whose_slot_is_gone_with_its_replica_is_closed() {
    let redis = Redis::start().await;
    let (database, url) = (Database::new(), redis.url());
    let brief = ("TELEPHONY_SEMAPHORE_TTL_SEC", "15");
    let gateway = TestGateway::with(&[&sharing(&url, &database)[..], &[brief]].concat()).await;
    gateway.until_degraded(&[]).await;
    let sid = call_sid();
    let state = json!({"tenant": "default", "campaign": "default", "agent": "default",
        "state": "live", "replica": "gone", "scopes": ["global"]});
    redis
        .cli(&["SET", &format!("calls:state:{sid}"), &state.to_string()])
        .await;
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(database.url()).await.unwrap();
    let row = format!(
        "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, state, rank, \
         replica, rang_at, connected_at) VALUES ('00000000-0000-4000-8000-000000000000', '{sid}', \
         'twilio', 'inbound', 'default', 'default', 'connected', 50, 'gone', {0}, {0})",
        jiff::Timestamp::now().as_millisecond()
    );
    sqlx::query(sqlx::AssertSqlSafe(row))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let state = "SELECT state FROM calls";
    eventually(async || database.ask(state).await == ["instance_lost"]).await;
    gateway.finish().await;
}

/// A sibling that is told of a call's end writes that, and knows nothing else of the call.
#[tokio::test(flavor = "multi_thread")]
async fn slow_whose_a_killed_replicas_call_was_is_written_though_its_end_is_there() {
    let redis = Redis::start().await;
    let (database, url) = (Database::new(), redis.url());
    let settings = sharing(&url, &database);
    let sibling = Program::start(&settings).await;
    let mut victim = Program::start(&settings).await;
    let held = hold(database.url()).await;
    let sid = call_sid();
    rings_at(&victim, &redis, &sid).await;
    victim.signal("-KILL");
    victim.ended().await;
    held.close().await.unwrap();
    let mut canceled = ringing(&sid);
    canceled.retain(|(name, _)| *name != "CallStatus");
    canceled.push(("CallStatus", "canceled"));
    sibling
        .carrier
        .webhook("/webhook/call_status", &canceled)
        .await;
    let call = "SELECT carrier_call, state, tenant FROM calls";
    eventually(async || database.ask(call).await == [format!("{sid} ended -")]).await;
    eventually(async || database.ask(call).await == [format!("{sid} ended default")]).await;
    let told = "SELECT kind FROM events ORDER BY kind";
    assert_eq!(database.ask(told).await, ["call.ended", "call.started"]);
    assert!(sibling.carrier.figure("calls_looked_after_total").await > 0);
    sibling.terminate();
}

/// Keeps everybody from writing what becomes of calls, as a database that is slow does, until what is
/// returned is closed. What is committed can be read meanwhile.
async fn hold(url: &str) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(url).await.unwrap();
    let statements: &[&str] = if url.starts_with("sqlite:") {
        &["BEGIN IMMEDIATE"]
    } else {
        &["BEGIN", "LOCK TABLE calls IN EXCLUSIVE MODE"]
    };
    for statement in statements {
        sqlx::query(*statement)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    connection
}
