//! What the parrot puts on its socket: the server events of the OpenAI Realtime GA protocol, or
//! the same as Voice Live spells them.

use std::{io::Write, vec};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::agent::Dialect;

/// What the shell does for a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// A part of one long text message.
    Fragment {
        text: Bytes,
        part: Part,
    },
    Close {
        code: u16,
        reason: &'static str,
    },
}

/// Where in its message a fragment belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    First,
    Middle,
    Last,
}

/// Why a client event was not obeyed; becomes an `error` event.
#[derive(Debug)]
pub struct Problem {
    pub code: &'static str,
    pub message: String,
    pub param: Option<&'static str>,
}

impl Problem {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
        }
    }

    /// A field of the event has a value that cannot be.
    pub fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param),
            ..Self::new("invalid_value", message)
        }
    }
}

/// Numbers a session's events and keeps them until the shell takes them.
#[derive(Debug)]
pub struct Wire {
    dialect: Dialect,
    /// Makes identifiers unique among sessions.
    tag: String,
    events: u64,
    ids: u64,
    outputs: Vec<Output>,
    /// Echoes are written here; each returns its part of the buffer once it is sent.
    buffer: BytesMut,
}

impl Wire {
    pub fn new(dialect: Dialect, tag: String) -> Self {
        Self {
            dialect,
            tag,
            events: 0,
            ids: 0,
            outputs: Vec::new(),
            buffer: BytesMut::new(),
        }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Returns a new identifier, such as `item_5f3c7`.
    pub fn id(&mut self, kind: &str) -> String {
        self.ids += 1;
        format!("{kind}_{}{}", self.tag, self.ids)
    }

    /// Returns the identifier there is one of in a session.
    pub fn own_id(&self, kind: &str) -> String {
        format!("{kind}_{}", self.tag)
    }

    /// Sends an event of these `fields`, which are an object, under the name that the dialect has
    /// for its `kind`, if it has one.
    pub fn event(&mut self, kind: &str, fields: Value) {
        let Some(kind) = spelled(self.dialect, kind) else {
            return;
        };
        let mut event = Map::new();
        event.insert("type".to_owned(), kind.into());
        self.events += 1;
        let id = format!("event_{}{}", self.tag, self.events);
        event.insert("event_id".to_owned(), id.into());
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        self.put(Output::Text(Value::Object(event).to_string().into()));
    }

    /// Sends an `error` event about the client event `about`.
    pub fn error(&mut self, problem: &Problem, about: Option<&str>) {
        let error = json!({
            "type": "invalid_request_error",
            "code": problem.code,
            "message": problem.message,
            "param": problem.param,
            "event_id": about,
        });
        self.event("error", json!({ "error": error }));
    }

    /// Sends `audio`, which is base64, as it is; cheap, since benchmarks echo through it.
    pub fn echo(&mut self, audio: &str) {
        self.events += 1;
        let (tag, event, kind) = (&self.tag, self.events, audio_delta(self.dialect));
        let mut text = (&mut self.buffer).writer();
        write!(
            text,
            r#"{{"type":"{kind}","event_id":"event_{tag}{event}","response_id":"resp_{tag}","item_id":"item_{tag}","output_index":0,"content_index":0,"delta":"{audio}"}}"#
        )
        .expect("a buffer takes everything");
        let text = self.buffer.split().freeze();
        let text = Utf8Bytes::try_from(text).expect("made of text");
        self.put(Output::Text(text));
    }

    pub fn close(&mut self, code: u16, reason: &'static str) {
        self.put(Output::Close { code, reason });
    }

    pub fn put(&mut self, output: Output) {
        self.outputs.push(output);
    }

    pub fn drain(&mut self) -> vec::Drain<'_, Output> {
        self.outputs.drain(..)
    }
}

/// Returns the name of the event that carries audio.
pub fn audio_delta(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::OpenAi => "response.output_audio.delta",
        Dialect::VoiceLive => "response.audio.delta",
    }
}

/// Returns what an event of the GA protocol is called in `dialect`.
fn spelled(dialect: Dialect, kind: &str) -> Option<&str> {
    match dialect {
        Dialect::OpenAi => Some(kind),
        Dialect::VoiceLive => match kind {
            "response.output_audio.delta" => Some(audio_delta(dialect)),
            "response.output_audio.done" => Some("response.audio.done"),
            "response.output_audio_transcript.delta" => Some("response.audio_transcript.delta"),
            "response.output_audio_transcript.done" => Some("response.audio_transcript.done"),
            "conversation.item.added" => Some("conversation.item.created"),
            "conversation.item.done" | "rate_limits.updated" => None,
            other => Some(other),
        },
    }
}
