#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one thing and lets the rest pass"
)]

use proptest::{collection::vec as vec_of, prelude::*};

use super::*;
use crate::campaign::Name;

const SETUP: Millis = 20_000;
const LEASE: Millis = 30_000;

fn call(number: u32) -> CarrierCallId {
    CarrierCallId::try_from(format!("CA{number}")).unwrap()
}

fn scopes(global: u32, setup: u32) -> Vec<(Scope, u32)> {
    vec![
        (Scope::Global, global),
        (Scope::Tenant(Name::default_name()), global),
        (Scope::Setup, setup),
    ]
}

fn acquire(store: &mut MemoryStore, now: Millis, number: u32, scopes: &[(Scope, u32)]) -> Acquired {
    store.acquire(
        now,
        &Request {
            call: &call(number),
            scopes,
            lease: SETUP,
            ticket: &format!("ticket-{number}-{now}"),
        },
    )
}

fn adopt(
    store: &mut MemoryStore,
    now: Millis,
    number: u32,
    scopes: &[(Scope, u32)],
    nonce: &str,
) -> Adopted {
    let request = Request {
        call: &call(number),
        scopes,
        lease: LEASE,
        ticket: "",
    };
    store.adopt(now, &request, nonce)
}

fn live(adopted: Adopted) -> Lease {
    match adopted {
        Adopted::Live(lease) => lease,
        other => panic!("a live call expected, not {other:?}"),
    }
}

#[test]
fn a_cap_is_reached_and_never_exceeded() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(2, 2));
    assert_eq!(
        acquire(&mut store, 0, 1, &scopes),
        Acquired::Admitted { active: 1 }
    );
    assert_eq!(
        acquire(&mut store, 0, 2, &scopes),
        Acquired::Admitted { active: 2 }
    );
    let refusal = Refusal {
        scope: Scope::Global,
        used: 2,
        cap: 2,
    };
    assert_eq!(
        acquire(&mut store, 0, 3, &scopes),
        Acquired::Refused(refusal)
    );
    assert_eq!(store.active(), 2);
}

#[test]
fn a_repeated_webhook_gets_the_first_decision_also_a_refusal() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(1, 1));
    acquire(&mut store, 0, 1, &scopes);
    let kept = Acquired::Repeated(Kept::Admitted("ticket-1-0".to_owned()));
    assert_eq!(acquire(&mut store, 5, 1, &scopes), kept);
    let Acquired::Refused(refusal) = acquire(&mut store, 5, 2, &scopes) else {
        panic!("no room expected");
    };
    store.end(6, &call(1));
    let kept = Acquired::Repeated(Kept::Refused(refusal));
    assert_eq!(
        acquire(&mut store, 7, 2, &scopes),
        kept,
        "though there is room"
    );
    assert_eq!(
        acquire(&mut store, 60_005, 2, &scopes),
        Acquired::Admitted { active: 1 }
    );
}

#[test]
fn a_long_calls_webhook_takes_no_second_slot_when_it_is_repeated_late() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(5, 5));
    acquire(&mut store, 0, 1, &scopes);
    let lease = live(adopt(&mut store, 1, 1, &scopes, "n"));
    let claim = Live {
        lease,
        scopes: vec![Scope::Global],
    };
    for at in (0..100_000).step_by(5_000) {
        assert_eq!(store.renew(at, LEASE, std::slice::from_ref(&claim)), []);
    }
    assert!(matches!(
        acquire(&mut store, 100_000, 1, &scopes),
        Acquired::Repeated(_)
    ));
    assert_eq!(store.active(), 1);
}

#[test]
fn a_call_without_media_gives_its_slot_back() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(1, 1));
    acquire(&mut store, 0, 1, &scopes);
    assert_eq!(store.expire(SETUP - 1), []);
    assert_eq!(store.expire(SETUP), [call(1)]);
    assert_eq!(store.active(), 0);
}

#[test]
fn a_live_call_leaves_the_set_up_scope_and_keeps_the_others() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(5, 1));
    acquire(&mut store, 0, 1, &scopes);
    assert!(matches!(
        acquire(&mut store, 0, 2, &scopes),
        Acquired::Refused(_)
    ));
    live(adopt(&mut store, 1, 1, &scopes, "n1"));
    assert_eq!(
        acquire(&mut store, 1, 3, &scopes),
        Acquired::Admitted { active: 2 }
    );
}

#[test]
fn a_ticket_is_used_once() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(5, 5));
    acquire(&mut store, 0, 1, &scopes);
    live(adopt(&mut store, 1, 1, &scopes, "n1"));
    assert_eq!(adopt(&mut store, 2, 1, &scopes, "n1"), Adopted::Used);
}

