//! What a call is called, who rings, and how it ends.

mod caller;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use caller::{CallerId, PhoneNumber, WholeId};

/// What our names for calls are made in.
const CALLS: Uuid = Uuid::from_u128(0x0c3f_72a4_5f0e_4d0b_9d53_8b6c_31f2_77aa);

/// Our own name for a call. It is made of the name by which we first know the call, so that every
/// replica, and whoever looks after a lost one's calls, comes to the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(Uuid);

/// The carrier's name for a call: Twilio's CallSid, ACS's correlation id, or our own for a browser's.
/// A call that ACS places for us goes by its connection id, which any replica can end it by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CarrierCallId(String); // Invariant: 1 to 64 ASCII letters, digits and hyphens.

/// Who brings calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    Twilio,
    /// Azure Communication Services.
    Acs,
    /// A browser with a microphone.
    Web,
}

/// Who places calls for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundCarrier {
    Twilio,
    Acs,
}

/// Why a call ended: every call has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    CallerHungUp,
    /// The carrier reported a final status while its media socket was still open.
    CarrierEnded,
    /// The media socket closed without saying that the stream had stopped.
    CarrierLost,
    /// The call was admitted and its media never came.
    NoMedia,
    /// The media socket stayed open without any audio.
    MediaStalled,
    /// The media socket answered no ping.
    CarrierUnresponsive,
    /// The media socket took no more audio from us.
    CarrierBlocked,
    CarrierGarbled,
    /// The carrier did not take our answer to a call that rang.
    AnswerFailed,
    /// Whom we called talks with somebody else.
    Busy,
    /// Nobody has picked up the call that we placed.
    NoAnswer,
    /// The call that we placed was ended before anybody picked it up.
    Canceled,
    /// The carrier has not placed the call that we asked for.
    NotPlaced,
    /// The carrier could not tell in time what has become of the call that we asked for.
    Untold,
    /// A machine has picked up the call that we placed.
    MachineAnswered,
    /// Whoever had placed the call wanted it to end.
    Requested,
    /// The carrier could not bring the call's media.
    StreamFailed,
    AgentUnreachable,
    /// The agent's server answered the upgrade with a refusal: credentials, limits or a fault.
    AgentRefused,
    AgentTooSlow,
    AgentClosed,
    /// The agent owed an answer and sent nothing any more.
    AgentStalled,
    /// The agent took no more audio from us.
    AgentBlocked,
    AgentGarbled,
    AgentWrongFormat,
    /// The agent reported a failure that the call cannot go on with.
    AgentFailed,
    /// The agent's session reached its longest duration.
    AgentExpired,
    /// The agent has ended the call, as its campaign lets it.
    AgentHungUp,
    /// The agent has handed the caller over to somebody else.
    Transferred,
    TooLong,
    Drained,
    Stopped,
    /// Another replica carries the call on.
    TakenOver,
    Panicked,
}

/// Whose doing an end was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    Caller,
    Carrier,
    Agent,
    Operator,
    Callgate,
}

/// What a caller who is still on the line hears after the bridge has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    HangUp,
    Goodbye,
    Apology,
    /// Nothing: another phone rings for them.
    Transfer,
}

impl CallId {
    /// Returns our name for the call that its carrier calls so.
    pub fn of(carrier_call: &CarrierCallId) -> Self {
        Self(Uuid::new_v5(&CALLS, carrier_call.as_str().as_bytes()))
    }

    /// Returns the id of the trace that tells of the call, as OpenTelemetry writes it: the same
    /// without hyphens.
    pub fn trace_id(&self) -> String {
        self.0.simple().to_string()
    }

    /// Returns [`CallId::trace_id`] as bytes.
    pub fn trace(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not a call's or a number's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a call id has 1 to 64 letters, digits and hyphens")]
    CallId,
    #[error("a phone number has a plus sign and 2 to 15 digits (E.164)")]
    PhoneNumber,
    #[error(
        "a caller is a number with its plus sign (E.164), or an address of at most 64 characters \
         (sip:… or client:…)"
    )]
    WholeId,
}

