//! A database of its own for each gateway: an SQLite file, or, where `CALLGATE_TEST_POSTGRES` names
//! a server (`postgres://user@host:port`), a database there.

use std::{
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use sqlx::{Connection, Row, error::DatabaseError};
use tokio::time::{Instant, sleep};

/// How long a gateway may take to make its tables.
const MADE_WITHIN: Duration = Duration::from_secs(30);

static MADE: AtomicU32 = AtomicU32::new(0);

pub struct Database {
    url: String,
    _folder: Option<tempfile::TempDir>,
}

impl Database {
    pub fn new() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a setting of the tests, not of a gateway"
        )]
        if let Ok(server) = std::env::var("CALLGATE_TEST_POSTGRES") {
            return Self::at(&server);
        }
        let folder = tempfile::tempdir().unwrap();
        Self {
            url: format!("sqlite://{}/records.db", folder.path().display()),
            _folder: Some(folder),
        }
    }

    fn at(server: &str) -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("it_{}_{number}", std::process::id());
        let make = format!("CREATE DATABASE {name}");
        let made = Command::new("psql")
            .args(["-q", "-d", &format!("{server}/postgres"), "-c", &make])
            .status();
        assert!(made.unwrap().success(), "no database at {server}");
        Self {
            url: format!("{server}/{name}"),
            _folder: None,
        }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the rows of a question, with the texts and numbers of each joined by blanks.
    pub async fn ask(&self, question: &'static str) -> Vec<String> {
        ask(&self.url, question).await
    }
}

/// The same of a database that somebody else has made. A gateway takes calls before its tables are
/// made: they are waited for.
pub async fn ask(url: &str, question: &'static str) -> Vec<String> {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(url).await.unwrap();
    let until = Instant::now() + MADE_WITHIN;
    let rows = loop {
        match sqlx::query(question).fetch_all(&mut connection).await {
            Err(sqlx::Error::Database(error)) if lacks_table(&*error) && Instant::now() < until => {
                sleep(Duration::from_millis(20)).await;
            }
            answer => break answer.unwrap(),
        }
    };
    let shown = rows.iter().map(|row| {
        let columns = (0..row.len()).map(|at| match row.try_get::<Option<String>, _>(at) {
            Ok(text) => text.unwrap_or_else(|| "-".to_owned()),
            Err(_) => row.get::<i64, _>(at).to_string(),
        });
        columns.collect::<Vec<_>>().join(" ")
    });
    shown.collect()
}

fn lacks_table(error: &dyn DatabaseError) -> bool {
    // PostgreSQL documentation, appendix A: undefined_table.
    error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
}
