//! Twilio brings a call's media.

use actix_web::{HttpRequest, HttpResponse, web};
use tracing::Instrument;

use crate::{
    bridge::call::{carry, span_of_claim, take_place},
    call::EndReason,
    connections::Place,
    gateway::Gateway,
    media::{
        MediaSocket,
        dialect::Dialect,
        twilio::{MediaStream, Start},
    },
    webhook::{WebhookError, twilio::Proof},
};

/// `GET /twilio/media`: the carrier brings a call's media.
pub async fn media(
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
    let place = take_place(&gateway)?;
    let (response, sender, receiver) = actix_ws::handle(&request, body)?;
    let dialect = Dialect::Twilio(MediaStream::default());
    let socket = MediaSocket::new(dialect, sender, receiver);
    let calls = gateway.calls().clone();
    calls.spawn_local(serve(gateway, socket, place));
    Ok(response)
}

async fn serve(gateway: web::Data<Gateway>, mut socket: MediaSocket, place: Place) {
    let reason = match socket.started().await {
        Ok(start) => {
            let span = span_of_claim(&gateway, &start.call, start.ticket());
            let over = take(&gateway, &mut socket, place, start);
            over.instrument(span).await
        }
        Err(reason) => {
            tracing::warn!(reason = reason.as_str(), "a media socket brought no call");
            reason
        }
    };
    socket.close(reason).await;
}

async fn take(
    gateway: &web::Data<Gateway>,
    socket: &mut MediaSocket,
    place: Place,
    start: Start,
) -> EndReason {
    let ours = &gateway.twilio.account;
    if ours.as_ref().is_some_and(|ours| *ours != start.account) {
        tracing::warn!("refused a media socket of another account");
        return EndReason::CarrierGarbled;
    }
    let over = carry(gateway, socket, place, start.call.clone(), start.ticket()).await;
    over.map_or(EndReason::CarrierGarbled, |over| over.reason)
}
