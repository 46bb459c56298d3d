//! What became of a call.

use std::{path::PathBuf, time::Duration};

use hdrhistogram::Histogram;

use super::{
    echo::{Echoed, micros},
    loudspeaker::Heard,
    plan::CallPlan,
    script::Script,
    twiml::Said,
};
use crate::call::Carrier;

/// What became of one call, from its first webhook to its last.
#[derive(Debug)]
pub struct CallOutcome {
    pub carrier: Carrier,
    /// The carrier's name for the call.
    pub carrier_call: String,
    pub from: String,
    pub script: Script,
    pub result: CallResult,
    /// What the carrier said to the caller.
    pub said: Vec<Said>,
    /// What the carrier would list against the gateway.
    pub faults: Vec<String>,
    /// How long each answered webhook took.
    pub webhooks: Vec<Duration>,
    pub failed_webhooks: u32,
    /// Whether the number's fallback document took over.
    pub fell_back: bool,
    pub left_a_message: bool,
    /// The numbers the caller was put through to.
    pub transfers: Vec<String>,
    /// The media streams that were opened, mostly one.
    pub streams: Vec<StreamOutcome>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallResult {
    /// The caller talked with the agent.
    Answered,
    /// The caller was rejected, sent elsewhere, or told why it is not connected.
    Busy,
    /// The caller was connected, and was then told that something went wrong.
    Apology,
    /// Neither; why.
    Failed(String),
}

/// What happened on one media stream.
#[derive(Debug)]
pub struct StreamOutcome {
    pub lasted: Duration,
    pub ended: StreamEnd,
    /// Whether the gateway said that the call was over before it ended.
    pub was_over: bool,
    pub frames_sent: u64,
    pub messages_received: u64,
    /// What was said to a caller who can read it.
    pub transcripts: u64,
    /// Sentences that the caller began.
    pub sentences: u32,
    pub heard: Heard,
    /// From the call's first webhook to its first sound.
    pub first_audio_from_webhook: Option<Duration>,
    /// From the caller's interruption to the gateway's `clear`, for each.
    pub interrupted: Vec<Duration>,
    /// Interruptions that no `clear` followed.
    pub ignored_interruptions: u32,
    /// How late this simulator sent each frame, in microseconds.
    pub lateness: Histogram<u32>,
    pub echo: Option<Echoed>,
    pub recording: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// The caller hung up.
    CallerHungUp,
    /// The caller's connection was cut, as its script says.
    Cut,
    /// The gateway had the carrier end the call.
    GatewayHungUp,
    /// The gateway closed the socket, with a close code if it gave one.
    GatewayClosed(Option<u16>),
    /// The socket failed without being closed; why.
    Lost(String),
}

/// Whom a call's events are told to.
pub type Watch<'a> = dyn FnMut(CallEvent) + Send + 'a;

/// What an onlooker is told while a call lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEvent {
    Rings {
        carrier_call: String,
        from: String,
    },
    WebhookFailed(String),
    /// The carrier says a sentence to the caller.
    Says(Said),
    Rejected,
    /// The media stream is open.
    Connected,
    /// The caller begins a sentence.
    Speaks {
        sentence: String,
        interrupts: bool,
    },
    /// The agent begins to be heard.
    Answers,
    /// The gateway stopped its agent this long after the caller had interrupted it.
    StopsTheAgent(Duration),
    StreamEnded(StreamEnd),
    LeavesAMessage,
    TransferredTo(String),
    Recorded(PathBuf),
    Ended(CallResult),
}

impl StreamOutcome {
    pub fn new() -> Self {
        Self {
            lasted: Duration::ZERO,
            ended: StreamEnd::CallerHungUp,
            was_over: false,
            frames_sent: 0,
            messages_received: 0,
            transcripts: 0,
            sentences: 0,
            heard: Heard::default(),
            first_audio_from_webhook: None,
            interrupted: Vec::new(),
            ignored_interruptions: 0,
            lateness: micros(),
            echo: None,
            recording: None,
        }
    }
}

impl CallOutcome {
    /// A call that has just begun to ring.
    pub fn new(carrier: Carrier, carrier_call: String, plan: &CallPlan) -> Self {
        Self {
            carrier,
            carrier_call,
            from: plan.from.clone(),
            script: plan.script,
            result: CallResult::Busy,
            said: Vec::new(),
            faults: Vec::new(),
            webhooks: Vec::new(),
            failed_webhooks: 0,
            fell_back: false,
            left_a_message: false,
            transfers: Vec::new(),
            streams: Vec::new(),
        }
    }

    /// Tells whether the call went as it should: refusals are fine, failures and apologies are
    /// not, except where the script provokes them.
    pub fn is_well(&self) -> bool {
        let provoked = matches!(self.script, Script::SlowReader | Script::Drop);
        let result = match self.result {
            CallResult::Answered | CallResult::Busy => true,
            CallResult::Apology => provoked,
            CallResult::Failed(_) => false,
        };
        result && self.faults.is_empty() && self.failed_webhooks == 0
    }
}
