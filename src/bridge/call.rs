//! One media socket's life: upgrade, claim, bridge, farewell.
//!
//! Invariant: nothing reaches an agent before the ticket is good.
//! Invariant: a panic in a call ends that call only, and its slot comes back.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::FutureExt;
use tokio::time::timeout;
use tracing::Instrument;

use crate::{
    admission::{ClaimError, Claimed},
    bridge::{AgentSeat, Bridge},
    call::{Carrier, CarrierCallId, EndReason},
    campaign::Campaign,
    connections::Place,
    gateway::{Gateway, Ringing},
    media::{MediaSocket, twilio::Start},
    record::What,
    session::{Limits, Session},
    webhook::{WebhookError, twilio::Proof},
};

/// How long a socket stays open for the store to note how its call has ended.
const NOTED_WITHIN: Duration = Duration::from_millis(100);

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

/// Claims the call that a ticket names. Where its campaign is gone from the file since the call
/// rang, the default one takes over.
async fn claim(
    gateway: &Gateway,
    ticket: &str,
    call: &CarrierCallId,
) -> Result<(Arc<Campaign>, Claimed), ClaimError> {
    let ticket = gateway.admission.read(ticket, call)?;
    let campaigns = gateway.campaigns.current();
    let campaign = campaigns.named(&ticket.campaign);
    let campaign = campaign.unwrap_or_else(|| Arc::clone(campaigns.default_campaign()));
    let claimed = gateway.admission.claim(&ticket, &campaign, &campaigns);
    let claimed = claimed.await?;
    Ok((campaign, claimed))
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
    if ours.as_ref().is_some_and(|ours| *ours != start.account) {
        tracing::warn!("refused a media socket of another account");
        return EndReason::CarrierGarbled;
    }
    let (campaign, claimed) = match claim(gateway, ticket, &start.call).await {
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
    let bridging = bridge(gateway, socket, place, start, claimed, &campaign);
    let bridged = AssertUnwindSafe(bridging).catch_unwind().await;
    let (is_back, reason) = if let Ok((place, reason)) = bridged {
        (place.leave(reason), reason)
    } else {
        tracing::error!("a call panicked: this is a bug in callgate");
        (None, EndReason::Panicked)
    };
    gateway.ended(&call, Carrier::Twilio, reason);
    tracing::info!(
        reason = reason.as_str(),
        blame = reason.blame().as_str(),
        "call ended"
    );
    if let Some(is_back) = is_back {
        // Once the socket closes, the carrier may ask any replica what the caller hears now.
        let _ = timeout(NOTED_WITHIN, is_back).await;
    }
    reason
}

async fn bridge(
    gateway: &web::Data<Gateway>,
    socket: &mut MediaSocket,
    mut place: Place,
    start: Start,
    claimed: Claimed,
    campaign: &Campaign,
) -> (Place, EndReason) {
    let Ringing {
        caller,
        agent,
        arriving,
        ..
    } = gateway.take_ringing(
        &start.call,
        &claimed.agent,
        &campaign.language,
        claimed.caller.as_deref(),
    );
    let call = start.call;
    let id = place.id();
    let orders = place.enter(Carrier::Twilio, call.clone(), caller.clone(), claimed.slot);
    gateway.timeline.step(&call, What::Connected);
    if gateway.admission.has_ended(&call) {
        // The carrier's word came between the claim and the entry.
        return (place, EndReason::CarrierEnded);
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
    (place, reason)
}
