//! Calls whose replica is gone, and nobody has written their end.
//!
//! Invariant: no clock of one replica is held against another's: who lives changes its beat, and
//! who looks on counts for itself how long it has not.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sqlx::Row;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::record::{
    Database, DatabaseError, Direction, Sql, State,
    database::Writing,
    unix_millis,
    writer::{CallFacts, Told, announce, columns},
};

/// How often a replica shows that it lives, and looks who does not.
const BEAT: Duration = Duration::from_secs(2);
/// How long the end of a call that nobody has picked up may take to be written.
const UNWRITTEN_FOR_MS: i64 = 60_000;
/// How many calls are closed at once.
const AT_ONCE: i64 = 200;

/// Shows that `replica` lives, and closes the calls of those that have been silent for as long as a
/// slot's `lease`, until `stop`.
pub async fn look_after(
    database: Database,
    told: Arc<dyn Told>,
    replica: String,
    lease: Duration,
    stop: CancellationToken,
) {
    let mut ticks = interval(BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut beats = Beats::new(lease);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = look(&database, &told, &replica, &mut beats).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "nobody could look after lost calls");
        }
    }
}

/// Who has last shown which beat, and since when it is that one: counted only while we could see.
/// Where the database was away, nobody could show anything.
struct Beats {
    seen: HashMap<String, (Option<i64>, Instant)>,
    looked: Instant,
    /// How long a replica may be silent.
    patience: Duration,
}

impl Beats {
    fn new(patience: Duration) -> Self {
        Self {
            seen: HashMap::new(),
            looked: Instant::now(),
            patience,
        }
    }

    /// Takes in what is there `now`; returns who has been silent for too long.
    fn silent(&mut self, now: Instant, there: Vec<(String, Option<i64>)>) -> Vec<String> {
        if now.duration_since(self.looked) > BEAT * 3 {
            self.seen.clear();
        }
        self.looked = now;
        self.seen
            .retain(|known, _| there.iter().any(|(replica, _)| replica == known));
        let mut silent = Vec::new();
        for (replica, beat) in there {
            let (last, since) = self.seen.entry(replica.clone()).or_insert((beat, now));
            if *last != beat {
                (*last, *since) = (beat, now);
            } else if now.duration_since(*since) >= self.patience {
                silent.push(replica);
            }
        }
        silent
    }
}

/// Closes what `replica`, which ends in order, has left open, and takes it off the list.
///
/// # Errors
/// If the database does not answer.
pub async fn leave(
    database: &Database,
    told: &Arc<dyn Told>,
    replica: &str,
) -> Result<(), DatabaseError> {
    close_calls_of(database, told, replica).await
}

async fn look(
    database: &Database,
    told: &Arc<dyn Told>,
    replica: &str,
    beats: &mut Beats,
) -> Result<(), DatabaseError> {
    let there = beat(database, replica.to_owned()).await?;
    for gone in beats.silent(Instant::now(), there) {
        if gone != replica {
            close_calls_of(database, told, &gone).await?;
        }
    }
    close_unwritten(database, told).await
}

/// Closes the records of calls that we have placed, that nobody has picked up and that are over:
/// whoever has seen their end was gone before it was written.
async fn close_unwritten(database: &Database, told: &Arc<dyn Told>) -> Result<(), DatabaseError> {
    let told = Arc::clone(told);
    let closed = database.write(move |writing| {
        Box::pin(async move { close_some_unwritten(writing, told.as_ref()).await })
    });
    let closed = closed.await?;
    if closed > 0 {
        tracing::warn!(
            closed,
            "placed calls were over without a record of it: they are closed"
        );
    }
    Ok(())
}

async fn close_some_unwritten(
    writing: &mut Writing,
    told: &dyn Told,
) -> Result<usize, sqlx::Error> {
    let now = i64::try_from(unix_millis()).unwrap_or(i64::MAX);
    let lost = State::InstanceLost;
    let mut sql = Sql::new("UPDATE calls SET state = ");
    sql.bind(lost.as_str()).push(", rank = ").bind(lost.rank());
    sql.push(", reason = ").bind(lost.as_str());
    sql.push(", blame = 'callgate', ended_at = ").bind(now);
    // Open ones are few, and those of calls that ring have no replica.
    sql.push(" WHERE rank < 90 AND call IN (SELECT call FROM calls WHERE rank < 90");
    sql.push(" AND replica IS NULL AND rank < 40 AND direction = ")
        .bind(Direction::Outbound.as_str());
    sql.push(" AND rang_at < ").bind(now - UNWRITTEN_FOR_MS);
    // Whoever looked after it said so until it was over: its last word may still be on its way.
    sql.push(
        " AND NOT EXISTS (SELECT 1 FROM outbound WHERE outbound.call = calls.call \
         AND (outbound.state <> 'over' OR outbound.held_until > ",
    );
    sql.bind(now).push(")) LIMIT ").bind(AT_ONCE);
    sql.push(") RETURNING ").push(columns());
    let closed = sql.fetch_all(writing).await?;
    for row in &closed {
        let facts = CallFacts::read(row)?;
        announce(writing, &facts, "call.ended", unix_millis(), None, told).await?;
    }
    Ok(closed.len())
}

