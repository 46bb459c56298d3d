//! Logs and metrics.

use std::{fmt, io::IsTerminal, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::config::LogFormat;

/// Every figure of this process. Handles are cloned once, not looked up per frame.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    webhooks: Family<EventLabels, Counter>,
    calls_active: Gauge,
    calls_started: Counter,
    calls_refused: Counter,
    refusals: Family<ScopeLabels, Counter>,
    calls_ended: Family<EndLabels, Counter>,
    connections: Gauge,
    panics: Counter,
    unsigned: Counter,
    tickets_refused: Counter,
    webhook_seconds: Histogram,
    agent_connect_seconds: Histogram,
    agent_failures: Family<AgentLabels, Counter>,
    pub calls: CallMetrics,
    pub agents: AgentMetrics,
}

/// What agents report of themselves.
#[derive(Debug, Clone, Default)]
pub struct AgentMetrics {
    limits: Family<LimitLabels, Gauge>,
}

/// What a bridge counts.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    to_agent: Counter,
    to_caller: Counter,
    dropped: Counter,
    garbled_by_carrier: Counter,
    garbled_by_agent: Counter,
    interrupted: Counter,
    agents_moved: Counter,
    filled_seconds: Counter<f64, AtomicU64>,
    first_words_seconds: Histogram,
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
struct ScopeLabels {
    scope: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    carrier: &'static str,
    reason: &'static str,
    blame: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabels {
    agent: &'static str,
    reason: &'static str,
}

impl Metrics {
    pub fn new() -> Self {
        let quick = || Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0]);
        let slow = || Histogram::new([0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0]);
        let calls = CallMetrics {
            to_agent: Counter::default(),
            to_caller: Counter::default(),
            dropped: Counter::default(),
            garbled_by_carrier: Counter::default(),
            garbled_by_agent: Counter::default(),
            interrupted: Counter::default(),
            agents_moved: Counter::default(),
            filled_seconds: Counter::default(),
            first_words_seconds: slow(),
        };
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            webhooks: Family::default(),
            calls_active: Gauge::default(),
            calls_started: Counter::default(),
            calls_refused: Counter::default(),
            refusals: Family::default(),
            calls_ended: Family::default(),
            connections: Gauge::default(),
            panics: Counter::default(),
            unsigned: Counter::default(),
            tickets_refused: Counter::default(),
            webhook_seconds: quick(),
            agent_connect_seconds: slow(),
            agent_failures: Family::default(),
            calls,
            agents: AgentMetrics::default(),
        };
        metrics.register();
        metrics
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
            "Calls refused by the scope that was full",
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
            "call_panics",
            "Calls ended by a fault of callgate's own",
            self.panics.clone(),
        );
        r.register(
            "requests_unauthenticated",
            "Carrier requests without a valid signature",
            self.unsigned.clone(),
        );
        r.register(
            "tickets_refused",
            "Media sockets whose ticket gave no right to a call",
            self.tickets_refused.clone(),
        );
        r.register(
            "webhook_duration_seconds",
            "Time from a ringing call's webhook to its answer",
            self.webhook_seconds.clone(),
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
        self.agents.register(r);
        self.calls.register(r);
    }

    /// Returns all figures in Prometheus' text format, the gauges as they are now.
    pub fn text(&self, active_calls: u32, connections: usize) -> String {
        self.calls_active.set(active_calls.into());
        self.connections
            .set(i64::try_from(connections).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes any text");
        text
    }

    /// Counts a request by its route's pattern, never its raw path.
    pub fn request(&self, method: &'static str, pattern: String, status: u16) {
        let labels = RequestLabels {
            service: "callgate",
            method,
            path: pattern,
            status,
        };
        self.requests.get_or_create(&labels).inc();
    }

    pub fn webhook(&self, event: &'static str) {
        self.webhooks.get_or_create(&EventLabels { event }).inc();
    }

    pub fn unsigned(&self) {
        self.unsigned.inc();
    }

    pub fn ticket_refused(&self) {
        self.tickets_refused.inc();
    }

    pub fn answered_webhook(&self, took: Duration) {
        self.webhook_seconds.observe(took.as_secs_f64());
    }

    pub fn started(&self) {
        self.calls_started.inc();
    }

    pub fn refused(&self, scope: &'static str) {
        self.calls_refused.inc();
        self.refusals.get_or_create(&ScopeLabels { scope }).inc();
    }

    /// Counts a call that rang while the gateway drained.
    pub fn turned_away(&self) {
        self.refusals
            .get_or_create(&ScopeLabels { scope: "draining" })
            .inc();
    }

    pub fn ended(&self, carrier: &'static str, reason: &'static str, blame: &'static str) {
        let labels = EndLabels {
            carrier,
            reason,
            blame,
        };
        self.calls_ended.get_or_create(&labels).inc();
    }

    pub fn panicked(&self) {
        self.panics.inc();
    }

    pub fn agent_ready(&self, took: Duration) {
        self.agent_connect_seconds.observe(took.as_secs_f64());
    }

    pub fn agent_failed(&self, agent: &'static str, reason: &'static str) {
        self.agent_failures
            .get_or_create(&AgentLabels { agent, reason })
            .inc();
    }

    /// Returns calls started, and refused, since the start.
    pub fn totals(&self) -> (u64, u64) {
        (self.calls_started.get(), self.calls_refused.get())
    }
}

