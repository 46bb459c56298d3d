//! How long each part of a turn has taken: the caller's words, the agent's answer, its way through
//! here, and its way to the caller's ear.

use std::time::Duration;

use crate::session::{
    Output,
    playback::{ItemId, Playback},
};

/// One turn, in parts that follow each other; what did not happen is not there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// How long the caller spoke, as the agent heard it; nothing of a greeting.
    pub spoke: Option<Duration>,
    /// From then until the agent's first audio.
    pub answer: Option<Duration>,
    /// From then until the carrier was given the first of it.
    pub sent: Option<Duration>,
    /// From then until the caller heard the first of it, as exactly as the carrier tells.
    pub played: Option<Duration>,
    /// Whether the caller spoke over it before.
    pub interrupted: bool,
}

/// The turn that is under way.
#[derive(Debug, Default)]
pub struct Turns {
    /// Since when the caller speaks.
    speaks_since: Option<Duration>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    turn: Turn,
    /// When its last part has ended.
    since: Duration,
    /// The first audio of the answer.
    item: Option<ItemId>,
}

impl Turns {
    /// Notes that the agent hears the caller speak: over its answer, if that was not heard yet.
    pub fn caller_speaks(&mut self, at: Duration, out: &mut Vec<Output>) {
        self.speaks_since.get_or_insert(at);
        if let Some(mut open) = self.open.take_if(|open| open.item.is_some()) {
            open.turn.interrupted = true;
            out.push(Output::Turn(open.turn));
        }
    }

    /// Notes that the agent takes the caller's words for a turn.
    pub fn caller_stops(&mut self, at: Duration, out: &mut Vec<Output>) {
        self.close(out);
        let spoke = self.speaks_since.take();
        let spoke = spoke.map(|since| at.saturating_sub(since));
        self.begin(at, spoke);
    }

    /// Notes that the agent is to speak without the caller's words: a greeting, or what follows a
    /// key or a tool.
    pub fn is_owed(&mut self, at: Duration) {
        if self.open.is_none() {
            self.begin(at, None);
        }
    }

    /// Notes the agent's audio.
    pub fn agent_speaks(&mut self, at: Duration, item: &ItemId) {
        if let Some(open) = self.open.as_mut().filter(|open| open.item.is_none()) {
            open.turn.answer = Some(at.saturating_sub(open.since));
            open.since = at;
            open.item = Some(item.detached());
        }
    }

    /// Looks how far the answer has come; says so once the caller hears it.
    pub fn follow(&mut self, at: Duration, playback: &mut Playback, out: &mut Vec<Output>) {
        let Some(open) = &mut self.open else { return };
        let Some(item) = &open.item else { return };
        let (is_sent, is_heard) = playback.reached(at, item);
        if is_sent && open.turn.sent.is_none() {
            open.turn.sent = Some(at.saturating_sub(open.since));
            open.since = at;
        }
        if is_heard {
            open.turn.played = Some(at.saturating_sub(open.since));
            self.close(out);
        }
    }

    /// Says what is known of the turn that is under way, if the agent has spoken or the caller has.
    pub fn close(&mut self, out: &mut Vec<Output>) {
        let told = self.open.take().map(|open| open.turn);
        out.extend(told.filter(|it| *it != Turn::default()).map(Output::Turn));
    }

    fn begin(&mut self, at: Duration, spoke: Option<Duration>) {
        self.open = Some(Open {
            turn: Turn {
                spoke,
                ..Turn::default()
            },
            since: at,
            item: None,
        });
    }
}
