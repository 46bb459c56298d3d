//! The agent's socket: connected in time, bounded in both directions.
//!
//! Invariant: whatever the agent's server does, the caller hears something within [`BUDGET`].
//! Invariant: no audio passes before the agent has confirmed its format.

mod breaker;
mod health;
mod openai;
pub mod parrot;
mod socket;
mod stream;
mod voice_live;

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::{
    Connector, client_async_tls_with_config,
    tungstenite::{self, ClientRequestBuilder, protocol::WebSocketConfig},
};
use url::Url;

use crate::{
    agent::{breaker::Breaker, stream::Movable},
    call::EndReason,
    campaign::{Campaign, Name},
    chunk::Encoding,
    config::{AgentKind, AgentSettings, EntraSettings},
    entra::{self, Entra, EntraError},
    outbound::Overrides,
    session::{Answered, Input},
    spending::Tokens,
    telemetry::AgentMetrics,
};

pub use health::{AgentHealth, Health};
#[cfg(feature = "bench")]
pub use openai::append;
pub use socket::AgentSocket;

/// How long connecting may take, every step and the second try included.
pub const BUDGET: Duration = Duration::from_secs(3);
/// The pause before the second try.
const RETRY_PAUSE: Duration = Duration::from_millis(150);
/// The longest message that is read: half a minute of audio is below half a mebibyte.
const LONGEST_MESSAGE: usize = 4 << 20;

/// How an agent's messages are worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    OpenAi,
    VoiceLive,
}

/// What a message of the agent's means.
#[derive(Debug, PartialEq)]
enum Event {
    Created,
    Updated {
        fits: bool,
    },
    Input(Input),
    /// An answer is over, with the tokens that it has used up.
    Answered(Answered, Tokens),
    /// What is left of the agent's rate limits, by their names.
    Limits(Vec<(Limit, u64)>),
    Complaint(Complaint),
}

/// What an agent's rate limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Requests,
    Tokens,
}

/// An error that the agent reports without closing.
#[derive(Debug, PartialEq, Eq)]
enum Complaint {
    Expired,
    Fatal(String),
    Harmless(String),
}

/// A message makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Garbled;

