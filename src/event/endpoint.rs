//! Where a tenant is told of its calls, and of what.

use std::{collections::BTreeMap, str::FromStr};

use crate::{
    campaign::Name,
    event::{Payload, SigningSecrets, ToldNumbers},
    guard::GuardedUrl,
};

/// Every kind of event there is.
pub const KINDS: [EventKind; 6] = [
    EventKind::CallStarted,
    EventKind::CallEnded,
    EventKind::CallRefused,
    EventKind::CallTranscript,
    EventKind::VoicemailReceived,
    EventKind::WhatsappStatus,
];

/// What an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    CallStarted,
    CallEnded,
    CallRefused,
    CallTranscript,
    VoicemailReceived,
    WhatsappStatus,
}

/// A receiver of a tenant's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub name: Name,
    pub url: GuardedUrl,
    pub secrets: SigningSecrets,
    /// The kinds that it is told of; never empty.
    pub kinds: Vec<EventKind>,
    pub numbers: ToldNumbers,
    pub payload: Payload,
}

/// Every tenant's endpoints, in the order of the file.
pub type Endpoints = BTreeMap<Name, Vec<Endpoint>>;

/// Returns the tenant and the name of each endpoint.
pub fn names(endpoints: &Endpoints) -> impl Iterator<Item = (&str, &str)> {
    endpoints
        .iter()
        .flat_map(|(tenant, own)| own.iter().map(|it| (tenant.as_str(), it.name.as_str())))
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallStarted => "call.started",
            Self::CallEnded => "call.ended",
            Self::CallRefused => "call.refused",
            Self::CallTranscript => "call.transcript",
            Self::VoicemailReceived => "voicemail.received",
            Self::WhatsappStatus => "whatsapp.status",
        }
    }

    /// Tells whether such events hold what was said, which nobody gets unasked.
    pub fn is_transcript(self) -> bool {
        match self {
            Self::CallTranscript => true,
            Self::CallStarted
            | Self::CallEnded
            | Self::CallRefused
            | Self::VoicemailReceived
            | Self::WhatsappStatus => false,
        }
    }
}

impl FromStr for EventKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let kind = KINDS.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or(())
    }
}
