//! What Azure Communication Services (ACS) sends: events of calls that ring, and a call's media.
//!
//! Source: the events of Event Grid, Call Automation's REST, and the messages of audio streaming,
//! at learn.microsoft.com/azure/communication-services.

use std::fmt::Write;
use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

/// What comes before the base64 text in a message to ACS; `MEDIA_SUFFIX` comes after it, as in one
/// to Twilio.
pub const MEDIA_PREFIX: &str = r#"{"kind":"AudioData","audioData":{"data":""#;

/// What comes after the base64 text in a message of ACS's; [`media_head`] comes before it.
pub const MEDIA_TAIL: &str = r#"","silent":false}}"#;

/// What a call's audio is: 16-bit samples, little-endian, one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
pub enum Format {
    Pcm24k,
    Pcm16k,
}

/// A call that rings, by its names.
pub struct Ringing<'a> {
    pub correlation: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    /// What answering takes.
    pub context: &'a str,
}

/// What a gateway asks for when it answers a call, as far as it matters here.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    pub incoming_call_context: String,
    pub media_streaming_options: Media,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    pub transport_url: String,
    pub audio_format: String,
}

impl Format {
    /// Returns the samples a second.
    pub const fn rate(self) -> u16 {
        match self {
            Self::Pcm24k => 24_000,
            Self::Pcm16k => 16_000,
        }
    }

    /// Returns the name that ACS has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcm24k => "pcm24KMono",
            Self::Pcm16k => "pcm16KMono",
        }
    }
}

/// Returns the request by which Event Grid delivers that a call rings now.
pub fn event(address: SocketAddr, secret: &str, call: &Ringing<'_>) -> String {
    let Ringing {
        correlation,
        from,
        to,
        context,
    } = call;
    let phone = |number: &str| json!({"kind": "phoneNumber", "rawId": format!("4:{number}"), "phoneNumber": {"value": number}});
    let body = json!([{
        "id": format!("event-{correlation}"),
        "topic": "/subscriptions/s/resourcegroups/g/providers/microsoft.communication/communicationservices/bench",
        "subject": format!("/caller/4:{from}/recipient/4:{to}"),
        "eventType": "Microsoft.Communication.IncomingCall",
        "eventTime": Timestamp::now().to_string(),
        "dataVersion": "1.0",
        "metadataVersion": "1",
        "data": {
            "to": phone(to),
            "from": phone(from),
            "serverCallId": format!("server-{correlation}"),
            "callerDisplayName": "",
            "incomingCallContext": context,
            "correlationId": correlation,
        },
    }])
    .to_string();
    let length = body.len();
    format!(
        "POST /acs/incomingcall?secret={secret} HTTP/1.1\r\nHost: {address}\r\n\
         aeg-event-type: Notification\r\naeg-delivery-count: 0\r\n\
         Content-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Returns what an answered call's properties are.
pub fn properties(connection: &str, correlation: &str) -> String {
    json!({
        "callConnectionId": connection,
        "serverCallId": format!("server-{correlation}"),
        "correlationId": correlation,
        "callConnectionState": "connecting",
    })
    .to_string()
}

/// Returns the first message of a call's media.
pub fn metadata(format: Format) -> String {
    json!({
        "kind": "AudioMetadata",
        "audioMetadata": {
            "subscriptionId": "89e8cb59-b991-48b0-b154-1db84f16a077",
            "encoding": "PCM",
            "sampleRate": format.rate(),
            "channels": 1,
            "length": format.rate() / 50 * 2,
        },
    })
    .to_string()
}

/// Writes what comes before the base64 text of an audio frame, whose number is counted from 0.
/// [`MEDIA_TAIL`] comes after it.
pub fn media_head(number: u32, out: &mut String) {
    let milliseconds = number * 20;
    let (seconds, millisecond) = (milliseconds / 1_000, milliseconds % 1_000);
    let (minute, second) = (seconds / 60 % 60, seconds % 60);
    write!(
        out,
        r#"{{"kind":"AudioData","audioData":{{"timestamp":"2026-01-06T10:{minute:02}:{second:02}.{millisecond:03}Z","participantRawID":null,"data":""#
    )
    .expect("a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MEDIA_SUFFIX, Reader};

    #[test]
    fn audio_is_found_in_what_either_side_sends() {
        let mut from = String::new();
        media_head(3_056, &mut from);
        from += "AAAA";
        from += MEDIA_TAIL;
        let parsed: serde_json::Value = serde_json::from_str(&from).unwrap();
        assert_eq!(parsed["audioData"]["data"], "AAAA");
        assert_eq!(parsed["audioData"]["timestamp"], "2026-01-06T10:01:01.120Z");
        let to = format!("{MEDIA_PREFIX}AAAA{MEDIA_SUFFIX}");
        let reader = Reader::default();
        for text in [from, to] {
            assert_eq!(reader.acs(text.as_bytes()), Some("AAAA"), "{text}");
        }
        let stop = r#"{"kind":"StopAudio","stopAudio":{}}"#;
        for other in [stop, &metadata(Format::Pcm16k)] {
            assert_eq!(reader.acs(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_event_is_as_long_as_it_says_and_an_answer_is_read() {
        let call = Ringing {
            correlation: "c-1",
            from: "+15551",
            to: "+15552",
            context: "ticket",
        };
        let request = event(([127, 0, 0, 1], 80).into(), "secret", &call);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body[0]["data"]["incomingCallContext"], "ticket");

        let answer = r#"{"incomingCallContext":"ticket","callbackUri":"http://h/c","mediaStreamingOptions":{"transportType":"websocket","transportUrl":"ws://h/m","audioFormat":"pcm24KMono"}}"#;
        let answer: Answer = serde_json::from_str(answer).unwrap();
        assert_eq!(answer.incoming_call_context, "ticket");
        assert_eq!(answer.media_streaming_options.transport_url, "ws://h/m");
    }
}
