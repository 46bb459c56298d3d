//! What a gateway asks for, and what it is told. twilio.com/docs/voice/api/call-resource.

use std::{sync::atomic::Ordering, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{AUTHORIZATION, RETRY_AFTER},
    },
    web::{Bytes, Data},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{Timestamp, tz::TimeZone};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::form_urlencoded;

use super::{Act, Placed, Service, callee, lock};
use crate::simulate::caller::sid;

/// How many calls a page has.
const PAGE: usize = 50;

type Fields = Vec<(String, String)>;

pub async fn serve(request: HttpRequest, body: Bytes, service: Data<Service>) -> HttpResponse {
    let service = service.into_inner();
    if !is_known(&request, &service) {
        return problem(StatusCode::UNAUTHORIZED, 20_003);
    }
    let account = &service.carrier.account_sid;
    let root = format!("/2010-04-01/Accounts/{account}/Calls");
    let Some(path) = request.path().strip_prefix(&root) else {
        return problem(StatusCode::NOT_FOUND, 20_404);
    };
    let form: Fields = form_urlencoded::parse(&body).into_owned().collect();
    let named = path
        .strip_prefix('/')
        .and_then(|name| name.strip_suffix(".json"));
    match (request.method(), path, named) {
        (&Method::POST, ".json", _) => create(&service, &form),
        (&Method::GET, ".json", _) => list(&service, request.query_string()),
        (&Method::GET, _, Some(name)) => match service.find(name) {
            Some(call) => HttpResponse::Ok().json(shown(&call)),
            None => problem(StatusCode::NOT_FOUND, 20_404),
        },
        (&Method::POST, _, Some(name)) => update(&service, name, &form),
        _ => problem(StatusCode::NOT_FOUND, 20_404),
    }
}

/// Tells whether a request carries the account's own credentials.
fn is_known(request: &HttpRequest, service: &Service) -> bool {
    let Some(secret) = &service.secret else {
        return true;
    };
    let (account, secret) = (&service.carrier.account_sid, secret.expose_secret());
    let expected = format!("Basic {}", STANDARD.encode(format!("{account}:{secret}")));
    let given = request.headers().get(AUTHORIZATION);
    given.is_some_and(|given| given.as_bytes() == expected.as_bytes())
}

fn create(service: &std::sync::Arc<Service>, form: &Fields) -> HttpResponse {
    let act = lock(&service.plan).pop_front();
    let act = act.unwrap_or_else(|| service.faults.draw(&mut rand::rng()));
    match act {
        Act::Take => match take(service, form) {
            Ok(call) => HttpResponse::Created().json(shown(&call)),
            Err(code) => problem(StatusCode::BAD_REQUEST, code),
        },
        Act::TakeThenCut => {
            let _ = take(service, form);
            cut()
        }
        Act::TakeThenFail(status) => {
            let _ = take(service, form);
            failed(status)
        }
        Act::Fail(status) => failed(status),
        Act::Cut => cut(),
        Act::Throttle(wait) => {
            let mut answer = HttpResponse::TooManyRequests();
            if let Some(wait) = wait {
                answer.insert_header((RETRY_AFTER, wait.to_string()));
            }
            answer.json(json!({"code": 20_429, "message": "Too many requests", "status": 429}))
        }
        Act::Refuse(code) => problem(StatusCode::BAD_REQUEST, code),
    }
}

/// Takes a call, or says what is wrong with it.
fn take(service: &std::sync::Arc<Service>, form: &Fields) -> Result<Placed, u32> {
    let field = |name: &str| {
        let found = form.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.clone())
            .filter(|it| !it.is_empty())
    };
    let seconds = |name| {
        let seconds = field(name)?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    };
    let call = Placed {
        sid: sid("CA"),
        to: field("To").ok_or(21_201_u32)?,
        from: field("From").ok_or(21_213_u32)?,
        answer_url: field("Url").ok_or(21_205_u32)?,
        status_url: field("StatusCallback"),
        detection: field("MachineDetection"),
        ring_for: seconds("Timeout").unwrap_or(Duration::from_secs(60)),
        longest: seconds("TimeLimit"),
        created_at: Timestamp::now(),
        status: "queued",
        talked: None,
        end: CancellationToken::new(),
    };
    service.calls.send_modify(|calls| calls.push(call.clone()));
    let placing = callee::place(std::sync::Arc::clone(service), call.clone());
    service.tasks.spawn_on(placing, &service.runtime);
    Ok(call)
}

fn list(service: &Service, query: &str) -> HttpResponse {
    let filters: Fields = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    let fits = |call: &&Placed| {
        filters.iter().all(|(name, value)| match name.as_str() {
            "To" => call.to == *value,
            "From" => call.from == *value,
            "Status" => call.status == value,
            _ => true,
        })
    };
    let calls = service.calls.borrow();
    let found = calls.iter().rev().filter(fits).take(PAGE).map(shown);
    HttpResponse::Ok().json(json!({"calls": found.collect::<Vec<_>>(), "next_page_uri": null}))
}

fn update(service: &Service, name: &str, form: &Fields) -> HttpResponse {
    let Some(call) = service.find(name) else {
        return problem(StatusCode::NOT_FOUND, 20_404);
    };
    if call.is_over() {
        return problem(StatusCode::BAD_REQUEST, 21_220);
    }
    let failing = &service.failing_ends;
    let failing = failing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    });
    if failing.is_ok() {
        return failed(503);
    }
    if form
        .iter()
        .any(|(key, value)| key == "Status" && value == "completed")
    {
        call.end.cancel();
    }
    HttpResponse::Ok().json(shown(&call))
}

fn shown(call: &Placed) -> Value {
    let created = call.created_at.to_zoned(TimeZone::UTC);
    let created = jiff::fmt::rfc2822::to_string(&created).expect("these years have four digits");
    json!({
        "sid": call.sid,
        "status": call.status,
        "direction": "outbound-api",
        "to": call.to,
        "from": call.from,
        "date_created": created,
        "start_time": null,
        "duration": call.talked.map(|talked| talked.as_secs().to_string()),
    })
}

fn problem(status: StatusCode, code: u32) -> HttpResponse {
    HttpResponse::build(status).json(json!({
        "code": code,
        "message": "",
        "more_info": format!("https://www.twilio.com/docs/errors/{code}"),
        "status": status.as_u16(),
    }))
}

fn failed(status: u16) -> HttpResponse {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).body("")
}

/// An answer that breaks off: more is announced than ever comes.
pub fn cut() -> HttpResponse {
    let broken = futures_util::stream::once(async {
        Err::<Bytes, _>(std::io::Error::other("the connection is cut"))
    });
    HttpResponse::Created().streaming(broken)
}
