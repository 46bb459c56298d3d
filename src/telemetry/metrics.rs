//! Every figure of this process.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use serde::{Deserialize, Serialize};

use crate::{
    call::{Blame, Carrier, EndReason},
    telemetry::{
        AgentMetrics, CallMetrics, CapacityMetrics, EventMetrics, OfferMetrics, ProcessMetrics,
        RecordMetrics, ToolMetrics, TraceMetrics, slow,
    },
};

/// What carriers tell of that is signed, as its handlers name it.
const EVENTS: [&str; 10] = [
    "incoming_call",
    "call_status",
    "stream_ended",
    "outbound_call",
    "outbound_status",
    "voicemail",
    "recording_status",
    "message_status",
    "transfer_ended",
    "acs_callback",
];

/// The scopes and reasons of refusals, as admission names them.
const REFUSALS: [(&str, &[&str]); 7] = [
    (
        "global",
        &[
            "full",
            "outage",
            "connections",
            "draining",
            "intake_stopped",
        ],
    ),
    ("tenant", &["full", "outage"]),
    ("campaign", &["full", "outage"]),
    ("group", &["full", "outage"]),
    ("agent", &["full", "outage", "dials", "tokens", "resting"]),
    ("outbound", &["full", "outage"]),
    ("setup", &["full", "outage"]),
];