/// Shows that we live; returns every replica that has shown itself or has a call that is not over,
/// with its beat.
async fn beat(
    database: &Database,
    replica: String,
) -> Result<Vec<(String, Option<i64>)>, DatabaseError> {
    let write = database.write(move |writing| {
        Box::pin(async move {
            let mut sql = Sql::new("INSERT INTO replicas (replica, beat) VALUES (");
            sql.bind(replica)
                .push(", 1) ON CONFLICT (replica) DO UPDATE SET beat = replicas.beat + 1");
            sql.execute(writing).await?;
            let sql = Sql::new(
                "SELECT replica, beat FROM replicas UNION ALL \
                 SELECT DISTINCT replica, CAST(NULL AS BIGINT) FROM calls \
                 WHERE rank < 90 AND replica IS NOT NULL \
                 AND replica NOT IN (SELECT replica FROM replicas)",
            );
            let rows = sql.fetch_all(writing).await?;
            let seen = rows
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            seen.collect()
        })
    });
    write.await
}

async fn close_calls_of(
    database: &Database,
    told: &Arc<dyn Told>,
    replica: &str,
) -> Result<(), DatabaseError> {
    loop {
        let (told, gone) = (Arc::clone(told), replica.to_owned());
        let closed = database.write(move |writing| {
            Box::pin(async move { close_some(writing, told.as_ref(), gone).await })
        });
        let closed = closed.await?;
        if closed == 0 {
            return Ok(());
        }
        tracing::warn!(replica, closed, "a replica is gone: its calls are closed");
    }
}

/// Closes some of a replica's calls, and takes it off the list once it has no more of them.
async fn close_some(
    writing: &mut Writing,
    told: &dyn Told,
    replica: String,
) -> Result<usize, sqlx::Error> {
    let now = i64::try_from(unix_millis()).unwrap_or(i64::MAX);
    let closed = closing(Sql::new(""), &replica, now);
    let closed = closed.fetch_all(writing).await?;
    for row in &closed {
        let facts = CallFacts::read(row)?;
        let at = unix_millis();
        for kind in ["call.ended", "call.transcript"] {
            announce(writing, &facts, kind, at, None, told).await?;
        }
    }
    if closed.is_empty() {
        let mut sql = Sql::new("DELETE FROM replicas WHERE replica = ");
        sql.bind(replica);
        sql.execute(writing).await?;
    }
    Ok(closed.len())
}

/// Writes the statement that closes some of a replica's calls.
fn closing(mut sql: Sql, replica: &str, now: i64) -> Sql {
    let lost = State::InstanceLost;
    sql.push("UPDATE calls SET state = ");
    sql.bind(lost.as_str()).push(", rank = ").bind(lost.rank());
    sql.push(", reason = ").bind(lost.as_str());
    sql.push(", blame = 'callgate', ended_at = CASE WHEN rang_at > ");
    sql.bind(now).push(" THEN rang_at ELSE ").bind(now);
    sql.push(" END WHERE call IN (SELECT call FROM calls WHERE replica = ");
    // Open ones are few, and have an index of their own, which SQLite takes for these very words. What
    // a person talks in, or is still to be placed, ends without us.
    sql.bind(replica.to_owned())
        .push(" AND rank < 90 AND rank >= 40 AND rank < 60 LIMIT ")
        .bind(AT_ONCE);
    // Postgres asks again of a row that it has waited for, and then only what is outside: the end that
    // its replica was about to commit stands.
    sql.push(") AND rank < 60 RETURNING ").push(columns());
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::database::{on_both, put_many};

    #[tokio::test]
    async fn a_lost_replicas_calls_are_looked_for_among_the_open_ones() {
        on_both(async |database| {
            put_many(database, 3_000).await;
            database.count_calls().await.unwrap();
            let plan = database.plan(|sql| closing(sql, "gone", 0)).await.unwrap();
            let plan = plan.join("\n");
            assert!(plan.contains("calls_open"), "{plan}");
        })
        .await;
    }

    #[test]
    fn only_who_could_show_itself_is_silent() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let there = |beat| {
            vec![
                ("gone".to_owned(), Some(7)),
                ("alive".to_owned(), Some(beat)),
            ]
        };
        let mut beats = Beats {
            seen: HashMap::new(),
            looked: began,
            patience: Duration::from_secs(30),
        };
        for second in (0..30).step_by(2) {
            assert_eq!(
                beats.silent(at(second), there(1 + second.cast_signed())),
                [""; 0]
            );
        }
        assert_eq!(beats.silent(at(30), there(99)), ["gone"]);
        // The database was away for a minute: nobody could show itself.
        assert_eq!(beats.silent(at(90), there(99)), [""; 0]);
        for second in (92..120).step_by(2) {
            assert_eq!(
                beats.silent(at(second), there(second.cast_signed())),
                [""; 0]
            );
        }
        assert_eq!(beats.silent(at(120), there(120)), ["gone"]);
    }
}
