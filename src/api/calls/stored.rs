//! Calls as the database has them.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use sqlx::{AnyPool, Row, any::AnyRow};

use crate::{
    api::{
        Tenant,
        calls::{
            Call, CallPage, CallTimeline, Moment, PAGE, Transcript, Wanted, Words, search::Search,
        },
    },
    call::CallId,
    record::{Database, DatabaseError, Sql, date},
};

/// How many steps, and how many utterances, of one call are shown at most.
const MOST_MOMENTS: i64 = 5_000;

/// What a call is read by.
pub const COLUMNS: &str = "call, carrier_call, carrier, direction, campaign, agent, caller, \
    caller_shown, called, called_shown, state, reason, blame, scope, offered, metadata, rang_at, \
    connected_at, ended_at, talked_ms";

/// Where a page begins: after this call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    pub rang_at: i64,
    pub call: CallId,
}

/// Why a text is no [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor that a page ended with")]
pub struct NotACursor;

/// Returns a page of a tenant's calls, the latest first, with numbers as `whole` as they are kept,
/// or masked.
///
/// # Errors
/// If the database does not answer.
pub async fn list(
    database: &Database,
    tenant: &Tenant,
    wanted: Wanted,
    found_by: Option<String>,
    whole: bool,
) -> Result<CallPage, DatabaseError> {
    let limit = wanted.limit.unwrap_or(PAGE) as usize;
    let search = Search::new(tenant, wanted, found_by);
    // One more than a page has tells whether there is another page.
    let rows = database
        .read(move |pool| async move { search.find(&pool, limit + 1).await })
        .await?;
    let mut page = CallPage {
        calls: Vec::new(),
        next_cursor: None,
    };
    for row in rows.iter().take(limit) {
        page.calls.push(read(row, whole)?);
    }
    if rows.len() > limit
        && let Some(last) = rows.get(limit - 1)
    {
        page.next_cursor = Some(Cursor::of(last)?.to_string());
    }
    Ok(page)
}

/// Returns a call of the tenant's, with numbers as `whole` as they are kept, or masked.
///
/// # Errors
/// If the database does not answer.
pub async fn find(
    database: &Database,
    tenant: &Tenant,
    call: CallId,
    whole: bool,
) -> Result<Option<Call>, DatabaseError> {
    let sql = of_tenant(COLUMNS, tenant, call);
    let found = database.read(move |pool| async move {
        let rows = sql.read(&pool).await?;
        rows.first().map(|row| read(row, whole)).transpose()
    });
    found.await
}

