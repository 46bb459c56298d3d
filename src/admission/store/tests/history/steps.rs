//! What may happen, and at random.

use proptest::{collection::vec as vec_of, prelude::*, sample::select};

use super::{super::*, REPLICAS};

const CALLS: u32 = 8;
/// Times to pass that come no nearer than 300 ms to any time after which a shared store forgets
/// something: its clock goes on while operations run.
pub const CLEAR_OF_LIMITS: Millis = 1_700;

/// Caps, reserves, and whether most calls have brought no media lately.
#[derive(Debug, Clone)]
pub struct Setting {
    pub(super) global: u32,
    pub(super) setup: u32,
    pub(super) tenants: [u32; 2],
    pub(super) campaign: u32,
    /// Slots that the second tenant has for its own.
    pub(super) kept_for_tenant: u32,
    /// Slots of the first tenant that its campaign has for its own.
    pub(super) kept_for_campaign: u32,
    pub(super) flooded: bool,
    /// What the two agents may be asked for that have a budget.
    pub(super) budgets: [Budget; 2],
}

#[derive(Debug, Clone)]
pub enum Step {
    Acquire {
        replica: usize,
        call: u32,
        /// Whether the agent is dialed at once.
        dials: bool,
    },
    /// A slot is taken for a call that is about to be placed.
    Reserve {
        replica: usize,
        call: u32,
    },
    /// Somebody picks up a call that was placed, by the name that its carrier has for it.
    PickUp {
        replica: usize,
        call: u32,
        name: u32,
        dials: bool,
    },
    Adopt {
        replica: usize,
        call: u32,
        nonce: u32,
    },
    /// A call comes in while its replica is without the store, with its media or before it; maybe
    /// the store was asked, and answered when nobody waited any more.
    AdmitWithout {
        replica: usize,
        call: u32,
        has_media: bool,
        unheard: bool,
    },
    /// A call is refused while its replica is without the store, which is told afterwards.
    RefuseWithout {
        replica: usize,
        call: u32,
        unheard: bool,
    },
    /// Renews those of the replica's calls whose bit is set.
    Renew {
        replica: usize,
        calls: u8,
        was_away: bool,
        places: Option<u32>,
    },
    /// Gives back what the replica last had of a call, be it still the replica's or not.
    Release {
        replica: usize,
        call: u32,
        forever: bool,
    },
    /// Its carrier says that it is over, perhaps once more.
    End {
        replica: usize,
        call: u32,
    },
    Rebind {
        replica: usize,
        call: u32,
        name: u32,
    },
    /// A replica tells of an agent.
    Report {
        replica: usize,
        agent: usize,
        tokens: u32,
        rest: Rest,
        /// A call for which it has dialed.
        dialed: Option<u32>,
    },
    Pass(Millis),
    /// Somebody tells that a call's end is written.
    Written {
        replica: usize,
        call: u32,
    },
    /// An operator has what has lapsed swept up.
    Sweep,
    /// The replica dies, with it the knowledge of its calls, and another takes its place.
    Crash(usize),
    Lose,
}

pub fn any_setting() -> impl Strategy<Value = Setting> {
    let caps = (1..6_u32, 1..5_u32, [1..5_u32, 1..5_u32], 1..4_u32);
    let reserves = (0..3_u32, 0..3_u32, prop::bool::weighted(0.1));
    let some = |most| prop::option::weighted(0.7, 1..most);
    let budget = move || (some(4_u32), some(5_u32), some(12_u32));
    let budget = move || {
        budget().prop_map(|(sessions, dials, tokens)| Budget {
            sessions,
            dials,
            tokens,
        })
    };
    let all = (caps, reserves, [budget(), budget()]);
    all.prop_map(
        |((global, setup, tenants, campaign), reserves, budgets)| Setting {
            budgets,
            global,
            setup,
            tenants,
            campaign,
            kept_for_tenant: reserves.0,
            kept_for_campaign: reserves.1,
            flooded: reserves.2,
        },
    )
}

