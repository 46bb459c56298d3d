//! One response while it is being sent: faster than real time, in bursts, as real agents do.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{conversation::Conversation, edge::Mouth, wire::Wire};
use crate::{
    agent::Dialect,
    chunk::{Encoding, duration_of, samples_in},
};

/// The first pieces are short, so that the caller soon hears something.
const PIECES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(200)];
const PIECE: Duration = Duration::from_millis(400);

/// The time between two pieces: eight times real time.
pub const PACE: Duration = Duration::from_millis(50);

/// What is to be said.
#[derive(Debug)]
pub struct Script {
    /// Mu-law; starts over when it is shorter than `length`.
    pub audio: Bytes,
    /// In samples.
    pub length: usize,
    pub transcript: String,
    /// How long the audio was that this answers.
    pub heard: Duration,
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    /// The caller spoke.
    TurnDetected,
    /// The client asked.
    ClientCancelled,
    /// With the code of the error.
    Failed(&'static str),
}

#[derive(Debug)]
pub struct Speech {
    response: String,
    item: String,
    script: Script,
    mouth: Mouth,
    said: usize,
    pieces: usize,
    /// When the next piece is due.
    pub due: Duration,
}

impl Speech {
    /// Announces a response that says `script`, in audio of this `encoding`.
    pub fn begin(
        script: Script,
        encoding: Encoding,
        due: Duration,
        conversation: &mut Conversation,
        wire: &mut Wire,
    ) -> Self {
        let this = Self {
            response: wire.id("resp"),
            item: wire.id("item"),
            script,
            mouth: Mouth::of(encoding),
            said: 0,
            pieces: 0,
            due,
        };
        create(&this.response, wire);
        let item = this.item("in_progress");
        let added = json!({ "response_id": this.response, "output_index": 0, "item": item });
        wire.event("response.output_item.added", added);
        conversation.add(&item, wire);
        let part = json!({ "type": "audio", "transcript": "" });
        wire.event("response.content_part.added", this.with("part", part));
        let words = this.with("delta", this.script.transcript.as_str().into());
        wire.event("response.output_audio_transcript.delta", words);
        this
    }

    /// Sends the next piece of audio.
    pub fn say(&mut self, conversation: &mut Conversation, wire: &mut Wire) {
        let piece = samples_in(PIECES.get(self.pieces).copied().unwrap_or(PIECE));
        let end = self.script.length.min(self.said + piece);
        let samples = (self.said..end).map(|at| self.script.audio[at % self.script.audio.len()]);
        let audio = self.mouth.say(samples.collect());
        let delta = self.with("delta", STANDARD.encode(audio).into());
        wire.event("response.output_audio.delta", delta);
        self.said = end;
        self.pieces += 1;
        conversation.lengthen(&self.item, duration_of(self.said));
    }

    pub fn is_said(&self) -> bool {
        self.said == self.script.length
    }

    pub fn is_half_said(&self) -> bool {
        self.script.length <= 2 * self.said
    }

    /// Announces that nothing more of the response follows.
    pub fn finish(self, outcome: Outcome, conversation: &Conversation, wire: &mut Wire) {
        let status = match outcome {
            Outcome::Completed => "completed",
            Outcome::TurnDetected | Outcome::ClientCancelled | Outcome::Failed(_) => "incomplete",
        };
        let transcript = || Value::from(self.script.transcript.as_str());
        wire.event("response.output_audio.done", self.place());
        let words = self.with("transcript", transcript());
        wire.event("response.output_audio_transcript.done", words);
        let part = json!({ "type": "audio", "transcript": transcript() });
        wire.event("response.content_part.done", self.with("part", part));
        let mut item = self.item(status);
        let kind = match wire.dialect() {
            Dialect::OpenAi => "output_audio",
            Dialect::VoiceLive => "audio",
        };
        item["content"] = json!([{ "type": kind, "transcript": transcript() }]);
        let done = json!({ "response_id": self.response, "output_index": 0, "item": item });
        wire.event("response.output_item.done", done);
        conversation.finish(&item, wire);
        let usage = usage(self.script.heard, duration_of(self.said));
        done_with(&self.response, outcome, &json!([item]), &usage, wire);
    }