impl Tally {
    /// Returns what has come since it was `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            signed: self.signed.saturating_sub(earlier.signed),
            unsigned: self.unsigned.saturating_sub(earlier.unsigned),
            ended: self.ended.saturating_sub(earlier.ended),
            failed: self.failed.saturating_sub(earlier.failed),
        }
    }

    pub fn and(self, other: Self) -> Self {
        Self {
            signed: self.signed.saturating_add(other.signed),
            unsigned: self.unsigned.saturating_add(other.unsigned),
            ended: self.ended.saturating_add(other.ended),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// Every figure of this process. Handles are cloned once, not looked up per frame.
pub struct Metrics {
    registry: Registry,
    /// Held while gauges are set and read: who reads at the same time must not find them blank.
    reading: Mutex<()>,
    requests: Family<RequestLabels, Counter>,
    webhooks: Family<EventLabels, Counter>,
    /// Their sum, which is not shown beside them.
    all_webhooks: Counter,
    calls_active: Gauge,
    calls_started: Counter,
    calls_refused: Counter,
    refusals: Family<RefusalLabels, Counter>,
    calls_ended: Family<EndLabels, Counter>,
    /// Their sums, of all and of those that failed, which are not shown beside them.
    all_ended: Counter,
    all_failed: Counter,
    connections: Gauge,
    most_connections: Gauge,
    panics: Counter,
    unsigned: Counter,
    keyless: Counter,
    api_errors: Family<CodeLabels, Counter>,
    tickets_refused: Counter,
    operators_refused: Counter,
    prefixes_refused: Counter,
    webhook_seconds: Histogram,
    admission_seconds: Histogram,
    agent_connect_seconds: Family<AgentLabels, Histogram, fn() -> Histogram>,
    agent_failures: Family<AgentFailureLabels, Counter>,
    pub calls: CallMetrics,
    pub agents: AgentMetrics,
    pub capacity: CapacityMetrics,
    pub offers: OfferMetrics,
    pub records: RecordMetrics,
    pub events: EventMetrics,
    pub tools: ToolMetrics,
    pub process: ProcessMetrics,
    pub traces: TraceMetrics,
}

/// What has come of carriers' requests and of calls in some time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Webhooks with a good signature.
    pub signed: u64,
    /// Carriers' requests without one.
    pub unsigned: u64,
    pub ended: u64,
    /// Calls that ended by a carrier's, an agent's or callgate's fault.
    pub failed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: &'static str,
    method: &'static str,
    path: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    scope: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    carrier: &'static str,
    reason: &'static str,
    blame: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabels {
    /// As many as the operator has named.
    agent: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentFailureLabels {
    agent: String,
    reason: &'static str,
}

impl Metrics {
    pub fn new() -> Self {
        // Up to where carriers give up: Twilio after 15 s.
        let quick = || {
            Histogram::new([
                0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.0, 15.0,
            ])
        };
        let mut metrics = Self {
            registry: Registry::default(),
            reading: Mutex::default(),
            requests: Family::default(),
            webhooks: Family::default(),
            all_webhooks: Counter::default(),
            all_ended: Counter::default(),
            all_failed: Counter::default(),
            calls_active: Gauge::default(),
            calls_started: Counter::default(),
            calls_refused: Counter::default(),
            refusals: Family::default(),
            calls_ended: Family::default(),
            connections: Gauge::default(),
            most_connections: Gauge::default(),
            panics: Counter::default(),
            unsigned: Counter::default(),
            keyless: Counter::default(),
            api_errors: Family::default(),
            tickets_refused: Counter::default(),
            operators_refused: Counter::default(),
            prefixes_refused: Counter::default(),
            webhook_seconds: quick(),
            admission_seconds: quick(),
            agent_connect_seconds: Family::new_with_constructor(slow),
            agent_failures: Family::default(),
            calls: CallMetrics::new(),
            agents: AgentMetrics::default(),
            capacity: CapacityMetrics::new(),
            offers: OfferMetrics::default(),
            records: RecordMetrics::default(),
            events: EventMetrics::default(),
            tools: ToolMetrics::new(),
            process: ProcessMetrics::new(),
            traces: TraceMetrics::default(),
        };
        metrics.register();
        metrics.register_refused();
        metrics.begin_at_zero();
        metrics
    }

    /// Begins what alarms add up: Prometheus does not count what a series has when it is first seen,
    /// and that is often all that has happened.
    fn begin_at_zero(&self) {
        for carrier in Carrier::ALL {
            for reason in EndReason::ALL {
                drop(
                    self.calls_ended
                        .get_or_create(&end_labels(carrier.as_str(), reason)),
                );
            }
        }
        for event in EVENTS {
            drop(self.webhooks.get_or_create(&EventLabels { event }));
        }
        for (scope, reasons) in REFUSALS {
            for reason in reasons {
                drop(
                    self.refusals
                        .get_or_create(&RefusalLabels { scope, reason }),
                );
            }
        }
    }

    /// Begins the count of a route's answers of this status at zero.
    pub fn may_answer(&self, method: &'static str, pattern: &str, status: u16) {
        let labels = request_labels(method, pattern.to_owned(), status);
        drop(self.requests.get_or_create(&labels));
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("http_requests", "Requests by route", self.requests.clone());
        r.register(
            "webhooks_events",
            "Signed webhooks by event",
            self.webhooks.clone(),
        );
        r.register(
            "calls_active",
            "Calls that hold a slot",
            self.calls_active.clone(),
        );
        r.register(
            "calls_started",
            "Calls admitted",
            self.calls_started.clone(),
        );
        r.register(
            "calls_rejected_max_concurrent",
            "Calls refused because a cap was full",
            self.calls_refused.clone(),
        );
        r.register(
            "calls_refused",
            "Calls refused, by scope and reason",
            self.refusals.clone(),
        );
        r.register(
            "calls_ended",
            "Calls ended by reason and blame",
            self.calls_ended.clone(),
        );
        r.register(
            "connections_active",
            "Media sockets that are open",
            self.connections.clone(),
        );
        r.register(
            "connections_max",
            "Media sockets that this replica takes",
            self.most_connections.clone(),
        );
        r.register(
            "call_panics",
            "Calls ended by a fault of callgate's own",
            self.panics.clone(),
        );
        r.register(
            "webhook_duration_seconds",
            "Time from a ringing call's webhook to its answer",
            self.webhook_seconds.clone(),
        );
        r.register(
            "admission_seconds",
            "Time that deciding about a ringing call took",
            self.admission_seconds.clone(),
        );
        r.register(
            "agent_connect_seconds",
            "Time until an agent is ready",
            self.agent_connect_seconds.clone(),
        );
        r.register(
            "agent_failures",
            "Agents that were not ready",
            self.agent_failures.clone(),
        );
        self.offers.register(r);
        self.records.register(r);
        self.events.register(r);
        self.tools.register(r);
        self.traces.register(r);
        self.agents.register(r);
        self.capacity.register(r);
        self.calls.register(r);
        self.process.register(r);
    }

    /// What was refused at a door.
    fn register_refused(&mut self) {
        let r = &mut self.registry;
        r.register(
            "requests_unauthenticated",
            "Carrier requests without a valid signature",
            self.unsigned.clone(),
        );
        r.register(
            "api_requests_keyless",
            "Requests to /v1 without a good key",
            self.keyless.clone(),
        );
        r.register(
            "api_errors",
            "Requests to /v1 that were refused, by code",
            self.api_errors.clone(),
        );
        r.register(
            "tickets_refused",
            "Media sockets whose ticket gave no right to a call",
            self.tickets_refused.clone(),
        );
        r.register(
            "operator_tokens_refused",
            "Requests with a token that is no operator's",
            self.operators_refused.clone(),
        );
        r.register(
            "outbound_prefix_refusals",
            "Calls that were not placed because numbers of one block had been called too often",
            self.prefixes_refused.clone(),
        );
    }

    /// Returns all figures in Prometheus' text format, after `show` has set the gauges to what
    /// they are now.
    pub fn text(&self, show: impl FnOnce(&Self)) -> String {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        show(self);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes any text");
        text
    }

    /// Shows the calls that hold a slot.
    pub fn active(&self, calls: u32) {
        self.calls_active.set(calls.into());
    }

    /// Shows how many media sockets are open, and how many may be.
    pub fn connected(&self, sockets: usize, most: usize) {
        let shown = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.connections.set(shown(sockets));
        self.most_connections.set(shown(most));
    }

    /// Counts a request by its route's pattern, never its raw path.
    pub fn request(&self, method: &'static str, pattern: String, status: u16) {
        let labels = request_labels(method, pattern, status);
        self.requests.get_or_create(&labels).inc();
    }

    pub fn webhook(&self, event: &'static str) {
        self.all_webhooks.inc();
        self.webhooks.get_or_create(&EventLabels { event }).inc();
    }

    /// Counts a request to `/v1` without a good key.
    pub fn keyless(&self) {
        self.keyless.inc();
    }

    /// Counts a request to `/v1` that was refused.
    pub fn api_refused(&self, code: &'static str) {
        self.api_errors.get_or_create(&CodeLabels { code }).inc();
    }

    pub fn unsigned(&self) {
        self.unsigned.inc();
    }

    pub fn ticket_refused(&self) {
        self.tickets_refused.inc();
    }

    /// Counts a request with a token that is no operator's.
    pub fn operator_refused(&self) {
        self.operators_refused.inc();
    }

    /// Counts a call that was not placed because numbers of one block had been called too often.
    pub fn prefix_refused(&self) {
        self.prefixes_refused.inc();
    }

    pub fn answered_webhook(&self, took: Duration) {
        self.webhook_seconds.observe(took.as_secs_f64());
    }

    pub fn decided(&self, took: Duration) {
        self.admission_seconds.observe(took.as_secs_f64());
    }

    pub fn started(&self) {
        self.calls_started.inc();
    }

    pub fn refused(&self, scope: &'static str, reason: &'static str) {
        self.calls_refused.inc();
        let labels = RefusalLabels { scope, reason };
        self.refusals.get_or_create(&labels).inc();
    }

    pub fn ended(&self, carrier: &'static str, reason: EndReason) {
        let blame = reason.blame();
        self.all_ended.inc();
        if matches!(blame, Blame::Carrier | Blame::Agent | Blame::Callgate) {
            self.all_failed.inc();
        }
        self.calls_ended
            .get_or_create(&end_labels(carrier, reason))
            .inc();
    }

    pub fn panicked(&self) {
        self.panics.inc();
    }

    pub fn agent_ready(&self, agent: &str, took: Duration) {
        let agent = agent.to_owned();
        self.agent_connect_seconds
            .get_or_create(&AgentLabels { agent })
            .observe(took.as_secs_f64());
    }

    pub fn agent_failed(&self, agent: &str, reason: &'static str) {
        let agent = agent.to_owned();
        self.agent_failures
            .get_or_create(&AgentFailureLabels { agent, reason })
            .inc();
    }

    /// Returns what has come of carriers' requests and of calls since the start.
    pub fn tally(&self) -> Tally {
        Tally {
            signed: self.all_webhooks.get(),
            unsigned: self.unsigned.get(),
            ended: self.all_ended.get(),
            failed: self.all_failed.get(),
        }
    }

    /// Returns the name of every metric, also of those without a series: only its debugging text
    /// tells them.
    #[cfg(test)]
    pub fn registered(&self) -> Vec<String> {
        let text = format!("{:?}", self.registry);
        let descriptors = text.split("Descriptor { name: \"").skip(1);
        let names = descriptors.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
        names.collect()
    }

    /// Returns calls started, and refused, since the start.
    pub fn totals(&self) -> (u64, u64) {
        (self.calls_started.get(), self.calls_refused.get())
    }
}

fn request_labels(method: &'static str, path: String, status: u16) -> RequestLabels {
    RequestLabels {
        service: "callgate",
        method,
        path,
        status,
    }
}

fn end_labels(carrier: &'static str, reason: EndReason) -> EndLabels {
    EndLabels {
        carrier,
        reason: reason.as_str(),
        blame: reason.blame().as_str(),
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
