//! The whole HTTP surface.

use std::collections::BTreeMap;

use actix_web::{
    Error, HttpResponse, Resource, Route,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    guard::{GuardContext, fn_guard},
    http::{Method, header},
    middleware::{Next, from_fn},
    web::{self, Data, ServiceConfig, to},
};

use crate::{
    api::{
        Scope::{
            self, CallsRead, CallsWrite, EventsRead, EventsWrite, RecordsDelete, TranscriptsRead,
            UsageRead,
        },
        answering, calls,
        calls::placing,
        document, events, no_such_route, other_method, records, usage,
    },
    bridge::call,
    gateway::{Gateway, make_token},
    operator::{
        action, calls as operators_calls, dashboard, following, health, login, metrics,
        page as operators_page, stats, summary,
    },
    telemetry::Metrics,
    web::{css, js, page},
    webhook::{
        acs::{self, prompt::prompt},
        twilio::{self, message, outbound, transfer, voicemail},
    },
};

/// Who may come in by a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Public,
    /// Who proves to be the carrier: by signature, token, secret or sealed path.
    Carrier,
    /// Whoever may make a browser call.
    Browser,
    Operator,
    /// A program with a key that has this scope.
    Key(Scope),
}

/// One route of the table.
pub struct Entry {
    pub method: Method,
    pub path: &'static str,
    pub door: Door,
    route: Route,
}

/// Every route, one a line. What a door asks for, its handlers demand by the types of what they
/// take.
#[rustfmt::skip]
pub fn all() -> Vec<Entry> {
    use Door::{Browser, Carrier, Key, Operator, Public};
    vec![
        post("/webhook/incoming_call", Carrier, to(twilio::ringing)),
        post("/webhook/call_status", Carrier, to(twilio::status)),
        post("/webhook/stream_ended", Carrier, to(twilio::stream_ended)),
        post("/webhook/outbound_call/{call}", Carrier, to(outbound::answered)),
        post("/webhook/outbound_status/{call}", Carrier, to(outbound::status)),
        post("/webhook/voicemail", Carrier, to(voicemail::left)),
        post("/webhook/recording_status", Carrier, to(voicemail::recorded)),
        post("/webhook/message_status/{call}", Carrier, to(message::status)),
        post("/webhook/transfer_ended", Carrier, to(transfer::ended)),
        get("/twilio/media", Carrier, to(call::twilio::media)),
        post("/acs/incomingcall", Carrier, to(acs::incoming)),
        options("/acs/incomingcall", Carrier, to(acs::handshake)),
        post("/acs/callbacks/{call}", Carrier, to(acs::callbacks)),
        get("/acs/ws/{ticket}", Carrier, to(call::acs::media)),
        get("/prompts/{language}/{name}.wav", Public, to(prompt)),
        get("/", Public, open(to(page))),
        get("/web/web.css", Public, open(to(css))),
        get("/web/web.js", Public, open(to(js))),
        get("/web/ws", Browser, to(call::web::media)),
        post("/web/tokens", Operator, open(to(make_token))),
        get("/login", Public, to(login::form)),
        post("/login", Public, to(login::log_in)),
        post("/logout", Operator, to(login::log_out)),
        get("/dashboard", Operator, to(dashboard::show)),
        get("/dashboard/events", Operator, to(following::events)),
        get("/actions/{action}", Operator, to(action::ask)),
        post("/actions/{action}", Operator, to(action::act)),
        get("/calls", Operator, to(operators_calls::list)),
        get("/calls/{call}.json", Operator, to(operators_calls::export)),
        get("/calls/{call}", Operator, to(operators_calls::show)),
        get("/operator/operator.css", Public, to(operators_page::css)),
        get("/operator/operator.js", Public, to(operators_page::js)),
        get("/health", Public, to(health::summary)),
        get("/health/live", Public, to(health::live)),
        get("/health/ready", Public, to(health::ready)),
        get("/health/details", Operator, to(health::details)),
        get("/stats", Operator, to(stats::stats)),
        get("/metrics", Operator, to(metrics::prometheus)),
        get("/metrics.json", Operator, to(metrics::json)),
        get("/metrics/summary", Operator, to(summary::summary)),
        get("/v1/openapi.json", Public, to(document::serve)),
        get("/v1/calls", Key(CallsRead), to(calls::list)),
        post("/v1/calls", Key(CallsWrite), to(placing::place)),
        get("/v1/calls/{call}", Key(CallsRead), to(calls::show)),
        delete("/v1/calls/{call}", Key(CallsWrite), to(placing::hang_up)),
        get("/v1/calls/{call}/timeline", Key(CallsRead), to(calls::timeline)),
        get("/v1/calls/{call}/transcript", Key(TranscriptsRead), to(calls::transcript)),
        get("/v1/usage", Key(UsageRead), to(usage::show)),
        get("/v1/events", Key(EventsRead), to(events::list)),
        post("/v1/events/{event}/resend", Key(EventsWrite), to(events::resend)),
        delete("/v1/records", Key(RecordsDelete), to(records::delete)),
    ]
}

