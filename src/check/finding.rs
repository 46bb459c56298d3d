//! Everything that the check can find, and how grave each of it is.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeStruct};
use url::Url;

use crate::{
    admission::{Flaw, StoreError},
    agent::AgentError,
    campaign::Name,
    carrier::{acs::AcsError, twilio::CallError},
    check::{clock::Clock, words},
    guard::{GuardedUrl, Whereabouts},
    record::DatabaseError,
};

/// What came of one thing that was tried. Shown, it is one line: how grave it is, what was tried,
/// what was found, and what to do about it unless it is as it should be.
#[derive(Debug)]
pub enum Finding {
    SettingsFit,
    SettingOdd(String),
    SettingWrong(String),
    NoCampaignFile,
    CampaignFileFits(FileCounts),
    CampaignFileOdd(String),
    CampaignFileWrong(String),
    TemplatesFit,
    TemplateWrong(String),
    PromptsFit,
    PromptWrong(String),
    ListenFree(SocketAddr),
    ListenServes(SocketAddr),
    ListenTaken(SocketAddr, std::io::Error),
    PublicUrlUnset(SocketAddr),
    PublicUrlPrivate(Url),
    PublicUrlPlain(Url),
    PublicUrlFits(Url),
    /// What carriers send to `PUBLIC_URL`, and what comes of it.
    Way(Way),
    TwilioOpen,
    TwilioClosed,
    /// There is an auth token, and no account to ask with it.
    TwilioUntried,
    /// A carrier takes our credentials.
    CredentialsFit(Credentials),
    TwilioWrong(Credentials, CallError),
    AcsWrong(AcsError),
    SlotsInMemory,
    SlotsFlawed {
        flaw: Flaw,
        fatal: bool,
    },
    SlotsFit(String),
    SlotsFail(StoreError),
    ReplicasFit(u32),
    ReplicasMore {
        live: u32,
        expected: u32,
    },
    DatabaseNew(PathBuf),
    DatabaseNoPlace(PathBuf, std::io::Error),
    DatabaseFits,
    /// So many migrations that the next start makes.
    DatabasePending(usize),
    /// Migrations that were begun or made otherwise than ours.
    DatabaseForeign(Vec<i64>),
    DatabaseReadOnly(DatabaseError),
    DatabaseAway(DatabaseError),
    Endpoint {
        tenant: Name,
        url: GuardedUrl,
        whereabouts: Whereabouts,
    },
    Certificates(std::io::Error),
    AgentWithin(Name),
    AgentReady(Name, Url),
    AgentFails(Name, Url, AgentError),
    ClockFits(Clock),
    /// A clock is ahead of ours by so many milliseconds, or behind if negative.
    ClockOff(Clock, i64),
    GraceFits(Duration),
    /// In production nobody has said how long there is.
    GraceUnknown,
    GraceShort {
        grace: Duration,
        drain: Duration,
    },
    /// What was tried did not come to an end in time.
    Unfinished(&'static str),
}

/// What a campaign file holds.
#[derive(Debug)]
pub struct FileCounts {
    pub campaigns: usize,
    pub tenants: usize,
    pub numbers: usize,
    pub agents: usize,
}

/// What comes of what carriers send to `PUBLIC_URL`.
#[derive(Debug)]
pub enum Way {
    /// Nobody answers; `serves` tells whether a gateway serves on this machine.
    Silent {
        error: reqwest::Error,
        serves: bool,
    },
    /// Whoever answers sends us elsewhere.
    Redirects {
        status: u16,
        to: Option<Url>,
    },
    /// A proxy answers, and no gateway serves on this machine yet.
    NobodyBehind {
        status: u16,
    },
    /// Whoever answers is no gateway.
    Stranger {
        status: u16,
    },
    /// A gateway answers, and what a carrier would sign was not tried.
    Answers,
    /// What is signed for this address is taken.
    SignatureFits,
    /// There are shared keys alone, by which the check does not sign.
    Unsigned,
    SignatureRefused,
    /// A webhook does not come through.
    WebhookLost {
        status: u16,
    },
    WebhookBroken(reqwest::Error),
    UpgradeFits,
    /// An upgrade arrives as a plain request.
    UpgradeStripped {
        status: u16,
    },
    /// A gateway takes no socket at present.
    UpgradeNoRoom,
    UpgradeRefused {
        status: u16,
    },
    UpgradeBroken(String),
}

/// What proves us to a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// What Twilio's REST API is asked with.
    TwilioApi,
    /// The auth token beside an API key, which signs webhooks.
    TwilioToken,
    Acs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Calls can be answered, though perhaps not as they are meant to be.
    Warning,
    Error,
}

