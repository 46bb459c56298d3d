//! What a session is like: as the client asks, and as it is told.

use std::time::Duration;

use serde_json::{Value, json};

use super::Session;
use crate::{
    agent::{
        Dialect,
        parrot::{
            client::{Change, Turns},
            detection::TurnDetection,
            edge::Ear,
            faults::Fault,
        },
    },
    chunk::Encoding,
};

impl Session {
    pub(super) fn update(&mut self, at: Duration, change: Change) {
        if self.settles.is_some() {
            self.settle(); // An update that comes before the last one is acknowledged.
        }
        let taken = |asked: Encoding| match (self.manner.fault, asked) {
            (Some(Fault::WrongFormat), Encoding::Mulaw) => Encoding::Pcm24k,
            (Some(Fault::WrongFormat), Encoding::Pcm16k | Encoding::Pcm24k) => Encoding::Mulaw,
            (_, asked) => asked,
        };
        if let Some(input) = change.input.map(taken)
            && input != self.input
        {
            self.input = input;
            self.ear = Ear::of(input);
        }
        self.output = change.output.map_or(self.output, taken);
        match change.turns {
            None => {}
            Some(Turns::Committed) => self.hearing.set_detection(None),
            Some(Turns::Detected(detection)) => self.hearing.set_detection(Some(detection)),
        }
        let replace = |place: &mut Value, value: Option<Value>| {
            if let Some(value) = value {
                *place = value;
            }
        };
        replace(&mut self.transcription, change.transcription);
        replace(&mut self.voice, change.voice);
        replace(&mut self.instructions, change.instructions);
        replace(&mut self.offered, change.tools);
        if self.manner.delay.is_zero() {
            self.settle();
        } else {
            self.settles = Some(at + self.manner.delay);
        }
    }

    pub(super) fn settle(&mut self) {
        self.settles = None;
        let updated = json!({ "session": self.description() });
        self.wire.event("session.updated", updated);
        if self.manner.fault == Some(Fault::EarlyClose) {
            self.close(1000, "");
        }
    }

    pub(super) fn description(&self) -> Value {
        let dialect = self.wire.dialect();
        let detection = self.hearing.detection();
        let detection = detection.map(|detection| TurnDetection::describe(detection, dialect));
        match dialect {
            Dialect::OpenAi => json!({
                "type": "realtime",
                "object": "realtime.session",
                "id": self.wire.own_id("sess"),
                "model": "parrot",
                "expires_at": self.expires_at,
                "output_modalities": ["audio"],
                "instructions": self.instructions,
                "tools": self.offered,
                "tool_choice": "auto",
                "audio": {
                    "input": {
                        "format": format(self.input),
                        "transcription": self.transcription,
                        "turn_detection": detection,
                    },
                    "output": { "format": format(self.output), "voice": self.voice },
                },
            }),
            Dialect::VoiceLive => json!({
                "id": self.wire.own_id("sess"),
                "model": "parrot",
                "expires_at": self.expires_at,
                "modalities": ["text", "audio"],
                "instructions": self.instructions,
                "tools": self.offered,
                "tool_choice": "auto",
                "voice": self.voice,
                "input_audio_format": match self.input {
                    Encoding::Mulaw => "g711_ulaw",
                    Encoding::Pcm16k | Encoding::Pcm24k => "pcm16",
                },
                "input_audio_sampling_rate": self.input.rate(),
                "output_audio_format": match self.output {
                    Encoding::Mulaw => "g711_ulaw",
                    Encoding::Pcm16k => "pcm16_16000hz",
                    Encoding::Pcm24k => "pcm16",
                },
                "input_audio_transcription": self.transcription,
                "turn_detection": detection,
            }),
        }
    }
}

/// Describes audio as OpenAI does.
fn format(encoding: Encoding) -> Value {
    match encoding {
        Encoding::Mulaw => json!({ "type": "audio/pcmu" }),
        Encoding::Pcm16k | Encoding::Pcm24k => {
            json!({ "type": "audio/pcm", "rate": encoding.rate() })
        }
    }
}
