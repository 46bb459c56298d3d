//! What a campaign's agent may do beside talking.
//!
//! Invariant: what an agent says is never trusted: it names a tool and a destination of its
//! campaign, and gives arguments that the tool's schema allows, or nothing happens outside.
//! Invariant: no argument and no result is in a log, a metric or a step.

mod ask;
mod built_in;
mod schema;
mod tones;
mod workbench;

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    call::PhoneNumber,
    campaign::Name,
    guard::GuardedUrl,
    session::ToolCall,
    tool::{built_in::Destined, schema::NotValid},
};

pub use built_in::{BuiltIn, Digits};
pub use schema::Schema;
pub use workbench::{Consent, Keypad, Surroundings, Workbench};

/// How many HTTP tools a campaign may have, and how many destinations.
pub const MOST_HTTP_TOOLS: usize = 16;
pub const MOST_DESTINATIONS: usize = 32;
/// The longest description of a tool, in bytes.
pub const LONGEST_DESCRIPTION: usize = 1_024;
/// How long an HTTP tool may take, unless its campaign says otherwise, and at most.
pub const USUAL_TIMEOUT: Duration = Duration::from_secs(5);
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The tools of one campaign.
#[derive(Clone, PartialEq, Eq)]
pub struct Tools {
    tools: Arc<[Tool]>,
    pub directory: Directory,
}

/// Where a campaign's calls may be handed over to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// The agent says one of the names, and never a number.
    pub destinations: BTreeMap<Name, PhoneNumber>,
    /// What the person called sees; what the carrier makes of it if there is none.
    pub caller_id: Option<PhoneNumber>,
    /// A number of the campaign's own, for carriers that want one.
    pub number: Option<PhoneNumber>,
    /// What the caller has to press before: the agent cannot. Nothing if the agent's word will do.
    pub key: Option<Key>,
}

/// A key of the caller's phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(char); // Invariant: one of 0 to 9 and *; # begins a comment where settings are.

/// Something that an agent may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    pub name: Name,
    /// Tells the agent when to use it.
    pub description: String,
    /// What its arguments have to be.
    pub schema: Schema,
    pub does: Does,
}

/// What a tool does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Does {
    BuiltIn(BuiltIn),
    /// Asks a server of the tenant's.
    Asks {
        url: GuardedUrl,
        timeout: Duration,
    },
}

/// A tool as an agent is told of it: in the shape that all our agents know.
#[derive(Debug, Serialize)]
pub struct Offer<'a> {
    r#type: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

/// What is to be done for the agent.
#[derive(Debug)]
pub enum Use<'a> {
    EndCall,
    Transfer(Name),
    SendDtmf(Digits),
    Ask {
        url: &'a GuardedUrl,
        timeout: Duration,
        arguments: Value,
    },
}

/// Why a tool is not used, in words that the agent can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub outcome: ToolOutcome,
    pub advice: String,
}

/// How the use of a tool went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolOutcome {
    Done,
    /// The campaign has no such tool.
    Unknown,
    /// The arguments are longer than anybody reads.
    TooLong,
    /// The arguments are not what the tool's schema asks for: a destination that is not in the
    /// directory, for one.
    Invalid,
    TooMany,
    /// The call's carrier cannot do it.
    Impossible,
    /// The caller has to press a key before.
    Unconfirmed,
    Failed,
    TimedOut,
    /// The call was over before.
    Cancelled,
}

/// The kinds of tools that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToolKind {
    BuiltIn(BuiltIn),
    Http,
    Unknown,
}

impl Tools {
    pub fn new(built_in: &[BuiltIn], directory: Directory, http: Vec<Tool>) -> Self {
        let built_in = built_in.iter().map(|tool| tool.with(&directory));
        Self {
            tools: built_in.chain(http).collect(),
            directory,
        }
    }

