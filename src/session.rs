//! The call without IO: what it does next, from what has happened. Time goes in as the time
//! since the media began.
//!
//! Invariant: a call ends exactly once, and is silent afterwards.
//! Invariant: what the caller says reaches the agent in order, also what came before the agent.
//! Invariant: nothing is truncated beyond what the caller has heard.
//! Invariant: nobody asks for an answer while one is on its way.

mod hearing;
mod playback;
mod tooling;
mod turns;

use std::{collections::VecDeque, time::Duration, vec};

use crate::{
    call::EndReason,
    chunk::{Chunk, Encoding},
    session::{
        hearing::Hearing,
        playback::Playback,
        tooling::{Tooling, Wish},
        turns::Turns,
    },
};

pub use playback::{Follows, Interrupted, ItemId, Mark};
pub use tooling::{ToolCall, ToolResult};
pub use turns::Turn;

/// How long the caller waits for the agent before hearing an apology.
pub const AGENT_PATIENCE: Duration = Duration::from_secs(3);
/// How long an agent that owes an answer may send nothing at all.
const ANSWER_PATIENCE: Duration = Duration::from_secs(8);
/// How long a media socket may bring no audio.
const MEDIA_PATIENCE: Duration = Duration::from_secs(10);
/// How much of the caller's words waits for the agent; the oldest are dropped beyond it.
const MOST_HELD: Duration = Duration::from_secs(5);
/// How often an answer that failed for the moment is asked for again.
const MOST_RETRIES: u32 = 2;

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The caller's audio, with its place in the carrier's stream.
    CallerAudio {
        chunk: Chunk,
        starts_at: Duration,
    },
    CallerPressed(char),
    /// The carrier has played everything before the mark.
    CallerHeard(Mark),
    CallerHungUp,
    AgentReady,
    AgentAudio {
        item: ItemId,
        chunk: Chunk,
    },
    /// The agent has sent all audio of an item.
    AgentFinished(ItemId),
    /// The agent hears the caller speak.
    AgentInterrupted,
    /// The agent took the caller's words for a turn and will answer.
    AgentWillAnswer,
    /// An answer has begun.
    AgentAnswering,
    AgentAnswered(Answered),
    /// Words of either side, as the agent understood them.
    Said {
        who: Speaker,
        text: String,
    },
    /// Any other sign of life from the agent.
    AgentAlive,
    /// The agent wants to use a tool.
    ToolCalled(ToolCall),
    /// A tool that the agent uses is done, or will not be used.
    ToolAnswered(ToolResult),
    /// Tones for the other end of the line.
    ToneReady(Chunk),
    /// The call is to end once the caller has heard what the agent was saying.
    Leave(EndReason),
    /// The call must end, for a reason found outside.
    End(EndReason),
    Tick,
}

/// How an answer of the agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    Fully,
    /// The caller interrupted it.
    Cancelled,
    /// It was cut at its longest; the agent can go on.
    CutShort,
    /// It was withheld.
    Withheld,
    /// It failed for the moment; it may work again after the wait.
    TryAgain(Duration),
    /// It failed, and so would the next.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    Caller,
    Agent,
}

impl Speaker {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Agent => "agent",
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    SendToAgent(Chunk),
    /// Ask the agent for its first words.
    Greet,
    /// Ask the agent for an answer.
    Answer,
    TellAgentPressed(char),
    /// Tell the agent how much of what it said was heard.
    Truncate(Interrupted),
    PlayToCaller(Chunk),
    MarkPlayback(Mark),
    ClearPlayback,
    UseTool(ToolCall),
    /// Too many are in use, or have been.
    RefuseTool(ToolCall),
    TellAgentResult(ToolResult),
    Said {
        who: Speaker,
        text: String,
    },
    /// The agent's first audio of the call goes out.
    FirstWords,
    /// The caller hears the agent's answer, or will not.
    Turn(Turn),
    /// The caller's audio had a hole, filled with this much silence.
    Filled(Duration),
    End(EndReason),
}

