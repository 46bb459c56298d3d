//! Where records are kept: whether it is there, up to date, and lets us write.

use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use crate::{
    check::{
        clock::{self, Clock},
        finding::Finding,
    },
    config::{Config, RecordSettings},
    record::{Database, DatabaseError},
};

pub async fn probe(config: &Config) -> Vec<Finding> {
    if let Some(path) = new_file(&config.records) {
        // A check leaves no file behind: it only sees whether one could be made.
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            Some(_) | None => Path::new("."),
        };
        return vec![match tempfile::tempfile_in(folder) {
            Ok(_) => Finding::DatabaseNew(path),
            Err(error) => Finding::DatabaseNoPlace(path, error),
        }];
    }
    let database = match Database::open(&config.records) {
        Ok(database) => database,
        Err(error) => return vec![Finding::DatabaseAway(error)],
    };
    let findings = look(&database).await;
    database.close().await;
    findings.unwrap_or_else(|error| vec![Finding::DatabaseAway(error)])
}

async fn look(database: &Database) -> Result<Vec<Finding>, DatabaseError> {
    let tables = database.tables().await?;
    let before = clock::now();
    let theirs = database.now().await?;
    let clock = clock::compare(Clock::Database, (before, clock::now()), theirs, 1);
    let state = if !tables.foreign.is_empty() {
        Finding::DatabaseForeign(tables.foreign)
    } else if let Err(error) = database.try_out(tables.pending > 0).await {
        Finding::DatabaseReadOnly(error)
    } else if tables.pending > 0 {
        Finding::DatabasePending(tables.pending)
    } else {
        Finding::DatabaseFits
    };
    Ok(vec![state, clock])
}

/// Returns the file of SQLite's that the settings name, if it is not there yet.
fn new_file(settings: &RecordSettings) -> Option<PathBuf> {
    let path = settings.url.expose_secret().strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    let path = PathBuf::from(path.split('?').next()?);
    (!path.exists() && path != Path::new(":memory:")).then_some(path)
}
