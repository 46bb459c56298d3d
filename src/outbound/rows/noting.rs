//! A call is noted, once and within its limits, or forgotten again.
//!
//! Invariant: when it was noted, the database's clock says, so that whatever counts or deletes it
//! later measures by the same one.

use std::time::Duration;

use sqlx::{Row as _, any::AnyRow};

use crate::{
    outbound::rows::{Row, clock, keeping::HELD_MS, now, number, rows, select_by_key},
    record::{Database, DatabaseError, DatabaseKind as Kind, Sql, Writing, day},
};

/// What a lock of Postgres's is about, so that no number is taken for a key.
const OF_NUMBERS: i32 = 7_001;
const OF_KEYS: i32 = 7_002;
const OF_PREFIXES: i32 = 7_003;
pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 3_600_000;
pub const DAY_MS: i64 = 24 * HOUR_MS;

/// A call as it is first noted.
#[derive(Debug, Clone)]
pub struct NewRow {
    pub row: Row,
    pub key: String,
    pub api_key: String,
    pub holder: String,
    /// By what calls to the number are counted.
    pub to_code: String,
    /// By what calls to numbers that begin alike are counted.
    pub prefix_code: String,
}

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub per_destination: u32,
    /// To numbers that begin alike.
    pub per_prefix: u32,
    pub per_key: u32,
    pub daily_calls: u32,
    pub daily_minutes: u32,
}

/// What came of noting a call.
#[derive(Debug, Clone)]
pub enum Noted {
    /// As it was noted, at a time of the database's.
    New(Box<Row>),
    /// The key was used before.
    Known(Box<Row>),
    /// The number is being called.
    Engaged,
    /// The number was called as often as it may be.
    TooOften(Lately),
    /// Numbers that begin as it does were called as often as they may be.
    TooManyAlike(Lately),
    /// As many calls were placed by the API key as may be.
    TooManyOfKey(Lately),
    CallsSpent {
        used: i64,
    },
    MinutesSpent {
        used: i64,
    },
}

/// Calls of some while, as many as there may be or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lately {
    pub count: i64,
    /// How long ago the first of the latest was, of as many as there may be, in milliseconds: once that
    /// is long, there is room for one.
    pub first_ago: i64,
}

/// Returns the calls that were placed by an API key within a minute, if there are as many as may be.
/// It costs no write.
pub async fn is_key_spent(
    database: &Database,
    api_key: &str,
    limits: Limits,
) -> Result<Option<Lately>, DatabaseError> {
    let sql = lately(
        database.kind(),
        ("api_key", api_key),
        MINUTE_MS,
        limits.per_key,
    );
    let read = database.read(move |pool| async move { sql.read(&pool).await });
    Ok(too_many(&read.await?, limits.per_key)?)
}

/// Notes a call that a program asks for, unless its key was used, or there are too many.
pub async fn note(
    database: &Database,
    mut new: NewRow,
    limits: Limits,
) -> Result<Noted, DatabaseError> {
    let kind = database.kind();
    database
        .write(move |writing| {
            Box::pin(async move {
                let tenant = new.row.tenant.clone();
                let key = new.key.clone();
                let by_key = || select_by_key(kind, &tenant, &key);
                if let Some(known) = rows(writing, by_key()).await?.pop() {
                    return Ok(Noted::Known(Box::new(known)));
                }
                // Another replica may be quicker, from one statement to the next: its call is the
                // one that is counted, and found by the key, or rings where ours would.
                let quicker = async |writing: &mut Writing, otherwise: Noted| {
                    let known = rows(writing, by_key()).await?.pop();
                    Ok(known.map_or(otherwise, |known| Noted::Known(Box::new(known))))
                };
                // Who counts is alone with what it counts, always in this order.
                for (class, what) in [
                    (OF_NUMBERS, &new.to_code),
                    (OF_KEYS, &new.api_key),
                    (OF_PREFIXES, &new.prefix_code),
                ] {
                    be_alone_with(writing, kind, class, what).await?;
                }
                let now = clock(writing, kind).await?;
                (new.row.created_at, new.row.read_at) = (now, now);
                match count(writing, kind, &new, limits).await? {
                    Ok(left) => new.row.terms.left_of_day = Some(left),
                    Err(too_many) => return quicker(writing, too_many).await,
                }
                if insert(&new).execute(writing).await? == 0 {
                    give_day_back(writing, &tenant, now).await?;
                    return quicker(writing, Noted::Engaged).await;
                }
                Ok(Noted::New(Box::new(new.row)))
            })
        })
        .await
}

/// Waits until no other transaction counts the same. `SQLite` has one that writes at a time anyway.
async fn be_alone_with(
    writing: &mut Writing,
    kind: Kind,
    class: i32,
    what: &str,
) -> Result<(), sqlx::Error> {
    if kind == Kind::Sqlite {
        return Ok(());
    }
    // Counted, because the function itself returns nothing that could be read.
    let mut sql = Sql::new("SELECT COUNT(pg_advisory_xact_lock(");
    sql.bind(class).push(", hashtext(");
    sql.bind(what.to_owned()).push(")))");
    sql.fetch_all(writing).await.map(drop)
}

