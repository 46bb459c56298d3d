//! What calls and agents count.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::telemetry::slow;

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

/// What agents report of themselves.
#[derive(Debug, Clone, Default)]
pub struct AgentMetrics {
    limits: Family<LimitLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

impl CallMetrics {
    pub(super) fn new() -> Self {
        Self {
            to_agent: Counter::default(),
            to_caller: Counter::default(),
            dropped: Counter::default(),
            garbled_by_carrier: Counter::default(),
            garbled_by_agent: Counter::default(),
            interrupted: Counter::default(),
            agents_moved: Counter::default(),
            filled_seconds: Counter::default(),
            first_words_seconds: slow(),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
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

impl AgentMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
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
