//! What calls and agents count.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::telemetry::{instant, slow};

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToAgent,
    ToCaller,
}

/// What a bridge counts.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    live: Family<LiveLabels, Gauge>,
    to_agent: Counter,
    to_caller: Counter,
    dropped: Counter,
    garbled_by_carrier: Counter,
    garbled_by_agent: Counter,
    interrupted: Counter,
    agents_moved: Counter,
    filled_seconds: Counter<f64, AtomicU64>,
    first_words_seconds: Histogram,
    first_audio_seconds: Histogram,
    delays: Family<DirectionLabels, Histogram, fn() -> Histogram>,
    seconds: Histogram,
}

/// What agents report of themselves.
#[derive(Debug, Clone, Default)]
pub struct AgentMetrics {
    limits: Family<LimitLabels, Gauge>,
    sessions: Family<AgentLabels, Gauge>,
    resting: Family<AgentLabels, Gauge>,
}

/// One live call or session that a gauge counts; dropping it counts it no more.
#[derive(Debug)]
pub struct Counted(Gauge);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveLabels {
    carrier: &'static str,
    /// As many as the operator has named.
    campaign: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabels {
    /// As many as the operator has named.
    agent: String,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::ToAgent => "to_agent",
            Self::ToCaller => "to_caller",
        }
    }
}

impl CallMetrics {
    pub(super) fn new() -> Self {
        Self {
            live: Family::default(),
            to_agent: Counter::default(),
            to_caller: Counter::default(),
            dropped: Counter::default(),
            garbled_by_carrier: Counter::default(),
            garbled_by_agent: Counter::default(),
            interrupted: Counter::default(),
            agents_moved: Counter::default(),
            filled_seconds: Counter::default(),
            first_words_seconds: slow(),
            // From no silence that a caller notices to one in which callers hang up.
            first_audio_seconds: Histogram::new([
                0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 10.0,
            ]),
            delays: Family::new_with_constructor(instant),
            // From callers who hang up at once to the longest conversations.
            seconds: Histogram::new([
                5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_200.0, 3_600.0, 14_400.0,
            ]),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "calls_live",
            "Calls whose media this replica bridges",
            self.live.clone(),
        );
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
        r.register(
            "first_audio_seconds",
            "Time from a call's ringing to the agent's first audio",
            self.first_audio_seconds.clone(),
        );
        r.register(
            "frame_delay_seconds",
            "How long one message of audio in 50 took from one socket to the other",
            self.delays.clone(),
        );
        r.register(
            "call_seconds",
            "How long calls' media was bridged",
            self.seconds.clone(),
        );
    }

    /// Counts a live call, until what is returned is dropped.
    pub fn live(&self, carrier: &'static str, campaign: &str) -> Counted {
        let campaign = campaign.to_owned();
        let live = LiveLabels { carrier, campaign };
        Counted::one_more(self.live.get_or_create_owned(&live))
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

    /// Notes when the agent's first audio went to the caller: so long after the media socket had
    /// opened, which the call had been waiting for since it `rang`.
    pub fn first_words(&self, after: Duration, rang: Duration) {
        self.first_words_seconds.observe(after.as_secs_f64());
        self.first_audio_seconds
            .observe((rang + after).as_secs_f64());
    }

    /// Notes how long a message of audio was on its way through this process.
    pub fn delayed(&self, direction: Direction, delay: Duration) {
        let labels = DirectionLabels {
            direction: direction.as_str(),
        };
        self.delays
            .get_or_create(&labels)
            .observe(delay.as_secs_f64());
    }

    pub fn lasted(&self, talked: Duration) {
        self.seconds.observe(talked.as_secs_f64());
    }
}

impl AgentMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "agent_rate_limit_remaining",
            "What the agent says is left of its rate limits",
            self.limits.clone(),
        );
        r.register(
            "agent_sessions",
            "Live sessions of this replica with an agent",
            self.sessions.clone(),
        );
        r.register(
            "agent_resting",
            "1 while an agent that keeps failing is left alone",
            self.resting.clone(),
        );
    }

    /// Counts a session, until what is returned is dropped.
    pub fn session(&self, agent: &str) -> Counted {
        let labels = AgentLabels {
            agent: agent.to_owned(),
        };
        Counted::one_more(self.sessions.get_or_create_owned(&labels))
    }

    /// Shows which agents there are, and which rest.
    pub fn rest<'a>(&self, agents: impl Iterator<Item = (&'a str, bool)>) {
        self.resting.clear();
        for (agent, resting) in agents {
            let labels = AgentLabels {
                agent: agent.to_owned(),
            };
            self.resting.get_or_create(&labels).set(resting.into());
            // One without a session is shown with none.
            drop(self.sessions.get_or_create(&labels));
        }
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

impl Counted {
    fn one_more(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
