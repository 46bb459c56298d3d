//! What goes: what is too old, and what somebody wants gone.
//!
//! Invariant: of a call that goes, nothing stays: neither its steps and words nor the events that
//! tell of it, nor what was asked for if we have placed it. What keeps it from being placed twice, and
//! what it has used up, are counted on, by codes, for as long as they count.

use std::time::Duration;

use sqlx::Row;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    campaign::Name,
    record::{Database, DatabaseError, Sql, Writing, day, row::OVER, unix_millis_i64},
};

/// How many calls go in one transaction.
const AT_ONCE: i64 = 200;
/// How far calls that are not over are counted.
const MOST_COUNTED: i64 = 1_000;
/// The pause between two of them, in which others write.
pub const PAUSE: Duration = Duration::from_millis(20);
/// How often somebody looks whether it is time.
const LOOK: Duration = Duration::from_secs(300);
/// How often a replica, whichever, sees to what is too old.
const EVERY_MS: i64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;
/// How long it is kept who has changed what.
const AUDIT_KEPT_MS: i64 = 400 * DAY_MS;
const DUTY: &str = "retention";
/// What is left of what was asked for with a placed call: nothing, as those who read it know it.
const BLANK_REQUEST: &str = r#"{"overrides":{},"metadata":{},"ring_seconds":30,"detection":"off","when_machine":"hang_up"}"#;

/// Which calls are to go.
#[derive(Debug, Clone)]
pub struct Doomed {
    /// `None`: all tenants'.
    tenant: Option<Name>,
    which: Which,
}

#[derive(Debug, Clone)]
enum Which {
    /// From or to the number that is found by any of these.
    OfNumber(Vec<String>),
    /// That rang before this, and are over.
    Before(i64),
    /// That rang before this, whatever became of them.
    TooOld(i64),
    /// That rang before this, and of which nobody ever knew whose they are: what was told late of a
    /// call that is deleted, or of one whose refusal was never written.
    Nobodys(i64),
}

impl Doomed {
    /// Calls that are over, from or to the number that is found by any of these.
    pub fn of_number(tenant: Option<Name>, found_by: Vec<String>) -> Self {
        let which = Which::OfNumber(found_by);
        Self { tenant, which }
    }

    /// Calls that are over and rang before this time, in Unix milliseconds.
    pub fn before(tenant: Option<Name>, at: i64) -> Self {
        let which = Which::Before(at);
        Self { tenant, which }
    }

    fn question(&self) -> Sql {
        let mut sql = self.asked_for();
        match &self.which {
            // What its writers still add to would come back. No call lasts longer than a day.
            Which::OfNumber(_) | Which::Before(_) => {
                sql.push(" AND (rank >= ").bind(OVER);
                sql.push(" OR rang_at < ").bind(unix_millis_i64() - DAY_MS);
                sql.push(")");
            }
            Which::TooOld(_) | Which::Nobodys(_) => {}
        }
        sql.push(" LIMIT ").bind(AT_ONCE);
        sql
    }

    /// Asks for those that are wanted gone, and are not over.
    fn open(&self) -> Sql {
        let mut sql = self.asked_for();
        sql.push(" AND rank < ").bind(OVER);
        sql.push(" LIMIT ").bind(MOST_COUNTED);
        sql
    }

    /// Asks for those that are wanted gone, whether they are over or not.
    fn asked_for(&self) -> Sql {
        let mut sql = Sql::new("SELECT call, carrier_call FROM calls WHERE ");
        if let Some(tenant) = &self.tenant {
            sql.push(match &self.which {
                // A number has few calls: the way to it is by its own index.
                Which::OfNumber(_) => "tenant || '' = ",
                // The tenant's index is in the order of time.
                Which::Before(_) | Which::TooOld(_) | Which::Nobodys(_) => "tenant = ",
            });
            sql.bind(tenant.to_string()).push(" AND ");
        }
        match &self.which {
            Which::OfNumber(numbers) => {
                for (number, found_by) in numbers.iter().enumerate() {
                    sql.push(if number == 0 { "(" } else { " OR " });
                    sql.push("caller = ").bind(found_by.clone());
                    sql.push(" OR called = ").bind(found_by.clone());
                }
                sql.push(")");
            }
            Which::Nobodys(at) => {
                sql.push("tenant IS NULL AND rang_at < ").bind(*at);
            }
            Which::Before(at) | Which::TooOld(at) => {
                sql.push("rang_at < ").bind(*at);
                if self.tenant.is_none() {
                    sql.push(" AND rang_at / 86400000 <= ").bind(*at / DAY_MS);
                }
            }
        }
        sql
    }
}

