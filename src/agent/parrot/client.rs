//! What a client asks of the parrot: the client events of the OpenAI Realtime GA protocol.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{detection::TurnDetection, wire::Problem};

/// A client event, of the kinds the parrot knows.
#[derive(Debug)]
pub enum ClientEvent<'a> {
    UpdateSession(Box<Change>),
    /// Base64, verified as such by [`is_base64`] where it is not decoded.
    Append(Cow<'a, str>),
    Commit,
    Clear,
    CreateItem(Value),
    TruncateItem(Truncation),
    DeleteItem(String),
    CreateResponse,
    CancelResponse,
}

/// What a `session.update` asks for; what is absent stays as it is.
#[derive(Debug, Default)]
pub struct Change {
    pub input: Option<Format>,
    pub output: Option<Format>,
    pub turns: Option<Turns>,
    pub transcription: Option<Value>,
    pub voice: Option<Value>,
    pub instructions: Option<Value>,
}

/// What ends a caller's turn.
#[derive(Debug)]
pub enum Turns {
    /// The client commits.
    Committed,
    Detected(TurnDetection),
}

/// How audio is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PCM of 24 kHz: what a session begins with, and what the parrot cannot speak.
    Pcm,
    /// Mu-law of 8 kHz.
    Pcmu,
}

#[derive(Debug, Deserialize)]
pub struct Truncation {
    pub item_id: String,
    pub content_index: u32,
    pub audio_end_ms: u64,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    event_id: Option<String>,
    #[serde(default, borrow)]
    audio: Cow<'a, str>,
}

/// Reads a message. Returns the client's name for the event, if it has one, and the event.
pub fn parse(text: &str) -> (Option<String>, Result<ClientEvent<'_>, Problem>) {
    match serde_json::from_str::<Head>(text) {
        Ok(head) => (head.event_id, event(&head.kind, head.audio, text)),
        Err(error) => {
            let problem = Problem::new("invalid_event", format!("not an event: {error}"));
            (None, Err(problem))
        }
    }
}

/// Returns whether `text` is safe in a JSON string and looks like base64.
pub fn is_base64(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    text.len().is_multiple_of(4) && text.bytes().all(plain)
}

fn event<'a>(kind: &str, audio: Cow<'a, str>, text: &str) -> Result<ClientEvent<'a>, Problem> {
    #[derive(Deserialize)]
    struct Update {
        session: Value,
    }
    #[derive(Deserialize)]
    struct Creation {
        item: Value,
    }
    #[derive(Deserialize)]
    struct Deletion {
        item_id: String,
    }
    Ok(match kind {
        "input_audio_buffer.append" => ClientEvent::Append(audio),
        "session.update" => {
            let change = change(&body::<Update>(text)?.session)?;
            ClientEvent::UpdateSession(Box::new(change))
        }
        "input_audio_buffer.commit" => ClientEvent::Commit,
        "input_audio_buffer.clear" => ClientEvent::Clear,
        "conversation.item.create" => ClientEvent::CreateItem(body::<Creation>(text)?.item),
        "conversation.item.truncate" => ClientEvent::TruncateItem(body(text)?),
        "conversation.item.delete" => ClientEvent::DeleteItem(body::<Deletion>(text)?.item_id),
        "response.create" => ClientEvent::CreateResponse,
        "response.cancel" => ClientEvent::CancelResponse,
        other => {
            let message = format!("the parrot does not know events of type {other:.64}");
            return Err(Problem::invalid("type", message));
        }
    })
}

fn body<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    serde_json::from_str(text)
        .map_err(|error| Problem::new("invalid_event", format!("a field is wrong: {error}")))
}

fn change(session: &Value) -> Result<Change, Problem> {
    match session["type"].as_str() {
        Some("realtime") => {}
        Some(_) => return Err(Problem::invalid("session.type", "only realtime is known")),
        None => {
            return Err(Problem {
                param: Some("session.type"),
                ..Problem::new("missing_required_parameter", "session.type is missing")
            });
        }
    }
    let format = |path: &str, param| match session.pointer(path) {
        None => Ok(None),
        // Mu-law has no rate in this protocol: the strict form catches a client that sends one.
        Some(format) if *format == serde_json::json!({ "type": "audio/pcmu" }) => {
            Ok(Some(Format::Pcmu))
        }
        Some(_) => Err(Problem::invalid(
            param,
            "the parrot speaks audio/pcmu without a rate only",
        )),
    };
    let turns = match session.pointer("/audio/input/turn_detection") {
        None => None,
        Some(Value::Null) => Some(Turns::Committed),
        Some(given) => {
            let detection = TurnDetection::deserialize(given).map_err(|error| {
                Problem::invalid("session.audio.input.turn_detection", error.to_string())
            })?;
            Some(Turns::Detected(detection))
        }
    };
    let any = |path: &str| session.pointer(path).cloned();
    Ok(Change {
        input: format("/audio/input/format", "session.audio.input.format")?,
        output: format("/audio/output/format", "session.audio.output.format")?,
        turns,
        transcription: any("/audio/input/transcription"),
        voice: any("/audio/output/voice"),
        instructions: any("/instructions"),
    })
}
