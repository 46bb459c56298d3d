//! Which campaign a dialed number belongs to, and what applies to its calls.

use std::{fmt, str::FromStr, sync::Arc};

use crate::{call::CallerId, language::Language};

/// A tenant's or a campaign's name, fit to become part of a key or a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>); // Invariant: 1 to 64 of a-z, 0-9, `-` and `_`.

/// Why a text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to 64 of a-z, 0-9, - and _")]
pub struct NameError;

/// What a dialed number belongs to.
#[derive(Debug, Clone)]
pub struct Campaign {
    pub id: Name,
    pub tenant: Name,
    pub language: Language,
    /// Live calls it may have of its own; `None` where only the wider caps count.
    pub max_calls: Option<u32>,
    pub when_full: WhenFull,
}

/// What a caller is offered for whom there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// A sentence that asks to ring again later.
    #[default]
    Reject,
    /// To leave a message after the tone.
    Voicemail,
    /// A WhatsApp message to go on in writing.
    Whatsapp,
}

/// Every campaign of this gateway.
#[derive(Debug)]
pub struct Campaigns {
    default: Arc<Campaign>,
    /// The numbers that are ours; empty when every number is.
    numbers: Vec<CallerId>,
}

impl Name {
    /// The one campaign and tenant there are when nothing else is configured.
    pub fn default_name() -> Self {
        Self(Arc::from("default"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for WhenFull {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "reject" => Ok(Self::Reject),
            "voicemail" => Ok(Self::Voicemail),
            "whatsapp" => Ok(Self::Whatsapp),
            _ => Err(()),
        }
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(Arc::from(text)))
        } else {
            Err(NameError)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Campaigns {
    /// One campaign, called `default`, that answers `numbers`, or every number if there are none.
    pub fn only(language: Language, max_calls: Option<u32>, numbers: Vec<CallerId>) -> Self {
        let default = Campaign {
            id: Name::default_name(),
            tenant: Name::default_name(),
            language,
            max_calls,
            when_full: WhenFull::default(),
        };
        Self {
            default: Arc::new(default),
            numbers,
        }
    }

    /// Offers this to callers for whom there is no room.
    pub fn offering(mut self, when_full: WhenFull) -> Self {
        Arc::make_mut(&mut self.default).when_full = when_full;
        self
    }

    /// Returns the campaign that answers `called`; `None` where the number is not in service.
    pub fn answering(&self, called: &CallerId) -> Option<&Arc<Campaign>> {
        let ours = self.numbers.is_empty() || self.numbers.contains(called);
        ours.then_some(&self.default)
    }

    /// Returns the campaign whose language and texts serve where no other is known.
    pub fn default_campaign(&self) -> &Arc<Campaign> {
        &self.default
    }
}
