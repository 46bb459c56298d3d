//! Messages to callers, over Twilio's REST API.
//!
//! Source: twilio.com/docs/messaging/api/message-resource.

use std::time::Duration;

use rand::RngExt;
use tokio::time::sleep;

use crate::carrier::{
    MessageId,
    twilio::{Lost, Reply, TwilioApi, Wait},
};

/// The longest pause that is made because Twilio asks for it.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The pause before the second try where Twilio asks for none, and what is added by chance, so
/// that many do not come again at once.
const PAUSE: Duration = Duration::from_millis(500);
const JITTER_MS: u64 = 500;

/// Why a message is not on its way, or may not be.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("Twilio cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("Twilio takes no more requests for a while")]
    Throttled { code: Option<u32> },
    #[error("Twilio does not know the credentials, or does not let them send")]
    Unauthorized { code: Option<u32> },
    #[error("Twilio refused the message with status {status}")]
    Refused { status: u16, code: Option<u32> },
    #[error("Twilio failed with status {status}; the message may have been sent")]
    Failed { status: u16, code: Option<u32> },
    #[error("Twilio did not answer in time; the message may have been sent")]
    TooSlow,
    #[error("Twilio's answer broke off; the message may have been sent")]
    BrokenOff(#[source] reqwest::Error),
}

/// A request that Twilio did not do, and after which pause it may be repeated.
struct NotDone {
    error: SendError,
    pause: Option<Duration>,
}

impl TwilioApi {
    /// Asks Twilio to send a message; once more where the first request cannot have been done.
    /// Returns the message's name, if Twilio told it.
    ///
    /// # Errors
    /// If the message is not sent, or nobody knows.
    pub async fn send_message(
        &self,
        form: &[(&str, &str)],
    ) -> Result<Option<MessageId>, SendError> {
        let not_done = match self.post_message(form).await {
            Ok(sent) => return sent,
            Err(not_done) => not_done,
        };
        let Some(pause) = not_done.pause else {
            return Err(not_done.error);
        };
        let jitter = Duration::from_millis(rand::rng().random_range(0..=JITTER_MS));
        sleep(pause + jitter).await;
        match self.post_message(form).await {
            Ok(sent) => sent,
            Err(NotDone { error, .. }) => Err(error),
        }
    }

    /// Returns `Err` only for what Twilio has not done.
    async fn post_message(
        &self,
        form: &[(&str, &str)],
    ) -> Result<Result<Option<MessageId>, SendError>, NotDone> {
        let reply = match self.post("Messages.json", form).await {
            Ok(reply) => reply,
            Err(Lost::Unreachable(error)) => {
                let error = SendError::Unreachable(error);
                let pause = Some(PAUSE);
                return Err(NotDone { error, pause });
            }
            Err(Lost::TooSlow) => return Ok(Err(SendError::TooSlow)),
            Err(Lost::BrokenOff(error)) => return Ok(Err(SendError::BrokenOff(error))),
        };
        let Reply {
            status, code, wait, ..
        } = reply;
        let sid = reply.sid();
        let error = match status {
            200..300 => return Ok(Ok(sid.and_then(MessageId::read))),
            429 => {
                let error = SendError::Throttled { code };
                let pause = pause_before_retry(wait);
                return Err(NotDone { error, pause });
            }
            401 | 403 => SendError::Unauthorized { code },
            400..500 => SendError::Refused { status, code },
            _ => SendError::Failed { status, code },
        };
        Ok(Err(error))
    }
}

impl SendError {
    /// Returns the name that metrics have for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Throttled { .. } => "throttled",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::TooSlow => "too_slow",
            Self::BrokenOff(_) => "broken_off",
        }
    }

    /// Tells whether the same message could be sent at another time, since this one was not.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Throttled { .. } | Self::Unauthorized { .. } => true,
            Self::Refused { .. } | Self::Failed { .. } | Self::TooSlow | Self::BrokenOff(_) => {
                false
            }
        }
    }

    /// Returns Twilio's own number for it.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Throttled { code }
            | Self::Unauthorized { code }
            | Self::Refused { code, .. }
            | Self::Failed { code, .. } => *code,
            Self::Unreachable(_) | Self::TooSlow | Self::BrokenOff(_) => None,
        }
    }
}

/// Says what to do about Twilio's `code`. twilio.com/docs/api/errors.
pub fn hint(code: u32) -> &'static str {
    match code {
        20003 => "are TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN, or the API key, of one account?",
        20404 => "is TWILIO_ACCOUNT_SID the account of the credentials?",
        20429 => "the account sends too many requests at once",
        21211 | 21214 | 21217 | 63024 => "the caller's number cannot be written to",
        21212 => "WHATSAPP_FROM is no number that can send",
        63003 => "the caller's number has no WhatsApp",
        63007 => "WHATSAPP_FROM is not a WhatsApp sender of this account",
        63013 | 63021 => "do WHATSAPP_TEMPLATE_VARIABLES fit the template?",
        63016 => "is WHATSAPP_TEMPLATE_SID an approved template for WhatsApp?",
        63018 => "the sender's own rate limit is reached",
        _ => "see twilio.com/docs/api/errors",
    }
}

/// Returns how long to wait before a second try; `None` where Twilio wants more time than that.
fn pause_before_retry(wait: Option<Wait>) -> Option<Duration> {
    wait.map_or(Some(PAUSE), |wait| wait.at_most(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests;
