#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one thing and lets the rest pass"
)]

use std::time::Duration;

use futures_util::future::join_all;

use super::*;
use crate::{
    admission::{redis_server::RedisServer, store::Ending},
    call::CallerId,
    campaign::{Budget, Campaigns},
    config::Config,
    language::Language,
};

fn admission(cap: &str) -> (Admission, ToFree) {
    with(&[("MAX_ACTIVE_CALLS", cap)])
}

/// Returns one of two replicas whose store was never there: each may have half of the cap.
fn without_store(cap: &str) -> (Admission, ToFree) {
    with(&[
        ("MAX_ACTIVE_CALLS", cap),
        ("REDIS_URL", "redis://127.0.0.1:1/"),
        ("EXPECTED_REPLICAS", "2"),
    ])
}

/// Returns a replica over a server that it has not renewed anything with.
async fn over_redis(server: &RedisServer, cap: &str) -> (Admission, ToFree) {
    let url = server.url();
    let (mut admission, freed) = with(&[("MAX_ACTIVE_CALLS", cap), ("REDIS_URL", &url)]);
    if let Store::Redis(store) = &mut admission.store {
        store.be_patient();
    }
    admission.inspect().await.unwrap();
    (admission, freed)
}

fn with(settings: &[(&str, &str)]) -> (Admission, ToFree) {
    let set = |name: &str| settings.iter().find(|(set, _)| *set == name);
    let config = Config::load(|name| set(name).map(|(_, value)| (*value).to_owned()));
    let Config { caps, store, .. } = config.unwrap();
    let secret = SecretString::from("the same on all replicas");
    Admission::new(caps, &store, Some(&secret), CapacityMetrics::new()).unwrap()
}

async fn admit(admission: &Admission, id: &str) -> Decision {
    let campaigns = campaigns();
    let campaign = campaigns.default_campaign();
    let caller = &CallerId::Withheld;
    admission
        .admit(&call(id), caller, campaign, &campaigns, &ready())
        .await
}

/// Returns what a replica can do that has places for media.
fn ready() -> Readiness {
    Readiness {
        dials: true,
        ..Readiness::default()
    }
}

async fn claim(admission: &Admission, ticket: &str, id: &str) -> Result<Claimed, ClaimError> {
    let campaigns = campaigns();
    let ticket = admission.read(ticket, &call(id))?;
    let campaign = campaigns.default_campaign();
    admission.claim(&ticket, campaign, &campaigns).await
}

/// Renews everything, as a heartbeat does.
async fn renew(admission: &Admission) -> Upkeep {
    let given_up = admission.give_up_on_lapsed().await;
    let upkeep = admission.renew(true, &[Scope::Global], Some(1)).await;
    Upkeep {
        never_came: given_up.never_came,
        gone_elsewhere: [given_up.gone_elsewhere, upkeep.gone_elsewhere].concat(),
        ..upkeep
    }
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
    let decisions = join_all((0..8).map(|_| admit(&admission, "CA1"))).await;
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
    let first = ticket(admit(&admission, "CA1").await);
    let claimed = claim(&admission, &first, "CA1").await.unwrap();
    let refused = admit(&admission, "CA2").await;
    assert!(matches!(refused, Decision::Refuse { .. }));
    drop(claimed);
    let dropped = freed.try_recv().unwrap();
    admission.release(dropped).await;
    assert_eq!(admission.occupancy().active, 0);
    let next = admit(&admission, "CA3").await;
    assert!(matches!(next, Decision::Admit { .. }));
}

#[tokio::test]
async fn only_the_calls_own_unused_ticket_claims_it() {
    let (admission, _freed) = admission("5");
    let own = ticket(admit(&admission, "CA1").await);
    let other = ticket(admit(&admission, "CA2").await);
    let claim = async |ticket: &str| claim(&admission, ticket, "CA1").await.map(drop);
    assert_eq!(
        claim(&other).await,
        Err(ClaimError::Ticket(TicketError::OtherCall))
    );
    assert_eq!(
        claim("made up").await,
        Err(ClaimError::Ticket(TicketError::Forged))
    );
    assert_eq!(claim(&own).await, Ok(()));
    assert_eq!(claim(&own).await, Err(ClaimError::Used));
}

#[tokio::test(start_paused = true)]
async fn a_ticket_and_its_slot_last_as_long_as_each_other() {
    let (admission, _freed) = admission("5");
    let own = ticket(admit(&admission, "CA1").await);
    tokio::time::advance(SETUP).await;
    let late = claim(&admission, &own, "CA1").await.map(drop);
    assert_eq!(late, Err(ClaimError::Ticket(TicketError::Expired)));
    let given_up = admission.give_up_on_lapsed().await;
    assert_eq!(given_up.never_came, [call("CA1")]);
}