/// What a call is like, and what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How the carrier's audio is encoded.
    pub encoding: Encoding,
    pub follows: Follows,
    pub greets: bool,
    pub longest_call: Duration,
}

/// One call's state.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    patient_until: Duration,
    state: State,
    hearing: Hearing,
    playback: Playback,
    /// Between the beginning and the end of an answer.
    answering: bool,
    /// Audio of an interrupted answer may still be under way: it is dropped until the next one.
    muted: bool,
    /// Since when the agent has owed an answer and sent nothing.
    owing_since: Option<Duration>,
    /// Until when the next answer is taken to be on its way: the caller speaks, or it was asked for.
    expected_until: Duration,
    tooling: Tooling,
    turns: Turns,
    retries: u32,
    retry_at: Option<Duration>,
    spoken: bool,
    outputs: Vec<Output>,
}

#[derive(Debug)]
enum State {
    /// The agent is not there yet; the caller's words wait.
    Connecting {
        held: VecDeque<Chunk>,
        held_for: Duration,
    },
    Talking,
    Ended,
}

impl Session {
    /// Begins a call `at` this time, from which on the caller waits for the agent.
    pub fn new(at: Duration, terms: Terms) -> Self {
        Self {
            terms,
            patient_until: at + AGENT_PATIENCE,
            state: State::Connecting {
                held: VecDeque::new(),
                held_for: Duration::ZERO,
            },
            hearing: Hearing::from(at),
            playback: Playback::new(terms.follows),
            answering: false,
            muted: false,
            owing_since: None,
            expected_until: Duration::ZERO,
            tooling: Tooling::default(),
            turns: Turns::default(),
            retries: 0,
            retry_at: None,
            spoken: false,
            outputs: Vec::new(),
        }
    }

