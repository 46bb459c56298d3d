//! What is on its way, as the database has it: noted with each event, claimed by whoever sends it,
//! settled by what came of it.
//!
//! Invariant: a delivery exists from its event's commit on, and ends as delivered or dead.
//! Invariant: no two replicas send a delivery at the same time on purpose. A claim is a lease: who
//! has let it lapse settles nothing.
//! Invariant: the database's clock is the only one that is asked.

mod dead;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::Row;
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    campaign::Name,
    event::{
        Endpoint, Endpoints, Fate, names,
        payload::{Content, TellableNumber},
    },
    record::{Database, DatabaseError, DatabaseKind, Event, Sql, Told, Writing},
};

pub use dead::{Cursor, DeadLetter, Resent, is_event};

/// How long a claim lasts: longer than a try may take, and what it takes to settle it.
pub const LEASE: Duration = Duration::from_secs(30);
/// How many endpoints are asked about at once: two values each, within what a statement takes.
const ENDPOINTS_AT_ONCE: usize = 1_000;
/// How many deliveries are noted at once: three values each, within what a statement takes.
const MOST_DELIVERIES: usize = 2_000;
/// How far the deliveries of an endpoint are counted, those that wait and those that are dead.
const MOST_COUNTED: i64 = 100_001;

/// Notes to whom an event goes, in the transaction that writes it.
#[derive(Debug)]
pub struct Addressees {
    endpoints: watch::Receiver<Arc<Endpoints>>,
    now: &'static str,
}

/// The deliveries of a database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    database: Database,
    now: &'static str,
}

/// An endpoint of a tenant's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub tenant: Name,
    pub endpoint: Name,
}

/// A delivery that is ours to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub event: String,
    pub lease: String,
    /// The tries before this one.
    pub tries: usize,
    pub content: Content,
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub event: String,
    pub lease: String,
    pub status: Option<u16>,
    pub error: Option<&'static str>,
    pub fate: Fate,
}

/// How an endpoint's deliveries stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub tenant: String,
    pub endpoint: String,
    /// 100,001 stands for that or more, as in `dead`.
    pub waiting: u64,
    /// How long ago the oldest that waits was made.
    pub oldest: Duration,
    pub dead: u64,
    /// Whether anybody sends to it.
    pub in_force: bool,
}

impl Place {
    /// Returns the endpoint, if it is in force.
    pub fn find<'a>(&self, endpoints: &'a Endpoints) -> Option<&'a Endpoint> {
        let mut own = endpoints.get(&self.tenant)?.iter();
        own.find(|endpoint| endpoint.name == self.endpoint)
    }
}

impl Standing {
    /// Returns it as JSON has it.
    pub fn shown(&self) -> Value {
        json!({
            "tenant": self.tenant,
            "endpoint": self.endpoint,
            "waiting": self.waiting,
            "oldest_s": self.oldest.as_secs(),
            "dead": self.dead,
            "in_force": self.in_force,
        })
    }
}

impl Addressees {
    /// Addresses events to the endpoints in force.
    pub fn new(endpoints: watch::Receiver<Arc<Endpoints>>, kind: DatabaseKind) -> Self {
        Self {
            endpoints,
            now: kind.clock(),
        }
    }
}

impl Told for Addressees {
    fn deliveries(&self, events: &[&Event]) -> Vec<Sql> {
        let endpoints = self.endpoints.borrow();
        let mut deliveries = Vec::new();
        for event in events {
            let own = event.tenant.parse().ok();
            let own = own.and_then(|tenant: Name| endpoints.get(&tenant));
            let told = own.into_iter().flatten().filter(|endpoint| {
                let mut kinds = endpoint.kinds.iter();
                kinds.any(|asked| asked.as_str() == event.kind)
            });
            deliveries.extend(told.map(|endpoint| (event, endpoint.name.to_string())));
        }
        let parts = deliveries.chunks(MOST_DELIVERIES).map(|part| {
            let mut sql = Sql::new(
                "INSERT INTO deliveries (event, tenant, endpoint, state, made_at, due_at, tries) VALUES ",
            );
            sql.rows(part, |fields, (event, endpoint)| {
                fields
                    .push(event.id.clone())
                    .push(event.tenant.clone())
                    .push(endpoint.clone())
                    .push("waiting")
                    .put(self.now)
                    .put(self.now)
                    .put("0");
            });
            sql.push(" ON CONFLICT DO NOTHING");
            sql
        });
        parts.collect()
    }
}