impl FromStr for CallId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self).map_err(|_| NameError::CallId)
    }
}

/// Tells whether `text` is one of Twilio's names for its things: the two letters that say what it
/// is, and 32 hexadecimal digits.
pub fn is_sid(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

impl CarrierCallId {
    /// Names the call that a browser begins.
    pub fn of_browser() -> Self {
        Self(format!("web-{}", Uuid::new_v4()))
    }

    /// Names a call that we place, until its carrier has a name for it.
    pub fn pending(carrier: Carrier) -> Self {
        let name = Uuid::new_v4();
        match carrier {
            Carrier::Twilio => Self(format!("out-{name}")),
            Carrier::Acs => Self(format!("acs-{name}")),
            Carrier::Web => Self(format!("web-{name}")),
        }
    }

    /// Tells whether it is such a name.
    pub fn is_pending(&self) -> bool {
        self.0.starts_with("out-") || self.0.starts_with("acs-")
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells who has brought the call, by the shape of its name: Twilio's are `CA` and digits, and
    /// ACS's are GUIDs, which have hyphens; or by the name that we have given it.
    pub fn carrier(&self) -> Carrier {
        if self.0.starts_with("web-") {
            Carrier::Web
        } else if self.0.contains('-') && !self.0.starts_with("out-") {
            Carrier::Acs
        } else {
            Carrier::Twilio
        }
    }
}

impl TryFrom<String> for CarrierCallId {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(NameError::CallId)
        }
    }
}

impl fmt::Display for CarrierCallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Carrier {
    pub const ALL: [Self; 3] = [Self::Twilio, Self::Acs, Self::Web];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Twilio => "twilio",
            Self::Acs => "acs",
            Self::Web => "web",
        }
    }
}

impl OutboundCarrier {
    pub fn as_str(self) -> &'static str {
        Carrier::from(self).as_str()
    }
}

impl From<OutboundCarrier> for Carrier {
    fn from(carrier: OutboundCarrier) -> Self {
        match carrier {
            OutboundCarrier::Twilio => Self::Twilio,
            OutboundCarrier::Acs => Self::Acs,
        }
    }
}

impl FromStr for OutboundCarrier {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "twilio" => Ok(Self::Twilio),
            "acs" => Ok(Self::Acs),
            _ => Err(()),
        }
    }
}

impl EndReason {
    pub const ALL: [Self; 34] = [
        Self::CallerHungUp,
        Self::CarrierEnded,
        Self::CarrierLost,
        Self::NoMedia,
        Self::MediaStalled,
        Self::CarrierUnresponsive,
        Self::CarrierBlocked,
        Self::CarrierGarbled,
        Self::AnswerFailed,
        Self::Busy,
        Self::NoAnswer,
        Self::Canceled,
        Self::NotPlaced,
        Self::Untold,
        Self::MachineAnswered,
        Self::Requested,
        Self::StreamFailed,
        Self::AgentUnreachable,
        Self::AgentRefused,
        Self::AgentTooSlow,
        Self::AgentClosed,
        Self::AgentStalled,
        Self::AgentBlocked,
        Self::AgentGarbled,
        Self::AgentWrongFormat,
        Self::AgentFailed,
        Self::AgentExpired,
        Self::AgentHungUp,
        Self::Transferred,
        Self::TooLong,
        Self::Drained,
        Self::Stopped,
        Self::TakenOver,
        Self::Panicked,
    ];

