//! Calls whose replica is gone, and nobody has written their end.
//!
//! Invariant: no call is closed that somebody carries, as far as the slot store can tell.

mod beats;

use std::{collections::HashMap, future::ready, sync::Arc, time::Duration};

use sqlx::{Row, any::AnyRow};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    call::CarrierCallId,
    record::{
        Database, DatabaseError, DatabaseKind, Direction, OVER, Sql, State,
        database::Writing,
        lost::beats::{BEAT, Beats, beat},
        unix_millis,
        writer::{COLUMNS, CallFacts, Told, announce, last_words},
    },
};

pub use beats::Living;

/// How long the end of a call that nobody has picked up may take to be written.
const UNWRITTEN_FOR_MS: i64 = 60_000;
/// How many calls are closed at once.
const AT_ONCE: i64 = 200;

/// Whoever looks after the calls of lost replicas.
pub struct Lookout {
    pub database: Database,
    pub told: Arc<dyn Told>,
    /// Who we are.
    pub replica: String,
    /// Hears who may live.
    pub living: Living,
}

impl Lookout {
    /// Shows that we live, and closes the calls of those that have been silent for as long as a slot's
    /// `lease`, until `stop`: but for those of which the store knows that somebody has them. Their
    /// replica is cut off from the database alone.
    pub async fn run<F: Future<Output = bool>>(
        &self,
        lease: Duration,
        is_carried: impl Fn(CarrierCallId) -> F,
        stop: CancellationToken,
    ) {
        let mut ticks = interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beats = Beats::new(lease);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let looked = stop.run_until_cancelled(self.look(&mut beats, &is_carried));
            if let Some(Err(error)) = looked.await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "nobody could look after lost calls");
            }
        }
    }

    /// Closes what we, who end in order, have left open, and takes us off the list.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn leave(&self) -> Result<(), DatabaseError> {
        self.close_calls_of(&self.replica, &|_| ready(false)).await
    }

    async fn look<F: Future<Output = bool>>(
        &self,
        beats: &mut Beats,
        is_carried: &impl Fn(CarrierCallId) -> F,
    ) -> Result<(), DatabaseError> {
        let there = beat(&self.database, self.replica.clone()).await?;
        let now = Instant::now();
        let silent = beats.silent(now, there);
        self.living.looked(now, beats.living(now));
        for gone in silent {
            if gone != self.replica {
                self.close_calls_of(&gone, is_carried).await?;
            }
        }
        close_unwritten(&self.database, &self.told).await
    }

    /// Closes a replica's calls but those that somebody carries, and takes it off the list once it has no
    /// more of them.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn close_calls_of<F: Future<Output = bool>>(
        &self,
        replica: &str,
        is_carried: &impl Fn(CarrierCallId) -> F,
    ) -> Result<(), DatabaseError> {
        let mut carried = 0;
        let mut after = String::new();
        loop {
            let open = self.open_calls(replica, after).await?;
            let Some(last) = open.last().cloned() else {
                break;
            };
            after = last;
            let mut lost = Vec::new();
            for call in open.into_iter().flat_map(CarrierCallId::try_from) {
                if is_carried(call.clone()).await {
                    carried += 1;
                } else {
                    lost.push(call);
                }
            }
            self.close(replica, lost).await?;
        }
        if carried > 0 {
            tracing::debug!(
                replica,
                carried,
                "a replica has calls, and writes no records"
            );
            return Ok(());
        }
        let mut sql = Sql::new("DELETE FROM replicas WHERE replica = ");
        sql.bind(replica.to_owned());
        let take_off = self
            .database
            .write(move |writing| Box::pin(async move { sql.execute(writing).await }));
        take_off.await.map(drop)
    }

    async fn open_calls(&self, replica: &str, after: String) -> Result<Vec<String>, DatabaseError> {
        let sql = open_calls(Sql::new(""), replica, after);
        let read = self.database.read(|pool| async move {
            let rows = sql.read(&pool).await?;
            rows.iter().map(|row| row.try_get(0)).collect()
        });
        read.await
    }

    async fn close(&self, replica: &str, lost: Vec<CarrierCallId>) -> Result<(), DatabaseError> {
        if lost.is_empty() {
            return Ok(());
        }
        let (told, gone) = (Arc::clone(&self.told), replica.to_owned());
        let closed = self.database.write(move |writing| {
            Box::pin(async move { close_some(writing, told.as_ref(), &gone, &lost).await })
        });
        let closed = closed.await?;
        if closed > 0 {
            tracing::warn!(replica, closed, "a replica is gone: its calls are closed");
        }
        Ok(())
    }
}