fn get(path: &'static str, door: Door, route: Route) -> Entry {
    entry(Method::GET, path, door, route)
}

fn post(path: &'static str, door: Door, route: Route) -> Entry {
    entry(Method::POST, path, door, route)
}

fn delete(path: &'static str, door: Door, route: Route) -> Entry {
    entry(Method::DELETE, path, door, route)
}

fn options(path: &'static str, door: Door, route: Route) -> Entry {
    entry(Method::OPTIONS, path, door, route)
}

fn entry(method: Method, path: &'static str, door: Door, route: Route) -> Entry {
    Entry {
        route: route.method(method.clone()),
        method,
        path,
        door,
    }
}

/// A route that is there only where browsers may call.
fn open(route: Route) -> Route {
    route.guard(fn_guard(browsers_may_call))
}

/// Puts every route of [`all`] in its place.
pub fn table(routes: &mut ServiceConfig) {
    let mut v1: BTreeMap<&str, (Resource, Vec<Method>)> = BTreeMap::new();
    for entry in all() {
        if let Some(path) = entry.path.strip_prefix("/v1") {
            let place = v1.entry(path);
            let (resource, methods) = place.or_insert_with(|| (web::resource(path), Vec::new()));
            *resource = std::mem::replace(resource, web::resource(path)).route(entry.route);
            methods.push(entry.method);
        } else {
            routes.route(entry.path, entry.route);
        }
    }
    let mut scope = web::scope("/v1");
    for (resource, methods) in v1.into_values() {
        scope = scope.service(resource.default_service(other_method(&methods)));
    }
    routes
        .service(
            scope
                .default_service(to(no_such_route))
                .wrap(from_fn(answering)),
        )
        .default_service(to(HttpResponse::NotFound));
}

fn browsers_may_call(context: &GuardContext<'_>) -> bool {
    let gateway = context.app_data::<Data<Gateway>>();
    let host = context.head().headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    gateway.is_some_and(|gateway| gateway.web.open && gateway.knows_host(host))
}

/// Begins to count at zero what alarms look at: how often we fail carriers, browsers and programs, and
/// turn programs away.
pub fn begin_counts(metrics: &Metrics) {
    for entry in all() {
        let statuses: &[u16] = match entry.door {
            Door::Carrier | Door::Browser => &[500, 503],
            Door::Key(_) => &[429, 500, 503],
            Door::Public | Door::Operator => &[],
        };
        for status in statuses {
            metrics.may_answer(method(&entry.method), entry.path, *status);
        }
    }
}

/// Counts each request by the pattern of its route.
pub async fn count<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let pattern = request
        .match_pattern()
        .unwrap_or_else(|| "unmatched".to_owned());
    let method = method(request.method());
    let gateway = request.app_data::<Data<Gateway>>().cloned();
    let response = next.call(request).await;
    let status = match &response {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    if let Some(gateway) = gateway {
        gateway.metrics.request(method, pattern, status.as_u16());
    }
    response
}

/// Names the methods there are; what a stranger makes up is no label.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
