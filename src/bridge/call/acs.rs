//! ACS brings a call's media.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use tracing::Instrument;

use crate::{
    admission::ClaimError,
    answer::prompts::Prompt,
    bridge::call::{Over, carry, carry_on, span, take_place},
    call::{Carrier, CarrierCallId, EndReason},
    carrier::acs::CallConnectionId,
    config::SocketToken,
    connections::Place,
    gateway::{Acs, Gateway},
    media::{MediaSocket, acs::MediaStream, dialect::Dialect},
    operator::bearer,
    webhook::acs::token::TokenError,
};

/// `GET /acs/ws/{ticket}`: ACS brings a call's media.
pub async fn media(
    request: HttpRequest,
    path: web::Path<String>,
    body: web::Payload,
    gateway: web::Data<Gateway>,
) -> Result<HttpResponse, actix_web::Error> {
    let Some(acs) = &gateway.acs else {
        return Ok(HttpResponse::Forbidden().body("acs is closed here"));
    };
    let ticket = path.into_inner();
    let call = match prove(&request, &gateway, acs, &ticket).await {
        Ok(call) => call,
        Err(status) => {
            gateway.metrics.unsigned();
            if gateway.may_warn() {
                tracing::warn!(status = status.as_u16(), "refused a media socket of ACS");
            }
            return Ok(HttpResponse::build(status).finish());
        }
    };
    let header = request.headers().get("x-ms-call-connection-id");
    let connection = header.and_then(|it| it.to_str().ok()?.parse::<CallConnectionId>().ok());
    if let Some(connection) = &connection
        && !acs.note(&call, connection)
    {
        gateway.metrics.unsigned();
        return Ok(HttpResponse::Forbidden().body("the connection is another call's"));
    }
    let place = take_place(&gateway)?;
    let dialect = Dialect::Acs(MediaStream::new(acs.audio.encoding()));
    let (response, sender, receiver) = actix_ws::handle(&request, body)?;
    let socket = MediaSocket::new(dialect, sender, receiver);
    let span = span(&call);
    let calls = gateway.calls().clone();
    calls.spawn_local(serve(gateway, socket, place, call, ticket).instrument(span));
    Ok(response)
}

/// Checks that a socket is ACS's, and whose call it brings.
async fn prove(
    request: &HttpRequest,
    gateway: &Gateway,
    acs: &Acs,
    ticket: &str,
) -> Result<CarrierCallId, StatusCode> {
    // First the ticket: it costs nothing, and who has none need not ask ACS for keys.
    let call = gateway.admission.call_of(ticket).ok();
    let call = call.filter(|call| call.carrier() == Carrier::Acs);
    let call = call.ok_or(StatusCode::FORBIDDEN)?;
    match (bearer(request), acs.socket_token) {
        (Some(token), _) => match acs.verify(token).await {
            Ok(()) => {}
            Err(TokenError::Unavailable) => return Err(StatusCode::SERVICE_UNAVAILABLE),
            Err(TokenError::Refused(_)) => return Err(StatusCode::UNAUTHORIZED),
        },
        (None, SocketToken::Required) => return Err(StatusCode::UNAUTHORIZED),
        (None, SocketToken::IfPresent) => {}
    }
    let correlation = request.headers().get("x-ms-call-correlation-id");
    let correlation = correlation.and_then(|it| it.to_str().ok());
    if correlation.is_some_and(|it| !it.eq_ignore_ascii_case(call.as_str())) {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok(call)
}

async fn serve(
    gateway: web::Data<Gateway>,
    mut socket: MediaSocket,
    place: Place,
    call: CarrierCallId,
    ticket: String,
) {
    if let Some(life) = gateway.lost.take(&call, &gateway.connections).await {
        drop(place); // The call has one, which its lost socket has left to it.
        let over = carry_on(&gateway, &mut socket, life).await;
        let reason = part(&gateway, &mut socket, &call, over).await;
        return socket.close(reason).await;
    }
    let reason = match carry(&gateway, &mut socket, place, call.clone(), &ticket).await {
        Err(error) => {
            match error {
                // Nobody has it, and nobody will.
                ClaimError::Full => gateway.hang_up_acs(&call),
                ClaimError::Ended => gateway.end_unwanted(&call).await,
                // Somebody else may have the call: a socket that did not get it does not end it.
                ClaimError::Ticket(_) | ClaimError::Used => {}
            }
            EndReason::CarrierGarbled
        }
        Ok(over) => part(&gateway, &mut socket, &call, over).await,
    };
    socket.close(reason).await;
}

/// Tells the caller why the conversation is over, if anybody does, and ends the call: ACS goes on
/// with it otherwise, in silence.
async fn part(
    gateway: &web::Data<Gateway>,
    socket: &mut MediaSocket,
    call: &CarrierCallId,
    over: Over,
) -> EndReason {
    let Over {
        reason, campaign, ..
    } = over;
    if let Some(destination) = over.destination {
        gateway.transfer_acs(call, &destination, &campaign);
        return reason;
    }
    if let EndReason::CarrierEnded | EndReason::TakenOver = reason {
        return reason;
    }
    let prompt = Prompt::of(reason.farewell());
    let connection = gateway.acs.as_ref().and_then(|acs| acs.connection(call));
    match (prompt, reason, connection) {
        // There is hurry.
        (_, EndReason::Stopped, _) | (None, ..) => {}
        (
            Some(prompt),
            EndReason::CarrierLost
            | EndReason::CarrierUnresponsive
            | EndReason::CarrierBlocked
            | EndReason::CarrierGarbled,
            Some(connection),
        ) => {
            gateway.say_by_rest(call, connection, prompt, &campaign);
            return reason;
        }
        (Some(prompt), ..) => {
            let audio = gateway.prompt(prompt, &campaign.language, socket.encoding());
            let said = socket.say(audio);
            gateway.stopping.run_until_cancelled(said).await;
        }
    }
    gateway.hang_up_acs(call);
    reason
}
