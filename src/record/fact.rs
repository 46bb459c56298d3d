//! What can be recorded of a call, and what it is called.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    admission::{Refusal, Scope},
    call::{CallerId, CarrierCallId, EndReason},
    campaign::{Name, WhenFull},
    carrier::MessageId,
    recent::Millis,
    recording::Recording,
    session::{Speaker, Turn},
    tool::{ToolKind, ToolOutcome},
};

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
    /// The carrier is asked to place the call.
    Dialing,
    /// The carrier may have placed it, or not.
    Unsure,
    /// It rings at the other end.
    Rings,
    /// Whom we called has picked up.
    PickedUp,
    Admitted,
    Refused,
    /// What the caller was offered for whom there was no room.
    Offered(WhenFull),
    /// The caller, for whom there was no room, has left a message.
    LeftMessage(Recording),
    /// What became of the WhatsApp message that the caller was to get.
    Invited {
        /// Twilio's name for it, if it told that.
        message: Option<MessageId>,
        result: &'static str,
    },
    /// The media socket has brought the call.
    Connected,
    AgentReady {
        /// How long connecting it took, which went on while the call rang.
        connected_in: Duration,
    },
    /// The agent's first audio goes to the caller.
    FirstWords,
    Said {
        who: Speaker,
        text: String,
    },
    /// The agent has answered the caller, or greeted: what of the wait was whose.
    Turn(Turn),
    /// The call's media was not all there.
    Impaired(Impairment),
    /// How many marks of what the agent said went to the carrier, and how many it returned: what the
    /// caller has heard is known by them.
    Marked {
        sent: u32,
        returned: u32,
    },
    /// The caller spoke over the agent, which had been heard for this long.
    Interrupted {
        heard_ms: u64,
    },
    /// The agent has used a tool, or wanted to.
    ToolUsed {
        /// `None` where the campaign has no such tool.
        tool: Option<Name>,
        outcome: ToolOutcome,
        lasted: Duration,
    },
    Ended(EndReason),
    /// What became of a call that its agent has handed over: its end with us came before.
    TransferEnded {
        answered: bool,
    },
}

/// Who has called whom, and what admission made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub direction: Direction,
    pub tenant: Name,
    pub campaign: Name,
    /// Who talks with the caller; nobody if the call was refused.
    pub agent: Option<Name>,
    pub caller: CallerId,
    pub called: CallerId,
    pub refused: Option<Refusal>,
    /// What a call that we placed was called before its carrier had a name for it.
    pub placed_as: Option<CarrierCallId>,
    /// What was decided by; nothing where it is not known.
    pub seen: Option<Seen>,
}

/// What admission has seen of the caps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub decided_in: Duration,
    /// Each scope that the call counts in, how much of it was used then, the call included if it
    /// was let in, and its cap.
    pub counts: Vec<(Scope, u32, u32)>,
}

/// What was wrong with a call's media, altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Silence that was put where the carrier sent nothing.
    pub filled: Duration,
    /// Messages that one side did not take in time.
    pub dropped: u64,
    /// Messages of the carrier's that made no sense.
    pub garbled: u32,
}

/// Who has begun a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    /// We have placed it.
    Outbound,
}

/// What an agent has used up in a call, in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub agent: Name,
    pub model: String,
    pub text_in: u64,
    pub audio_in: u64,
    /// The part of what went in that the agent had in its cache.
    pub cached_in: u64,
    pub text_out: u64,
    pub audio_out: u64,
    pub lasted: Duration,
    /// In millionths of the currency that the prices are in.
    pub cost_micros: u64,
}

/// Something to be recorded of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Arrived(Box<Arrival>),
    Happened(What),
    /// Whoever had it is gone.
    Lost {
        arrival: Box<Arrival>,
        /// When it rang, as far as that is known.
        rang_at: Option<Millis>,
    },
    /// How long its media was bridged.
    Talked(Duration),
    Used(Box<Usage>),
}

/// A fact with what makes it one: written twice, it is the same.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: Uuid,
    pub call: CarrierCallId,
    pub at: Millis,
    pub fact: Fact,
}

