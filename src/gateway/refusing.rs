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
    record::What,
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
        match reason {
            // Nobody would be here to hear of a message, or wants to.
            Reason::Draining | Reason::IntakeStopped => return Answer::Refuse,
            Reason::Full
            | Reason::Outage
            | Reason::Connections
            | Reason::Dials
            | Reason::Tokens
            | Reason::Resting => {}
        }
        let (offer, answer) = match campaign.when_full {
            WhenFull::Voicemail => {
                let answer = Answer::Voicemail {
                    action_url: self.public.voicemail.clone(),
                    recording_url: self.public.recording_status.clone(),
                    max_seconds: self.longest_message.as_secs(),
                };
                (WhenFull::Voicemail, answer)
            }
            WhenFull::Whatsapp if self.invite(call, caller, campaign, first) => {
                (WhenFull::Whatsapp, Answer::Whatsapp)
            }
            // It asks to write to us, which is always true.
            WhenFull::Reject | WhenFull::Whatsapp => (WhenFull::Reject, Answer::Refuse),
        };
        if first {
            self.timeline.step(call, What::Offered(offer));
        }
        answer
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
        let (gateway, invited) = (Arc::clone(self), call.clone());
        let sending = async move {
            if let Some(invitations) = &gateway.invitations {
                let status_url = gateway.public.message_status(&invited);
                let (message, result) = invitations.send(invitation, &status_url).await;
                let step = What::Invited { message, result };
                gateway.timeline.step(&invited, step);
            }
        };
        self.calls.spawn(sending.instrument(self.span_of(call)));
        true
    }

    /// Notes the last word on a message that was sent for `call`, whichever replica sent it.
    pub(crate) fn note_delivery(
        &self,
        call: &CarrierCallId,
        message: &MessageId,
        delivery: Delivery,
    ) {
        let settled = self.invitations.as_ref();
        let settled = settled.and_then(|invitations| invitations.settle(message, delivery));
        if let Some(result) = settled {
            let message = Some(message.clone());
            self.timeline.step(call, What::Invited { message, result });
        }
    }

    /// Returns how many messages to callers are not sent yet.
    pub(super) fn unsent_invitations(&self) -> usize {
        self.invitations.as_ref().map_or(0, Invitations::unsent)
    }
}
