//! Calls that were answered, and whose media nobody has seen yet.
//!
//! Invariant: a call whose media does not come ends with words, also if the replica has died that
//! answered it: whoever hears of its answer looks after it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    admission::{Phase, SETUP, TICK},
    answer::prompts::Prompt,
    call::{CarrierCallId, EndReason},
    campaign::Campaign,
    carrier::acs::CallConnectionId,
    gateway::Gateway,
};

/// How many calls may wait to be looked after; more than that come in no 20 s.
const MOST: usize = 20_000;
/// When they are: their tickets have expired, and the replica that answered would have ended them.
const LOOK_AFTER: Duration = SETUP.saturating_add(TICK.saturating_mul(2));

/// Calls that were answered to talk, until it is known that somebody carries them.
#[derive(Default)]
pub struct SilentCalls(Mutex<HashMap<CarrierCallId, Silent>>);

/// A call that was answered, and what it takes to end it with words.
struct Silent {
    since: Instant,
    connection: CallConnectionId,
    campaign: Campaign,
}

impl SilentCalls {
    fn note(&self, call: &CarrierCallId, connection: CallConnectionId, campaign: &Campaign) {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silent.len() < MOST {
            silent.entry(call.clone()).or_insert_with(|| Silent {
                since: Instant::now(),
                connection,
                campaign: campaign.clone(),
            });
        }
    }

    fn take(&self, call: &CarrierCallId) -> Option<Silent> {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silent.remove(call)
    }

    fn take_due(&self) -> Vec<(CarrierCallId, Silent)> {
        let mut silent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = silent.extract_if(|_, it| it.since.elapsed() >= LOOK_AFTER);
        due.collect()
    }
}

impl Gateway {
    /// Looks after a call that was answered to talk, until its media has come somewhere.
    pub(crate) fn watch_silence(
        &self,
        call: &CarrierCallId,
        connection: &CallConnectionId,
        campaign: &Campaign,
    ) {
        if let Some(acs) = &self.acs {
            acs.silent.note(call, connection.clone(), campaign);
        }
    }

    /// Ends a call of ACS's whose media has not come in time, with words if it was answered.
    pub(crate) fn end_silent(self: &Arc<Self>, call: &CarrierCallId) {
        let silent = self.acs.as_ref().and_then(|acs| acs.silent.take(call));
        match silent {
            Some(silent) => self.apologize(call, silent),
            None => self.hang_up_acs(call),
        }
    }

    /// Ends the calls that nobody has carried, nor ended, for as long as their media may take. Each
    /// goes on by itself: no heartbeat waits for it.
    pub(crate) fn end_silent_calls(self: &Arc<Self>) {
        let due = self.acs.as_ref().map(|acs| acs.silent.take_due());
        for (call, silent) in due.into_iter().flatten() {
            if self.connections.has(&call) {
                continue;
            }
            let gateway = Arc::clone(self);
            self.act(&call.clone(), async move {
                // Where nobody can tell, a live call might be ended.
                if gateway.admission.phase(&call).await == Some(Phase::Ringing) {
                    tracing::warn!("a call was answered, and nobody carries it");
                    gateway.acs_failed(&call, EndReason::NoMedia).await;
                    gateway.apologize(&call, silent);
                }
            });
        }
    }

    fn apologize(self: &Arc<Self>, call: &CarrierCallId, silent: Silent) {
        let Silent {
            connection,
            campaign,
            ..
        } = silent;
        self.say_by_rest(call, connection, Prompt::Apology, &campaign);
    }
}
