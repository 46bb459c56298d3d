//! One media socket's life: upgrade, claim, bridge, farewell.
//!
//! Invariant: nothing reaches an agent before the ticket is good.
//! Invariant: a panic in a call ends that call only, and its slot comes back.

use std::panic::AssertUnwindSafe;

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::FutureExt;
use tracing::Instrument;

use crate::{
    admission::Claimed,
    bridge::{AgentSeat, Bridge},
    call::{Carrier, EndReason},
    campaign::Campaign,
    connections::Place,
    gateway::{Gateway, Ringing},
    media::{MediaSocket, twilio::Start},
    record::What,
    session::{Limits, Session},
    webhook::{WebhookError, twilio::Proof},
};

/// `GET /twilio/media`: the carrier brings a call's media.
pub async fn twilio_media(
    request: HttpRequest,
    body: web::Payload,
    gateway: web::Data<Gateway>,
) -> Result<HttpResponse, actix_web::Error> {
    let proof = Proof::of(&request, &gateway.twilio)?;
    if !proof.holds(&gateway.public.media, &[]) {
        gateway.metrics.unsigned();
        if gateway.may_warn() {
            tracing::warn!("refused a media socket without a valid signature");
        }
        return Err(WebhookError::Unsigned.into());
    }
    if gateway.is_draining() {
        return Ok(HttpResponse::ServiceUnavailable().body("draining"));
    }
    let Some(place) = gateway.connections.take_place() else {
        return Ok(HttpResponse::ServiceUnavailable().body("connection limit reached"));
    };
    let (response, sender, receiver) = actix_ws::handle(&request, body)?;
    let socket = MediaSocket::new(sender, receiver);
    let calls = gateway.calls().clone();
    calls.spawn_local(carry(gateway, socket, place));
    Ok(response)
}

async fn carry(gateway: web::Data<Gateway>, mut socket: MediaSocket, place: Place) {
    let reason = match socket.started().await {
        Ok(start) => {
            let span = tracing::info_span!(
                "call",
                call.id = tracing::field::Empty,
                carrier_call.id = %start.call,
                carrier = Carrier::Twilio.as_str(),
                campaign.id = tracing::field::Empty,
            );
            let call = take(&gateway, &mut socket, place, start);
            call.instrument(span).await
        }
        Err(reason) => {
            tracing::warn!(reason = reason.as_str(), "a media socket brought no call");
            reason
        }
    };
    socket.close(reason).await;
}

/// Claims the call for its socket and bridges it. Returns once the slot is on its way back.
async fn take(
    gateway: &web::Data<Gateway>,
    socket: &mut MediaSocket,
    place: Place,
    start: Start,
) -> EndReason {
    let ours = &gateway.twilio.account;
    let ticket = start.parameters.get("ticket").map_or("", String::as_str);
    let campaigns = gateway.campaigns.current();
    let campaign = campaigns.default_campaign();
    if ours.as_ref().is_some_and(|ours| *ours != start.account) {
        tracing::warn!("refused a media socket of another account");
        return EndReason::CarrierGarbled;
    }
    let claimed = match gateway.admission.claim(ticket, &start.call, campaign) {
        Ok(claimed) => claimed,
        Err(error) => {
            gateway.metrics.ticket_refused();
            tracing::warn!(%error, "refused a media socket's ticket");
            return EndReason::CarrierGarbled;
        }
    };
    let span = tracing::Span::current();
    span.record("call.id", tracing::field::display(claimed.call));
    span.record("campaign.id", campaign.id.as_str());
    let call = start.call.clone();
    let bridged = AssertUnwindSafe(bridge(gateway, socket, place, start, claimed, campaign));
    let reason = bridged.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a call panicked: this is a bug in callgate");
        EndReason::Panicked
    });
    gateway.ended(&call, Carrier::Twilio, reason);
    tracing::info!(
        reason = reason.as_str(),
        blame = reason.blame().as_str(),
        "call ended"
    );
    reason
}

async fn bridge(
    gateway: &web::Data<Gateway>,
    socket: &mut MediaSocket,
    mut place: Place,
    start: Start,
    claimed: Claimed,
    campaign: &Campaign,
) -> EndReason {
    let Ringing {
        caller,
        agent,
        arriving,
        ..
    } = gateway.take_ringing(&start.call, campaign);
    let call = start.call;
    let id = place.id();
    let orders = place.enter(Carrier::Twilio, call.clone(), caller.clone(), claimed.slot);
    gateway.timeline.step(&call, What::Connected);
    if gateway.admission.has_ended(&call) {
        // The carrier's word came between the claim and the entry.
        return EndReason::CarrierEnded;
    }
    #[cfg(test)]
    assert!(!start.parameters.contains_key("panic"), "a test wants it");
    let limits = Limits {
        greets: agent.greets(),
        longest_call: gateway.longest_call,
    };
    let bridge = Bridge {
        call: &call,
        connection: id,
        caller: &caller,
        agent_name: agent.kind().title(),
        session: Session::new(socket.now(), limits),
        carrier: socket,
        agent: AgentSeat::Awaited(arriving),
        orders,
        timeline: &gateway.timeline,
        metrics: &gateway.metrics.calls,
    };
    let (reason, agent) = bridge.run().await;
    if let Some(agent) = agent {
        // The caller does not wait while the agent is told goodbye.
        gateway.calls().spawn_local(agent.close());
    }
    reason
}
