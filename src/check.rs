//! `callgate check`: tries what can be tried without a call, and says what to do about the rest.

mod reach;

use std::{
    fmt,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use futures_util::future::join_all;
use serde::Serialize;
use url::Host;

use crate::{
    admission::{RedisStore, StoreError},
    answer::{PromptError, Prompts, TemplateError, Templates},
    campaign::Name,
    config::{AgentKind, AgentSettings, CampaignFile, Config},
    telemetry::CapacityMetrics,
};

/// How long whoever listens on our address has to say that it is a gateway.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);

/// What came of one thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub level: Level,
    /// What was tried.
    pub about: String,
    /// What was found, and what to do about it unless it is as it should be.
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Calls can be answered, though perhaps not as they are meant to be.
    Warning,
    Error,
}

/// Tries the settings of `environment`, and everything they name.
pub async fn check(environment: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let config = match Config::load(environment) {
        Ok(config) => config,
        Err(error) => {
            let wrong = error.mistakes();
            return wrong.map(|what| error_in("settings", what)).collect();
        }
    };
    let mut findings = settings(&config);
    let (file, mut agents) = campaigns(&config);
    findings.extend(file);
    findings.extend(templates(&config));
    findings.extend(prompts(&config));
    findings.push(address(config.listen));
    findings.push(public_url(&config));
    findings.push(twilio(&config));
    findings.extend(slot_store(&config).await);
    agents.insert(0, (Name::default_name(), config.agent));
    findings.extend(join_all(agents.iter().map(agent)).await);
    findings
}

fn settings(config: &Config) -> Vec<Finding> {
    let warnings = config.warnings.iter();
    let mut findings: Vec<_> = warnings
        .map(|warning| warning_of("settings", warning.clone()))
        .collect();
    if findings.is_empty() {
        findings.push(ok("settings", "every one is understood".to_owned()));
    }
    findings
}

/// Tries the campaign file; returns its agents too.
fn campaigns(config: &Config) -> (Vec<Finding>, Vec<(Name, AgentSettings)>) {
    const ABOUT: &str = "campaign file";
    let Some(path) = &config.campaigns else {
        let what = "none (CALLGATE_CONFIG): one campaign answers".to_owned();
        return (vec![ok(ABOUT, what)], Vec::new());
    };
    match CampaignFile::load(path, &config.inherited()) {
        Ok(file) => {
            let campaigns = file.campaigns.all();
            let tenants: std::collections::BTreeSet<_> =
                campaigns.map(|campaign| &campaign.tenant).collect();
            let counts = format!(
                "{} campaigns of {} tenants, {} numbers, {} agents beside the environment's",
                file.campaigns.all().count(),
                tenants.len(),
                file.campaigns.numbers(),
                file.agents.len(),
            );
            let mut findings = vec![ok(ABOUT, counts)];
            let warnings = file.warnings.into_iter();
            findings.extend(warnings.map(|warning| warning_of(ABOUT, warning)));
            (findings, file.agents.into_iter().collect())
        }
        Err(error) => {
            let mistakes = error.mistakes();
            let findings = mistakes.map(|what| error_in(ABOUT, what)).collect();
            (findings, Vec::new())
        }
    }
}

fn templates(config: &Config) -> Vec<Finding> {
    const ABOUT: &str = "templates";
    match Templates::load(config.templates.as_deref()) {
        Ok(_) => vec![ok(ABOUT, "every text makes an answer".to_owned())],
        Err(TemplateError::Flawed { flaws }) => flaws
            .iter()
            .map(|flaw| error_in(ABOUT, flaw.to_string()))
            .collect(),
        Err(error @ TemplateError::Unreadable { .. }) => vec![error_in(ABOUT, chain(&error))],
    }
}

fn prompts(config: &Config) -> Vec<Finding> {
    const ABOUT: &str = "prompts";
    match Prompts::load(config.templates.as_deref()) {
        Ok(_) => vec![ok(ABOUT, "every one can be played".to_owned())],
        Err(PromptError::Flawed { flaws }) => flaws
            .iter()
            .map(|flaw| error_in(ABOUT, flaw.to_string()))
            .collect(),
        Err(error @ PromptError::Unreadable { .. }) => vec![error_in(ABOUT, chain(&error))],
    }
}

