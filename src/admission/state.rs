//! What the store keeps of a call for whoever asks: `GET calls:state:<sid>`.

use serde::{Deserialize, Serialize};

use crate::{
    admission::scope::Scope,
    call::{CallId, CallerId, Carrier, CarrierCallId, EndReason},
    campaign::{Campaign, Name},
    recent::Millis,
};

/// What is known of a call. Times are Unix milliseconds; numbers are masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallState {
    pub call_id: CallId,
    pub carrier_call_id: CarrierCallId,
    pub carrier: Carrier,
    pub tenant: String,
    pub campaign: String,
    pub agent: String,
    pub state: Phase,
    /// The replica that says so.
    pub replica: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// Whether it was admitted without the store.
    pub degraded: bool,
    pub scopes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rang_at: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Ringing,
    Live,
    Ended,
}

/// What another replica has noted of a call.
#[derive(Debug, Default, Deserialize)]
struct Noted {
    caller: Option<String>,
    rang_at: Option<Millis>,
    state: Option<Phase>,
}

impl Phase {
    /// Reads how far a call has come from what is kept of it.
    pub fn noted(state: &str) -> Option<Self> {
        serde_json::from_str::<Noted>(state).ok()?.state
    }
}

/// What has become of a call of whose end nobody has told that it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The store knows no such call.
    Settled,
    /// Somebody has it, or lives who knows of its end; or the store cannot tell.
    Open,
    /// Whoever had it is gone, and knew of its end if it has one.
    Lost(Box<Orphan>),
}

/// What is left of a call whose replica is gone.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Orphan {
    pub tenant: String,
    pub campaign: String,
    pub agent: String,
    pub state: Phase,
    pub replica: String,
    /// Masked.
    pub caller: Option<String>,
    pub call_id: Option<CallId>,
    pub rang_at: Option<Millis>,
    /// The replica that notes its end, where that is not its own.
    ended_by: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl Orphan {
    /// Tells whether we have placed it.
    pub fn is_outbound(&self) -> bool {
        self.scopes.contains(&Scope::Outbound.to_string())
    }

    /// Tells whether somebody talked when its replica went, and nobody has heard of its end.
    pub fn is_live(&self) -> bool {
        self.state == Phase::Live
    }

    /// Returns the replicas that may know more of it, be it that its end is written or not.
    pub fn knowers(&self, end_is_written: bool) -> impl Iterator<Item = &str> {
        let ended_by = self.ended_by.as_deref().filter(|_| !end_is_written);
        [self.replica.as_str()].into_iter().chain(ended_by)
    }

    /// Reads what the store keeps of a call.
    pub fn read(state: &str) -> Option<Box<Self>> {
        serde_json::from_str(state).ok()
    }
}

impl CallState {
    pub fn new(
        call: CallId,
        carrier_call: CarrierCallId,
        campaign: &Campaign,
        agent: &Name,
        replica: &str,
        scopes: &[Scope],
    ) -> Self {
        let scopes = scopes.iter().filter(|scope| scope.counts(true));
        Self {
            call_id: call,
            carrier: carrier_call.carrier(),
            carrier_call_id: carrier_call,
            tenant: campaign.tenant.to_string(),
            campaign: campaign.id.to_string(),
            agent: agent.to_string(),
            state: Phase::Ringing,
            replica: replica.to_owned(),
            caller: None,
            degraded: false,
            scopes: scopes.map(Scope::to_string).collect(),
            rang_at: None,
            connected_at: None,
            ended_at: None,
            end_reason: None,
        }
    }

    pub fn rang(mut self, at: Millis, caller: &CallerId) -> Self {
        self.rang_at = Some(at);
        self.caller = Some(caller.to_string());
        self
    }

    pub fn connected(mut self, at: Millis) -> Self {
        self.state = Phase::Live;
        self.connected_at = Some(at);
        self
    }

    pub fn ended(mut self, at: Millis, reason: EndReason) -> Self {
        self.state = Phase::Ended;
        self.ended_at = Some(at);
        self.end_reason = Some(reason);
        self
    }

    /// Takes over what the replica that admitted the call has noted.
    pub fn learn(&mut self, noted: &str) {
        let noted: Noted = serde_json::from_str(noted).unwrap_or_default();
        self.caller = self.caller.take().or(noted.caller);
        self.rang_at = self.rang_at.or(noted.rang_at);
    }

    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always serialize")
    }
}
