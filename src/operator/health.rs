//! `/health`: whether this replica serves, and how much room there is.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::{event::Standing, gateway::Gateway, operator::Operator};

/// `GET /health`: counts only, for everybody.
pub async fn summary(gateway: web::Data<Gateway>) -> HttpResponse {
    HttpResponse::Ok().json(json!({
        "status": "healthy",
        "active_connections": gateway.connections.count(),
        "max_connections": gateway.connections.most(),
    }))
}

/// `GET /health/live`: the process answers.
pub async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

/// `GET /health/ready`: whether new calls should come here.
pub async fn ready(gateway: web::Data<Gateway>) -> HttpResponse {
    if gateway.is_draining() {
        HttpResponse::ServiceUnavailable().json(json!({"status": "draining"}))
    } else {
        HttpResponse::Ok().json(json!({"status": "ready"}))
    }
}

/// `GET /health/details`: how much room there is, and what it is counted over.
pub async fn details(_: Operator, gateway: web::Data<Gateway>) -> HttpResponse {
    let room = gateway.admission.occupancy();
    let siblings = gateway.admission.siblings();
    let trouble = gateway.admission.trouble();
    let records = gateway.records.standing();
    let events = gateway.deliveries.standing();
    let scopes = gateway
        .admission
        .usage(&gateway.campaigns.current())
        .into_iter();
    let scopes: Vec<_> = scopes
        .map(|(scope, used, cap)| json!({"scope": scope.to_string(), "used": used, "cap": cap}))
        .collect();
    let (agents, campaigns) = (gateway.campaigns.agents(), gateway.campaigns.current());
    let default = agents.default_agent();
    let named: BTreeMap<_, _> = agents
        .all()
        .map(|agent| {
            let asked = gateway.admission.asked_of(agent.name());
            let resting = agent.is_resting() || asked.rests > 0;
            let mut shown = json!({"kind": agent.kind().as_str(), "resting": resting});
            for (name, used, cap) in gateway.admission.budgets_of(agent.name(), &campaigns) {
                shown[name] = json!({"used": used, "cap": cap});
            }
            (agent.name().as_str(), shown)
        })
        .collect();
    HttpResponse::Ok().json(json!({
        "status": if gateway.is_draining() { "draining" } else { "ok" },
        "active_calls": room.active,
        "max_calls": room.cap,
        "intake": if gateway.desk.stops_intake() { "stopped" } else { "open" },
        "capacity_available": room.cap.saturating_sub(room.active),
        "at_capacity": room.active >= room.cap,
        "slots": if gateway.admission.is_shared() {
            "in Redis: caps hold for all replicas"
        } else {
            "in memory: caps hold for this process alone"
        },
        "degraded": trouble.iter().map(|trouble| trouble.as_str()).collect::<Vec<_>>(),
        "store_flaws": gateway.store_flaws(),
        "records": {
            "call_log": if records.failing.is_some() { "failing" } else { "ok" },
            "waiting": records.waiting,
            "dropped": records.dropped,
            "refused": records.refused,
            "failing": records.failing,
            "failing_for_s": records.failing_for.map(|lasted| lasted.as_secs()),
        },
        "events": events.iter().map(Standing::shown).collect::<Vec<_>>(),
        "replica": gateway.admission.replica(),
        "replicas": siblings.replicas.max(1),
        "scopes": scopes,
        "twilio": if gateway.twilio.is_open() { "open" } else { "closed" },
        "agent": default.kind().as_str(),
        "agent_resting": default.is_resting(),
        "agents": named,
        "campaigns": gateway.campaigns.current().all().count(),
        "version": env!("CARGO_PKG_VERSION"),
    }))
}