/// Steps among several replicas over a store that they share.
pub fn any_shared_history() -> impl Strategy<Value = Vec<Step>> {
    let refused = (0..REPLICAS, 0..CALLS, any::<bool>());
    let refused = refused.prop_map(|(replica, call, unheard)| Step::RefuseWithout {
        replica,
        call,
        unheard,
    });
    let times = [1, 2, 4, 5, 8, 12, 18, 19, 36, 2_200];
    let pass = select(
        times
            .map(|times| Step::Pass(times * CLEAR_OF_LIMITS))
            .to_vec(),
    );
    let without = (0..REPLICAS, 0..CALLS, any::<bool>(), any::<bool>());
    let without = without.prop_map(|(replica, call, has_media, unheard)| Step::AdmitWithout {
        replica,
        call,
        has_media,
        unheard,
    });
    let written = (0..REPLICAS, 0..CALLS);
    let written = written.prop_map(|(replica, call)| Step::Written { replica, call });
    vec_of(
        prop_oneof![
            24 => any_step(),
            5 => pass,
            2 => without,
            1 => refused,
            1 => written,
            1 => Just(Step::Sweep),
        ],
        0..60,
    )
}

/// Steps in one process, whose time is exact.
pub fn any_history() -> impl Strategy<Value = Vec<Step>> {
    let limits = [SETUP, LEASE, 60_000, 3_600_000];
    let near = limits.into_iter().flat_map(|at| [at - 1, at, at + 1]);
    let pass = prop_oneof![4 => 0..25_000_u64, 1 => select(near.collect::<Vec<_>>())];
    vec_of(
        prop_oneof![24 => any_step(), 5 => pass.prop_map(Step::Pass)],
        0..60,
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let (replica, call) = (|| 0..REPLICAS, || 0..CALLS);
    let acquire = (replica(), call(), prop::bool::weighted(0.7));
    let acquire = acquire.prop_map(|(replica, call, dials)| Step::Acquire {
        replica,
        call,
        dials,
    });
    let rest = prop_oneof![3 => Just(Rest::No), 1 => Just(Rest::For(2_000)), 1 => Just(Rest::Over)];
    let told = (0..8_u32, rest, prop::option::weighted(0.2, call()));
    let report = (replica(), 0..2_usize, told);
    let report = report.prop_map(|(replica, agent, (tokens, rest, dialed))| Step::Report {
        replica,
        agent,
        tokens,
        rest,
        dialed,
    });
    let adopt = (replica(), call(), 0..3_u32).prop_map(|(replica, call, nonce)| Step::Adopt {
        replica,
        call,
        nonce,
    });
    let renew = (
        replica(),
        prop_oneof![3 => Just(u8::MAX), 1 => any::<u8>()],
        prop::bool::weighted(0.1),
        prop::option::weighted(0.8, 0..5_u32),
    );
    let renew = renew.prop_map(|(replica, calls, was_away, places)| Step::Renew {
        replica,
        calls,
        was_away,
        places,
    });
    let release = (replica(), call(), any::<bool>());
    let release = release.prop_map(|(replica, call, forever)| Step::Release {
        replica,
        call,
        forever,
    });
    // A name that others use, or one that nobody does; a call counts in the same scopes by it.
    let rebind = (replica(), call(), any::<bool>());
    let end = (replica(), call()).prop_map(|(replica, call)| Step::End { replica, call });
    let rebind = rebind.prop_map(|(replica, call, is_new)| Step::Rebind {
        replica,
        call,
        name: if is_new {
            call + CALLS
        } else {
            (call + 4) % CALLS
        },
    });
    let reserve = (replica(), call()).prop_map(|(replica, call)| Step::Reserve { replica, call });
    let pick_up = (replica(), call(), any::<bool>(), any::<bool>());
    // Its carrier may have told the name before.
    let pick_up = pick_up.prop_map(|(replica, call, is_known, dials)| Step::PickUp {
        replica,
        call,
        name: call + if is_known { CALLS } else { 2 * CALLS },
        dials,
    });
    prop_oneof![
        8 => acquire,
        5 => adopt,
        6 => renew,
        3 => release,
        2 => end,
        2 => rebind,
        4 => reserve,
        3 => pick_up,
        2 => report,
        1 => replica().prop_map(Step::Crash),
        1 => Just(Step::Lose),
    ]
}
