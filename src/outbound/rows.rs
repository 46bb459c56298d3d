//! The rows of calls that we place. Every change says from which states it may be made, so that
//! replicas that do the same at the same time do it once.

mod keeping;
mod moving;
mod noting;
mod queueing;

use sqlx::{Row as _, any::AnyRow};

use crate::{
    call::{CallId, CarrierCallId},
    campaign::Name,
    outbound::request::Terms,
    record::{Database, DatabaseError, DatabaseKind as Kind, Sql, Writing},
};

#[cfg(test)]
pub use keeping::HELD_MS;
pub use keeping::{carried_by_nobody, keep, let_go, overdue};
#[cfg(test)]
pub use moving::Finished;
pub use moving::{Belief, Move, advance, call_off, finish};
pub use noting::{
    HOUR_MS, Lately, Limits, MINUTE_MS, NewRow, Noted, forget, is_key_spent, note, until_tomorrow,
};
pub use queueing::{Queued, queue};

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Whether there is room is being asked.
    Reserving,
    /// The carrier has not been asked, or has certainly not done it.
    Queued,
    /// The carrier is being asked.
    Dialing,
    /// The carrier may have placed it.
    Unknown,
    /// The carrier has named it.
    Placed,
    Answered,
    Over,
}

/// One call that we place. Its times are the database's, and bear being held against `read_at` alone:
/// replicas' clocks differ.
#[derive(Debug, Clone)]
pub struct Row {
    pub call: CallId,
    pub tenant: String,
    pub body_hash: String,
    pub pending: CarrierCallId,
    pub carrier_call: Option<CarrierCallId>,
    pub campaign: String,
    pub agent: Option<Name>,
    pub to: String,
    pub from: String,
    pub terms: Terms,
    pub stage: Stage,
    pub created_at: i64,
    pub dialed_at: Option<i64>,
    pub rings_until: Option<i64>,
    /// Since when somebody wants it to be over. While it may ring it holds what it holds.
    pub called_off_at: Option<i64>,
    /// What the database's clock said when all of this was so.
    pub read_at: i64,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserving => "reserving",
            Self::Queued => "queued",
            Self::Dialing => "dialing",
            Self::Unknown => "unknown",
            Self::Placed => "placed",
            Self::Answered => "answered",
            Self::Over => "over",
        }
    }

    fn read(text: &str) -> Option<Self> {
        let all = [
            Self::Reserving,
            Self::Queued,
            Self::Dialing,
            Self::Unknown,
            Self::Placed,
            Self::Answered,
            Self::Over,
        ];
        all.into_iter().find(|stage| stage.as_str() == text)
    }
}

impl Row {
    /// Tells whether it is to be over, or is.
    pub fn is_unwanted(&self) -> bool {
        self.called_off_at.is_some() || self.stage == Stage::Over
    }

    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let text = |name: &str| row.try_get::<String, _>(name);
        let bad = |name: &str| sqlx::Error::ColumnNotFound(name.to_owned());
        let named = |name: &str, text: String| CarrierCallId::try_from(text).map_err(|_| bad(name));
        let carrier_call: Option<String> = row.try_get("carrier_call")?;
        let agent: Option<String> = row.try_get("agent")?;
        Ok(Self {
            call: text("call")?.parse().map_err(|_| bad("call"))?,
            tenant: text("tenant")?,
            body_hash: text("body_hash")?,
            pending: named("pending", text("pending")?)?,
            carrier_call: carrier_call
                .map(|call| named("carrier_call", call))
                .transpose()?,
            campaign: text("campaign")?,
            agent: agent.and_then(|agent| agent.parse().ok()),
            to: text("to_number")?,
            from: text("from_number")?,
            terms: serde_json::from_str(&text("request")?).map_err(|_| bad("request"))?,
            stage: Stage::read(&text("state")?).ok_or_else(|| bad("state"))?,
            created_at: row.try_get("created_at")?,
            dialed_at: row.try_get("dialed_at")?,
            rings_until: row.try_get("rings_until")?,
            called_off_at: row.try_get("called_off_at")?,
            read_at: row.try_get("read_at")?,
        })
    }
}

