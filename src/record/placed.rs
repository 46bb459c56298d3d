//! The record of a call that we placed gets its carrier's name.
//!
//! Invariant: whatever was noted by that name, before anybody knew whose it was, is the call's own
//! from then on, and its end is told once.

use sqlx::{Row, any::AnyRow};

use crate::{
    call::{CallId, CarrierCallId},
    recent::Millis,
    record::{
        Database, DatabaseError, Sql, Writing,
        writer::{COLUMNS, CallFacts, MERGED, Told, announce, last_words},
    },
};

/// What a call has beside its record.
const BELONGINGS: [&str; 5] = ["steps", "words", "usage", "recordings", "events"];

/// Notes the name that the carrier has for a call, in its row and its record. Tells whether it is
/// the first name that the call gets, or the same.
///
/// # Errors
/// If the database does not take it.
pub async fn bind(
    writing: &mut Writing,
    call: CallId,
    name: &CarrierCallId,
    told: &dyn Told,
) -> Result<bool, sqlx::Error> {
    // One whose record was deleted gets none.
    let mut sql = Sql::new(
        "UPDATE outbound SET carrier_call = CASE WHEN EXISTS \
         (SELECT 1 FROM calls WHERE calls.call = outbound.call) THEN ",
    );
    sql.bind(name.as_str().to_owned());
    sql.push(
        " ELSE carrier_call END, state = CASE WHEN state IN ('reserving', 'queued', 'dialing', 'unknown') \
         THEN 'placed' ELSE state END WHERE call = ",
    );
    sql.bind(call.to_string());
    sql.push(" AND (carrier_call IS NULL OR carrier_call = ");
    sql.bind(name.as_str().to_owned()).push(")");
    if sql.execute(writing).await? == 0 {
        return Ok(false);
    }
    let (call, stray) = (call.to_string(), CallId::of(name).to_string());
    let mut sql = Sql::new("UPDATE calls SET ");
    sql.push(MERGED);
    sql.push(" FROM calls AS excluded WHERE calls.call = ")
        .bind(call.clone());
    sql.push(" AND excluded.call = ").bind(stray.clone());
    let has_stray = sql.execute(writing).await? > 0;
    if has_stray {
        let mut sql = Sql::new("DELETE FROM calls WHERE call = ");
        sql.bind(stray.clone());
        sql.execute(writing).await?;
        for table in BELONGINGS {
            let mut sql = Sql::new("UPDATE ");
            sql.push(table).push(" SET call = ").bind(call.clone());
            sql.push(" WHERE call = ").bind(stray.clone());
            sql.execute(writing).await?;
        }
    }
    let mut sql = Sql::new("UPDATE calls SET carrier_call = ");
    sql.bind(name.as_str().to_owned());
    sql.push(" WHERE call = ").bind(call);
    sql.push(" RETURNING ").push(COLUMNS);
    let named = sql.fetch_all(writing).await?;
    if let Some(row) = named.first().filter(|_| has_stray) {
        tell_end(writing, row, told).await?;
    }
    Ok(true)
}

/// Tells of an end that was noted by a name of which nobody knew whose it was.
async fn tell_end(writing: &mut Writing, row: &AnyRow, told: &dyn Told) -> Result<(), sqlx::Error> {
    let facts = CallFacts::read(row)?;
    if !facts.is_over {
        return Ok(());
    }
    let at: Option<i64> = row.try_get("ended_at")?;
    let at = at.and_then(|at| Millis::try_from(at).ok()).unwrap_or(0);
    let events = last_words(writing, &facts, at).await?;
    announce(writing, &events, told).await
}

/// Has a call that somebody has picked up be `answered` in its row, whoever else has tried to say
/// so: facts are written again until they are written.
///
/// # Errors
/// If the database does not take it.
pub async fn answered(
    writing: &mut Writing,
    call: CallId,
    name: &CarrierCallId,
) -> Result<(), sqlx::Error> {
    let mut sql = Sql::new("UPDATE outbound SET state = 'answered' WHERE call = ");
    sql.bind(call.to_string());
    sql.push(" AND state <> 'over' AND carrier_call = ");
    sql.bind(name.as_str().to_owned());
    sql.execute(writing).await.map(drop)
}

/// Returns the carrier's name for a call that we have placed, as its record has it, and how far it has
/// come there (`State::rank`); `None` if there is no record of it.
///
/// # Errors
/// If the database does not answer.
pub async fn find_placed(
    database: &Database,
    call: CallId,
) -> Result<Option<(CarrierCallId, i64)>, DatabaseError> {
    let mut sql = Sql::new("SELECT carrier_call, rank FROM calls WHERE call = ");
    sql.bind(call.to_string());
    let read = database.read(|pool| async move {
        let rows = sql.read(&pool).await?;
        let row = rows.first();
        let read = row.map(|row| Ok((row.try_get::<String, _>(0)?, row.try_get::<i64, _>(1)?)));
        read.transpose()
    });
    let found = read.await?;
    Ok(found.and_then(|(name, rank)| Some((CarrierCallId::try_from(name).ok()?, rank))))
}
