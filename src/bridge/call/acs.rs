//! ACS brings a call's media.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
    web,
};
use tracing::Instrument;

use crate::{
    admission::ClaimError,
    answer::prompts::Prompt,
    bridge::call::{Over, carry, carry_on, span_of_claim, take_place},
    call::{Carrier, CarrierCallId, EndReason},
    carrier::acs::CallConnectionId,
    config::SocketToken,
    connections::Place,
    gateway::{Acs, Gateway},
    media::{MediaSocket, acs::MediaStream, dialect::Dialect},
    operator::bearer,
    outbound::{self, Marker},
    webhook::acs::token::TokenError,
};

/// By what `callgate check` knows that it was us who refused.
pub const REFUSED: (&str, &str) = ("x-callgate", "refused");

/// What the path of a media socket says.
enum Claim {
    /// The ticket of a call that we have answered.
    Ticket(String),
    /// The marker of a call that ACS places for us: its address is told before anybody picks up.
    Placed(Marker),
}

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
    // First, so that `callgate check` can tell a proxy that passes no WebSocket on from one that does.
    let upgrade = request.headers().get(header::UPGRADE);
    if !upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
        return Ok(HttpResponse::UpgradeRequired()
            .insert_header((header::UPGRADE, "websocket"))
            .body("this is a WebSocket's address"));
    }
    let proven = prove(&request, &gateway, acs, path.into_inner()).await;
    let (call, claim) = match proven {
        Ok(proven) => proven,
        Err(status) => {
            gateway.metrics.unsigned();
            if gateway.may_warn() {
                tracing::warn!(status = status.as_u16(), "refused a media socket of ACS");
            }
            return Ok(HttpResponse::build(status).insert_header(REFUSED).finish());
        }
    };
    let place = take_place(&gateway)?;
    let dialect = Dialect::Acs(MediaStream::new(acs.audio.encoding()));
    let (response, sender, receiver) = actix_ws::handle(&request, body)?;
    let socket = MediaSocket::new(dialect, sender, receiver);
    let span = match &claim {
        Claim::Ticket(ticket) => span_of_claim(&gateway, &call, ticket),
        Claim::Placed(marker) => outbound::span_of_placed(&gateway, marker, &call),
    };
    let calls = gateway.calls().clone();
    calls.spawn_local(serve(gateway, socket, place, call, claim).instrument(span));
    Ok(response)
}

/// Checks that a socket is ACS's, and whose call it brings; notes by which connection.
async fn prove(
    request: &HttpRequest,
    gateway: &Gateway,
    acs: &Acs,
    path: String,
) -> Result<(CarrierCallId, Claim), StatusCode> {
    let connection = request.headers().get("x-ms-call-connection-id");
    let connection = connection.and_then(|it| it.to_str().ok()?.parse::<CallConnectionId>().ok());
    // First the path: it costs nothing, and who has none need not ask ACS for keys.
    let (call, claim) = match (outbound::open(gateway, &path), &connection) {
        (Some(marker), Some(connection)) => (connection.placed(), Claim::Placed(marker)),
        (Some(_), None) => return Err(StatusCode::FORBIDDEN),
        (None, _) => {
            let call = gateway.admission.call_of(&path).ok();
            let call = call.filter(|call| call.carrier() == Carrier::Acs);
            (call.ok_or(StatusCode::FORBIDDEN)?, Claim::Ticket(path))
        }
    };
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
    let is_other = match &claim {
        Claim::Ticket(_) => correlation.is_some_and(|it| !it.eq_ignore_ascii_case(call.as_str())),
        Claim::Placed(_) => false, // It goes by its connection.
    };
    if is_other {
        return Err(StatusCode::FORBIDDEN);
    }
    if connection.is_some_and(|connection| !acs.note(&call, &connection)) {
        return Err(StatusCode::FORBIDDEN);
    }
    Ok((call, claim))
}

async fn serve(
    gateway: web::Data<Gateway>,
    mut socket: MediaSocket,
    place: Place,
    call: CarrierCallId,
    claim: Claim,
) {
    if let Some(life) = gateway.lost.take(&call, &gateway.connections).await {
        drop(place); // The call has one, which its lost socket has left to it.
        let over = carry_on(&gateway, &mut socket, life).await;
        let reason = part(&gateway, &mut socket, &call, over).await;
        return socket.close(reason).await;
    }
    let ticket = match claim {
        Claim::Ticket(ticket) => Some(ticket),
        Claim::Placed(marker) => outbound::picked_up_at_acs(&gateway, &marker, &call).await,
    };
    let Some(ticket) = ticket else {
        return socket.close(EndReason::CarrierGarbled).await; // It is being told why.
    };
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
