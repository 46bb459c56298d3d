//! What a store knows of agents: what a call may ask of them, and what replicas tell each other.

use crate::{
    call::CarrierCallId,
    campaign::{Budget, Name},
    recent::Millis,
};

/// How long a dial and a used token count.
pub const MINUTE: Millis = 60_000;
/// How long an agent that keeps failing is left alone after a call has been sent to try it, as
/// [`crate::agent`] does by itself.
pub const REST: Millis = 2_000;
/// How long after its rest an agent is tried by one call at a time, unless one has reached it.
pub const TRIED_FOR: Millis = 60_000;

/// The agents that a call may have, in the order in which they are tried.
#[derive(Debug, Clone, Copy)]
pub struct Choices<'a> {
    pub agents: &'a [Choice<'a>],
    /// Whether this replica dials the agent at once; otherwise whoever gets the call's media does.
    pub dials: bool,
}

/// An agent that a call may have.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    pub agent: &'a Name,
    pub budget: Budget,
    /// Whether this replica leaves it alone for a moment.
    pub rests: bool,
    /// The ticket that the call gets with it.
    pub ticket: &'a str,
    /// What is kept of the call then for whoever asks, as a JSON object.
    pub state: &'a str,
}

/// What a replica tells the others of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentReport {
    pub agent: Name,
    /// Tokens that it has used up here since the last report.
    pub tokens: u32,
    pub rest: Rest,
    /// For which calls this replica has dialed it that the store may not know of, and how long
    /// each counts still.
    pub dials: Vec<(CarrierCallId, Millis)>,
}

/// Whether an agent is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It does not rest here, which says nothing of other replicas.
    No,
    For(Millis),
    /// It has been reached, so nobody needs to leave it alone.
    Over,
}

/// What all replicas have asked of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AgentUse {
    /// Dials of the last minute.
    pub dials: u32,
    /// Tokens of the last minute.
    pub tokens: u32,
    /// For how long every replica leaves it alone.
    pub rests: Millis,
    /// Whether nobody has reached it since it kept failing.
    pub fails: bool,
}

impl AgentReport {
    /// Says nothing, and asks.
    pub fn question(agent: Name) -> Self {
        Self {
            agent,
            tokens: 0,
            rest: Rest::No,
            dials: Vec::new(),
        }
    }
}

impl Choice<'_> {
    /// Tells whether anything is counted for the agent.
    pub fn is_counted(&self) -> bool {
        self.budget != Budget::default()
    }
}
