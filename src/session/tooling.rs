//! The tools that the agent uses: how many at once, and when it is to go on with their results.

use std::{fmt, time::Duration};

use crate::call::EndReason;

/// How many uses one answer may ask for.
const MOST_PER_ANSWER: usize = 4;
/// How many may be under way at once.
const MOST_AT_ONCE: usize = 4;
/// How many a call may see. Beyond that the agent is told so once, and nothing afterwards.
const MOST_PER_CALL: usize = 64;
/// How long an agent that wants the call to end may go on speaking.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(8);

/// The agent wants to use a tool.
#[derive(Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The agent's name for this use.
    pub id: String,
    /// What it calls the tool.
    pub tool: String,
    /// JSON, if it is any; `None` where it is longer than anybody reads.
    pub arguments: Option<String>,
}

/// What the agent is told of a use: JSON, or words that it can act on.
#[derive(Clone, PartialEq, Eq)]
pub struct ToolResult {
    pub id: String,
    pub text: String,
}

/// What becomes of a wish to use a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Granted,
    /// There are too many.
    Refused,
    /// It was heard before, or the agent has been told often enough.
    Ignored,
}

/// The tools that the agent uses in one call.
#[derive(Debug, Default)]
pub struct Tooling {
    under_way: Vec<String>,
    /// Every use that was granted or refused.
    known: Vec<String>,
    in_answer: usize,
    /// Results that the agent has been told, and has not been asked to go on with.
    has_news: bool,
    leaving: Option<Leaving>,
}

/// The call ends once the caller has heard what the agent was saying.
#[derive(Debug, Clone, Copy)]
pub struct Leaving {
    pub until: Duration,
    pub reason: EndReason,
}

impl Tooling {
    /// An answer has begun: it has the results that the agent has been told.
    pub fn answer_begins(&mut self) {
        self.in_answer = 0;
        self.has_news = false;
    }

    pub fn wish(&mut self, id: &str) -> Wish {
        let told_enough = self.known.len() > MOST_PER_CALL;
        if told_enough || self.leaving.is_some() || self.known.iter().any(|known| known == id) {
            return Wish::Ignored;
        }
        self.known.push(id.to_owned());
        self.under_way.push(id.to_owned());
        self.in_answer += 1;
        let too_many = self.in_answer > MOST_PER_ANSWER
            || self.under_way.len() > MOST_AT_ONCE
            || self.known.len() > MOST_PER_CALL;
        if too_many {
            Wish::Refused
        } else {
            Wish::Granted
        }
    }

    /// A use is over; tells whether the agent waits for its result.
    pub fn is_answered(&mut self, id: &str) -> bool {
        let place = self.under_way.iter().position(|known| known == id);
        if let Some(place) = place {
            self.under_way.swap_remove(place);
            self.has_news = true;
        }
        place.is_some()
    }

    /// Tells whether the agent waits for a tool.
    pub fn is_busy(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Tells whether the agent should be asked to go on: once for all results.
    pub fn has_news(&self) -> bool {
        self.has_news && !self.is_busy() && self.leaving.is_none()
    }

    /// The agent has been asked to go on.
    pub fn told_news(&mut self) {
        self.has_news = false;
    }

    pub fn leave(&mut self, at: Duration, reason: EndReason) {
        self.leaving.get_or_insert(Leaving {
            until: at + LEAVE_WITHIN,
            reason,
        });
    }

    pub fn leaving(&self) -> Option<Leaving> {
        self.leaving
    }
}

/// What a tool is told and says is private: no word of it in a log line.
impl fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.arguments.as_ref().map(String::len);
        write!(f, "ToolCall({length:?} bytes)")
    }
}

impl fmt::Debug for ToolResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ToolResult({} bytes)", self.text.len())
    }
}