/// Why there is no agent for a call.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent cannot be reached")]
    Unreachable(#[source] tungstenite::Error),
    #[error("the agent's server refused with status {0}")]
    Refused(u16),
    #[error("there is no token to show the agent's server")]
    NoToken(#[source] EntraError),
    #[error("the agent was not ready within {BUDGET:?}")]
    TooSlow,
    #[error("the agent closed the connection before it was ready")]
    Closed,
    #[error("the agent sent what makes no sense")]
    Garbled,
    #[error("the agent did not accept the audio's encoding")]
    WrongFormat,
    #[error("the agent reported {0:?} before it was ready")]
    Failed(String),
    #[error("the agent failed too often and is left alone for a moment")]
    Resting,
    #[error("the connecting task is gone")]
    Lost,
}

/// One agent: where it is, and how to talk to it. Shared by all workers.
pub struct Agent {
    name: Name,
    settings: AgentSettings,
    url: Url,
    tls: Arc<ClientConfig>,
    /// Where tokens come from, if it wants any.
    entra: Option<Arc<Entra>>,
    breaker: Arc<Breaker>,
    health: Arc<Health>,
    /// Tokens that nobody has been told of.
    tokens: Arc<AtomicU32>,
    metrics: AgentMetrics,
}

/// All agents, by their names.
pub struct Agents {
    named: HashMap<Name, Arc<Agent>>,
    /// Those that the last reload took away: for a campaign that was looked up just before it.
    leaving: HashMap<Name, Arc<Agent>>,
    default: Arc<Agent>,
}

/// The certificates that agents are believed by; agents that trust the same share them.
pub struct Trust {
    configs: HashMap<Option<PathBuf>, Arc<ClientConfig>>,
    /// Asks for tokens, if an agent wants any.
    http: Option<reqwest::Client>,
}

impl Trust {
    /// # Errors
    /// If the certificates that `agents` need cannot be read.
    pub fn of(agents: &[&AgentSettings]) -> io::Result<Self> {
        let mut configs = HashMap::new();
        for settings in agents {
            let roots = match configs.entry(settings.extra_ca.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(roots(settings.extra_ca.as_deref())?),
            };
            let needs_some = settings.url.scheme() == "wss" && settings.kind != AgentKind::Parrot;
            if roots.is_empty() && needs_some {
                let missing = "there are none: install ca-certificates, or set AGENT_CA_FILE";
                return Err(io::Error::other(missing));
            }
        }
        let trusting = configs
            .into_iter()
            .map(|(ca, roots)| Ok((ca, Arc::new(trusting(roots)?))));
        let wants_tokens = agents.iter().any(|agent| credentials(agent).is_some());
        let http = wants_tokens.then(entra::http_client).transpose();
        Ok(Self {
            configs: trusting.collect::<io::Result<_>>()?,
            http: http.map_err(io::Error::other)?,
        })
    }

    /// Returns how to connect to an agent, which was among those that this was made of.
    pub fn of_agent(&self, agent: &AgentSettings) -> Arc<ClientConfig> {
        let config = self.configs.get(&agent.extra_ca);
        Arc::clone(config.expect("trust is made of all agents"))
    }
}

impl Agents {
    /// Prepares to reach the environment's agent, which is called `default`, and `others`. What
    /// the agents of `before` have gone through stays known of those that are the same. Parrots
    /// listen at `parrot`.
    pub fn new(
        default: AgentSettings,
        others: BTreeMap<Name, AgentSettings>,
        trust: &Trust,
        metrics: &AgentMetrics,
        parrot: Option<&Url>,
        before: Option<&Self>,
    ) -> Self {
        let prepare = |name: Name, settings: AgentSettings| {
            let known = before.and_then(|before| before.named.get(&name));
            let tokens = known.map(|known| Arc::clone(&known.tokens));
            let known = known.filter(|known| known.settings == settings);
            let breaker = known.map(|known| Arc::clone(&known.breaker));
            let health = known.map(|known| Arc::clone(&known.health));
            let url = match (settings.kind, parrot) {
                (AgentKind::Parrot, Some(parrot)) => parrot.clone(),
                (
                    AgentKind::Parrot
                    | AgentKind::OpenAi
                    | AgentKind::AzureOpenAi
                    | AgentKind::VoiceLive,
                    _,
                ) => settings.url.clone(),
            };
            let entra = match known {
                Some(known) => known.entra.clone(),
                None => credentials(&settings).map(|credentials| {
                    let http = trust.http.clone().expect("trust is made of all agents");
                    Arc::new(Entra::new(credentials.clone(), voice_live::SCOPE, http))
                }),
            };
            Arc::new(Agent {
                name,
                url,
                tls: trust.of_agent(&settings),
                entra,
                settings,
                breaker: breaker.unwrap_or_default(),
                health: health.unwrap_or_default(),
                tokens: tokens.unwrap_or_default(),
                metrics: metrics.clone(),
            })
        };
        let default = prepare(Name::default_name(), default);
        let mut named = HashMap::from([(default.name.clone(), Arc::clone(&default))]);
        for (name, settings) in others {
            named.insert(name.clone(), prepare(name, settings));
        }
        let before = before.iter().flat_map(|before| &before.named);
        let leaving = before.filter(|(name, _)| !named.contains_key(*name));
        Self {
            leaving: leaving
                .map(|(name, agent)| (name.clone(), Arc::clone(agent)))
                .collect(),
            named,
            default,
        }
    }

    /// Returns the agent of this name, or the environment's.
    pub fn of(&self, name: &Name) -> Arc<Agent> {
        let named = self.named.get(name);
        let agent = named.or_else(|| self.leaving.get(name));
        Arc::clone(agent.unwrap_or(&self.default))
    }

    /// Returns the environment's agent.
    pub fn default_agent(&self) -> &Arc<Agent> {
        &self.default
    }

    /// Returns every agent, in no particular order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.named.values()
    }
}

impl Agent {
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Returns the same agent as it is in one call. What it goes through counts for all of its calls.
    pub fn overridden(&self, overrides: &Overrides) -> Self {
        let mut settings = self.settings.clone();
        if let Some(instructions) = &overrides.instructions {
            settings.instructions.clone_from(instructions);
        }
        settings.voice = overrides.voice.clone().or(settings.voice);
        settings.greeting = overrides.greeting.clone().or(settings.greeting);
        Self {
            name: self.name.clone(),
            settings,
            url: self.url.clone(),
            tls: Arc::clone(&self.tls),
            entra: self.entra.clone(),
            breaker: Arc::clone(&self.breaker),
            health: Arc::clone(&self.health),
            tokens: Arc::clone(&self.tokens),
            metrics: self.metrics.clone(),
        }
    }

