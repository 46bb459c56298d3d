//! `/stats`: every live connection, its caller masked.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::{gateway::Gateway, operator::Operator};

/// `GET /stats`.
pub async fn stats(_: Operator, gateway: web::Data<Gateway>) -> HttpResponse {
    let connections = gateway.connections.list();
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for connection in &connections {
        *types.entry(connection.r#type.as_str()).or_default() += 1;
    }
    HttpResponse::Ok().json(json!({
        "status": "healthy",
        "active_connections": gateway.connections.count(),
        "max_connections": gateway.connections.most(),
        "connection_types": types,
        "connections": connections,
    }))
}
