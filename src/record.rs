//! What remains of a call: its steps, as whoever watches is told of them.

use std::time::SystemTime;

use tokio::sync::broadcast;

use crate::{
    call::{CarrierCallId, EndReason},
    recording::Recording,
    session::Speaker,
};

/// How many steps a slow watcher may lag behind before it misses some.
const LAG: usize = 1_024;

/// One dated entry of a call's timeline.
#[derive(Debug, Clone)]
pub struct Step {
    pub call: CarrierCallId,
    pub at: SystemTime,
    pub what: What,
}

/// What happened to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    Admitted,
    Refused,
    /// The caller, for whom there was no room, has left a message.
    LeftMessage(Recording),
    /// The media socket has brought the call.
    Connected,
    AgentReady,
    /// The agent's first audio goes to the caller.
    FirstWords,
    Said {
        who: Speaker,
        text: String,
    },
    /// The caller spoke over the agent, which had been heard for this long.
    Interrupted {
        heard_ms: u64,
    },
    Ended(EndReason),
}

/// Tells every step to whoever watches; costs next to nothing while nobody does.
#[derive(Debug, Clone)]
pub struct Timeline(broadcast::Sender<Step>);

impl Timeline {
    pub fn new() -> Self {
        Self(broadcast::Sender::new(LAG))
    }

    pub fn step(&self, call: &CarrierCallId, what: What) {
        if self.0.receiver_count() > 0 {
            // Fails only when the last watcher has just left.
            let _ = self.0.send(Step {
                call: call.clone(),
                at: SystemTime::now(),
                what,
            });
        }
    }

    /// Watches the steps of all calls from here on.
    pub fn watch(&self) -> broadcast::Receiver<Step> {
        self.0.subscribe()
    }
}