    /// Tells whether it is asked to speak first.
    pub fn greets(&self) -> bool {
        self.settings.greeting.is_some()
    }

    pub fn kind(&self) -> AgentKind {
        self.settings.kind
    }

    /// Returns what it was like in its last calls here.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Tells whether it failed so often of late that it is left alone.
    pub fn is_resting(&self) -> bool {
        self.breaker.is_open()
    }

    /// Returns for how long it is left alone here.
    pub fn rests(&self) -> Option<Duration> {
        self.breaker.rests()
    }

    /// Tells whether it was reached here though the replicas hold that it keeps failing.
    pub fn was_reached(&self) -> bool {
        self.breaker.was_reached()
    }

    /// Notes whether the replicas hold that it keeps failing.
    pub fn learn(&self, fails_for_all: bool) {
        self.breaker.learn(fails_for_all);
    }

    /// Returns how many tokens it has used up since this was last asked.
    pub fn take_tokens(&self) -> u32 {
        self.tokens.swap(0, Ordering::Relaxed)
    }

    /// Returns how its audio is best encoded for a carrier's: alike, wherever it can be.
    pub fn encoding_for(&self, carrier: Encoding) -> Encoding {
        match (Dialect::of(self.kind()), carrier) {
            (_, Encoding::Mulaw) => Encoding::Mulaw,
            (Dialect::VoiceLive, Encoding::Pcm16k) => Encoding::Pcm16k,
            (Dialect::OpenAi, Encoding::Pcm16k) | (_, Encoding::Pcm24k) => Encoding::Pcm24k,
        }
    }

    /// Connects for a call of `campaign`, with audio in `encoding` both ways; the agent is ready to
    /// talk within [`BUDGET`].
    ///
    /// # Errors
    /// Whatever kept it from being ready; see [`AgentError::end_reason`].
    pub async fn connect(
        &self,
        campaign: &Campaign,
        encoding: Encoding,
    ) -> Result<AgentSocket, AgentError> {
        if !self.breaker.may_try() {
            return Err(AgentError::Resting);
        }
        let began = Instant::now();
        let connected = timeout(BUDGET, self.try_twice(campaign, encoding)).await;
        let connected = connected.unwrap_or(Err(AgentError::TooSlow));
        let connected = connected.map(|agent| agent.took(began.elapsed()));
        self.breaker.record(connected.is_ok());
        connected
    }

    async fn try_twice(
        &self,
        campaign: &Campaign,
        encoding: Encoding,
    ) -> Result<AgentSocket, AgentError> {
        match self.try_once(campaign, encoding).await {
            Err(AgentError::Unreachable(_) | AgentError::Refused(429 | 500..)) => {
                sleep(RETRY_PAUSE).await;
                self.try_once(campaign, encoding).await
            }
            other => other,
        }
    }

    async fn try_once(
        &self,
        campaign: &Campaign,
        encoding: Encoding,
    ) -> Result<AgentSocket, AgentError> {
        let request = self.request().await?;
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or(443);
        let tcp = Movable::connect(host.trim_matches(['[', ']']), port).await;
        let tcp = tcp.map_err(|error| AgentError::Unreachable(error.into()))?;
        let limits = WebSocketConfig::default()
            .read_buffer_size(4 << 10)
            .write_buffer_size(16 << 10)
            .max_write_buffer_size(longest_outbox(encoding))
            .max_message_size(Some(LONGEST_MESSAGE))
            .max_frame_size(Some(LONGEST_MESSAGE));
        let tls = Connector::Rustls(Arc::clone(&self.tls));
        let upgraded = client_async_tls_with_config(request, tcp, Some(limits), Some(tls)).await;
        let (socket, _) = upgraded.map_err(|error| {
            if let tungstenite::Error::Http(response) = error {
                AgentError::Refused(response.status().as_u16())
            } else {
                AgentError::Unreachable(error)
            }
        })?;
        let (metrics, tokens) = (self.metrics.clone(), Arc::clone(&self.tokens));
        let (name, settings) = (self.name.clone(), &self.settings);
        AgentSocket::ready(socket, name, settings, campaign, encoding, metrics, tokens).await
    }