/// Returns the question how many rows there are of so many milliseconds in which a column has this
/// value, and how long ago the first of the latest was made, of as many as there may be.
fn lately(kind: Kind, (column, value): (&str, &str), within_ms: i64, most: u32) -> Sql {
    let now = now(kind);
    let mut sql = Sql::new("SELECT COUNT(*), (SELECT ");
    sql.push(&now).push(" - created_at");
    let of_those = |sql: &mut Sql| {
        sql.push(" FROM outbound WHERE ").push(column).push(" = ");
        sql.bind(value.to_owned());
        sql.push(" AND created_at > ").push(&now).push(" - ");
        sql.bind(within_ms);
    };
    of_those(&mut sql);
    sql.push(" ORDER BY created_at DESC LIMIT 1 OFFSET ");
    sql.bind(i64::from(most) - 1).push(")");
    of_those(&mut sql);
    sql
}

/// Returns how many there are and when the first was, if there are as many as there may be.
fn too_many(found: &[AnyRow], most: u32) -> Result<Option<Lately>, sqlx::Error> {
    let Some(row) = found.first() else {
        return Ok(None);
    };
    let (count, first_ago): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let all = first_ago.map(|first_ago| Lately { count, first_ago });
    Ok(all.filter(|all| all.count >= i64::from(most)))
}

/// Counts a call among those of its number, its API key and its tenant's day; returns how long the day
/// lets it talk, in whole seconds, or what there is too much of.
async fn count(
    writing: &mut Writing,
    kind: Kind,
    new: &NewRow,
    limits: Limits,
) -> Result<Result<Duration, Noted>, sqlx::Error> {
    let row = &new.row;
    let now = row.created_at;
    let mut sql = Sql::new("SELECT created_at FROM outbound WHERE to_number = ");
    sql.bind(row.to.clone()).push(" AND state <> 'over'");
    if number(writing, sql).await?.is_some() {
        return Ok(Err(Noted::Engaged));
    }
    let of_number = lately(
        kind,
        ("to_code", &new.to_code),
        HOUR_MS,
        limits.per_destination,
    );
    let of_number = of_number.fetch_all(writing).await?;
    if let Some(all) = too_many(&of_number, limits.per_destination)? {
        return Ok(Err(Noted::TooOften(all)));
    }
    let alike = lately(
        kind,
        ("prefix_code", &new.prefix_code),
        HOUR_MS,
        limits.per_prefix,
    );
    let alike = alike.fetch_all(writing).await?;
    if let Some(all) = too_many(&alike, limits.per_prefix)? {
        return Ok(Err(Noted::TooManyAlike(all)));
    }
    let of_key = lately(kind, ("api_key", &new.api_key), MINUTE_MS, limits.per_key);
    let of_key = of_key.fetch_all(writing).await?;
    if let Some(all) = too_many(&of_key, limits.per_key)? {
        return Ok(Err(Noted::TooManyOfKey(all)));
    }
    let of_day = |what: &str| {
        let mut sql = Sql::new("SELECT ");
        sql.push(what).push(" FROM outbound_days WHERE tenant = ");
        sql.bind(row.tenant.clone());
        sql.push(" AND day = ").bind(day(now));
        sql
    };
    let talked = number(writing, of_day("talked_ms")).await?.unwrap_or(0);
    let talked = talked
        + number(writing, talking(&row.tenant, now))
            .await?
            .unwrap_or(0);
    let left = i64::from(limits.daily_minutes) * MINUTE_MS - talked;
    if left <= 0 {
        return Ok(Err(Noted::MinutesSpent {
            used: talked / MINUTE_MS,
        }));
    }
    let left = u64::try_from(left).unwrap_or(0).div_ceil(1_000);
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
        return Ok(Err(Noted::CallsSpent { used }));
    }
    Ok(Ok(Duration::from_secs(left)))
}

/// Returns the question how long a tenant's calls have talked that are not over, in milliseconds. All
/// of it counts for this day, also of one that began the day before.
fn talking(tenant: &str, now: i64) -> Sql {
    let mut sql = Sql::new("SELECT CAST(SUM(COALESCE(talked_ms, ");
    sql.bind(now);
    sql.push(
        " - connected_at)) AS BIGINT) FROM calls WHERE call IN (SELECT call FROM outbound \
         WHERE state = 'answered' AND state <> 'over' AND tenant = ",
    );
    sql.bind(tenant.to_owned()).push(")");
    sql
}

fn insert(new: &NewRow) -> Sql {
    let mut sql = Sql::new(
        "INSERT INTO outbound (call, tenant, idempotency_key, body_hash, api_key, pending, \
         campaign, to_number, to_code, prefix_code, from_number, request, state, created_at, holder, held_until) \
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
            .push(new.to_code.clone())
            .push(new.prefix_code.clone())
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

async fn give_day_back(writing: &mut Writing, tenant: &str, at: i64) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new("UPDATE outbound_days SET calls = calls - 1 WHERE tenant = ");
    sql.bind(tenant.to_owned())
        .push(" AND day = ")
        .bind(day(at));
    sql.execute(writing).await.map(drop)
}

/// Forgets a call for which there was no room: its key may be used again, and nothing is left of it.
/// Tells whether it was there; one that is queued stays.
pub async fn forget(database: &Database, row: &Row) -> Result<bool, DatabaseError> {
    let row = row.clone();
    database
        .write(move |writing| {
            Box::pin(async move {
                let mut sql =
                    Sql::new("DELETE FROM outbound WHERE state = 'reserving' AND call = ");
                sql.bind(row.call.to_string());
                let was_there = sql.execute(writing).await? > 0;
                if was_there {
                    give_day_back(writing, &row.tenant, row.created_at).await?;
                }
                Ok(was_there)
            })
        })
        .await
}

/// Returns how long it is until the next day.
pub fn until_tomorrow(at: i64) -> Duration {
    let left = DAY_MS - at.rem_euclid(DAY_MS);
    Duration::from_millis(u64::try_from(left).unwrap_or(0))
}