#[test]
fn what_lapsed_is_adopted_only_if_there_is_room() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(1, 1));
    acquire(&mut store, 0, 1, &scopes);
    acquire(&mut store, SETUP, 2, &scopes);
    assert!(matches!(
        adopt(&mut store, SETUP, 1, &scopes, "n1"),
        Adopted::Refused(_)
    ));
    store.end(SETUP, &call(2));
    live(adopt(&mut store, SETUP, 1, &scopes, "n1"));
}

#[test]
fn a_call_that_has_ended_is_never_admitted_again() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(5, 5));
    assert_eq!(
        store.end(0, &call(1)),
        Released::Gone,
        "the end may come first"
    );
    assert_eq!(acquire(&mut store, 1, 1, &scopes), Acquired::Ended);
    acquire(&mut store, 1, 2, &scopes);
    let lease = live(adopt(&mut store, 2, 2, &scopes, "n2"));
    assert_eq!(store.release(3, &lease), Released::Freed { active: 0 });
    assert_eq!(acquire(&mut store, 100_000, 2, &scopes), Acquired::Ended);
    assert_eq!(adopt(&mut store, 4, 2, &scopes, "n3"), Adopted::Ended);
}

#[test]
fn a_slot_is_given_back_once_and_only_by_its_owner() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(5, 5));
    acquire(&mut store, 0, 1, &scopes);
    let first = live(adopt(&mut store, 1, 1, &scopes, "n1"));
    let second = live(adopt(&mut store, 2, 1, &scopes, "n2"));
    assert!(second.epoch > first.epoch);
    assert_eq!(store.release(3, &first), Released::Stale);
    assert_eq!(store.active(), 1);
    assert_eq!(store.release(4, &second), Released::Freed { active: 0 });
    assert_eq!(store.release(5, &second), Released::Gone);
}

#[test]
fn an_owner_that_was_paused_takes_its_live_calls_in_again() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(1, 1));
    acquire(&mut store, 0, 1, &scopes);
    let lease = live(adopt(&mut store, 1, 1, &scopes, "n1"));
    assert_eq!(
        acquire(&mut store, 60_000, 2, &scopes),
        Acquired::Admitted { active: 1 }
    );
    let claim = Live {
        lease,
        scopes: vec![Scope::Global],
    };
    assert_eq!(store.renew(60_001, LEASE, &[claim]), []);
    assert_eq!(store.active(), 2, "the live caller wins over the cap");
}

#[test]
fn the_carriers_word_ends_a_call_for_its_owner_too() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(1, 1));
    acquire(&mut store, 0, 1, &scopes);
    let lease = live(adopt(&mut store, 1, 1, &scopes, "n1"));
    assert_eq!(store.end(2, &call(1)), Released::Freed { active: 0 });
    let claim = Live {
        lease: lease.clone(),
        scopes: vec![Scope::Global],
    };
    assert_eq!(store.renew(3, LEASE, &[claim]), [lease]);
    assert_eq!(store.active(), 0);
}

#[test]
fn a_flood_of_calls_without_media_leaves_room_for_those_that_bring_it() {
    let (mut store, scopes) = (MemoryStore::default(), scopes(10, 10));
    let mut now = 0;
    for number in 0..60 {
        acquire(&mut store, now, number, &scopes);
        now += SETUP;
    }
    store.expire(now);
    let admitted = (100..110).filter(|number| {
        matches!(
            acquire(&mut store, now, *number, &scopes),
            Acquired::Admitted { .. }
        )
    });
    assert_eq!(admitted.count(), 5, "half of what is free");
    for number in 100..105 {
        live(adopt(
            &mut store,
            now,
            number,
            &scopes,
            &format!("n{number}"),
        ));
    }
    let refused = acquire(&mut store, now + 1, 200, &scopes);
    assert!(
        matches!(refused, Acquired::Admitted { .. }),
        "half of the other half"
    );
    // Once most calls bring their media again, the cap is what it was.
    for number in 300..400 {
        if let Acquired::Admitted { .. } = acquire(&mut store, now, number, &scopes) {
            live(adopt(
                &mut store,
                now,
                number,
                &scopes,
                &format!("n{number}"),
            ));
        }
        store.end(now, &call(number));
    }
    let admitted = (500..510).filter(|number| {
        matches!(
            acquire(&mut store, now, *number, &scopes),
            Acquired::Admitted { .. }
        )
    });
    assert_eq!(admitted.count(), 4, "beside the six that are there");
}

