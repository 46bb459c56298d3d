//! What a tenant is told of its calls: events, each written once, in the transaction that writes what
//! it tells of.
//!
//! Invariant: an event has the same id whoever writes it, so that it is written once.
//! Invariant: what was noted of a call before anybody knew whose it is, is told once that is known.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{Row, any::AnyRow};
use uuid::Uuid;

use crate::{
    call::CallId,
    recent::Millis,
    record::{
        Sql,
        database::{MOST_VALUES, Writing},
        row::{OVER, State},
    },
};

/// What every call's row is read by: what [`CallFacts::read`] needs.
pub const COLUMNS: &str = "call, carrier_call, carrier, direction, tenant, campaign, agent, caller, \
    caller_shown, called, called_shown, state, rank, reason, blame, scope, offered, metadata, rang_at, \
    connected_at, ended_at, talked_ms";

/// What events' ids are made in, so that the same event has the same id whoever writes it.
const EVENTS: Uuid = Uuid::from_u128(0x6d1c_4b0e_9a57_4c39_8f1e_2f7d_0a55_c3e1);
/// How many values a row of `events` has.
const VALUES_OF_AN_EVENT: usize = 6;

const ENDED: &str = "call.ended";
pub const REFUSED: &str = "call.refused";
pub const STARTED: &str = "call.started";

/// The most utterances that an event tells, and the most characters of them: who wants more asks `/v1`.
const MOST_UTTERANCES: i64 = 2_000;
const LONGEST_TRANSCRIPT: i64 = 200_000;

/// Who is told of events: is asked in the transaction that writes them.
pub trait Told: Send + Sync + std::fmt::Debug {
    /// Returns the statements that note to whom these events go.
    fn deliveries(&self, events: &[&Event]) -> Vec<Sql>;
}

/// What a tenant is told.
#[derive(Debug)]
pub struct Event {
    pub id: String,
    pub tenant: String,
    pub kind: &'static str,
    call: String,
    at: Millis,
    body: String,
}

/// A call's row, as events tell it.
#[derive(Debug, Clone)]
pub struct CallFacts {
    pub call: String,
    pub tenant: Option<String>,
    pub is_over: bool,
    data: Value,
}

/// Writes events, with what notes who is told of them. Those that are there already stay as they are,
/// and nobody is told of them again.
///
/// # Errors
/// If the database does not take them.
pub async fn announce(
    writing: &mut Writing,
    events: &[Event],
    told: &dyn Told,
) -> Result<(), sqlx::Error> {
    for part in events.chunks(MOST_VALUES / VALUES_OF_AN_EVENT) {
        let mut sql = Sql::new("INSERT INTO events (event, tenant, kind, call, at, body) VALUES ");
        sql.rows(part, |fields, event| {
            fields
                .push(event.id.clone())
                .push(event.tenant.clone())
                .push(event.kind)
                .push(event.call.clone())
                .push(millis(event.at))
                .push(event.body.clone());
        });
        sql.push(" ON CONFLICT DO NOTHING RETURNING event");
        let rows = sql.fetch_all(writing).await?;
        let mut new: HashSet<String> = rows
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?;
        let new: Vec<&Event> = part.iter().filter(|it| new.remove(&it.id)).collect();
        for delivery in told.deliveries(&new) {
            delivery.execute(writing).await?;
        }
    }
    Ok(())
}

/// Returns what is told of a call that is over, beside that it was refused: its end, and what was said.
///
/// # Errors
/// If the database does not answer.
pub async fn last_words(
    writing: &mut Writing,
    facts: &CallFacts,
    at: Millis,
) -> Result<Vec<Event>, sqlx::Error> {
    if facts.was_refused() || facts.tenant.is_none() {
        return Ok(Vec::new());
    }
    let mut events: Vec<Event> = facts.event(ENDED, at).into_iter().collect();
    let (words, is_complete) = words_of(writing, &facts.call).await?;
    if !words.is_empty() {
        let more = [
            ("transcript", Value::Array(words)),
            ("transcript_is_complete", is_complete.into()),
        ];
        events.extend(facts.telling("call.transcript", at, "", more));
    }
    Ok(events)
}

/// Returns what is told of the messages that callers have left, and of those that they were sent.
///
/// # Errors
/// If the database does not answer.
pub async fn messages(
    writing: &mut Writing,
    of: &HashMap<&str, &CallFacts>,
) -> Result<Vec<Event>, sqlx::Error> {
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let mut events = Vec::new();
    let recordings = "SELECT call, at, recording, url, seconds FROM recordings WHERE call IN ";
    for row in of_calls(recordings, of).fetch_all(writing).await? {
        let message = json!({
            "recording_id": row.try_get::<String, _>("recording")?,
            "url": row.try_get::<String, _>("url")?,
            "seconds": row.try_get::<i64, _>("seconds")?,
        });
        events.extend(message_event(
            of,
            &row,
            "voicemail.received",
            "recording",
            message,
        )?);
    }
    let invitations = "SELECT call, at, details FROM steps WHERE what = 'invited' AND call IN ";
    for row in of_calls(invitations, of).fetch_all(writing).await? {
        let details: String = row.try_get("details")?;
        let details: Value = serde_json::from_str(&details).unwrap_or_default();
        let message = json!({"message_id": details["message"], "result": details["result"]});
        events.extend(message_event(
            of,
            &row,
            "whatsapp.status",
            "whatsapp",
            message,
        )?);
    }
    Ok(events)
}