impl AgentMetrics {
    fn register(&self, r: &mut Registry) {
        r.register(
            "agent_rate_limit_remaining",
            "What the agent says is left of its rate limits",
            self.limits.clone(),
        );
    }

    pub fn requests_remaining(&self, remaining: u64) {
        self.remaining("requests", remaining);
    }

    pub fn tokens_remaining(&self, remaining: u64) {
        self.remaining("tokens", remaining);
    }

    fn remaining(&self, limit: &'static str, remaining: u64) {
        let gauge = self.limits.get_or_create(&LimitLabels { limit });
        gauge.set(i64::try_from(remaining).unwrap_or(i64::MAX));
    }
}

impl CallMetrics {
    fn register(&self, r: &mut Registry) {
        r.register(
            "frames_to_agent",
            "Audio messages to agents",
            self.to_agent.clone(),
        );
        r.register(
            "frames_to_caller",
            "Audio messages to callers",
            self.to_caller.clone(),
        );
        r.register(
            "frames_dropped",
            "Messages dropped because a peer took none",
            self.dropped.clone(),
        );
        r.register(
            "carrier_messages_garbled",
            "Media messages that made no sense",
            self.garbled_by_carrier.clone(),
        );
        r.register(
            "agent_messages_garbled",
            "Agents' messages that made no sense",
            self.garbled_by_agent.clone(),
        );
        r.register(
            "interruptions",
            "Times a caller spoke over the agent",
            self.interrupted.clone(),
        );
        r.register(
            "agents_moved",
            "Agents' sockets that moved to the worker of their call's media socket",
            self.agents_moved.clone(),
        );
        r.register(
            "silence_filled_seconds",
            "Silence put where a carrier sent nothing",
            self.filled_seconds.clone(),
        );
        r.register(
            "first_words_seconds",
            "Time from the media socket to the agent's first audio",
            self.first_words_seconds.clone(),
        );
    }

    pub fn frame_to_agent(&self) {
        self.to_agent.inc();
    }

    pub fn frame_to_caller(&self) {
        self.to_caller.inc();
    }

    pub fn frames_dropped(&self, frames: u64) {
        self.dropped.inc_by(frames);
    }

    pub fn garbled_by_carrier(&self, messages: u32) {
        self.garbled_by_carrier.inc_by(messages.into());
    }

    pub fn garbled_by_agent(&self, messages: u32) {
        self.garbled_by_agent.inc_by(messages.into());
    }

    pub fn interrupted(&self) {
        self.interrupted.inc();
    }

    /// Counts an agent that took its seat on a worker, and whether it came from another.
    pub fn agent_seated(&self, moved: bool) {
        self.agents_moved.inc_by(u64::from(moved));
    }

    pub fn filled(&self, hole: Duration) {
        self.filled_seconds.inc_by(hole.as_secs_f64());
    }

    pub fn first_words(&self, after: Duration) {
        self.first_words_seconds.observe(after.as_secs_f64());
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Sends logs to standard error, filtered as `RUST_LOG` says.
pub fn log_to_stderr(filter: Option<&str>, format: LogFormat) {
    // These would write down keys and conversations, however much is asked for.
    const NEVER: &str = "tungstenite=info,tokio_tungstenite=info,hyper_util=info";
    let asked = filter.unwrap_or("info,actix_server=warn");
    let filter = tracing_subscriber::EnvFilter::new(format!("{asked},{NEVER}"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only where a subscriber is set already, as by a test.
    let _ = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
}
