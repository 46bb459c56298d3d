//! The database, by the same queries whichever it is. It has a thread of its own, so that neither
//! a call's audio nor the slot store waits for it, and it for neither.

mod inspection;

use std::{any::Any as Anything, fmt, future::Future, sync::Arc, thread, time::Duration};

use futures_util::future::BoxFuture;
use secrecy::ExposeSecret;
use sqlx::{
    Any, AnyPool, Executor, Transaction,
    any::{AnyArguments, AnyPoolOptions, AnyRow},
    migrate::MigrateError,
};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::RecordSettings;

/// How long anybody waits for one of the pool's connections.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long one question may take altogether.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long the tables may take to be brought up to date: an index over millions of rows takes a while.
const MIGRATED_WITHIN: Duration = Duration::from_secs(1_800);
const READERS: u32 = 4;
/// How many questions of tenants' are asked at once, of all of them: what calls and events need
/// waits for none of those.
const ASKERS: u32 = 3;
/// What a statement may bind at most, with room to spare: SQLite takes 32,766 values.
pub const MOST_VALUES: usize = 8_192;

/// A transaction that writes.
pub type Writing = Transaction<'static, Any>;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Where records are. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    kind: Kind,
    runtime: Handle,
    tasks: TaskTracker,
    writing: AnyPool,
    /// What calls leave behind is written beside what tenants and operators change.
    recording: AnyPool,
    reading: AnyPool,
    asking: AnyPool,
    patience: Duration,
    /// What is held until a question is answered, where it is a tenant's.
    turn: Option<Arc<dyn Anything + Send + Sync>>,
    /// Is told of every commit of this process.
    commits: watch::Sender<()>,
    stop: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// Why the database gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error("the database cannot be used")]
    Failed(#[from] sqlx::Error),
    #[error("the database's tables cannot be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("the database did not answer in time")]
    TooSlow,
    #[error("the database's thread is gone")]
    Gone(#[source] tokio::task::JoinError),
    #[error("no thread for the database")]
    NoThread(#[source] std::io::Error),
}

/// A statement with its values, which it numbers as they come.
pub struct Sql {
    text: String,
    values: AnyArguments,
    bound: usize,
}

impl Kind {
    /// Returns which database the settings name.
    pub fn of(settings: &RecordSettings) -> Self {
        if settings.is_sqlite() {
            Self::Sqlite
        } else {
            Self::Postgres
        }
    }

    /// Returns the database's own time, in Unix milliseconds, as an expression: replicas' clocks
    /// differ. It stands still while a statement runs, so that an index is searched by it; what
    /// changes from row to row would be compared with each of them.
    pub fn clock(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Self::Postgres => "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000 AS BIGINT)",
        }
    }
}

impl Database {
    /// Prepares to use the database that the settings name; nothing is connected yet.
    ///
    /// # Errors
    /// If the address is none, or there is no thread to be had.
    pub fn open(settings: &RecordSettings) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        let kind = Kind::of(settings);
        let url = with_mode(kind, settings.url.expose_secret());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DatabaseError::NoThread)?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let _entered = handle.enter();
        let pool = |connections, session: Option<&'static str>| {
            let mut options = AnyPoolOptions::new();
            if kind == Kind::Sqlite {
                // Of a file nothing is gained by new connections, each with a thread and pages of its own.
                options = options.max_lifetime(None).idle_timeout(None);
            }
            let options = options
                .max_connections(connections)
                .acquire_timeout(CONNECT_WITHIN)
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        if let Some(session) = session {
                            connection.execute(session).await?;
                        }
                        Ok(())
                    })
                });
            options.connect_lazy(&url)
        };
        // SQLite has one writer at a time: a second one of ours would only wait for it.
        let (writing, recording, reading, asking) = match kind {
            Kind::Sqlite => {
                let writing = pool(1, Some(WRITES))?;
                (
                    writing.clone(),
                    writing,
                    pool(READERS, Some(READS))?,
                    pool(ASKERS, Some(READS))?,
                )
            }
            Kind::Postgres => (
                pool(READERS, None)?,
                pool(1, None)?,
                pool(READERS, None)?,
                pool(ASKERS, Some(QUESTIONS_END))?,
            ),
        };
        thread::Builder::new()
            .name("records".to_owned())
            .spawn(move || runtime.block_on(stopped.cancelled()))
            .map_err(DatabaseError::NoThread)?;
        Ok(Self {
            kind,
            runtime: handle,
            tasks: TaskTracker::new(),
            writing,
            recording,
            reading,
            asking,
            patience: ANSWER_WITHIN,
            turn: None,
            commits: watch::Sender::new(()),
            stop,
        })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the same database for a question of a tenant's, which waits for other tenants' only,
    /// and keeps nobody else waiting. `turn` is held until the database is done with what is asked,
    /// also if nobody waits for the answer any more.
    pub fn for_a_question(&self, turn: impl Anything + Send + Sync) -> Self {
        Self {
            reading: self.asking.clone(),
            turn: Some(Arc::new(turn)),
            ..self.clone()
        }
    }

    /// Returns the same database for what calls leave behind, which waits for nobody else's changes as
    /// far as the database allows.
    pub fn for_records(&self) -> Self {
        Self {
            writing: self.recording.clone(),
            ..self.clone()
        }
    }

    /// Returns the same database, of which an answer is expected within `patience`.
    #[cfg(test)]
    pub fn within(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Makes the tables, or brings them up to date. Replicas may do so at the same time.
    ///
    /// # Errors
    /// If the database cannot be reached or does not let us.
    pub async fn migrate(&self) -> Result<(), DatabaseError> {
        let pool = self.writing.clone();
        let patient = Self {
            patience: MIGRATED_WITHIN,
            ..self.clone()
        };
        let migrating = patient.run(async move {
            let mut tries = 0;
            loop {
                match migrations().run(&pool).await {
                    // Another process has just made what this one was about to make.
                    Err(_) if tries < 5 => {
                        tries += 1;
                        sleep(Duration::from_millis(100 * tries)).await;
                    }
                    done => return Ok(done?),
                }
            }
        });
        migrating.await
    }

    /// Reads by `ask`, which is given a pool, on the database's thread.
    ///
    /// # Errors
    /// If it fails, or takes too long.
    pub async fn read<T, F>(&self, ask: impl FnOnce(AnyPool) -> F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        let asking = ask(self.reading.clone());
        self.run(async move { Ok(asking.await?) }).await
    }

    /// Writes in one transaction, which is committed if `change` succeeds.
    ///
    /// # Errors
    /// If it fails, or takes too long. A commit whose answer was lost may have been done: what is
    /// written must bear being written again.
    pub async fn write<T: Send + 'static>(
        &self,
        change: impl for<'a> FnOnce(&'a mut Writing) -> BoxFuture<'a, Result<T, sqlx::Error>>
        + Send
        + 'static,
    ) -> Result<T, DatabaseError> {
        let (pool, begin) = (self.writing.clone(), self.begin());
        let commits = self.commits.clone();
        self.run(async move {
            let mut writing = pool.begin_with(begin).await?;
            let done = change(&mut writing).await?;
            writing.commit().await?;
            commits.send_replace(());
            Ok(done)
        })
        .await
    }

    /// Returns what changes with every commit of this process; those of others it does not see.
    pub fn commits(&self) -> watch::Receiver<()> {
        self.commits.subscribe()
    }

    /// Returns how a transaction begins that writes: with SQLite's lock, which cannot be had later
    /// without the danger of two that wait for each other.
    fn begin(&self) -> &'static str {
        match self.kind {
            Kind::Sqlite => "BEGIN IMMEDIATE",
            Kind::Postgres => "BEGIN",
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, DatabaseError>> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        // Queries' futures are large, and nested in those of whoever asks.
        let turn = self.turn.clone();
        let patience = self.patience;
        let work = Box::pin(async move {
            let done = timeout(patience, work).await;
            drop(turn);
            done
        });
        match self.tasks.spawn_on(work, &self.runtime).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(DatabaseError::TooSlow),
            Err(error) => Err(DatabaseError::Gone(error)),
        }
    }

    /// Runs a task of its own on the database's thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// Closes the connections, and ends the thread once what runs there is done.
    pub async fn close(&self) {
        let pools =
            [&self.writing, &self.recording, &self.reading, &self.asking].map(AnyPool::clone);
        let closing = async move {
            for pool in pools {
                pool.close().await;
            }
            Ok(())
        };
        if let Err(error) = self.run(closing).await {
            tracing::debug!(%error, "the database was not closed in order");
        }
        self.stop.cancel();
    }
}

