//! Every setting, with its default and its unit: environment variables, read once.

mod acs;
mod agent;
mod caps;
mod events;
mod file;
mod guard;
mod outbound;
mod reader;
mod records;
mod refusal;
mod store;
mod tools;
mod traces;
mod twilio;
mod vendor;
mod voice_live;
mod web;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    config::reader::{Environment, Reader},
    guard::GuardRules,
    language::Language,
    spending::Currency,
};

pub use acs::{
    AcsApi, AcsAudio, AcsCredentials, AcsSettings, EventGridApplication, NotInService, SocketToken,
};
pub use agent::{AgentKind, AgentSettings, Detector};
pub use caps::Caps;
pub use events::EventSettings;
pub use file::{CampaignFile, FileError, Inherited, read as read_file};
pub use outbound::OutboundSettings;
pub use reader::ConfigError;
pub use records::{KeptNumbers, RecordSettings};
pub use refusal::{ApiSettings, RefusalSettings, Sender, Unset, WhatsappSettings};
pub use store::{RedisOutage, RedisSettings, StoreSettings};
pub use tools::ToolSettings;
pub use traces::TraceSettings;
pub use twilio::TwilioSettings;
pub use voice_live::{EntraSettings, NOISE_SUPPRESSION, VoiceLiveAccess};
pub use web::WebSettings;

