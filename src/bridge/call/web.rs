//! A browser calls: the socket is the call, so that it rings, is admitted and brings its media in
//! one.

use actix_web::{HttpRequest, HttpResponse, web};
use actix_ws::CloseCode;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    admission::Decision,
    answer::prompts::Prompt,
    bridge::call::{carry, take_place},
    call::{CallerId, EndReason},
    campaign::Campaign,
    connections::Place,
    gateway::{Gateway, NoPass, WebPass},
    media::{
        MediaSocket,
        dialect::Dialect,
        web::{ENCODING, MediaStream, State},
    },
    trace::Phase,
};

/// What the page understands beside the codes of WebSocket itself.
const NO_ROOM: CloseCode = CloseCode::Other(4429);
const NO_PASS: CloseCode = CloseCode::Other(4401);
const NO_CAMPAIGN: CloseCode = CloseCode::Other(4404);

/// What the page asks for.
#[derive(Deserialize)]
pub struct Wish {
    campaign: Option<String>,
    token: Option<String>,
}

/// `GET /web/ws`: a browser calls.
pub async fn media(
    request: HttpRequest,
    wish: web::Query<Wish>,
    body: web::Payload,
    gateway: web::Data<Gateway>,
) -> Result<HttpResponse, actix_web::Error> {
    let came = Instant::now();
    gateway.check_browser(&request)?;
    let Wish { campaign, token } = wish.into_inner();
    let pass = match gateway.web_pass(token.as_deref(), campaign.as_deref()) {
        Ok(pass) => pass,
        Err(why) => {
            let code = match why {
                NoPass::Token => NO_PASS,
                NoPass::Campaign => NO_CAMPAIGN,
            };
            gateway.metrics.unsigned();
            return turn_away(&request, body, code, &why.to_string()).await;
        }
    };
    let Ok(seat) = gateway.web_seat(&request) else {
        let why = "this address has too many browser calls";
        return turn_away(&request, body, NO_ROOM, why).await;
    };
    let place = match take_place(&gateway) {
        Ok(place) => place,
        // No other replica has one either, which a proxy would try.
        Err(_) if gateway.closed().is_some() => {
            return turn_away(&request, body, NO_ROOM, "no room").await;
        }
        Err(error) => return Err(error.into()),
    };
    let (response, sender, receiver) = actix_ws::handle(&request, body)?;
    let socket = MediaSocket::new(Dialect::Web(MediaStream::default()), sender, receiver);
    let span = gateway.span_of(&pass.call);
    let calls = gateway.calls().clone();
    let serving = async move {
        serve(gateway, socket, place, pass, came).await;
        drop(seat);
    };
    calls.spawn_local(serving.instrument(span));
    Ok(response)
}

/// Refuses a call by a code: a page never sees the status of a refused upgrade.
async fn turn_away(
    request: &HttpRequest,
    body: web::Payload,
    code: CloseCode,
    why: &str,
) -> Result<HttpResponse, actix_web::Error> {
    let (response, sender, _) = actix_ws::handle(request, body)?;
    let reason = actix_ws::CloseReason {
        code,
        description: Some(why.to_owned()),
    };
    let _ = sender.close(Some(reason)).await;
    Ok(response)
}

async fn serve(
    gateway: web::Data<Gateway>,
    mut socket: MediaSocket,
    place: Place,
    pass: WebPass,
    came: Instant,
) {
    let WebPass { call, campaign } = pass;
    let caller = CallerId::Withheld;
    // A page dials no number.
    let called = CallerId::Withheld;
    let decision = gateway.admit(&call, &caller, &called, &campaign, ENCODING);
    let decision = decision.await;
    gateway.timeline.took(&call, Phase::Upgrade, came.elapsed());
    let ticket = match decision {
        Decision::Admit {
            ticket,
            first: true,
            ..
        } => ticket,
        Decision::Refuse { .. } => {
            drop(place);
            return refuse(&gateway, socket, &campaign).await;
        }
        // The token has had its call.
        Decision::Admit { .. } | Decision::Ended => {
            return socket.close_as(NO_PASS, "the token has been used").await;
        }
    };
    let reason = match carry(&gateway, &mut socket, place, call, &ticket).await {
        Ok(over) => over.reason,
        Err(_) => EndReason::CarrierGarbled,
    };
    socket.tell(State::Ended(reason), &campaign.language);
    let is_there = reason != EndReason::CarrierLost;
    if let Some(prompt) = Prompt::of(reason.farewell()).filter(|_| is_there) {
        socket
            .say(gateway.prompt(prompt, &campaign.language, ENCODING))
            .await;
    }
    socket.close(reason).await;
}

/// Says that there is no room, as a caller on the phone hears it.
async fn refuse(gateway: &Gateway, mut socket: MediaSocket, campaign: &Campaign) {
    socket.tell(State::Busy, &campaign.language);
    let busy = gateway.prompt(Prompt::Busy, &campaign.language, ENCODING);
    socket.say(busy).await;
    socket.close_as(NO_ROOM, "no room").await;
}
