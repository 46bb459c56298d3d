//! One session of the parrot, without IO: what comes in, with the time since it began, decides
//! what goes out.
//!
//! Invariant: what a session remembers is bounded, whatever a client sends.

mod listening;
mod settings;
mod speaking;

use std::{mem, time::Duration, vec};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    client::{self, ClientEvent},
    conversation::Conversation,
    detection::TurnDetection,
    edge::Ear,
    faults::{self, Fault},
    hearing::{Hearing, Utterance},
    speech::{Outcome, Speech},
    tools::{ToolRequest, Tools},
    wire::{Output, Problem, Wire},
};
use crate::{agent::Dialect, chunk::Encoding};

/// How long the vendor lets a session last.
pub const LONGEST_SESSION: Duration = Duration::from_hours(1);

/// How a parrot behaves.
#[derive(Debug, Clone)]
pub struct Manner {
    pub answer_after: Duration,
    pub delay: Duration,
    pub echo: bool,
    pub fault: Option<Fault>,
    /// What is used when the caller presses a key: the first one by 1.
    pub tool_calls: Vec<ToolRequest>,
    /// What it greets with, in mu-law.
    pub tune: Bytes,
}

/// What happens to a session.
#[derive(Debug, Clone)]
pub enum Input<'a> {
    Opened,
    Message(&'a str),
    BinaryMessage,
    Tick,
}

#[derive(Debug)]
pub struct Session {
    manner: Manner,
    /// In Unix seconds.
    expires_at: u64,
    input: Encoding,
    output: Encoding,
    transcription: Value,
    voice: Value,
    instructions: Value,
    /// What the client offers.
    offered: Value,
    tools: Tools,
    ear: Ear,
    hearing: Hearing,
    conversation: Conversation,
    turn: Turn,
    /// What the caller said and nobody answered yet.
    unanswered: Option<Utterance>,
    /// The last answer, and when its first audio was sent.
    last_answer: Option<(String, Duration)>,
    /// What the caller is saying is going to be this item.
    coming_item: Option<String>,
    /// When the last `session.update` is acknowledged.
    settles: Option<Duration>,
    /// When the next garbage follows, and which.
    garbage: Option<(Duration, usize)>,
    responses: usize,
    wire: Wire,
    decoded: Vec<u8>,
}

#[derive(Debug)]
enum Turn {
    Idle,
    /// Answers when this time comes.
    Pausing(Duration),
    Speaking(Speech),
    /// Says more than anyone should and hears nothing meanwhile.
    Flooding(Speech),
    /// Sends so much more base64 text in one message.
    Swamping(Speech, usize),
    /// Neither hears nor speaks any more, though the socket is open.
    Dead,
    Closed,
}

impl Session {
    /// A session whose identifiers contain `tag` and which ends at `expires_at` in Unix seconds.
    pub fn new(manner: Manner, dialect: Dialect, tag: String, expires_at: u64) -> Self {
        Self {
            manner,
            expires_at,
            input: Encoding::Pcm24k,
            output: Encoding::Pcm24k,
            transcription: Value::Null,
            voice: match dialect {
                Dialect::OpenAi => "marin".into(),
                Dialect::VoiceLive => json!({ "type": "openai", "name": "marin" }),
            },
            instructions: "".into(),
            offered: json!([]),
            tools: Tools::default(),
            ear: Ear::of(Encoding::Pcm24k),
            hearing: Hearing::new(),
            conversation: Conversation::default(),
            turn: Turn::Idle,
            unanswered: None,
            last_answer: None,
            coming_item: None,
            settles: None,
            garbage: None,
            responses: 0,
            wire: Wire::new(dialect, tag),
            decoded: Vec::new(),
        }
    }