    pub fn as_str(self) -> &'static str {
        self.facts().0
    }

    pub fn blame(self) -> Blame {
        self.facts().1
    }

    pub fn farewell(self) -> Farewell {
        self.facts().2
    }

    /// Tells whether nobody has picked up the call, which we placed or could not place.
    pub fn is_unanswered(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::NoAnswer | Self::Canceled | Self::NotPlaced | Self::Untold
        )
    }

    fn facts(self) -> (&'static str, Blame, Farewell) {
        use Blame::{Agent, Caller, Callgate, Carrier, Operator};
        use Farewell::{Apology, Goodbye, HangUp, Transfer};
        match self {
            Self::CallerHungUp => ("caller_hung_up", Caller, HangUp),
            Self::CarrierEnded => ("carrier_ended", Caller, HangUp),
            Self::CarrierLost => ("carrier_lost", Carrier, Apology),
            Self::NoMedia => ("no_media", Carrier, Apology),
            Self::MediaStalled => ("media_stalled", Carrier, Apology),
            Self::CarrierUnresponsive => ("carrier_unresponsive", Carrier, Apology),
            Self::CarrierBlocked => ("carrier_blocked", Carrier, Apology),
            Self::CarrierGarbled => ("carrier_garbled", Carrier, Apology),
            Self::AnswerFailed => ("answer_failed", Carrier, HangUp),
            Self::Busy => ("busy", Caller, HangUp),
            Self::NoAnswer => ("no_answer", Caller, HangUp),
            Self::Canceled => ("canceled", Operator, HangUp),
            Self::NotPlaced => ("not_placed", Carrier, HangUp),
            Self::Untold => ("untold", Carrier, HangUp),
            Self::MachineAnswered => ("machine_answered", Caller, HangUp),
            Self::Requested => ("requested", Operator, HangUp),
            Self::StreamFailed => ("stream_failed", Carrier, Apology),
            Self::AgentUnreachable => ("agent_unreachable", Agent, Apology),
            Self::AgentRefused => ("agent_refused", Agent, Apology),
            Self::AgentTooSlow => ("agent_too_slow", Agent, Apology),
            Self::AgentClosed => ("agent_closed", Agent, Apology),
            Self::AgentStalled => ("agent_stalled", Agent, Apology),
            Self::AgentBlocked => ("agent_blocked", Agent, Apology),
            Self::AgentGarbled => ("agent_garbled", Agent, Apology),
            Self::AgentWrongFormat => ("agent_wrong_format", Agent, Apology),
            Self::AgentFailed => ("agent_failed", Agent, Apology),
            Self::AgentExpired => ("agent_expired", Agent, Goodbye),
            // What the operator lets an agent do is no failure of the agent.
            Self::AgentHungUp => ("agent_hung_up", Operator, HangUp),
            Self::Transferred => ("transferred", Operator, Transfer),
            Self::TooLong => ("too_long", Operator, Goodbye),
            Self::Drained => ("drained", Operator, Goodbye),
            Self::Stopped => ("stopped", Operator, Goodbye),
            Self::TakenOver => ("taken_over", Callgate, HangUp),
            Self::Panicked => ("panicked", Callgate, Apology),
        }
    }
}

impl FromStr for EndReason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = Self::ALL.iter().find(|reason| reason.as_str() == text);
        known.copied().ok_or(())
    }
}

impl Blame {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Carrier => "carrier",
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Callgate => "callgate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carriers_call_id_is_short_and_plain() {
        for bad in ["", "CA*", "CA:1", "CA 1", &"A".repeat(65), "CAש"] {
            assert_eq!(
                CarrierCallId::try_from(bad.to_owned()),
                Err(NameError::CallId)
            );
        }
        assert!(CarrierCallId::try_from("CA0123".to_owned()).is_ok());
    }

    #[test]
    fn a_name_tells_whose_call_it_is() {
        let carrier = |id: &str| CarrierCallId::try_from(id.to_owned()).unwrap().carrier();
        assert_eq!(
            carrier("CA0123456789abcdef0123456789abcdef"),
            Carrier::Twilio
        );
        assert_eq!(
            carrier("0b1c2d3e-1111-4222-8333-444455556666"),
            Carrier::Acs
        );
        assert_eq!(
            carrier("CAFE2D3E-1111-4222-8333-444455556666"),
            Carrier::Acs
        );
        assert_eq!(CarrierCallId::of_browser().carrier(), Carrier::Web);
        for placed in [Carrier::Twilio, Carrier::Acs] {
            let pending = CarrierCallId::pending(placed);
            assert_eq!(pending.carrier(), placed);
            assert!(pending.is_pending());
        }
    }
}
