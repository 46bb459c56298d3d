//! The rows of calls that we place. Every change says from which states it may be made, so that
//! replicas that do the same at the same time do it once.

use sqlx::{Row as _, any::AnyRow};

use crate::{
    api::Change,
    call::{CallId, CarrierCallId, PhoneNumber},
    campaign::Name,
    outbound::request::Terms,
    record::{
        Database, DatabaseError, DatabaseKind as Kind, Direction, KeptNumber, Numbers, Sql, State,
        Writing,
    },
};

/// How long a replica looks after a call without saying so again: longer than a slot's lease, so
/// that whoever takes over finds no slot of a dead one's.
pub const HELD_MS: i64 = 35_000;
/// How long a call may be at a stage that lasts as long as a request does.
const STUCK_MS: i64 = 30_000;
/// How many calls are taken over, or seen to, at once.
const AT_ONCE: i64 = 100;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

const COLUMNS: &str = "call, tenant, body_hash, pending, carrier_call, campaign, agent, to_number, \
    from_number, request, state, created_at, dialed_at, rings_until";

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

/// One call that we place.
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
}

/// A call as it is first noted.
#[derive(Debug, Clone)]
pub struct NewRow {
    pub row: Row,
    pub key: String,
    pub api_key: String,
    pub holder: String,
    pub to: PhoneNumber,
    pub from: PhoneNumber,
}

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub per_destination: u32,
    pub daily_calls: u32,
    pub daily_minutes: u32,
}

/// What came of noting a call.
#[derive(Debug, Clone)]
pub enum Noted {
    New,
    /// The key was used before.
    Known(Box<Row>),
    /// The number is being called.
    Engaged,
    /// The number was called as often as it may be; when the first of them was.
    TooOften {
        first_at: i64,
    },
    CallsSpent {
        used: i64,
    },
    MinutesSpent {
        used: i64,
    },
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
        })
    }
}

/// Returns the UTC day of a time.
pub fn day(at: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d").to_string()
}

/// Returns how long it is until the next day.
pub fn until_tomorrow(at: i64) -> std::time::Duration {
    let left = DAY_MS - at.rem_euclid(DAY_MS);
    std::time::Duration::from_millis(u64::try_from(left).unwrap_or(0))
}

async fn rows(writing: &mut Writing, sql: Sql) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sql.fetch_all(writing).await?;
    rows.iter().map(Row::read).collect()
}

async fn number(writing: &mut Writing, sql: Sql) -> Result<Option<i64>, sqlx::Error> {
    let rows = sql.fetch_all(writing).await?;
    rows.first().map_or(Ok(None), |row| row.try_get(0))
}

fn select() -> Sql {
    let mut sql = Sql::new("SELECT ");
    sql.push(COLUMNS).push(" FROM outbound ");
    sql
}

fn select_by_key(tenant: &str, key: &str) -> Sql {
    let mut sql = select();
    sql.push("WHERE tenant = ").bind(tenant.to_owned());
    sql.push(" AND idempotency_key = ").bind(key.to_owned());
    sql
}

/// Notes a call that a program asks for, unless its key was used, or there are too many.
pub async fn note(
    database: &Database,
    new: NewRow,
    limits: Limits,
    numbers: &Numbers,
) -> Result<Noted, DatabaseError> {
    let (caller, called) = (
        numbers.keep(&crate::call::CallerId::Number(new.from.clone())),
        numbers.keep(&crate::call::CallerId::Number(new.to.clone())),
    );
    database
        .write(move |writing| {
            Box::pin(async move {
                let row = &new.row;
                let now = row.created_at;
                let by_key = || select_by_key(&row.tenant, &new.key);
                if let Some(known) = rows(writing, by_key()).await?.pop() {
                    return Ok(Noted::Known(Box::new(known)));
                }
                // Another replica may be quicker, from one statement to the next: its call is the
                // one that is counted, and found by the key, or rings where ours would.
                let quicker = async |writing: &mut Writing, otherwise: Noted| {
                    let known = rows(writing, by_key()).await?.pop();
                    Ok(known.map_or(otherwise, |known| Noted::Known(Box::new(known))))
                };
                if let Some(too_many) = count(writing, row, limits).await? {
                    return quicker(writing, too_many).await;
                }
                if insert(&new).execute(writing).await? == 0 {
                    give_day_back(writing, &row.tenant, now).await?;
                    return quicker(writing, Noted::Engaged).await;
                }
                record(row, &caller, &called).execute(writing).await?;
                Ok(Noted::New)
            })
        })
        .await
}