fn address(listen: SocketAddr) -> Finding {
    const ABOUT: &str = "LISTEN";
    match TcpListener::bind(listen) {
        Ok(_) => ok(ABOUT, format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_alive(listen) => {
            ok(ABOUT, format!("a gateway serves on {listen} already"))
        }
        Err(error) => error_in(
            ABOUT,
            format!("{listen} cannot be used: {error}; choose another address or port"),
        ),
    }
}

/// Tells whether a gateway answers at an address of this machine, within three seconds at most.
pub fn is_alive(listen: SocketAddr) -> bool {
    let asked = || {
        let mut socket = TcpStream::connect_timeout(&listen, HEALTH_PATIENCE)?;
        socket.set_read_timeout(Some(HEALTH_PATIENCE))?;
        socket.set_write_timeout(Some(HEALTH_PATIENCE))?;
        socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = [0; 1_024];
        let read = socket.read(&mut answer)?;
        io::Result::Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
    };
    asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn public_url(config: &Config) -> Finding {
    const ABOUT: &str = "PUBLIC_URL";
    let Some(url) = &config.public_url else {
        let what = format!(
            "not set: carriers would have to reach http://{}; set it to the https address that \
             they use",
            config.listen
        );
        return warning_of(ABOUT, what);
    };
    let unreachable = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Domain(name)) => name == "localhost" || !name.contains('.'),
        None => true,
    };
    if unreachable {
        let what = format!("{url} is nothing that a carrier can reach from outside");
        warning_of(ABOUT, what)
    } else if url.scheme() == "https" {
        ok(ABOUT, url.to_string())
    } else {
        let what = format!("{url} is not https: what callers say would go in the open");
        warning_of(ABOUT, what)
    }
}

fn twilio(config: &Config) -> Finding {
    if config.twilio.is_open() {
        ok("twilio", "open".to_owned())
    } else {
        let what = "closed: set TWILIO_AUTH_TOKEN to open it".to_owned();
        warning_of("twilio", what)
    }
}

/// Tries the store that slots are in: what kind of server it is, and whether it lets us write.
async fn slot_store(config: &Config) -> Vec<Finding> {
    let Some(redis) = &config.store.redis else {
        let what = "in memory: caps hold for one process".to_owned();
        return vec![ok("slots", what)];
    };
    let away = |error: StoreError| error_in("slots", told(&error));
    let metrics = CapacityMetrics::new();
    let store = match RedisStore::new(redis, "a check".to_owned(), config.caps.lease, metrics) {
        Ok(store) => store,
        Err(error) => return vec![away(error)],
    };
    let server = match store.inspect().await {
        Ok(server) => server,
        Err(error) => return vec![away(error)],
    };
    let mut findings: Vec<_> = server
        .flaws()
        .into_iter()
        .map(|flaw| {
            let level = if flaw.is_fatal(config.production) {
                Level::Error
            } else {
                Level::Warning
            };
            found(level, "slots", flaw.to_string())
        })
        .collect();
    match store.try_out().await {
        Ok(()) => findings.push(ok(
            "slots",
            format!("{} gives slots and takes them back", server.server),
        )),
        Err(error) => findings.push(away(error)),
    }
    findings
}

/// Says what the store has answered, and what to do about it.
fn told(error: &StoreError) -> String {
    let hint = match error.class() {
        "noauth" => "user and password belong into REDIS_URL",
        "noperm" => "the ACL rule that it takes is in docs/replicas.md",
        "readonly" => "name its primary",
        "oom" => "it is full: give it more memory, or clear it up",
        "cluster" => "is the cluster up, REDIS_CLUSTER=1 set, and REDIS_KEY_PREFIX in braces?",
        _ => "is REDIS_URL right, and the server up?",
    };
    format!("{error} ({hint})")
}

async fn agent((name, settings): &(Name, AgentSettings)) -> Finding {
    let about = format!("agent {name}");
    match settings.kind {
        AgentKind::Parrot => ok(&about, "the parrot within callgate".to_owned()),
        AgentKind::OpenAi | AgentKind::AzureOpenAi | AgentKind::VoiceLive => {
            let mut at = settings.url.clone();
            at.set_query(None); // Whatever it carries, nobody needs to see it.
            match reach::reach(settings).await {
                Ok(()) => ok(&about, format!("{at} can be reached")),
                Err(error) => error_in(
                    &about,
                    format!("{at} cannot be reached: {error}; is the address right?"),
                ),
            }
        }
    }
}

/// Returns an error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    let told: Vec<_> = sources.map(ToString::to_string).collect();
    told.join(": ")
}

fn ok(about: &str, what: String) -> Finding {
    found(Level::Ok, about, what)
}

fn warning_of(about: &str, what: String) -> Finding {
    found(Level::Warning, about, what)
}

fn error_in(about: &str, what: String) -> Finding {
    found(Level::Error, about, what)
}

fn found(level: Level, about: &str, what: String) -> Finding {
    Finding {
        level,
        about: about.to_owned(),
        what,
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{level:<7}  {}: {}", self.about, self.what)
    }
}
