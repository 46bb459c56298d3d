//! ACS's webhooks: Event Grid tells of calls that ring, Call Automation of what becomes of them.
//!
//! Invariant: Event Grid is never answered 400, 401, 403 or 413 for a fault of ours: what gets one
//! of these is never sent again.

pub mod callback;
pub mod event;
mod identifier;
mod json;
mod placed;
pub mod prompt;
pub mod token;

use std::{borrow::Cow, sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use futures_util::{StreamExt, future::join_all, stream};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::Instrument;
use url::form_urlencoded;

use crate::{
    admission::Decision,
    answer::prompts::Prompt,
    call::{CarrierCallId, EndReason},
    campaign::Campaign,
    gateway::{Acs, CallbackPath, Errand, Gateway, Settled},
    operator::{bearer, same},
    outbound::{self, Marker},
    record::What,
    trace::Phase,
    webhook::{
        WebhookError,
        acs::{
            callback::{Callback, Kind, Outcome},
            event::Event,
            token::TokenError,
        },
        read_body,
    },
};

pub use event::IncomingCall;

/// The longest body of events, as Event Grid has it; and of callbacks.
const LONGEST_EVENTS: usize = 1 << 20;
const LONGEST_CALLBACKS: usize = 256 << 10;
/// How long a call rings before ACS gives it up: learn.microsoft.com/azure/communication-services/
/// concepts/call-automation/incoming-call-notification.
const RINGS_FOR: Duration = Duration::from_secs(30);
/// How many calls of one delivery are decided about at once.
const AT_ONCE: usize = 16;
/// The header that may carry the subscription's secret, instead of the query.
const SECRET_HEADER: &str = "x-callgate-secret";

/// `OPTIONS /acs/incomingcall`: the handshake of the `CloudEvents` schema.
pub async fn handshake(request: HttpRequest, gateway: web::Data<Gateway>) -> HttpResponse {
    if let Err(refused) = prove(&request, &gateway).await {
        return refused.answer(&gateway, &request);
    }
    let origin = request.headers().get("webhook-request-origin");
    let Some(consent) = event::handshake(origin.and_then(|it| it.to_str().ok())) else {
        return malformed(
            &gateway,
            &request,
            "WebHook-Request-Origin is not Event Grid's",
        );
    };
    let mut response = HttpResponse::Ok();
    for (name, value) in consent {
        response.insert_header((name, value));
    }
    response.finish()
}

/// `POST /acs/incomingcall`: Event Grid tells of calls that ring.
pub async fn incoming(
    request: HttpRequest,
    payload: web::Payload,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let began = Instant::now();
    if let Err(refused) = prove(&request, &gateway).await {
        return refused.answer(&gateway, &request);
    }
    let body = match read_body(payload.into_inner(), LONGEST_EVENTS).await {
        Ok(body) => body,
        Err(error) => return unread(&gateway, &request, &error),
    };
    let Ok(events) = event::read(&body) else {
        return malformed(&gateway, &request, "no JSON of events");
    };
    let mut code = None;
    let mut calls = Vec::new();
    for event in events {
        match event {
            Event::Validation { code: sent } => {
                gateway.metrics.webhook("acs_validation");
                code = Some(sent);
            }
            Event::IncomingCall(call) => calls.push(call),
            Event::Other { kind } => {
                gateway.metrics.webhook("acs_other");
                tracing::debug!(kind, "an event that is not acted on");
            }
            Event::Malformed { what } => {
                gateway.metrics.webhook("acs_malformed");
                tracing::warn!(what, "an event makes no sense");
            }
        }
    }
    let has_calls = !calls.is_empty();
    let ringing = stream::iter(calls).map(|call| {
        let span = gateway.span_of(&call.call);
        rings(&gateway, *call, began).instrument(span)
    });
    let decided: Vec<Option<Settled>> = ringing.buffer_unordered(AT_ONCE).collect().await;
    if has_calls {
        gateway.metrics.answered_webhook(began.elapsed());
    }
    // Until then another replica is to hear of these calls, should this one die.
    join_all(decided.into_iter().flatten()).await;
    match code {
        Some(code) => HttpResponse::Ok()
            .content_type("application/json")
            .body(event::consent(&code)),
        None => HttpResponse::Ok().finish(),
    }
}

/// Decides about a call that rings, and sets going what ACS is told; returns what completes once
/// that is settled, well within the 30 s that Event Grid waits. Its event has `come` before.
async fn rings(gateway: &Arc<Gateway>, incoming: IncomingCall, come: Instant) -> Option<Settled> {
    gateway.metrics.webhook("incoming_call");
    let age = incoming.age(Timestamp::now());
    if age > RINGS_FOR {
        gateway.metrics.webhook("acs_late");
        let (event, seconds) = (&incoming.event, age.as_secs());
        tracing::warn!(event, seconds, "an event of a call that rings no more");
        return None;
    }
    let campaigns = gateway.campaigns.current();
    let Some(campaign) = campaigns.answering(&incoming.to) else {
        gateway.metrics.webhook("acs_not_ours");
        tracing::info!(called = %incoming.to, "a call to a number that no campaign has");
        return gateway.not_in_service_acs(incoming, campaigns.default_campaign());
    };
    let acs = gateway.acs.as_ref()?;
    let (call, caller) = (&incoming.call, &incoming.from);
    let encoding = acs.audio.encoding();
    let decision = gateway.admit(call, caller, &incoming.to, &campaign, encoding);
    let decision = decision.await;
    gateway.timeline.took(call, Phase::Event, come.elapsed());
    match decision {
        Decision::Admit { first: false, .. } | Decision::Refuse { first: false, .. }
            if !gateway.is_unanswered(call).await =>
        {
            gateway.metrics.webhook("acs_repeated");
            None
        }
        Decision::Ended => {
            gateway.metrics.webhook("acs_repeated");
            None
        }
        // Again, if it is not the first: whoever was may have died before ACS heard of it.
        Decision::Admit { ticket, first, .. } => {
            Some(gateway.answer_acs(incoming, &campaign, &ticket, first))
        }
        Decision::Refuse { refusal, first } => {
            let answer = gateway.refuse(call, caller, &campaign, refusal.reason, first);
            Some(gateway.refuse_acs(incoming, &campaign, &answer))
        }
    }
}

/// `POST /acs/callbacks/{call}`: what becomes of a call.
pub async fn callbacks(
    request: HttpRequest,
    path: web::Path<String>,
    payload: web::Payload,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let Some(acs) = &gateway.acs else {
        return Refused::Closed.answer(&gateway, &request);
    };
    // First the path: it costs nothing, and who has none need not make us ask for keys.
    let Some(whose) = Whose::read(&gateway, &path) else {
        return Refused::Nowhere.answer(&gateway, &request);
    };
    let token = bearer(&request).unwrap_or_default();
    if let Err(error) = acs.verify(token).await {
        return Refused::from(error).answer(&gateway, &request);
    }
    let body = match read_body(payload.into_inner(), LONGEST_CALLBACKS).await {
        Ok(body) => body,
        Err(error) => return unread(&gateway, &request, &error),
    };
    let Ok(read) = callback::read(&body) else {
        return malformed(&gateway, &request, "no JSON of events");
    };
    let mut status = StatusCode::OK;
    for what in read.malformed {
        gateway.metrics.webhook("acs_malformed");
        tracing::warn!(what, "a callback makes no sense");
    }
    for event in read.callbacks {
        if let Whose::Answered(call, _) = &whose
            && !is_of(&event, call, acs)
        {
            gateway.metrics.unsigned();
            let span = gateway.span_of(call);
            span.in_scope(|| tracing::warn!("a callback tells of another call"));
            status = StatusCode::FORBIDDEN;
        } else if acs.is_new(&event.id) {
            gateway.metrics.webhook("acs_callback");
            match &whose {
                Whose::Answered(call, path) => {
                    let coming = came_along(&gateway, event, call, path);
                    coming.instrument(gateway.span_of(call)).await;
                }
                Whose::Placed(marker) => placed::came_along(&gateway, event, marker).await,
            }
        }
    }
    HttpResponse::build(status).finish()
}

/// Whose callbacks come by a path of ours.
enum Whose {
    /// Those of a call that we have answered.
    Answered(CarrierCallId, CallbackPath),
    /// Those of a call that ACS places for us.
    Placed(Marker),
}

impl Whose {
    fn read(gateway: &Gateway, path: &str) -> Option<Self> {
        if let Some(marker) = outbound::open(gateway, path) {
            return Some(Self::Placed(marker));
        }
        let path = gateway.read_callback_path(path)?;
        let call = CarrierCallId::try_from(path.call.clone()).ok()?;
        Some(Self::Answered(call, path))
    }
}

/// Takes in what ACS tells of a call that we have answered.
async fn came_along(
    gateway: &Arc<Gateway>,
    event: Callback,
    call: &CarrierCallId,
    path: &CallbackPath,
) {
    let goes_on = event.kind.is_of_a_live_call();
    let campaigns = gateway.campaigns.current();
    let campaign = campaigns.named(&path.campaign);
    let campaign = campaign.unwrap_or_else(|| Arc::clone(campaigns.default_campaign()));
    became(gateway, event, call, &path.errand, &campaign).await;
    if goes_on && path.errand == Errand::Talk {
        gateway.do_what_is_due(call).await;
    }
}

/// Tells whether an event is of the call that its path names: a token says who sends, not what.
fn is_of(event: &Callback, call: &CarrierCallId, acs: &Acs) -> bool {
    let names = |it: &CarrierCallId| it.as_str().eq_ignore_ascii_case(call.as_str());
    let connection = event.connection.as_ref();
    let same_connection = connection.is_none_or(|connection| acs.note(call, connection));
    match &event.call {
        Some(told) => names(told) && same_connection,
        None => connection.is_some() && same_connection,
    }
}

async fn became(
    gateway: &Arc<Gateway>,
    event: Callback,
    call: &CarrierCallId,
    errand: &Errand,
    campaign: &Campaign,
) {
    let Outcome {
        code,
        subcode,
        message,
        sip: _,
    } = event.outcome;
    let connection = event.connection;
    tracing::debug!(event = event.id, kind = ?event.kind, code, subcode, "ACS tells");
    match (event.kind, errand) {
        (Kind::Connected, Errand::Hear(prompt)) => {
            if let Some(connection) = connection {
                gateway.say_by_rest(call, connection, *prompt, campaign);
            }
        }
        (Kind::Connected | Kind::MediaStreamingStarted(_), Errand::Talk) => {
            if let Some(connection) = &connection {
                gateway.watch_silence(call, connection, campaign);
            }
            gateway.end_unwanted(call).await;
        }
        (Kind::PlayCompleted | Kind::PlayFailed | Kind::PlayCanceled, _) => {
            gateway.hang_up_acs(call); // Only last words are played.
        }
        (Kind::TransferAccepted, _) => {
            let step = What::TransferEnded { answered: true };
            gateway.timeline.step(call, step);
            if let Some(acs) = &gateway.acs {
                acs.is_over(call); // It is somebody else's.
            }
        }
        (Kind::TransferFailed, _) => {
            let step = What::TransferEnded { answered: false };
            gateway.timeline.step(call, step);
            tracing::warn!(
                code,
                subcode,
                message,
                "nobody took a call that was handed over"
            );
            if let Some(connection) = connection {
                gateway.say_by_rest(call, connection, Prompt::Apology, campaign);
            }
        }
        (Kind::Disconnected, _) => {
            if let Some(acs) = &gateway.acs {
                acs.is_over(call);
            }
            gateway.carrier_ended(call, false).await;
        }
        (Kind::AnswerFailed | Kind::CreateCallFailed, _) => {
            tracing::warn!(code, subcode, message, "ACS could not answer");
            gateway.acs_failed(call, EndReason::AnswerFailed).await;
        }
        // One that came late, of a socket that another one has replaced by now.
        (Kind::MediaStreamingFailed(_), Errand::Talk) if gateway.connections.has(call) => {}
        (Kind::MediaStreamingFailed(detail), Errand::Talk) => {
            let detail = detail.as_str();
            tracing::warn!(
                code,
                subcode,
                message,
                detail,
                "ACS could not bring a call's media"
            );
            gateway.acs_failed(call, EndReason::StreamFailed).await;
            if let Some(connection) = connection {
                gateway.say_by_rest(call, connection, Prompt::Apology, campaign);
            }
        }
        (Kind::MediaStreamingStopped(_), Errand::Talk) if !gateway.connections.has(call) => {
            gateway.end_if_silent(call, connection, campaign);
        }
        _ => {}
    }
}

/// Answers a body that did not arrive; whatever is not its own fault may come again.
fn unread(gateway: &Gateway, request: &HttpRequest, error: &WebhookError) -> HttpResponse {
    gateway.metrics.webhook("acs_malformed");
    let route = request.match_pattern();
    tracing::warn!(route, %error, "a webhook of ACS was not read");
    if let WebhookError::TooLong(_) = error {
        HttpResponse::PayloadTooLarge().finish()
    } else {
        HttpResponse::ServiceUnavailable().finish()
    }
}

/// Answers what is proven and makes no sense as a whole, so that it never will.
fn malformed(gateway: &Gateway, request: &HttpRequest, what: &'static str) -> HttpResponse {
    gateway.metrics.webhook("acs_malformed");
    let route = request.match_pattern();
    tracing::warn!(route, what, "a webhook of ACS makes no sense");
    HttpResponse::BadRequest().body(what)
}

/// Why a request is not acted on.
enum Refused {
    Closed,
    /// The path is not one that we have made.
    Nowhere,
    /// The proof is missing or wrong.
    Stranger,
    /// Nobody can tell at the moment.
    Unknown,
}

impl From<TokenError> for Refused {
    fn from(error: TokenError) -> Self {
        tracing::debug!(reason = error.as_str(), "a token does not count");
        match error {
            TokenError::Unavailable => Self::Unknown,
            TokenError::Refused(_) => Self::Stranger,
        }
    }
}

impl Refused {
    fn answer(&self, gateway: &Gateway, request: &HttpRequest) -> HttpResponse {
        let (status, why) = match self {
            Self::Closed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "acs is closed: set ACS_CONNECTION_STRING and EVENTGRID_SECRET to open it",
            ),
            Self::Nowhere => (StatusCode::NOT_FOUND, "the path is not one of ours"),
            Self::Stranger => (StatusCode::UNAUTHORIZED, "the proof is missing or wrong"),
            Self::Unknown => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the keys to check tokens by cannot be had",
            ),
        };
        if let Self::Nowhere | Self::Stranger = self {
            gateway.metrics.unsigned();
        }
        if gateway.may_warn() {
            let route = request.match_pattern();
            tracing::warn!(route, why, "refused a webhook of ACS");
        }
        HttpResponse::build(status).finish()
    }
}

