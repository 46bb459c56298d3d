//! How many calls have come lately, and how long they held their slots: of all replicas, because all
//! of them write here.

use std::time::Duration;

use sqlx::Row;

use crate::{
    forecast::Measured,
    record::{Database, DatabaseError, Sql, unix_millis_i64},
};

/// How many campaigns are measured at most.
const MOST_ROWS: i64 = 10_000;

/// What was measured of one campaign's calls.
#[derive(Debug, Clone, PartialEq)]
pub struct CampaignTraffic {
    pub tenant: String,
    pub campaign: String,
    pub measured: Measured,
    /// When the first of the calls rang that were looked at, in Unix milliseconds.
    pub first_at: i64,
}

/// Measures every campaign's calls of the time before now that `window` says. Lengths are of the
/// calls that have ended in it, whenever they rang, none of which was longer than `longest`: those
/// that rang in it would be too short, because longer ones go on.
///
/// # Errors
/// If the database does not answer.
pub async fn traffic(
    database: &Database,
    window: Duration,
    longest: Duration,
) -> Result<Vec<CampaignTraffic>, DatabaseError> {
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let since = unix_millis_i64().saturating_sub(millis(window));
    let rang_since = since.saturating_sub(millis(longest));
    let mut sql = Sql::new("SELECT c.tenant AS tenant, c.campaign AS campaign");
    // Clocks of two replicas may differ by more than a call lasted.
    let ended = "c.state <> 'rejected_capacity' AND c.ended_at >= c.rang_at AND c.ended_at";
    for (name, what, when) in [
        ("arrivals", "1", "c.rang_at"),
        (
            "refused",
            "1",
            "c.state = 'rejected_capacity' AND c.rang_at",
        ),
        ("ended", "1", ended),
        ("held_ms", "c.ended_at - c.rang_at", ended),
    ] {
        sql.push(", CAST(SUM(CASE WHEN ").push(when).push(" >= ");
        sql.bind(since).push(" THEN ").push(what);
        sql.push(" ELSE 0 END) AS BIGINT) AS ").push(name);
    }
    sql.push(", MIN(c.rang_at) AS first_at");
    sql.push(" FROM calls c WHERE c.tenant IS NOT NULL AND c.campaign IS NOT NULL");
    // By the day first, which there is an index of.
    sql.push(" AND c.rang_at / 86400000 >= ")
        .bind(rang_since.div_euclid(86_400_000));
    sql.push(" AND c.rang_at >= ").bind(rang_since);
    sql.push(" GROUP BY 1, 2 LIMIT ").bind(MOST_ROWS);
    let reading = database.read(|pool| async move {
        let rows = sql.read(&pool).await?;
        rows.iter().map(read).collect()
    });
    reading.await
}

fn read(row: &sqlx::any::AnyRow) -> Result<CampaignTraffic, sqlx::Error> {
    let number = |name: &str| -> Result<u64, sqlx::Error> {
        let number: i64 = row.try_get(name)?;
        Ok(u64::try_from(number).unwrap_or(0))
    };
    Ok(CampaignTraffic {
        tenant: row.try_get("tenant")?,
        campaign: row.try_get("campaign")?,
        measured: Measured {
            arrivals: number("arrivals")?,
            refused: number("refused")?,
            ended: number("ended")?,
            held: Duration::from_millis(number("held_ms")?),
        },
        first_at: row.try_get("first_at")?,
    })
}
