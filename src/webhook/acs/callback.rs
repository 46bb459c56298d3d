//! What ACS posts to `/acs/callbacks/{call}` of a call that it connects: pure reading.
//!
//! Source: learn.microsoft.com/azure/communication-services/concepts/call-automation/call-automation.
//! Events come in any order, and some of them twice.

use serde_json::Value;

use crate::{
    call::CarrierCallId,
    carrier::acs::{CallConnectionId, tamed},
    webhook::acs::json::{BodyError, events, text},
};

const LONGEST_ID: usize = 256;
const LONGEST_KIND: usize = 128;
const LONGEST_MESSAGE: usize = 16 << 10;
const PREFIX: &str = "Microsoft.Communication.";

/// The events of one body.
#[derive(Debug, Default)]
pub struct Callbacks {
    /// In their order.
    pub callbacks: Vec<Callback>,
    /// What those lack that make no sense.
    pub malformed: Vec<&'static str>,
}

/// Something happened to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callback {
    /// The event's; the same where it is delivered again.
    pub id: String,
    pub kind: Kind,
    pub connection: Option<CallConnectionId>,
    pub call: Option<CarrierCallId>,
    /// What the request said that the event is about.
    pub operation_context: Option<String>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Connected,
    /// The last event of a call.
    Disconnected,
    AnswerFailed,
    CreateCallFailed,
    MediaStreamingStarted(StreamDetail),
    MediaStreamingStopped(StreamDetail),
    /// The call goes on, in silence.
    MediaStreamingFailed(StreamDetail),
    PlayStarted,
    PlayCompleted,
    PlayFailed,
    PlayCanceled,
    TransferAccepted,
    TransferFailed,
    RecordingStateChanged,
    /// A key was pressed: `0` to `9`, `A` to `D`, `*` or `#`.
    DtmfTone(char),
    Other(String),
}

/// What ACS says of a media socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamDetail {
    SubscriptionStarted,
    SubscriptionStopped,
    Reestablished,
    Interrupted,
    Unsuccessful,
    InitialConnectionFailed,
    UrlMissing,
    ServiceShutdown,
    ServiceTimeout,
    SpeechServicesError,
    AuthenticationFailure,
    BadRequest,
    TooManyRequests,
    Forbidden,
    Unspecified,
}

/// How something went, in ACS's numbers; 200 and 0 are success.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    pub code: Option<u16>,
    pub subcode: Option<u32>,
    /// What the phone network said, by SIP's numbers.
    pub sip: Option<u16>,
    /// Without what nobody may see.
    pub message: String,
}

/// Reads the events of a body.
///
/// # Errors
/// If it is too long or holds none at all.
pub fn read(body: &[u8]) -> Result<Callbacks, BodyError> {
    let mut read = Callbacks::default();
    for event in &events(body)? {
        match read_one(event) {
            Ok(callback) => read.callbacks.push(callback),
            Err(what) => read.malformed.push(what),
        }
    }
    Ok(read)
}

impl Kind {
    /// Tells whether a call goes on of which this is told, as far as that is known.
    pub fn is_of_a_live_call(&self) -> bool {
        match self {
            Self::Connected
            | Self::MediaStreamingStarted(_)
            | Self::MediaStreamingStopped(_)
            | Self::RecordingStateChanged
            | Self::DtmfTone(_)
            | Self::Other(_) => true,
            // It is over, or about to be: with words, or with somebody else.
            Self::Disconnected
            | Self::AnswerFailed
            | Self::CreateCallFailed
            | Self::MediaStreamingFailed(_)
            | Self::PlayStarted
            | Self::PlayCompleted
            | Self::PlayFailed
            | Self::PlayCanceled
            | Self::TransferAccepted
            | Self::TransferFailed => false,
        }
    }
}

impl StreamDetail {
    /// What ACS calls them.
    const ALL: [(&str, Self); 15] = [
        ("subscriptionStarted", Self::SubscriptionStarted),
        ("subscriptionStopped", Self::SubscriptionStopped),
        ("streamConnectionReestablished", Self::Reestablished),
        ("streamConnectionInterrupted", Self::Interrupted),
        ("streamConnectionUnsuccessful", Self::Unsuccessful),
        (
            "initialWebSocketConnectionFailed",
            Self::InitialConnectionFailed,
        ),
        ("streamUrlMissing", Self::UrlMissing),
        ("serviceShutdown", Self::ServiceShutdown),
        ("serviceTimeout", Self::ServiceTimeout),
        ("speechServicesConnectionError", Self::SpeechServicesError),
        ("authenticationFailure", Self::AuthenticationFailure),
        ("badRequest", Self::BadRequest),
        ("tooManyRequests", Self::TooManyRequests),
        ("forbidden", Self::Forbidden),
        ("unspecifiedError", Self::Unspecified),
    ];

