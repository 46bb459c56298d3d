//! What a carrier is asked for on our own account: messages to callers.
//!
//! Invariant: no caller waits for it; requests are bounded in number, time and length.
//! Invariant: what may have been done already is never asked for again.

pub mod acs;
pub mod twilio;
mod whatsapp;

use std::{fmt, time::Duration};

use crate::call::is_sid;

pub use whatsapp::{Invitations, Offer};

/// Twilio's name for a message: its MessageSid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageId(String); // Invariant: `SM` or `MM` and 32 hexadecimal digits.

/// What has certainly, or possibly, become of a request that was not answered as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was not done and may be made again, after that long if the carrier says so.
    NotDone { wait: Option<Duration> },
    /// It was not done, and would not be another time.
    Refused,
    /// It may have been done: it must not be made again as another one.
    Unknown,
}

/// The last word on a message that Twilio had taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Delivered,
    Undelivered { code: Option<u32> },
}

impl MessageId {
    pub fn read(text: &str) -> Option<Self> {
        (is_sid("SM", text) || is_sid("MM", text)).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
