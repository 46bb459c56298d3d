//! The messages of a Twilio media stream, as Twilio writes and reads them.
//!
//! Numbers that count are strings; the gateway's messages have exactly the documented fields.

use std::{borrow::Cow, fmt::Write, time::Duration};

use bytes::BytesMut;
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// Room for a `media` message; the buffer grows if that is wrong.
const LONGEST: usize = 512;

/// Writes one stream's messages, in one buffer that is used again for each.
pub struct Writer {
    account_sid: String,
    call_sid: String,
    stream_sid: String,
    sequence: u64,
    chunk: u64,
    buffer: BytesMut,
}

impl Writer {
    pub fn new(account_sid: &str, call_sid: &str, stream_sid: String) -> Self {
        Self {
            account_sid: account_sid.to_owned(),
            call_sid: call_sid.to_owned(),
            stream_sid,
            sequence: 0,
            chunk: 0,
            buffer: BytesMut::new(),
        }
    }

    pub fn stream_sid(&self) -> &str {
        &self.stream_sid
    }

    /// Returns what a stream begins with.
    pub fn connected() -> Message {
        Message::text(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#)
    }

    pub fn start(&mut self, parameters: &[(String, String)]) -> Message {
        let parameters: serde_json::Map<_, _> = parameters
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().into()))
            .collect();
        let message = json!({
            "event": "start",
            "sequenceNumber": self.next(),
            "start": {
                "accountSid": self.account_sid,
                "streamSid": self.stream_sid,
                "callSid": self.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": parameters,
            },
            "streamSid": self.stream_sid,
        });
        Message::text(message.to_string())
    }

    /// Writes 20 ms of audio, given as base64 text in pieces.
    pub fn media(&mut self, at: Duration, text: [&str; 2]) -> Message {
        self.sequence += 1;
        self.chunk += 1;
        self.buffer.reserve(LONGEST);
        let (sequence, chunk, timestamp) = (self.sequence, self.chunk, at.as_millis());
        let [front, back] = text;
        write!(
            self.buffer,
            r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp}","payload":"{front}{back}"}},"streamSid":"{}"}}"#,
            self.stream_sid
        )
        .expect("a buffer grows as it needs to");
        let text = Utf8Bytes::try_from(self.buffer.split()).expect("it was written as text");
        Message::Text(text)
    }

    /// Writes that a mark has been reached.
    pub fn mark(&mut self, name: &str) -> Message {
        let message = json!({
            "event": "mark",
            "sequenceNumber": self.next(),
            "streamSid": self.stream_sid,
            "mark": {"name": name},
        });
        Message::text(message.to_string())
    }

    /// Writes that the caller pressed a key.
    pub fn dtmf(&mut self, digit: char) -> Message {
        let message = json!({
            "event": "dtmf",
            "streamSid": self.stream_sid,
            "sequenceNumber": self.next(),
            "dtmf": {"track": "inbound_track", "digit": digit},
        });
        Message::text(message.to_string())
    }

    pub fn stop(&mut self) -> Message {
        let message = json!({
            "event": "stop",
            "sequenceNumber": self.next(),
            "streamSid": self.stream_sid,
            "stop": {"accountSid": self.account_sid, "callSid": self.call_sid},
        });
        Message::text(message.to_string())
    }

    fn next(&mut self) -> String {
        self.sequence += 1;
        self.sequence.to_string()
    }
}

/// What a gateway may say on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum FromGateway<'a> {
    /// Base64 text of mu-law.
    Media(Cow<'a, str>),
    Mark(Cow<'a, str>),
    Clear,
}

/// A message with no effect, and why: warning 31951.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("a message is not JSON of the documented shape (31951)")]
    Shape,
    #[error("a message is for another stream (31951)")]
    OtherStream,
    #[error("a message has an unknown event (31951)")]
    UnknownEvent,
}