    /// Returns what an agent is offered.
    pub fn offers(&self) -> impl Iterator<Item = Offer<'_>> {
        self.tools.iter().map(|tool| Offer {
            r#type: "function",
            name: tool.name.as_str(),
            description: &tool.description,
            parameters: tool.schema.as_value(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// Returns the tool that an agent means, if the campaign has it.
    pub fn named(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name.as_str() == name)
    }

    /// Decides about a use that an agent wants.
    ///
    /// # Errors
    /// If it is not one of the campaign's tools, or not used as it has to be.
    pub fn judge(&self, call: &ToolCall) -> Result<Use<'_>, Refusal> {
        let tool = self.named(&call.tool).ok_or_else(|| self.unknown())?;
        let arguments = call.arguments.as_deref().ok_or_else(too_long)?;
        let arguments = tool.schema.read(arguments)?;
        match &tool.does {
            Does::Asks { url, timeout } => Ok(Use::Ask {
                url,
                timeout: *timeout,
                arguments,
            }),
            Does::BuiltIn(BuiltIn::EndCall) => Ok(Use::EndCall),
            Does::BuiltIn(BuiltIn::SendDtmf) => Digits::of(&arguments).map(Use::SendDtmf),
            Does::BuiltIn(BuiltIn::TransferCall) => {
                let Destined(name) = Destined::of(&arguments)?;
                let known = self.directory.destinations.contains_key(&name);
                known.then_some(Use::Transfer(name)).ok_or_else(|| {
                    Refusal::invalid("there is no such destination in the directory".to_owned())
                })
            }
        }
    }

    fn unknown(&self) -> Refusal {
        let names: Vec<_> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
        let advice = if names.is_empty() {
            "there is no such tool: there are none".to_owned()
        } else {
            format!("there is no such tool: there are {}", names.join(", "))
        };
        Refusal {
            outcome: ToolOutcome::Unknown,
            advice,
        }
    }
}

impl Default for Tools {
    /// An agent may end its call, and nothing else.
    fn default() -> Self {
        Self::new(&[BuiltIn::EndCall], Directory::default(), Vec::new())
    }
}

impl Tool {
    pub fn kind(&self) -> ToolKind {
        match self.does {
            Does::BuiltIn(tool) => ToolKind::BuiltIn(tool),
            Does::Asks { .. } => ToolKind::Http,
        }
    }
}

impl Refusal {
    /// There are too many uses at once, or there have been too many.
    pub fn too_many() -> Self {
        Self {
            outcome: ToolOutcome::TooMany,
            advice: "too many tools at once or in this call: go on without".to_owned(),
        }
    }

    fn invalid(advice: String) -> Self {
        Self {
            outcome: ToolOutcome::Invalid,
            advice,
        }
    }

    /// Returns what the agent is told, as JSON.
    pub fn text(&self) -> String {
        json!({ "error": self.advice }).to_string()
    }
}

impl FromStr for Key {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut keys = text.chars();
        match (keys.next(), keys.next()) {
            (Some(key @ ('0'..='9' | '*')), None) => Ok(Self(key)),
            _ => Err(()),
        }
    }
}

impl Key {
    pub fn as_char(self) -> char {
        self.0
    }
}

impl From<NotValid> for Refusal {
    fn from(NotValid(advice): NotValid) -> Self {
        Self::invalid(advice)
    }
}

fn too_long() -> Refusal {
    Refusal {
        outcome: ToolOutcome::TooLong,
        advice: "the arguments are too long: say it shorter".to_owned(),
    }
}

impl ToolOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unknown => "unknown",
            Self::TooLong => "too_long",
            Self::Invalid => "invalid",
            Self::TooMany => "too_many",
            Self::Impossible => "impossible",
            Self::Unconfirmed => "unconfirmed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
        }
    }
}

impl ToolKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn(tool) => tool.as_str(),
            Self::Http => "http",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.tools.iter().map(|tool| tool.name.as_str()).collect();
        let mut shown = f.debug_struct("Tools");
        shown.field("names", &names.join(" "));
        shown.field("directory", &self.directory).finish()
    }
}

impl fmt::Display for ToolOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
