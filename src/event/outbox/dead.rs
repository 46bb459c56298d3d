//! Dead letters: what is not tried again, for people to look at and to send again.

use std::{fmt, str::FromStr, sync::Arc};

use serde::Serialize;
use serde_json::json;
use sqlx::{Row, any::AnyRow};
use tokio::time::sleep;

use crate::{
    api::Change,
    campaign::Name,
    event::{
        Endpoints,
        outbox::{Outbox, Place, decode},
    },
    record::{DatabaseError, PAUSE, Sql},
};

/// How many are sent again in one transaction.
const AT_ONCE: i64 = 300;

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

/// What came of sending an event again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resent {
    /// It goes to so many endpoints.
    To(u64),
    /// There is no such event, or none that is not being sent.
    Nothing,
    /// It would wait for an endpoint that nobody sends to.
    NotInForce(Name),
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

/// Tells whether a text can name an event: ours are `evt_` and hexadecimal digits.
pub fn is_event(text: &str) -> bool {
    let name = text.strip_prefix("evt_").unwrap_or_default();
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

impl Outbox {
    /// Returns dead letters of a tenant, or of all tenants, the latest first, at most `limit`.
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
        sql.bind(i64::from(limit));
        let rows = self
            .database
            .read(move |pool| async move { sql.read(&pool).await })
            .await?;
        let letters: Result<_, sqlx::Error> = rows.iter().map(DeadLetter::read).collect();
        Ok(letters?)
    }

    /// Sends an event again at once, from the first try on: to one endpoint of its tenant's, or to
    /// every one in force for which it is dead or waits. One that was delivered is sent again only
    /// to an endpoint that is named; one that is being sent is left alone. `change` notes to how many
    /// endpoints it goes.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn resend(
        &self,
        tenant: Option<&Name>,
        event: &str,
        endpoint: Option<&Name>,
        endpoints: Arc<Endpoints>,
        change: Change,
    ) -> Result<Resent, DatabaseError> {
        let mut sql = Sql::new("SELECT tenant, endpoint FROM deliveries WHERE event = ");
        sql.bind(event.to_owned());
        if let Some(tenant) = tenant {
            sql.push(" AND tenant = ").bind(tenant.to_string());
        }
        match endpoint {
            Some(endpoint) => sql.push(" AND endpoint = ").bind(endpoint.to_string()),
            None => sql.push(" AND state <> 'delivered'"),
        };
        let named = endpoint.map(ToString::to_string);
        let (outbox, event) = (self.clone(), event.to_owned());
        let write = self.database.write(move |writing| {
            Box::pin(async move {
                let (mut told, mut untold) = (Vec::new(), None);
                for row in sql.fetch_all(writing).await? {
                    let name = |column| row.try_get::<String, _>(column)?.parse().map_err(decode);
                    let place = Place {
                        tenant: name(0)?,
                        endpoint: name(1)?,
                    };
                    if place.find(&endpoints).is_some() {
                        told.push(place.endpoint);
                    } else {
                        untold = Some(place.endpoint);
                    }
                }
                if let (true, Some(endpoint)) = (told.is_empty(), untold) {
                    return Ok(Resent::NotInForce(endpoint));
                }
                let mut sent = 0;
                for endpoint in told {
                    let mut sql = outbox.sending_again();
                    sql.push(" AND event = ").bind(event.clone());
                    sql.push(" AND endpoint = ").bind(endpoint.to_string());
                    sent += sql.execute(writing).await?;
                }
                if sent == 0 {
                    return Ok(Resent::Nothing);
                }
                let became = json!({"deliveries": sent, "endpoint": named});
                change.became(became).note(writing).await?;
                Ok(Resent::To(sent))
            })
        });
        write.await
    }

    /// Sends again, at once and from the first try on, whatever is dead for an endpoint or waits
    /// there. Returns how many those are, which `change` notes.
    ///
    /// # Errors
    /// If the database does not answer; those that were counted until then are sent again.
    pub async fn resend_all(&self, place: &Place, change: Change) -> Result<u64, DatabaseError> {
        let began = self.database.now().await?;
        let mut sent = 0;
        // What waits comes first: of what dies of it meanwhile, nothing is sent a third time.
        for state in ["waiting", "dead"] {
            // Each is met once, though it may wait again by then.
            let mut after = (i64::MIN, String::new());
            loop {
                let mut sql = self.sending_again();
                sql.push(" AND endpoint = ")
                    .bind(place.endpoint.to_string());
                sql.push(" AND event IN (SELECT event FROM deliveries WHERE tenant = ");
                sql.bind(place.tenant.to_string()).push(" AND endpoint = ");
                sql.bind(place.endpoint.to_string());
                sql.push(" AND state <> 'delivered' AND state = ")
                    .bind(state);
                match state {
                    // What is due, or being sent, needs nobody.
                    "waiting" => sql.push(" AND lease IS NULL AND due_at > ").push(self.now),
                    _ => sql.push(" AND ended_at <= ").bind(began),
                };
                sql.push(" AND (made_at, event) > (").bind(after.0);
                sql.push(", ").bind(after.1.clone());
                sql.push(") ORDER BY made_at, event LIMIT ").bind(AT_ONCE);
                sql.push(") RETURNING made_at, event");
                let more = self.send_again(sql, sent, &place.endpoint, change.clone());
                let more = more.await?;
                sent += more.len() as u64;
                let Some(last) = more.into_iter().max() else {
                    break;
                };
                after = last;
                sleep(PAUSE).await;
            }
        }
        Ok(sent)
    }

    fn sending_again(&self) -> Sql {
        let mut sql = Sql::new(
            "UPDATE deliveries SET state = 'waiting', tries = 0, lease = NULL, ended_at = NULL, \
             due_at = ",
        );
        sql.push(self.now)
            .push(" WHERE (lease IS NULL OR due_at <= ");
        sql.push(self.now).push(")");
        sql
    }

    /// Sends some again, after `before` others of the same change. Returns when each was made, and
    /// its event.
    async fn send_again(
        &self,
        sql: Sql,
        before: u64,
        endpoint: &Name,
        change: Change,
    ) -> Result<Vec<(i64, String)>, DatabaseError> {
        let endpoint = endpoint.to_string();
        let write = self.database.write(move |writing| {
            Box::pin(async move {
                let rows = sql.fetch_all(writing).await?;
                let sent = rows
                    .iter()
                    .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
                let sent: Vec<(i64, String)> = sent.collect::<Result<_, sqlx::Error>>()?;
                if !sent.is_empty() {
                    let deliveries = before + sent.len() as u64;
                    let became = json!({"deliveries": deliveries, "endpoint": endpoint});
                    change.became(became).note(writing).await?;
                }
                Ok(sent)
            })
        });
        write.await
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
        let died_at = part()?.parse().map_err(|_| NotACursor)?;
        let event = part()?;
        let endpoint: Name = part()?.parse().map_err(|_| NotACursor)?;
        if !is_event(event) {
            return Err(NotACursor);
        }
        Ok(Self {
            died_at,
            event: event.to_owned(),
            endpoint: endpoint.to_string(),
        })
    }
}