    async fn request(&self) -> Result<ClientRequestBuilder, AgentError> {
        let mut url = self.url.clone();
        match self.settings.kind {
            AgentKind::Parrot => {}
            AgentKind::OpenAi | AgentKind::AzureOpenAi => {
                url.query_pairs_mut()
                    .append_pair("model", &self.settings.model);
            }
            AgentKind::VoiceLive => {
                let mut query = url.query_pairs_mut();
                let settings = &self.settings.voice_live;
                query.append_pair("api-version", &settings.api_version);
                match &settings.foundry {
                    Some(agent) => query
                        .append_pair("agent-name", &agent.name)
                        .append_pair("agent-project-name", &agent.project),
                    None => query.append_pair("model", &self.settings.model),
                };
            }
        }
        let uri = url.as_str().parse().expect("a URL with a host is a URI");
        let request = ClientRequestBuilder::new(uri);
        Ok(match (&self.settings.key, self.settings.kind) {
            (Some(key), AgentKind::OpenAi) => request.with_header("Authorization", bearer(key)),
            // An API key as Bearer is redirected by some of Azure's hosts: the header decides.
            (Some(key), AgentKind::AzureOpenAi | AgentKind::VoiceLive) => {
                request.with_header("api-key", key.expose_secret())
            }
            (None, AgentKind::VoiceLive) => match &self.entra {
                Some(entra) => {
                    let token = entra.token().await;
                    let token = token.map_err(AgentError::NoToken)?;
                    request.with_header("Authorization", bearer(&token))
                }
                None => request,
            },
            (_, AgentKind::Parrot) | (None, AgentKind::OpenAi | AgentKind::AzureOpenAi) => request,
        })
    }
}

impl Dialect {
    fn of(kind: AgentKind) -> Self {
        match kind {
            AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi => Self::OpenAi,
            AgentKind::VoiceLive => Self::VoiceLive,
        }
    }
}

/// Returns how much may wait to be sent, in bytes: the caller's first words, all of which go out at
/// once when an agent is there, and about as much again.
fn longest_outbox(encoding: Encoding) -> usize {
    // As base64 five seconds are below seven times a second's bytes, and messages are around them.
    encoding.rate() as usize * encoding.width() * 12
}

impl AgentError {
    pub fn end_reason(&self) -> EndReason {
        match self {
            Self::Unreachable(_) | Self::Resting | Self::Lost => EndReason::AgentUnreachable,
            Self::Refused(_) | Self::NoToken(EntraError::Refused { .. }) => EndReason::AgentRefused,
            Self::NoToken(EntraError::Unreachable(_) | EntraError::Garbled) => {
                EndReason::AgentUnreachable
            }
            Self::TooSlow => EndReason::AgentTooSlow,
            Self::Closed => EndReason::AgentClosed,
            Self::Garbled => EndReason::AgentGarbled,
            Self::WrongFormat => EndReason::AgentWrongFormat,
            Self::Failed(_) => EndReason::AgentFailed,
        }
    }
}

/// Reads a message as a bridge does, for the benchmarks.
#[cfg(feature = "bench")]
pub fn decode_input(message: &bytes::Bytes, encoding: Encoding) -> Option<Input> {
    match openai::decode(message, Dialect::OpenAi, encoding) {
        Ok(Event::Input(input)) => Some(input),
        Ok(
            Event::Created
            | Event::Updated { .. }
            | Event::Answered(..)
            | Event::Limits(_)
            | Event::Complaint(_),
        )
        | Err(Garbled) => None,
    }
}

/// Returns what an agent's tokens are asked for with, if it wants any.
fn credentials(agent: &AgentSettings) -> Option<&EntraSettings> {
    match agent.kind {
        AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi => None,
        AgentKind::VoiceLive => agent.voice_live.entra.as_ref(),
    }
}

fn bearer(secret: &SecretString) -> String {
    format!("Bearer {}", secret.expose_secret())
}

/// Returns the system's certificates and those of a file.
fn roots(extra: Option<&Path>) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = extra {
        let certificates = CertificateDer::pem_file_iter(path).map_err(io::Error::other)?;
        for certificate in certificates {
            let certificate = certificate.map_err(io::Error::other)?;
            roots.add(certificate).map_err(io::Error::other)?;
        }
    }
    Ok(roots)
}

fn trusting(roots: RootCertStore) -> io::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