/// Checks that a request is Event Grid's, for a subscription of ours.
async fn prove(request: &HttpRequest, gateway: &Gateway) -> Result<(), Refused> {
    let Some(acs) = &gateway.acs else {
        return Err(Refused::Closed);
    };
    let header = |name| request.headers().get(name).and_then(|it| it.to_str().ok());
    let subscriptions = &acs.subscriptions;
    if !subscriptions.is_empty() {
        let name = header("aeg-subscription-name").unwrap_or_default();
        if !subscriptions
            .iter()
            .any(|ours| ours.eq_ignore_ascii_case(name))
        {
            return Err(Refused::Stranger);
        }
    }
    if let (Some(verifier), Some(token)) = (&acs.event_tokens, bearer(request)) {
        verifier.verify(token).await?;
        return Ok(());
    }
    let query = || form_urlencoded::parse(request.query_string().as_bytes());
    let in_query = || query().find(|(name, _)| name == "secret");
    let sent = header(SECRET_HEADER).map(Cow::Borrowed);
    let sent = sent.or_else(|| in_query().map(|(_, secret)| secret));
    let is_ours = |secret| sent.as_ref().is_some_and(|sent| same(sent, secret));
    if acs.event_secrets.iter().any(is_ours) {
        Ok(())
    } else {
        Err(Refused::Stranger)
    }
}
