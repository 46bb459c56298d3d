//! How Azure Communication Services (ACS) is reached, and how it and Event Grid prove themselves.

mod access;

use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use url::Url;
use uuid::Uuid;

use crate::{
    chunk::Encoding,
    config::{
        reader::{Environment, Reader, split},
        vendor,
    },
};

pub use access::{AcsApi, AcsCredentials};

const RESOURCE: &str = "ACS_RESOURCE_ID";
const TENANT: &str = "EVENTGRID_TENANT_ID";
const AUDIENCE: &str = "EVENTGRID_AUDIENCE";
/// What any proof of Event Grid's is set by.
const EVENT_GRID: &[&str] = &[
    "EVENTGRID_SECRET",
    "EVENTGRID_SECRET_FILE",
    TENANT,
    AUDIENCE,
];
const SHORTEST_SECRET: usize = 16;
/// Whose hosts ACS has; those of a government's cloud are the second.
const ACS_DOMAINS: &[&str] = &["communication.azure.com", "communication.azure.us"];
const ENTRA_DOMAINS: &[&str] = &["microsoftonline.com", "microsoftonline.us"];

/// How ACS is reached and what proves that a request is its own.
#[derive(Debug)]
pub struct AcsSettings {
    /// Where calls are asked for, and by what right. `None`: no calls come by ACS.
    pub api: Option<AcsApi>,
    /// `ACS_RESOURCE_ID`: the immutable id of the resource, for which its tokens are made.
    pub resource: Option<Uuid>,
    /// `ACS_API_VERSION`. Default `2026-03-12`.
    pub api_version: String,
    /// `ACS_AUDIO_FORMAT`. Default `pcm24KMono`.
    pub audio: AcsAudio,
    /// `ACS_WS_JWT`: `required` or `if_present`. Default `required` in production.
    pub socket_token: SocketToken,
    /// `ACS_NOT_IN_SERVICE`: `ignore` or `say`. Default `ignore`.
    pub not_in_service: NotInService,
    /// `ACS_OPENID_URL`: where the keys of ACS's tokens are named.
    pub openid: Url,
    /// `ENTRA_LOGIN_URL`. Default `https://login.microsoftonline.com`.
    pub login: Url,
    pub event_grid: EventGridSettings,
}

/// What the audio of a call is asked for in: 16-bit samples of one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcsAudio {
    Pcm16K,
    Pcm24K,
}

/// Whether a media socket must bring a token of ACS's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketToken {
    Required,
    /// One that comes is checked.
    IfPresent,
}

/// What becomes of a call to a number that no campaign has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotInService {
    /// It rings on: another gateway of the same resource may answer it.
    Ignore,
    /// It is answered, told so and hung up.
    Say,
}

/// How Event Grid proves itself. It signs nothing.
#[derive(Debug)]
pub struct EventGridSettings {
    /// `EVENTGRID_SECRET`: what the subscription's address carries; several while one is rotated.
    pub secrets: Vec<SecretString>,
    /// `EVENTGRID_TENANT_ID` and `EVENTGRID_AUDIENCE`: for whom Entra makes its tokens.
    pub entra: Option<EventGridApplication>,
    /// `EVENTGRID_SUBSCRIPTIONS`: the subscriptions whose events count. Default: any.
    pub subscriptions: Vec<String>,
}

/// The application that a subscription with Entra tokens is set up for.
#[derive(Debug)]
pub struct EventGridApplication {
    pub tenant: Uuid,
    /// Its id, without `api://`.
    pub audience: String,
}

impl AcsSettings {
    pub(super) fn load(read: &Reader<impl Environment>, production: bool) -> Self {
        let settings = Self {
            api: AcsApi::load(read, production),
            resource: read.parsed(RESOURCE, "the resource's immutable id, a GUID"),
            api_version: api_version(read),
            audio: read
                .parsed("ACS_AUDIO_FORMAT", "pcm24KMono or pcm16KMono")
                .unwrap_or(AcsAudio::Pcm24K),
            socket_token: read
                .parsed("ACS_WS_JWT", "required or if_present")
                .unwrap_or(if production {
                    SocketToken::Required
                } else {
                    SocketToken::IfPresent
                }),
            not_in_service: read
                .parsed("ACS_NOT_IN_SERVICE", "ignore or say")
                .unwrap_or(NotInService::Ignore),
            openid: vendor::url(
                read,
                "ACS_OPENID_URL",
                "https://acscallautomation.communication.azure.com/calling/.well-known/\
                 acsopenidconfiguration",
                ACS_DOMAINS,
                production,
            ),
            login: vendor::url(
                read,
                "ENTRA_LOGIN_URL",
                "https://login.microsoftonline.com",
                ENTRA_DOMAINS,
                production,
            ),
            event_grid: EventGridSettings::load(read),
        };
        settings.demand_the_rest(read, production);
        settings
    }

