//! A call comes along: from some states to another, to its name, and to its end.

use sqlx::Row as _;

use crate::{
    api::Change,
    call::{CallId, CarrierCallId},
    campaign::Name,
    outbound::rows::{Stage, noting::day},
    record::{Database, DatabaseError, Sql},
};

/// A step of a call's, from some stages to another.
#[derive(Debug, Clone)]
pub struct Move {
    pub call: CallId,
    pub from: &'static [Stage],
    pub to: Stage,
    pub agent: Option<Name>,
    pub dialed_at: Option<i64>,
    pub rings_until: Option<i64>,
    /// What is noted together with it.
    pub change: Option<Change>,
}

impl Move {
    pub fn new(call: CallId, from: &'static [Stage], to: Stage) -> Self {
        Self {
            call,
            from,
            to,
            agent: None,
            dialed_at: None,
            rings_until: None,
            change: None,
        }
    }
}

/// Moves a call on; tells whether it was where it was believed to be.
pub async fn advance(database: &Database, step: Move) -> Result<bool, DatabaseError> {
    database
        .write(move |writing| {
            Box::pin(async move {
                let mut sql = Sql::new("UPDATE outbound SET state = ");
                sql.bind(step.to.as_str());
                if let Some(agent) = &step.agent {
                    sql.push(", agent = ").bind(agent.to_string());
                }
                if let Some(at) = step.dialed_at {
                    sql.push(", dialed_at = ").bind(at);
                }
                if let Some(until) = step.rings_until {
                    sql.push(", rings_until = ").bind(until);
                }
                sql.push(" WHERE call = ").bind(step.call.to_string());
                sql.push(" AND state IN (");
                for (at, stage) in step.from.iter().enumerate() {
                    sql.push(if at == 0 { "" } else { ", " });
                    sql.bind(stage.as_str());
                }
                sql.push(")");
                let has_moved = sql.execute(writing).await? > 0;
                if let Some(change) = step.change.filter(|_| has_moved) {
                    change.note(writing).await?;
                }
                Ok(has_moved)
            })
        })
        .await
}

/// Notes the name that the carrier has for a call, in its record too. Tells whether it is the first
/// name that the call gets, or the same: a second one would be a second call.
pub async fn bind(
    database: &Database,
    call: CallId,
    name: &CarrierCallId,
) -> Result<bool, DatabaseError> {
    let stray = CallId::of(name).to_string();
    let (call, name) = (call.to_string(), name.as_str().to_owned());
    database
        .write(move |writing| {
            Box::pin(async move {
                let mut sql = Sql::new("UPDATE outbound SET carrier_call = ");
                sql.bind(name.clone());
                sql.push(
                    ", state = CASE WHEN state IN ('reserving', 'queued', 'dialing', 'unknown') \
                 THEN 'placed' ELSE state END WHERE call = ",
                );
                sql.bind(call.clone());
                sql.push(" AND (carrier_call IS NULL OR carrier_call = ");
                sql.bind(name.clone()).push(")");
                if sql.execute(writing).await? == 0 {
                    return Ok(false);
                }
                // What was noted of it by that name, before anybody knew whose it was.
                let mut sql = Sql::new("DELETE FROM calls WHERE call = ");
                sql.bind(stray.clone());
                if sql.execute(writing).await? > 0 {
                    for table in ["steps", "words", "usage", "recordings"] {
                        let mut sql = Sql::new("UPDATE ");
                        sql.push(table).push(" SET call = ").bind(call.clone());
                        sql.push(" WHERE call = ").bind(stray.clone());
                        sql.execute(writing).await?;
                    }
                }
                let mut sql = Sql::new("UPDATE calls SET carrier_call = ");
                sql.bind(name).push(" WHERE call = ").bind(call);
                sql.execute(writing).await?;
                Ok(true)
            })
        })
        .await
}

/// Notes that a call is over, and how long it has talked; tells whether that is news.
pub async fn finish(
    database: &Database,
    call: CallId,
    talked_ms: i64,
    now: i64,
) -> Result<bool, DatabaseError> {
    database
        .write(move |writing| {
            Box::pin(async move {
                let mut sql = Sql::new("UPDATE outbound SET state = 'over' WHERE call = ");
                sql.bind(call.to_string());
                sql.push(" AND state <> 'over' RETURNING tenant");
                let done = sql.fetch_all(writing).await?;
                let Some(row) = done.first() else {
                    return Ok(false);
                };
                if talked_ms > 0 {
                    let tenant: String = row.try_get("tenant")?;
                    let mut sql = Sql::new(
                        "INSERT INTO outbound_days (tenant, day, calls, talked_ms) VALUES (",
                    );
                    sql.bind(tenant).push(", ").bind(day(now)).push(", 0, ");
                    sql.bind(talked_ms);
                    sql.push(
                    ") ON CONFLICT (tenant, day) DO UPDATE SET talked_ms = outbound_days.talked_ms \
                     + excluded.talked_ms",
                );
                    sql.execute(writing).await?;
                }
                Ok(true)
            })
        })
        .await
}