    /// Returns ACS's name for it.
    pub fn as_str(self) -> &'static str {
        let known = Self::ALL.iter().find(|(_, detail)| *detail == self);
        known.map_or("unspecifiedError", |(name, _)| name)
    }

    fn of(data: &Value) -> Self {
        let update = data.get("mediaStreamingUpdate").unwrap_or(&Value::Null);
        let name = text(update, "mediaStreamingStatusDetails", LONGEST_KIND).unwrap_or_default();
        let known = Self::ALL
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map_or(Self::Unspecified, |(_, detail)| *detail)
    }
}

fn read_one(event: &Value) -> Result<Callback, &'static str> {
    let id = text(event, "id", LONGEST_ID).ok_or("id")?;
    let kind = text(event, "type", LONGEST_KIND).ok_or("type")?;
    let data = event.get("data").filter(|data| data.is_object());
    let data = data.ok_or("data")?;
    let name = |name| text(data, name, LONGEST_ID);
    Ok(Callback {
        id: id.to_owned(),
        kind: Kind::read(kind, data)?,
        connection: name("callConnectionId").and_then(|id| id.parse().ok()),
        call: name("correlationId").and_then(|id| id.to_owned().try_into().ok()),
        operation_context: name("operationContext").map(str::to_owned),
        outcome: data
            .get("resultInformation")
            .map(outcome)
            .unwrap_or_default(),
    })
}

impl Kind {
    fn read(kind: &str, data: &Value) -> Result<Self, &'static str> {
        let name = match kind.get(..PREFIX.len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &kind[PREFIX.len()..],
            Some(_) | None => return Ok(Self::Other(tamed(kind))),
        };
        Ok(match name.to_ascii_lowercase().as_str() {
            "callconnected" => Self::Connected,
            "calldisconnected" => Self::Disconnected,
            "answerfailed" => Self::AnswerFailed,
            "createcallfailed" => Self::CreateCallFailed,
            "mediastreamingstarted" => Self::MediaStreamingStarted(StreamDetail::of(data)),
            "mediastreamingstopped" => Self::MediaStreamingStopped(StreamDetail::of(data)),
            "mediastreamingfailed" => Self::MediaStreamingFailed(StreamDetail::of(data)),
            "playstarted" => Self::PlayStarted,
            "playcompleted" => Self::PlayCompleted,
            "playfailed" => Self::PlayFailed,
            "playcanceled" => Self::PlayCanceled,
            "calltransferaccepted" => Self::TransferAccepted,
            "calltransferfailed" => Self::TransferFailed,
            "recordingstatechanged" => Self::RecordingStateChanged,
            "continuousdtmfrecognitiontonereceived" => {
                let tone = text(data, "tone", LONGEST_KIND).and_then(digit);
                Self::DtmfTone(tone.ok_or("tone")?)
            }
            _ => Self::Other(tamed(name)),
        })
    }
}

fn outcome(result: &Value) -> Outcome {
    let number = |name| result.get(name).and_then(Value::as_u64);
    let sip = result.get("sipDetails").and_then(|sip| sip.get("code"));
    let message = text(result, "message", LONGEST_MESSAGE);
    Outcome {
        code: number("code").and_then(|code| code.try_into().ok()),
        subcode: number("subCode").and_then(|code| code.try_into().ok()),
        sip: sip
            .and_then(Value::as_u64)
            .and_then(|code| code.try_into().ok()),
        message: message.map(tamed).unwrap_or_default(),
    }
}

fn digit(tone: &str) -> Option<char> {
    const TONES: [(&str, char); 16] = [
        ("zero", '0'),
        ("one", '1'),
        ("two", '2'),
        ("three", '3'),
        ("four", '4'),
        ("five", '5'),
        ("six", '6'),
        ("seven", '7'),
        ("eight", '8'),
        ("nine", '9'),
        ("a", 'A'),
        ("b", 'B'),
        ("c", 'C'),
        ("d", 'D'),
        ("pound", '#'),
        ("asterisk", '*'),
    ];
    let known = TONES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(tone));
    known.map(|(_, digit)| *digit)
}

#[cfg(test)]
mod tests;
