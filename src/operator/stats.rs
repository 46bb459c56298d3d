//! `/stats`: every live connection of this replica, its caller masked; and what is to come and what
//! calls cost, over all replicas.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{Action, Change},
    connections::Listed,
    gateway::Gateway,
    operator::{Denied, Operator},
    record::DatabaseError,
};

/// What is asked for in the query.
#[derive(Deserialize)]
pub struct Wanted {
    #[serde(default)]
    numbers: Numbers,
}

/// How callers are shown.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Numbers {
    #[default]
    Masked,
    /// For operators who may act, and with a row that says so.
    Whole,
}

/// `GET /stats`.
///
/// # Errors
/// If whole numbers are asked for without the right to.
pub async fn stats(
    operator: Operator,
    wanted: web::Query<Wanted>,
    gateway: web::Data<Gateway>,
) -> Result<HttpResponse, Denied> {
    let mut connections = gateway.connections.list();
    if wanted.numbers == Numbers::Whole {
        if !operator.may_change() {
            return Err(Denied::ReadOnly);
        }
        if let Err(error) = unmask(&gateway, &operator, &mut connections).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "no whole number is shown without a row that says so");
            let away = "the database takes no row that says who has had numbers shown";
            return Ok(HttpResponse::ServiceUnavailable().body(away));
        }
    }
    let mut types: BTreeMap<&str, usize> = BTreeMap::new();
    for connection in &connections {
        *types.entry(connection.r#type.as_str()).or_default() += 1;
    }
    let (forecast, cost) = gateway.outlook().await;
    let room = gateway.admission.occupancy();
    Ok(HttpResponse::Ok().json(json!({
        "status": "healthy",
        "active_connections": gateway.connections.count(),
        "max_connections": gateway.connections.most(),
        "connection_types": types,
        "connections": connections,
        "replica": gateway.admission.replica(),
        "replicas": gateway.admission.siblings().replicas.max(1),
        "active_calls": room.active,
        "max_calls": room.cap,
        "forecast": forecast,
        "cost": cost,
    })))
}

/// Shows callers as they are, once it is written down that somebody wanted to see them.
async fn unmask(
    gateway: &Gateway,
    operator: &Operator,
    connections: &mut [Listed],
) -> Result<(), DatabaseError> {
    let mut whole = gateway.connections.whole_callers();
    let shown = format!("{} live callers", connections.len());
    let change = Change::by_actor(operator.by().actor(), Action::ShowNumbers, &shown);
    let note = gateway
        .records
        .database
        .write(move |writing| Box::pin(async move { change.note(writing).await }));
    note.await?;
    for connection in connections {
        if let Some(caller) = whole.remove(&connection.connection_id) {
            connection.caller_id = caller;
        }
    }
    Ok(())
}
