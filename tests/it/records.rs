//! What the database keeps of whole calls.

use crate::gateway::{TestGateway, eventually};

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
