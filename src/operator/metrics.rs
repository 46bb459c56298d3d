//! `/metrics`: every figure, for Prometheus and for eyes.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::{gateway::Gateway, operator::Operator};

/// `GET /metrics`.
pub async fn prometheus(_: Operator, gateway: web::Data<Gateway>) -> HttpResponse {
    gateway.admission.show(&gateway.campaigns.current());
    gateway.metrics.records.stands(&gateway.records.standing());
    let active = gateway.admission.occupancy().active;
    let text = gateway.metrics.text(active, gateway.connections.count());
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(text)
}

/// `GET /metrics.json`.
pub async fn json(_: Operator, gateway: web::Data<Gateway>) -> HttpResponse {
    let (started, refused) = gateway.metrics.totals();
    HttpResponse::Ok().json(json!({
        "calls_active": gateway.admission.occupancy().active,
        "calls_started": started,
        "calls_rejected_max_concurrent": refused,
    }))
}
