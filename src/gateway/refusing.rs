//! What a caller is offered for whom there is no room.

use std::sync::Arc;

use tracing::Instrument;

use crate::{
    admission::Reason,
    answer::Answer,
    call::{CallerId, CarrierCallId},
    campaign::{Campaign, WhenFull},
    carrier::{Delivery, Invitations, MessageId, Offer},
    gateway::Gateway,
};

impl Gateway {
    /// Returns what a refused caller hears, the same for every webhook of the call. What the
    /// `first` of them sets going goes on by itself.
    pub(crate) fn refuse(
        self: &Arc<Self>,
        call: &CarrierCallId,
        caller: &CallerId,
        campaign: &Campaign,
        reason: Reason,
        first: bool,
    ) -> Answer {
        if reason == Reason::Draining {
            return Answer::Refuse; // Nobody would be here to hear of a message.
        }
        match campaign.when_full {
            WhenFull::Reject => Answer::Refuse,
            WhenFull::Voicemail => Answer::Voicemail {
                action_url: self.public.voicemail.clone(),
                recording_url: self.public.recording_status.clone(),
                max_seconds: self.longest_message.as_secs(),
            },
            WhenFull::Whatsapp if self.invite(call, caller, campaign, first) => Answer::Whatsapp,
            WhenFull::Whatsapp => Answer::Refuse, // It asks to write to us, which is always true.
        }
    }

    /// Tells whether the caller gets a message, which this may set going.
    fn invite(
        self: &Arc<Self>,
        call: &CarrierCallId,
        caller: &CallerId,
        campaign: &Campaign,
        first: bool,
    ) -> bool {
        let Some(invitations) = &self.invitations else {
            return false;
        };
        let invitation = match invitations.offer(call, caller, campaign, first) {
            Offer::Send(invitation) => invitation,
            Offer::Promised => return true,
            Offer::Nothing => return false,
        };
        let gateway = Arc::clone(self);
        let sending = async move {
            if let Some(invitations) = &gateway.invitations {
                invitations.send(invitation).await;
            }
        };
        let span = tracing::info_span!("call", carrier_call.id = %call);
        self.calls.spawn(sending.instrument(span));
        true
    }

    /// Notes the last word on a message to a caller.
    pub(crate) fn note_delivery(&self, message: &MessageId, delivery: Delivery) {
        if let Some(invitations) = &self.invitations {
            invitations.settle(message, delivery);
        }
    }

    /// Returns how many messages to callers are not sent yet.
    pub(super) fn unsent_invitations(&self) -> usize {
        self.invitations.as_ref().map_or(0, Invitations::unsent)
    }
}
