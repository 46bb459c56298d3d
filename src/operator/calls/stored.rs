//! Calls as the database has them, whosever they are.

use serde::Serialize;
use sqlx::{AnyPool, Row, any::AnyRow};

use crate::{
    api::calls::{
        Call, Moment, Words,
        stored::{self as of_calls, COLUMNS},
    },
    call::CallId,
    gateway::Gateway,
    operator::{
        calls::{asked::Search, finding::Finding},
        question::Unanswered,
    },
    record::{DatabaseError, Sql, date},
};

/// How many rows of each other kind a call's page has.
const MOST_ROWS: i64 = 200;

/// A page of calls.
#[derive(Debug, Default)]
pub struct Page {
    pub calls: Vec<Call>,
    /// Where the next one begins.
    pub next: Option<String>,
    /// How far back was looked, where there was more than is looked at at once.
    pub seen_to: Option<String>,
}

/// All that is kept of a call.
#[derive(Debug, Serialize)]
pub struct Whole {
    #[serde(flatten)]
    pub call: Call,
    pub tenant: Option<String>,
    /// What a refused caller was offered.
    pub offered: Option<String>,
    pub replica: Option<String>,
    /// What happened, in order.
    pub timeline: Vec<Moment>,
    pub transcript: Vec<Words>,
    pub is_cut: bool,
    pub usage: Vec<Usage>,
    pub events: Vec<Event>,
    pub recordings: Vec<Recording>,
}

/// What an agent has used up.
#[derive(Debug, Serialize)]
pub struct Usage {
    pub agent: String,
    pub model: Option<String>,
    pub seconds: i64,
    pub text_in: i64,
    pub audio_in: i64,
    pub cached_in: i64,
    pub text_out: i64,
    pub audio_out: i64,
    pub cost_micros: i64,
}

/// What tenants were told, and what became of it.
#[derive(Debug, Serialize)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub at: String,
    /// Nothing where nobody is told.
    pub endpoint: Option<String>,
    pub state: Option<String>,
    pub tries: Option<i64>,
    pub last_status: Option<i64>,
    pub last_error: Option<String>,
}

/// A message that a refused caller has left.
#[derive(Debug, Serialize)]
pub struct Recording {
    pub id: String,
    pub seconds: i64,
}

/// Returns a page of calls, the latest first. Whoever `may_change` finds numbers by more than the
/// digits that everybody sees.
///
/// # Errors
/// If the database does not answer in time.
pub async fn list(gateway: &Gateway, search: Search, may_change: bool) -> Result<Page, Unanswered> {
    let records = &gateway.records;
    let Some(finding) = Finding::new(search, &records.numbers, may_change) else {
        return Ok(Page::default());
    };
    let questions = &gateway.desk.questions;
    let found = questions.search(&records.database, |pool| async move {
        let found = finding.find(&pool).await?;
        let calls = found.rows.iter().map(|row| of_calls::read(row, false));
        Ok(Page {
            calls: calls.collect::<Result<_, sqlx::Error>>()?,
            seen_to: found
                .next
                .as_ref()
                .filter(|_| found.is_cut)
                .map(|it| date(it.rang_at)),
            next: found.next.map(|next| next.to_string()),
        })
    });
    found.await
}

/// Returns a call, with numbers as `whole` as they are kept, or masked.
///
/// # Errors
/// If the database does not answer.
pub async fn find(
    gateway: &Gateway,
    call: CallId,
    whole: bool,
) -> Result<Option<Call>, DatabaseError> {
    let sql = of_call(COLUMNS, "calls", call, "");
    // By its key: hanging up waits for nobody's search.
    let found = gateway.records.database.read(move |pool| async move {
        let rows = sql.read(&pool).await?;
        rows.first()
            .map(|row| of_calls::read(row, whole))
            .transpose()
    });
    found.await
}

