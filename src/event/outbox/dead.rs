//! Dead letters: what is not tried again, for people to look at and to send again.

use std::{fmt, str::FromStr};

use serde::Serialize;
use sqlx::{Row, any::AnyRow};

use crate::{
    campaign::Name,
    event::outbox::Outbox,
    record::{DatabaseError, Sql},
};

/// How many letters one page has at most.
const LONGEST_PAGE: u32 = 200;

/// A delivery that is not tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    pub event: String,
    pub tenant: String,
    pub endpoint: String,
    pub kind: String,
    pub call: Option<String>,
    pub tries: i64,
    /// When it was tried last, in Unix milliseconds.
    pub died_at: i64,
    /// What the receiver answered last; nothing where it did not.
    pub last_status: Option<i64>,
    /// Why there was no answer.
    pub last_error: Option<String>,
}

/// Where a page of dead letters begins: after this one. They are listed latest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    died_at: i64,
    event: String,
    endpoint: String,
}

/// Why a text is no [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor that a page ended with")]
pub struct NotACursor;

impl Outbox {
    /// Returns dead letters of a tenant, or of all tenants, the latest first, at most 200.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn list_dead(
        &self,
        tenant: Option<&Name>,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, DatabaseError> {
        let mut sql = Sql::new(
            "SELECT d.event, d.tenant, d.endpoint, e.kind, e.call, d.tries, d.ended_at, \
             d.last_status, d.last_error FROM deliveries d JOIN events e ON e.event = d.event \
             WHERE d.state = 'dead'",
        );
        if let Some(tenant) = tenant {
            sql.push(" AND d.tenant = ").bind(tenant.to_string());
        }
        if let Some(after) = after {
            sql.push(" AND (d.ended_at, d.event, d.endpoint) < (");
            sql.bind(after.died_at).push(", ");
            sql.bind(after.event).push(", ").bind(after.endpoint);
            sql.push(")");
        }
        sql.push(" ORDER BY d.ended_at DESC, d.event DESC, d.endpoint DESC LIMIT ");
        sql.bind(i64::from(limit.clamp(1, LONGEST_PAGE)));
        let rows = self
            .database
            .read(move |pool| async move { sql.read(&pool).await })
            .await?;
        let letters: Result<_, sqlx::Error> = rows.iter().map(DeadLetter::read).collect();
        Ok(letters?)
    }

    /// Sends an event again, from the first try on: to one endpoint of its tenant's, or to every
    /// one for which it is dead. One that was delivered is sent again only to an endpoint that is
    /// named. Returns to how many endpoints it goes; none where there is no such event.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn resend(
        &self,
        tenant: Option<&Name>,
        event: &str,
        endpoint: Option<&Name>,
    ) -> Result<u64, DatabaseError> {
        let mut sql = self.resending();
        sql.push(" AND event = ").bind(event.to_owned());
        if let Some(tenant) = tenant {
            sql.push(" AND tenant = ").bind(tenant.to_string());
        }
        match endpoint {
            Some(endpoint) => sql.push(" AND endpoint = ").bind(endpoint.to_string()),
            None => sql.push(" AND state = 'dead'"),
        };
        self.execute(sql).await
    }

    /// Sends every dead letter of an endpoint again. Returns how many there are.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn resend_all(&self, tenant: &Name, endpoint: &Name) -> Result<u64, DatabaseError> {
        let mut sql = self.resending();
        sql.push(" AND state = 'dead' AND tenant = ")
            .bind(tenant.to_string());
        sql.push(" AND endpoint = ").bind(endpoint.to_string());
        self.execute(sql).await
    }

    fn resending(&self) -> Sql {
        let mut sql = Sql::new(
            "UPDATE deliveries SET state = 'waiting', tries = 0, lease = NULL, ended_at = NULL, \
             due_at = ",
        );
        sql.push(self.now).push(" WHERE state <> 'waiting'");
        sql
    }

    async fn execute(&self, sql: Sql) -> Result<u64, DatabaseError> {
        let written = self
            .database
            .write(move |writing| Box::pin(async move { sql.execute(writing).await }));
        written.await
    }
}

impl DeadLetter {
    /// Returns where the page after this letter begins.
    pub fn cursor(&self) -> Cursor {
        Cursor {
            died_at: self.died_at,
            event: self.event.clone(),
            endpoint: self.endpoint.clone(),
        }
    }

    fn read(row: &AnyRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            event: row.try_get(0)?,
            tenant: row.try_get(1)?,
            endpoint: row.try_get(2)?,
            kind: row.try_get(3)?,
            call: row.try_get(4)?,
            tries: row.try_get(5)?,
            died_at: row.try_get::<Option<i64>, _>(6)?.unwrap_or_default(),
            last_status: row.try_get(7)?,
            last_error: row.try_get(8)?,
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            died_at,
            event,
            endpoint,
        } = self;
        write!(f, "{died_at}.{event}.{endpoint}") // None of them has a full stop.
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().ok_or(NotACursor);
        Ok(Self {
            died_at: part()?.parse().map_err(|_| NotACursor)?,
            event: part()?.to_owned(),
            endpoint: part()?.to_owned(),
        })
    }
}