#[tokio::test(start_paused = true)]
async fn a_live_call_outlasts_its_lease_by_being_renewed() {
    let (admission, _freed) = admission("5");
    let own = ticket(admit(&admission, "CA1").await);
    let claimed = claim(&admission, &own, "CA1").await.unwrap();
    for _ in 0..100 {
        tokio::time::advance(HEARTBEAT).await;
        assert_eq!(renew(&admission).await, Upkeep::default());
    }
    assert_eq!(admission.occupancy().active, 1);
    drop(claimed);
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(
        admission.occupancy().active,
        0,
        "what nobody gives back lapses"
    );
}

#[tokio::test]
async fn without_the_store_the_same_webhook_gets_one_ticket_and_that_one_socket() {
    let (admission, _freed) = without_store("10");
    let decisions = join_all((0..3).map(|_| admit(&admission, "CA1"))).await;
    let tickets: Vec<String> = decisions.into_iter().map(ticket).collect();
    assert!(tickets.iter().all(|it| *it == tickets[0]));
    assert_eq!(admission.occupancy().active, 1);
    let claim = async || claim(&admission, &tickets[0], "CA1").await.map(drop);
    assert_eq!(claim().await, Ok(()));
    assert_eq!(claim().await, Err(ClaimError::Used));
}

#[tokio::test]
async fn a_call_that_is_ended_as_its_media_comes_ends_for_the_reason_that_was_given() {
    let (admission, _freed) = admission("5");
    let own = ticket(admit(&admission, "CA1").await);
    let _claimed = claim(&admission, &own, "CA1").await.unwrap();
    assert_eq!(admission.ended_here(&call("CA1")), None);
    let wished = Ended {
        live: EndReason::Requested,
        waiting: EndReason::Canceled,
        unanswered: false,
    };
    assert!(!admission.end(&call("CA1"), wished).await, "it is live");
    let ended = admission.ended_here(&call("CA1"));
    assert_eq!(ended, Some(EndReason::Requested));
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_calls_place_is_where_its_media_is() {
    let (rings, _freed) = without_store("4");
    let (talks, _freed_there) = without_store("4");
    let own = ticket(admit(&rings, "CA1").await);
    let _claimed = claim(&talks, &own, "CA1").await.unwrap();
    assert!(is_admitted(&talks, "CA2").await);
    assert!(is_admitted(&talks, "CA3").await, "its own two");
    assert!(!is_admitted(&talks, "CA4").await);
    assert!(is_admitted(&rings, "CA5").await);
    assert!(!is_admitted(&rings, "CA6").await, "its own two");
    // Of neither is it known here where its media is, when it has not come and when it is over.
    let over = Ended {
        live: EndReason::CarrierEnded,
        waiting: EndReason::NoMedia,
        unanswered: false,
    };
    rings.end(&call("CA5"), over).await;
    assert!(!is_admitted(&rings, "CA7").await);
    tokio::time::advance(SETUP).await;
    let given_up = rings.give_up_on_lapsed().await;
    assert_eq!(given_up.gone_elsewhere, [call("CA1")]);
    assert!(!is_admitted(&rings, "CA8").await);
}

#[tokio::test]
async fn behind_the_gate_a_call_is_registered_at_once_unless_others_fill_the_house() {
    let server = RedisServer::start();
    let (admission, _freed) = over_redis(&server, "2").await;
    // Others have begun to register what they have.
    server.ask::<()>("MSET calls:gen 1 calls:gen:recover 1");
    server.ask::<()>("ZADD calls:lease 9e15 CA1");
    assert!(is_admitted(&admission, "CA2").await);
    assert_eq!(server.ask::<u32>("ZCARD calls:lease"), 2);
    let refused = admit(&admission, "CA3").await;
    let Decision::Refuse { refusal, .. } = refused else {
        panic!("there is no room: {refused:?}");
    };
    assert_eq!((refusal.used, refusal.cap), (2, 2));
    assert_eq!(server.ask::<u32>("ZCARD calls:lease"), 2);
}

#[tokio::test]
async fn a_store_whose_clock_has_jumped_is_told_of_all_calls_behind_the_gate() {
    let server = RedisServer::start();
    let (admission, _freed) = over_redis(&server, "5").await;
    renew(&admission).await;
    server.ask::<()>("DEL calls:gen:recover");
    renew(&admission).await;
    // Of two clocks it is the same which one jumps.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_600)).await;
    tokio::time::resume();
    let mut renewals = 0;
    while !server.ask::<bool>("EXISTS calls:gen:recover") {
        assert!(renewals < 5, "nobody puts up the gate");
        renew(&admission).await;
        renewals += 1;
    }
}

async fn is_admitted(admission: &Admission, id: &str) -> bool {
    matches!(admit(admission, id).await, Decision::Admit { .. })
}

#[tokio::test(start_paused = true)]
async fn a_live_calls_webhook_takes_no_second_slot_while_the_store_is_away() {
    let (admission, mut freed) = without_store("10");
    let own = ticket(admit(&admission, "CA1").await);
    let claimed = claim(&admission, &own, "CA1").await.unwrap();
    tokio::time::advance(SETUP * 2).await;
    assert_eq!(admit(&admission, "CA1").await, Decision::Ended);
    assert_eq!(admission.occupancy().active, 1);
    drop(claimed);
    admission.release(freed.try_recv().unwrap()).await;
    assert_eq!(admission.occupancy().active, 0);
}

#[tokio::test]
async fn an_end_that_is_owed_already_is_not_owed_twice() {
    let (admission, _freed) = without_store("4");
    let lost = Ended {
        live: EndReason::CarrierEnded,
        waiting: EndReason::CarrierEnded,
        unanswered: false,
    };
    for id in ["CA1", "CA2"] {
        admission.end(&call(id), lost).await;
    }
    let owed = |admission: &Admission| admission.book().owed.len();
    assert_eq!(owed(&admission), 2);
    for _ in 0..3 {
        admission.tell_again(&mut admission.book());
        assert_eq!(owed(&admission), 2);
    }
}

#[tokio::test]
async fn an_end_whose_answer_was_lost_is_noted_once_by_whoever_told_it() {
    let server = RedisServer::start();
    let (rings, _freed) = over_redis(&server, "5").await;
    let (told, _freed_there) = over_redis(&server, "5").await;
    let (other, _freed_elsewhere) = over_redis(&server, "5").await;
    renew(&rings).await;
    server.ask::<()>("DEL calls:gen:recover");
    for admission in [&rings, &told, &other] {
        renew(admission).await;
    }
    for id in ["CA1", "CA2"] {
        assert!(is_admitted(&rings, id).await);
    }
    let over = Ended {
        live: EndReason::CarrierEnded,
        waiting: EndReason::NoMedia,
        unanswered: false,
    };
    for id in ["CA1", "CA2"] {
        // The store hears of it, and its answer is lost.
        let ending = Ending {
            reason: over.live,
            without_media: over.waiting,
            state: None,
            forever: true,
            had_media: false,
        };
        told.store.end(0, &call(id), &ending).await.unwrap();
    }
    assert!(told.end(&call("CA1"), over).await, "it was sent once more");
    assert!(!told.end(&call("CA1"), over).await, "and is noted once");
    told.failed(&StoreError::TooSlow(TICK));
    assert!(!told.end(&call("CA2"), over).await, "nobody can say");
    assert!(!told.end(&call("CA2"), over).await, "nor now");
    assert!(
        !other.end(&call("CA2"), over).await,
        "that one is another's"
    );
    let mut gone = renew(&rings).await.gone_elsewhere;
    gone.sort();
    assert_eq!(gone, [call("CA1"), call("CA2")]);
    while told.trouble() == Some(Trouble::Away) {
        renew(&told).await;
    }
    let noted = Mutex::new(Vec::new());
    let note = async |call: CarrierCallId, reason| lock(&noted).push((call, reason));
    for admission in [&rings, &told, &other] {
        admission.settle_debts(&note).await;
    }
    assert_eq!(*lock(&noted), [(call("CA2"), EndReason::NoMedia)]);
}

#[tokio::test]
async fn an_end_that_comes_before_its_call_is_known_is_noted_once_by_who_has_the_call() {
    let server = RedisServer::start();
    let (rings, _freed) = over_redis(&server, "5").await;
    let (told, _freed_there) = over_redis(&server, "5").await;
    renew(&rings).await;
    server.ask::<()>("DEL calls:gen:recover");
    for admission in [&rings, &told] {
        renew(admission).await;
    }
    assert!(is_admitted(&rings, "CA1").await);
    // As if it had been admitted while the store was away.
    server.ask::<()>("FLUSHALL");
    let over = Ended {
        live: EndReason::CarrierEnded,
        waiting: EndReason::CarrierEnded,
        unanswered: true,
    };
    assert!(!told.end(&call("CA1"), over).await, "nobody has it");
    assert_eq!(renew(&rings).await.gone_elsewhere, [call("CA1")]);
    let noted = Mutex::new(Vec::new());
    let note = async |call: CarrierCallId, reason| lock(&noted).push((call, reason));
    for admission in [&told, &rings, &told, &rings] {
        admission.settle_debts(&note).await;
    }
    assert_eq!(*lock(&noted), [(call("CA1"), EndReason::CarrierEnded)]);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_a_replica_dials_its_even_part_of_what_an_agent_allows() {
    let (admission, _freed) = without_store("100");
    let budget = Budget {
        dials: Some(5),
        ..Budget::default()
    };
    let campaigns = campaigns().with_budgets([(Name::default_name(), budget)]);
    let campaign = campaigns.default_campaign();
    let decide = async |id: &str| {
        let (call, caller, ready) = (call(id), CallerId::Withheld, ready());
        admission
            .admit(&call, &caller, campaign, &campaigns, &ready)
            .await
    };
    for id in ["CA1", "CA2"] {
        let decision = decide(id).await;
        assert!(matches!(decision, Decision::Admit { first: true, .. }));
    }
    let Decision::Refuse { refusal, .. } = decide("CA3").await else {
        panic!("two of five are this replica's");
    };
    assert_eq!((refusal.reason, refusal.used), (Reason::Dials, 2));
    tokio::time::advance(Duration::from_mins(1)).await;
    let decision = decide("CA4").await;
    assert!(matches!(decision, Decision::Admit { .. }));
}
