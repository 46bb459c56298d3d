//! What is counted of slots and of the store that keeps them.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Figures of admission. Cloning it clones handles.
#[derive(Clone, Debug)]
pub struct CapacityMetrics {
    slots: Family<SlotLabels, Gauge>,
    caps: Family<SlotLabels, Gauge>,
    budgets_used: Family<BudgetLabels, Gauge>,
    budgets: Family<BudgetLabels, Gauge>,
    store_seconds: Family<OperationLabels, Histogram, fn() -> Histogram>,
    store_failures: Family<FailureLabels, Counter>,
    without_store: Counter,
    lapsed: Counter,
    lost: Counter,
    looked_after: Counter,
    over_cap: Counter,
    replicas: Gauge,
    replicas_expected: Gauge,
    replicas_least: Gauge,
    gate: Gauge,
    degraded: Gauge,
    degraded_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    clock_skew: Gauge<f64, std::sync::atomic::AtomicU64>,
    clock_jumps: Counter,
}

/// How things stand between this replica and the store.
#[derive(Debug, Clone, Copy)]
pub struct Condition {
    /// Replicas that share the store, and how many the settings say there are.
    pub replicas: u32,
    pub expected: u32,
    pub gated: bool,
    pub degraded: bool,
    /// For how long this replica has been without the store since its start.
    pub degraded_for: Duration,
    /// What this machine's clock is ahead of the store's, in seconds.
    pub clock_skew: f64,
}

