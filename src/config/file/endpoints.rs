//! The endpoints of a tenant, which are told of its calls.

use crate::{
    config::{
        events::{NUMBERS_RULE, PAYLOAD_RULE, guarded, secrets_of},
        file::{
            Inherited,
            secret::Beside,
            table::{Entry, Table},
        },
    },
    event::{Endpoint, EventKind, KINDS},
};

/// How many endpoints one tenant may have.
const MOST_ENDPOINTS: usize = 10;
/// The longest address, in bytes.
const LONGEST_URL: usize = 2_048;

/// Reads the endpoints in a tenant's table.
pub fn read(tenant: &Table<'_>, inherited: &Inherited, beside: &mut Beside<'_>) -> Vec<Endpoint> {
    let tables = tenant.named("endpoints", MOST_ENDPOINTS).into_iter();
    let endpoints = tables.filter_map(|(name, table)| {
        let url = url(&table, inherited);
        let secrets = beside.secret(&table, "secret", "secret_file");
        let secrets = secrets.and_then(|(entry, text)| match secrets_of(&text) {
            Ok(secrets) => Some(secrets),
            Err(error) => {
                entry.remark(&error.to_string());
                None
            }
        });
        if table.is_without("secret") && table.is_without("secret_file") {
            table.missing("secret", "events are signed with it; or secret_file");
        }
        let kinds = kinds(&table);
        let numbers = table.entry("numbers");
        let numbers = numbers.and_then(|entry| entry.parsed(NUMBERS_RULE));
        let payload = table.entry("payload");
        let payload = payload.and_then(|entry| entry.parsed(PAYLOAD_RULE));
        table.finish();
        Some(Endpoint {
            name,
            url: url?,
            secrets: secrets?,
            kinds,
            numbers: numbers.unwrap_or_default(),
            payload: payload.unwrap_or_default(),
        })
    });
    endpoints.collect()
}

fn url(table: &Table<'_>, inherited: &Inherited) -> Option<crate::guard::GuardedUrl> {
    let Some(entry) = table.entry("url") else {
        table.missing("url", "an endpoint is there for its address");
        return None;
    };
    match guarded(entry.text(LONGEST_URL)?, &inherited.guard) {
        Ok(url) => Some(url),
        Err((Some(_), rule)) => {
            entry.mistake(&rule);
            None
        }
        // It may carry a secret.
        Err((None, rule)) => {
            entry.remark(&rule);
            None
        }
    }
}

/// Reads the kinds that an endpoint is told of. What was said is private: it takes a word more.
fn kinds(table: &Table<'_>) -> Vec<EventKind> {
    let entry = table.entry("events");
    let transcripts = table.entry("transcripts");
    let transcripts = transcripts.and_then(|entry| entry.switch());
    let transcripts = transcripts.unwrap_or(false);
    let Some(entry) = entry else {
        let told = |kind: &EventKind| transcripts || !kind.is_transcript();
        return KINDS.into_iter().filter(told).collect();
    };
    let rule = format!(
        "a list of kinds: {}",
        KINDS.map(|kind| format!("{:?}", kind.as_str())).join(", ")
    );
    let listed = entry.list(KINDS.len(), &rule);
    if listed.is_empty() && entry.is_list() {
        entry.mistake("no kind: it would never be told of anything");
    }
    let kind = |entry: &Entry<'_>| {
        let kind: EventKind = entry.parsed(&rule)?;
        if kind.is_transcript() && !transcripts {
            entry.mistake("private: set transcripts = true too");
        }
        Some(kind)
    };
    let mut kinds: Vec<_> = listed.iter().filter_map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}