/// Returns a call by our name for it.
pub async fn find(database: &Database, call: CallId) -> Result<Option<Row>, DatabaseError> {
    let mut sql = select(database.kind());
    sql.push("WHERE call = ").bind(call.to_string());
    let read = database.read(move |pool| async move { sql.read(&pool).await });
    let rows = read.await?;
    Ok(rows.first().map(Row::read).transpose()?)
}

/// Returns the call that was asked for by this key.
pub async fn by_key(
    database: &Database,
    tenant: &str,
    key: &str,
) -> Result<Option<Row>, DatabaseError> {
    let sql = select_by_key(database.kind(), tenant, key);
    let read = database.read(move |pool| async move { sql.read(&pool).await });
    let rows = read.await?;
    Ok(rows.first().map(Row::read).transpose()?)
}

/// Tells which of these calls of the carrier's are known to be ours.
pub async fn known(
    database: &Database,
    calls: Vec<CarrierCallId>,
) -> Result<Vec<String>, DatabaseError> {
    if calls.is_empty() {
        return Ok(Vec::new());
    }
    let mut sql = Sql::new("SELECT carrier_call FROM outbound WHERE carrier_call IN ");
    sql.list(calls.iter().map(CarrierCallId::as_str));
    let read = database.read(move |pool| async move { sql.read(&pool).await });
    let rows = read.await?;
    let names = rows.iter().map(|row| row.try_get("carrier_call"));
    Ok(names.collect::<Result<_, _>>()?)
}

/// Returns how long a call has talked, by its record, in milliseconds; until `now` if it still does.
pub async fn talked(database: &Database, call: CallId, now: i64) -> Result<u64, DatabaseError> {
    let mut sql = Sql::new("SELECT COALESCE(talked_ms, ");
    sql.bind(now);
    sql.push(" - connected_at) FROM calls WHERE call = ");
    sql.bind(call.to_string());
    let read = database.read(move |pool| async move { sql.read(&pool).await });
    let rows = read.await?;
    let talked: Option<i64> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
    Ok(talked
        .and_then(|talked| u64::try_from(talked).ok())
        .unwrap_or(0))
}

async fn rows(writing: &mut Writing, sql: Sql) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sql.fetch_all(writing).await?;
    rows.iter().map(Row::read).collect()
}

async fn number(writing: &mut Writing, sql: Sql) -> Result<Option<i64>, sqlx::Error> {
    let rows = sql.fetch_all(writing).await?;
    rows.first().map_or(Ok(None), |row| row.try_get(0))
}

/// Adds what a row is read from.
fn push_columns(sql: &mut Sql, kind: Kind) {
    sql.push(
        "call, tenant, body_hash, pending, carrier_call, campaign, agent, to_number, from_number, \
         request, state, created_at, dialed_at, rings_until, called_off_at, ",
    );
    sql.push(kind.clock()).push(" AS read_at");
}

/// Returns the database's time as an expression that is worked out once for a statement, so that an
/// index is searched by it.
fn now(kind: Kind) -> String {
    format!("(SELECT {})", kind.clock())
}

/// Returns what the database's clock says.
async fn clock(writing: &mut Writing, kind: Kind) -> Result<i64, sqlx::Error> {
    let mut sql = Sql::new("SELECT ");
    sql.push(kind.clock());
    number(writing, sql).await?.ok_or(sqlx::Error::RowNotFound)
}

fn select(kind: Kind) -> Sql {
    let mut sql = Sql::new("SELECT ");
    push_columns(&mut sql, kind);
    sql.push(" FROM outbound ");
    sql
}

fn select_by_key(kind: Kind, tenant: &str, key: &str) -> Sql {
    let mut sql = select(kind);
    sql.push("WHERE tenant = ").bind(tenant.to_owned());
    sql.push(" AND idempotency_key = ").bind(key.to_owned());
    sql
}

#[cfg(test)]
mod tests;
