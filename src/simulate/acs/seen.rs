//! What a fake ACS has seen.

use std::collections::VecDeque;

/// How much is kept.
const MOST_KEPT: usize = 10_000;

/// Something that a gateway did, or was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The call's correlation id; empty where nobody knows.
    pub call: String,
    pub deed: Deed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Answered,
    /// It was answered again, by another request.
    AnsweredTwice,
    /// With a reason.
    Rejected(String),
    /// To a number.
    Redirected(String),
    /// To a number.
    Transferred(String),
    /// Keys, as ACS calls them, with commas.
    Pressed(String),
    HungUp,
    /// It was to be hung up, and nobody was there.
    HungUpTwice,
    /// A file.
    Plays(String),
    /// Of a callback: what it told, and how the gateway answered; 0 if it did not.
    Told(&'static str, u16),
    /// A request without a good signature.
    Unsigned,
    /// A request with an id that had been seen already.
    Repeated,
}

/// What was seen, the oldest first; bounded.
#[derive(Debug, Default)]
pub struct Seen(VecDeque<Sight>);

impl Seen {
    pub fn add(&mut self, sight: Sight) {
        if self.0.len() == MOST_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(sight);
    }

    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Sight> {
        self.0.iter()
    }
}