    /// Tells whether calls can be taken: they can be answered, and who reports them is known.
    pub fn is_open(&self) -> bool {
        self.api.is_some() && self.event_grid.is_proven()
    }

    /// Reports what is missing where some of it is set.
    fn demand_the_rest(&self, read: &Reader<impl Environment>, production: bool) {
        // What is set and wrong has been reported already.
        let missing = |names: &[&str]| names.iter().all(|name| read.text(name).is_none());
        let missing = [
            ("ACS_CONNECTION_STRING", missing(access::NAMES)),
            ("EVENTGRID_SECRET", missing(EVENT_GRID)),
            (RESOURCE, missing(&[RESOURCE])),
        ];
        if missing.iter().all(|(_, missing)| *missing) {
            return;
        }
        for (name, _) in missing.iter().filter(|(_, missing)| *missing) {
            match *name {
                _ if production => {
                    read.mistake(name, None, "not set (ACS's other settings need it)");
                }
                RESOURCE if self.socket_token == SocketToken::Required => {
                    read.mistake(name, None, "not set (ACS_WS_JWT=required needs it)");
                }
                RESOURCE => read.warning(format!(
                    "{RESOURCE} is not set: ACS's tokens are not checked"
                )),
                _ => read.warning(format!("{name} is not set: ACS is closed")),
            }
        }
    }
}

impl EventGridSettings {
    fn load(read: &Reader<impl Environment>) -> Self {
        const NAME: &str = "EVENTGRID_SECRET";
        let secrets = read.secret(NAME);
        let secrets = split(secrets.as_ref().map_or("", |text| text.expose_secret()));
        if secrets.iter().any(|secret| secret.len() < SHORTEST_SECRET) {
            let rule = "too short: at least 16 characters each, best from a generator";
            read.mistake(NAME, None, rule);
        }
        Self {
            secrets: secrets.into_iter().map(SecretString::from).collect(),
            entra: application(read),
            subscriptions: read.list("EVENTGRID_SUBSCRIPTIONS"),
        }
    }

    fn is_proven(&self) -> bool {
        !self.secrets.is_empty() || self.entra.is_some()
    }
}

impl AcsAudio {
    /// Returns how its audio is encoded, both ways.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Pcm16K => Encoding::Pcm16k,
            Self::Pcm24K => Encoding::Pcm24k,
        }
    }

    /// Returns the name that ACS has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pcm16K => "pcm16KMono",
            Self::Pcm24K => "pcm24KMono",
        }
    }
}

impl FromStr for AcsAudio {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = [Self::Pcm16K, Self::Pcm24K];
        let known = known
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(text));
        known.ok_or(())
    }
}

impl FromStr for NotInService {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "ignore" => Ok(Self::Ignore),
            "say" => Ok(Self::Say),
            _ => Err(()),
        }
    }
}

impl FromStr for SocketToken {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "required" => Ok(Self::Required),
            "if_present" => Ok(Self::IfPresent),
            _ => Err(()),
        }
    }
}

fn application(read: &Reader<impl Environment>) -> Option<EventGridApplication> {
    let tenant = read.parsed(TENANT, "a GUID, as Entra shows it");
    let audience = read.text(AUDIENCE);
    match (read.text(TENANT).is_some(), audience) {
        (true, Some(audience)) => {
            let plain = audience.strip_prefix("api://").unwrap_or(&audience);
            let audience = plain.to_owned();
            tenant.map(|tenant| EventGridApplication { tenant, audience })
        }
        (true, None) => {
            read.mistake(AUDIENCE, None, "not set (EVENTGRID_TENANT_ID goes with it)");
            None
        }
        (false, Some(_)) => {
            read.mistake(TENANT, None, "not set (EVENTGRID_AUDIENCE goes with it)");
            None
        }
        (false, None) => None,
    }
}

fn api_version(read: &Reader<impl Environment>) -> String {
    const NAME: &str = "ACS_API_VERSION";
    const FIRST: &str = "2025-05-15";
    let Some(version) = read.text(NAME) else {
        return "2026-03-12".to_owned();
    };
    // Dates of this shape compare as texts do.
    let date = version.get(..10).unwrap_or_default();
    let rest = version.get(10..).unwrap_or_default();
    if date.parse::<jiff::civil::Date>().is_err() || !matches!(rest, "" | "-preview") {
        read.mistake(NAME, Some(version.clone()), "a date, such as 2026-03-12");
    } else if date < FIRST {
        let rule = "too old: calls have media sockets from 2025-05-15 on";
        read.mistake(NAME, Some(version.clone()), rule);
    }
    version
}

#[cfg(test)]
mod tests;
