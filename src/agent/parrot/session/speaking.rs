//! How a session answers, and how it fails to.

use std::time::Duration;

use bytes::Bytes;

use super::{Session, Turn};
use crate::{
    agent::parrot::{
        faults::{self, Fault},
        speech::{self, Outcome, PACE, Script, Speech},
        wire::{Output, Part, Problem, audio_delta},
    },
    chunk::{duration_of, samples_in},
};

/// What a huge message is cut into.
const FRAGMENT: usize = 64 * 1024;
static FRAGMENT_TEXT: [u8; FRAGMENT] = [b'/'; FRAGMENT];

impl Session {
    pub(super) fn create_response(&mut self, at: Duration) -> Result<(), Problem> {
        match self.turn {
            Turn::Idle | Turn::Pausing(_) => {}
            Turn::Speaking(_)
            | Turn::Flooding(_)
            | Turn::Swamping(..)
            | Turn::Dead
            | Turn::Closed => {
                let message = "Conversation already has an active response in progress";
                let code = "conversation_already_has_active_response";
                return Err(Problem::new(code, message));
            }
        }
        if self.manner.echo {
            self.open_echo();
        } else {
            self.turn = self.respond(at);
        }
        Ok(())
    }

    /// Uses the tool that the caller has chosen, or begins to say back what was heard, or to greet
    /// if there was nothing.
    pub(super) fn respond(&mut self, at: Duration) -> Turn {
        let (conversation, wire) = (&mut self.conversation, &mut self.wire);
        let requests = &self.manner.tool_calls;
        if self.tools.use_chosen(requests, conversation, wire) {
            return Turn::Idle;
        }
        let mut script = match self.unanswered.take() {
            Some(said) => Script {
                length: said.samples.len(),
                heard: duration_of(said.samples.len()),
                transcript: format!("(parrot) you spoke for {:.1} s", said.spoke.as_secs_f32()),
                audio: said.samples,
            },
            None => Script {
                audio: self.manner.tune.clone(),
                length: self.manner.tune.len(),
                transcript: "(parrot) a short tune".to_owned(),
                heard: Duration::ZERO,
            },
        };
        self.responses += 1;
        let fault = self.manner.fault;
        let once = fault.filter(|_| self.responses == 1);
        let code = if fault == Some(Fault::FailedResponse) {
            Some("insufficient_quota")
        } else if once == Some(Fault::RateLimitedResponse) {
            Some("rate_limit_exceeded")
        } else {
            None
        };
        if let Some(code) = code {
            speech::fail(code, &mut self.wire);
            return Turn::Idle;
        }
        if once == Some(Fault::Garbage) {
            self.garbage = Some((at, 0));
        }
        if once == Some(Fault::Flood) {
            script.length = samples_in(faults::FLOOD);
        }
        let (conversation, wire) = (&mut self.conversation, &mut self.wire);
        let mut speech = Speech::begin(script, self.output, at, conversation, wire);
        self.last_answer = Some((speech.name().to_owned(), at));
        if once == Some(Fault::Flood) {
            return Turn::Flooding(speech);
        }
        if once == Some(Fault::HugeMessage) {
            return self.begin_to_swamp(speech);
        }
        speech.say(&mut self.conversation, &mut self.wire);
        speech.due = at + PACE;
        Turn::Speaking(speech)
    }

    pub(super) fn speak(&mut self, at: Duration, mut speech: Speech) -> Turn {
        if speech.is_said() {
            return self.finish(at, speech, Outcome::Completed);
        }
        speech.say(&mut self.conversation, &mut self.wire);
        speech.due = if speech.is_said() { at } else { at + PACE };
        if speech.is_half_said() && self.manner.fault == Some(Fault::CloseMidCall) {
            self.close(1011, "the parrot was told to fail");
            return Turn::Closed;
        }
        if speech.is_half_said() && self.manner.fault == Some(Fault::Stall) {
            return Turn::Dead;
        }
        Turn::Speaking(speech)
    }

    pub(super) fn finish(&mut self, at: Duration, speech: Speech, outcome: Outcome) -> Turn {
        speech.finish(outcome, &self.conversation, &mut self.wire);
        if self.manner.fault == Some(Fault::Expired) {
            self.expire();
            return Turn::Closed;
        }
        // What was said meanwhile, if it did not interrupt.
        let creates = self.detects(|detection| detection.create_response);
        if outcome == Outcome::Completed && creates && self.unanswered.is_some() {
            return Turn::Pausing(at + self.manner.answer_after);
        }
        Turn::Idle
    }

    pub(super) fn begin_to_swamp(&mut self, speech: Speech) -> Turn {
        let kind = audio_delta(self.wire.dialect());
        let text = format!(
            r#"{{"type":"{kind}","event_id":"event_huge","response_id":"resp_huge","item_id":"item_huge","output_index":0,"content_index":0,"delta":""#
        );
        self.wire.put(Output::Fragment {
            text: text.into(),
            part: Part::First,
        });
        Turn::Swamping(speech, faults::HUGE_TEXT)
    }

    pub(super) fn swamp(&mut self, at: Duration, speech: Speech, left: usize) -> Turn {
        let (text, part): (&[u8], _) = match left {
            0 => (b"\"}", Part::Last),
            left => (&FRAGMENT_TEXT[..left.min(FRAGMENT)], Part::Middle),
        };
        let sent = text.len();
        let text = Bytes::from_static(text);
        self.wire.put(Output::Fragment { text, part });
        match part {
            Part::Last => self.finish(at, speech, Outcome::Completed),
            Part::First | Part::Middle => Turn::Swamping(speech, left - sent),
        }
    }
}