/// Replicas of one machine may share a file, so writers wait for each other; and what is committed
/// outlives a loss of power. 512 KiB of pages hold what a batch of rows touches: the usual 2 MB would
/// take an hour of calls to fill.
const WRITES: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
     PRAGMA synchronous = FULL; PRAGMA cache_size = -512;";
/// Seven connections read, some of them seldom. The system keeps the file's pages as well: what is not
/// here costs a microsecond, and what is takes an hour to fill.
const READS: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; \
     PRAGMA synchronous = FULL; PRAGMA cache_size = -16;";

/// Postgres goes on with a question that nobody waits for, and its connection is not free until then.
const QUESTIONS_END: &str = "SET statement_timeout = '10s'";

/// A replica that is older than the tables serves as well: migrations only add.
fn migrations() -> sqlx::migrate::Migrator {
    let mut migrations = sqlx::migrate::Migrator {
        migrations: MIGRATIONS.migrations.clone(),
        ..sqlx::migrate::Migrator::DEFAULT
    };
    migrations.set_ignore_missing(true);
    migrations
}

/// A file that is not there is made.
fn with_mode(kind: Kind, url: &str) -> String {
    match kind {
        Kind::Sqlite if !url.contains('?') => format!("{url}?mode=rwc"),
        Kind::Sqlite | Kind::Postgres => url.to_owned(),
    }
}

