//! What a call's row comes to, from facts in any order.
//!
//! Invariant: states move only forward, and a terminal one is final. Facts that come late or again
//! fill in what is blank, and change nothing else.

use std::str::FromStr;

use crate::{
    call::{Blame, CallId, CarrierCallId, EndReason},
    recent::Millis,
    record::{Arrival, Direction, Fact, What},
};

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is to be placed.
    Queued,
    /// The carrier is asked to place it.
    Dialing,
    /// The carrier may have placed it, or not.
    Unknown,
    /// It rings at the other end.
    Ringing,
    Admitted,
    /// Its media is there.
    Connected,
    Ended,
    RejectedCapacity,
    /// It was never answered, or could not be placed.
    Failed,
    /// The replica that had it is gone.
    InstanceLost,
}

/// The rank from which on a call is over.
pub const OVER: i64 = 90;

/// What is known of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRow {
    pub carrier_call: CarrierCallId,
    /// When the earliest of it was noted.
    pub rang_at: Millis,
    pub arrival: Option<Box<Arrival>>,
    pub state: State,
    pub reason: Option<String>,
    pub blame: Option<&'static str>,
    pub scope: Option<String>,
    pub offered: Option<&'static str>,
    /// When it was admitted or refused.
    pub arrived_at: Option<Millis>,
    pub connected_at: Option<Millis>,
    pub ended_at: Option<Millis>,
    pub talked_ms: Option<i64>,
    /// Whether the caller has left a message, or was sent one.
    pub has_messages: bool,
    /// Whether whoever notes this has the call.
    pub is_owned: bool,
}

impl State {
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Dialing,
        Self::Unknown,
        Self::Ringing,
        Self::Admitted,
        Self::Connected,
        Self::Ended,
        Self::RejectedCapacity,
        Self::Failed,
        Self::InstanceLost,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Dialing => "dialing",
            Self::Unknown => "unknown",
            Self::Ringing => "ringing",
            Self::Admitted => "admitted",
            Self::Connected => "connected",
            Self::Ended => "ended",
            Self::RejectedCapacity => "rejected_capacity",
            Self::Failed => "failed",
            Self::InstanceLost => "instance_lost",
        }
    }

    pub fn rank(self) -> i64 {
        match self {
            Self::Queued => 10,
            Self::Dialing => 20,
            Self::Unknown => 25,
            Self::Ringing => 30,
            Self::Admitted => 40,
            Self::Connected => 50,
            Self::InstanceLost => OVER,
            // Whoever had a call after all knows better than who took it for lost.
            Self::Ended | Self::RejectedCapacity | Self::Failed => OVER + 5,
        }
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = Self::ALL.into_iter().find(|it| it.as_str() == text);
        known.ok_or(())
    }
}

impl CallRow {
    /// Begins with nothing known but when the first of it was noted.
    pub fn new(carrier_call: CarrierCallId, at: Millis) -> Self {
        Self {
            carrier_call,
            rang_at: at,
            arrival: None,
            state: State::Queued,
            reason: None,
            blame: None,
            scope: None,
            offered: None,
            arrived_at: None,
            connected_at: None,
            ended_at: None,
            talked_ms: None,
            has_messages: false,
            is_owned: false,
        }
    }

    /// Tells whether it is known that there was no room for it.
    pub fn is_refused(&self) -> bool {
        let arrival = self.arrival.as_ref();
        arrival.is_some_and(|arrival| arrival.refused.is_some())
    }

    /// Takes in a fact that was noted `at` this time.
    pub fn learn(&mut self, at: Millis, fact: &Fact) {
        self.rang_at = self.rang_at.min(at);
        match fact {
            Fact::Arrived(arrival) => {
                self.is_owned = true;
                self.arrived_at = Some(self.arrived_at.map_or(at, |known| known.min(at)));
                self.come_to(State::Admitted);
                if let Some(refusal) = &arrival.refused
                    && self.come_to(State::RejectedCapacity)
                {
                    self.reason = Some(refusal.reason.as_str().to_owned());
                    self.scope = Some(refusal.scope.to_string());
                    self.ended_at = Some(at);
                }
                self.arrival.get_or_insert_with(|| arrival.clone());
            }
            Fact::Happened(What::Connected) => {
                self.is_owned = true;
                self.come_to(State::Connected);
                self.connected_at.get_or_insert(at);
            }
            // Another replica goes on with it.
            Fact::Happened(What::Ended(EndReason::TakenOver)) => {}
            Fact::Happened(What::Ended(reason)) => {
                let state = if reason.is_unanswered() {
                    State::Failed
                } else {
                    State::Ended
                };
                if self.come_to(state) {
                    self.reason = Some(reason.as_str().to_owned());
                    self.blame = Some(reason.blame().as_str());
                    self.ended_at = Some(at);
                }
            }
            Fact::Lost { arrival, rang_at } => {
                self.rang_at = self.rang_at.min(rang_at.unwrap_or(at));
                if self.come_to(State::InstanceLost) {
                    self.reason = Some(State::InstanceLost.as_str().to_owned());
                    self.blame = Some(Blame::Callgate.as_str());
                    self.ended_at = Some(at);
                }
                self.arrival.get_or_insert_with(|| arrival.clone());
            }
            Fact::Talked(lasted) => {
                let lasted = i64::try_from(lasted.as_millis()).unwrap_or(i64::MAX);
                self.talked_ms.get_or_insert(lasted);
            }
            Fact::Happened(What::Offered(offer)) => {
                self.offered.get_or_insert(offer.as_str());
            }
            Fact::Happened(What::Dialing) => drop(self.come_to(State::Dialing)),
            Fact::Happened(What::Unsure) => drop(self.come_to(State::Unknown)),
            Fact::Happened(What::Rings) => drop(self.come_to(State::Ringing)),
            Fact::Happened(What::PickedUp) => {
                self.is_owned = true;
                self.come_to(State::Admitted);
            }
            Fact::Happened(What::LeftMessage(_) | What::Invited { .. }) => self.has_messages = true,
            Fact::Happened(
                What::Admitted
                | What::Refused
                | What::AgentReady { .. }
                | What::Turn(_)
                | What::Impaired(_)
                | What::Marked { .. }
                | What::FirstWords
                | What::Said { .. }
                | What::Interrupted { .. }
                | What::ToolUsed { .. }
                | What::TransferEnded { .. },
            )
            | Fact::Used(_) => {}
        }
    }

    /// Moves forward; tells whether it did.
    fn come_to(&mut self, state: State) -> bool {
        let moves = state.rank() > self.state.rank();
        if moves {
            self.state = state;
        }
        moves
    }

    /// Returns our name for the call, unless it had one before it had its carrier's.
    pub fn call(&self) -> CallId {
        CallId::of(&self.carrier_call)
    }

    pub fn direction(&self) -> Direction {
        self.arrival
            .as_ref()
            .map_or(Direction::Inbound, |arrival| arrival.direction)
    }
}
