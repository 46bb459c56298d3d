//! The other way for a call to begin: a program asks for it, and we place it.
//!
//! Invariant: nobody is called twice for one request. What was asked for is committed before the
//! carrier is asked, and the carrier is asked again only for what it has certainly not done.
//! Invariant: what may ring has a row that some replica looks after, and holds a slot.

mod acs;
mod choice;
mod dial;
mod ending;
pub mod number;
mod pace;
mod pick_up;
mod place;
mod progress;
mod reconcile;
mod request;
mod room;
mod rows;
mod supervise;
mod twilio;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tracing::Span;

use crate::{
    admission::Refusal,
    call::{CallId, CarrierCallId},
    carrier::twilio::{Patience, TwilioApi},
    config::OutboundSettings,
    gateway::Gateway,
    outbound::{pace::Pace, rows::Row},
    recent::{Millis, Recent},
    record::{Database, DatabaseError, unix_millis},
};

pub use acs::{disconnected, picked_up_at_acs};
pub use ending::{goes_on_elsewhere, hang_up};
pub use pick_up::{overrides_of, picked_up};
pub use place::{Asker, place};
pub use progress::{Progress, progressed};
#[cfg(test)]
pub use request::{AGENT_FIELDS, FIELDS};
pub use request::{MachineDetection, Overrides, Request, WhenMachine};
pub use supervise::look_after;

/// How long a replica remembers by itself that a call is to be over: longer than it can ring.
const CALLED_OFF_KNOWN: Millis = 600_000;
/// What a marker is sealed for.
const PURPOSE: &str = "outbound";

/// What placing calls needs beside the rest of the gateway.
pub struct Outbound {
    settings: Box<OutboundSettings>,
    /// `None` where the settings to ask Twilio for calls are not there.
    twilio: Option<TwilioApi>,
    pace: Pace,
    /// Calls that are to be over.
    called_off: Mutex<Recent<CallId, ()>>,
    /// Whose ends their carriers have been asked for here, or are asked for until they come.
    ending: Mutex<Recent<CallId, ()>>,
}

/// A call that is going to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub id: String,
    pub state: &'static str,
    pub to: String,
    pub from: String,
    pub campaign: String,
    pub created_at: i64,
}

/// Why a call is not placed.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// A field of the request is at fault; blank where it is the body as a whole.
    Invalid { field: String, message: String },
    /// The same key came with another body.
    OtherBody,
    /// No call can be placed with these settings; what has to be set.
    Closed(String),
    /// A cap on live calls is full: `rate_limit_exceeded`.
    Full(Refusal),
    /// There were too many requests: `rate_limit_exceeded`.
    TooMany {
        cap: &'static str,
        value: u32,
        /// `None` where other tenants' are counted: nobody learns whom they call.
        used: Option<u32>,
        again_in: Duration,
    },
    /// The day's calls or minutes are spent: `usage_cap_exceeded`.
    Spent {
        cap: &'static str,
        value: u32,
        used: u32,
        again_in: Duration,
    },
    /// The slot store cannot say; or this replica drains. Nothing was done.
    Unavailable { again_in: Duration },
    /// The database cannot say, or has not yet, whether it is placed. Whoever asks again by the same
    /// key is told.
    NotKnownYet { again_in: Duration },
}

/// What the URLs of a placed call carry, so that whoever is told of it knows which one it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Marker {
    #[serde(rename = "p")]
    pub pending: String,
    #[serde(rename = "g")]
    pub campaign: String,
    #[serde(rename = "a")]
    pub agent: String,
    #[serde(rename = "m")]
    pub when_machine: WhenMachine,
    /// How many seconds it may last, if not as long as any.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

fn lock(known: &Mutex<Recent<CallId, ()>>) -> MutexGuard<'_, Recent<CallId, ()>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbound {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(settings: Box<OutboundSettings>) -> Result<Box<Self>, reqwest::Error> {
        let twilio = settings.twilio.as_ref().ok().cloned();
        let twilio = twilio.map(|api| TwilioApi::new(api, Patience::default()));
        Ok(Box::new(Self {
            twilio: twilio.transpose()?,
            pace: Pace::new(settings.per_second, settings.longest_wait),
            called_off: Mutex::default(),
            ending: Mutex::default(),
            settings,
        }))
    }

    /// Remembers here that a call is to be over.
    fn call_off(&self, call: CallId) {
        lock(&self.called_off).put(unix_millis(), CALLED_OFF_KNOWN, call, ());
    }

    fn is_called_off(&self, call: CallId) -> bool {
        lock(&self.called_off).get(unix_millis(), &call).is_some()
    }

    /// Begins to have a call's carrier end it, unless that has begun already.
    fn begin_to_end(&self, call: CallId) -> bool {
        let mut ending = lock(&self.ending);
        let is_news = ending.get(unix_millis(), &call).is_none();
        if is_news {
            ending.put(unix_millis(), CALLED_OFF_KNOWN, call, ());
        }
        is_news
    }

    /// Gives up to have a call's carrier end it, so that whoever wants it next begins anew.
    fn give_up_to_end(&self, call: CallId) {
        lock(&self.ending).forget(&call);
    }

    /// Returns Twilio's API, where the settings to ask it are there.
    pub fn twilio(&self) -> Option<&TwilioApi> {
        self.twilio.as_ref()
    }
}

/// Tells whether a call that was asked for is still noted: it is to be placed, or was.
///
/// # Errors
/// If the database does not answer.
pub async fn is_noted(database: &Database, call: CallId) -> Result<bool, DatabaseError> {
    Ok(rows::find(database, call).await?.is_some())
}

/// Tells whether somebody has picked up a call that we place, and nobody has told of its end.
///
/// # Errors
/// If the database does not answer.
pub async fn is_picked_up(database: &Database, call: CallId) -> Result<bool, DatabaseError> {
    let row = rows::find(database, call).await?;
    Ok(row.is_some_and(|row| row.stage == rows::Stage::Answered))
}

/// Returns the span of a call that its carrier tells of by a URL of ours, and notes by which name.
pub fn span_of_placed(gateway: &Gateway, marker: &Marker, name: &CarrierCallId) -> Span {
    if let Ok(pending) = CarrierCallId::try_from(marker.pending.clone()) {
        gateway.timeline.named(name, CallId::of(&pending));
    }
    gateway.span_of(name)
}

/// Returns what a call's URLs carry, so that whoever is told of it knows which one it is.
fn marker(gateway: &Gateway, row: &Row) -> String {
    let marker = Marker {
        pending: row.pending.as_str().to_owned(),
        campaign: row.campaign.clone(),
        agent: row
            .agent
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        when_machine: row.terms.when_machine,
        seconds: row.terms.left_of_day.map(|left| left.as_secs()),
    };
    gateway.seal.close(PURPOSE, &marker)
}

/// Reads what a URL of ours carries.
pub fn open(gateway: &Gateway, text: &str) -> Option<Marker> {
    gateway.seal.open(PURPOSE, text)
}

#[cfg(test)]
mod tests;
