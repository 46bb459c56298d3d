//! ACS's side of a gateway: which of its connections carries which call, and what is said or ended
//! there by REST.
//!
//! Invariant: no call is left on a silent line: whatever fails here ends it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use url::Url;

use crate::{
    admission::Ended,
    answer::{Answer, prompts::Prompt},
    call::{Carrier, CarrierCallId, EndReason, Farewell},
    campaign::{AcsRefusal, Campaign},
    carrier::acs::{
        AcsError, CallAutomation, CallConnectionId,
        request::{self, Media, Play, Redirect, Reject, RejectReason},
    },
    config::{AcsAudio, AcsSettings, SocketToken},
    gateway::Gateway,
    recent::Recent,
    webhook::acs::{
        IncomingCall,
        token::{TokenError, TokenVerifier},
    },
};

/// How long answering may take, further tries included: the caller hears it ring meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long anything else may take.
pub(super) const ACT_WITHIN: Duration = Duration::from_secs(30);
/// When hanging up is tried again after everything that a request does by itself.
const HANG_UP_AGAIN: Duration = Duration::from_secs(3);
/// How often it is looked whether a call's connection is known.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long a call whose media has stopped may go on until somebody says that it is over.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// How long a sentence may last until the call is ended though nobody said that it was played.
const SAID_WITHIN: Duration = Duration::from_secs(45);
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
            event_secrets: event_grid.secrets,
            subscriptions: event_grid.subscriptions,
            tokens: tokens.transpose()?,
            event_tokens: event_tokens.transpose()?,
            started: Instant::now(),
            connections: Mutex::default(),
            events: Mutex::default(),
            listening: Mutex::default(),
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

    /// Waits for a call's connection: a media socket may come, and its call end, before ACS has told
    /// us of it.
    pub(super) async fn known_connection(&self, call: &CarrierCallId) -> Option<CallConnectionId> {
        let known = async {
            loop {
                if let Some(connection) = self.connection(call) {
                    return connection;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        let known = timeout(ACT_WITHIN, known).await.ok();
        if known.is_none() {
            tracing::warn!("a call may be left to itself: its connection is not known");
        }
        known
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
    /// Answers an admitted call so that its media comes with `ticket`. Goes on by itself.
    pub(crate) fn answer_acs(
        self: &Arc<Self>,
        incoming: IncomingCall,
        campaign: &Campaign,
        ticket: &str,
    ) {
        let callback = self.callback_url(&incoming.call, campaign, &Errand::Talk);
        let media = self.public.acs_media(ticket);
        let gateway = Arc::clone(self);
        self.act(&incoming.call.clone(), async move {
            let Some(acs) = &gateway.acs else { return };
            let answer = request::Answer {
                context: &incoming.context,
                callback: &callback,
                operation_context: "talk",
                media: Some(Media {
                    socket: &media,
                    audio: acs.audio,
                }),
            };
            match acs.client.answer(&answer, soon(ANSWER_WITHIN)).await {
                Ok(connecting) => {
                    acs.note(&incoming.call, &connecting.connection);
                    if gateway.admission.has_ended(&incoming.call) {
                        // It ended while it was answered.
                        hang_up(acs, &connecting.connection).await;
                    } else {
                        gateway.end_unwanted(&incoming.call).await;
                    }
                }
                Err(error) => gateway.not_answered(&incoming.call, &error).await,
            }
        });
    }

    /// Turns a call away as its campaign wants it. Goes on by itself.
    pub(crate) fn refuse_acs(
        self: &Arc<Self>,
        incoming: IncomingCall,
        campaign: &Campaign,
        answer: &Answer,
    ) {
        // Nobody records here: whoever might leave a message elsewhere hears that all are busy.
        let prompt = if *answer == Answer::Whatsapp {
            Prompt::Whatsapp
        } else {
            Prompt::Busy
        };
        let way = campaign.acs_when_full.clone();
        let callback = self.callback_url(&incoming.call, campaign, &Errand::Hear(prompt));
        let gateway = Arc::clone(self);
        self.act(&incoming.call.clone(), async move {
            let Some(acs) = &gateway.acs else { return };
            let context = &incoming.context;
            let deadline = soon(ANSWER_WITHIN);
            let over = acs.listens(&incoming.call);
            let turned = match &way {
                AcsRefusal::Reject => {
                    let reason = RejectReason::Busy;
                    let reject = Reject { context, reason };
                    acs.client.reject(&reject, deadline).await
                }
                AcsRefusal::Redirect(to) => {
                    let redirect = Redirect { context, to };
                    acs.client.redirect(&redirect, deadline).await
                }
                AcsRefusal::Prompt => {
                    let answer = request::Answer {
                        context,
                        callback: &callback,
                        operation_context: "hear",
                        media: None,
                    };
                    let answered = acs.client.answer(&answer, deadline).await;
                    answered.map(|connecting| {
                        acs.note(&incoming.call, &connecting.connection);
                    })
                }
            };
            if let Err(error) = turned {
                let (reason, error) = (error.as_str(), &error as &dyn std::error::Error);
                tracing::warn!(error, reason, "a refused call rings on");
            } else if way == AcsRefusal::Prompt
                && !gateway.is_over_in_time(&over).await
                && let Some(connection) = acs.connection(&incoming.call)
            {
                hang_up(acs, &connection).await;
            }
            acs.is_over(&incoming.call);
        });
    }

    /// Says something to a call that has no media socket, and then ends it.
    pub(crate) fn say_by_rest(
        self: &Arc<Self>,
        call: &CarrierCallId,
        connection: CallConnectionId,
        prompt: Prompt,
        campaign: &Campaign,
    ) {
        let file = self.public.prompt(prompt, &campaign.language);
        let (gateway, call) = (Arc::clone(self), call.clone());
        self.act(&call.clone(), async move {
            let Some(acs) = &gateway.acs else { return };
            if !acs.is_new(&format!("last words of {call}")) {
                return; // ACS and our own socket may both tell that the media is lost.
            }
            let play = Play {
                file: &file,
                operation_context: "last words",
            };
            let over = acs.listens(&call);
            match acs.client.play(&connection, &play, soon(ACT_WITHIN)).await {
                // The end of the sentence is told by a callback, if nothing is lost.
                Ok(()) if gateway.is_over_in_time(&over).await => return,
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, "ACS did not play a sentence"),
            }
            acs.is_over(&call);
            hang_up(acs, &connection).await;
        });
    }

    /// Ends a call at ACS, if that carries it. Goes on by itself.
    pub(crate) fn hang_up_acs(self: &Arc<Self>, call: &CarrierCallId) {
        if call.carrier() != Carrier::Acs {
            return;
        }
        let (gateway, ended) = (Arc::clone(self), call.clone());
        self.act(call, async move {
            let Some(acs) = &gateway.acs else { return };
            let Some(connection) = acs.known_connection(&ended).await else {
                return;
            };
            if hang_up(acs, &connection).await {
                acs.is_over(&ended);
            }
        });
    }

    /// Ends a call at ACS that was given up before it was connected, here or elsewhere: ACS may have
    /// answered what we hold that it did not. Where somebody still speaks to its caller, they end it.
    pub(crate) async fn end_unwanted(self: &Arc<Self>, call: &CarrierCallId) {
        let hangs_up = |farewell| farewell == Farewell::HangUp;
        let ended = self.admission.ended_elsewhere(call).await;
        if self.farewells.of(call).is_some_and(hangs_up)
            || ended.is_some_and(|reason| hangs_up(reason.farewell()))
        {
            self.hang_up_acs(call);
        }
    }

    /// Ends a call whose media has stopped while nobody says that it is over: the replica that
    /// carried it may be gone. Goes on by itself.
    pub(crate) fn end_if_silent(
        self: &Arc<Self>,
        call: &CarrierCallId,
        connection: Option<CallConnectionId>,
        campaign: &Campaign,
    ) {
        let (gateway, silent) = (Arc::clone(self), call.clone());
        let campaign = campaign.clone();
        self.act(call, async move {
            sleep(SILENT_FOR).await;
            if gateway.connections.has(&silent)
                || gateway.admission.has_ended(&silent)
                || gateway.admission.ended_elsewhere(&silent).await.is_some()
            {
                return;
            }
            tracing::warn!("a call's media has stopped, and nobody carries it");
            gateway.acs_failed(&silent, EndReason::StreamFailed).await;
            if let Some(connection) = connection {
                gateway.say_by_rest(&silent, connection, Prompt::Apology, &campaign);
            }
        });
    }

    /// Ends a call whose answer or media ACS reports to have failed.
    pub(crate) async fn acs_failed(&self, call: &CarrierCallId, reason: EndReason) {
        self.dismiss_agent(call);
        let ended = Ended {
            live: reason,
            waiting: reason,
            unanswered: reason == EndReason::AnswerFailed,
        };
        self.connections.end(call, reason);
        if self.admission.end(call, ended).await {
            self.ended(call, reason);
        }
    }

    async fn not_answered(&self, call: &CarrierCallId, error: &AcsError) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "ACS did not take our answer to a call"
        );
        self.acs_failed(call, EndReason::AnswerFailed).await;
    }

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

    /// Waits for the end of a call's last words; tells whether it came before we have to hang up.
    async fn is_over_in_time(&self, over: &CancellationToken) -> bool {
        let over = self.stopping.run_until_cancelled(over.cancelled());
        matches!(timeout(SAID_WITHIN, over).await, Ok(Some(())))
    }

    /// Runs what takes ACS's time, in the span of its call; draining waits for it.
    pub(super) fn act(
        &self,
        call: &CarrierCallId,
        acting: impl Future<Output = ()> + Send + 'static,
    ) {
        let span = tracing::info_span!("call", carrier_call.id = %call);
        self.calls.spawn(acting.instrument(span));
    }
}

pub(super) fn soon(within: Duration) -> Instant {
    Instant::now() + within
}

/// Ends a call; tells whether that is done. Tries for as long as it may take, whatever ACS says:
/// nobody else would end it.
pub(super) async fn hang_up(acs: &Acs, connection: &CallConnectionId) -> bool {
    let deadline = soon(ACT_WITHIN);
    loop {
        let Err(error) = acs.client.hang_up(connection, deadline).await else {
            return true;
        };
        if deadline <= Instant::now() + HANG_UP_AGAIN {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a call could not be ended at ACS");
            return false;
        }
        sleep(HANG_UP_AGAIN).await;
    }
}
