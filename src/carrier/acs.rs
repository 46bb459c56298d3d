//! The REST API of Azure Communication Services for calls, as far as it is used.
//!
//! Source: learn.microsoft.com/rest/api/communication/callautomation.
//!
//! Invariant: a request is made again only where it cannot have been done, or where ACS knows it
//! again by its id; never after the deadline of whoever asks.
//! Invariant: no ticket, no address with one and no number is in an error.

mod access;
mod error;
mod problem;
pub mod request;
mod signature;
mod transport;

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use url::Url;
use uuid::{Builder, Uuid};

use crate::{
    call::{CallId, CarrierCallId, NameError},
    carrier::{
        Fate,
        acs::{
            access::http_date,
            request::{Answer, NewCall, Play, Redirect, Reject, SendTones, Transfer},
            transport::{Operation, Transport},
        },
    },
    config::AcsApi,
};

pub use error::AcsError;
pub use problem::{Problem, tamed};

/// Calls of one resource of ACS's.
pub struct CallAutomation {
    transport: Transport,
    endpoint: String,
    version: String,
}

/// ACS's name for our leg of a call, known from the answer on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallConnectionId(String); // Invariant: 1 to 64 ASCII letters, digits and hyphens.

/// A call that ACS connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connecting {
    pub connection: CallConnectionId,
    pub call: Option<CarrierCallId>,
}

/// A call that was asked for, and that ACS has not said that it connects.
#[derive(Debug, thiserror::Error)]
#[error("ACS has not placed a call")]
pub struct Unplaced {
    #[source]
    pub error: AcsError,
    pub fate: Fate,
}

/// What ACS says of a call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    call_connection_id: String,
    #[serde(default)]
    correlation_id: Option<String>,
    #[serde(default)]
    call_connection_state: Option<String>,
}

impl CallAutomation {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(api: AcsApi, version: &str, login: &Url) -> Result<Self, reqwest::Error> {
        Ok(Self {
            transport: Transport::new(api.credentials, login)?,
            endpoint: api.endpoint.as_str().trim_end_matches('/').to_owned(),
            version: version.to_owned(),
        })
    }

    /// Answers a call that rings `since` then; it is connected once an event says so.
    ///
    /// # Errors
    /// If it is not answered by the deadline, or nobody knows.
    pub async fn answer(
        &self,
        answer: &Answer<'_>,
        since: Timestamp,
        deadline: Instant,
    ) -> Result<Connecting, AcsError> {
        let operation = self.alike(":answer", Some(answer), since);
        connecting(&self.transport.ask(&operation, deadline).await?)
    }

    /// Rejects a call that rings `since` then.
    ///
    /// # Errors
    /// If it is not rejected by the deadline, or nobody knows.
    pub async fn reject(
        &self,
        reject: &Reject<'_>,
        since: Timestamp,
        deadline: Instant,
    ) -> Result<(), AcsError> {
        let operation = self.alike(":reject", Some(reject), since);
        self.transport.ask(&operation, deadline).await.map(drop)
    }

    /// Sends a call that rings `since` then to another number.
    ///
    /// # Errors
    /// If it is not sent there by the deadline, or nobody knows.
    pub async fn redirect(
        &self,
        redirect: &Redirect<'_>,
        since: Timestamp,
        deadline: Instant,
    ) -> Result<(), AcsError> {
        let operation = self.alike(":redirect", Some(redirect), since);
        self.transport.ask(&operation, deadline).await.map(drop)
    }

    /// Places a call that ACS knows again by our name for it and the time `since` when it is
    /// wanted: it is placed once, whoever asks for it. It is connected once an event says so. Asked
    /// a single time; what that has come to, the error's [`Fate`] tells.
    ///
    /// # Errors
    /// If it is not placed by the deadline, or nobody knows.
    pub async fn create_call(
        &self,
        (name, since): (CallId, Timestamp),
        call: &NewCall<'_>,
        deadline: Instant,
    ) -> Result<Connecting, Unplaced> {
        let operation = Operation {
            repeatability: Some((name.to_string(), http_date(since))),
            ..self.operation("", Some(call))
        };
        let asked = self.transport.ask_once(&operation, deadline).await;
        let asked = asked.and_then(|answer| Ok(connecting(&answer)?));
        asked.map_err(|failure| Unplaced {
            fate: failure.error.fate(failure.retry_after),
            error: failure.error,
        })
    }

    /// Tells whether a call goes on; one that ACS does not know is over.
    ///
    /// # Errors
    /// If ACS does not say so by the deadline.
    pub async fn goes_on(
        &self,
        call: &CallConnectionId,
        deadline: Instant,
    ) -> Result<bool, AcsError> {
        let Some(answer) = self.look_at(call, deadline).await? else {
            return Ok(false);
        };
        let state = properties(&answer)?.call_connection_state;
        Ok(state.as_deref() != Some("disconnected"))
    }

    /// Ends a call for everybody in it, which is wanted `since` then. One that has ended already is
    /// as well.
    ///
    /// # Errors
    /// If it is not ended by the deadline, or nobody knows.
    pub async fn hang_up(
        &self,
        call: &CallConnectionId,
        since: Timestamp,
        deadline: Instant,
    ) -> Result<(), AcsError> {
        let operation = self.alike(&format!("/{call}:terminate"), None::<&()>, since);
        match self.transport.ask(&operation, deadline).await {
            Err(error) if error.problem().is_some_and(Problem::is_gone) => Ok(()),
            ended => ended.map(drop),
        }
    }

