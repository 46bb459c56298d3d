#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one thing and lets the rest pass"
)]

use super::*;
use crate::{campaign::Campaigns, config::Config, language::Language};

fn admission(cap: &str) -> (Admission, Freed) {
    let config = Config::load(|name| (name == "MAX_ACTIVE_CALLS").then(|| cap.to_owned()));
    Admission::new(config.unwrap().caps, None, "replica".to_owned())
}

fn campaigns() -> Campaigns {
    Campaigns::only(Language::default(), None, Vec::new())
}

fn call(id: &str) -> CarrierCallId {
    CarrierCallId::try_from(id.to_owned()).unwrap()
}

fn ticket(decision: Decision) -> String {
    match decision {
        Decision::Admit { ticket, .. } => ticket,
        other => panic!("an admitted call expected, not {other:?}"),
    }
}

#[tokio::test]
async fn the_same_webhook_at_the_same_moment_takes_one_slot_and_gets_one_ticket() {
    let (admission, _freed) = admission("5");
    let (campaigns, call) = (campaigns(), call("CA1"));
    let decisions = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| admission.admit(&call, campaigns.default_campaign())))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let firsts = decisions
        .iter()
        .filter(|it| matches!(it, Decision::Admit { first: true, .. }));
    assert_eq!(firsts.count(), 1);
    let tickets: Vec<String> = decisions.into_iter().map(ticket).collect();
    assert!(tickets.iter().all(|it| *it == tickets[0]));
    assert_eq!(admission.occupancy(), Occupancy { active: 1, cap: 5 });
}

#[tokio::test]
async fn a_dropped_slot_is_given_back_by_the_task_that_owns_the_store() {
    let (admission, mut freed) = admission("1");
    let campaigns = campaigns();
    let campaign = campaigns.default_campaign();
    let first = ticket(admission.admit(&call("CA1"), campaign));
    let claimed = admission.claim(&first, &call("CA1"), campaign).unwrap();
    assert!(matches!(
        admission.admit(&call("CA2"), campaign),
        Decision::Refuse { .. }
    ));
    drop(claimed);
    let lease = freed.recv().await.unwrap();
    admission.release(&lease);
    assert_eq!(admission.occupancy().active, 0);
    assert!(matches!(
        admission.admit(&call("CA3"), campaign),
        Decision::Admit { .. }
    ));
}

#[tokio::test]
async fn only_the_calls_own_unused_ticket_claims_it() {
    let (admission, _freed) = admission("5");
    let campaigns = campaigns();
    let campaign = campaigns.default_campaign();
    let own = ticket(admission.admit(&call("CA1"), campaign));
    let other = ticket(admission.admit(&call("CA2"), campaign));
    let claim = |ticket: &str| admission.claim(ticket, &call("CA1"), campaign).map(drop);
    assert_eq!(
        claim(&other),
        Err(ClaimError::Ticket(TicketError::OtherCall))
    );
    assert_eq!(
        claim("made up"),
        Err(ClaimError::Ticket(TicketError::Forged))
    );
    assert_eq!(claim(&own), Ok(()));
    assert_eq!(claim(&own), Err(ClaimError::Used));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_and_its_slot_last_as_long_as_each_other() {
    let (admission, _freed) = admission("5");
    let campaigns = campaigns();
    let campaign = campaigns.default_campaign();
    let own = ticket(admission.admit(&call("CA1"), campaign));
    tokio::time::advance(SETUP).await;
    let claim = admission.claim(&own, &call("CA1"), campaign).map(drop);
    assert_eq!(claim, Err(ClaimError::Ticket(TicketError::Expired)));
    assert_eq!(admission.expire(), [call("CA1")]);
}

#[tokio::test(start_paused = true)]
async fn a_live_call_outlasts_its_lease_by_being_renewed() {
    let (admission, _freed) = admission("5");
    let campaigns = campaigns();
    let campaign = campaigns.default_campaign();
    let own = ticket(admission.admit(&call("CA1"), campaign));
    let claimed = admission.claim(&own, &call("CA1"), campaign).unwrap();
    for _ in 0..100 {
        tokio::time::advance(HEARTBEAT).await;
        assert_eq!(admission.renew(), []);
    }
    assert_eq!(admission.occupancy().active, 1);
    drop(claimed);
    tokio::time::advance(std::time::Duration::from_secs(31)).await;
    assert_eq!(
        admission.occupancy().active,
        0,
        "what nobody gives back lapses"
    );
}
