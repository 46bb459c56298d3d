//! How fast the carrier is asked for calls, by all replicas together.
//!
//! Invariant: a call is asked for when it can be dialed, since the carrier would keep the rest for
//! hours; whoever would wait for longer than it may is told so at once.
//! Invariant: turns are counted by the database's clock, in one statement each.

use std::time::Duration;

use sqlx::Row;
use tokio::time::{Instant, sleep_until};

use crate::{
    call::Carrier,
    record::{Database, DatabaseError, DatabaseKind, Sql, Writing},
};

/// How far ahead a turn can be, with room to spare: what is further has been noted before the
/// database's clock was set back.
const FURTHEST_MS: i64 = 300_000;
/// The shortest time within which a turn may be used, however many there are in a second.
const SHORTEST_SLACK: Duration = Duration::from_secs(1);

/// How many turns there are, and how long anybody waits for one.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    period_ms: i64,
    longest_ms: i64,
}

/// There are too many before: when to come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany {
    pub again_in: Duration,
}

/// A turn with the carrier, which comes at its time.
#[derive(Debug, Clone, Copy)]
pub struct Turn(Instant);

impl Pace {
    /// Makes turns, at most `per_second` of them, for which nobody waits longer than `longest`.
    pub fn new(per_second: u32, longest: Duration) -> Self {
        Self {
            // Whole milliseconds, rounded so that there are never more.
            period_ms: i64::from(1_000_u32.div_ceil(per_second.max(1))),
            longest_ms: i64::try_from(longest.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Returns how late a turn may be used: by then it is the next one's, and the time that a commit
    /// takes is nothing.
    pub fn slack(self) -> Duration {
        millis(self.period_ms).max(SHORTEST_SLACK)
    }

    /// Returns the same pace for a call that waits for up to `longest`.
    pub fn waiting(self, longest: Duration) -> Self {
        let longest_ms = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
        Self { longest_ms, ..self }
    }
}

impl Turn {
    /// Returns how long ago it was.
    pub fn passed_for(self) -> Duration {
        Instant::now().saturating_duration_since(self.0)
    }

    /// Completes when it is its turn.
    pub async fn comes(self) {
        sleep_until(self.0).await;
    }
}

/// Takes the next turn with a carrier, in a transaction of its own.
///
/// # Errors
/// If the database does not answer.
pub async fn next(
    database: &Database,
    carrier: Carrier,
    pace: Pace,
) -> Result<Result<Turn, TooMany>, DatabaseError> {
    let kind = database.kind();
    let take = database
        .write(move |writing| Box::pin(async move { take(writing, kind, carrier, pace).await }));
    take.await
}

/// Takes the next turn with a carrier, unless it would come too late.
///
/// # Errors
/// If the database does not answer.
pub async fn take(
    writing: &mut Writing,
    kind: DatabaseKind,
    carrier: Carrier,
    pace: Pace,
) -> Result<Result<Turn, TooMany>, sqlx::Error> {
    let now = kind.clock();
    let mut sql = Sql::new("INSERT INTO outbound_turns (carrier, next_at) VALUES (");
    sql.bind(carrier.as_str()).push(", ").push(now);
    sql.push(" + ").bind(pace.period_ms);
    sql.push(") ON CONFLICT (carrier) DO UPDATE SET next_at = CASE WHEN outbound_turns.next_at > ");
    sql.push(now).push(" AND outbound_turns.next_at <= ");
    sql.push(now).push(" + ").bind(FURTHEST_MS);
    sql.push(" THEN outbound_turns.next_at ELSE ").push(now);
    sql.push(" END + ").bind(pace.period_ms);
    sql.push(" WHERE outbound_turns.next_at <= ").push(now);
    sql.push(" + ").bind(pace.longest_ms);
    sql.push(" OR outbound_turns.next_at > ").push(now);
    sql.push(" + ").bind(FURTHEST_MS);
    sql.push(" RETURNING next_at - ").bind(pace.period_ms);
    sql.push(" - ").push(now);
    if let Some(row) = sql.fetch_all(writing).await?.first() {
        return Ok(Ok(Turn(Instant::now() + millis(row.try_get(0)?))));
    }
    let mut sql = Sql::new("SELECT next_at - ");
    sql.push(now).push(" - ").bind(pace.longest_ms);
    sql.push(" FROM outbound_turns WHERE carrier = ")
        .bind(carrier.as_str());
    let rows = sql.fetch_all(writing).await?;
    let late: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
    let again_in = millis(late.max(pace.period_ms));
    Ok(Err(TooMany { again_in }))
}

fn millis(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}