/// Returns those of these calls that are over in their records, and whether it is known whose each is.
/// There may be a few hundred of them.
///
/// # Errors
/// If the database does not answer.
pub async fn which_are_over(
    database: &Database,
    calls: &[CarrierCallId],
) -> Result<HashMap<CarrierCallId, bool>, DatabaseError> {
    let mut sql = Sql::new("SELECT carrier_call, tenant FROM calls WHERE rank >= ");
    sql.bind(OVER)
        .push(" AND carrier_call IN ")
        .list(calls.iter().map(CarrierCallId::as_str));
    let read = database.read(|pool| async move {
        let rows = sql.read(&pool).await?;
        let rows = rows.iter().map(|row| {
            let tenant: Option<String> = row.try_get(1)?;
            Ok((row.try_get::<String, _>(0)?, tenant.is_some()))
        });
        rows.collect::<Result<Vec<_>, _>>()
    });
    let rows = read.await?.into_iter();
    let calls = rows.filter_map(|(name, is_somebodys)| {
        Some((CarrierCallId::try_from(name).ok()?, is_somebodys))
    });
    Ok(calls.collect())
}

/// Closes the records of calls that we have placed, that nobody has picked up and that are over:
/// whoever has seen their end was gone before it was written.
async fn close_unwritten(database: &Database, told: &Arc<dyn Told>) -> Result<(), DatabaseError> {
    let (kind, told) = (database.kind(), Arc::clone(told));
    let closed = database.write(move |writing| {
        Box::pin(async move { close_some_unwritten(writing, kind, told.as_ref()).await })
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
    kind: DatabaseKind,
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
    // When a call was asked for, and until when it is held, are the database's times.
    sql.push(" AND rang_at < ").push(kind.clock()).push(" - ");
    sql.bind(UNWRITTEN_FOR_MS);
    // Whoever looked after it said so until it was over: its last word may still be on its way.
    sql.push(
        " AND NOT EXISTS (SELECT 1 FROM outbound WHERE outbound.call = calls.call \
         AND (outbound.state <> 'over' OR outbound.held_until > ",
    );
    sql.push(kind.clock()).push(")) LIMIT ").bind(AT_ONCE);
    sql.push(") RETURNING ").push(COLUMNS);
    let closed = sql.fetch_all(writing).await?;
    tell_ends(writing, &closed, told).await?;
    Ok(closed.len())
}

/// Closes some of a replica's calls.
async fn close_some(
    writing: &mut Writing,
    told: &dyn Told,
    replica: &str,
    lost: &[CarrierCallId],
) -> Result<usize, sqlx::Error> {
    let now = i64::try_from(unix_millis()).unwrap_or(i64::MAX);
    let closed = closing(replica, lost, now).fetch_all(writing).await?;
    tell_ends(writing, &closed, told).await?;
    Ok(closed.len())
}

async fn tell_ends(
    writing: &mut Writing,
    closed: &[AnyRow],
    told: &dyn Told,
) -> Result<(), sqlx::Error> {
    let mut events = Vec::new();
    for row in closed {
        events.extend(last_words(writing, &CallFacts::read(row)?, unix_millis()).await?);
    }
    announce(writing, &events, told).await
}

/// Asks for some of a replica's calls that are not over, behind one of them.
fn open_calls(mut sql: Sql, replica: &str, after: String) -> Sql {
    sql.push("SELECT carrier_call FROM calls WHERE replica = ");
    sql.bind(replica.to_owned());
    // Open ones are few, and have an index of their own, which SQLite takes for these very words. What
    // a person talks in, or is still to be placed, ends without us.
    sql.push(" AND rank < 90 AND rank >= 40 AND rank < 60 AND carrier_call > ");
    sql.bind(after);
    sql.push(" ORDER BY carrier_call LIMIT ").bind(AT_ONCE);
    sql
}

/// Writes the statement that closes these calls. What another replica has got meanwhile is not the lost
/// one's any more, and an end that was just being committed stands.
fn closing(replica: &str, lost: &[CarrierCallId], now: i64) -> Sql {
    let state = State::InstanceLost;
    let mut sql = Sql::new("UPDATE calls SET state = ");
    sql.bind(state.as_str())
        .push(", rank = ")
        .bind(state.rank());
    sql.push(", reason = ").bind(state.as_str());
    sql.push(", blame = 'callgate', ended_at = CASE WHEN rang_at > ");
    sql.bind(now).push(" THEN rang_at ELSE ").bind(now);
    sql.push(" END WHERE rank >= 40 AND rank < 60 AND replica = ");
    sql.bind(replica.to_owned());
    sql.push(" AND carrier_call IN ")
        .list(lost.iter().map(CarrierCallId::as_str));
    sql.push(" RETURNING ").push(COLUMNS);
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
            let plan = database.plan(|sql| open_calls(sql, "gone", String::new()));
            let plan = plan.await.unwrap();
            let plan = plan.join("\n");
            assert!(plan.contains("calls_open"), "{plan}");
        })
        .await;
    }
}
