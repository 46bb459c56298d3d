//! One replica and its rules.

use proptest::{collection::vec as vec_of, prelude::*};

use super::super::*;

const NOW: Duration = Duration::from_secs(1);

proptest! {
    #[test]
    fn the_shares_of_all_replicas_sum_up_to_the_cap(
        cap in 1..60_u32,
        held in vec_of(0..15_u32, 1..5),
    ) {
        let (replicas, used) = (held.len(), held.iter().sum::<u32>());
        let mut live = 0;
        for held in held {
            let mut outage = bounded(replicas);
            outage.counted([(&Scope::Global, used)]);
            outage.failed(NOW, &holds(held));
            live += held + admits(&mut outage, cap, held);
        }
        prop_assert!(live <= cap.max(used), "{live} live");
        // A share is a whole number of calls.
        prop_assert!(cap < live + u32::try_from(replicas).unwrap(), "{live} live");
    }
}

#[test]
fn a_count_from_behind_the_gate_is_not_trusted() {
    let mut outage = bounded(2);
    outage.counted([(&Scope::Global, 6)]);
    outage.gated(NOW, &holds(3));
    outage.counted([(&Scope::Global, 3)]); // The others have not registered yet.
    assert_eq!(outage.used(&Scope::Global), 6);
    assert_eq!(admits(&mut outage, 10, 3), 2, "half of four");
    outage.recovered(NOW);
    outage.counted([(&Scope::Global, 8)]);
    assert_eq!(outage.used(&Scope::Global), 8);
}

#[test]
fn what_is_held_when_the_trouble_begins_counts() {
    let mut outage = bounded(2);
    // Of our four at the last reply two have ended since, and others may have taken the room.
    outage.counted([(&Scope::Global, 4)]);
    outage.failed(NOW, &holds(2));
    assert_eq!(admits(&mut outage, 10, 2), 3, "half of six");
    // Nor does a second failure begin it anew.
    outage.failed(NOW, &holds(5));
    outage.gated(NOW, &holds(5));
    assert_eq!(admits(&mut outage, 10, 5), 0);
}

#[test]
fn who_was_without_the_store_puts_up_the_gate_if_others_have_to_hear_of_it() {
    let mut outage = bounded(1);
    outage.failed(NOW, &holds(0));
    assert!(!outage.must_gate(), "one reply was late");
    assert_eq!(admits(&mut outage, 1, 0), 1);
    assert!(outage.must_gate(), "others do not know who was admitted");
    outage.gated(NOW, &holds(1));
    assert!(!outage.must_gate(), "it is up");
    outage.recovered(NOW);
    for _ in 0..FAILURES {
        assert!(!outage.must_gate());
        outage.failed(NOW, &holds(1));
    }
    assert!(outage.must_gate(), "its leases may have lapsed");
    outage.recovered(NOW);
    assert!(!outage.must_gate());
    outage.forgot(NOW, &holds(1));
    assert!(outage.must_gate());
}

#[test]
fn nobody_asks_a_store_that_has_failed_until_a_renewal_finds_it_well() {
    let mut outage = bounded(1);
    assert!(outage.may_ask());
    outage.failed(NOW, &holds(0));
    outage.counted([(&Scope::Global, 0)]); // A late reply is no renewal.
    assert!(!outage.may_ask());
    outage.gated(NOW, &holds(0));
    assert!(!outage.may_ask());
    outage.recovered(NOW * 2);
    assert!(outage.may_ask());
    assert_eq!(outage.lasted(NOW * 9), NOW);
}

#[test]
fn an_allowance_goes_with_its_call() {
    // Also where the store was never heard of, and each has its part of the cap.
    for counted in [Some((&Scope::Global, 0)), None] {
        let (mut one, mut other) = (bounded(2), bounded(2));
        for outage in [&mut one, &mut other] {
            outage.counted(counted);
            outage.failed(NOW, &holds(0));
        }
        assert_eq!(admits(&mut one, 4, 0), 2);
        other.came(&[Scope::Global]);
        one.went(&[Scope::Global]);
        assert_eq!(admits(&mut one, 4, 1), 0, "of its two one is elsewhere");
        assert_eq!(admits(&mut other, 4, 1), 2, "beside the one that came");
    }
}

#[test]
fn every_scope_has_its_share_but_for_what_is_reserved() {
    let tenant = Scope::Tenant("guest".parse().unwrap());
    let mut global = Room::new(Scope::Global, 10);
    let rooms = [global.clone(), Room::new(tenant.clone(), 4)];
    let mut outage = bounded(2);
    outage.counted([(&Scope::Global, 0), (&tenant, 2)]);
    outage.failed(NOW, &HashMap::new());
    let held = HashMap::from([(Scope::Global, 1), (tenant.clone(), 1)]);
    let full = Verdict::Refuse {
        scope: tenant.clone(),
        used: 1,
        cap: 1,
    };
    assert_eq!(outage.decide(&rooms, &held), full);
    // Six are for the guest, who has two of them.
    global.reserves.push((tenant, 6));
    let full = Verdict::Refuse {
        scope: Scope::Global,
        used: 3,
        cap: 3,
    };
    assert_eq!(outage.decide(&[global.clone()], &holds(3)), full);
    assert_eq!(outage.decide(&[global], &holds(2)), Verdict::Admit);
}

#[test]
fn the_operator_may_want_everybody_in_or_nobody() {
    for (mode, admitted) in [
        (RedisOutage::Open, 100),
        (RedisOutage::Closed, 0),
        // It has never heard of the store: its part of the cap, as the operator says.
        (RedisOutage::Bounded, 4),
    ] {
        let mut outage = Outage::new(mode, 3);
        outage.failed(NOW, &holds(0));
        assert_eq!(admits(&mut outage, 10, 0), admitted, "{mode:?}");
    }
}

fn bounded(replicas: usize) -> Outage {
    let mut outage = Outage::new(RedisOutage::Bounded, 1);
    outage.replicas(u32::try_from(replicas).unwrap());
    outage
}

fn holds(calls: u32) -> HashMap<Scope, u32> {
    HashMap::from([(Scope::Global, calls)])
}

/// Returns how many calls come in beside those that are held, of a hundred.
fn admits(outage: &mut Outage, cap: u32, held: u32) -> u32 {
    let rooms = [Room::new(Scope::Global, cap)];
    let mut calls = held..held + 100;
    let refused = calls.find(|held| outage.decide(&rooms, &holds(*held)) != Verdict::Admit);
    refused.map_or(100, |refused| refused - held)
}
