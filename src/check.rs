//! `callgate check`: tries what can be tried without a call, and says what to do about the rest.
//!
//! Invariant: no call is placed, no message sent, and no secret printed.
//! Invariant: it ends within 20 s, whatever others do.

mod agents;
mod carriers;
mod clock;
mod database;
mod endpoints;
mod finding;
mod grace;
mod public;
mod slots;
mod words;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use futures_util::future::join_all;
use reqwest::{Client, redirect};
use tokio::time::timeout;
use url::{Host, Url};

use crate::{
    answer::{PromptError, Prompts, TemplateError, Templates},
    check::{finding::FileCounts, words::chain},
    config::{CampaignFile, Config},
};

pub use finding::{Finding, Level};

/// How long whoever listens on our address has to say that it is a gateway.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);
/// How long one server may take to answer one request.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long everything that is tried at the same time may take.
const LONGEST: Duration = Duration::from_secs(14);

/// Tries the settings of `environment`, and everything they name. `grace` is how long whoever
/// stops the gateway waits before it kills, if that is not in the settings.
pub async fn check(
    environment: impl Fn(&str) -> Option<String>,
    grace: Option<Duration>,
) -> Vec<Finding> {
    let config = match Config::load(environment) {
        Ok(config) => config,
        Err(error) => return error.mistakes().map(Finding::SettingWrong).collect(),
    };
    let mut findings = settings(&config);
    let (counts, file) = campaigns(&config);
    findings.extend(counts);
    findings.extend(templates(&config));
    findings.extend(prompts(&config));
    findings.extend(grace::compare(&config, grace));
    let listening = address(config.listen);
    let serves = matches!(listening, Finding::ListenServes(_));
    findings.push(listening);
    findings.push(public_url(&config));
    findings.push(twilio(&config));
    findings.extend(Box::pin(of_others(&config, file, serves)).await);
    findings
}

/// Tries whatever others have to answer for, all of it at the same time.
async fn of_others(config: &Config, file: Option<CampaignFile>, serves: bool) -> Vec<Finding> {
    let http = match http_client() {
        Ok(http) => http,
        Err(error) => return vec![Finding::Certificates(io::Error::other(error))],
    };
    let servers = clocks(config);
    let endpoints = match &file {
        Some(file) => file.endpoints.clone(),
        None => config.events.endpoints(),
    };
    let clocks = join_all(servers.iter().map(|server| clock::of_server(&http, server)));
    let (way, carriers, slots, database, endpoints, agents, clocks) = tokio::join!(
        bounded("way in", public::probe(config, &http, serves)),
        bounded("carriers", carriers::probe(config)),
        bounded("slots", slots::probe(config)),
        bounded("database", database::probe(config)),
        bounded("events", endpoints::probe(&config.guard, &endpoints)),
        bounded("agents", agents::probe(config, file)),
        bounded("clocks", async {
            clocks.await.into_iter().flatten().collect()
        }),
    );
    let all = [way, carriers, slots, database, endpoints, agents, clocks];
    all.into_iter().flatten().collect()
}

async fn bounded(about: &'static str, tried: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    // What is tried is a lot for the stack of whoever awaits all of it.
    let tried = timeout(LONGEST, Box::pin(tried)).await;
    tried.unwrap_or_else(|_| vec![Finding::Unfinished(about)])
}

/// Returns the servers whose clocks matter: they check what we date.
fn clocks(config: &Config) -> Vec<Url> {
    let twilio = config.outbound.twilio.as_ref().ok().map(|api| &api.base);
    let acs = config.acs.api.as_ref().map(|api| &api.endpoint);
    let servers = [twilio, acs, config.public_url.as_ref()];
    servers.into_iter().flatten().cloned().collect()
}

fn http_client() -> Result<Client, reqwest::Error> {
    // Fails if another part of the process installed it already, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .timeout(PATIENCE)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")))
        .build()
}

fn settings(config: &Config) -> Vec<Finding> {
    let warnings = config.warnings.iter();
    let mut findings: Vec<_> = warnings
        .map(|warning| Finding::SettingOdd(warning.clone()))
        .collect();
    if findings.is_empty() {
        findings.push(Finding::SettingsFit);
    }
    findings
}

/// Tries the campaign file; returns it too.
fn campaigns(config: &Config) -> (Vec<Finding>, Option<CampaignFile>) {
    let Some(path) = &config.campaigns else {
        return (vec![Finding::NoCampaignFile], None);
    };
    match CampaignFile::load(path, &config.inherited()) {
        Ok(file) => {
            let campaigns = file.campaigns.all();
            let tenants: std::collections::BTreeSet<_> =
                campaigns.map(|campaign| &campaign.tenant).collect();
            let mut findings = vec![Finding::CampaignFileFits(FileCounts {
                campaigns: file.campaigns.all().count(),
                tenants: tenants.len(),
                numbers: file.campaigns.numbers(),
                agents: file.agents.len(),
            })];
            let warnings = file.warnings.iter();
            findings.extend(warnings.map(|warning| Finding::CampaignFileOdd(warning.clone())));
            (findings, Some(file))
        }
        Err(error) => {
            let mistakes = error.mistakes();
            (mistakes.map(Finding::CampaignFileWrong).collect(), None)
        }
    }
}

fn templates(config: &Config) -> Vec<Finding> {
    match Templates::load(config.templates.as_deref()) {
        Ok(_) => vec![Finding::TemplatesFit],
        Err(TemplateError::Flawed { flaws }) => flaws
            .iter()
            .map(|flaw| Finding::TemplateWrong(flaw.to_string()))
            .collect(),
        Err(error @ TemplateError::Unreadable { .. }) => {
            vec![Finding::TemplateWrong(chain(&error))]
        }
    }
}

fn prompts(config: &Config) -> Vec<Finding> {
    match Prompts::load(config.templates.as_deref()) {
        Ok(_) => vec![Finding::PromptsFit],
        Err(PromptError::Flawed { flaws }) => flaws
            .iter()
            .map(|flaw| Finding::PromptWrong(flaw.to_string()))
            .collect(),
        Err(error @ PromptError::Unreadable { .. }) => vec![Finding::PromptWrong(chain(&error))],
    }
}

fn address(listen: SocketAddr) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::ListenFree(listen),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_alive(listen) => {
            Finding::ListenServes(listen)
        }
        Err(error) => Finding::ListenTaken(listen, error),
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
    let Some(url) = config.public_url.clone() else {
        return Finding::PublicUrlUnset(config.listen);
    };
    let unreachable = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_unspecified(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(Host::Domain(name)) => name == "localhost" || !name.contains('.'),
        None => true,
    };
    if unreachable {
        Finding::PublicUrlPrivate(url)
    } else if url.scheme() == "https" {
        Finding::PublicUrlFits(url)
    } else {
        Finding::PublicUrlPlain(url)
    }
}

fn twilio(config: &Config) -> Finding {
    if config.twilio.is_open() {
        Finding::TwilioOpen
    } else {
        Finding::TwilioClosed
    }
}
