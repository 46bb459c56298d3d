//! Calls that agents have handed over: their records are closed, and they go on at their carriers.

use std::time::Duration;

use crate::{
    call::{CallId, EndReason},
    record::{Database, DatabaseError, Sql, What, unix_millis_i64},
};

/// Tells whether a call was handed over in the last `within`, and nobody has told what came of it.
///
/// # Errors
/// If the database does not answer.
pub async fn was_handed_over(
    database: &Database,
    call: CallId,
    within: Duration,
) -> Result<bool, DatabaseError> {
    let within = i64::try_from(within.as_millis()).unwrap_or(i64::MAX);
    let told = What::TransferEnded { answered: true }.name();
    let mut sql = Sql::new("SELECT call FROM calls WHERE call = ");
    sql.bind(call.to_string());
    sql.push(" AND reason = ")
        .bind(EndReason::Transferred.as_str().to_owned());
    sql.push(" AND ended_at > ")
        .bind(unix_millis_i64().saturating_sub(within));
    sql.push(" AND NOT EXISTS (SELECT 1 FROM steps WHERE steps.call = calls.call AND what = ");
    sql.bind(told.unwrap_or_default().to_owned()).push(")");
    let found = database.read(move |pool| async move { sql.read(&pool).await });
    Ok(!found.await?.is_empty())
}
