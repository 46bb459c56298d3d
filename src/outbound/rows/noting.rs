//! A call is noted, once and within its limits, or forgotten again.

use std::time::Duration;

use crate::{
    call::PhoneNumber,
    outbound::rows::{Row, keeping::HELD_MS, number, rows, select_by_key},
    record::{Database, DatabaseError, Direction, KeptNumber, Numbers, Sql, State, Writing},
};

pub const HOUR_MS: i64 = 3_600_000;
pub const DAY_MS: i64 = 24 * HOUR_MS;

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

/// Returns the UTC day of a time.
pub fn day(at: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d").to_string()
}

/// Returns how long it is until the next day.
pub fn until_tomorrow(at: i64) -> Duration {
    let left = DAY_MS - at.rem_euclid(DAY_MS);
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}
