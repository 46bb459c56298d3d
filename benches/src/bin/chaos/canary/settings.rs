//! A gateway whose every secret is one that would be noticed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use callgate_benches::carrier::{ACCOUNT_SID, AUTH_TOKEN};
use callgate_benches::cluster::Options;
use rand::rngs::StdRng;

use super::agent::Words;
use super::marks::{Kind, Marks};

/// What says which settings are secret.
const ENVIRONMENT: &str = include_str!("../../../../../.env.example");
/// The id of whatever has one at Azure.
pub const ID: &str = "00000000-0000-4000-8000-000000000000";
/// Where a call is handed over to.
const DESK: &str = "+97236123459";

/// The two ways of setting a gateway up, since some secrets stand for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The log is text, numbers are kept whole, `OpenAI` talks, calls come by ACS and from browsers,
    /// too, callers who are refused are written to, and the environment says it all.
    Text,
    /// The log is JSON, numbers are kept hashed, Voice Live talks, there is a campaign file, calls are
    /// placed, and callers who are refused may leave a message.
    Json,
}

impl Way {
    pub const ALL: [Self; 2] = [Self::Text, Self::Json];

    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// Returns whose calls there are.
    pub fn tenant(self) -> &'static str {
        match self {
            Self::Text => "default",
            Self::Json => "canary",
        }
    }
}

/// Whom a gateway talks to.
pub struct Others<'a> {
    pub agent: SocketAddr,
    pub tool: SocketAddr,
    pub sink: SocketAddr,
    pub collector: SocketAddr,
    /// Where Twilio is asked for something.
    pub twilio: String,
    /// Where ACS is.
    pub acs: SocketAddr,
    /// Where a campaign file may be.
    pub directory: &'a Path,
}

/// What the story has to know of the secrets.
#[derive(Debug, Clone)]
pub struct Secrets {
    pub words: Words,
    pub operator: String,
    pub event_grid: String,
    /// What requests to ACS are signed with.
    pub acs: String,
    /// The key of the sink's signatures.
    pub events: String,
}

impl Secrets {
    pub fn make(marks: &mut Marks, way: Way, random: &mut StdRng) -> Self {
        let (key, acs) = match way {
            Way::Text => ("OPENAI_API_KEY", "ACS_CONNECTION_STRING"),
            Way::Json => ("VOICE_LIVE_API_KEY", "ACS_CLIENT_SECRET"),
        };
        Self {
            words: Words {
                caller: marks.words("what the caller says", random),
                agent: marks.words("what the agent says", random),
                argument: marks.secret("what a tool is asked with", random),
                result: marks.secret("what a tool answers", random),
                key: marks.secret(key, random),
            },
            operator: marks.secret("OPS_TOKEN", random),
            event_grid: marks.secret("EVENTGRID_SECRET", random),
            acs: marks.base64(acs, random),
            events: format!("whsec_{}", marks.base64("EVENTS_SECRET", random)),
        }
    }
}

impl Secrets {
    /// Returns how a gateway and a fake ACS at `address` find and trust each other.
    pub fn acs_at(&self, address: SocketAddr) -> String {
        format!("endpoint=http://{address}/;accesskey={}", self.acs)
    }
}