/// Returns a call's steps, and what was said if the reader may see it, in order.
///
/// # Errors
/// If the database does not answer.
pub async fn timeline(
    database: &Database,
    tenant: &Tenant,
    call: CallId,
    has_words: bool,
) -> Result<Option<CallTimeline>, DatabaseError> {
    let known = of_tenant("call", tenant, call);
    let found = database.read(move |pool| async move {
        if known.read(&pool).await?.is_empty() {
            return Ok(None);
        }
        let (mut moments, mut is_cut) = steps(&pool, call).await?;
        if has_words {
            let (said, more) = words(&pool, call).await?;
            is_cut |= more;
            moments.extend(said.into_iter().map(|((at, id), words)| {
                let moment = Moment {
                    at: words.at,
                    what: "said".to_owned(),
                    details: None,
                    who: Some(words.who),
                    text: Some(words.text),
                };
                ((at, id), moment)
            }));
            moments.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        Ok(Some(CallTimeline {
            call_id: call.to_string(),
            timeline: moments.into_iter().map(|(_, moment)| moment).collect(),
            has_words,
            is_cut,
        }))
    });
    found.await
}

/// Returns what was said in a call.
///
/// # Errors
/// If the database does not answer.
pub async fn transcript(
    database: &Database,
    tenant: &Tenant,
    call: CallId,
) -> Result<Option<Transcript>, DatabaseError> {
    let known = of_tenant("call", tenant, call);
    let found = database.read(move |pool| async move {
        if known.read(&pool).await?.is_empty() {
            return Ok(None);
        }
        let (said, is_cut) = words(&pool, call).await?;
        Ok(Some(Transcript {
            call_id: call.to_string(),
            transcript: said.into_iter().map(|(_, words)| words).collect(),
            is_cut,
        }))
    });
    found.await
}

fn of_tenant(columns: &str, tenant: &Tenant, call: CallId) -> Sql {
    let mut sql = Sql::new("SELECT ");
    sql.push(columns).push(" FROM calls WHERE call = ");
    sql.bind(call.to_string());
    sql.push(" AND tenant = ").bind(tenant.as_str().to_owned());
    sql
}

/// When something happened; what happened in the same millisecond is ordered by its name.
pub type When = (i64, String);

/// Returns a call's steps in order, and whether there are more.
///
/// # Errors
/// If the database does not answer.
pub async fn steps(
    pool: &AnyPool,
    call: CallId,
) -> Result<(Vec<(When, Moment)>, bool), sqlx::Error> {
    let rows = of_call("step, at, what, details FROM steps", pool, call).await?;
    let is_cut = cut(&rows);
    let moments = rows.iter().map(|row| {
        let at: i64 = row.try_get("at")?;
        let details: Option<String> = row.try_get("details")?;
        let moment = Moment {
            at: date(at),
            what: row.try_get("what")?,
            details: details.and_then(|details| serde_json::from_str(&details).ok()),
            who: None,
            text: None,
        };
        Ok(((at, row.try_get("step")?), moment))
    });
    Ok((moments.collect::<Result<_, sqlx::Error>>()?, is_cut))
}

/// Returns what was said in a call in order, and whether there is more.
///
/// # Errors
/// If the database does not answer.
pub async fn words(
    pool: &AnyPool,
    call: CallId,
) -> Result<(Vec<(When, Words)>, bool), sqlx::Error> {
    let rows = of_call("step, at, who, text FROM words", pool, call).await?;
    let is_cut = cut(&rows);
    let words = rows.iter().map(|row| {
        let at: i64 = row.try_get("at")?;
        let words = Words {
            at: date(at),
            who: row.try_get("who")?,
            text: row.try_get("text")?,
        };
        Ok(((at, row.try_get("step")?), words))
    });
    Ok((words.collect::<Result<_, sqlx::Error>>()?, is_cut))
}

async fn of_call(what: &str, pool: &AnyPool, call: CallId) -> Result<Vec<AnyRow>, sqlx::Error> {
    let mut sql = Sql::new("SELECT ");
    sql.push(what).push(" WHERE call = ").bind(call.to_string());
    sql.push(" ORDER BY at, step LIMIT ").bind(MOST_MOMENTS);
    sql.read(pool).await
}

fn cut(rows: &[AnyRow]) -> bool {
    rows.len() >= usize::try_from(MOST_MOMENTS).unwrap_or(usize::MAX)
}

/// Reads a call, with numbers as `whole` as they are kept, or masked.
///
/// # Errors
/// If the row has not [`COLUMNS`].
pub fn read(row: &AnyRow, whole: bool) -> Result<Call, sqlx::Error> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let time = |column: &str| {
        let at: Option<i64> = row.try_get(column)?;
        Ok::<_, sqlx::Error>(at.map(date))
    };
    let number = |kept: &str, shown: &str| {
        // A code says nothing to people.
        let kept = text(kept)?.filter(|kept| whole && !kept.starts_with("h:"));
        Ok::<_, sqlx::Error>(kept.map_or(text(shown)?, Some))
    };
    let metadata = text("metadata")?;
    Ok(Call {
        call_id: row.try_get("call")?,
        carrier_call_id: row.try_get("carrier_call")?,
        carrier: row.try_get("carrier")?,
        direction: row.try_get("direction")?,
        campaign: text("campaign")?,
        agent: text("agent")?,
        caller: number("caller", "caller_shown")?,
        called: number("called", "called_shown")?,
        state: row.try_get("state")?,
        reason: text("reason")?,
        blame: text("blame")?,
        full_scope: text("scope")?,
        offered: text("offered")?,
        metadata: metadata.and_then(|it| serde_json::from_str::<Value>(&it).ok()),
        rang_at: date(row.try_get("rang_at")?),
        connected_at: time("connected_at")?,
        ended_at: time("ended_at")?,
        talked_ms: row.try_get("talked_ms")?,
    })
}

impl Cursor {
    /// Returns where a page begins whose predecessor ends with this row.
    ///
    /// # Errors
    /// If it is no call's.
    pub fn of(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let call: String = row.try_get("call")?;
        let call = call
            .parse()
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(Self {
            rang_at: row.try_get("rang_at")?,
            call,
        })
    }

    /// Adds that only what follows is wanted.
    pub fn narrow(&self, sql: &mut Sql) {
        sql.push(" AND (rang_at, call) < (").bind(self.rang_at);
        sql.push(", ").bind(self.call.to_string()).push(")");
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{}", self.rang_at, self.call);
        f.write_str(&URL_SAFE_NO_PAD.encode(text))
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let plain = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotACursor)?;
        let plain = std::str::from_utf8(&plain).map_err(|_| NotACursor)?;
        let (rang_at, call) = plain.split_once('.').ok_or(NotACursor)?;
        Ok(Self {
            rang_at: rang_at.parse().map_err(|_| NotACursor)?,
            call: call.parse().map_err(|_| NotACursor)?,
        })
    }
}

/// Returns how the database goes about a page.
///
/// # Errors
/// If it does not answer.
#[cfg(any(test, feature = "bench"))]
pub async fn plan(
    database: &Database,
    tenant: &Tenant,
    wanted: Wanted,
    found_by: Option<String>,
) -> Result<Vec<String>, DatabaseError> {
    let limit = wanted.limit.unwrap_or(PAGE) as usize;
    let search = Search::new(tenant, wanted, found_by);
    database.plan(|sql| search.next(sql, limit + 1)).await
}
