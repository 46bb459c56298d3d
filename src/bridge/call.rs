//! One media socket's life after its upgrade: claim, bridge, farewell.
//!
//! Invariant: nothing reaches an agent before the ticket is good.
//! Invariant: a panic in a call ends that call only, and its slot comes back.

pub mod acs;
pub mod twilio;
pub mod web;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode, web as extract};
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use crate::{
    admission::{ClaimError, Claimed},
    bridge::{AgentSeat, Bridge, Line},
    call::{CarrierCallId, EndReason},
    campaign::Campaign,
    connections::Place,
    gateway::{Gateway, Ringing},
    media::{MediaSocket, web::State},
    outbound::{Overrides, overrides_of},
    record::What,
    session::{Session, Terms},
};

/// How long a socket stays open for the store to note how its call has ended.
const NOTED_WITHIN: Duration = Duration::from_millis(100);

/// Why a media socket is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    #[error("draining")]
    Draining,
    #[error("connection limit reached")]
    Full,
}

/// A call that a media socket has brought and claimed.
struct Taken {
    call: CarrierCallId,
    campaign: Arc<Campaign>,
    claimed: Claimed,
    /// What its agent does otherwise, if it is not on its way here already.
    overrides: Overrides,
    place: Place,
}

/// How a taken call ended, and the campaign whose words its caller is to hear now.
struct Over {
    reason: EndReason,
    campaign: Arc<Campaign>,
}

impl ResponseError for NoPlace {
    fn status_code(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE // A proxy tries a sibling.
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).body(self.to_string())
    }
}

/// Takes a place for a media socket that is about to be upgraded.
fn take_place(gateway: &Gateway) -> Result<Place, NoPlace> {
    if gateway.is_draining() {
        return Err(NoPlace::Draining);
    }
    gateway.connections.take_place().ok_or(NoPlace::Full)
}

/// The span that everything of a call is logged in.
fn span(call: &CarrierCallId) -> tracing::Span {
    tracing::info_span!(
        "call",
        call.id = tracing::field::Empty,
        carrier_call.id = %call,
        carrier = call.carrier().as_str(),
        campaign.id = tracing::field::Empty,
    )
}

/// Claims the call that a ticket names. Where its campaign is gone from the file since the call
/// rang, the default one takes over.
async fn claim(
    gateway: &Gateway,
    ticket: &str,
    call: CarrierCallId,
    place: Place,
) -> Result<Taken, ClaimError> {
    let ticket = gateway.admission.read(ticket, &call)?;
    let campaigns = gateway.campaigns.current();
    let campaign = campaigns.named(&ticket.campaign);
    let campaign = campaign.unwrap_or_else(|| Arc::clone(campaigns.default_campaign()));
    let claimed = gateway.admission.claim(&ticket, &campaign, &campaigns);
    let claimed = claimed.await?;
    let overrides = if ticket.outbound && !gateway.is_ringing(&call) {
        overrides_of(gateway, claimed.call).await
    } else {
        Overrides::default()
    };
    let span = tracing::Span::current();
    span.record("call.id", tracing::field::display(claimed.call));
    span.record("campaign.id", campaign.id.as_str());
    Ok(Taken {
        call,
        campaign,
        claimed,
        overrides,
        place,
    })
}

/// Claims a call for its socket and bridges it. Returns once the slot is on its way back.
///
/// # Errors
/// If the ticket gives no right to the call.
async fn carry(
    gateway: &extract::Data<Gateway>,
    socket: &mut MediaSocket,
    place: Place,
    call: CarrierCallId,
    ticket: &str,
) -> Result<Over, ClaimError> {
    let taken = claim(gateway, ticket, call, place).await;
    let taken = taken.inspect_err(|error| {
        gateway.metrics.ticket_refused();
        tracing::warn!(%error, "refused a media socket's ticket");
    })?;
    let (call, campaign) = (taken.call.clone(), Arc::clone(&taken.campaign));
    let bridged = AssertUnwindSafe(bridge(gateway, socket, taken)).catch_unwind();
    let (is_back, reason) = if let Ok((place, reason)) = bridged.await {
        (place.leave(reason), reason)
    } else {
        tracing::error!("a call panicked: this is a bug in callgate");
        (None, EndReason::Panicked)
    };
    gateway.ended(&call, reason);
    tracing::info!(
        reason = reason.as_str(),
        blame = reason.blame().as_str(),
        "call ended"
    );
    if let Some(is_back) = is_back {
        // Once the socket closes, the carrier may ask any replica what the caller hears now.
        let _ = timeout(NOTED_WITHIN, is_back).await;
    }
    Ok(Over { reason, campaign })
}

async fn bridge(
    gateway: &extract::Data<Gateway>,
    socket: &mut MediaSocket,
    taken: Taken,
) -> (Place, EndReason) {
    let Taken {
        call,
        campaign,
        claimed,
        overrides,
        mut place,
    } = taken;
    let noted = claimed.caller.as_deref();
    let Ringing {
        caller,
        agent,
        arriving,
        ..
    } = gateway.take_ringing(
        &call,
        (&claimed.agent, &overrides),
        &campaign.language,
        noted,
        socket.encoding(),
    );
    let id = place.id();
    let orders = place.enter(call.clone(), caller.clone(), claimed.slot);
    gateway.timeline.step(&call, What::Connected);
    if gateway.admission.has_ended(&call) {
        // The carrier's word came between the claim and the entry.
        return (place, EndReason::CarrierEnded);
    }
    #[cfg(test)]
    assert!(call.as_str() != "CApanic", "a test wants it");
    socket.tell(State::Connected, &campaign.language);
    let terms = Terms {
        encoding: socket.encoding(),
        follows: socket.follows(),
        greets: agent.greets(),
        longest_call: gateway.longest_call,
    };
    let bridge = Bridge {
        call: &call,
        connection: id,
        caller: &caller,
        agent_name: agent.kind().title(),
        session: Session::new(socket.now(), terms),
        carrier: socket,
        agent: AgentSeat::Awaited(arriving),
        orders,
        timeline: &gateway.timeline,
        metrics: &gateway.metrics.calls,
        line: Line::default(),
    };
    let began = Instant::now();
    let (reason, agent) = bridge.run().await;
    gateway.timeline.talked(&call, began.elapsed());
    if let Some(agent) = agent {
        // The caller does not wait while the agent is told goodbye.
        gateway.calls().spawn_local(agent.close());
    }
    (place, reason)
}