#[derive(Debug, Clone)]
enum Operation {
    Acquire(u32),
    Adopt(u32, u32),
    Renew(Vec<u32>),
    Release(u32),
    End(u32),
    Wait(Millis),
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let number = 0..8_u32;
    prop_oneof![
        4 => number.clone().prop_map(Operation::Acquire),
        3 => (number.clone(), 0..3_u32).prop_map(|(call, nonce)| Operation::Adopt(call, nonce)),
        2 => vec_of(number.clone(), 0..4).prop_map(Operation::Renew),
        2 => number.clone().prop_map(Operation::Release),
        1 => number.prop_map(Operation::End),
        3 => (0..25_000_u64).prop_map(Operation::Wait),
    ]
}

/// The same rules over a plain list that is counted anew each time.
#[derive(Default)]
struct Model {
    /// Call, when it lapses, whether it is live, its lease once it is.
    held: Vec<(u32, Millis, bool, Option<Lease>)>,
}

impl Model {
    fn count(&self, now: Millis, setup_only: bool) -> u32 {
        let counted = self.held.iter();
        let counted =
            counted.filter(|(_, lapses_at, live, _)| now < *lapses_at && !(setup_only && *live));
        u32::try_from(counted.count()).unwrap()
    }

    fn forget(&mut self, call: u32) {
        self.held.retain(|(held, ..)| *held != call);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn any_history_agrees_with_a_list_that_is_counted_each_time(
        operations in vec_of(any_operation(), 0..80),
    ) {
        let (mut store, mut model) = (MemoryStore::default(), Model::default());
        let (global, setup) = (3, 2);
        let scopes = scopes(global, setup);
        let mut now = 1;
        for operation in operations {
            match operation {
                Operation::Wait(pause) => now += pause,
                Operation::Acquire(number) => {
                    let full = model.count(now, false) >= global || model.count(now, true) >= setup;
                    match acquire(&mut store, now, number, &scopes) {
                        Acquired::Admitted { .. } => {
                            prop_assert!(!full);
                            model.forget(number);
                            model.held.push((number, now + SETUP, false, None));
                        }
                        Acquired::Refused(_) => prop_assert!(full),
                        Acquired::Repeated(_) | Acquired::Ended => {}
                    }
                }
                Operation::Adopt(number, nonce) => {
                    let nonce = format!("{number}-{nonce}");
                    let waiting = model.held.iter().any(|(held, lapses_at, ..)| *held == number && now < *lapses_at);
                    let full = model.count(now, false) >= global || model.count(now, true) >= setup;
                    match adopt(&mut store, now, number, &scopes, &nonce) {
                        Adopted::Live(lease) => {
                            prop_assert!(waiting || !full);
                            model.forget(number);
                            model.held.push((number, now + LEASE, true, Some(lease)));
                        }
                        Adopted::Refused(_) => prop_assert!(!waiting && full),
                        Adopted::Used | Adopted::Ended => {}
                    }
                }
                Operation::Renew(numbers) => {
                    // A replica renews each call once.
                    let mut claims: Vec<Live> = Vec::new();
                    for (held, _, _, lease) in &model.held {
                        if let Some(lease) = lease && numbers.contains(held) {
                            let kept = scopes.iter().map(|(scope, _)| scope.clone());
                            let kept = kept.filter(|scope| scope.counts(true)).collect();
                            claims.push(Live { lease: lease.clone(), scopes: kept });
                        }
                    }
                    let lost = store.renew(now, LEASE, &claims);
                    for (_, lapses_at, _, lease) in &mut model.held {
                        let renewed = claims.iter().any(|claim| Some(&claim.lease) == lease.as_ref());
                        if renewed && lease.as_ref().is_some_and(|lease| !lost.contains(lease)) {
                            *lapses_at = now + LEASE;
                        }
                    }
                }
                Operation::Release(number) => {
                    let lease = model.held.iter().find(|(held, ..)| *held == number);
                    if let Some((_, _, _, Some(lease))) = lease.cloned() {
                        store.release(now, &lease);
                        model.forget(number);
                    }
                }
                Operation::End(number) => {
                    store.end(now, &call(number));
                    model.forget(number);
                }
            }
            store.reap(now);
            prop_assert_eq!(store.active(), model.count(now, false));
            let used = store.used.get(&Scope::Setup).copied().unwrap_or(0);
            prop_assert_eq!(used, model.count(now, true));
            prop_assert_eq!(store.lapses.len(), store.held.len());
        }
    }
}
