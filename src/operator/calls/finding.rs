//! Finds calls, whosever they are, the latest first.
//!
//! Invariant: no statement looks at more than [`SEEN_AT_ONCE`] calls, which an index finds in order,
//! and no search at more than [`MOST_SEEN`]. Whoever wants earlier ones goes on from there.

use sqlx::{AnyPool, any::AnyRow};

use crate::{
    api::calls::{Cursor, SEEN_AT_ONCE, push_of_number, stored::COLUMNS},
    operator::calls::asked::{By, Search},
    record::{Numbers, Sql, unix_millis_i64},
};

/// How many calls a page has.
const PAGE: usize = 50;
/// One call more than a page has tells whether there is another page.
#[expect(clippy::cast_possible_wrap, reason = "it is a small number")]
const ONE_MORE: i64 = PAGE as i64 + 1;
/// How many calls one search looks at.
pub const MOST_SEEN: i64 = 100_000;
/// How many digits of a number everybody sees.
const SHOWN_DIGITS: usize = 4;
const DAY_MS: i64 = 86_400_000;

/// What is looked for, and how far it has been looked.
pub struct Finding {
    search: Search,
    /// By what a number is found that somebody looks for.
    found_by: Option<String>,
    most_seen: i64,
}

/// A page of calls.
#[derive(Default)]
pub struct Found {
    pub rows: Vec<AnyRow>,
    /// After which call the next page begins.
    pub next: Option<Cursor>,
    /// Whether it ends because so many calls were looked at, and there may be more.
    pub is_cut: bool,
}

impl Finding {
    /// Prepares to look for calls. `None` if whoever may not change anything looks for more of a
    /// number than everybody sees.
    pub fn new(search: Search, numbers: &Numbers, may_change: bool) -> Option<Self> {
        let hidden = match &search.by {
            Some(By::Digits(digits)) => digits.len() > SHOWN_DIGITS,
            Some(By::Number(_)) => true,
            Some(By::Call(_) | By::CarrierCall(_)) | None => false,
        };
        let found_by = match &search.by {
            Some(By::Digits(digits) | By::Number(digits)) => {
                numbers.found_by(&format!("+{digits}")).filter(|_| hidden)
            }
            Some(By::Call(_) | By::CarrierCall(_)) | None => None,
        };
        (may_change || !hidden).then_some(Self {
            search,
            found_by,
            most_seen: MOST_SEEN,
        })
    }

    /// # Errors
    /// If the database does not answer.
    pub async fn find(mut self, pool: &AnyPool) -> Result<Found, sqlx::Error> {
        let mut found = Found::default();
        let mut seen = 0;
        loop {
            found.rows.extend(self.next(Sql::new("")).read(pool).await?);
            if found.rows.len() > PAGE {
                found.rows.truncate(PAGE);
                found.next = found.rows.last().map(Cursor::of).transpose()?;
                return Ok(found);
            }
            if !self.is_partial() {
                return Ok(found);
            }
            let last = self.last_seen().read(pool).await?;
            let Some(last) = last.first().map(Cursor::of).transpose()? else {
                return Ok(found);
            };
            seen += SEEN_AT_ONCE;
            if self.most_seen <= seen {
                found.next = Some(last);
                found.is_cut = true;
                return Ok(found);
            }
            self.search.after = Some(last);
        }
    }

    /// Asks for those that fit of the next so many calls.
    fn next(&self, mut sql: Sql) -> Sql {
        sql.push("SELECT ").push(COLUMNS).push(" FROM ");
        self.push_seen(&mut sql);
        sql.push(" AS seen WHERE 1 = 1");
        if let Some(By::Digits(digits)) = &self.search.by {
            let kept = if digits.len() <= SHOWN_DIGITS {
                "_shown"
            } else {
                ""
            };
            let end = format!("%{digits}");
            sql.push(" AND (caller").push(kept).push(" LIKE ");
            sql.bind(end.clone()).push(" OR called").push(kept);
            sql.push(" LIKE ").bind(end);
            if let Some(found_by) = &self.found_by {
                sql.push(" OR caller = ").bind(found_by.clone());
                sql.push(" OR called = ").bind(found_by.clone());
            }
            sql.push(")");
        }
        if let Some(campaign) = &self.search.campaign {
            sql.push(" AND campaign = ").bind(campaign.to_string());
        }
        if let Some(reason) = &self.search.reason {
            sql.push(" AND reason = ").bind(reason.as_str().to_owned());
        }
        sql.push(" ORDER BY rang_at DESC, call DESC LIMIT ");
        sql.bind(ONE_MORE);
        sql
    }

    /// Tells whether some of the calls that are looked at may not fit.
    fn is_partial(&self) -> bool {
        let one = matches!(self.search.by, Some(By::Call(_) | By::CarrierCall(_)));
        let all = self.search.by.is_none()
            && self.search.campaign.is_none()
            && self.search.reason.is_none();
        !one && !all
    }

    /// Asks for the last of the calls that [`Self::next`] looks at; there is none if it looks at all
    /// that are left.
    fn last_seen(&self) -> Sql {
        let mut sql = Sql::new("SELECT rang_at, call FROM ");
        self.push_seen(&mut sql);
        sql.push(" AS seen ORDER BY rang_at DESC, call DESC LIMIT 1 OFFSET ");
        sql.bind(SEEN_AT_ONCE - 1);
        sql
    }

