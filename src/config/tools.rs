//! What the environment says of tools, for campaigns that say nothing themselves.

use std::collections::BTreeMap;

use crate::{
    call::PhoneNumber,
    campaign::Name,
    config::reader::{Environment, Reader},
    outbound::number::{Countries, NumberError},
    tool::{BuiltIn, Directory, MOST_DESTINATIONS, Tool, Tools},
};

/// What a list of tools has to be.
pub const RULE: &str = "end_call, transfer_call and send_dtmf";

/// What the key for a transfer has to be.
pub const KEY_RULE: &str = "a key of a phone: 0 to 9 or *";

/// What agents may do beside talking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSettings {
    /// `AGENT_TOOLS`: `end_call`, `transfer_call` and `send_dtmf`, or `none`. Default `end_call`.
    pub built_in: Vec<BuiltIn>,
    /// `AGENT_TRANSFERS`: where calls may be handed over to, as `name=number`;
    /// `AGENT_TRANSFER_CALLER_ID`: what the person called sees; and `AGENT_TRANSFER_KEY`: what the
    /// caller has to press before. Default: nowhere, the caller's, and nothing.
    pub directory: Directory,
}

impl ToolSettings {
    pub(super) fn load(read: &Reader<impl Environment>, countries: &Countries) -> Self {
        let directory = Directory {
            destinations: destinations(read, countries),
            caller_id: caller_id(read),
            number: None,
            key: read.parsed("AGENT_TRANSFER_KEY", KEY_RULE),
        };
        let built_in = match read.list("AGENT_TOOLS").as_slice() {
            [] => vec![BuiltIn::EndCall],
            [none] if none == "none" => Vec::new(),
            listed => built_in(read, listed),
        };
        let transfers = built_in.contains(&BuiltIn::TransferCall);
        if transfers && directory.destinations.is_empty() && read.text("AGENT_TRANSFERS").is_none()
        {
            let rule = "not set (AGENT_TOOLS lists transfer_call, which needs it)";
            read.mistake("AGENT_TRANSFERS", None, rule);
        }
        Self {
            built_in,
            directory,
        }
    }

    /// Returns the tools of a campaign that has these beside its HTTP tools.
    pub fn with(&self, http: Vec<Tool>) -> Tools {
        Tools::new(&self.built_in, self.directory.clone(), http)
    }
}

fn built_in(read: &Reader<impl Environment>, listed: &[String]) -> Vec<BuiltIn> {
    let mut tools = Vec::new();
    for name in listed {
        match name.parse() {
            Ok(tool) if !tools.contains(&tool) => tools.push(tool),
            Ok(_) => {}
            Err(()) => {
                let rule = format!("{RULE}, with commas, or none");
                read.mistake("AGENT_TOOLS", Some(name.clone()), &rule);
            }
        }
    }
    tools
}

/// What is wrong with a number that calls are to be handed over to.
pub enum Flaw {
    /// It can cost anything, or belongs to no country.
    Refused(NumberError),
    /// It may be meant: the operator has the last word.
    Odd(NumberError),
}

/// Looks at a number of a directory as at one that is to be called: an agent that was talked into a
/// transfer could be fraud's way to it. Where no country may be called, every one is as good.
pub fn flaw_of(number: &PhoneNumber, countries: &Countries) -> Option<Flaw> {
    match countries.judge(number) {
        Ok(()) | Err(NumberError::NoCountries) => None,
        Err(error @ (NumberError::International | NumberError::Kind(_))) => {
            Some(Flaw::Refused(error))
        }
        Err(error @ (NumberError::NotE164 | NumberError::Invalid | NumberError::Country(_))) => {
            Some(Flaw::Odd(error))
        }
    }
}

/// Reads the directory; its numbers are not shown.
fn destinations(
    read: &Reader<impl Environment>,
    countries: &Countries,
) -> BTreeMap<Name, PhoneNumber> {
    let listed = read.list("AGENT_TRANSFERS");
    let named = listed.iter().filter_map(|entry| {
        let pair = entry.split_once('=').and_then(|(name, number)| {
            Some((name.trim().parse().ok()?, number.trim().parse().ok()?))
        });
        if pair.is_none() {
            let rule = "name=number with commas: names of a-z, 0-9, - and _, numbers in E.164";
            read.mistake("AGENT_TRANSFERS", None, rule);
        }
        pair
    });
    let named: BTreeMap<Name, PhoneNumber> = named.collect();
    for (name, number) in &named {
        match flaw_of(number, countries) {
            Some(Flaw::Refused(error)) => {
                read.mistake("AGENT_TRANSFERS", None, &format!("{name}: {error}"));
            }
            Some(Flaw::Odd(error)) => read.warning(format!("AGENT_TRANSFERS: {name}: {error}")),
            None => {}
        }
    }
    if listed.len() > MOST_DESTINATIONS {
        let rule = format!("{} of them: at most {MOST_DESTINATIONS}", listed.len());
        read.mistake("AGENT_TRANSFERS", None, &rule);
    }
    named
}

fn caller_id(read: &Reader<impl Environment>) -> Option<PhoneNumber> {
    const NAME: &str = "AGENT_TRANSFER_CALLER_ID";
    let number = read.text(NAME)?.parse().ok();
    if number.is_none() {
        read.mistake(NAME, None, "a number in E.164");
    }
    number
}
