//! What the carrier is told to do with a call that rings, or that lost its bridge.
//!
//! Invariant: whatever callers, tenants and campaigns are called, the answer is well-formed.
//! Invariant: what an operator has written is checked before the first call, not by it.

mod escape;
mod origin;
pub mod prompts;
mod trial;
mod twiml;
mod xml;

use std::fmt;

use url::Url;

use crate::call::PhoneNumber;

pub use prompts::{PromptError, Prompts};
pub use twiml::{TemplateError, TemplateFlaw, Templates};

/// What a carrier is told to do with a call.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// Open a media socket to `stream_url` with the `ticket`; ask at `action_url` what to do once
    /// it has closed and the call has not.
    Connect {
        stream_url: Url,
        action_url: Url,
        ticket: String,
    },
    /// Say that there is no room for the call, and end it.
    Refuse,
    /// Say that there is no room for the call, and record what the caller has to say. Ask at
    /// `action_url` what follows, and tell `recording_url` what became of the recording.
    Voicemail {
        action_url: Url,
        recording_url: Url,
        max_seconds: u64,
    },
    /// Let another phone ring, and ask at `action_url` what follows once that is over.
    Transfer {
        number: PhoneNumber,
        /// What the person called sees; what the carrier makes of it if there is none.
        caller_id: Option<PhoneNumber>,
        /// How long they may talk.
        max_seconds: u64,
        action_url: Url,
    },
    /// Thank for the message that the caller has left, and end the call.
    VoicemailThanks,
    /// Say that there is no room for the call and that a WhatsApp message follows, and end it.
    Whatsapp,
    /// Say that nobody can be reached by the dialed number, and end the call.
    NotInService,
    /// Say that something of ours has failed, and end the call.
    Apology,
    /// Say goodbye and end the call.
    Goodbye,
    /// End the call without a word.
    HangUp,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect { .. } => "Connect(..)", // A ticket has no place in a log line.
            Self::Refuse => "Refuse",
            Self::Voicemail { .. } => "Voicemail(..)",
            Self::Transfer { .. } => "Transfer(..)",
            Self::VoicemailThanks => "VoicemailThanks",
            Self::Whatsapp => "Whatsapp",
            Self::NotInService => "NotInService",
            Self::Apology => "Apology",
            Self::Goodbye => "Goodbye",
            Self::HangUp => "HangUp",
        })
    }
}

/// What a template may say about the call: `caller`, `called`, `caller_name` and `campaign`.
/// What is not known is an empty text there.
#[derive(Clone, Copy, Default)]
pub struct CallDetails<'a> {
    /// `None` if the number is withheld.
    pub caller: Option<&'a str>,
    /// The dialed number.
    pub called: &'a str,
    pub caller_name: Option<&'a str>,
    /// `None` while no campaign answers the dialed number.
    pub campaign: Option<&'a str>,
}
