//! How a session takes in what the caller says.

use std::{mem, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{Session, Turn};
use crate::agent::parrot::{
    client,
    edge::OddLength,
    hearing::{Heard, Utterance},
    speech::{self, Outcome},
    wire::Problem,
};

impl Session {
    /// Sends audio back as it came. Everything echoed is one endless response.
    pub(super) fn echo(&mut self, audio: &str) -> Result<(), Problem> {
        if !client::is_base64(audio) {
            return Err(Problem::invalid("audio", "not base64"));
        }
        self.open_echo();
        self.wire.echo(audio);
        Ok(())
    }

    pub(super) fn open_echo(&mut self) {
        if self.responses == 0 {
            self.responses = 1;
            let id = self.wire.own_id("resp");
            speech::create(&id, &mut self.wire);
        }
    }

    pub(super) fn hear(&mut self, at: Duration, audio: &str) -> Result<(), Problem> {
        let mut decoded = mem::take(&mut self.decoded);
        decoded.clear();
        STANDARD
            .decode_vec(audio, &mut decoded)
            .map_err(|error| Problem::invalid("audio", error.to_string()))?;
        let samples = self.ear.hear(&decoded);
        let samples =
            samples.map_err(|OddLength| Problem::invalid("audio", "ends within a sample"))?;
        for heard in self.hearing.hear(&samples) {
            match heard {
                Heard::SpeechStarted { from } => self.caller_starts(at, from),
                Heard::SpeechStopped { until, said } => self.caller_stops(at, until, said),
            }
        }
        decoded.clear();
        self.decoded = decoded;
        self.decoded.shrink_to(8 * 1024); // One long append does not stay.
        Ok(())
    }

    pub(super) fn caller_starts(&mut self, at: Duration, from: Duration) {
        let item = self.wire.id("item");
        let started = json!({ "audio_start_ms": millis(from), "item_id": item });
        self.wire
            .event("input_audio_buffer.speech_started", started);
        self.coming_item = Some(item);
        if self.detects(|detection| detection.auto_truncate) {
            self.truncate_by_clock(at);
        }
        if !self.detects(|detection| detection.interrupt_response) {
            return;
        }
        self.turn = match mem::replace(&mut self.turn, Turn::Idle) {
            Turn::Pausing(_) => Turn::Idle,
            Turn::Speaking(speech) => self.finish(at, speech, Outcome::TurnDetected),
            other @ (Turn::Idle
            | Turn::Flooding(_)
            | Turn::Swamping(..)
            | Turn::Dead
            | Turn::Closed) => other,
        };
    }

    /// Cuts the last answer as if it had been played from when it was sent. There is nothing to
    /// cut if it would be over.
    fn truncate_by_clock(&mut self, at: Duration) {
        if let Some((item, since)) = self.last_answer.take() {
            let heard = millis(at.saturating_sub(since));
            let _ = self.conversation.truncate(&item, heard, &mut self.wire);
        }
    }

    pub(super) fn caller_stops(&mut self, at: Duration, until: Duration, said: Utterance) {
        let stopped = json!({ "audio_end_ms": millis(until), "item_id": self.coming_item });
        self.wire
            .event("input_audio_buffer.speech_stopped", stopped);
        self.commit(said);
        if self.detects(|detection| detection.create_response) && matches!(self.turn, Turn::Idle) {
            self.turn = Turn::Pausing(at + self.manner.answer_after);
        }
    }

    pub(super) fn commit(&mut self, said: Utterance) {
        let coming = self.coming_item.take();
        let id = coming.unwrap_or_else(|| self.wire.id("item"));
        let committed = json!({ "item_id": id, "previous_item_id": self.conversation.last() });
        self.wire.event("input_audio_buffer.committed", committed);
        let item = json!({
            "id": id,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{ "type": "input_audio", "transcript": null }],
        });
        self.conversation.add(&item, &mut self.wire);
        self.conversation.finish(&item, &mut self.wire);
        if !self.transcription.is_null() {
            let transcript = json!({
                "item_id": id,
                "content_index": 0,
                "transcript": format!("(parrot) {:.1} s of speech", said.spoke.as_secs_f32()),
                "usage": { "type": "duration", "seconds": said.spoke.as_secs_f64() },
            });
            let kind = "conversation.item.input_audio_transcription.completed";
            self.wire.event(kind, transcript);
        }
        self.unanswered = Some(said);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
