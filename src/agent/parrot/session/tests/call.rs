//! A session and its client, in time that only passes as told.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::super::{Input, LONGEST_SESSION, Manner, Session};
use crate::{
    agent::{
        Dialect,
        parrot::{Fault, hearing::level_db, voice, wire::Output},
    },
    chunk::{Chunk, Encoding, SILENT_SAMPLE, duration_of, samples_in},
};

pub const UPDATE: &str = r#"{"type":"session.update","session":{"type":"realtime","audio":{
    "input":{"format":{"type":"audio/pcmu"},"transcription":{"model":"gpt-transcribe"}},
    "output":{"format":{"type":"audio/pcmu"},"voice":"cedar"}}}}"#;

pub const FLAT_UPDATE: &str = r#"{"type":"session.update","session":{
    "modalities":["text","audio"],"voice":{"type":"azure-standard","name":"he-IL-HilaNeural"},
    "input_audio_format":"g711_ulaw","input_audio_sampling_rate":8000,
    "output_audio_format":"g711_ulaw","input_audio_transcription":{"model":"azure-speech"},
    "turn_detection":{"type":"azure_semantic_vad","speech_duration_ms":80}}}"#;

/// A session and its client.
pub struct Call {
    pub session: Session,
    pub now: Duration,
    /// When the last audio was sent.
    pub heard_at: Duration,
    pub sent: Vec<Value>,
}

impl Call {
    pub fn new(fault: Option<Fault>) -> Self {
        Self::with(manner(fault))
    }

    pub fn with(manner: Manner) -> Self {
        Self::of(manner, Dialect::OpenAi)
    }

    /// A client that speaks as Voice Live's do, on the telephone.
    pub fn flat(fault: Option<Fault>) -> Self {
        let mut call = Self::of(manner(fault), Dialect::VoiceLive);
        call.say(FLAT_UPDATE);
        call.sent.clear();
        call
    }

    pub fn of(manner: Manner, dialect: Dialect) -> Self {
        let mut call = Self {
            session: Session::new(manner, dialect, "t".to_owned(), 3_600),
            now: Duration::ZERO,
            heard_at: Duration::ZERO,
            sent: Vec::new(),
        };
        call.put(Input::Opened);
        call
    }

    pub fn updated(fault: Option<Fault>) -> Self {
        let mut call = Self::new(fault);
        call.say(UPDATE);
        call.sent.clear();
        call
    }

    pub fn put(&mut self, input: Input<'_>) {
        for output in self.session.handle(self.now, input) {
            self.sent.push(match output {
                Output::Text(text) => serde_json::from_str::<Value>(&text)
                    .ok()
                    .filter(Value::is_object)
                    .unwrap_or_else(|| json!({ "type": "broken" })),
                Output::Binary(_) => json!({ "type": "binary" }),
                Output::Fragment { .. } => json!({ "type": "fragment" }),
                Output::Close { code, .. } => json!({ "type": format!("close {code}") }),
            });
        }
    }

    pub fn say(&mut self, message: &str) {
        self.put(Input::Message(message));
    }

    /// Sends audio in frames, in real time.
    pub fn hear(&mut self, samples: &[u8]) {
        for frame in samples.chunks(160) {
            self.say(&append(frame));
            self.heard_at = self.now;
            self.now += duration_of(frame.len());
        }
    }

    /// Lets the time pass until the session is due.
    pub fn tick(&mut self) {
        self.now = self.now.max(self.session.deadline());
        self.put(Input::Tick);
    }

    /// Ticks until nothing is left to do.
    pub fn run(&mut self) {
        while self.session.deadline() < LONGEST_SESSION {
            self.tick();
        }
    }

    /// Returns the types of the events sent, one a line.
    pub fn kinds(&self) -> String {
        let kinds = self.sent.iter().map(|event| event["type"].as_str());
        let kinds: Vec<&str> = kinds.map(|kind| kind.unwrap_or("broken")).collect();
        let runs = kinds.chunk_by(|one, next| one == next);
        let lines = runs.map(|run| match run.len() {
            1 => run[0].to_owned(),
            count => format!("{} x{count}", run[0]),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Returns the code of the last event, an error.
    pub fn code(&self) -> &str {
        let last = self.sent.last().unwrap();
        last["error"]["code"].as_str().unwrap()
    }

    pub fn audio(&self) -> Vec<u8> {
        let deltas = self.sent.iter().filter_map(|event| event["delta"].as_str());
        let audio = deltas.filter(|delta| !delta.starts_with('('));
        audio
            .flat_map(|delta| STANDARD.decode(delta).unwrap())
            .collect()
    }
}

pub fn manner(fault: Option<Fault>) -> Manner {
    Manner {
        answer_after: Duration::from_millis(500),
        delay: Duration::ZERO,
        echo: false,
        fault,
        tool_calls: Vec::new(),
        tune: voice::tune(),
    }
}

pub fn append(samples: &[u8]) -> String {
    let audio = Chunk::encode(samples, Encoding::Mulaw);
    let audio = std::str::from_utf8(audio.text()).unwrap();
    format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}"#)
}

/// Something as loud as speech.
pub fn speech(ms: u32) -> Vec<u8> {
    let length = samples_in(Duration::from_millis(ms.into()));
    let wave = voice::times().take(length);
    let wave: Vec<f32> = wave.map(|time| (1_400.0 * time).sin()).collect();
    let speech = voice::at_level(&wave, 0.1);
    assert!((level_db(&speech) + 20.0).abs() < 1.0);
    speech.into()
}

pub fn silence(ms: u32) -> Vec<u8> {
    vec![SILENT_SAMPLE; samples_in(Duration::from_millis(ms.into()))]
}