    /// Writes the calls that are looked at: one by its name, a number's, or the latest.
    fn push_seen(&self, sql: &mut Sql) {
        sql.push("(");
        match (&self.search.by, &self.found_by) {
            (Some(By::Call(call)), _) => {
                sql.push("SELECT ").push(COLUMNS);
                sql.push(" FROM calls WHERE call = ").bind(call.to_string());
            }
            (Some(By::CarrierCall(call)), _) => {
                sql.push("SELECT ").push(COLUMNS);
                sql.push(" FROM calls WHERE carrier_call = ");
                sql.bind(call.as_str().to_owned());
            }
            (Some(By::Number(_)), Some(number)) => {
                push_of_number(sql, COLUMNS, number, |sql| self.push_times(sql, "rang_at"));
            }
            // Only masked numbers are kept: none is found by all of its digits.
            (Some(By::Number(_)), None) => {
                sql.push("SELECT ")
                    .push(COLUMNS)
                    .push(" FROM calls WHERE 1 = 0");
            }
            (Some(By::Digits(_)) | None, _) => {
                sql.push("SELECT ")
                    .push(COLUMNS)
                    .push(" FROM calls WHERE 1 = 1");
                self.push_times(sql, LATEST);
                sql.push(" ORDER BY ")
                    .push(LATEST)
                    .push(" DESC, call DESC LIMIT ");
                sql.bind(if self.is_partial() {
                    SEEN_AT_ONCE
                } else {
                    ONE_MORE
                });
            }
        }
        sql.push(")");
    }

    /// Narrows calls to the days that are looked at, and to those after the last page, by when they
    /// rang as an index has it.
    fn push_times(&self, sql: &mut Sql, rang_at: &str) {
        let day = unix_millis_i64() / DAY_MS - i64::from(self.search.days) + 1;
        sql.push(" AND ")
            .push(rang_at)
            .push(" >= ")
            .bind(day * DAY_MS);
        if let Some(after) = &self.search.after {
            // SQLite finds no place in an index by two columns of which one is a sum.
            sql.push(" AND ")
                .push(rang_at)
                .push(" <= ")
                .bind(after.rang_at);
            sql.push(" AND (")
                .push(rang_at)
                .push(", call) < (")
                .bind(after.rang_at);
            sql.push(", ").bind(after.call.to_string()).push(")");
        }
    }
}

/// When a call rang, as the index `calls_latest` has it.
const LATEST: &str = "(rang_at + 0)";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sqlx::Row;

    use super::*;
    use crate::{
        api::tests::database::{on_both, put_many},
        operator::calls::asked::Asked,
        record::{Database, DatabaseKind},
    };

    fn finding(q: &str, campaign: &str, after: Option<Cursor>) -> Finding {
        let asked = Asked {
            q: q.to_owned(),
            campaign: campaign.to_owned(),
            days: "3650".to_owned(),
            ..Asked::default()
        };
        Finding {
            search: Search {
                after,
                ..Search::read(&asked).unwrap()
            },
            found_by: q.starts_with('+').then(|| q.to_owned()),
            most_seen: SEEN_AT_ONCE * 2,
        }
    }

    async fn found(database: &Database, finding: Finding) -> Found {
        let found = database.read(|pool| async move { finding.find(&pool).await });
        found.await.unwrap()
    }

    #[tokio::test]
    async fn no_search_looks_at_all_calls() {
        on_both(async |database| {
            put_many(database, SEEN_AT_ONCE * 3).await;
            database.count_calls().await.unwrap();
            let latest = found(database, finding("", "", None)).await;
            for (q, campaign, after, index) in [
                ("", "", None, "calls_latest"),
                ("", "", latest.next.clone(), "calls_latest"),
                ("34567", "", None, "calls_latest"),
                ("", "sales", latest.next, "calls_latest"),
                ("+97221111111", "", None, "calls_of_called"),
                ("CA7", "", None, "carrier_call"),
            ] {
                let finding = finding(q, campaign, after);
                let plan = database.plan(|sql| finding.next(sql)).await.unwrap();
                let plan = plan.join("\n");
                assert!(plan.contains(index), "{q} {campaign}: {plan}");
                let all = match database.kind() {
                    DatabaseKind::Sqlite => plan.contains("SCAN calls"),
                    DatabaseKind::Postgres => plan.contains("Seq Scan"),
                };
                assert!(!all, "{q} {campaign}: {plan}");
            }
            let first = found(database, finding("99999", "", None)).await;
            assert!(first.rows.is_empty() && first.is_cut);
            let rest = found(database, finding("99999", "", first.next)).await;
            assert!(rest.rows.is_empty() && !rest.is_cut && rest.next.is_none());
            let number = found(database, finding("+972501234567", "", None)).await;
            assert!(number.rows.len() == PAGE && !number.is_cut);
        })
        .await;
    }

    #[tokio::test]
    async fn pages_have_each_call_once() {
        on_both(async |database| {
            put_many(database, 130).await;
            for (q, campaign, calls) in [
                ("", "", 130_usize),
                ("34567", "support", 117),
                ("CA7", "", 1),
            ] {
                let (mut seen, mut after, mut pages) = (BTreeSet::new(), None, 0);
                loop {
                    let page = found(database, finding(q, campaign, after)).await;
                    for row in &page.rows {
                        assert!(seen.insert(row.get::<String, _>("carrier_call")));
                    }
                    pages += 1;
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!((seen.len(), pages), (calls, calls.div_ceil(PAGE)), "{q}");
            }
        })
        .await;
    }
}
