//! What is asked of ACS, as JSON in its own names.

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};
use url::Url;

use crate::{call::PhoneNumber, config::AcsAudio};

/// Answers a call that rings.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    /// The ticket that came with the event.
    #[serde(rename = "incomingCallContext", serialize_with = "exposed")]
    pub context: &'a SecretString,
    /// Where events of this call go: https, with what proves that they are its own.
    #[serde(rename = "callbackUri", serialize_with = "address")]
    pub callback: &'a Url,
    /// Comes back with the events.
    pub operation_context: &'a str,
    /// `None` for a call that only hears what is played.
    #[serde(
        rename = "mediaStreamingOptions",
        skip_serializing_if = "Option::is_none"
    )]
    pub media: Option<Media<'a>>,
}

/// Connects a call's audio to a socket of ours, in both directions.
#[derive(Clone, Copy)]
pub struct Media<'a> {
    /// A `wss` address with the call's ticket.
    pub socket: &'a Url,
    pub audio: AcsAudio,
}

/// Rejects a call that rings.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reject<'a> {
    #[serde(rename = "incomingCallContext", serialize_with = "exposed")]
    pub context: &'a SecretString,
    #[serde(rename = "callRejectReason")]
    pub reason: RejectReason,
}

/// What a caller is told who is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RejectReason {
    Busy,
}

/// Sends a call that rings to another number; no event of it comes any more.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect<'a> {
    #[serde(rename = "incomingCallContext", serialize_with = "exposed")]
    pub context: &'a SecretString,
    #[serde(rename = "target", serialize_with = "party")]
    pub to: &'a PhoneNumber,
}

/// Places a call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewCall<'a> {
    #[serde(rename = "targets", serialize_with = "parties")]
    pub to: &'a PhoneNumber,
    /// A number of the resource's own.
    #[serde(rename = "sourceCallerIdNumber", serialize_with = "number")]
    pub from: &'a PhoneNumber,
    #[serde(rename = "callbackUri", serialize_with = "address")]
    pub callback: &'a Url,
    pub operation_context: &'a str,
    #[serde(
        rename = "mediaStreamingOptions",
        skip_serializing_if = "Option::is_none"
    )]
    pub media: Option<Media<'a>>,
}

/// Hands a call over to a number.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer<'a> {
    #[serde(rename = "targetParticipant", serialize_with = "party")]
    pub to: &'a PhoneNumber,
    /// What the person called sees: a number of the resource's own.
    #[serde(
        rename = "sourceCallerIdNumber",
        skip_serializing_if = "Option::is_none"
    )]
    pub from: Option<Number<'a>>,
    pub operation_context: &'a str,
}

/// Presses keys for a number that is in a call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SendTones<'a> {
    /// At most 18 of `0` to `9`, `*` and `#`.
    #[serde(rename = "tones", serialize_with = "tones")]
    pub keys: &'a str,
    #[serde(rename = "targetParticipant", serialize_with = "party")]
    pub to: &'a PhoneNumber,
    pub operation_context: &'a str,
}

/// Plays a file to everybody in a call.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Play<'a> {
    /// A WAV of one channel, 16 bits and 16 kHz, where ACS can read it.
    #[serde(rename = "playSources", serialize_with = "sources")]
    pub file: &'a Url,
    pub operation_context: &'a str,
}

impl Serialize for Media<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// `transportType` tells ACS what the rest is, and so comes first.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Options<'a> {
            transport_type: &'static str,
            audio_channel_type: &'static str,
            transport_url: &'a str,
            content_type: &'static str,
            start_media_streaming: bool,
            /// Without it ACS ignores what is sent to the caller.
            enable_bidirectional: bool,
            audio_format: &'static str,
            enable_dtmf_tones: bool,
        }
        let options = Options {
            transport_type: "websocket",
            audio_channel_type: "mixed",
            transport_url: self.socket.as_str(),
            content_type: "audio",
            start_media_streaming: true,
            enable_bidirectional: true,
            audio_format: self.audio.as_str(),
            enable_dtmf_tones: true,
        };
        options.serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Party<'a> {
    raw_id: String,
    phone_number: Number<'a>,
}

/// A number by itself.
#[derive(Serialize)]
pub struct Number<'a> {
    value: &'a str,
}

#[derive(Serialize)]
struct Source<'a> {
    kind: &'static str,
    file: File<'a>,
}

#[derive(Serialize)]
struct File<'a> {
    uri: &'a str,
}

impl<'a> From<&'a PhoneNumber> for Party<'a> {
    fn from(number: &'a PhoneNumber) -> Self {
        Self {
            raw_id: format!("4:{}", number.reveal()),
            phone_number: Number::from(number),
        }
    }
}

impl<'a> From<&'a PhoneNumber> for Number<'a> {
    fn from(number: &'a PhoneNumber) -> Self {
        Self {
            value: number.reveal(),
        }
    }
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn address<S: Serializer>(url: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(url.as_str())
}

fn party<S: Serializer>(number: &PhoneNumber, serializer: S) -> Result<S::Ok, S::Error> {
    Party::from(number).serialize(serializer)
}

fn parties<S: Serializer>(number: &PhoneNumber, serializer: S) -> Result<S::Ok, S::Error> {
    [Party::from(number)].serialize(serializer)
}

fn number<S: Serializer>(number: &PhoneNumber, serializer: S) -> Result<S::Ok, S::Error> {
    Number::from(number).serialize(serializer)
}

/// Writes keys as ACS calls them; it is given no others.
fn tones<S: Serializer>(keys: &str, serializer: S) -> Result<S::Ok, S::Error> {
    const DIGITS: [&str; 10] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ];
    let tone = |key: char| match key {
        '*' => Some("asterisk"),
        '#' => Some("pound"),
        digit => DIGITS.get(digit.to_digit(10)? as usize).copied(),
    };
    serializer.collect_seq(keys.chars().filter_map(tone))
}

fn sources<S: Serializer>(file: &Url, serializer: S) -> Result<S::Ok, S::Error> {
    let uri = file.as_str();
    let source = Source {
        kind: "file",
        file: File { uri },
    };
    [source].serialize(serializer)
}
