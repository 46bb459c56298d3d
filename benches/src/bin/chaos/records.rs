//! What replicas have written down, read from their database itself: no replica is asked.

use std::collections::BTreeMap;

use anyhow::Context;
use sqlx::{AnyConnection, Connection, Row};

use crate::lab::{Lab, Verdict};

/// How a record is ranked that is final (`src/record/row.rs`).
const FINAL: i64 = 90;

/// A connection to the database of a cluster.
pub struct Records(AnyConnection);

/// One call's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallRow {
    pub call: String,
    pub carrier_call: String,
    pub is_final: bool,
    /// Its state, and the reason for its end.
    pub stands: String,
}

impl Records {
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let connection = AnyConnection::connect(url).await;
        Ok(Self(connection.context("the database cannot be read")?))
    }

    /// Keeps everybody from writing what becomes of calls, until [`Self::release`]. What is committed
    /// can be read meanwhile, by another connection.
    pub async fn hold(&mut self) -> anyhow::Result<()> {
        let statements: &[&str] = if self.0.backend_name() == "SQLite" {
            // Whoever waits is not next in line: replicas that write all the time come before.
            &["PRAGMA busy_timeout = 60000", "BEGIN IMMEDIATE"]
        } else {
            &["BEGIN", "LOCK TABLE calls IN EXCLUSIVE MODE"]
        };
        for statement in statements {
            sqlx::query(*statement).execute(&mut self.0).await?;
        }
        Ok(())
    }

    /// Lets everybody write again.
    pub async fn release(&mut self) -> anyhow::Result<()> {
        sqlx::query("ROLLBACK").execute(&mut self.0).await?;
        Ok(())
    }

    /// Asks for one number.
    pub async fn count(&mut self, question: &'static str) -> anyhow::Result<u64> {
        let row = sqlx::query(question).fetch_one(&mut self.0).await?;
        let count: i64 = row.try_get(0)?;
        u64::try_from(count).context("a count is no less than nothing")
    }

    /// Asks for numbers by words.
    pub async fn counts(
        &mut self,
        question: &'static str,
    ) -> anyhow::Result<BTreeMap<String, u64>> {
        let rows = sqlx::query(question).fetch_all(&mut self.0).await?;
        let counts = rows.iter().map(|row| {
            let (word, count): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            Ok((word, count.try_into()?))
        });
        counts.collect()
    }

    /// Asks for pairs of words, the second of which may be missing.
    pub async fn pairs(
        &mut self,
        question: &'static str,
    ) -> anyhow::Result<Vec<(String, Option<String>)>> {
        let rows = sqlx::query(question).fetch_all(&mut self.0).await?;
        let pairs = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        pairs.collect()
    }

    /// Lists every call.
    pub async fn calls(&mut self) -> anyhow::Result<Vec<CallRow>> {
        self.select("SELECT call, carrier_call, rank, state, COALESCE(reason, '') FROM calls")
            .await
    }

    /// Lists the calls that are not over.
    pub async fn open_calls(&mut self) -> anyhow::Result<Vec<CallRow>> {
        self.select(
            "SELECT call, carrier_call, rank, state, COALESCE(reason, '') FROM calls \
             WHERE rank < 90",
        )
        .await
    }

    async fn select(&mut self, question: &'static str) -> anyhow::Result<Vec<CallRow>> {
        let rows = sqlx::query(question).fetch_all(&mut self.0).await?;
        let calls = rows.iter().map(|row| {
            let rank: i64 = row.try_get(2)?;
            let (state, reason): (String, String) = (row.try_get(3)?, row.try_get(4)?);
            Ok(CallRow {
                call: row.try_get(0)?,
                carrier_call: row.try_get(1)?,
                is_final: FINAL <= rank,
                stands: format!("{state} {reason}").trim_end().to_owned(),
            })
        });
        calls.collect()
    }
}

/// Measures over an SQLite file, and over Postgres: beside each other in a short run.
pub async fn over_both(
    lab: &Lab,
    figure: &str,
    measure: impl AsyncFn(&str, String) -> anyhow::Result<Verdict>,
) -> anyhow::Result<Vec<(String, Verdict)>> {
    let folder = tempfile::tempdir()?;
    let file = format!("sqlite://{}/records.db", folder.path().display());
    let server = lab.postgres(figure).await?;
    let (sqlite, postgres) = (measure("sqlite", file), measure("postgres", server));
    let (sqlite, postgres) = if lab.short {
        tokio::join!(sqlite, postgres)
    } else {
        (sqlite.await, postgres.await)
    };
    Ok(vec![
        ("sqlite".to_owned(), sqlite?),
        ("postgres".to_owned(), postgres?),
    ])
}
