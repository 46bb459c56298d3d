//! What a cap applies to.

use std::fmt;

use crate::campaign::Name;

/// What a cap applies to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Global,
    /// Calls whose media has not arrived.
    Setup,
    Tenant(Name),
    Campaign(Name),
    /// Campaigns that share a cap.
    Group(Name),
    /// Calls that an agent with a budget talks in, whosever they are.
    Agent(Name),
    /// Calls that we placed.
    Outbound,
}

/// What a call needs in one scope: less than `cap` others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    pub scope: Scope,
    pub cap: u32,
    /// Slots in here that others may rely on, by the scope that they are reserved for. What those
    /// do not use is kept for them.
    pub reserves: Vec<(Scope, u32)>,
}

impl Room {
    pub fn new(scope: Scope, cap: u32) -> Self {
        Self {
            scope,
            cap,
            reserves: Vec::new(),
        }
    }

    /// Returns what is left of the cap for a call that has no part in the reserves.
    pub fn open_to_all(&self, used: impl Fn(&Scope) -> u32) -> u32 {
        let kept = self.reserves.iter();
        let kept = kept.map(|(scope, slots)| slots.saturating_sub(used(scope)));
        self.cap.saturating_sub(kept.sum())
    }
}

impl Scope {
    /// Tells whether a call counts here, by whether its media has arrived.
    pub fn counts(&self, has_media: bool) -> bool {
        match self {
            Self::Setup => !has_media,
            Self::Global
            | Self::Tenant(_)
            | Self::Campaign(_)
            | Self::Group(_)
            | Self::Agent(_)
            | Self::Outbound => true,
        }
    }

    /// Returns whose scope it is; nobody's name is empty.
    pub fn name(&self) -> &str {
        match self {
            Self::Tenant(name) | Self::Campaign(name) | Self::Group(name) | Self::Agent(name) => {
                name.as_str()
            }
            Self::Global | Self::Setup | Self::Outbound => "",
        }
    }

    /// Returns what kind of scope it is, without its name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Setup => "setup",
            Self::Tenant(_) => "tenant",
            Self::Campaign(_) => "campaign",
            Self::Group(_) => "group",
            Self::Agent(_) => "agent",
            Self::Outbound => "outbound",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self.name() {
            "" => Ok(()),
            name => write!(f, ":{name}"),
        }
    }
}
