//! ACS is told what to do with a call that rings.
//!
//! Invariant: whatever a replica is about to tell ACS, another one that is told of the same call
//! tells it alike, so that ACS does it once.

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{Acs, Errand, ending::hang_up, soon};
use crate::{
    admission::Phase,
    answer::{Answer, prompts::Prompt},
    call::{CarrierCallId, EndReason},
    campaign::{AcsRefusal, Campaign},
    carrier::acs::{
        AcsError,
        request::{self, Media, Redirect, Reject, RejectReason},
    },
    config::NotInService,
    gateway::Gateway,
    webhook::acs::IncomingCall,
};

/// How long answering may take, further tries included: the caller hears it ring meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Completes once ACS has taken what it was told of a call that rings, or will not take it.
pub type Settled = oneshot::Receiver<()>;

impl Gateway {
    /// Tells whether an admitted call may still wait to be answered: whoever began to may be gone.
    pub(crate) async fn is_unanswered(&self, call: &CarrierCallId) -> bool {
        let acs = self.acs.as_ref();
        acs.is_some_and(|acs| acs.connection(call).is_none())
            && self.admission.phase(call).await != Some(Phase::Live)
    }

    /// Answers an admitted call so that its media comes with `ticket`. Goes on by itself, also when
    /// nobody waits. Who is not the `first` to answer asks ACS for the same, and ends nothing.
    pub(crate) fn answer_acs(
        self: &Arc<Self>,
        incoming: IncomingCall,
        campaign: &Campaign,
        ticket: &str,
        first: bool,
    ) -> Settled {
        let callback = self.callback_url(&incoming.call, campaign, &Errand::Talk);
        let media = self.public.acs_media(ticket);
        let (gateway, campaign) = (Arc::clone(self), campaign.clone());
        let (taken, settled) = oneshot::channel();
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
            let deadline = soon(ANSWER_WITHIN);
            match acs.client.answer(&answer, incoming.time, deadline).await {
                Ok(connecting) => {
                    acs.note(&incoming.call, &connecting.connection);
                    gateway.watch_silence(&incoming.call, &connecting.connection, &campaign);
                    let _ = taken.send(()); // Who brought the event may have stopped to wait.
                    if gateway.admission.has_ended(&incoming.call) {
                        // It ended while it was answered.
                        hang_up(acs, &connecting.connection).await;
                    } else {
                        gateway.end_unwanted(&incoming.call).await;
                    }
                }
                Err(error) => {
                    gateway.not_answered(&incoming.call, &error, first).await;
                    let _ = taken.send(());
                }
            }
        });
        settled
    }

    /// Turns a call away for which there is no room, as its campaign wants it.
    pub(crate) fn refuse_acs(
        self: &Arc<Self>,
        incoming: IncomingCall,
        campaign: &Campaign,
        answer: &Answer,
    ) -> Settled {
        // Nobody records here: whoever might leave a message elsewhere hears that all are busy.
        let prompt = if *answer == Answer::Whatsapp {
            Prompt::Whatsapp
        } else {
            Prompt::Busy
        };
        let way = campaign.acs_when_full.clone();
        self.turn_away_acs(incoming, campaign, prompt, way)
    }

    /// Tells the caller of a number that no campaign has that it is not in service, if that is
    /// wanted, in the language of the `texts`.
    pub(crate) fn not_in_service_acs(
        self: &Arc<Self>,
        incoming: IncomingCall,
        texts: &Campaign,
    ) -> Option<Settled> {
        let acs = self.acs.as_ref()?;
        match acs.not_in_service {
            NotInService::Ignore => None,
            NotInService::Say if acs.connection(&incoming.call).is_some() => None,
            NotInService::Say => {
                let (prompt, way) = (Prompt::NotInService, AcsRefusal::Prompt);
                Some(self.turn_away_acs(incoming, texts, prompt, way))
            }
        }
    }

    /// Turns a call away; `prompt` is what its caller hears who is to hear anything. Goes on by
    /// itself, also when nobody waits.
    pub(crate) fn turn_away_acs(
        self: &Arc<Self>,
        incoming: IncomingCall,
        campaign: &Campaign,
        prompt: Prompt,
        way: AcsRefusal,
    ) -> Settled {
        let callback = self.callback_url(&incoming.call, campaign, &Errand::Hear(prompt));
        let gateway = Arc::clone(self);
        let (taken, settled) = oneshot::channel();
        self.act(&incoming.call.clone(), async move {
            let Some(acs) = &gateway.acs else { return };
            let over = acs.listens(&incoming.call);
            let turned = acs.turn_away(&incoming, &callback, &way).await;
            let _ = taken.send(()); // Who brought the event may have stopped to wait.
            if let Err(error) = turned {
                let (reason, error) = (error.as_str(), &error as &dyn std::error::Error);
                tracing::warn!(error, reason, "a refused call rings on");
            } else if way == AcsRefusal::Prompt {
                gateway.end_once_told(&incoming.call, &over).await;
            }
            acs.is_over(&incoming.call);
        });
        settled
    }

    /// Ends a call that was answered to hear a sentence, if nobody else does in time.
    async fn end_once_told(&self, call: &CarrierCallId, over: &CancellationToken) {
        if let Some(acs) = &self.acs
            && !self.is_over_in_time(over).await
            && let Some(connection) = acs.connection(call)
        {
            hang_up(acs, &connection).await;
        }
    }

    async fn not_answered(&self, call: &CarrierCallId, error: &AcsError, first: bool) {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            first,
            "ACS did not take our answer to a call"
        );
        if !first {
            return; // Whoever was may be about to be done: what it holds is its own to end.
        }
        if self.admission.phase(call).await == Some(Phase::Live) {
            self.dismiss_agent(call); // Another replica has answered meanwhile.
        } else {
            self.acs_failed(call, EndReason::AnswerFailed).await;
        }
    }
}

impl Acs {
    /// # Errors
    /// If ACS does not take it in time, or nobody knows.
    async fn turn_away(
        &self,
        incoming: &IncomingCall,
        callback: &Url,
        way: &AcsRefusal,
    ) -> Result<(), AcsError> {
        let (context, since) = (&incoming.context, incoming.time);
        let deadline = soon(ANSWER_WITHIN);
        match way {
            AcsRefusal::Reject => {
                let reason = RejectReason::Busy;
                let reject = Reject { context, reason };
                self.client.reject(&reject, since, deadline).await
            }
            AcsRefusal::Redirect(to) => {
                let redirect = Redirect { context, to };
                self.client.redirect(&redirect, since, deadline).await
            }
            AcsRefusal::Prompt => {
                let answer = request::Answer {
                    context,
                    callback,
                    operation_context: "hear",
                    media: None,
                };
                let answered = self.client.answer(&answer, since, deadline).await?;
                self.note(&incoming.call, &answered.connection);
                Ok(())
            }
        }
    }
}
