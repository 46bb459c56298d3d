//! The messages of an ACS media stream, as ACS writes and reads them.
//!
//! Source: learn.microsoft.com/azure/communication-services/how-tos/call-automation/
//! audio-streaming-quickstart.

use std::{borrow::Cow, fmt::Write, time::Duration};

use bytes::BytesMut;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use uuid::Uuid;

use crate::{
    chunk::{Encoding, FRAME},
    simulate::voice::{Frame, sounds},
};

/// Room for an `AudioData` message; the buffer grows if that is wrong.
const LONGEST: usize = 2_048;

/// Writes one stream's messages, in one buffer that is used again for each.
pub struct Writer {
    encoding: Encoding,
    began: Timestamp,
    subscription: String,
    /// Whether the gateway has asked to be heard.
    bidirectional: bool,
    /// Whether silence goes without its samples.
    hushes: bool,
    buffer: BytesMut,
}

impl Writer {
    /// A stream that begins at `began`.
    pub fn new(encoding: Encoding, bidirectional: bool, hushes: bool, began: Timestamp) -> Self {
        Self {
            encoding,
            began,
            subscription: Uuid::new_v4().to_string(),
            bidirectional,
            hushes,
            buffer: BytesMut::new(),
        }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    pub fn is_heard(&self) -> bool {
        self.bidirectional
    }

    /// Tells whether a frame goes without its samples.
    pub fn hushes(&self, frame: &Frame) -> bool {
        self.hushes && sounds(&frame.samples, self.encoding).is_none()
    }

    /// Returns what a stream begins with.
    pub fn metadata(&self) -> Message {
        let message = json!({
            "kind": "AudioMetadata",
            "audioMetadata": {
                "subscriptionId": self.subscription,
                "encoding": "PCM",
                "sampleRate": self.encoding.rate(),
                "channels": 1,
                "length": self.encoding.bytes_of(FRAME),
            },
        });
        Message::text(message.to_string())
    }

    /// Writes 20 ms of audio, given as base64 text in pieces.
    pub fn audio(&mut self, at: Duration, text: [&str; 2]) -> Message {
        self.write(at, text, false)
    }

    /// Writes 20 ms of silence.
    pub fn silence(&mut self, at: Duration) -> Message {
        self.write(at, ["", ""], true)
    }

    /// Writes that the caller pressed a key.
    pub fn dtmf(key: char) -> Message {
        Message::text(json!({"kind": "DtmfData", "dtmfData": {"data": key}}).to_string())
    }

    fn write(&mut self, at: Duration, [front, back]: [&str; 2], silent: bool) -> Message {
        self.buffer.reserve(LONGEST);
        let time = self.began + at;
        write!(
            self.buffer,
            r#"{{"kind":"AudioData","audioData":{{"timestamp":"{time:.3}","participantRawID":null,"data":"{front}{back}","silent":{silent}}}}}"#,
        )
        .expect("a buffer grows as it needs to");
        let text = Utf8Bytes::try_from(self.buffer.split()).expect("it was written as text");
        Message::Text(text)
    }
}

/// What a gateway may say on a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum FromGateway<'a> {
    /// Base64 text of samples.
    Audio(Cow<'a, str>),
    Stop,
    /// What ACS passes over without a word.
    Other,
}

/// A message with no effect, and why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("a message is not JSON with a kind")]
    Shape,
    #[error("AudioData without data")]
    NoData,
}

impl<'a> FromGateway<'a> {
    /// Reads a message, in any of the casings that ACS is known to take.
    ///
    /// # Errors
    /// If it is no message of a stream.
    pub fn read(text: &'a str) -> Result<Self, MessageError> {
        let raw: Raw = serde_json::from_str(text).map_err(|_| MessageError::Shape)?;
        if raw.kind.eq_ignore_ascii_case("AudioData") {
            let data = raw.audio_data.and_then(|audio| audio.data);
            data.map(Self::Audio).ok_or(MessageError::NoData)
        } else if raw.kind.eq_ignore_ascii_case("StopAudio") {
            Ok(Self::Stop)
        } else {
            Ok(Self::Other)
        }
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, alias = "Kind")]
    kind: Cow<'a, str>,
    #[serde(borrow, alias = "AudioData", rename = "audioData")]
    audio_data: Option<RawAudio<'a>>,
}

#[derive(Deserialize)]
struct RawAudio<'a> {
    #[serde(borrow, alias = "Data")]
    data: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn read(message: &Message) -> Value {
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    #[test]
    fn messages_have_the_shape_of_acss() {
        let began = "2026-01-06T10:20:34Z".parse().unwrap();
        let mut writer = Writer::new(Encoding::Pcm24k, true, true, began);
        assert_eq!(
            read(&writer.metadata()),
            json!({"kind": "AudioMetadata", "audioMetadata": {
                "subscriptionId": writer.subscription(), "encoding": "PCM", "sampleRate": 24_000,
                "channels": 1, "length": 960,
            }})
        );
        assert_eq!(
            read(&writer.audio(Duration::ZERO, ["AA", "=="])),
            json!({"kind": "AudioData", "audioData": {
                "timestamp": "2026-01-06T10:20:34.000Z", "participantRawID": null, "data": "AA==",
                "silent": false,
            }})
        );
        assert_eq!(
            read(&writer.silence(Duration::from_millis(1_020))),
            json!({"kind": "AudioData", "audioData": {
                "timestamp": "2026-01-06T10:20:35.020Z", "participantRawID": null, "data": "",
                "silent": true,
            }})
        );
        assert_eq!(
            read(&Writer::dtmf('#')),
            json!({"kind": "DtmfData", "dtmfData": {"data": "#"}})
        );
    }

    #[test]
    fn a_gateways_messages_are_read_in_every_known_casing() {
        let audio = Ok(FromGateway::Audio("AAAA".into()));
        let table = [
            (r#"{"kind":"AudioData","audioData":{"data":"AAAA"}}"#, audio),
            (
                r#"{"Kind":"AudioData","AudioData":{"Data":"AA\/A"},"StopAudio":null}"#,
                Ok(FromGateway::Audio("AA/A".into())),
            ),
            (
                r#"{"kind":"audioData","audioData":{"data":"AAAA","isSilent":false},"stopAudio":{}}"#,
                Ok(FromGateway::Audio("AAAA".into())),
            ),
            (
                r#"{"Kind":"StopAudio","AudioData":null,"StopAudio":{}}"#,
                Ok(FromGateway::Stop),
            ),
            (
                r#"{"Kind":"Transcription","Text":"hello"}"#,
                Ok(FromGateway::Other),
            ),
            (r#"{"kind":"AudioData"}"#, Err(MessageError::NoData)),
            (r#"{"audioData":{}}"#, Err(MessageError::Shape)),
            ("", Err(MessageError::Shape)),
        ];
        for (text, expected) in table {
            assert_eq!(FromGateway::read(text), expected, "{text}");
        }
    }
}