    /// Decides what follows from `input` at the time `at` since the session began.
    pub fn handle(&mut self, at: Duration, input: Input<'_>) -> vec::Drain<'_, Output> {
        match (&self.turn, input) {
            (Turn::Closed, _) => {}
            (_, Input::Opened) => self.open(),
            (_, Input::Tick) => self.tick(at),
            (Turn::Flooding(_) | Turn::Swamping(..) | Turn::Dead, _) => {}
            (Turn::Idle | Turn::Pausing(_) | Turn::Speaking(_), Input::Message(text)) => {
                let (about, event) = client::parse(text, self.wire.dialect());
                if let Err(problem) = event.and_then(|event| self.obey(at, event)) {
                    self.wire.error(&problem, about.as_deref());
                }
            }
            (Turn::Idle | Turn::Pausing(_) | Turn::Speaking(_), Input::BinaryMessage) => {
                let problem = Problem::new("invalid_event", "events are text messages");
                self.wire.error(&problem, None);
            }
        }
        self.wire.drain()
    }

    /// Returns when the session wants its next tick.
    pub fn deadline(&self) -> Duration {
        let turn = match &self.turn {
            Turn::Idle | Turn::Dead | Turn::Closed => None,
            Turn::Pausing(due) => Some(*due),
            Turn::Speaking(speech) | Turn::Flooding(speech) | Turn::Swamping(speech, _) => {
                Some(speech.due)
            }
        };
        let garbage = self.garbage.map(|(due, _)| due);
        let dues = [turn, self.settles, garbage].into_iter().flatten();
        dues.fold(LONGEST_SESSION, Duration::min)
    }

    fn open(&mut self) {
        if self.manner.fault == Some(Fault::HangSession) {
            self.turn = Turn::Dead;
        } else {
            let session = self.description();
            let created = json!({ "session": session });
            self.wire.event("session.created", created);
        }
    }

    fn tick(&mut self, at: Duration) {
        if LONGEST_SESSION <= at {
            return self.expire();
        }
        if self.settles.is_some_and(|due| due <= at) {
            self.settle();
        }
        if let Some((due, turn)) = self.garbage
            && due <= at
        {
            let garbage = faults::garbage(turn, self.wire.dialect());
            self.wire.put(garbage);
            self.garbage = Some((at + faults::GARBAGE_EVERY, turn.wrapping_add(1)));
        }
        self.turn = match mem::replace(&mut self.turn, Turn::Dead) {
            Turn::Pausing(due) if due <= at => self.respond(at),
            Turn::Speaking(speech) if speech.due <= at => self.speak(at, speech),
            Turn::Flooding(mut speech) => {
                speech.say(&mut self.conversation, &mut self.wire);
                if speech.is_said() {
                    self.finish(at, speech, Outcome::Completed)
                } else {
                    Turn::Flooding(speech)
                }
            }
            Turn::Swamping(speech, left) => self.swamp(at, speech, left),
            other @ (Turn::Idle
            | Turn::Pausing(_)
            | Turn::Speaking(_)
            | Turn::Dead
            | Turn::Closed) => other,
        };
    }

    fn obey(&mut self, at: Duration, event: ClientEvent<'_>) -> Result<(), Problem> {
        let Self {
            conversation, wire, ..
        } = self;
        match event {
            ClientEvent::UpdateSession(change) => {
                self.update(at, *change);
                Ok(())
            }
            ClientEvent::Append(audio) if self.manner.echo => self.echo(&audio),
            ClientEvent::Append(audio) => self.hear(at, &audio),
            ClientEvent::Commit => {
                let said = self.hearing.commit().ok_or_else(|| {
                    let message = "the buffer holds less than 100ms of audio";
                    Problem::new("input_audio_buffer_commit_empty", message)
                })?;
                self.commit(said);
                Ok(())
            }
            ClientEvent::Clear => {
                self.hearing.clear();
                self.coming_item = None;
                self.wire.event("input_audio_buffer.cleared", json!({}));
                Ok(())
            }
            ClientEvent::CreateItem(item) => {
                self.tools.notice(&item)?;
                conversation.create(item, wire)
            }
            ClientEvent::TruncateItem(cut) if cut.content_index != 0 => Err(Problem::invalid(
                "content_index",
                "an item has one part only",
            )),
            ClientEvent::TruncateItem(cut) => {
                conversation.truncate(&cut.item_id, cut.audio_end_ms, wire)
            }
            ClientEvent::DeleteItem(id) => conversation.delete(&id, wire),
            ClientEvent::CreateResponse => self.create_response(at),
            ClientEvent::CancelResponse => match mem::replace(&mut self.turn, Turn::Idle) {
                Turn::Speaking(speech) => {
                    self.turn = self.finish(at, speech, Outcome::ClientCancelled);
                    Ok(())
                }
                other @ (Turn::Idle
                | Turn::Pausing(_)
                | Turn::Flooding(_)
                | Turn::Swamping(..)
                | Turn::Dead
                | Turn::Closed) => {
                    self.turn = other;
                    let message = "Cancellation failed: no active response found";
                    Err(Problem::new("response_cancel_not_active", message))
                }
            },
        }
    }

    fn expire(&mut self) {
        let message = "Your session hit the maximum duration of 60 minutes.";
        self.wire
            .error(&Problem::new("session_expired", message), None);
        self.close(1001, message);
    }

    fn close(&mut self, code: u16, reason: &'static str) {
        self.wire.close(code, reason);
        self.turn = Turn::Closed;
    }

    fn detects(&self, ask: impl Fn(&TurnDetection) -> bool) -> bool {
        self.hearing.detection().is_some_and(ask)
    }
}

#[cfg(test)]
mod tests;
