//! Calls to which something was to be done at ACS while nobody here knew their connection.
//!
//! Invariant: what is due to a call is done by whichever replica hears of its connection, and at ACS
//! once.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::{Acs, CONNECTION_KEPT};
use crate::{
    admission::Due, call::CarrierCallId, carrier::acs::CallConnectionId, gateway::Gateway,
    recent::Recent,
};

/// What is due to calls, where no other replica could know of it.
#[derive(Default)]
pub struct DueHere(Mutex<Recent<CarrierCallId, Due>>);

impl Acs {
    /// Tells whether nobody here has taken up yet what is due to a call.
    fn takes_up(&self, call: &CarrierCallId) -> bool {
        self.is_new(&format!("what is due to {call}"))
    }
}

impl Gateway {
    /// Returns a call's connection, to do what is due. Where it is not known it is waited for, and
    /// noted for others what is due, who may hear of it first; then there is nothing to do here.
    pub(in crate::gateway) async fn connection_for(
        &self,
        acs: &Acs,
        call: &CarrierCallId,
        due: Due,
    ) -> Option<CallConnectionId> {
        if let Some(connection) = acs.connection(call) {
            return Some(connection);
        }
        self.note_due(acs, call, Some(due)).await;
        let connection = acs.known_connection(call).await?;
        if !acs.takes_up(call) {
            return None;
        }
        self.note_due(acs, call, None).await;
        Some(connection)
    }

    /// Does what is due to a call whose connection was not known where it was to be done.
    pub(crate) async fn do_what_is_due(self: &Arc<Self>, call: &CarrierCallId) {
        let Some(acs) = &self.acs else { return };
        let Some(due) = self.due(acs, call).await else {
            return;
        };
        if !acs.takes_up(call) {
            return;
        }
        tracing::info!(?due, "a call's connection is known at last");
        self.note_due(acs, call, None).await;
        match due {
            Due::HangUp => self.hang_up_acs(call),
            Due::Transfer => match self.onward_of(call).await {
                Some((campaign, destination)) => {
                    self.transfer_acs(call, &destination, &campaign);
                }
                None => self.hang_up_acs(call),
            },
        }
    }

    async fn due(&self, acs: &Acs, call: &CarrierCallId) -> Option<Due> {
        if self.admission.is_shared() {
            return self.admission.due_noted(call).await;
        }
        let due = acs.due.0.lock().unwrap_or_else(PoisonError::into_inner);
        due.get(acs.now(), call).copied()
    }

    async fn note_due(&self, acs: &Acs, call: &CarrierCallId, due: Option<Due>) {
        if self.admission.is_shared() {
            let fields = json!({ "due": due });
            return self.admission.note(call, fields.to_string()).await;
        }
        let mut noted = acs.due.0.lock().unwrap_or_else(PoisonError::into_inner);
        match due {
            Some(due) => noted.put(acs.now(), CONNECTION_KEPT, call.clone(), due),
            None => noted.forget(call),
        }
    }
}