/// Counts the doomed calls that are not over, and stay until they are: as far as [`MOST_COUNTED`].
///
/// # Errors
/// If the database does not answer.
pub async fn count_open(writing: &mut Writing, doomed: &Doomed) -> Result<usize, sqlx::Error> {
    Ok(doomed.open().fetch_all(writing).await?.len())
}

/// Deletes some of the doomed calls with all that belongs to them; returns their carriers' names. None
/// are left once there is none.
///
/// # Errors
/// If the database does not do it.
pub async fn erase_some(
    writing: &mut Writing,
    doomed: &Doomed,
) -> Result<Vec<String>, sqlx::Error> {
    let rows = doomed.question().fetch_all(writing).await?;
    let (mut calls, mut names): (Vec<String>, Vec<String>) = Default::default();
    for row in rows {
        calls.push(row.try_get(0)?);
        names.push(row.try_get(1)?);
    }
    if calls.is_empty() {
        return Ok(names);
    }
    blank_placed(writing, &calls).await?;
    // Deliveries go with their events. The call itself is first: whoever is just writing something of
    // it has the lock of its row, so that Postgres waits and sees that, too.
    let tables = ["calls", "steps", "words", "usage", "recordings", "events"];
    for table in tables {
        let mut sql = Sql::new("DELETE FROM ");
        sql.push(table);
        only(&mut sql, " WHERE ", &calls);
        sql.execute(writing).await?;
    }
    Ok(names)
}

/// Blanks what was asked for of calls that we have placed. Their keys, and the codes that they are
/// counted by, stay for as long as those of other calls that are over: a key that is used again calls
/// nobody twice, and caps are as full as they were.
async fn blank_placed(writing: &mut Writing, calls: &[String]) -> Result<(), sqlx::Error> {
    // A carrier's last word of one that has talked would find no record to go by. First its end, which
    // nobody else notes from then on.
    let mut sql = Sql::new("UPDATE outbound SET state = 'over'");
    only(&mut sql, " WHERE state <> 'over' AND ", calls);
    sql.push(" RETURNING call");
    let ended = sql.fetch_all(writing).await?;
    let ended = ended.iter().map(|row| row.try_get(0));
    let ended: Vec<String> = ended.collect::<Result<_, _>>()?;
    if !ended.is_empty() {
        let mut sql = Sql::new(
            "INSERT INTO outbound_days (tenant, day, calls, talked_ms) \
             SELECT tenant, ",
        );
        sql.bind(day(unix_millis_i64()));
        sql.push(", 0, CAST(SUM(talked_ms) AS BIGINT) FROM calls WHERE talked_ms > 0");
        only(&mut sql, " AND ", &ended);
        sql.push(
            " GROUP BY tenant ON CONFLICT (tenant, day) DO UPDATE \
             SET talked_ms = outbound_days.talked_ms + excluded.talked_ms",
        );
        sql.execute(writing).await?;
    }
    let mut sql = Sql::new(
        "UPDATE outbound SET carrier_call = NULL, to_number = '', from_number = '', request = ",
    );
    sql.bind(BLANK_REQUEST);
    only(&mut sql, " WHERE ", calls);
    sql.execute(writing).await.map(drop)
}

/// Adds that a row is one of these calls', behind what its column is led by.
fn only(sql: &mut Sql, lead: &'static str, calls: &[String]) {
    sql.push(lead).push("call IN ").list(calls);
}

