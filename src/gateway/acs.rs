//! ACS's side of a gateway: which of its connections carries which call, and what is said or ended
//! there by REST.
//!
//! Invariant: no call is left on a silent line: whatever fails here ends it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tracing::Instrument;
use url::Url;

use crate::{
    admission::Ended,
    answer::{Answer, prompts::Prompt},
    call::{Carrier, CarrierCallId, EndReason},
    campaign::{AcsRefusal, Campaign},
    carrier::acs::{AcsError, Answering, CallAutomation, ConnectionId},
    config::AcsSettings,
    gateway::Gateway,
    recent::Recent,
    webhook::acs::{IncomingCall, token::TokenVerifier},
};

/// How long answering may take, further tries included: the caller hears it ring meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long anything else may take.
const ACT_WITHIN: Duration = Duration::from_secs(30);
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
    pub settings: AcsSettings,
    pub client: CallAutomation,
    /// Who ACS is, in callbacks and media sockets.
    pub tokens: TokenVerifier,
    /// Who Event Grid is, if its subscription sends tokens.
    pub event_tokens: Option<TokenVerifier>,
    started: Instant,
    connections: Mutex<Recent<CarrierCallId, ConnectionId>>,
    events: Mutex<Recent<String, ()>>,
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
    pub fn new(
        settings: AcsSettings,
        client: CallAutomation,
        tokens: TokenVerifier,
        event_tokens: Option<TokenVerifier>,
    ) -> Self {
        Self {
            settings,
            client,
            tokens,
            event_tokens,
            started: Instant::now(),
            connections: Mutex::default(),
            events: Mutex::default(),
        }
    }

    /// Notes which connection carries a call; tells whether that is the one that was known.
    pub fn note(&self, call: &CarrierCallId, connection: &ConnectionId) -> bool {
        let now = self.now();
        let mut known = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(now, call) {
            return known == connection;
        }
        known.put(now, CONNECTION_KEPT, call.clone(), connection.clone());
        true
    }

    pub fn connection(&self, call: &CarrierCallId) -> Option<ConnectionId> {
        let known = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(self.now(), call).cloned()
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
        self.act(&incoming.call.clone(), async move |gateway, acs| {
            let answering = Answering {
                context: &incoming.context,
                callback: &callback,
                media: Some((&media, acs.settings.audio.encoding())),
            };
            match acs.client.answer(&answering, ANSWER_WITHIN).await {
                Ok(connection) => {
                    acs.note(&incoming.call, &connection);
                    if gateway.admission.has_ended(&incoming.call) {
                        hang_up(acs, &connection).await; // It ended while it was answered.
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
        let prompt = match answer {
            Answer::Whatsapp => Prompt::Whatsapp,
            _ => Prompt::Busy,
        };
        let way = campaign.acs_when_full.clone();
        let callback = self.callback_url(&incoming.call, campaign, &Errand::Hear(prompt));
        self.act(&incoming.call.clone(), async move |_, acs| {
            let context = &incoming.context;
            let turned = match &way {
                AcsRefusal::Reject => acs.client.reject(context, ANSWER_WITHIN).await,
                AcsRefusal::Redirect(number) => {
                    acs.client.redirect(context, number, ANSWER_WITHIN).await
                }
                AcsRefusal::Prompt => {
                    let answering = Answering {
                        context,
                        callback: &callback,
                        media: None,
                    };
                    let answered = acs.client.answer(&answering, ANSWER_WITHIN).await;
                    answered.map(|connection| {
                        acs.note(&incoming.call, &connection);
                    })
                }
            };
            if let Err(error) = turned {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "a refused call rings on: ACS did not take our answer");
            } else if way == AcsRefusal::Prompt {
                sleep(SAID_WITHIN).await;
                if let Some(connection) = acs.connection(&incoming.call) {
                    hang_up(acs, &connection).await;
                }
            }
        });
    }

    /// Says something to a call that has no media socket, and then ends it.
    pub(crate) fn say_by_rest(
        self: &Arc<Self>,
        call: &CarrierCallId,
        connection: ConnectionId,
        prompt: Prompt,
        campaign: &Campaign,
    ) {
        let file = self.public.prompt(prompt, &campaign.language);
        self.act(call, async move |_, acs| {
            match acs.client.play(&connection, &file, ACT_WITHIN).await {
                // The end of the sentence is told by a callback, if nothing is lost.
                Ok(()) => sleep(SAID_WITHIN).await,
                Err(error) => tracing::warn!(%error, "ACS did not play a sentence"),
            }
            hang_up(acs, &connection).await;
        });
    }

    /// Ends a call at ACS, if that carries it. Goes on by itself.
    pub(crate) fn hang_up_acs(self: &Arc<Self>, call: &CarrierCallId) {
        if call.carrier() != Carrier::Acs {
            return;
        }
        let call = call.clone();
        self.act(&call.clone(), async move |_, acs| match acs.connection(&call) {
            Some(connection) => hang_up(acs, &connection).await,
            None => tracing::debug!("no connection is known to end"),
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
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, "ACS did not take our answer to a call");
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

    /// Runs what takes ACS's time, in the span of its call; draining waits for it.
    fn act(
        self: &Arc<Self>,
        call: &CarrierCallId,
        action: impl AsyncFnOnce(&Arc<Self>, &Acs) + 'static,
    ) {
        let gateway = Arc::clone(self);
        let acting = async move {
            if let Some(acs) = &gateway.acs {
                action(&gateway, acs).await;
            }
        };
        let span = tracing::info_span!("call", carrier_call.id = %call);
        self.calls.spawn_local(acting.instrument(span));
    }
}

async fn hang_up(acs: &Acs, connection: &ConnectionId) {
    if let Err(error) = acs.client.hang_up(connection, ACT_WITHIN).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "a call could not be ended at ACS");
    }
}