fn message_event(
    of: &HashMap<&str, &CallFacts>,
    row: &AnyRow,
    kind: &'static str,
    field: &'static str,
    message: Value,
) -> Result<Option<Event>, sqlx::Error> {
    let call: String = row.try_get("call")?;
    let at = Millis::try_from(row.try_get::<i64, _>("at")?).unwrap_or_default();
    // A call may have several of these.
    let which = format!(":{message}");
    let facts = of.get(call.as_str());
    Ok(facts.and_then(|facts| facts.telling(kind, at, &which, [(field, message)])))
}

/// Returns a question about these calls, whose names it ends with.
fn of_calls(question: &str, calls: &HashMap<&str, &CallFacts>) -> Sql {
    let mut sql = Sql::new(question);
    sql.list(calls.keys().copied());
    sql
}

/// Returns what was said in a call, and whether it is all of it.
async fn words_of(writing: &mut Writing, call: &str) -> Result<(Vec<Value>, bool), sqlx::Error> {
    let mut sql = Sql::new(
        "SELECT at, who, text, utterances FROM (SELECT step, at, who, text, COUNT(*) OVER () AS utterances, \
         SUM(LENGTH(text)) OVER (ORDER BY at, step) AS characters FROM words WHERE call = ",
    );
    sql.bind(call.to_owned())
        .push(") AS counted WHERE characters <= ")
        .bind(LONGEST_TRANSCRIPT);
    sql.push(" ORDER BY at, step LIMIT ").bind(MOST_UTTERANCES);
    let rows = sql.fetch_all(writing).await?;
    let mut words = Vec::new();
    let mut utterances = 0;
    for row in &rows {
        utterances = row.try_get("utterances")?;
        words.push(json!({
            "at": date(row.try_get("at")?),
            "who": row.try_get::<String, _>("who")?,
            "text": row.try_get::<String, _>("text")?,
        }));
    }
    let is_complete = i64::try_from(words.len()).is_ok_and(|told| told == utterances);
    Ok((words, is_complete))
}

#[cfg(test)]
impl Event {
    pub fn of_test(id: &str, tenant: &str, kind: &'static str, body: &str) -> Self {
        Self {
            id: id.to_owned(),
            tenant: tenant.to_owned(),
            kind,
            call: String::new(),
            at: 1,
            body: body.to_owned(),
        }
    }
}

impl CallFacts {
    pub fn was_refused(&self) -> bool {
        self.data["state"] == State::RejectedCapacity.as_str()
    }

    /// Returns an event of the call. Without a tenant there is nobody to tell.
    pub fn event(&self, kind: &'static str, at: Millis) -> Option<Event> {
        self.telling(kind, at, "", [])
    }

    /// Returns an event with `more` in its data; `which` of its kind it is.
    fn telling<const N: usize>(
        &self,
        kind: &'static str,
        at: Millis,
        which: &str,
        more: [(&str, Value); N],
    ) -> Option<Event> {
        let tenant = self.tenant.clone()?;
        let mut data = self.data.clone();
        for (field, value) in more {
            data[field] = value;
        }
        // A call has one end, whether it was refused or not.
        let once = if kind == REFUSED { ENDED } else { kind };
        let name = format!("{}:{once}{which}", self.call);
        let body = json!({"type": kind, "timestamp": date(millis(at)), "data": data});
        Some(Event {
            id: format!("evt_{}", Uuid::new_v5(&EVENTS, name.as_bytes()).simple()),
            tenant,
            kind,
            call: self.call.clone(),
            at,
            body: body.to_string(),
        })
    }

    /// Reads a row of [`COLUMNS`].
    ///
    /// # Errors
    /// If it is none.
    pub fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        let text = |column: &str| row.try_get::<Option<String>, _>(column);
        let time = |column: &str| {
            let at: Option<i64> = row.try_get(column)?;
            Ok::<_, sqlx::Error>(at.map(date))
        };
        let metadata = text("metadata").unwrap_or_default();
        let metadata = metadata.and_then(|it| serde_json::from_str::<Value>(&it).ok());
        let call: Option<CallId> = text("call")?.and_then(|it| it.parse().ok());
        let data = json!({
            "call_id": text("call")?,
            "trace_id": call.map(|call| call.trace_id()),
            "carrier_call_id": text("carrier_call")?,
            "carrier": text("carrier")?,
            "direction": text("direction")?,
            "campaign": text("campaign")?,
            "agent": text("agent")?,
            // Whoever may know the whole ones gets them from the row.
            "caller": text("caller_shown")?,
            "called": text("called_shown")?,
            "state": text("state")?,
            "reason": text("reason")?,
            "blame": text("blame")?,
            "full_scope": text("scope")?,
            "offered": text("offered")?,
            "metadata": metadata,
            "rang_at": time("rang_at")?,
            "connected_at": time("connected_at")?,
            "ended_at": time("ended_at")?,
            "talked_ms": row.try_get::<Option<i64>, _>("talked_ms")?,
        });
        Ok(Self {
            call: row.try_get("call")?,
            tenant: text("tenant")?,
            is_over: row.try_get::<i64, _>("rank")? >= OVER,
            data,
        })
    }
}

/// Returns a time, in Unix milliseconds, as JSON has it.
pub fn date(at: i64) -> String {
    Timestamp::from_millisecond(at).map_or_else(|_| String::new(), |at| at.to_string())
}

fn millis(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