impl DatabaseError {
    /// Tells whether it is of no use to wait: SQLite cannot open the file, or it is none of its
    /// own, or the address says nothing.
    pub fn is_final(&self) -> bool {
        let error = match self {
            Self::Failed(error) | Self::Migration(MigrateError::Execute(error)) => error,
            Self::Migration(_) | Self::NoThread(_) => return true,
            Self::TooSlow | Self::Gone(_) => return false,
        };
        if let sqlx::Error::Database(error) = error {
            // CANTOPEN and NOTADB.
            return matches!(error.code().as_deref(), Some("14" | "26"));
        }
        matches!(error, sqlx::Error::Configuration(_))
    }

    /// Tells whether the rows are at fault, so that they would be refused again.
    pub fn blames_rows(&self) -> bool {
        let Self::Failed(sqlx::Error::Database(error)) = self else {
            return false;
        };
        // Postgres: classes 22 (data exception) and 23 (constraint). SQLite: TOOBIG, CONSTRAINT and
        // MISMATCH, whose extended codes keep them in the low byte.
        let code = error.code().unwrap_or_default();
        match code.parse::<u32>() {
            Ok(number) if code.len() < 5 => matches!(number & 0xff, 18..=20),
            Ok(_) | Err(_) => code.starts_with("22") || code.starts_with("23"),
        }
    }
}

impl Sql {
    pub fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            values: AnyArguments::default(),
            bound: 0,
        }
    }

    pub fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Writes the placeholder of a value, and takes it.
    pub fn bind<'t, T>(&mut self, value: T) -> &mut Self
    where
        T: sqlx::Encode<'t, Any> + sqlx::Type<Any>,
    {
        use sqlx::Arguments;
        use std::fmt::Write;
        self.bound += 1;
        let _ = write!(self.text, "${}", self.bound); // A string takes everything.
        self.values
            .add(value)
            .expect("texts and numbers are always encoded");
        self
    }

    /// Writes `(…), (…)`, a row for each of `rows`, whose values `row` gives in order.
    pub fn rows<T>(&mut self, rows: &[T], mut row: impl FnMut(&mut Fields<'_>, &T)) -> &mut Self {
        for (number, value) in rows.iter().enumerate() {
            self.push(if number == 0 { "(" } else { ", (" });
            let mut fields = Fields {
                sql: self,
                first: true,
            };
            row(&mut fields, value);
            self.push(")");
        }
        self
    }

    /// Writes `(…, …)`, a placeholder for each of `texts`, and takes them.
    pub fn list(&mut self, texts: impl IntoIterator<Item = impl Into<String>>) -> &mut Self {
        for (number, text) in texts.into_iter().enumerate() {
            self.push(if number == 0 { "(" } else { ", " });
            self.bind(text.into());
        }
        self.push(")")
    }

    /// # Errors
    /// If the database does not do it.
    pub async fn execute(self, on: &mut Writing) -> Result<u64, sqlx::Error> {
        let query = sqlx::query_with(sqlx::AssertSqlSafe(self.text), self.values);
        let done = query.persistent(false).execute(&mut **on).await?;
        Ok(done.rows_affected())
    }

    /// # Errors
    /// If the database does not answer.
    pub async fn fetch_all(self, on: &mut Writing) -> Result<Vec<AnyRow>, sqlx::Error> {
        let query = sqlx::query_with(sqlx::AssertSqlSafe(self.text), self.values);
        query.persistent(false).fetch_all(&mut **on).await
    }

    /// # Errors
    /// If the database does not answer.
    pub async fn read(self, pool: &AnyPool) -> Result<Vec<AnyRow>, sqlx::Error> {
        let query = sqlx::query_with(sqlx::AssertSqlSafe(self.text), self.values);
        query.fetch_all(pool).await
    }
}

/// The values of one row.
pub struct Fields<'a> {
    sql: &'a mut Sql,
    first: bool,
}

impl Fields<'_> {
    pub fn push<'t, T>(&mut self, value: T) -> &mut Self
    where
        T: sqlx::Encode<'t, Any> + sqlx::Type<Any>,
    {
        self.sql.push(if self.first { "" } else { ", " });
        self.first = false;
        self.sql.bind(value);
        self
    }

    /// Writes an expression in place of a value.
    pub fn put(&mut self, expression: &str) -> &mut Self {
        self.sql.push(if self.first { "" } else { ", " });
        self.first = false;
        self.sql.push(expression);
        self
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)
    }
}
