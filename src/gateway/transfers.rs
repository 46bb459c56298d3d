//! Calls that agents hand over: where they go on. The carrier asks any replica, or is told by the
//! one that carried the call.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;

use crate::{
    admission::{Due, Onward},
    answer::prompts::Prompt,
    call::{CarrierCallId, PhoneNumber},
    campaign::{Campaign, Name},
    carrier::acs::request::{Number, Transfer},
    gateway::{
        Gateway,
        acs::{ACT_WITHIN, hang_up, soon, this_minute},
    },
    recent::Recent,
};

/// How long a destination is remembered for a carrier that asks for it, in milliseconds.
const KEPT: u64 = 3_600_000;
/// How long ACS may take to hand a call over, ringing included, until it is ended; a process that
/// ends does so at once. One that has been handed over is not ours any more, and ending it does
/// nothing.
pub const HANDED_OVER_WITHIN: Duration = Duration::from_secs(120);

/// Where the calls of this replica go on.
pub struct Transfers {
    started: Instant,
    destinations: Mutex<Recent<CarrierCallId, Onward>>,
}

impl Transfers {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            destinations: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Gateway {
    /// Notes where a call goes on, before its end is noted.
    pub(crate) fn note_transfer(&self, call: &CarrierCallId, onward: Onward) {
        let Transfers { destinations, .. } = &self.transfers;
        let mut noted = destinations.lock().unwrap_or_else(PoisonError::into_inner);
        noted.put(self.transfers.now(), KEPT, call.clone(), onward);
    }

    /// Tells the other replicas where a call goes on, after they were told that it has ended: the
    /// carrier may ask any of them.
    pub(crate) async fn tell_transfer(&self, call: &CarrierCallId, onward: &Onward) {
        let fields = json!({ "transfer": onward });
        self.admission.note(call, fields.to_string()).await;
    }

    /// Returns the campaign that has handed a call over, and the number with which it goes on;
    /// `None` where nobody knows, or there is no such campaign or destination any more. No other
    /// campaign's destination of the same name will do: that one is another tenant's.
    pub(crate) async fn transfer_of(
        &self,
        call: &CarrierCallId,
    ) -> Option<(Arc<Campaign>, PhoneNumber)> {
        let (campaign, destination) = self.onward_of(call).await?;
        let number = campaign.tools.directory.destinations.get(&destination)?;
        let number = number.clone();
        Some((campaign, number))
    }

    /// Returns the campaign that has handed a call over, and where it goes on.
    pub(super) async fn onward_of(&self, call: &CarrierCallId) -> Option<(Arc<Campaign>, Name)> {
        let noted = {
            let noted = self.transfers.destinations.lock();
            let noted = noted.unwrap_or_else(PoisonError::into_inner);
            noted.get(self.transfers.now(), call).cloned()
        };
        let onward = match noted {
            Some(noted) => noted,
            None => self.admission.transfer_noted(call).await?,
        };
        let campaign = self.campaigns.current().named(&onward.campaign)?;
        Some((campaign, onward.destination.parse().ok()?))
    }

    /// Has ACS hand a call over. Goes on by itself: where it fails the caller hears so, and the
    /// call ends.
    pub(crate) fn transfer_acs(
        self: &Arc<Self>,
        call: &CarrierCallId,
        destination: &Name,
        campaign: &Campaign,
    ) {
        let directory = &campaign.tools.directory;
        let Some(to) = directory.destinations.get(destination).cloned() else {
            return self.hang_up_acs(call);
        };
        let from = directory.caller_id.as_ref().or(directory.number.as_ref());
        let from = from.cloned();
        let (gateway, campaign, call) = (Arc::clone(self), campaign.clone(), call.clone());
        self.act(&call.clone(), async move {
            let Some(acs) = &gateway.acs else { return };
            let connection = gateway.connection_for(acs, &call, Due::Transfer);
            let Some(connection) = connection.await else {
                return;
            };
            let transfer = Transfer {
                to: &to,
                from: from.as_ref().map(Number::from),
                operation_context: "transfer",
            };
            let over = acs.listens(&call);
            let transferred =
                acs.client
                    .transfer(&connection, &transfer, this_minute(), soon(ACT_WITHIN));
            if let Err(error) = transferred.await {
                let (reason, error) = (error.as_str(), &error as &dyn std::error::Error);
                tracing::warn!(error, reason, "ACS did not hand a call over");
                return gateway.say_by_rest(&call, connection, Prompt::Apology, &campaign);
            }
            if !gateway.is_over_within(HANDED_OVER_WITHIN, &over).await {
                tracing::warn!("nobody says that a call was handed over");
                hang_up(acs, &connection).await;
                acs.is_over(&call);
            }
        });
    }
}