/// Sees every hour to what is older than `kept`, one replica for all of them, until `stop`.
pub async fn keep_short(database: Database, kept: Duration, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // A replica whose clock is ahead would delete what is new.
        let swept = stop.run_until_cancelled(async {
            let now = database.now().await?;
            sweep(&database, kept, now).await
        });
        match swept.await {
            Some(Ok(Some(calls))) if calls > 0 => {
                tracing::info!(calls, "calls that were kept for long enough are deleted");
            }
            Some(Ok(_)) | None => {}
            Some(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "what is too old could not be deleted");
            }
        }
    }
}

/// Deletes what is too old at `now`, if it is time and nobody else does; returns how many calls.
///
/// # Errors
/// If the database does not answer.
pub async fn sweep(
    database: &Database,
    kept: Duration,
    now: i64,
) -> Result<Option<usize>, DatabaseError> {
    if !take_duty(database, DUTY, EVERY_MS, now).await? {
        return Ok(None);
    }
    let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    let too_old = now.saturating_sub(kept);
    let mut calls = 0;
    for which in [
        Which::TooOld(too_old),
        Which::Nobodys(now.saturating_sub(DAY_MS)),
    ] {
        calls += erase_all(
            database,
            Doomed {
                tenant: None,
                which,
            },
        )
        .await?;
    }
    for (table, name, before) in [
        // Of calls that nobody has the row of.
        ("events", "event", too_old),
        ("audit", "entry", now.saturating_sub(AUDIT_KEPT_MS)),
    ] {
        while delete_some(database, table, name, before).await? > 0 {
            sleep(PAUSE).await;
        }
    }
    forget_days(database, too_old).await?;
    Ok(Some(calls))
}

async fn erase_all(database: &Database, doomed: Doomed) -> Result<usize, DatabaseError> {
    let mut calls = 0;
    loop {
        let doomed = doomed.clone();
        let erase = database
            .write(move |writing| Box::pin(async move { erase_some(writing, &doomed).await }));
        let gone = erase.await?;
        calls += gone.len();
        if gone.is_empty() {
            return Ok(calls);
        }
        sleep(PAUSE).await;
    }
}

/// Deletes what tenants had used up of days that were over before `before`; no day that still
/// counts is.
async fn forget_days(database: &Database, before: i64) -> Result<(), DatabaseError> {
    let mut sql = Sql::new("DELETE FROM outbound_days WHERE day < ");
    sql.bind(day(before));
    let delete = database.write(move |writing| Box::pin(async move { sql.execute(writing).await }));
    delete.await.map(drop)
}

async fn delete_some(
    database: &Database,
    table: &'static str,
    name: &'static str,
    before: i64,
) -> Result<u64, DatabaseError> {
    let mut sql = Sql::new("DELETE FROM ");
    sql.push(table).push(" WHERE at < ").bind(before);
    sql.push(" AND ").push(name).push(" IN (SELECT ").push(name);
    sql.push(" FROM ")
        .push(table)
        .push(" WHERE at < ")
        .bind(before);
    sql.push(" LIMIT ").bind(AT_ONCE).push(")");
    let delete = database.write(move |writing| Box::pin(async move { sql.execute(writing).await }));
    delete.await
}

/// Tells whether it is time for a duty, and ours to do it. Replicas' clocks may differ: one that is
/// ahead by more than the period is not believed.
///
/// # Errors
/// If the database does not answer.
pub async fn take_duty(
    database: &Database,
    duty: &'static str,
    every_ms: i64,
    now: i64,
) -> Result<bool, DatabaseError> {
    let mut sql = Sql::new("INSERT INTO duties (duty, at) VALUES (");
    sql.bind(duty).push(", ").bind(now);
    sql.push(") ON CONFLICT (duty) DO UPDATE SET at = excluded.at WHERE duties.at <= ");
    sql.bind(now - every_ms)
        .push(" OR duties.at > ")
        .bind(now + every_ms);
    let take = database.write(move |writing| Box::pin(async move { sql.execute(writing).await }));
    Ok(take.await? > 0)
}