    /// Returns the name of what is being said.
    pub fn name(&self) -> &str {
        &self.item
    }

    /// Returns the fields that say where audio or its transcript belongs.
    fn place(&self) -> Value {
        json!({
            "response_id": self.response,
            "item_id": self.item,
            "output_index": 0,
            "content_index": 0,
        })
    }

    /// Returns [`Speech::place`] and one field more.
    pub fn with(&self, name: &str, value: Value) -> Value {
        let mut fields = self.place();
        fields[name] = value;
        fields
    }

    fn item(&self, status: &str) -> Value {
        json!({
            "id": self.item,
            "object": "realtime.item",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": [],
        })
    }
}

/// Announces the response `id`.
pub fn create(id: &str, wire: &mut Wire) {
    let mut response = response(id, "in_progress", wire);
    response["output"] = json!([]);
    wire.event("response.created", json!({ "response": response }));
    let limits = json!([
        { "name": "requests", "limit": 1_000, "remaining": 999, "reset_seconds": 0.06 },
        { "name": "tokens", "limit": 40_000, "remaining": 38_650, "reset_seconds": 2.02 },
    ]);
    wire.event("rate_limits.updated", json!({ "rate_limits": limits }));
}

/// Announces a response that fails before it says anything.
pub fn fail(code: &'static str, wire: &mut Wire) {
    let id = wire.id("resp");
    create(&id, wire);
    done_without_audio(&id, Outcome::Failed(code), &json!([]), wire);
}

/// Announces the end of a response that has said nothing.
pub fn done_without_audio(id: &str, outcome: Outcome, output: &Value, wire: &mut Wire) {
    let nothing = usage(Duration::ZERO, Duration::ZERO);
    done_with(id, outcome, output, &nothing, wire);
}

fn done_with(id: &str, outcome: Outcome, output: &Value, usage: &Value, wire: &mut Wire) {
    let (status, details) = match outcome {
        Outcome::Completed => ("completed", Value::Null),
        Outcome::TurnDetected => (
            "cancelled",
            json!({ "type": "cancelled", "reason": "turn_detected" }),
        ),
        Outcome::ClientCancelled => (
            "cancelled",
            json!({ "type": "cancelled", "reason": "client_cancelled" }),
        ),
        Outcome::Failed(code) => {
            let error = json!({
                "type": "invalid_request_error",
                "code": code,
                "message": "the parrot was told to fail; try again in 0.2s",
            });
            ("failed", json!({ "type": "failed", "error": error }))
        }
    };
    let mut response = response(id, status, wire);
    response["status_details"] = details;
    response["output"] = output.clone();
    response["usage"] = usage.clone();
    wire.event("response.done", json!({ "response": response }));
}

fn response(id: &str, status: &str, wire: &Wire) -> Value {
    let mut response = json!({
        "object": "realtime.response",
        "id": id,
        "status": status,
        "status_details": null,
        "conversation_id": wire.own_id("conv"),
    });
    match wire.dialect() {
        Dialect::OpenAi => response["output_modalities"] = json!(["audio"]),
        Dialect::VoiceLive => response["modalities"] = json!(["text", "audio"]),
    }
    response
}

/// Counts 10 tokens a second heard and 20 a second said, which is about what audio costs.
fn usage(heard: Duration, said: Duration) -> Value {
    let tokens = |audio: Duration, per_second: u128| {
        u64::try_from((audio.as_millis() * per_second).div_ceil(1_000)).unwrap_or(u64::MAX)
    };
    let (input, output) = (tokens(heard, 10), tokens(said, 20));
    let cached = json!({ "text_tokens": 0, "audio_tokens": 0, "image_tokens": 0 });
    json!({
        "total_tokens": input + output,
        "input_tokens": input,
        "output_tokens": output,
        "input_token_details": {
            "text_tokens": 0,
            "audio_tokens": input,
            "image_tokens": 0,
            "cached_tokens": 0,
            "cached_tokens_details": cached,
        },
        "output_token_details": { "text_tokens": 0, "audio_tokens": output },
    })
}
