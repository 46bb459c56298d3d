//! Traces: what happened to a call, as OpenTelemetry's collectors take it.
//!
//! A trace is made of the steps that the timeline is told anyway, so nothing is built for a frame.
//!
//! Invariant: all replicas trace a call by its [`CallId`], and none needs to be told of another's.
//! Invariant: nobody who has a call waits for a collector: what finds no room is counted and lost.
//! Invariant: no number and no word that was said is in a span.

mod exporter;
mod gatherer;
mod otlp;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;

use crate::{
    call::{CallId, CarrierCallId, EndReason},
    config::TraceSettings,
    record::{Arrival, What},
    telemetry::TraceMetrics,
};

pub use exporter::Exporter;

/// How many sightings may wait to be made spans of.
const MOST_WAITING: usize = 4_096;

/// Tells the exporter what happens to calls. Cheap to clone; costs next to nothing where there is
/// no collector.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Teller>>);

#[derive(Debug)]
struct Teller {
    queue: mpsc::Sender<Sighting>,
    metrics: TraceMetrics,
}

/// What takes time in a call and is measured where it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the carrier's request to our answer.
    Webhook,
    Admission,
    AgentConnect,
    /// From the end of a call until its slot is back.
    Release,
}

/// What was seen of a call, and when, in Unix nanoseconds.
#[derive(Debug, Clone, PartialEq)]
struct Sighting {
    call: CarrierCallId,
    at: u64,
    seen: Seen,
}

#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Arrived {
        id: CallId,
        campaign: String,
        direction: &'static str,
        /// Why it was refused, if it was.
        refused: Option<&'static str>,
    },
    /// Its media has come to this replica.
    Claimed {
        id: CallId,
        campaign: String,
    },
    /// Something that took so many nanoseconds is over.
    Took(Phase, u64),
    Connected,
    /// Something that takes no time.
    Happened(&'static str),
    UsedTool {
        tool: Option<String>,
        outcome: &'static str,
        took: u64,
    },
    Ended(EndReason),
}

impl Traces {
    /// Prepares to export where the settings name a collector; returns who tells the exporter, and
    /// the exporter, which has to run.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(
        settings: Option<TraceSettings>,
        replica: &str,
        metrics: &TraceMetrics,
    ) -> Result<(Self, Option<Exporter>), reqwest::Error> {
        let Some(settings) = settings else {
            return Ok((Self::default(), None));
        };
        let (queue, sightings) = mpsc::channel(MOST_WAITING);
        let exporter = Exporter::new(settings, replica, sightings, metrics.clone())?;
        let metrics = metrics.clone();
        let teller = Teller { queue, metrics };
        Ok((Self(Some(Arc::new(teller))), Some(exporter)))
    }

    /// Notes who has called whom, and what admission made of it.
    pub fn arrived(&self, call: &CarrierCallId, arrival: &Arrival) {
        self.tell(call, || Seen::Arrived {
            id: CallId::of(arrival.placed_as.as_ref().unwrap_or(call)),
            campaign: arrival.campaign.to_string(),
            direction: arrival.direction.as_str(),
            refused: arrival.refused.as_ref().map(|it| it.reason.as_str()),
        });
    }

    /// Notes that a call's media has come here, maybe of one that arrived elsewhere.
    pub fn claimed(&self, call: &CarrierCallId, id: CallId, campaign: &str) {
        self.tell(call, || Seen::Claimed {
            id,
            campaign: campaign.to_owned(),
        });
    }

    /// Notes that something is over that took so long.
    pub fn took(&self, call: &CarrierCallId, phase: Phase, took: Duration) {
        self.tell(call, || Seen::Took(phase, nanos(took)));
    }

    /// Notes a step of a call's timeline, as far as it belongs into a trace.
    pub fn step(&self, call: &CarrierCallId, what: &What) {
        let seen = || match what {
            What::Connected => Some(Seen::Connected),
            What::ToolUsed {
                tool,
                outcome,
                lasted,
            } => Some(Seen::UsedTool {
                tool: tool.as_ref().map(ToString::to_string),
                outcome: outcome.as_str(),
                took: nanos(*lasted),
            }),
            What::Ended(reason) => Some(Seen::Ended(*reason)),
            // What was said is nobody's business here, and the rest has a name at most.
            What::Said { .. } | What::Admitted | What::Refused => None,
            What::Dialing
            | What::Unsure
            | What::Rings
            | What::PickedUp
            | What::Offered(_)
            | What::LeftMessage(_)
            | What::Invited { .. }
            | What::AgentReady { .. }
            | What::FirstWords
            | What::Turn(_)
            | What::Impaired(_)
            | What::Interrupted { .. }
            | What::TransferEnded { .. } => what.name().map(Seen::Happened),
        };
        if self.0.is_some()
            && let Some(seen) = seen()
        {
            self.tell(call, || seen);
        }
    }

    fn tell(&self, call: &CarrierCallId, seen: impl FnOnce() -> Seen) {
        let Some(teller) = &self.0 else { return };
        let sighting = Sighting {
            call: call.clone(),
            at: unix_nanos(),
            seen: seen(),
        };
        if teller.queue.try_send(sighting).is_err() {
            teller.metrics.dropped(1);
        }
    }
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Admission => "admission",
            Self::AgentConnect => "agent connect",
            Self::Release => "release",
        }
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, nanos)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