/// Returns all that is kept of a call.
///
/// # Errors
/// If the database does not answer in time.
pub async fn whole(
    gateway: &Gateway,
    call: CallId,
    with_numbers: bool,
) -> Result<Option<Whole>, Unanswered> {
    let questions = &gateway.desk.questions;
    let found = questions.read_call(&gateway.records.database, move |pool| async move {
        let row = of_call(
            &format!("{COLUMNS}, tenant, offered, replica"),
            "calls",
            call,
            "",
        );
        let rows = row.read(&pool).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let (timeline, more_steps) = of_calls::steps(&pool, call).await?;
        let (transcript, more_words) = of_calls::words(&pool, call).await?;
        Ok(Some(Whole {
            call: of_calls::read(row, with_numbers)?,
            tenant: row.try_get("tenant")?,
            offered: row.try_get("offered")?,
            replica: row.try_get("replica")?,
            timeline: timeline.into_iter().map(|(_, moment)| moment).collect(),
            transcript: transcript.into_iter().map(|(_, words)| words).collect(),
            is_cut: more_steps || more_words,
            usage: usage(&pool, call).await?,
            events: events(&pool, call).await?,
            recordings: recordings(&pool, call).await?,
        }))
    });
    found.await
}

async fn usage(pool: &AnyPool, call: CallId) -> Result<Vec<Usage>, sqlx::Error> {
    let columns = "agent, model, seconds, text_in, audio_in, cached_in, text_out, audio_out, \
        cost_micros";
    let rows = of_call(columns, "usage", call, " ORDER BY at")
        .read(pool)
        .await?;
    let read = |row: &AnyRow| {
        Ok(Usage {
            agent: row.try_get("agent")?,
            model: row.try_get("model")?,
            seconds: row.try_get("seconds")?,
            text_in: row.try_get("text_in")?,
            audio_in: row.try_get("audio_in")?,
            cached_in: row.try_get("cached_in")?,
            text_out: row.try_get("text_out")?,
            audio_out: row.try_get("audio_out")?,
            cost_micros: row.try_get("cost_micros")?,
        })
    };
    rows.iter().map(read).collect()
}

async fn events(pool: &AnyPool, call: CallId) -> Result<Vec<Event>, sqlx::Error> {
    let mut sql = Sql::new(
        "SELECT events.event, kind, at, endpoint, state, tries, last_status, last_error \
         FROM events LEFT JOIN deliveries ON deliveries.event = events.event WHERE call = ",
    );
    sql.bind(call.to_string());
    sql.push(" ORDER BY at, events.event, endpoint LIMIT ")
        .bind(MOST_ROWS);
    let rows = sql.read(pool).await?;
    let read = |row: &AnyRow| {
        Ok(Event {
            id: row.try_get("event")?,
            kind: row.try_get("kind")?,
            at: date(row.try_get("at")?),
            endpoint: row.try_get("endpoint")?,
            state: row.try_get("state")?,
            tries: row.try_get("tries")?,
            last_status: row.try_get("last_status")?,
            last_error: row.try_get("last_error")?,
        })
    };
    rows.iter().map(read).collect()
}

async fn recordings(pool: &AnyPool, call: CallId) -> Result<Vec<Recording>, sqlx::Error> {
    let sql = of_call("recording, seconds", "recordings", call, " ORDER BY at");
    let rows = sql.read(pool).await?;
    let read = |row: &AnyRow| {
        Ok(Recording {
            id: row.try_get("recording")?,
            seconds: row.try_get("seconds")?,
        })
    };
    rows.iter().map(read).collect()
}

fn of_call(columns: &str, table: &'static str, call: CallId, order: &'static str) -> Sql {
    let mut sql = Sql::new("SELECT ");
    sql.push(columns).push(" FROM ").push(table);
    sql.push(" WHERE call = ").bind(call.to_string());
    sql.push(order).push(" LIMIT ").bind(MOST_ROWS);
    sql
}
