//! Traces: what happened to a call, as OpenTelemetry's collectors take it.
//!
//! A trace is made of the steps that the timeline is told anyway, so nothing is built for a frame.
//!
//! Invariant: all replicas trace a call by its [`CallId`]: the name of one that comes in says it, and
//! what a replica is told of one that we placed.
//! Invariant: nobody who has a call waits for a collector: what finds no room is counted and lost.
//! Invariant: no number and no word that was said is in a span.

mod exporter;
mod gatherer;
mod names;
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
    tool::ToolKind,
};

pub use exporter::Exporter;

use gatherer::Gatherer;
use names::PlacedNames;

/// How many sightings may wait to be made spans of.
const MOST_WAITING: usize = 4_096;

/// Knows calls by their ids, and tells the exporter what happens to them. Cheap to clone; costs next
/// to nothing where there is no collector.
#[derive(Debug, Clone, Default)]
pub struct Traces {
    names: PlacedNames,
    teller: Option<Arc<Teller>>,
}

#[derive(Debug)]
struct Teller {
    queue: mpsc::Sender<Sighting>,
    metrics: TraceMetrics,
}

/// What takes time in a call and is measured where it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Twilio's request that a call rings, until it has our answer.
    Webhook,
    /// Event Grid's event that a call rings, until it is decided what ACS is told.
    Event,
    /// A browser's request for a call, until it is decided.
    Upgrade,
    /// A program's request for a call, until it is promised one.
    Request,
    /// The carrier's word that somebody has picked up, until it is decided how the call goes on.
    PickUp,
    Admission,
    AgentConnect,
    /// From the end of a call until its slot is back.
    Release,
}

/// What was seen of a call, and when, in Unix nanoseconds.
#[derive(Debug, Clone, PartialEq)]
struct Sighting {
    id: CallId,
    call: CarrierCallId,
    at: u64,
    seen: Seen,
}

#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Arrived {
        campaign: String,
        direction: &'static str,
        /// Why it was refused, if it was.
        refused: Option<&'static str>,
    },
    /// Its media has come to this replica.
    Claimed {
        campaign: String,
    },
    /// Something that took so many nanoseconds is over.
    Took(Phase, u64),
    Connected,
    /// Something that takes no time.
    Happened(&'static str),
    UsedTool {
        tool: String,
        outcome: &'static str,
        took: u64,
    },
    Ended(EndReason),
}

impl Traces {
    /// Prepares to export where the settings name a collector; returns who tells the exporter, and
    /// the exporter, which has to run. No call lasts longer than `longest_call`.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(
        settings: Option<TraceSettings>,
        replica: &str,
        longest_call: Duration,
        metrics: &TraceMetrics,
    ) -> Result<(Self, Option<Exporter>), reqwest::Error> {
        let Some(settings) = settings else {
            return Ok((Self::default(), None));
        };
        let (queue, sightings) = mpsc::channel(MOST_WAITING);
        let gatherer = Gatherer::new(settings.ratio, longest_call);
        let exporter = Exporter::new(settings, replica, sightings, gatherer, metrics.clone())?;
        let metrics = metrics.clone();
        let traces = Self {
            names: PlacedNames::default(),
            teller: Some(Arc::new(Teller { queue, metrics })),
        };
        Ok((traces, Some(exporter)))
    }

    /// Tells whether anything is done with what is told here.
    pub fn are_taken(&self) -> bool {
        self.teller.is_some()
    }

    /// Notes by which id a call goes that its carrier calls so.
    pub fn named(&self, name: &CarrierCallId, call: CallId) {
        self.names.note(name, call);
    }

    /// Returns our id of the call that its carrier calls so, as far as this replica can tell.
    pub fn id_of(&self, name: &CarrierCallId) -> CallId {
        self.names.id_of(name)
    }

    /// Notes who has called whom, and what admission made of it.
    pub fn arrived(&self, call: &CarrierCallId, arrival: &Arrival) {
        if let Some(pending) = &arrival.placed_as {
            self.named(call, CallId::of(pending));
        }
        self.tell(call, || Seen::Arrived {
            campaign: arrival.campaign.to_string(),
            direction: arrival.direction.as_str(),
            refused: arrival.refused.as_ref().map(|it| it.reason.as_str()),
        });
    }

    /// Notes that a call's media has come here, maybe of one that arrived elsewhere.
    pub fn claimed(&self, call: &CarrierCallId, id: CallId, campaign: &str) {
        self.named(call, id);
        self.tell(call, || Seen::Claimed {
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
                tool: match tool {
                    Some(tool) => tool.to_string(),
                    None => ToolKind::Unknown.as_str().to_owned(),
                },
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
            | What::Marked { .. }
            | What::Interrupted { .. }
            | What::TransferEnded { .. } => what.name().map(Seen::Happened),
        };
        if self.are_taken()
            && let Some(seen) = seen()
        {
            self.tell(call, || seen);
        }
    }

    fn tell(&self, call: &CarrierCallId, seen: impl FnOnce() -> Seen) {
        let Some(teller) = &self.teller else { return };
        // First of all: what took time is reckoned back from here, and may not seem to begin later.
        let at = unix_nanos();
        let sighting = Sighting {
            id: self.id_of(call),
            call: call.clone(),
            at,
            seen: seen(),
        };
        if teller.queue.try_send(sighting).is_err() {
            teller.metrics.dropped(1);
        }
    }
}

impl Phase {
    /// Tells whether it is over once it is decided how a call goes on.
    fn decides(self) -> bool {
        match self {
            Self::Webhook | Self::Event | Self::Upgrade | Self::Request | Self::PickUp => true,
            Self::Admission | Self::AgentConnect | Self::Release => false,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Event => "event",
            Self::Upgrade => "upgrade",
            Self::Request => "request",
            Self::PickUp => "pick up",
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
