//! Call Automation's REST API: what a gateway asks for is done to its calls.

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{HOST, RETRY_AFTER},
    },
    web::{Bytes, Data, Query},
};
use jiff::Timestamp;
use rand::RngExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;

use super::{
    Service,
    callback::Callback,
    calls::{Answered, Call, Ender, Turned},
    options::Fault,
    placed::create,
    play::play,
    request::{
        Answer, AnswerBody, Operation, Phone, RedirectBody, RejectBody, TonesBody, TransferBody,
    },
    seen::Deed,
    signature::Signed,
};

/// How long an answered call takes to connect, at most.
const CONNECTS_WITHIN_MS: u64 = 150;

/// A request, or what it is refused with.
pub type Asked<T> = Result<T, Answer>;

pub async fn serve(request: HttpRequest, body: Bytes, service: Data<Service>) -> HttpResponse {
    let service = service.into_inner();
    match (request.method(), request.path()) {
        (&Method::GET, "/calling/.well-known/acsopenidconfiguration") => {
            shown(published(service.tokens.configuration(&service.base())))
        }
        // Entra's, of any of its tenants: with the same keys.
        (&Method::GET, path) if path.ends_with("/v2.0/.well-known/openid-configuration") => {
            shown(published(service.tokens.configuration(&service.base())))
        }
        (&Method::GET, "/calling/keys") => shown(published(service.tokens.published())),
        _ => match proven(&service, &request, &body) {
            Err(answer) => shown(answer),
            Ok(asked) if asked.operation == Operation::Create => {
                create(&service, &asked, &body).await
            }
            Ok(asked) => match obey(&service, &asked, &body).await {
                Ok(answer) | Err(answer) => shown(answer),
            },
        },
    }
}

/// A request that is signed, that ACS knows, and that is not the same as one before.
pub struct Proven {
    pub operation: Operation,
    pub version: String,
    /// By what it is known again; empty without.
    pub id: String,
}

/// Returns an answer as it is sent.
pub fn shown(answer: Answer) -> HttpResponse {
    let mut response = HttpResponse::build(answer.status);
    if answer.status == StatusCode::TOO_MANY_REQUESTS {
        response.insert_header((RETRY_AFTER, "1"));
    }
    match answer.body {
        Some(body) => response.json(body),
        None => response.finish(),
    }
}

/// Reads a request, or returns what it is refused with or was answered before.
fn proven(service: &Service, request: &HttpRequest, body: &[u8]) -> Asked<Proven> {
    let header = |name| {
        let value = request.headers().get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let path_and_query = request.uri().path_and_query();
    let signed = Signed {
        method: request.method().as_str(),
        path_and_query: path_and_query.map_or("/", |it| it.as_str()),
        host: header(HOST.as_str()),
        body,
        date: header("x-ms-date"),
        hash: header("x-ms-content-sha256"),
        authorization: header("authorization"),
    };
    if !signed.is_valid(&service.key, Timestamp::now()) {
        service.note("", Deed::Unsigned);
        let message = "HMAC-SHA256 validation failed";
        return Err(Answer::error(StatusCode::UNAUTHORIZED, "7509", message));
    }
    let version = version(request.query_string());
    let operation = Operation::read(request.method(), request.path());
    let (Some(operation), Some(version)) = (operation, version) else {
        // ACS has no error of its own for what it does not know at all.
        return Err(Answer {
            status: StatusCode::NOT_FOUND,
            body: Some(Value::from(
                "No HTTP resource was found that matches the request URI",
            )),
        });
    };
    let id = header("repeatability-request-id");
    if let Some(answer) = service.answers.find(id) {
        service.note("", Deed::Repeated);
        return Err(answer);
    }
    Ok(Proven {
        operation,
        version,
        id: id.to_owned(),
    })
}

async fn obey(service: &Arc<Service>, asked: &Proven, body: &[u8]) -> Asked<Answer> {
    let Proven {
        operation,
        version,
        id,
    } = asked;
    let call = named(service, operation, body)?;
    let first = |fault| service.fails(fault) && call.trips(fault);
    if first(Fault::Throttle) {
        let status = StatusCode::TOO_MANY_REQUESTS;
        return Err(Answer::error(status, "8516", "Too many requests."));
    }
    if first(Fault::Unavailable) {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Answer::error(status, "9999", "The service is unavailable."));
    }
    let answer = match perform(service, operation, &call, body, version) {
        Ok(answer) | Err(answer) => answer,
    };
    if !id.is_empty() {
        service.answers.keep(id, &answer);
    }
    sleep(service.slow).await;
    if first(Fault::LostAnswer) {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Err(Answer::error(status, "9999", "The answer was lost."));
    }
    Ok(answer)
}