impl Finding {
    pub fn level(&self) -> Level {
        match self {
            Self::SettingsFit
            | Self::NoCampaignFile
            | Self::CampaignFileFits(_)
            | Self::TemplatesFit
            | Self::PromptsFit
            | Self::ListenFree(_)
            | Self::ListenServes(_)
            | Self::PublicUrlFits(_)
            | Self::TwilioOpen
            | Self::CredentialsFit(_)
            | Self::SlotsInMemory
            | Self::SlotsFit(_)
            | Self::ReplicasFit(_)
            | Self::DatabaseNew(_)
            | Self::DatabaseFits
            | Self::AgentWithin(_)
            | Self::AgentReady(..)
            | Self::ClockFits(_)
            | Self::GraceFits(_) => Level::Ok,
            Self::SettingOdd(_)
            | Self::CampaignFileOdd(_)
            | Self::PublicUrlUnset(_)
            | Self::PublicUrlPrivate(_)
            | Self::PublicUrlPlain(_)
            | Self::TwilioClosed
            | Self::TwilioUntried
            | Self::GraceUnknown
            | Self::ReplicasMore { .. }
            | Self::DatabasePending(_) => Level::Warning,
            Self::SettingWrong(_)
            | Self::CampaignFileWrong(_)
            | Self::TemplateWrong(_)
            | Self::PromptWrong(_)
            | Self::ListenTaken(..)
            | Self::TwilioWrong(..)
            | Self::AcsWrong(_)
            | Self::SlotsFail(_)
            | Self::DatabaseNoPlace(..)
            | Self::DatabaseForeign(_)
            | Self::DatabaseReadOnly(_)
            | Self::DatabaseAway(_)
            | Self::Certificates(_)
            | Self::AgentFails(..)
            | Self::GraceShort { .. }
            | Self::Unfinished(_) => Level::Error,
            Self::SlotsFlawed { fatal: true, .. } => Level::Error,
            Self::SlotsFlawed { fatal: false, .. } => Level::Warning,
            Self::Endpoint { whereabouts, .. } => match whereabouts {
                Whereabouts::Fit | Whereabouts::Proxied => Level::Ok,
                Whereabouts::Blocked | Whereabouts::Unknown => Level::Error,
            },
            Self::ClockOff(clock, ahead) => clock.level(*ahead),
            Self::Way(way) => way.level(),
        }
    }

    /// Returns what was tried.
    pub fn about(&self) -> String {
        let about = match self {
            Self::SettingsFit | Self::SettingOdd(_) | Self::SettingWrong(_) => "settings",
            Self::NoCampaignFile
            | Self::CampaignFileFits(_)
            | Self::CampaignFileOdd(_)
            | Self::CampaignFileWrong(_) => "campaign file",
            Self::TemplatesFit | Self::TemplateWrong(_) => "templates",
            Self::PromptsFit | Self::PromptWrong(_) => "prompts",
            Self::ListenFree(_) | Self::ListenServes(_) | Self::ListenTaken(..) => "LISTEN",
            Self::PublicUrlUnset(_)
            | Self::PublicUrlPrivate(_)
            | Self::PublicUrlPlain(_)
            | Self::PublicUrlFits(_) => "PUBLIC_URL",
            Self::Way(way) => way.about(),
            Self::TwilioOpen | Self::TwilioClosed => "twilio",
            Self::CredentialsFit(credentials) | Self::TwilioWrong(credentials, _) => {
                credentials.about()
            }
            Self::TwilioUntried => Credentials::TwilioToken.about(),
            Self::AcsWrong(_) => Credentials::Acs.about(),
            Self::SlotsInMemory
            | Self::SlotsFlawed { .. }
            | Self::SlotsFit(_)
            | Self::SlotsFail(_) => "slots",
            Self::ReplicasFit(_) | Self::ReplicasMore { .. } => "EXPECTED_REPLICAS",
            Self::DatabaseNew(_)
            | Self::DatabaseNoPlace(..)
            | Self::DatabaseFits
            | Self::DatabasePending(_)
            | Self::DatabaseForeign(_)
            | Self::DatabaseReadOnly(_)
            | Self::DatabaseAway(_) => "database",
            Self::Endpoint { tenant, .. } => return format!("events of {tenant}"),
            Self::Certificates(_) => "agents",
            Self::AgentWithin(name) | Self::AgentReady(name, _) | Self::AgentFails(name, ..) => {
                return format!("agent {name}");
            }
            Self::ClockFits(clock) | Self::ClockOff(clock, _) => {
                return format!("clock of {clock}");
            }
            Self::GraceFits(_) | Self::GraceShort { .. } | Self::GraceUnknown => "DRAIN_SECONDS",
            Self::Unfinished(about) => about,
        };
        about.to_owned()
    }
}

impl Way {
    fn level(&self) -> Level {
        match self {
            Self::Answers | Self::SignatureFits | Self::UpgradeFits => Level::Ok,
            // Before the first start nobody can answer, and some machines do not reach their own
            // public address.
            Self::Silent { serves: false, .. }
            | Self::NobodyBehind { .. }
            | Self::Unsigned
            | Self::UpgradeNoRoom => Level::Warning,
            Self::Silent { serves: true, .. }
            | Self::Redirects { .. }
            | Self::Stranger { .. }
            | Self::SignatureRefused
            | Self::WebhookLost { .. }
            | Self::WebhookBroken(_)
            | Self::UpgradeStripped { .. }
            | Self::UpgradeRefused { .. }
            | Self::UpgradeBroken(_) => Level::Error,
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Self::Silent { .. }
            | Self::NobodyBehind { .. }
            | Self::Redirects { .. }
            | Self::Stranger { .. }
            | Self::Answers => "way in",
            Self::SignatureFits
            | Self::Unsigned
            | Self::SignatureRefused
            | Self::WebhookLost { .. }
            | Self::WebhookBroken(_) => "way of webhooks",
            Self::UpgradeFits
            | Self::UpgradeStripped { .. }
            | Self::UpgradeNoRoom
            | Self::UpgradeRefused { .. }
            | Self::UpgradeBroken(_) => "way of media",
        }
    }
}

impl Credentials {
    fn about(self) -> &'static str {
        match self {
            Self::TwilioApi => "twilio's API",
            Self::TwilioToken => "twilio's auth token",
            Self::Acs => "acs",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level() {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{level:<7}  {}: {}", self.about(), words::what(self))
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut finding = serializer.serialize_struct("Finding", 3)?;
        finding.serialize_field("level", &self.level())?;
        finding.serialize_field("about", &self.about())?;
        finding.serialize_field("what", &words::what(self))?;
        finding.end()
    }
}