/// Counts a call among those of its number and of its tenant's day, or says what there is too much
/// of.
async fn count(
    writing: &mut Writing,
    row: &Row,
    limits: Limits,
) -> Result<Option<Noted>, sqlx::Error> {
    let now = row.created_at;
    let mut sql = Sql::new("SELECT created_at FROM outbound WHERE to_number = ");
    sql.bind(row.to.clone()).push(" AND state <> 'over'");
    if number(writing, sql).await?.is_some() {
        return Ok(Some(Noted::Engaged));
    }
    let mut sql = Sql::new("SELECT COUNT(*) FROM outbound WHERE to_number = ");
    sql.bind(row.to.clone());
    sql.push(" AND created_at > ").bind(now - HOUR_MS);
    if number(writing, sql).await?.unwrap_or(0) >= i64::from(limits.per_destination) {
        let mut sql = Sql::new("SELECT MIN(created_at) FROM outbound WHERE to_number = ");
        sql.bind(row.to.clone());
        sql.push(" AND created_at > ").bind(now - HOUR_MS);
        let first_at = number(writing, sql).await?.unwrap_or(now);
        return Ok(Some(Noted::TooOften { first_at }));
    }
    let of_day = |what: &str| {
        let mut sql = Sql::new("SELECT ");
        sql.push(what).push(" FROM outbound_days WHERE tenant = ");
        sql.bind(row.tenant.clone());
        sql.push(" AND day = ").bind(day(now));
        sql
    };
    let talked = number(writing, of_day("talked_ms")).await?.unwrap_or(0);
    if talked >= i64::from(limits.daily_minutes) * 60_000 {
        return Ok(Some(Noted::MinutesSpent {
            used: talked / 60_000,
        }));
    }
    let mut sql = Sql::new("INSERT INTO outbound_days (tenant, day, calls, talked_ms) VALUES (");
    sql.bind(row.tenant.clone()).push(", ").bind(day(now));
    sql.push(
        ", 1, 0) ON CONFLICT (tenant, day) DO UPDATE SET calls = outbound_days.calls + 1 \
         WHERE outbound_days.calls < ",
    );
    sql.bind(i64::from(limits.daily_calls))
        .push(" RETURNING calls");
    if number(writing, sql).await?.is_none() {
        let used = number(writing, of_day("calls")).await?.unwrap_or(0);
        return Ok(Some(Noted::CallsSpent { used }));
    }
    Ok(None)
}

fn insert(new: &NewRow) -> Sql {
    let mut sql = Sql::new(
        "INSERT INTO outbound (call, tenant, idempotency_key, body_hash, api_key, pending, \
         campaign, to_number, from_number, request, state, created_at, holder, held_until) \
         VALUES ",
    );
    sql.rows(&[new], |fields, new| {
        let row = &new.row;
        let terms = serde_json::to_string(&row.terms).expect("texts always serialize");
        fields
            .push(row.call.to_string())
            .push(row.tenant.clone())
            .push(new.key.clone())
            .push(row.body_hash.clone())
            .push(new.api_key.clone())
            .push(row.pending.as_str().to_owned())
            .push(row.campaign.clone())
            .push(row.to.clone())
            .push(row.from.clone())
            .push(terms)
            .push(row.stage.as_str())
            .push(row.created_at)
            .push(new.holder.clone())
            .push(row.created_at + HELD_MS);
    });
    sql.push(" ON CONFLICT DO NOTHING"); // Of the key, or of the number.
    sql
}

/// Returns the statement for a call's record.
fn record(row: &Row, caller: &KeptNumber, called: &KeptNumber) -> Sql {
    let mut sql = Sql::new(
        "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, campaign, \
         caller, caller_shown, called, called_shown, state, rank, metadata, rang_at) VALUES ",
    );
    sql.rows(&[row], |fields, row| {
        fields
            .push(row.call.to_string())
            .push(row.pending.as_str().to_owned())
            .push(row.pending.carrier().as_str())
            .push(Direction::Outbound.as_str())
            .push(row.tenant.clone())
            .push(row.campaign.clone())
            .push(caller.found_by.clone())
            .push(caller.shown.clone())
            .push(called.found_by.clone())
            .push(called.shown.clone())
            .push(State::Queued.as_str())
            .push(State::Queued.rank())
            .push(serde_json::Value::from(row.terms.metadata.clone()).to_string())
            .push(row.created_at);
    });
    sql
}

async fn give_day_back(writing: &mut Writing, tenant: &str, at: i64) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new("UPDATE outbound_days SET calls = calls - 1 WHERE tenant = ");
    sql.bind(tenant.to_owned())
        .push(" AND day = ")
        .bind(day(at));
    sql.execute(writing).await.map(drop)
}

/// Forgets a call for which there was no room: its key may be used again. What it was refused for
/// is noted elsewhere.
pub async fn forget(database: &Database, row: &Row) -> Result<(), DatabaseError> {
    let row = row.clone();
    database
        .write(move |writing| {
            Box::pin(async move {
                let mut sql =
                    Sql::new("DELETE FROM outbound WHERE state = 'reserving' AND call = ");
                sql.bind(row.call.to_string());
                if sql.execute(writing).await? > 0 {
                    give_day_back(writing, &row.tenant, row.created_at).await?;
                }
                Ok(())
            })
        })
        .await
}