/// Returns the call that a request is about.
fn named(service: &Service, operation: &Operation, body: &[u8]) -> Asked<Arc<Call>> {
    let context;
    let name = match operation {
        Operation::Create => return Err(Answer::not_found()), // It is about no call yet.
        Operation::Answer | Operation::Reject | Operation::Redirect => {
            let body: Value = read(body)?;
            context = body["incomingCallContext"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            &context
        }
        Operation::Show(id)
        | Operation::HangUp(id)
        | Operation::Transfer(id)
        | Operation::Play(id)
        | Operation::SendTones(id) => id,
    };
    service.calls.named(name).ok_or_else(Answer::not_found)
}

fn perform(
    service: &Arc<Service>,
    operation: &Operation,
    call: &Arc<Call>,
    body: &[u8],
    version: &str,
) -> Asked<Answer> {
    match operation {
        Operation::Create => Err(Answer::not_found()),
        Operation::Answer => answer(service, call, &read(body)?, version),
        Operation::Reject => {
            let RejectBody { call_reject_reason } = read(body)?;
            let reason = call_reject_reason.unwrap_or_else(|| "none".to_owned());
            turn(service, call, Turned::Rejected(reason))
        }
        Operation::Redirect => {
            let RedirectBody { target } = read(body)?;
            turn(service, call, Turned::Redirected(target.phone_number.value))
        }
        // What is over is unknown to ACS.
        Operation::Show(_) if call.status.borrow().is_over() => Err(Answer::not_found()),
        Operation::Show(_) => Ok(Answer::ok(call.properties())),
        Operation::HangUp(_) => hang_up(service, call),
        Operation::Transfer(_) => {
            let TransferBody {
                target_participant: Phone { phone_number },
            } = read(body)?;
            transfer(service, call, phone_number.value)
        }
        Operation::Play(_) => play(service, call, read(body)?),
        Operation::SendTones(_) => press(service, call, &read(body)?),
    }
}

fn answer(
    service: &Arc<Service>,
    call: &Arc<Call>,
    body: &AnswerBody,
    version: &str,
) -> Asked<Answer> {
    if let Some(mistake) = body.mistake(version) {
        return Err(Answer::invalid(mistake));
    }
    if service.fails(Fault::RefuseAnswers) {
        let message = "The incoming call belongs to another resource.";
        return Err(Answer::error(StatusCode::FORBIDDEN, "7507", message));
    }
    let answered = Answered {
        connection: call.name.connection.clone(),
        callback: body.callback_uri.clone(),
        media: body.media(),
    };
    let is_first = call.status.send_if_modified(|status| {
        let is_first = status.answered.is_none() && !status.is_over();
        if is_first {
            status.answered = Some(answered);
        }
        is_first
    });
    if !is_first {
        let ended_by = call.status.borrow().ended_by;
        return if ended_by == Some(Ender::Caller) {
            Err(Answer::error(
                StatusCode::NOT_FOUND,
                "8543",
                "The call does not exist.",
            ))
        } else {
            service.note(&call.name.correlation, Deed::AnsweredTwice);
            Err(Answer::error(
                StatusCode::CONFLICT,
                "8519",
                "The call is being handled.",
            ))
        };
    }
    service.note(&call.name.correlation, Deed::Answered);
    let fails = service.fails(Fault::AnswerFailed);
    let answered = Arc::clone(call);
    service.spawn(async move {
        let within = rand::rng().random_range(0..CONNECTS_WITHIN_MS);
        sleep(Duration::from_millis(within)).await;
        if fails {
            answered.tell(Callback::answer_failed());
        } else {
            answered.tell(Callback::connected());
            answered.tell(Callback::participants(&answered));
        }
    });
    Ok(Answer::ok(call.properties()))
}

/// Turns a call away that is not answered; it gets no callbacks.
fn turn(service: &Service, call: &Call, turned: Turned) -> Asked<Answer> {
    let is_first = call.status.send_if_modified(|status| {
        let is_first = status.answered.is_none() && !status.is_over();
        if is_first {
            status.turned = Some(turned.clone());
        }
        is_first
    });
    if !is_first {
        return Err(Answer::not_found());
    }
    let deed = match turned {
        Turned::Rejected(reason) => Deed::Rejected(reason),
        Turned::Redirected(number) => Deed::Redirected(number),
    };
    service.note(&call.name.correlation, deed);
    Ok(Answer::done())
}

fn hang_up(service: &Service, call: &Call) -> Asked<Answer> {
    let is_first = call.status.send_if_modified(|status| {
        let is_first = status.answered.is_some() && !status.is_over();
        if is_first {
            status.ended_by = Some(Ender::Gateway);
        }
        is_first
    });
    if !is_first {
        service.note(&call.name.correlation, Deed::HungUpTwice);
        return Err(Answer::not_found());
    }
    service.note(&call.name.correlation, Deed::HungUp);
    call.tell_the_end();
    Ok(Answer::done())
}

fn press(service: &Service, call: &Call, body: &TonesBody) -> Asked<Answer> {
    const MOST: usize = 18;
    if call.status.borrow().is_over() {
        return Err(Answer::not_found());
    }
    if !(1..=MOST).contains(&body.tones.len()) {
        return Err(Answer::invalid("The field Tones is invalid."));
    }
    service.note(&call.name.correlation, Deed::Pressed(body.tones.join(",")));
    Ok(Answer::accepted())
}

fn transfer(service: &Service, call: &Call, to: String) -> Asked<Answer> {
    if service.fails(Fault::TransferFailed) {
        service.note(&call.name.correlation, Deed::Transferred(to));
        call.tell(Callback::transfer_failed());
        return Ok(Answer::accepted());
    }
    let is_first = call.status.send_if_modified(|status| {
        let is_first = status.answered.is_some() && !status.is_over();
        if is_first {
            status.transferred = Some(to.clone());
            status.ended_by = Some(Ender::Gateway);
        }
        is_first
    });
    if !is_first {
        return Err(Answer::not_found());
    }
    call.tell(Callback::transfer_accepted(&to));
    service.note(&call.name.correlation, Deed::Transferred(to));
    call.tell_the_end();
    Ok(Answer::accepted())
}

fn published(document: Option<Value>) -> Answer {
    let down = || {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Answer::error(status, "9999", "The service is unavailable.")
    };
    document.map_or_else(down, Answer::ok)
}

fn version(query: &str) -> Option<String> {
    let query = Query::<Vec<(String, String)>>::from_query(query).ok()?;
    let mut query = query.into_inner().into_iter();
    query
        .find(|(name, _)| name == "api-version")
        .map(|(_, version)| version)
}

pub fn read<T: DeserializeOwned>(body: &[u8]) -> Asked<T> {
    serde_json::from_slice(body).map_err(|error| Answer::invalid(&error.to_string()))
}
