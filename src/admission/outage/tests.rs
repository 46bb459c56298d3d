//! Replicas over a store that fails, simulated: whatever happens, they keep together to every cap.

mod rules;
mod world;

use proptest::{collection::vec as vec_of, prelude::*};

use self::world::{Fault, Load, Rules, World};
use super::*;

/// Twice as many calls as there is room for, and much shorter ones than a heartbeat, which is the
/// hardest on the arithmetic: what a replica held a moment ago says little of what it holds.
const BUSY: Load = Load {
    rings_per_second: 50,
    mean_ms: 2_500,
    without_media: 0,
    elsewhere: 0,
    cap: 60,
};

fn any_load() -> impl Strategy<Value = Load> {
    let calls = (1..50_u32, 500..40_000_u64);
    let load = (calls, 0..30_u32, 0..100_u32, 6..80_u32);
    load.prop_map(|(calls, without_media, elsewhere, cap)| Load {
        rings_per_second: calls.0,
        mean_ms: calls.1,
        without_media,
        elsewhere,
        cap,
    })
}

/// Faults, each with the time until it begins and how long it lasts.
fn any_faults() -> impl Strategy<Value = Vec<(u64, Fault, u64)>> {
    let fault = prop_oneof![
        Just(Fault::Away),
        Just(Fault::Loss),
        Just(Fault::AwayAndLoss)
    ];
    vec_of((0..20_000_u64, fault, 2_000..45_000_u64), 1..4)
}

/// Plays faults one after another; returns by how many calls the worst moment was above its bound.
fn play(mut world: World, faults: &[(u64, Fault, u64)]) -> i64 {
    world.run(8_000);
    for (pause, fault, lasts) in faults {
        world.run(*pause);
        world.begin(*fault);
        world.run(*lasts);
        world.end_fault();
    }
    world.run(12_000);
    world.worst()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The bound is the cap, and what came in between the oldest of the replicas' last trustworthy
    /// counts and the failure: that much of what they divide was taken already. Where the next
    /// failure comes before all of them have recovered, it is also what the store has let in since
    /// the first of them had.
    #[test]
    fn no_scope_is_over_its_cap_whatever_becomes_of_the_store(
        seed in any::<u64>(),
        replicas in 1..5_usize,
        load in any_load(),
        faults in any_faults(),
    ) {
        let world = World::new(seed, replicas, load, Rules::ALL);
        let over = play(world, &faults);
        prop_assert!(over <= 0, "{} calls over", over);
    }
}

/// Tells whether a cap is ever exceeded in a few dozen runs of each fault.
fn exceeds(rules: Rules, load: Load) -> bool {
    let faults = [
        (Fault::Away, 100_000),
        (Fault::Loss, 2_000),
        (Fault::AwayAndLoss, 10_000),
    ];
    faults.into_iter().any(|(fault, lasts)| {
        (0..30).any(|seed| {
            let world = World::new(seed, 3, load, rules);
            play(world, &[(3_000, fault, lasts)]) > 0
        })
    })
}

#[test]
fn with_all_rules_a_busy_house_keeps_to_its_caps() {
    assert!(!exceeds(Rules::ALL, BUSY));
}

#[test]
fn without_the_first_rule_counts_behind_the_gate_let_too_many_in() {
    let rules = Rules {
        distrusts_gated_counts: false,
        ..Rules::ALL
    };
    assert!(exceeds(rules, BUSY));
}

#[test]
fn without_the_second_rule_what_is_held_at_different_times_adds_up_to_too_much() {
    let rules = Rules {
        latches_when_trouble_begins: false,
        ..Rules::ALL
    };
    assert!(exceeds(rules, BUSY));
}

#[test]
fn without_the_third_rule_calls_admitted_behind_the_gate_are_missed_when_it_opens() {
    let rules = Rules {
        registers_at_once: false,
        ..Rules::ALL
    };
    assert!(exceeds(rules, BUSY));
}

#[test]
fn without_the_fourth_rule_who_comes_back_first_finds_an_empty_house() {
    let rules = Rules {
        puts_up_gate: false,
        ..Rules::ALL
    };
    assert!(exceeds(rules, BUSY));
}

#[test]
fn without_the_fifth_rule_media_that_arrives_elsewhere_makes_room_twice() {
    let rules = Rules {
        moves_allowances: false,
        ..Rules::ALL
    };
    // What waits at the replica that admitted it lapses there while the call goes on elsewhere.
    let long_calls = Load {
        rings_per_second: 5,
        mean_ms: 60_000,
        elsewhere: 100,
        ..BUSY
    };
    assert!(exceeds(rules, long_calls));
    assert!(!exceeds(Rules::ALL, long_calls));
}

#[test]
fn what_was_free_is_shared_out_while_the_store_is_away() {
    for fault in [Fault::Away, Fault::AwayAndLoss] {
        let load = Load {
            rings_per_second: 2,
            mean_ms: 1_000_000_000,
            without_media: 5,
            elsewhere: 100,
            cap: 60,
        };
        let mut world = World::new(7, 3, load, Rules::ALL);
        while world.live() < 24 {
            world.run(100);
        }
        world.rings(0);
        world.run(25_000); // Until everybody's media has come or will not.
        let (before, free) = (world.live(), 60 - world.live());
        world.begin(fault);
        world.rings(10);
        world.run(10_000);
        let shared_out = world.live() - before;
        assert!(shared_out * 10 >= free * 8, "{shared_out} of {free}");
        assert!(world.worst() <= 0);
    }
}
const NOW: Duration = Duration::ZERO;

fn held(calls: u32) -> HashMap<Scope, u32> {
    HashMap::from([(Scope::Global, calls)])
}

fn rooms(cap: u32) -> [Room; 1] {
    [Room::new(Scope::Global, cap)]
}

/// Returns how many calls a replica that holds some may have by itself.
fn allowed(outage: &mut Outage, cap: u32) -> u32 {
    let mut calls = (0..=cap).rev();
    let most = calls.find(|calls| outage.decide(&rooms(cap), &held(*calls)) == Verdict::Admit);
    most.map_or(0, |most| most + 1)
}

#[test]
fn the_share_is_of_what_was_free_among_all_replicas_there_were() {
    let mut outage = Outage::new(RedisOutage::Bounded, 1);
    outage.counted([(&Scope::Global, 45)]);
    outage.replicas(3);
    outage.gated(NOW, &held(15));
    assert_eq!(allowed(&mut outage, 60), 20);
    // The store was emptied, and this replica is the first one back.
    outage.replicas(1);
    assert_eq!(allowed(&mut outage, 60), 20);
    outage.recovered(NOW);
    outage.replicas(1);
    outage.failed(NOW, &held(15));
    assert_eq!(allowed(&mut outage, 60), 30, "it is alone indeed");
}
