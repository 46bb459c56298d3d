//! The messages of the browser's socket: audio in binary frames, and JSON beside it. No IO.

use std::time::Duration;

use actix_ws::Message;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use crate::{
    call::EndReason,
    chunk::{Chunk, Encoding, FRAME},
    language::Language,
    media::dialect::{Event, Fault},
    session::{Input, Speaker},
};

/// How a browser's audio is encoded, both ways.
pub const ENCODING: Encoding = Encoding::Pcm24k;

/// One browser's side of the conversation.
#[derive(Debug, Default)]
pub struct MediaStream {
    expected_at: Duration,
}

/// What the page is told of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Connected,
    Busy,
    Ended(EndReason),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    kind: String,
    id: Option<u64>,
}

impl MediaStream {
    /// Reads a text message.
    ///
    /// # Errors
    /// If it is not JSON with a kind.
    pub fn read(message: &Bytes) -> Result<Event, Fault> {
        let wire: Wire = serde_json::from_slice(message).map_err(|_| Fault::Garbled)?;
        Ok(match (wire.kind.as_str(), wire.id) {
            ("Ping", Some(id)) => {
                let pong = json!({"Kind": "Pong", "Id": id});
                Event::Reply(Message::Text(pong.to_string().into()))
            }
            _ => Event::Ignored,
        })
    }

    /// Takes a binary message as audio.
    ///
    /// # Errors
    /// If it ends within a sample.
    pub fn hear(&mut self, samples: &Bytes) -> Result<Event, Fault> {
        if !samples.len().is_multiple_of(ENCODING.width()) {
            return Err(Fault::Garbled);
        }
        if samples.is_empty() {
            return Ok(Event::Ignored);
        }
        let chunk = Chunk::encode(samples, ENCODING);
        let starts_at = self.expected_at;
        self.expected_at = starts_at + chunk.duration().max(FRAME);
        Ok(Event::Input(Input::CallerAudio { chunk, starts_at }))
    }

    /// Returns the message that drops what was not played yet.
    pub fn clear() -> Bytes {
        Bytes::from_static(br#"{"Kind":"StopAudio","AudioData":null,"StopAudio":{}}"#)
    }

    /// Returns the message that shows what was said.
    pub fn said(who: Speaker, text: &str) -> Bytes {
        let said = json!({"Kind": "Transcription", "Text": text, "Speaker": who});
        said.to_string().into()
    }

    /// Returns the message that tells how the call stands.
    pub fn tell(state: State, language: &Language) -> Bytes {
        let (state, reason) = match state {
            State::Connected => ("connected", None),
            State::Busy => ("busy", None),
            State::Ended(reason) => ("ended", Some(reason)),
        };
        let told = json!({
            "Kind": "State", "State": state, "Reason": reason, "Language": language.as_str(),
        });
        told.to_string().into()
    }
}

#[cfg(test)]
mod tests;