impl<'a> FromGateway<'a> {
    /// Reads a message for the stream `stream_sid`.
    ///
    /// # Errors
    /// If Twilio would pass it over.
    pub fn read(text: &'a str, stream_sid: &str) -> Result<Self, MessageError> {
        let raw: Raw = serde_json::from_str(text).map_err(|_| MessageError::Shape)?;
        if raw.stream_sid != stream_sid {
            return Err(MessageError::OtherStream);
        }
        match (&*raw.event, raw.media, raw.mark) {
            ("media", Some(media), None) => Ok(Self::Media(media.payload)),
            ("mark", None, Some(mark)) => Ok(Self::Mark(mark.name)),
            ("clear", None, None) => Ok(Self::Clear),
            ("media" | "mark" | "clear", ..) => Err(MessageError::Shape),
            _ => Err(MessageError::UnknownEvent),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    stream_sid: Cow<'a, str>,
    #[serde(borrow)]
    media: Option<RawMedia<'a>>,
    #[serde(borrow)]
    mark: Option<RawMark<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMedia<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_shape_of_twilios() {
        let mut writer = Writer::new("AC1", "CA1", "MZ1".into());
        let read = |message: Message| -> serde_json::Value {
            serde_json::from_str(message.to_text().unwrap()).unwrap()
        };
        assert_eq!(
            read(Writer::connected()),
            json!({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        );
        assert_eq!(
            read(writer.start(&[("lang".into(), "he\"IL".into())])),
            json!({
                "event": "start", "sequenceNumber": "1", "streamSid": "MZ1",
                "start": {
                    "accountSid": "AC1", "callSid": "CA1", "streamSid": "MZ1",
                    "tracks": ["inbound"],
                    "mediaFormat":
                        {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                    "customParameters": {"lang": "he\"IL"},
                },
            })
        );
        assert_eq!(
            read(writer.media(Duration::from_millis(40), ["//", "7+"])),
            json!({
                "event": "media", "sequenceNumber": "2", "streamSid": "MZ1",
                "media":
                    {"track": "inbound", "chunk": "1", "timestamp": "40", "payload": "//7+"},
            })
        );
        assert_eq!(
            read(writer.mark("g3:\u{5d0}\"17")),
            json!({
                "event": "mark", "sequenceNumber": "3", "streamSid": "MZ1",
                "mark": {"name": "g3:\u{5d0}\"17"},
            })
        );
        assert_eq!(
            read(writer.dtmf('5')),
            json!({
                "event": "dtmf", "sequenceNumber": "4", "streamSid": "MZ1",
                "dtmf": {"track": "inbound_track", "digit": "5"},
            })
        );
        assert_eq!(
            read(writer.stop()),
            json!({
                "event": "stop", "sequenceNumber": "5", "streamSid": "MZ1",
                "stop": {"accountSid": "AC1", "callSid": "CA1"},
            })
        );
    }

    #[test]
    fn a_gateways_messages_are_read_as_strictly_as_twilio_does() {
        let ours = "MZ1";
        let table = [
            (
                r#"{"event":"media","streamSid":"MZ1","media":{"payload":"\/w=="}}"#,
                Ok(FromGateway::Media("/w==".into())),
            ),
            (
                r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"a"}}"#,
                Ok(FromGateway::Mark("a".into())),
            ),
            (
                r#"{"event":"clear","streamSid":"MZ1"}"#,
                Ok(FromGateway::Clear),
            ),
            (
                r#"{"event":"clear","streamSid":"MZ2"}"#,
                Err(MessageError::OtherStream),
            ),
            (
                r#"{"event":"hangup","streamSid":"MZ1"}"#,
                Err(MessageError::UnknownEvent),
            ),
            (
                r#"{"event":"clear","stream_sid":"MZ1"}"#,
                Err(MessageError::Shape),
            ),
            (r#"{"event":"clear"}"#, Err(MessageError::Shape)),
            (
                r#"{"event":"media","streamSid":"MZ1"}"#,
                Err(MessageError::Shape),
            ),
            (
                r#"{"event":"media","streamSid":"MZ1","media":{"payload":"","track":"outbound"}}"#,
                Err(MessageError::Shape),
            ),
            (
                r#"{"event":"clear","streamSid":"MZ1","mark":{"name":"a"}}"#,
                Err(MessageError::Shape),
            ),
            ("", Err(MessageError::Shape)),
        ];
        for (text, expected) in table {
            assert_eq!(FromGateway::read(text, ours), expected, "{text}");
        }
    }
}
