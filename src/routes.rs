//! The whole HTTP surface.

use actix_web::{
    Error, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    middleware::Next,
    web::{self, Data, ServiceConfig, get, post},
};

use crate::{
    bridge::call,
    gateway::{Gateway, make_token},
    operator::{health, metrics, stats},
    webhook::twilio::{self, message, voicemail},
};

/// Every route. Webhooks and media sockets are signed, operators' pages are guarded by
/// [`crate::operator::Operator`], and these three are public: `/health`, `/health/live` and
/// `/health/ready`.
pub fn table(routes: &mut ServiceConfig) {
    routes
        .route("/webhook/incoming_call", post().to(twilio::ringing))
        .route("/webhook/call_status", post().to(twilio::status))
        .route("/webhook/stream_ended", post().to(twilio::stream_ended))
        .route("/webhook/voicemail", post().to(voicemail::left))
        .route("/webhook/recording_status", post().to(voicemail::recorded))
        .route("/webhook/message_status", post().to(message::status))
        .route("/twilio/media", get().to(call::twilio::media))
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
