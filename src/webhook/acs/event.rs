//! What Event Grid posts to `/acs/incomingcall`, in either of its schemas: pure reading.
//!
//! Source: learn.microsoft.com/azure/event-grid/communication-services-voice-video-events.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::{
    call::{CallerId, CarrierCallId},
    carrier::acs::tamed,
    webhook::acs::{
        identifier,
        json::{BodyError, events, text},
    },
};

const LONGEST_ID: usize = 256;
const LONGEST_KIND: usize = 128;
/// A ticket has several thousand bytes.
const LONGEST_CONTEXT: usize = 64 << 10;
/// Where Event Grid says it is from, in each of the clouds.
const ORIGINS: [&str; 3] = [
    "eventgrid.azure.net",
    "eventgrid.azure.us",
    "eventgrid.azure.cn",
];

/// One event of a batch.
#[derive(Debug)]
pub enum Event {
    /// The subscription is being set up: [`consent`] is the answer.
    Validation {
        code: String,
    },
    IncomingCall(Box<IncomingCall>),
    /// Of a kind that is not acted on.
    Other {
        kind: String,
    },
    /// Makes no sense; the others of its batch count.
    Malformed {
        what: &'static str,
    },
}

/// A call rings.
#[derive(Debug)]
pub struct IncomingCall {
    /// The event's; the same where it is delivered again.
    pub event: String,
    pub time: Timestamp,
    pub call: CarrierCallId,
    pub from: CallerId,
    pub to: CallerId,
    /// The ticket that answering takes.
    pub context: SecretString,
}

/// Reads the events of a body, in their order.
///
/// # Errors
/// If it is too long or holds none at all.
pub fn read(body: &[u8]) -> Result<Vec<Event>, BodyError> {
    let events = events(body)?;
    let read = |event: &Value| read_one(event).unwrap_or_else(|what| Event::Malformed { what });
    Ok(events.iter().map(read).collect())
}

impl IncomingCall {
    /// Returns how long ago the event was made; a call rings for 30 s.
    pub fn age(&self, now: Timestamp) -> Duration {
        now.duration_since(self.time).try_into().unwrap_or_default()
    }
}

/// Returns the body that consents to a subscription. The answer's status is 200.
pub fn consent(code: &str) -> String {
    json!({ "validationResponse": code }).to_string()
}

/// Returns the headers that consent to a subscription in the `CloudEvents` schema, which asks by
/// OPTIONS; `None` if it is not Event Grid that asks. The answer's status is 200.
pub fn handshake(origin: Option<&str>) -> Option<[(&'static str, &str); 3]> {
    let origin = origin?.trim();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let is_known = ORIGINS.iter().any(|known| {
        let before = origin.strip_suffix(known);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    });
    let is_host = origin.len() <= 253 && origin.bytes().all(is_plain);
    (is_known && is_host).then_some([
        ("allow", "POST, OPTIONS"),
        ("webhook-allowed-origin", origin),
        ("webhook-allowed-rate", "*"),
    ])
}

fn read_one(event: &Value) -> Result<Event, &'static str> {
    let kind = either(event, "eventType", "type", LONGEST_KIND).ok_or("type")?;
    match kind {
        "Microsoft.EventGrid.SubscriptionValidationEvent" => {
            let code = event
                .get("data")
                .and_then(|data| text(data, "validationCode", 512));
            let code = code.ok_or("validationCode")?.to_owned();
            Ok(Event::Validation { code })
        }
        "Microsoft.Communication.IncomingCall" => {
            let call = incoming_call(event)?;
            Ok(Event::IncomingCall(Box::new(call)))
        }
        other => Ok(Event::Other { kind: tamed(other) }),
    }
}

fn incoming_call(event: &Value) -> Result<IncomingCall, &'static str> {
    let data = event.get("data").ok_or("data")?;
    let time = either(event, "eventTime", "time", 64).and_then(|time| time.parse().ok());
    let call = text(data, "correlationId", LONGEST_ID).map(str::to_owned);
    let call = call.and_then(|call| CarrierCallId::try_from(call).ok());
    let context = text(data, "incomingCallContext", LONGEST_CONTEXT);
    let to = data.get("to").and_then(identifier::read);
    // Whoever rings is let in, also when nobody can say who it is.
    let from = data.get("from").and_then(identifier::read);
    Ok(IncomingCall {
        event: text(event, "id", LONGEST_ID).ok_or("id")?.to_owned(),
        time: time.ok_or("time")?,
        call: call.ok_or("correlationId")?,
        from: from.unwrap_or(CallerId::Withheld),
        to: to.ok_or("to")?,
        context: context.ok_or("incomingCallContext")?.into(),
    })
}

/// Returns a text by its name in Event Grid's schema, or in the one of `CloudEvents`.
fn either<'a>(event: &'a Value, name: &str, other: &str, longest: usize) -> Option<&'a str> {
    text(event, name, longest).or_else(|| text(event, other, longest))
}

#[cfg(test)]
mod tests;
