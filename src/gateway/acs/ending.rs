//! Calls at ACS are ended, with words or without.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Acs, soon};
use crate::{
    admission::{Due, Ended},
    answer::prompts::Prompt,
    call::{Carrier, CarrierCallId, EndReason, Farewell},
    campaign::Campaign,
    carrier::acs::{CallConnectionId, Problem, request::Play},
    gateway::Gateway,
};

/// How long anything may take that ends a call.
pub const ACT_WITHIN: Duration = Duration::from_secs(30);
/// When hanging up is tried again after everything that a request does by itself.
const HANG_UP_AGAIN: Duration = Duration::from_secs(3);
/// How often it is looked whether a call's connection is known.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long a call whose media has stopped may go on until somebody says that it is over.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// How long a sentence may last until the call is ended though nobody said that it was played.
const SAID_WITHIN: Duration = Duration::from_secs(45);

impl Acs {
    /// Waits for a call's connection: a media socket may come, and its call end, before ACS has told
    /// us of it.
    pub(in crate::gateway) async fn known_connection(
        &self,
        call: &CarrierCallId,
    ) -> Option<CallConnectionId> {
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
            tracing::warn!("a call waits for its end: its connection is not known");
        }
        known
    }
}

impl Gateway {
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
                Err(error) if !error.problem().is_some_and(Problem::is_taken) => {
                    tracing::warn!(%error, "ACS did not play a sentence");
                }
                // The end of the sentence, of another replica's perhaps, is told by a callback, if
                // nothing is lost.
                Ok(()) | Err(_) if gateway.is_over_in_time(&over).await => return,
                Ok(()) | Err(_) => {}
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
            gateway.hung_up_acs(&ended).await;
        });
    }

    /// Ends a call at ACS; tells whether it has, as far as anybody can be asked.
    pub(crate) async fn hung_up_acs(&self, call: &CarrierCallId) -> bool {
        let Some(acs) = &self.acs else { return true };
        let connection = self.connection_for(acs, call, Due::HangUp).await;
        let Some(connection) = connection else {
            return false;
        };
        let is_over = hang_up(acs, &connection).await;
        if is_over {
            acs.is_over(call);
        }
        is_over
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
            self.ended_waiting(call, reason).await;
        }
    }

    /// Waits for the end of a call's last words; tells whether it came before we have to hang up.
    pub(super) async fn is_over_in_time(&self, over: &CancellationToken) -> bool {
        self.is_over_within(SAID_WITHIN, over).await
    }

    /// Waits for the end of a call that goes on by itself; tells whether it came before we have to
    /// hang up: in time, and before this process ends.
    pub(in crate::gateway) async fn is_over_within(
        &self,
        time: Duration,
        over: &CancellationToken,
    ) -> bool {
        let over = self.stopping.run_until_cancelled(over.cancelled());
        matches!(timeout(time, over).await, Ok(Some(())))
    }
}

/// Ends a call; tells whether that is done. Tries for as long as it may take, whatever ACS says:
/// nobody else would end it.
pub async fn hang_up(acs: &Acs, connection: &CallConnectionId) -> bool {
    let deadline = soon(ACT_WITHIN);
    let mut since = this_minute();
    loop {
        let Err(error) = acs.client.hang_up(connection, since, deadline).await else {
            return true;
        };
        if deadline <= Instant::now() + HANG_UP_AGAIN {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "a call could not be ended at ACS");
            return false;
        }
        sleep(HANG_UP_AGAIN).await;
        since = Timestamp::now(); // What was refused is asked for anew.
    }
}

/// Returns since when this is wanted, for what several replicas may ask for: within a minute they
/// ask for the same, which ACS does once.
pub fn this_minute() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second() / 60 * 60).unwrap_or(now)
}
