//! The tools of a campaign, in a campaign file.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    call::{CallerId, PhoneNumber},
    campaign::Name,
    config::{
        ToolSettings,
        file::{
            Inherited,
            table::{Entry, Table},
        },
        tools::{Flaw, KEY_RULE, RULE, flaw_of},
    },
    outbound::number::Countries,
    tool::{
        BuiltIn, Directory, Does, LONGEST_DESCRIPTION, LONGEST_TIMEOUT, MOST_DESTINATIONS,
        MOST_HTTP_TOOLS, Schema, Tool, Tools, USUAL_TIMEOUT,
    },
};

/// Where the numbers of the directory stand.
const TRANSFER: &str = "transfer";
const CALLER_ID: &str = "transfer_caller_id";
const KEY: &str = "transfer_key";

/// Reads what the agent of a campaign with these `numbers` may do.
pub fn read(table: &Table<'_>, inherited: &Inherited, numbers: &[CallerId]) -> Tools {
    let listed = table.entry("tools");
    let destinations = table.names(TRANSFER, MOST_DESTINATIONS);
    let environment = &inherited.tools;
    let settings = ToolSettings {
        built_in: match &listed {
            Some(entry) => built_in(entry),
            None => environment.built_in.clone(),
        },
        directory: Directory {
            destinations: if table.is_without(TRANSFER) {
                environment.directory.destinations.clone()
            } else {
                directory(&destinations, &inherited.countries)
            },
            caller_id: table
                .entry(CALLER_ID)
                .and_then(|entry| number(&entry))
                .or_else(|| environment.directory.caller_id.clone()),
            number: numbers.iter().find_map(|number| match number {
                CallerId::Number(number) => Some(number.clone()),
                CallerId::Address(_)
                | CallerId::Withheld
                | CallerId::Masked(_)
                | CallerId::Other(_) => None,
            }),
            key: table
                .entry(KEY)
                .and_then(|entry| entry.parsed(&format!("{KEY_RULE}, in quotes")))
                .or(environment.directory.key),
        },
    };
    let transfers = settings.built_in.contains(&BuiltIn::TransferCall);
    if let Some(entry) = listed.filter(|_| transfers)
        && settings.directory.destinations.is_empty()
        && destinations.is_empty()
    {
        entry.remark(
            "transfer_call needs a directory: reception = \"+97221234567\" in [….transfer]",
        );
    }
    if !transfers && let Some((_, entry)) = destinations.first() {
        entry.hint("nobody is handed over: transfer_call is not among the tools");
    }
    let mut http = Vec::new();
    for table in table.tables("http_tools", MOST_HTTP_TOOLS) {
        if let Some(tool) = http_tool(&table, inherited, &http) {
            http.push(tool);
        }
        table.finish();
    }
    settings.with(http)
}

fn built_in(entry: &Entry<'_>) -> Vec<BuiltIn> {
    let mut tools = Vec::new();
    let rule = format!("a list of {RULE}, such as [\"end_call\"]");
    for entry in entry.list(BuiltIn::ALL.len(), &rule) {
        let Some(tool) = entry.parsed(&format!("one of {RULE}")) else {
            continue;
        };
        if tools.contains(&tool) {
            entry.warning("is listed twice");
        } else {
            tools.push(tool);
        }
    }
    tools
}

fn directory(
    destinations: &[(Name, Entry<'_>)],
    countries: &Countries,
) -> BTreeMap<Name, PhoneNumber> {
    let named = destinations.iter();
    let named = named.filter_map(|(name, entry)| {
        let number = number(entry)?;
        match flaw_of(&number, countries) {
            Some(Flaw::Refused(error)) => entry.remark(&error.to_string()),
            Some(Flaw::Odd(error)) => entry.hint(&error.to_string()),
            None => {}
        }
        Some((name.clone(), number))
    });
    named.collect()
}

/// Reads a number, which is not shown: it is somebody's.
fn number(entry: &Entry<'_>) -> Option<PhoneNumber> {
    let number = entry.as_text().and_then(|text| text.parse().ok());
    if number.is_none() {
        entry.remark("a number in E.164: \"+\" and 2 to 15 digits, in quotes");
    }
    number
}

/// Reads one HTTP tool, and whatever is wrong with it.
fn http_tool(table: &Table<'_>, inherited: &Inherited, others: &[Tool]) -> Option<Tool> {
    let name = table.needed("name", "what the agent calls it");
    let name = name.and_then(|entry| tool_name(&entry, others));
    let description = table.needed("description", "it tells the agent when to use it");
    let description = description.and_then(|entry| entry.text(LONGEST_DESCRIPTION));
    let url = table.needed("url", "the https address that is asked");
    let url = url.and_then(|entry| {
        let text = entry.text(2_048)?;
        let url = inherited.guard.url(text);
        // What is wrong with it, and not what it is: its path may be a secret.
        url.inspect_err(|error| entry.remark(&error.to_string()))
            .ok()
    });
    let timeout = table.entry("timeout_seconds").map(|entry| {
        let longest = u32::try_from(LONGEST_TIMEOUT.as_secs()).unwrap_or(u32::MAX);
        let seconds = entry.number(1..=longest);
        seconds.map_or(USUAL_TIMEOUT, |seconds| Duration::from_secs(seconds.into()))
    });
    let schema = match table.entry("parameters") {
        None => Schema::without_arguments().ok(),
        Some(entry) => schema(&entry),
    };
    Some(Tool {
        name: name?,
        description: description?.to_owned(),
        schema: schema?,
        does: Does::Asks {
            url: url?,
            timeout: timeout.unwrap_or(USUAL_TIMEOUT),
        },
    })
}

fn tool_name(entry: &Entry<'_>, others: &[Tool]) -> Option<Name> {
    let name = entry.name()?;
    if name.as_str().parse::<BuiltIn>().is_ok() {
        entry.mistake("a built-in tool is called so: list it among the tools");
        return None;
    }
    if others.iter().any(|other| other.name == name) {
        entry.mistake("another tool of the campaign is called so");
        return None;
    }
    Some(name)
}

fn schema(entry: &Entry<'_>) -> Option<Schema> {
    let schema = match entry.as_text() {
        Some(text) => Schema::parse(text),
        None => Schema::new(entry.json()),
    };
    schema
        .inspect_err(|error| entry.remark(&error.to_string()))
        .ok()
}
