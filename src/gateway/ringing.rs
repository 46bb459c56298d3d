//! Calls that ring: their agents are connected before their media arrives.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};
use tracing::Instrument;

use crate::{
    admission::{Decision, Refusal, SETUP, TICK},
    agent::{Agent, AgentError, AgentSocket},
    bridge::Arriving,
    call::{CallerId, CarrierCallId},
    campaign::{Campaign, Name},
    chunk::Encoding,
    gateway::Gateway,
    outbound::Overrides,
    record::{Arrival, Direction, Seen},
    trace::Phase,
};

/// Calls whose media has not arrived, with the agents that are on their way to them.
#[derive(Default)]
pub struct RingingCalls(Mutex<HashMap<CarrierCallId, Ringing>>);

/// A call's caller, and the agent that is on its way to it.
pub struct Ringing {
    pub caller: CallerId,
    pub agent: Arc<Agent>,
    pub arriving: Arriving,
    since: Instant,
}

impl RingingCalls {
    /// A panic elsewhere must not cost every later call its agent: each operation leaves the
    /// table whole, so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, HashMap<CarrierCallId, Ringing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Decides about a call that rings. The first webhook of an admitted one starts to connect its
    /// agent, for audio that the `carrier` encodes so.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        call: &CarrierCallId,
        caller: &CallerId,
        called: &CallerId,
        campaign: &Campaign,
        carrier: Encoding,
    ) -> Decision {
        let campaigns = self.campaigns.current();
        let ready = self.readiness(campaign);
        let began = Instant::now();
        let admission = self
            .admission
            .admit(call, caller, campaign, &campaigns, &ready);
        let decision = admission.await;
        let decided_in = began.elapsed();
        self.metrics.decided(decided_in);
        self.timeline.took(call, Phase::Admission, decided_in);
        let seen = Seen {
            decided_in,
            counts: self.admission.counts(campaign, &campaigns),
        };
        let arrival = |agent: Option<&Name>, refused: Option<&Refusal>| Arrival {
            direction: Direction::Inbound,
            tenant: campaign.tenant.clone(),
            campaign: campaign.id.clone(),
            agent: agent.cloned(),
            caller: caller.clone(),
            called: called.clone(),
            refused: refused.cloned(),
            placed_as: None,
            seen: Some(seen.clone()),
        };
        match &decision {
            Decision::Admit {
                agent, first: true, ..
            } => {
                self.metrics.started();
                self.timeline.arrived(call, arrival(Some(agent), None));
                if ready.dials {
                    let as_usual = Overrides::default();
                    self.call_agent(call, caller, agent, &as_usual, campaign, carrier);
                }
            }
            Decision::Refuse {
                refusal,
                first: true,
            } => {
                let scope = refusal.scope.kind();
                self.metrics.refused(scope, refusal.reason.as_str());
                self.timeline.arrived(call, arrival(None, Some(refusal)));
            }
            Decision::Admit { .. } | Decision::Refuse { .. } | Decision::Ended => {}
        }
        decision
    }

    /// Starts to connect the agent that was chosen for a call that rings, so that it is there when the
    /// media is, which the `carrier` encodes so.
    pub(crate) fn call_agent(
        self: &Arc<Self>,
        call: &CarrierCallId,
        caller: &CallerId,
        agent: &Name,
        overrides: &Overrides,
        campaign: &Campaign,
        carrier: Encoding,
    ) {
        let (agent, caller) = (self.agent(agent, overrides), caller.clone());
        let ringing = self.begin_ringing(call, caller, agent, campaign, carrier);
        self.ringing.lock().insert(call.clone(), ringing);
        if self.admission.has_ended(call) {
            self.dismiss_agent(call); // The carrier's word overtook us.
        }
    }

    fn begin_ringing(
        self: &Arc<Self>,
        call: &CarrierCallId,
        caller: CallerId,
        agent: Arc<Agent>,
        campaign: &Campaign,
        carrier: Encoding,
    ) -> Ringing {
        let encoding = agent.encoding_for(carrier);
        let (arrived, arriving) = oneshot::channel();
        let gateway = Arc::clone(self);
        let (ours, campaign) = (Arc::clone(&agent), campaign.clone());
        let rings = call.clone();
        let connecting = async move {
            let began = Instant::now();
            let connected = gateway.connect_agent(&ours, &campaign, encoding).await;
            let took = began.elapsed();
            gateway.timeline.took(&rings, Phase::AgentConnect, took);
            let unwanted = match arrived.send(connected) {
                Ok(()) => return,
                Err(unwanted) => unwanted,
            };
            if let Ok(agent) = unwanted {
                agent.close().await;
            }
        };
        let connecting = connecting.instrument(self.span_of(call));
        self.calls.spawn_local(connecting);
        Ringing {
            caller,
            agent,
            arriving,
            since: Instant::now(),
        }
    }

    /// Returns the agent of this name, as it is in one call.
    fn agent(&self, name: &Name, overrides: &Overrides) -> Arc<Agent> {
        let agent = self.campaigns.agents().of(name);
        if overrides.is_empty() {
            agent
        } else {
            Arc::new(agent.overridden(overrides))
        }
    }

    /// Tells whether a call's agent is on its way here.
    pub(crate) fn is_ringing(&self, call: &CarrierCallId) -> bool {
        self.ringing.lock().contains_key(call)
    }

    async fn connect_agent(
        &self,
        agent: &Agent,
        campaign: &Campaign,
        encoding: Encoding,
    ) -> Result<AgentSocket, AgentError> {
        let began = Instant::now();
        let connected = agent.connect(campaign, encoding).await;
        match &connected {
            Ok(_) => {
                let took = began.elapsed();
                self.metrics.agent_ready(agent.name().as_str(), took);
                agent.health().connected(took);
            }
            Err(error) => {
                let reason = error.end_reason().as_str();
                agent.health().failed(reason);
                let error = error as &dyn std::error::Error;
                let agent = agent.name().as_str();
                self.metrics.agent_failed(agent, reason);
                tracing::warn!(error, reason, agent, "no agent for a call");
            }
        }
        if agent.is_resting() || agent.was_reached() {
            self.admission.nudge(); // The other replicas should not have to find out.
        }
        connected
    }

    /// Hands over the agent and the caller of a call whose media has arrived. Where another
    /// replica answered the webhook, the call's agent is called now, and the caller is `noted`.
    pub(crate) fn take_ringing(
        self: &Arc<Self>,
        call: &CarrierCallId,
        (agent, overrides): (&Name, &Overrides),
        campaign: &Campaign,
        noted: Option<&str>,
        carrier: Encoding,
    ) -> Ringing {
        let ringing = self.ringing.lock().remove(call);
        ringing.unwrap_or_else(|| {
            let caller = noted.map_or(CallerId::Withheld, CallerId::masked);
            let agent = self.agent(agent, overrides);
            self.begin_ringing(call, caller, agent, campaign, carrier)
        })
    }

    /// Sends the agent of a call away whose media will not come.
    pub(crate) fn dismiss_agent(&self, call: &CarrierCallId) {
        let ringing = self.ringing.lock().remove(call);
        if let Some(ringing) = ringing {
            self.send_away(ringing);
        }
    }

    /// Sends away the agents of calls that have been ringing for too long, whatever became of
    /// those calls.
    pub(super) fn dismiss_forgotten_agents(&self) {
        let mut ringing = self.ringing.lock();
        let forgotten: Vec<Ringing> = ringing
            .extract_if(|_, ringing| ringing.since.elapsed() > SETUP + TICK)
            .map(|(_, ringing)| ringing)
            .collect();
        drop(ringing);
        for ringing in forgotten {
            self.send_away(ringing);
        }
    }

    fn send_away(&self, mut ringing: Ringing) {
        ringing.arriving.close();
        if let Ok(Ok(agent)) = ringing.arriving.try_recv() {
            self.calls.spawn(agent.close());
        }
    }
}