/// The settings of one gateway. Secrets in it show as `[REDACTED]`.
#[derive(Debug)]
pub struct Config {
    /// `LISTEN`: the address that serves webhooks and media sockets. Default `127.0.0.1:5050`,
    /// in production `0.0.0.0:5050`.
    pub listen: SocketAddr,
    /// `PUBLIC_URL`: what carriers call us by; signatures and media addresses are made from it.
    /// Required in production; default `http://` and [`Config::listen`].
    pub public_url: Option<Url>,
    /// `PRODUCTION`: refuses insecure combinations. Default off.
    pub production: bool,
    /// `WORKERS`: threads that carry calls. Default: one a core.
    pub workers: usize,
    /// `DEFAULT_LANGUAGE`: what callers are told in. Default `he-IL`.
    pub language: Language,
    /// `TEMPLATES_DIR`: texts and prompts of the operator's own, in place of the embedded ones.
    pub templates: Option<PathBuf>,
    /// `CALLGATE_CONFIG`: the file of tenants, campaigns and agents. Default: one campaign.
    pub campaigns: Option<PathBuf>,
    /// `DRAIN_SECONDS`: how long live calls may go on after a SIGTERM. Default 300.
    pub drain: Duration,
    /// `TERMINATION_GRACE_SECONDS`: how long whoever stops the process waits before it kills, which
    /// `callgate check` compares with `DRAIN_SECONDS`. Default: not known.
    pub grace: Option<Duration>,
    /// `MAX_CALL_SECONDS`: the longest call. Default 14400, as long as Twilio lets one be.
    pub longest_call: Duration,
    /// `LOG_FORMAT`: `text` or `json`. Default `text`.
    pub log_format: LogFormat,
    pub twilio: TwilioSettings,
    pub acs: AcsSettings,
    pub web: WebSettings,
    pub agent: AgentSettings,
    /// For agents of Voice Live in the campaign file, whatever `AGENT` is.
    pub voice_live: VoiceLiveAccess,
    pub caps: Caps,
    pub store: StoreSettings,
    pub records: RecordSettings,
    pub refusal: RefusalSettings,
    pub tools: ToolSettings,
    pub outbound: Box<OutboundSettings>,
    pub events: EventSettings,
    /// `GUARD_PORTS`, `GUARD_ALLOW`, `EGRESS_PROXY`: where requests may go whose addresses tenants
    /// choose. Default: to public addresses, port 443, without a proxy.
    pub guard: GuardRules,
    /// `TICKET_SECRET`: signs tickets; the same on all replicas. Default: random.
    pub ticket_secret: Option<SecretString>,
    pub operator: OperatorSettings,
    /// `None`: calls are not traced.
    pub traces: Option<TraceSettings>,
    /// What is odd about the settings, for the log of the start.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Who may look at operators' pages.
#[derive(Debug, Default)]
pub struct OperatorSettings {
    /// `OPS_TOKEN`. Required in production; without it the pages answer on loopback only.
    pub token: Option<SecretString>,
    /// `OPS_READ_TOKEN`: sees, but changes nothing.
    pub read_token: Option<SecretString>,
    /// `PRICES_CURRENCY`: what all prices are in, such as EUR. Default: it is not said.
    pub currency: Option<Currency>,
    /// Whether browsers keep a login for https only: in production.
    pub https_only: bool,
}

impl Config {
    /// Reads the settings from `environment`, a function from a variable's name to its value.
    ///
    /// # Errors
    /// If any setting breaks its rule, or several do not go together.
    pub fn load(environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = Reader::new(environment);
        let production = read.switch("PRODUCTION");
        let listen = if production {
            "0.0.0.0:5050"
        } else {
            "127.0.0.1:5050"
        };
        let listen = read
            .parsed("LISTEN", "an address and a port, such as 127.0.0.1:5050")
            .unwrap_or_else(|| listen.parse().expect("a literal address"));
        let store = StoreSettings::load(&read);
        let acs = AcsSettings::load(&read, production);
        let sealing = (store.redis.is_some(), acs.is_open());
        let voice_live = VoiceLiveAccess::load(&read, production, &acs.login);
        // One carrier is enough; in production there must be one.
        let twilio = TwilioSettings::load(&read, production && !acs.is_open());
        let api = ApiSettings::load(&read, production, &twilio);
        let outbound = Box::new(OutboundSettings::load(&read, &api, &acs));
        let guard = guard::load(&read, production);
        let campaigns = read.text("CALLGATE_CONFIG").map(PathBuf::from);
        let mut config = Self {
            listen,
            public_url: public_url(&read, production),
            production,
            workers: workers(&read),
            language: read
                .parsed("DEFAULT_LANGUAGE", "a language tag, such as he-IL")
                .unwrap_or_default(),
            templates: read.text("TEMPLATES_DIR").map(PathBuf::from),
            campaigns,
            drain: read.seconds("DRAIN_SECONDS", 300, 0..=86_400),
            grace: grace(&read),
            longest_call: read.seconds("MAX_CALL_SECONDS", 14_400, 10..=86_400),
            log_format: read
                .parsed("LOG_FORMAT", "text or json")
                .unwrap_or(LogFormat::Text),
            acs,
            agent: AgentSettings::load(&read, production, &voice_live),
            voice_live,
            caps: Caps::load(&read, production, &store),
            refusal: RefusalSettings::load(&read, &api),
            tools: ToolSettings::load(&read, &outbound.countries),
            outbound,
            events: EventSettings::load(&read, &guard),
            guard,
            twilio,
            web: WebSettings::load(&read, production),
            ticket_secret: ticket_secret(&read, production, sealing),
            records: RecordSettings::load(&read, production, store.redis.is_some()),
            store,
            operator: OperatorSettings::load(&read, production),
            traces: TraceSettings::load(&read),
            warnings: Vec::new(),
        };
        // Who tries callgate out needs no warning of it.
        let calls_out = production && !config.outbound.countries.is_empty();
        config
            .records
            .learn(config.ticket_secret.as_ref(), calls_out, &read);
        let (file, kept) = (config.campaigns.is_some(), config.records.kept);
        config.events.check(&read, file, kept, config.longest_call);
        if config.campaigns.is_some() && read.text("TWILIO_NUMBERS").is_some() {
            let rule = "not beside CALLGATE_CONFIG: put the numbers into that file";
            read.mistake("TWILIO_NUMBERS", None, rule);
        }
        if config.campaigns.is_some() && config.events.endpoint.is_some() {
            let rule = "not beside CALLGATE_CONFIG: put endpoints into that file";
            read.mistake("EVENTS_URL", None, rule);
        }
        let warnings = read.finish()?;
        Ok(Self { warnings, ..config })
    }