/// Sets a gateway up with every secret there is; returns the names of those, too.
pub fn set(
    options: Options,
    way: Way,
    (secrets, marks): (&Secrets, &mut Marks),
    others: &Others<'_>,
    database: &str,
    random: &mut StdRng,
) -> std::io::Result<(Options, BTreeSet<String>)> {
    let mut word = |what: &str| marks.secret(what, random);
    let (ticket, record, read) = (
        word("TICKET_SECRET"),
        word("RECORD_SECRET"),
        word("OPS_READ_TOKEN"),
    );
    let shared = format!("shared={}", word("TWILIO_SHARED_KEYS"));
    let database = database.replacen(
        "callgate@",
        &format!("callgate:{}@", word("DATABASE_URL")),
        1,
    );
    let redis = word("REDIS_URL");
    let collector = format!("authorization={}", word("OTEL_EXPORTER_OTLP_HEADERS"));
    let mut settings = vec![
        ("RUST_LOG", "debug".to_owned()),
        ("LOG_FORMAT", way.name().to_owned()),
        ("MAX_ACTIVE_CALLS", "2".to_owned()),
        ("DATABASE_URL", database),
        ("GUARD_ALLOW", "127.0.0.0/8".to_owned()),
        ("TWILIO_ACCOUNT_SID", ACCOUNT_SID.to_owned()),
        ("ACS_RESOURCE_ID", ID.to_owned()),
        ("TWILIO_API_BASE", others.twilio.clone()),
        ("TWILIO_AUTH_TOKEN", AUTH_TOKEN.to_owned()),
        ("TWILIO_SHARED_KEYS", shared),
        ("TICKET_SECRET", ticket),
        ("RECORD_SECRET", record),
        ("OPS_TOKEN", secrets.operator.clone()),
        ("OPS_READ_TOKEN", read),
        ("EVENTGRID_SECRET", secrets.event_grid.clone()),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{}", others.collector),
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", collector),
    ];
    match way {
        Way::Text => {
            let mut word = |what: &str| marks.secret(what, random);
            settings.extend([
                ("AGENT", "openai".to_owned()),
                (
                    "OPENAI_REALTIME_URL",
                    format!("ws://{}/v1/realtime", others.agent),
                ),
                ("OPENAI_API_KEY", secrets.words.key.clone()),
                ("VOICE_LIVE_TENANT_ID", ID.to_owned()),
                ("VOICE_LIVE_CLIENT_ID", ID.to_owned()),
                ("VOICE_LIVE_CLIENT_SECRET", word("VOICE_LIVE_CLIENT_SECRET")),
                ("TWILIO_API_KEY_SID", format!("SK{}", &ACCOUNT_SID[2..])),
                ("TWILIO_API_KEY_SECRET", word("TWILIO_API_KEY_SECRET")),
                ("ACS_CONNECTION_STRING", secrets.acs_at(others.acs)),
                (
                    "ACS_OPENID_URL",
                    format!(
                        "http://{}/calling/.well-known/acsopenidconfiguration",
                        others.acs
                    ),
                ),
                ("CALLS_OVER_CAPACITY_BEHAVIOR", "whatsapp".to_owned()),
                ("WHATSAPP_FROM", "+972722234568".to_owned()),
                ("WHATSAPP_TEMPLATE_SID", format!("HX{}", &ACCOUNT_SID[2..])),
                ("EVENTS_URL", format!("http://{}/", others.sink)),
                ("EVENTS_SECRET", secrets.events.clone()),
                ("AGENT_TOOLS", "end_call,transfer_call".to_owned()),
                ("AGENT_TRANSFERS", format!("desk={DESK}")),
            ]);
        }
        Way::Json => {
            let config = others.directory.join("campaigns.toml");
            std::fs::write(&config, campaigns(secrets, others))?;
            settings.extend([
                ("RECORD_NUMBERS", "hashed".to_owned()),
                ("AGENT", "voice_live".to_owned()),
                (
                    "VOICE_LIVE_URL",
                    format!("ws://{}/voice-live/realtime", others.agent),
                ),
                ("VOICE_LIVE_API_KEY", secrets.words.key.clone()),
                (
                    "ACS_ENDPOINT",
                    "https://canary.communication.azure.com".to_owned(),
                ),
                ("ACS_TENANT_ID", ID.to_owned()),
                ("ACS_CLIENT_ID", ID.to_owned()),
                ("ACS_CLIENT_SECRET", secrets.acs.clone()),
                ("CALLGATE_CONFIG", config.display().to_string()),
                ("OUTBOUND_COUNTRIES", "IL".to_owned()),
                ("OUTBOUND_FROM", "+972722234567".to_owned()),
            ]);
        }
    }
    marks.add(Kind::Secret, "TWILIO_AUTH_TOKEN", AUTH_TOKEN);
    marks.number("whom a call is handed over to", DESK);
    let mut names: BTreeSet<String> = settings.iter().map(|(it, _)| (*it).to_owned()).collect();
    names.insert("REDIS_URL".to_owned());
    let options = options.redis_user("canary", &redis);
    let set = |options: Options, (name, value): (&str, String)| options.set(name, value);
    Ok((settings.into_iter().fold(options, set), names))
}

fn campaigns(secrets: &Secrets, others: &Others<'_>) -> String {
    format!(
        r#"default_campaign = "main"
[tenants.canary.endpoints.crm]
url = "http://{sink}/"
secret = "{secret}"
[campaigns.main]
tenant = "canary"
tools = ["end_call", "transfer_call"]
when_full = "voicemail"
[campaigns.main.transfer]
desk = "{DESK}"
[[campaigns.main.http_tools]]
name = "book"
description = "Books a time."
url = "http://{tool}/"
parameters = {{ type = "object", properties = {{ who = {{ type = "string" }} }} }}
"#,
        sink = others.sink,
        secret = secrets.events,
        tool = others.tool,
    )
}

/// Lists the settings that are secret.
pub fn secret_settings() -> BTreeSet<String> {
    let (mut secret, mut names) = (false, BTreeSet::new());
    for line in ENVIRONMENT.lines() {
        let setting = line.trim_start_matches('#').split_once('=');
        let name = setting.map(|(name, _)| name).filter(|name| {
            !name.is_empty() && name.bytes().all(|it| it.is_ascii_uppercase() || it == b'_')
        });
        match name {
            Some(name) => {
                if secret {
                    names.insert(name.to_owned());
                }
                secret = false;
            }
            None => secret = (secret || line.contains("(secret)")) && line.starts_with('#'),
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_are_secret_are_read_where_they_are_described() {
        let secret = secret_settings();
        for name in [
            "TICKET_SECRET",
            "REDIS_URL",
            "OPENAI_API_KEY",
            "VOICE_LIVE_CLIENT_SECRET",
        ] {
            assert!(secret.contains(name), "{name} in {secret:?}");
        }
        for name in ["LISTEN", "VOICE_LIVE_CLIENT_ID", "RECORD_DAYS"] {
            assert!(!secret.contains(name), "{name} in {secret:?}");
        }
    }
}
