//! `/metrics`: every figure, for Prometheus and for eyes.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::{gateway::Gateway, operator::Operator, telemetry::Metrics};

/// `GET /metrics`: of this replica, but for what all of them share.
pub async fn prometheus(_: Operator, gateway: web::Data<Gateway>) -> HttpResponse {
    let text = gateway.metrics.text(|metrics| show(&gateway, metrics));
    HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(text)
}

/// `GET /metrics.json`: calls of the cluster, and what this replica has admitted and refused.
pub async fn json(_: Operator, gateway: web::Data<Gateway>) -> HttpResponse {
    let (started, refused) = gateway.metrics.totals();
    HttpResponse::Ok().json(json!({
        "calls_active": gateway.admission.occupancy().active,
        "calls_started": started,
        "calls_rejected_max_concurrent": refused,
    }))
}

/// Sets every gauge to what it is now.
fn show(gateway: &Gateway, metrics: &Metrics) {
    gateway.admission.show(&gateway.campaigns.current());
    metrics.active(gateway.admission.occupancy().active);
    metrics.connected(gateway.connections.count(), gateway.connections.most());
    metrics.records.stands(&gateway.records.standing());
    let agents = gateway.campaigns.agents();
    let resting = agents.all().map(|agent| {
        let rests_for_all = gateway.admission.asked_of(agent.name()).rests > 0;
        (agent.name().as_str(), agent.is_resting() || rests_for_all)
    });
    metrics.agents.rest(resting);
    for (kind, number) in gateway.tasks() {
        metrics.process.tasks(kind, number);
    }
    let (since, may) = gateway.drains();
    metrics.process.drains(since, may);
    metrics.process.look();
}
