//! ACS's side of a gateway: which of its connections carries which call, and what is said or ended
//! there by REST.
//!
//! Invariant: no call is left on a silent line: whatever fails here ends it.

mod answering;
mod ending;
mod owing;
mod silence;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use url::Url;

use crate::{
    answer::prompts::Prompt,
    call::CarrierCallId,
    campaign::Campaign,
    carrier::acs::{CallAutomation, CallConnectionId},
    config::{AcsAudio, AcsSettings, NotInService, SocketToken},
    gateway::Gateway,
    recent::Recent,
    webhook::acs::token::{TokenError, TokenVerifier},
};

use owing::DueHere;
use silence::SilentCalls;

pub(super) use ending::{ACT_WITHIN, hang_up, this_minute};

pub use answering::Settled;

/// How long a connection is remembered, in milliseconds: longer than calls last.
const CONNECTION_KEPT: u64 = 86_400_000;
/// How long an event is remembered, to act on it once.
const EVENT_KEPT: u64 = 600_000;
/// What the path of callbacks is sealed for.
const PURPOSE: &str = "acs call";

/// ACS's side of a gateway.
pub struct Acs {
    pub client: CallAutomation,
    pub audio: AcsAudio,
    pub socket_token: SocketToken,
    pub not_in_service: NotInService,
    /// What Event Grid's subscriptions carry, and which of them count; any if there are none.
    pub event_secrets: Vec<SecretString>,
    pub subscriptions: Vec<String>,
    /// Who ACS is, in callbacks and media sockets; `None` where its resource is not known.
    tokens: Option<TokenVerifier>,
    /// Who Event Grid is, if its subscription sends tokens.
    pub event_tokens: Option<TokenVerifier>,
    started: Instant,
    connections: Mutex<Recent<CarrierCallId, CallConnectionId>>,
    events: Mutex<Recent<String, ()>>,
    /// Calls that hear their last words, and what wakes whoever waits for their end.
    listening: Mutex<HashMap<CarrierCallId, CancellationToken>>,
    /// Calls that were answered to talk, until it is known that somebody carries them.
    silent: SilentCalls,
    /// What is due to calls whose connection is not known.
    due: DueHere,
}

/// What a call was answered for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// To be bridged to an agent.
    Talk,
    /// To hear one sentence.
    Hear(Prompt),
}

/// What the path of a call's callbacks says.
#[derive(Debug, Serialize, Deserialize)]
pub struct CallbackPath {
    pub call: String,
    pub campaign: String,
    pub errand: Errand,
}

impl Acs {
    /// Prepares to reach ACS and to know its tokens; `None` where the settings leave it closed.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub(super) fn open(settings: AcsSettings) -> Result<Option<Self>, reqwest::Error> {
        if !settings.is_open() {
            return Ok(None);
        }
        let Some(api) = settings.api else {
            return Ok(None);
        };
        let client = CallAutomation::new(api, &settings.api_version, &settings.login)?;
        let resource = settings.resource;
        let tokens = resource.map(|it| TokenVerifier::of_acs(it, &settings.openid));
        let event_grid = settings.event_grid;
        let application = event_grid.entra.as_ref();
        let event_tokens = application.map(|it| TokenVerifier::of_event_grid(it, &settings.login));
        Ok(Some(Self {
            client,
            audio: settings.audio,
            socket_token: settings.socket_token,
            not_in_service: settings.not_in_service,
            event_secrets: event_grid.secrets,
            subscriptions: event_grid.subscriptions,
            tokens: tokens.transpose()?,
            event_tokens: event_tokens.transpose()?,
            started: Instant::now(),
            connections: Mutex::default(),
            events: Mutex::default(),
            listening: Mutex::default(),
            silent: SilentCalls::default(),
            due: DueHere::default(),
        }))
    }

    /// Checks that a token is ACS's, for our resource. Where no resource is set nothing can be
    /// checked by it, and what is unguessable in the address has to do.
    ///
    /// # Errors
    /// If it is not, or nobody can tell.
    pub async fn verify(&self, token: &str) -> Result<(), TokenError> {
        match &self.tokens {
            Some(tokens) => tokens.verify(token).await.map(drop),
            None => Ok(()),
        }
    }

    /// Notes which connection carries a call; tells whether that is the one that was known.
    pub fn note(&self, call: &CarrierCallId, connection: &CallConnectionId) -> bool {
        let now = self.now();
        let mut known = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(now, call) {
            return known == connection;
        }
        known.put(now, CONNECTION_KEPT, call.clone(), connection.clone());
        true
    }

    pub fn connection(&self, call: &CarrierCallId) -> Option<CallConnectionId> {
        let known = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.get(self.now(), call).cloned()
    }

    /// Returns what is cancelled once a call is over that is about to hear its last words.
    pub(super) fn listens(&self, call: &CarrierCallId) -> CancellationToken {
        let mut listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listening.entry(call.clone()).or_default().clone()
    }

    /// Takes note that a call is over: nobody has to wait for its last words.
    pub fn is_over(&self, call: &CarrierCallId) {
        let mut listening = self
            .listening
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = listening.remove(call) {
            over.cancel();
        }
    }

    /// Tells whether an event is new here, and remembers it.
    pub fn is_new(&self, event: &str) -> bool {
        let now = self.now();
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let key = event.to_owned();
        let is_new = events.get(now, &key).is_none();
        if is_new {
            events.put(now, EVENT_KEPT, key, ());
        }
        is_new
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Gateway {
    /// Returns what the path of a callback says; `None` if it is not one of ours.
    pub(crate) fn read_callback_path(&self, path: &str) -> Option<CallbackPath> {
        self.seal.open(PURPOSE, path)
    }

    fn callback_url(&self, call: &CarrierCallId, campaign: &Campaign, errand: &Errand) -> Url {
        let path = CallbackPath {
            call: call.as_str().to_owned(),
            campaign: campaign.id.to_string(),
            errand: errand.clone(),
        };
        self.public.acs_callback(&self.seal.close(PURPOSE, &path))
    }

    /// Runs what takes ACS's time, in the span of its call; draining waits for it.
    pub(super) fn act(
        &self,
        call: &CarrierCallId,
        acting: impl Future<Output = ()> + Send + 'static,
    ) {
        self.calls.spawn(acting.instrument(self.span_of(call)));
    }
}

pub(super) fn soon(within: Duration) -> Instant {
    Instant::now() + within
}