/// What the slot store is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoreOperation {
    Acquire,
    Adopt,
    Renew,
    Release,
    Refuse,
    Rebind,
    PickUp,
    Note,
    Fate,
    Reap,
    Report,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SlotLabels {
    scope: &'static str,
    /// A tenant's, campaign's, group's or agent's: as many as the operator has named.
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabels {
    /// As many as the operator has named.
    agent: String,
    budget: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    operation: &'static str,
    class: &'static str,
}

impl CapacityMetrics {
    pub fn new() -> Self {
        Self {
            slots: Family::default(),
            caps: Family::default(),
            budgets_used: Family::default(),
            budgets: Family::default(),
            store_seconds: Family::new_with_constructor(brief),
            store_failures: Family::default(),
            without_store: Counter::default(),
            lapsed: Counter::default(),
            lost: Counter::default(),
            looked_after: Counter::default(),
            over_cap: Counter::default(),
            replicas: Gauge::default(),
            replicas_expected: Gauge::default(),
            replicas_least: Gauge::default(),
            gate: Gauge::default(),
            degraded: Gauge::default(),
            degraded_seconds: Gauge::default(),
            clock_skew: Gauge::default(),
            clock_jumps: Counter::default(),
        }
    }

    pub fn register(&self, r: &mut Registry) {
        r.register(
            "slots_used",
            "Slots held, by scope, as this replica last saw it",
            self.slots.clone(),
        );
        r.register("slots_cap", "Slots there are, by scope", self.caps.clone());
        r.register(
            "agent_budget_used",
            "What all replicas use of an agent's budget: sessions, and dials and tokens of the last minute",
            self.budgets_used.clone(),
        );
        r.register(
            "agent_budget",
            "What an agent may be asked for, by its settings",
            self.budgets.clone(),
        );
        r.register(
            "slot_store_seconds",
            "Time that the slot store took",
            self.store_seconds.clone(),
        );
        r.register(
            "slot_store_failures",
            "What the slot store did not do, by kind of failure",
            self.store_failures.clone(),
        );
        r.register(
            "calls_admitted_without_store",
            "Calls admitted by this replica's share while the slot store was away",
            self.without_store.clone(),
        );
        r.register(
            "leases_lapsed",
            "Leases found that nobody had renewed",
            self.lapsed.clone(),
        );
        r.register(
            "leases_lost",
            "Live calls of this replica that another owner had taken",
            self.lost.clone(),
        );
        r.register(
            "calls_looked_after",
            "Times that a call was looked after that nobody has and of whose end nobody had told that it is written",
            self.looked_after.clone(),
        );
        r.register(
            "admissions_over_cap",
            "Live calls that came back above the cap",
            self.over_cap.clone(),
        );
        r.register(
            "replicas",
            "Replicas that share the store",
            self.replicas.clone(),
        );
        r.register(
            "replicas_expected",
            "Replicas that there should be at most (EXPECTED_REPLICAS)",
            self.replicas_expected.clone(),
        );
        r.register(
            "replicas_least",
            "Replicas that there should be at least (LEAST_REPLICAS)",
            self.replicas_least.clone(),
        );
        r.register(
            "slot_store_gated",
            "1 while the store may not know all calls",
            self.gate.clone(),
        );
        r.register(
            "slot_store_degraded",
            "1 while this replica admits without the store",
            self.degraded.clone(),
        );
        r.register(
            "slot_store_degraded_seconds",
            "For how long this replica has admitted without the store",
            self.degraded_seconds.clone(),
        );
        r.register(
            "clock_skew_seconds",
            "What this machine's clock is ahead of the slot store's",
            self.clock_skew.clone(),
        );
        r.register(
            "slot_store_clock_jumps",
            "Times that the slot store's clock has jumped",
            self.clock_jumps.clone(),
        );
    }

    pub fn took(&self, operation: StoreOperation, took: Duration) {
        let labels = OperationLabels {
            operation: operation.as_str(),
        };
        self.store_seconds
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    pub fn store_failed(&self, operation: StoreOperation, class: &'static str) {
        let operation = operation.as_str();
        self.store_failures
            .get_or_create(&FailureLabels { operation, class })
            .inc();
    }

    pub fn admitted_without_store(&self) {
        self.without_store.inc();
    }

    /// Counts calls that this replica was given to look after.
    pub fn looks_after(&self, calls: usize) {
        self.looked_after
            .inc_by(u64::try_from(calls).unwrap_or(u64::MAX));
    }

    pub fn renewed(&self, lapsed: usize, lost: usize, over_cap: u32) {
        self.lapsed
            .inc_by(u64::try_from(lapsed).unwrap_or(u64::MAX));
        self.lost.inc_by(u64::try_from(lost).unwrap_or(u64::MAX));
        self.over_cap.inc_by(over_cap.into());
    }

    /// Sets how many replicas there should be at least.
    pub fn least(&self, replicas: u32) {
        self.replicas_least.set(replicas.into());
    }

    /// Sets how things stand, before they are shown.
    pub fn stands(&self, condition: Condition) {
        self.replicas.set(condition.replicas.into());
        self.replicas_expected.set(condition.expected.into());
        self.gate.set(condition.gated.into());
        self.degraded.set(condition.degraded.into());
        self.degraded_seconds
            .set(condition.degraded_for.as_secs_f64());
        self.clock_skew.set(condition.clock_skew);
    }

    pub fn clock_jumped(&self) {
        self.clock_jumps.inc();
    }

    /// Sets what a scope holds, before it is shown.
    pub fn slots(&self, scope: &'static str, name: &str, used: u32, cap: u32) {
        let labels = SlotLabels {
            scope,
            name: name.to_owned(),
        };
        self.slots.get_or_create(&labels).set(used.into());
        self.caps.get_or_create(&labels).set(cap.into());
    }

    /// Sets what is used of an agent's budget, before it is shown.
    pub fn budget(&self, agent: &str, budget: &'static str, used: u32, cap: u32) {
        let labels = BudgetLabels {
            agent: agent.to_owned(),
            budget,
        };
        self.budgets_used.get_or_create(&labels).set(used.into());
        self.budgets.get_or_create(&labels).set(cap.into());
    }

    /// Forgets the budgets that were shown: the next ones may be others.
    pub fn no_budgets(&self) {
        self.budgets_used.clear();
        self.budgets.clear();
    }

    /// Forgets the scopes that were shown: the next ones may be others.
    pub fn no_slots(&self) {
        self.slots.clear();
        self.caps.clear();
    }
}

impl StoreOperation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Adopt => "adopt",
            Self::Renew => "renew",
            Self::Release => "release",
            Self::Refuse => "refuse",
            Self::Rebind => "rebind",
            Self::PickUp => "pick_up",
            Self::Note => "note",
            Self::Fate => "fate",
            Self::Reap => "reap",
            Self::Report => "report",
        }
    }
}

fn brief() -> Histogram {
    Histogram::new([
        0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.06, 0.25, 1.0, 5.0,
    ])
}