    /// Takes what happened `at` this time; returns what is to be done, in order. Drain it before
    /// the next input.
    pub fn handle(&mut self, at: Duration, input: Input) -> vec::Drain<'_, Output> {
        if !matches!(self.state, State::Ended) {
            self.take(at, input);
            self.go_on(at);
        }
        self.outputs.drain(..)
    }

    /// Returns when a [`Input::Tick`] is due, whatever else happens.
    pub fn deadline(&self) -> Duration {
        let connecting = matches!(self.state, State::Connecting { .. });
        let due = [
            connecting.then_some(self.patient_until),
            Some(self.terms.longest_call),
            Some(self.hearing.last_at() + MEDIA_PATIENCE),
            self.hearing.fill_at(),
            self.owing_since.map(|since| since + ANSWER_PATIENCE),
            self.retry_at,
            self.playback.deadline(),
            self.goes_on_at(),
            self.leaves_at(),
        ];
        due.into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// Goes on with another stream of the carrier's.
    pub fn begin_anew(&mut self) {
        self.hearing.begin_anew();
    }

    /// Tells whether the call may wait for another socket: not while a tool is under way, or the
    /// agent about to leave.
    pub fn may_pause(&self) -> bool {
        !self.tooling.is_busy() && self.tooling.leaving().is_none()
    }

    /// Tells whether the agent should be read: not while too much of its audio waits.
    pub fn wants_agent(&self) -> bool {
        self.playback.has_room()
    }

    fn take(&mut self, at: Duration, input: Input) {
        match input {
            Input::CallerAudio { chunk, starts_at } => self.hear(at, chunk, starts_at),
            Input::CallerPressed(key) => self.pressed(at, key),
            Input::CallerHeard(mark) => self.playback.heard(mark),
            Input::CallerHungUp => self.end(EndReason::CallerHungUp),
            Input::AgentReady => self.agent_is_ready(at),
            Input::AgentAudio { item, chunk } => self.play(at, &item, chunk),
            Input::AgentFinished(item) => self.playback.complete(&item, &mut self.outputs),
            Input::AgentInterrupted => self.interrupt(at),
            Input::AgentWillAnswer => {
                self.turns.caller_stops(at, &mut self.outputs);
                self.expect_answer(at);
            }
            Input::AgentAnswering => {
                self.retry_at = None;
                self.answering = true;
                self.muted = false;
                self.owing_since = Some(at);
                self.expected_until = at;
                self.tooling.answer_begins();
            }
            Input::AgentAnswered(answered) => self.answered(at, answered),
            Input::Said { who, text } => {
                self.alive(at);
                self.outputs.push(Output::Said { who, text });
            }
            Input::AgentAlive => self.alive(at),
            Input::ToolCalled(call) => self.wants_tool(at, call),
            Input::ToolAnswered(result) => {
                if self.tooling.is_answered(&result.id) {
                    self.outputs.push(Output::TellAgentResult(result));
                }
            }
            Input::ToneReady(tones) => self.playback.sound(at, tones, &mut self.outputs),
            Input::Leave(reason) => self.tooling.leave(at, reason),
            Input::End(reason) => self.end(reason),
            Input::Tick => self.tick(at),
        }
    }

    fn hear(&mut self, at: Duration, chunk: Chunk, starts_at: Duration) {
        let hole = self.hearing.hear(at, &chunk, starts_at);
        if let Some(hole) = hole {
            self.fill(hole);
        }
        self.pass_on(chunk);
    }

    fn fill(&mut self, hole: Duration) {
        let mut left = hole;
        while !left.is_zero() {
            let silence = Chunk::silence(left, self.terms.encoding);
            left = left.saturating_sub(silence.duration());
            self.pass_on(silence);
        }
        self.outputs.push(Output::Filled(hole));
    }

    /// Gives the caller's audio to the agent, or keeps it until the agent is there.
    fn pass_on(&mut self, chunk: Chunk) {
        match &mut self.state {
            State::Talking => self.outputs.push(Output::SendToAgent(chunk)),
            State::Connecting { held, held_for } => {
                *held_for += chunk.duration();
                held.push_back(chunk);
                while *held_for > MOST_HELD
                    && let Some(oldest) = held.pop_front()
                {
                    *held_for -= oldest.duration();
                }
            }
            State::Ended => {}
        }
    }

    fn pressed(&mut self, at: Duration, key: char) {
        if matches!(self.state, State::Talking) {
            self.outputs.push(Output::TellAgentPressed(key));
            if !self.answering {
                self.answer(at);
            }
        }
    }

    fn agent_is_ready(&mut self, at: Duration) {
        if let State::Connecting { held, .. } = &mut self.state {
            self.outputs.extend(held.drain(..).map(Output::SendToAgent));
            self.state = State::Talking;
            self.hearing.resume(at);
            if self.terms.greets {
                self.outputs.push(Output::Greet);
                self.turns.is_owed(at);
                self.expect_answer(at);
            }
        }
    }

    fn play(&mut self, at: Duration, item: &ItemId, chunk: Chunk) {
        self.alive(at);
        if self.muted || !matches!(self.state, State::Talking) {
            return;
        }
        if !self.spoken {
            self.spoken = true;
            self.outputs.push(Output::FirstWords);
        }
        self.turns.agent_speaks(at, item);
        self.playback.receive(at, item, chunk, &mut self.outputs);
    }

    fn interrupt(&mut self, at: Duration) {
        self.alive(at);
        self.turns.caller_speaks(at, &mut self.outputs);
        self.muted = self.answering;
        self.retry_at = None; // The caller speaks: the next answer is to that.
        self.expected_until = at + ANSWER_PATIENCE;
        let unheard = self.playback.interrupt(at);
        if !unheard.is_empty() {
            // The carrier first: until it has cleared, the caller is talked over.
            self.outputs.push(Output::ClearPlayback);
            self.outputs
                .extend(unheard.into_iter().map(Output::Truncate));
        }
    }

    fn answered(&mut self, at: Duration, answered: Answered) {
        self.answering = false;
        self.muted = false;
        self.owing_since = None;
        match answered {
            Answered::Fully => self.retries = 0,
            Answered::Cancelled | Answered::Withheld => {}
            Answered::CutShort => self.answer(at),
            Answered::TryAgain(wait) if self.retries < MOST_RETRIES => {
                self.retries += 1;
                self.retry_at = Some(at + wait.min(ANSWER_PATIENCE));
            }
            Answered::TryAgain(_) | Answered::Failed => self.end(EndReason::AgentFailed),
        }
    }

    fn answer(&mut self, at: Duration) {
        self.expect_answer(at);
        self.turns.is_owed(at);
        self.tooling.told_news();
        self.outputs.push(Output::Answer);
    }

    fn expect_answer(&mut self, at: Duration) {
        self.owing_since = Some(at);
        self.expected_until = at + ANSWER_PATIENCE;
    }

    fn wants_tool(&mut self, at: Duration, call: ToolCall) {
        self.alive(at);
        match self.tooling.wish(&call.id) {
            Wish::Granted => self.outputs.push(Output::UseTool(call)),
            Wish::Refused => self.outputs.push(Output::RefuseTool(call)),
            Wish::Ignored => {}
        }
    }

    /// Does what had to wait for the agent's answer, or for the caller's ear.
    fn go_on(&mut self, at: Duration) {
        if matches!(self.state, State::Ended) {
            return;
        }
        self.turns.follow(at, &mut self.playback, &mut self.outputs);
        if self.leaves_at().is_some_and(|due| due <= at)
            && let Some(leaving) = self.tooling.leaving()
        {
            self.end(leaving.reason);
        } else if self.goes_on_at().is_some_and(|due| due <= at) {
            self.answer(at);
        }
    }

    /// Returns when the agent is asked to go on with what its tools have told it.
    fn goes_on_at(&self) -> Option<Duration> {
        let free = !self.answering && self.retry_at.is_none();
        (free && self.tooling.has_news()).then_some(self.expected_until)
    }

    /// Returns when a call ends whose agent wants it to, unless it is heard to the end before.
    fn leaves_at(&self) -> Option<Duration> {
        let leaving = self.tooling.leaving()?;
        let heard = self.playback.over_at().filter(|_| !self.answering);
        Some(heard.map_or(leaving.until, |heard| heard.min(leaving.until)))
    }

    /// Any word from the agent pays for its silence so far.
    fn alive(&mut self, at: Duration) {
        if self.owing_since.is_some() {
            self.owing_since = Some(at);
        }
    }

    fn tick(&mut self, at: Duration) {
        let since = |patience: Duration, since: Duration| since + patience <= at;
        if matches!(self.state, State::Connecting { .. }) && self.patient_until <= at {
            return self.end(EndReason::AgentTooSlow);
        }
        if self.terms.longest_call <= at {
            return self.end(EndReason::TooLong);
        }
        if since(MEDIA_PATIENCE, self.hearing.last_at()) {
            return self.end(EndReason::MediaStalled);
        }
        if !self.wants_agent() || self.tooling.is_busy() {
            self.alive(at); // Nobody reads what it sends, or it waits for us.
        }
        if self
            .owing_since
            .is_some_and(|owing| since(ANSWER_PATIENCE, owing))
        {
            return self.end(EndReason::AgentStalled);
        }
        if self.retry_at.is_some_and(|due| due <= at) {
            self.retry_at = None;
            self.answer(at);
        }
        if let Some(hole) = self.hearing.missing(at) {
            self.fill(hole);
        }
        self.playback.release(at, &mut self.outputs);
    }

    fn end(&mut self, reason: EndReason) {
        self.state = State::Ended;
        self.turns.close(&mut self.outputs);
        self.outputs.push(Output::End(reason));
    }
}

#[cfg(test)]
mod tests;
