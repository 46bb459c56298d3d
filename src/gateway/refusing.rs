//! What a caller is offered for whom there is no room.

use crate::{
    answer::Answer,
    campaign::{Campaign, WhenFull},
    gateway::Gateway,
};

impl Gateway {
    /// Returns what a refused caller hears, the same for every webhook of the call.
    pub(crate) fn refuse(&self, campaign: &Campaign) -> Answer {
        match campaign.when_full {
            WhenFull::Reject | WhenFull::Whatsapp => Answer::Refuse,
            WhenFull::Voicemail => Answer::Voicemail {
                action_url: self.public.voicemail.clone(),
                recording_url: self.public.recording_status.clone(),
                max_seconds: self.longest_message.as_secs(),
            },
        }
    }
}
