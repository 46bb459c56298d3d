//! What a key may do.

use std::{fmt, str::FromStr};

/// One kind of request that a key may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    CallsRead,
    CallsWrite,
    NumbersRead,
    TranscriptsRead,
    UsageRead,
    EventsRead,
    EventsWrite,
    RecordsDelete,
}

/// Why a text is no [`Scope`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a scope is one of: {}", names())]
pub struct NotAScope;

impl Scope {
    pub const ALL: [Self; 8] = [
        Self::CallsRead,
        Self::CallsWrite,
        Self::NumbersRead,
        Self::TranscriptsRead,
        Self::UsageRead,
        Self::EventsRead,
        Self::EventsWrite,
        Self::RecordsDelete,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallsRead => "calls:read",
            Self::CallsWrite => "calls:write",
            Self::NumbersRead => "numbers:read",
            Self::TranscriptsRead => "transcripts:read",
            Self::UsageRead => "usage:read",
            Self::EventsRead => "events:read",
            Self::EventsWrite => "events:write",
            Self::RecordsDelete => "records:delete",
        }
    }

    /// Tells whether requests with this scope may change something.
    pub fn changes(self) -> bool {
        match self {
            Self::CallsWrite | Self::EventsWrite | Self::RecordsDelete => true,
            Self::CallsRead
            | Self::NumbersRead
            | Self::TranscriptsRead
            | Self::UsageRead
            | Self::EventsRead => false,
        }
    }
}

impl FromStr for Scope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        let known = Self::ALL.into_iter().find(|scope| scope.as_str() == text);
        known.ok_or(NotAScope)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn names() -> String {
    Scope::ALL.map(Scope::as_str).join(", ")
}

/// What a handler needs a key for, as a type, so that its signature says it.
pub trait Need {
    /// `None` where any good key will do.
    const SCOPE: Option<Scope>;
}

macro_rules! needs {
    ($($name:ident),*) => {$(
        /// The scope of this name.
        pub enum $name {}

        impl Need for $name {
            const SCOPE: Option<Scope> = Some(Scope::$name);
        }
    )*};
}

needs!(
    CallsRead,
    CallsWrite,
    TranscriptsRead,
    UsageRead,
    EventsRead,
    EventsWrite,
    RecordsDelete
);

/// Any scope, or none.
pub enum Anything {}

impl Need for Anything {
    const SCOPE: Option<Scope> = None;
}