impl Outbox {
    pub fn new(database: Database) -> Self {
        Self {
            now: database.kind().clock(),
            database,
        }
    }

    /// Returns those of `places` for which something is due.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn due(&self, places: &[Place]) -> Result<Vec<Place>, DatabaseError> {
        let mut due = Vec::new();
        for some in places.chunks(ENDPOINTS_AT_ONCE) {
            let sql = self.asking(Sql::new(""), some);
            let read = self
                .database
                .read(move |pool| async move { sql.read(&pool).await });
            for row in read.await? {
                let name = |column| row.try_get::<String, _>(column)?.parse().map_err(decode);
                due.push(Place {
                    tenant: name(0)?,
                    endpoint: name(1)?,
                });
            }
        }
        Ok(due)
    }

    /// Asks for which of `places` something is due. An index answers for each of them, however many
    /// deliveries wait there.
    pub(super) fn asking(&self, mut sql: Sql, places: &[Place]) -> Sql {
        sql.push("SELECT column1, column2 FROM (VALUES ");
        sql.rows(places, |fields, place| {
            fields
                .push(place.tenant.to_string())
                .push(place.endpoint.to_string());
        });
        sql.push(
            ") AS asked WHERE EXISTS (SELECT 1 FROM deliveries WHERE tenant = column1 \
             AND endpoint = column2 AND state = 'waiting' AND due_at <= ",
        );
        sql.push(self.now).push(")");
        sql
    }

    /// Settles tries and claims up to `room` deliveries of one endpoint that are due, the oldest
    /// first, in one transaction.
    ///
    /// # Errors
    /// If the database does not answer. Then either all of it was done or nothing: settling again
    /// does no harm, and claims lapse.
    pub async fn turn(
        &self,
        place: &Place,
        settled: Vec<Settled>,
        room: usize,
    ) -> Result<Vec<Claimed>, DatabaseError> {
        let (outbox, place) = (self.clone(), place.clone());
        let turn = self.database.write(move |writing| {
            Box::pin(async move {
                for one in &settled {
                    outbox.settle(&place, one).execute(writing).await?;
                }
                if room == 0 {
                    return Ok(Vec::new());
                }
                outbox.claim(writing, &place, room).await
            })
        });
        turn.await
    }

    fn settle(&self, place: &Place, settled: &Settled) -> Sql {
        let mut sql =
            Sql::new("UPDATE deliveries SET lease = NULL, tries = tries + 1, last_status = ");
        sql.bind(settled.status.map(i64::from));
        sql.push(", last_error = ").bind(settled.error);
        match settled.fate {
            Fate::Delivered => sql
                .push(", state = 'delivered', ended_at = ")
                .push(self.now),
            Fate::Again { after } => {
                sql.push(", due_at = ").push(self.now);
                sql.push(" + ").bind(millis(after))
            }
            Fate::Dead(_) => sql.push(", state = 'dead', ended_at = ").push(self.now),
        };
        sql.push(" WHERE event = ").bind(settled.event.clone());
        sql.push(" AND endpoint = ")
            .bind(place.endpoint.to_string());
        sql.push(" AND lease = ").bind(settled.lease.clone());
        sql
    }

    async fn claim(
        &self,
        writing: &mut Writing,
        place: &Place,
        room: usize,
    ) -> Result<Vec<Claimed>, sqlx::Error> {
        let lease = Uuid::new_v4().to_string();
        let sql = self.claiming(Sql::new(""), place, &lease, room);
        let mut claimed = Vec::new();
        for row in sql.fetch_all(writing).await? {
            let event: String = row.try_get(0)?;
            let tries: i64 = row.try_get(1)?;
            claimed.push(Claimed {
                lease: lease.clone(),
                tries: usize::try_from(tries).unwrap_or(usize::MAX),
                content: content_of(writing, &event).await?,
                event,
            });
        }
        Ok(claimed)
    }

    pub(super) fn claiming(&self, mut sql: Sql, place: &Place, lease: &str, room: usize) -> Sql {
        // Looked up once: a subquery with a limit may be run again for each row, and lock more.
        sql.push(
            "WITH due AS MATERIALIZED (SELECT event, endpoint FROM deliveries WHERE tenant = ",
        );
        sql.bind(place.tenant.to_string()).push(" AND endpoint = ");
        sql.bind(place.endpoint.to_string());
        sql.push(" AND state = 'waiting' AND due_at <= ");
        sql.push(self.now).push(" ORDER BY due_at LIMIT ");
        sql.bind(i64::try_from(room).unwrap_or(i64::MAX));
        // Replicas that claim at the same time would wait for each other, to find nothing left.
        if self.database.kind() == DatabaseKind::Postgres {
            sql.push(" FOR UPDATE SKIP LOCKED");
        }
        sql.push(") UPDATE deliveries SET lease = ")
            .bind(lease.to_owned());
        sql.push(", due_at = ").push(self.now);
        sql.push(" + ").bind(millis(LEASE));
        sql.push(" WHERE (event, endpoint) IN (SELECT event, endpoint FROM due) ");
        sql.push("AND state = 'waiting' AND due_at <= ")
            .push(self.now);
        sql.push(" RETURNING event, tries");
        sql
    }

    /// Returns how the deliveries of every endpoint stand that has any which are not delivered, also
    /// of one that is not among the `endpoints` in force.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn standing(&self, endpoints: &Endpoints) -> Result<Vec<Standing>, DatabaseError> {
        // From one endpoint to the next by the index, and so far along each: however many there
        // are, it takes about as long.
        let next = |column: &str| {
            format!(
                "(SELECT {column} FROM deliveries WHERE state <> 'delivered' AND \
                 (tenant, endpoint) > (places.tenant, places.endpoint) \
                 ORDER BY tenant, endpoint LIMIT 1)"
            )
        };
        let own = "FROM deliveries d WHERE d.state <> 'delivered' AND d.tenant = places.tenant \
             AND d.endpoint = places.endpoint AND d.state = states.state";
        let mut sql = Sql::new("WITH RECURSIVE places (tenant, endpoint) AS (SELECT ");
        sql.push("MIN(tenant), (SELECT endpoint FROM deliveries WHERE state <> 'delivered' ");
        sql.push("ORDER BY tenant, endpoint LIMIT 1) FROM deliveries ");
        sql.push("WHERE state <> 'delivered' UNION ALL SELECT ");
        sql.push(&next("tenant")).push(", ").push(&next("endpoint"));
        sql.push(" FROM places WHERE places.tenant IS NOT NULL) ");
        sql.push("SELECT places.tenant, places.endpoint, states.state, ");
        sql.push("(SELECT COUNT(*) FROM (SELECT 1 ").push(own);
        sql.push(" LIMIT ")
            .bind(MOST_COUNTED)
            .push(") AS counted), ");
        sql.push(self.now).push(" - (SELECT MIN(d.made_at) ");
        sql.push(own).push(") FROM places, ");
        sql.push("(SELECT 'waiting' AS state UNION ALL SELECT 'dead') AS states ");
        sql.push("WHERE places.tenant IS NOT NULL");
        let read = self
            .database
            .read(move |pool| async move { sql.read(&pool).await });
        let in_force: BTreeSet<_> = names(endpoints).collect();
        let mut standing: BTreeMap<(String, String), Standing> = BTreeMap::new();
        for row in read.await? {
            let count = u64::try_from(row.try_get::<i64, _>(3)?).unwrap_or_default();
            if count == 0 {
                continue;
            }
            let (tenant, endpoint): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let in_force = in_force.contains(&(tenant.as_str(), endpoint.as_str()));
            let place = standing.entry((tenant.clone(), endpoint.clone()));
            let place = place.or_insert_with(|| Standing {
                tenant,
                endpoint,
                waiting: 0,
                oldest: Duration::ZERO,
                dead: 0,
                in_force,
            });
            if row.try_get::<String, _>(2)? == "dead" {
                place.dead = count;
            } else {
                let age = u64::try_from(row.try_get::<i64, _>(4)?).unwrap_or_default();
                (place.waiting, place.oldest) = (count, Duration::from_millis(age));
            }
        }
        Ok(standing.into_values().collect())
    }
}

async fn content_of(writing: &mut Writing, event: &str) -> Result<Content, sqlx::Error> {
    let mut sql = Sql::new(
        "SELECT events.body, calls.caller, calls.caller_shown, calls.called, calls.called_shown \
         FROM events LEFT JOIN calls ON calls.call = events.call WHERE events.event = ",
    );
    sql.bind(event.to_owned());
    let rows = sql.fetch_all(writing).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let number = |kept, masked| {
        Ok::<_, sqlx::Error>(TellableNumber {
            kept: row.try_get(kept)?,
            masked: row.try_get(masked)?,
        })
    };
    Ok(Content {
        body: row.try_get(0)?,
        caller: number(1, 2)?,
        called: number(3, 4)?,
    })
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn decode(error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}