    /// Hands a call over to a number, which is wanted `since` then; events say what became of it.
    ///
    /// # Errors
    /// If ACS does not take it up by the deadline, or nobody knows.
    pub async fn transfer(
        &self,
        call: &CallConnectionId,
        transfer: &Transfer<'_>,
        since: Timestamp,
        deadline: Instant,
    ) -> Result<(), AcsError> {
        let path = format!("/{call}:transferToParticipant");
        let operation = self.alike(&path, Some(transfer), since);
        self.transport.ask(&operation, deadline).await.map(drop)
    }

    /// Presses keys for a number that is in a call.
    ///
    /// # Errors
    /// If ACS does not take it up by the deadline, or nobody knows.
    pub async fn send_tones(
        &self,
        call: &CallConnectionId,
        tones: &SendTones<'_>,
        deadline: Instant,
    ) -> Result<(), AcsError> {
        let operation = self.once(&format!("/{call}:sendDtmfTones"), Some(tones));
        self.transport.ask(&operation, deadline).await.map(drop)
    }

    /// Plays a file to everybody in a call; events say when it is over.
    ///
    /// # Errors
    /// If ACS does not take it up by the deadline, or nobody knows.
    pub async fn play(
        &self,
        call: &CallConnectionId,
        play: &Play<'_>,
        deadline: Instant,
    ) -> Result<(), AcsError> {
        let operation = self.operation(&format!("/{call}:play"), Some(play));
        self.transport.ask(&operation, deadline).await.map(drop)
    }

    /// Tells whether a call is over, as far as ACS knows of it.
    ///
    /// # Errors
    /// If ACS does not say so by the deadline.
    pub async fn is_over(
        &self,
        call: &CallConnectionId,
        deadline: Instant,
    ) -> Result<bool, AcsError> {
        Ok(self.look_at(call, deadline).await?.is_none())
    }

    /// Returns what ACS says of a call; nothing where it knows of none.
    async fn look_at(
        &self,
        call: &CallConnectionId,
        deadline: Instant,
    ) -> Result<Option<Vec<u8>>, AcsError> {
        let operation = Operation {
            method: Method::GET,
            ..self.operation(&format!("/{call}"), None::<&()>)
        };
        match self.transport.ask(&operation, deadline).await {
            Err(error) if error.problem().is_some_and(Problem::is_gone) => Ok(None),
            answer => answer.map(Some),
        }
    }

    /// Returns an operation that ACS does once, however often it is asked for it.
    fn once(&self, path: &str, body: Option<&impl Serialize>) -> Operation {
        let known_by = (Uuid::new_v4().to_string(), http_date(Timestamp::now()));
        Operation {
            repeatability: Some(known_by),
            ..self.operation(path, body)
        }
    }

    /// Returns an operation that ACS does once, whichever replicas ask for it: who asks for the same
    /// `since` the same time asks by the same id.
    fn alike(&self, path: &str, body: Option<&impl Serialize>, since: Timestamp) -> Operation {
        let operation = self.operation(path, body);
        let since = http_date(since);
        let asked = Sha256::new().chain_update(format!("{} {since}\n", operation.url));
        let asked: [u8; 32] = asked.chain_update(&operation.body).finalize().into();
        let (id, _) = asked.split_first_chunk().expect("half of it is enough");
        let id = Builder::from_random_bytes(*id).into_uuid();
        Operation {
            repeatability: Some((id.to_string(), since)),
            ..operation
        }
    }

    fn operation(&self, path: &str, body: Option<&impl Serialize>) -> Operation {
        let Self {
            endpoint, version, ..
        } = self;
        let url = format!("{endpoint}/calling/callConnections{path}?api-version={version}");
        let json = |body| serde_json::to_vec(body).expect("texts make JSON");
        Operation {
            method: Method::POST,
            url: url.parse().expect("plain text goes into a path"),
            body: body.map(json).unwrap_or_default(),
            repeatability: None,
        }
    }
}

impl CallConnectionId {
    /// Returns the connection of a call that ACS has placed for us, and that goes by it.
    pub fn of_placed(name: &CarrierCallId) -> Self {
        Self(name.as_str().to_owned())
    }

    /// Returns the name by which such a call goes.
    pub fn placed(&self) -> CarrierCallId {
        let name = self.0.clone().try_into();
        name.expect("both names are as plain")
    }
}

impl FromStr for CallConnectionId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        // Both names go into paths, and so both are as plain.
        let plain = CarrierCallId::try_from(text.to_owned())?;
        Ok(Self(plain.as_str().to_owned()))
    }
}

impl fmt::Display for CallConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn connecting(answer: &[u8]) -> Result<Connecting, AcsError> {
    let properties = properties(answer)?;
    let connection = properties.call_connection_id.parse();
    Ok(Connecting {
        connection: connection.map_err(|_| garbled())?,
        call: properties
            .correlation_id
            .and_then(|call| call.try_into().ok()),
    })
}

fn properties(answer: &[u8]) -> Result<Properties, AcsError> {
    serde_json::from_slice(answer).map_err(|_| garbled())
}

fn garbled() -> AcsError {
    AcsError::Garbled { status: 200 }
}

#[cfg(test)]
mod tests;
