//! Calls that we place, over Twilio's REST API.
//!
//! Source: twilio.com/docs/voice/api/call-resource.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use serde_json::Value;

use crate::{
    call::CarrierCallId,
    carrier::{
        Fate,
        twilio::{Lost, Reply, TwilioApi},
    },
};

/// How many calls are looked at to find one: those of one pair of numbers, the latest first.
const LISTED: &str = "50";

/// A call to be placed.
#[derive(Debug)]
pub struct NewCall<'a> {
    pub to: &'a str,
    pub from: &'a str,
    /// Who says what happens once it is answered.
    pub answer_url: &'a str,
    /// Who is told how it comes along.
    pub status_url: &'a str,
    pub ring_for: Duration,
    /// How long it may last.
    pub longest: Duration,
    pub detection: Detection,
}

/// Whether Twilio listens for an answering machine before anybody talks. It does so before it asks
/// what to do: the asynchronous kind takes one of the call's four audio forks, and so can collide
/// with its media stream. twilio.com/docs/voice/answering-machine-detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detection {
    Off,
    /// It tells as soon as it knows.
    Enable,
    /// Of a machine it tells when the greeting is over.
    MessageEnd,
}

/// Why a call is not placed, or may be placed though nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("Twilio cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("Twilio takes no more requests for a while")]
    Throttled {
        code: Option<u32>,
        wait: Option<Duration>,
    },
    #[error("Twilio does not know the credentials, or does not let them place calls")]
    Unauthorized { code: Option<u32> },
    #[error("Twilio refused with status {status}")]
    Refused { status: u16, code: Option<u32> },
    #[error("Twilio failed with status {status}")]
    Failed { status: u16, code: Option<u32> },
    #[error("Twilio did not answer in time")]
    TooSlow,
    #[error("Twilio's answer broke off")]
    BrokenOff(#[source] reqwest::Error),
    #[error("Twilio's answer makes no sense")]
    Garbled,
}

/// A call of the account's, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub call: CarrierCallId,
    /// As [`crate::webhook::twilio`] reads it.
    pub status: String,
    /// When it was asked for, in Unix milliseconds, if Twilio says so.
    pub created_at: Option<i64>,
    /// How long it has lasted from its answer on, once it is over.
    pub lasted: Option<Duration>,
}

impl TwilioApi {
    /// Asks Twilio to place a call. Asked once: whether it may be asked again, the error's
    /// [`Fate`] tells.
    ///
    /// # Errors
    /// If the call is not placed, or nobody knows.
    pub async fn place(&self, call: &NewCall<'_>) -> Result<CarrierCallId, CallError> {
        let (ring_for, longest) = (call.ring_for.as_secs(), call.longest.as_secs());
        let (ring_for, longest) = (ring_for.to_string(), longest.to_string());
        let mut form = vec![
            ("To", call.to),
            ("From", call.from),
            ("Url", call.answer_url),
            ("StatusCallback", call.status_url),
            ("Timeout", &ring_for),
            ("TimeLimit", &longest),
        ];
        let events = ["initiated", "ringing", "answered", "completed"];
        form.extend(events.map(|event| ("StatusCallbackEvent", event)));
        form.extend(call.detection.field());
        let reply = self.post("Calls.json", &form).await?.succeeded()?;
        let sid = reply.sid().unwrap_or_default().to_owned();
        CarrierCallId::try_from(sid).map_err(|_| CallError::Garbled)
    }

    /// Returns a call as it stands.
    ///
    /// # Errors
    /// If Twilio does not say so.
    pub async fn fetch(&self, call: &CarrierCallId) -> Result<Listed, CallError> {
        let reply = self.get(&format!("Calls/{call}.json"), &[]).await?;
        listed(&reply.succeeded()?.body).ok_or(CallError::Garbled)
    }

    /// Returns the latest calls between two numbers. A call that waits for its turn has no start
    /// time, so it is not asked for by one.
    ///
    /// # Errors
    /// If Twilio does not list them.
    pub async fn list(&self, to: &str, from: &str) -> Result<Vec<Listed>, CallError> {
        let query = [("To", to), ("From", from), ("PageSize", LISTED)];
        let reply = self.get("Calls.json", &query).await?.succeeded()?;
        let calls = reply.body.get("calls").and_then(Value::as_array);
        let calls = calls.ok_or(CallError::Garbled)?;
        Ok(calls.iter().filter_map(listed).collect())
    }