/// Returns a call by our name for it.
pub async fn find(database: &Database, call: CallId) -> Result<Option<Row>, DatabaseError> {
    let mut sql = select();
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
    let sql = select_by_key(tenant, key);
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
    let mut sql = Sql::new("SELECT carrier_call FROM outbound WHERE carrier_call IN (");
    for (at, call) in calls.iter().enumerate() {
        sql.push(if at == 0 { "" } else { ", " });
        sql.bind(call.as_str().to_owned());
    }
    sql.push(")");
    let read = database.read(move |pool| async move { sql.read(&pool).await });
    let rows = read.await?;
    let names = rows.iter().map(|row| row.try_get("carrier_call"));
    Ok(names.collect::<Result<_, _>>()?)
}

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

/// Says that `holder` still looks after its calls; returns those that nobody does any more, which
/// are the holder's from here on. Blanks what is no longer needed of old ones.
pub async fn keep(
    database: &Database,
    holder: String,
    now: i64,
) -> Result<Vec<Row>, DatabaseError> {
    let kind = database.kind();
    database
        .write(move |writing| {
            Box::pin(async move {
                let mut sql = Sql::new("UPDATE outbound SET held_until = ");
                sql.bind(now + HELD_MS)
                    .push(" WHERE holder = ")
                    .bind(holder.clone());
                sql.push(" AND state <> 'over' AND held_until > ").bind(now);
                sql.execute(writing).await?;
                // Looked up once: a subquery with a limit may be run again for each row.
                let mut sql = Sql::new(
                    "WITH left_alone AS MATERIALIZED (SELECT call FROM outbound WHERE \
                 state <> 'over' AND held_until <= ",
                );
                sql.bind(now)
                    .push(" ORDER BY held_until LIMIT ")
                    .bind(AT_ONCE);
                // Replicas that look at the same time take different ones.
                if kind == Kind::Postgres {
                    sql.push(" FOR UPDATE SKIP LOCKED");
                }
                sql.push(") UPDATE outbound SET holder = ").bind(holder);
                sql.push(", held_until = ").bind(now + HELD_MS);
                sql.push(" WHERE call IN (SELECT call FROM left_alone) RETURNING ");
                sql.push(COLUMNS);
                let taken = rows(writing, sql).await?;
                let mut sql =
                    Sql::new("DELETE FROM outbound WHERE state = 'over' AND created_at < ");
                sql.bind(now - DAY_MS);
                sql.execute(writing).await?;
                let mut sql = Sql::new(
                    "UPDATE outbound SET to_number = '', from_number = '' WHERE \
                 state = 'over' AND to_number <> '' AND created_at < ",
                );
                sql.bind(now - HOUR_MS);
                sql.execute(writing).await?;
                Ok(taken)
            })
        })
        .await
}

/// Says that nobody looks after a call, so that whoever looks next does.
pub async fn let_go(database: &Database, call: CallId) -> Result<(), DatabaseError> {
    let mut sql = Sql::new("UPDATE outbound SET held_until = 0 WHERE call = ");
    sql.bind(call.to_string());
    let write = database.write(move |writing| Box::pin(async move { sql.execute(writing).await }));
    write.await.map(drop)
}

/// Returns some of the holder's calls that have stayed for too long at a stage or, by their records,
/// are over.
pub async fn overdue(
    database: &Database,
    holder: String,
    now: i64,
) -> Result<Vec<Row>, DatabaseError> {
    let stuck = now - STUCK_MS;
    let mut sql = select();
    sql.push("WHERE holder = ").bind(holder);
    sql.push(" AND ((state IN ('placed', 'unknown') AND rings_until < ")
        .bind(now);
    sql.push(") OR (state = 'reserving' AND created_at < ")
        .bind(stuck);
    sql.push(") OR (state = 'dialing' AND dialed_at < ")
        .bind(stuck);
    sql.push(") OR (state = 'queued' AND created_at < ")
        .bind(stuck);
    sql.push(
        ") OR (state = 'answered' AND EXISTS (SELECT 1 FROM calls WHERE calls.call = \
         outbound.call AND calls.rank >= ",
    );
    sql.bind(crate::record::OVER).push(" AND calls.ended_at < ");
    sql.bind(now - 5_000)
        .push("))) ORDER BY created_at LIMIT ")
        .bind(AT_ONCE);
    let read = database.read(move |pool| async move { sql.read(&pool).await });
    let rows = read.await?;
    Ok(rows.iter().map(Row::read).collect::<Result<_, _>>()?)
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
