//! The whole HTTP surface.

use actix_web::{
    Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    guard::{GuardContext, fn_guard},
    http::{Method, header},
    middleware::Next,
    web::{self, Data, ServiceConfig, get, post},
};

use crate::{
    bridge::call,
    gateway::{Gateway, make_token},
    operator::{health, metrics, stats},
    web::{css, js, page},
    webhook::{
        acs::{self, prompt::prompt},
        twilio::{self, message, outbound, voicemail},
    },
};

/// Every route. Webhooks and media sockets are proven to be their carriers', operators' pages are
/// guarded by [`crate::operator::Operator`], and these are public: `/health`, `/health/live`,
/// `/health/ready`, the sentences under `/prompts`, and, where browsers may call, their page with
/// its files.
pub fn table(routes: &mut ServiceConfig) {
    let open = || get().guard(fn_guard(browsers_may_call));
    let options = || web::method(Method::OPTIONS);
    routes
        .route("/webhook/incoming_call", post().to(twilio::ringing))
        .route("/webhook/call_status", post().to(twilio::status))
        .route("/webhook/stream_ended", post().to(twilio::stream_ended))
        .route(
            "/webhook/outbound_call/{call}",
            post().to(outbound::answered),
        )
        .route(
            "/webhook/outbound_status/{call}",
            post().to(outbound::status),
        )
        .route("/webhook/voicemail", post().to(voicemail::left))
        .route("/webhook/recording_status", post().to(voicemail::recorded))
        .route("/webhook/message_status", post().to(message::status))
        .route("/twilio/media", get().to(call::twilio::media))
        .route("/acs/incomingcall", post().to(acs::incoming))
        .route("/acs/incomingcall", options().to(acs::handshake))
        .route("/acs/callbacks/{call}", post().to(acs::callbacks))
        .route("/acs/ws/{ticket}", get().to(call::acs::media))
        .route("/prompts/{language}/{name}.wav", get().to(prompt))
        .route("/", open().to(page))
        .route("/web/web.css", open().to(css))
        .route("/web/web.js", open().to(js))
        .route("/web/ws", get().to(call::web::media))
        .route("/web/tokens", post().to(make_token))
        .route("/health", get().to(health::summary))
        .route("/health/live", get().to(health::live))
        .route("/health/ready", get().to(health::ready))
        .route("/health/details", get().to(health::details))
        .route("/stats", get().to(stats::stats))
        .route("/metrics", get().to(metrics::prometheus))
        .route("/metrics.json", get().to(metrics::json))
        .default_service(web::to(HttpResponse::NotFound));
}

fn browsers_may_call(context: &GuardContext<'_>) -> bool {
    let gateway = context.app_data::<Data<Gateway>>();
    let host = context.head().headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    gateway.is_some_and(|gateway| gateway.web.open && gateway.knows_host(host))
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