impl What {
    /// Returns what the step is called; `None` where it is kept as something else than a step.
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Dialing => "dialing",
            Self::Unsure => "unknown",
            Self::Rings => "ringing",
            Self::PickedUp => "picked_up",
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Offered(_) => "offered",
            Self::LeftMessage(_) => "left_message",
            Self::Invited { .. } => "invited",
            Self::Connected => "connected",
            Self::AgentReady { .. } => "agent_ready",
            Self::FirstWords => "first_words",
            Self::Said { .. } => return None,
            Self::Turn(_) => "turn",
            Self::Impaired(_) => "impaired",
            Self::Marked { .. } => "marks",
            Self::Interrupted { .. } => "interrupted",
            Self::ToolUsed { .. } => "tool_used",
            Self::Ended(_) => "ended",
            Self::TransferEnded { .. } => "transfer_ended",
        })
    }

    /// Returns what else there is to say of it.
    pub fn details(&self) -> Option<Value> {
        match self {
            Self::AgentReady { connected_in } => {
                Some(json!({"connected_in_ms": millis(*connected_in)}))
            }
            Self::Turn(turn) => Some(json!({
                "spoke_ms": turn.spoke.map(millis),
                "answer_ms": turn.answer.map(millis),
                "sent_ms": turn.sent.map(millis),
                "played_ms": turn.played.map(millis),
                "interrupted": turn.interrupted,
            })),
            Self::Impaired(impairment) => Some(json!({
                "filled_ms": millis(impairment.filled),
                "dropped": impairment.dropped,
                "garbled": impairment.garbled,
            })),
            Self::Marked { sent, returned } => Some(json!({"sent": sent, "returned": returned})),
            Self::Interrupted { heard_ms } => Some(json!({"heard_ms": heard_ms})),
            Self::ToolUsed {
                tool,
                outcome,
                lasted,
            } => Some(json!({
                "tool": tool.as_ref().map_or(ToolKind::Unknown.as_str(), Name::as_str),
                "outcome": outcome.as_str(),
                "lasted_ms": millis(*lasted),
            })),
            Self::Ended(reason) => {
                Some(json!({"reason": reason.as_str(), "blame": reason.blame().as_str()}))
            }
            Self::TransferEnded { answered } => Some(json!({"answered": answered})),
            Self::Offered(offer) => Some(json!({"offer": offer.as_str()})),
            Self::Invited { message, result } => Some(json!({
                "message": message.as_ref().map(MessageId::as_str),
                "result": result,
            })),
            Self::LeftMessage(recording) => Some(json!({
                "recording": recording.id.as_str(),
                "seconds": recording.duration.as_secs(),
            })),
            Self::Dialing
            | Self::Unsure
            | Self::Rings
            | Self::PickedUp
            | Self::Admitted
            | Self::Refused
            | Self::Connected
            | Self::FirstWords
            | Self::Said { .. } => None,
        }
    }
}

impl Arrival {
    /// Returns what happened.
    pub fn what(&self) -> What {
        match self.refused {
            None => What::Admitted,
            Some(_) => What::Refused,
        }
    }

    /// Returns what else there is to say of it.
    pub fn details(&self) -> Option<Value> {
        let seen = self.seen.as_ref().map(|seen| {
            let counts = seen.counts.iter();
            let counts = counts.map(
                |(scope, used, cap)| json!({"scope": scope.to_string(), "used": used, "cap": cap}),
            );
            (millis(seen.decided_in), counts.collect::<Vec<_>>())
        });
        let refusal = self.refused.as_ref();
        if seen.is_none() && refusal.is_none() {
            return None;
        }
        let mut details = json!({});
        if let Some((decided_in, counts)) = seen {
            details["decided_in_ms"] = decided_in.into();
            details["counts"] = counts.into();
        }
        if let Some(refusal) = refusal {
            details["reason"] = refusal.reason.as_str().into();
            details["scope"] = refusal.scope.to_string().into();
            details["used"] = refusal.used.into();
            details["cap"] = refusal.cap.into();
        }
        Some(details)
    }
}

impl Impairment {
    /// Tells whether there was none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl FromStr for Direction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = Self::ALL.into_iter().find(|it| it.as_str() == text);
        known.ok_or(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