    /// Asks for the latest call, which the credentials have to be good for. Twilio's own record of
    /// the account would not do: most API keys may not see it, and place calls all the same.
    ///
    /// # Errors
    /// If Twilio does not answer, or not us.
    pub async fn try_out(&self) -> Result<(), CallError> {
        let reply = self.get("Calls.json", &[("PageSize", "1")]).await?;
        reply.succeeded().map(drop)
    }

    /// Ends a call, in whatever state it is; one that is over already has ended too.
    ///
    /// # Errors
    /// If Twilio has not done it, or nobody knows. It may be asked again.
    pub async fn end(&self, call: &CarrierCallId) -> Result<(), CallError> {
        let path = format!("Calls/{call}.json");
        let reply = self.post(&path, &[("Status", "completed")]).await?;
        match (reply.status, reply.code) {
            // twilio.com/docs/api/errors/20404 and /21220: it is not in progress.
            (404, _) | (400, Some(21_220)) => Ok(()),
            _ => reply.succeeded().map(drop),
        }
    }
}

impl Reply {
    fn succeeded(self) -> Result<Self, CallError> {
        let Self {
            status, code, wait, ..
        } = self;
        Err(match (status, code) {
            (200..300, _) => return Ok(self),
            // twilio.com/docs/api/errors/10004 and /22005: too many calls for the moment.
            (429, _) | (400..500, Some(10_004 | 22_005)) => CallError::Throttled {
                code,
                wait: wait.and_then(|wait| wait.0),
            },
            (401 | 403, _) => CallError::Unauthorized { code },
            // A proxy's words on the way, as a rule: Twilio may have heard us all the same.
            (408 | 409 | 425, _) => CallError::Failed { status, code },
            (400..500, _) => CallError::Refused { status, code },
            _ => CallError::Failed { status, code },
        })
    }
}

impl From<Lost> for CallError {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unreachable(error) => Self::Unreachable(error),
            Lost::TooSlow => Self::TooSlow,
            Lost::BrokenOff(error) => Self::BrokenOff(error),
        }
    }
}

impl CallError {
    /// Tells whether Twilio says that there is no such call. That it does not know us says nothing of
    /// the call.
    pub fn knows_no_call(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Tells whether Twilio was asked for too much.
    pub fn is_throttled(&self) -> bool {
        matches!(self, Self::Throttled { .. })
    }

    pub fn fate(&self) -> Fate {
        match self {
            Self::Unreachable(_) => Fate::NotDone { wait: None },
            Self::Throttled { wait, .. } => Fate::NotDone { wait: *wait },
            Self::Unauthorized { .. } | Self::Refused { .. } => Fate::Refused,
            // An answer that names no call may still be that of one.
            Self::Failed { .. } | Self::TooSlow | Self::BrokenOff(_) | Self::Garbled => {
                Fate::Unknown
            }
        }
    }

    /// Returns the name that logs and records have for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Throttled { .. } => "throttled",
            Self::Unauthorized { .. } => "unauthorized",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
            Self::TooSlow => "too_slow",
            Self::BrokenOff(_) => "broken_off",
            Self::Garbled => "garbled",
        }
    }

    /// Returns Twilio's own number for it.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Throttled { code, .. }
            | Self::Unauthorized { code }
            | Self::Refused { code, .. }
            | Self::Failed { code, .. } => *code,
            Self::Unreachable(_) | Self::TooSlow | Self::BrokenOff(_) | Self::Garbled => None,
        }
    }
}

impl Detection {
    fn field(self) -> Option<(&'static str, &'static str)> {
        let how = match self {
            Self::Off => return None,
            Self::Enable => "Enable",
            Self::MessageEnd => "DetectMessageEnd",
        };
        Some(("MachineDetection", how))
    }
}

fn listed(call: &Value) -> Option<Listed> {
    let text = |name| call.get(name).and_then(Value::as_str);
    let created = text("date_created").and_then(|date| rfc2822::parse(date).ok());
    Some(Listed {
        call: CarrierCallId::try_from(text("sid")?.to_owned()).ok()?,
        status: text("status")?.to_owned(),
        created_at: created.map(|at| Timestamp::from(at).as_millisecond()),
        lasted: text("duration")
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs),
    })
}

#[cfg(test)]
mod tests;
