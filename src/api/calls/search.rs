//! Finds a tenant's calls by what is asked of them, so many at a time.
//!
//! Invariant: no statement looks at more than [`SEEN_AT_ONCE`] calls, which an index finds in order.
//! SQLite goes on with a statement that nobody waits for; so a question that takes too long ends
//! between two of them.

use sqlx::{AnyPool, any::AnyRow};

use crate::{
    api::{
        Tenant,
        calls::{Cursor, Wanted, stored::COLUMNS},
    },
    record::Sql,
};

/// How many calls one statement looks at.
pub const SEEN_AT_ONCE: i64 = 10_000;

/// What is asked, and how far it has been looked.
pub struct Search {
    tenant: Tenant,
    wanted: Wanted,
    found_by: Option<String>,
}

impl Search {
    pub fn new(tenant: &Tenant, wanted: Wanted, found_by: Option<String>) -> Self {
        Self {
            tenant: tenant.clone(),
            wanted,
            found_by,
        }
    }

    /// Returns up to `most` calls, the latest first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn find(mut self, pool: &AnyPool, most: usize) -> Result<Vec<AnyRow>, sqlx::Error> {
        let mut found = Vec::new();
        loop {
            let next = self.next(Sql::new(""), most - found.len());
            found.extend(next.read(pool).await?);
            if found.len() >= most {
                return Ok(found);
            }
            match self.last_seen().read(pool).await?.first() {
                None => return Ok(found),
                Some(row) => self.wanted.cursor = Some(Cursor::of(row)?),
            }
        }
    }

    /// Asks for those that fit, up to `most`, of the next so many calls.
    pub fn next(&self, mut sql: Sql, most: usize) -> Sql {
        sql.push("SELECT ").push(COLUMNS).push(" FROM ");
        self.push_seen(&mut sql);
        sql.push(" WHERE tenant = ")
            .bind(self.tenant.as_str().to_owned());
        if let Some(campaign) = &self.wanted.campaign {
            sql.push(" AND campaign = ").bind(campaign.to_string());
        }
        if let Some(state) = self.wanted.state {
            sql.push(" AND state = ").bind(state.as_str());
        }
        if let Some(direction) = self.wanted.direction {
            sql.push(" AND direction = ").bind(direction.as_str());
        }
        if let Some(reason) = &self.wanted.reason {
            sql.push(" AND reason = ").bind(reason.as_str().to_owned());
        }
        sql.push(LATEST_FIRST)
            .bind(i64::try_from(most).unwrap_or(i64::MAX));
        sql
    }

    /// Asks for the last of the calls that [`Self::next`] looks at; there is none if it looks at all
    /// that are left.
    fn last_seen(&self) -> Sql {
        let mut sql = Sql::new("SELECT rang_at, call FROM ");
        self.push_seen(&mut sql);
        sql.push(LATEST_FIRST).bind(1_i64);
        sql.push(" OFFSET ").bind(SEEN_AT_ONCE - 1);
        sql
    }

    /// Writes the calls that are looked at: those that an index finds, of the tenant or, where a
    /// number is asked for, of that.
    fn push_seen(&self, sql: &mut Sql) {
        match &self.found_by {
            None => {
                sql.push("(SELECT tenant, ").push(COLUMNS);
                sql.push(" FROM calls WHERE tenant = ");
                sql.bind(self.tenant.as_str().to_owned());
                if let Some(campaign) = &self.wanted.campaign {
                    sql.push(" AND campaign = ").bind(campaign.to_string());
                }
                self.push_times(sql);
                sql.push(LATEST_FIRST).bind(SEEN_AT_ONCE);
            }
            Some(number) => {
                sql.push("(");
                push_of_number(sql, &format!("tenant, {COLUMNS}"), number, |sql| {
                    self.push_times(sql);
                });
            }
        }
        sql.push(") AS seen");
    }

    fn push_times(&self, sql: &mut Sql) {
        if let Some(from) = self.wanted.from {
            sql.push(" AND rang_at >= ").bind(from.as_millisecond());
        }
        if let Some(to) = self.wanted.to {
            sql.push(" AND rang_at < ").bind(to.as_millisecond());
        }
        if let Some(after) = &self.wanted.cursor {
            after.narrow(sql);
        }
    }
}

/// Writes the latest calls from or to a number, whosever they are, of those that `narrow` leaves.
pub fn push_of_number(sql: &mut Sql, columns: &str, number: &str, narrow: impl Fn(&mut Sql)) {
    sql.push("SELECT * FROM (");
    for (side, union) in [("caller", ""), ("called", " UNION ")] {
        sql.push(union).push("SELECT * FROM (SELECT ").push(columns);
        sql.push(" FROM calls WHERE ").push(side);
        sql.push(" = ").bind(number.to_owned());
        narrow(sql);
        sql.push(LATEST_FIRST).bind(SEEN_AT_ONCE);
        sql.push(") AS of_").push(side);
    }
    sql.push(") AS of_both").push(LATEST_FIRST);
    sql.bind(SEEN_AT_ONCE);
}

const LATEST_FIRST: &str = " ORDER BY rang_at DESC, call DESC LIMIT ";