    /// Returns what a campaign file leaves to the environment.
    pub fn inherited(&self) -> Inherited {
        Inherited {
            production: self.production,
            language: self.language.clone(),
            when_full: self.refusal.when_full,
            acs_when_full: self.refusal.acs_when_full.clone(),
            whatsapp_lacks: match &self.refusal.whatsapp {
                Ok(_) => String::new(),
                Err(unset) => unset.to_string(),
            },
            caps: self.caps.clone(),
            countries: self.outbound.countries.clone(),
            agent: self.agent.clone(),
            voice_live: self.voice_live.clone(),
            tools: self.tools.clone(),
            guard: self.guard.clone(),
            endpoints: self.events.endpoints(),
        }
    }
}

impl OperatorSettings {
    fn load(read: &Reader<impl Environment>, production: bool) -> Self {
        let settings = Self {
            token: long_secret(read, "OPS_TOKEN"),
            read_token: long_secret(read, "OPS_READ_TOKEN"),
            currency: read.parsed("PRICES_CURRENCY", "three letters of ISO 4217, such as EUR"),
            https_only: production,
        };
        if production && settings.token.is_none() {
            let rule = "not set (in production operators' pages must not be open)";
            read.mistake("OPS_TOKEN", None, rule);
        }
        settings
    }
}

impl std::str::FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

fn public_url(read: &Reader<impl Environment>, production: bool) -> Option<Url> {
    const RULE: &str = "the https address that carriers reach us at, without a query";
    let url: Option<Url> = read.parsed("PUBLIC_URL", RULE);
    match &url {
        Some(url) => {
            let scheme = matches!(url.scheme(), "https") || (!production && url.scheme() == "http");
            let plain = url.has_host() && url.query().is_none() && url.fragment().is_none();
            if !(scheme && plain && is_free_of_secrets(url)) {
                read.mistake("PUBLIC_URL", shown(url), RULE);
            }
        }
        None if production && read.text("PUBLIC_URL").is_none() => {
            read.mistake("PUBLIC_URL", None, "not set (required in production)");
        }
        None => {}
    }
    url
}

fn grace(read: &Reader<impl Environment>) -> Option<Duration> {
    const NAME: &str = "TERMINATION_GRACE_SECONDS";
    read.text(NAME)?;
    Some(read.seconds(NAME, 0, 0..=172_800))
}

fn workers(read: &Reader<impl Environment>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let workers = read.number("WORKERS", cores as u64, 1..=256);
    usize::try_from(workers).expect("at most 256")
}

/// Tells whether a URL carries neither user nor password.
fn is_free_of_secrets(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// Returns a URL as it may be printed: not if it could carry a secret.
fn shown(url: &Url) -> Option<String> {
    (is_free_of_secrets(url) && url.query().is_none()).then(|| url.to_string())
}

/// Replicas that share a store must be able to read each other's tickets, and one that is started
/// anew must know those of its calls that ACS still tells of.
fn ticket_secret(
    read: &Reader<impl Environment>,
    production: bool,
    (shares, has_acs): (bool, bool),
) -> Option<SecretString> {
    let secret = long_secret(read, "TICKET_SECRET");
    if secret.is_none() && production && (shares || has_acs) {
        let rule = "not set (with REDIS_URL all replicas must share one, and with ACS a replica \
                    that is started anew must know its calls)";
        read.mistake("TICKET_SECRET", None, rule);
    } else if secret.is_none() && shares {
        read.warning(
            "TICKET_SECRET is not set: media that reaches another replica than the webhook is \
             refused"
                .to_owned(),
        );
    }
    secret
}

fn long_secret(read: &Reader<impl Environment>, name: &str) -> Option<SecretString> {
    let secret = read.secret(name)?;
    if secret.expose_secret().len() < 16 {
        read.mistake(
            name,
            None,
            "too short: at least 16 characters, best from a generator",
        );
    }
    Some(secret)
}

#[cfg(test)]
mod tests;
