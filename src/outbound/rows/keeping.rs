//! Who looks after which calls, and which of them need it.
//!
//! Invariant: what is taken over from another replica, or deleted, is so by the database's clock.

use std::{ops::Range, time::Duration};

use crate::{
    call::CallId,
    outbound::rows::{
        Row, Stage, clock,
        noting::{DAY_MS, HOUR_MS},
        now, push_columns, rows, select,
    },
    record::{Database, DatabaseError, DatabaseKind as Kind, Sql, State},
};

/// How long a replica looks after a call without saying so again: longer than a slot's lease, so
/// that whoever takes over finds no slot of a dead one's.
pub const HELD_MS: i64 = 35_000;
/// How long a call may be at a stage that lasts as long as a request does.
const STUCK_MS: i64 = 30_000;
/// How long ago a call's record was closed when its carrier is asked why it has said nothing of it.
const ENDED_MS: Range<i64> = 5_000..15_000;
/// How many calls are taken over, or seen to, at once.
const AT_ONCE: i64 = 100;

/// Says that `holder` still looks after its calls; returns those that nobody does any more, which
/// are the holder's from here on. Blanks what is no longer needed of old ones.
pub async fn keep(database: &Database, holder: String) -> Result<Vec<Row>, DatabaseError> {
    let kind = database.kind();
    database
        .write(move |writing| {
            Box::pin(async move {
                let now = clock(writing, kind).await?;
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
                push_columns(&mut sql, kind);
                let taken = rows(writing, sql).await?;
                let mut sql =
                    Sql::new("DELETE FROM outbound WHERE state = 'over' AND created_at < ");
                sql.bind(now - DAY_MS);
                sql.execute(writing).await?;
                let mut sql = Sql::new(
                    "UPDATE outbound SET to_code = '', prefix_code = '' WHERE state = 'over' \
                     AND to_code <> '' \
                     AND created_at < ",
                );
                sql.bind(now - HOUR_MS);
                sql.execute(writing).await?;
                Ok(taken)
            })
        })
        .await
}

/// Says that the holder of a queued call does not look after it, so that whoever looks next does.
/// What it does not hold, or what has come along, stays as it is.
pub async fn let_go(
    database: &Database,
    call: CallId,
    holder: String,
) -> Result<(), DatabaseError> {
    let mut sql = Sql::new("UPDATE outbound SET held_until = 0 WHERE state = 'queued' AND call = ");
    sql.bind(call.to_string())
        .push(" AND holder = ")
        .bind(holder);
    let write = database.write(move |writing| Box::pin(async move { sql.execute(writing).await }));
    write.await.map(drop)
}

/// Returns some of the holder's calls that have stayed for too long at a stage or, by their records,
/// have just come to their end. One that somebody has picked up is over once it has lasted for as long
/// as any may. Those that nobody has picked up come first.
pub async fn overdue(
    database: &Database,
    holder: String,
    longest_call: Duration,
) -> Result<Vec<Row>, DatabaseError> {
    let longest = i64::try_from(longest_call.as_millis()).unwrap_or(i64::MAX);
    let kind = database.kind();
    let now = now(kind);
    let mut sql = select(kind);
    sql.push("WHERE holder = ").bind(holder);
    sql.push(" AND state <> 'over' AND ((state IN ('placed', 'unknown') AND rings_until < ")
        .push(&now);
    // One that was called off is ended as soon as it has a name, or is not asked for at all.
    sql.push(
        ") OR (called_off_at IS NOT NULL AND (carrier_call IS NOT NULL \
         OR state IN ('reserving', 'queued'))",
    );
    for (stage, since) in [
        (Stage::Reserving, "created_at"),
        (Stage::Dialing, "dialed_at"),
        (Stage::Queued, "created_at"),
    ] {
        sql.push(") OR (state = ").bind(stage.as_str());
        sql.push(" AND ").push(since).push(" < ").push(&now);
        sql.push(" - ").bind(STUCK_MS);
    }
    sql.push(") OR (state = 'answered' AND rings_until < ");
    sql.push(&now).push(" - ").bind(longest);
    sql.push(") OR (state = 'answered' AND ");
    of_closed_record(&mut sql);
    for (than, ago) in [(" < ", ENDED_MS.start), (" > ", ENDED_MS.end)] {
        sql.push(" AND calls.ended_at").push(than).push(&now);
        sql.push(" - ").bind(ago);
    }
    sql.push("))) ORDER BY CASE WHEN state = 'answered' THEN 1 ELSE 0 END, created_at LIMIT ");
    sql.bind(AT_ONCE);
    read(database, sql).await
}

/// Returns some of the holder's calls that were picked up, that nobody carries by their records, and that
/// are not over by their carrier's word, in the order of their names, those `after` this one. Most of
/// them were handed over: whoever talks there may do so for hours. Of others no record says that they
/// talk: whoever knew is gone.
pub async fn carried_by_nobody(
    database: &Database,
    holder: String,
    after: String,
) -> Result<Vec<Row>, DatabaseError> {
    let mut sql = select(database.kind());
    sql.push("WHERE holder = ").bind(holder);
    sql.push(" AND state = 'answered' AND state <> 'over' AND call > ")
        .bind(after);
    sql.push(" AND (");
    of_closed_record(&mut sql);
    sql.push(") OR (rings_until < ").push(&now(database.kind()));
    sql.push(" AND NOT EXISTS (SELECT 1 FROM calls WHERE calls.call = outbound.call");
    sql.push(" AND calls.rank >= ")
        .bind(State::Connected.rank());
    sql.push("))) ORDER BY call LIMIT ").bind(AT_ONCE);
    read(database, sql).await
}

/// Adds that the call's record is closed; what comes then may say more of the record, and ends with a
/// bracket.
fn of_closed_record(sql: &mut Sql) {
    sql.push("EXISTS (SELECT 1 FROM calls WHERE calls.call = outbound.call AND calls.rank >= ");
    sql.bind(crate::record::OVER);
}

async fn read(database: &Database, sql: Sql) -> Result<Vec<Row>, DatabaseError> {
    let read = database.read(move |pool| async move { sql.read(&pool).await });
    let rows = read.await?;
    Ok(rows.iter().map(Row::read).collect::<Result<_, _>>()?)
}
