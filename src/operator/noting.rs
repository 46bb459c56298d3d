//! Who has done what, as `audit` has it: noted before it is done.
//!
//! Invariant: nothing is done that leaves no trace. While the database is away an operator acts all
//! the same, who may be stopping the intake because of that: the log says so, and the row waits.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::web;
use tokio::time::{sleep, timeout};

use crate::{api::Change, gateway::Gateway, record::DatabaseError};

/// How long an operator waits for the row.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many rows wait for the database.
const MOST_OWED: usize = 100;
/// How soon the database is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Rows that wait for the database, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Owed(Mutex<VecDeque<Change>>);

/// Too many rows wait already.
#[derive(Debug, thiserror::Error)]
#[error("{MOST_OWED} rows wait for the database already")]
pub struct TooManyOwed;

impl Owed {
    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Adds a row, or what has become of one; tells whether it is the only one.
    fn add(&self, change: Change) -> Result<bool, TooManyOwed> {
        let mut owed = self.lock();
        if let Some(known) = owed.iter_mut().find(|it| it.is_same(&change)) {
            *known = change;
            return Ok(false);
        }
        if owed.len() >= MOST_OWED {
            return Err(TooManyOwed);
        }
        owed.push_back(change);
        Ok(owed.len() == 1)
    }

    /// Returns what waits longest.
    fn first(&self) -> Option<Change> {
        self.lock().front().cloned()
    }

    /// Takes a row out that was written, unless more has become of it meanwhile.
    fn settle(&self, written: &Change) {
        let mut owed = self.lock();
        if owed.front().is_some_and(|first| first == written) {
            owed.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Change>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes what an operator is about to do, or has done: in the database, or where that does not take
/// it in time, in the log, and in the database later.
///
/// # Errors
/// If too many rows wait already: then nothing may be done.
pub async fn note(gateway: &web::Data<Gateway>, change: Change) -> Result<(), TooManyOwed> {
    let owed = &gateway.desk.owed;
    if owed.is_empty() {
        match timeout(PATIENCE, write(gateway, change.clone())).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "the database takes no row of what an operator does");
            }
            Err(_) => tracing::debug!("the database is slow to take a row"),
        }
    }
    tracing::warn!(
        %change,
        "an operator acts while the database is away: the row that says so waits"
    );
    if owed.add(change)? {
        let gateway = gateway.clone();
        gateway.chores().clone().spawn(write_owed(gateway));
    }
    Ok(())
}

/// Notes what a program has done for an operator, which may be much: in the database, or where that
/// does not take it in time, in the log alone, for few rows can wait.
pub async fn note_or_log(gateway: &Gateway, change: Change) {
    let written = timeout(PATIENCE, write(gateway, change.clone())).await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::warn!(%change, "a change is in the log alone: the database does not take its row");
    }
}

/// Writes the rows that wait, until there is none, or the gateway stops and one cannot be written.
async fn write_owed(gateway: web::Data<Gateway>) {
    let owed = &gateway.desk.owed;
    while let Some(change) = owed.first() {
        match write(&gateway, change.clone()).await {
            Ok(()) => owed.settle(&change),
            Err(error) if error.blames_rows() => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, %change, "the database refuses a row of what an operator did");
                owed.settle(&change);
            }
            Err(_) if gateway.stopping.is_cancelled() => {
                let unwritten = owed.lock().len();
                tracing::error!(unwritten, "what operators did is in the log alone");
                return;
            }
            Err(_) => {
                let pause = sleep(AGAIN);
                gateway.stopping.run_until_cancelled(pause).await;
            }
        }
    }
    tracing::info!("what operators did while the database was away is written");
}

async fn write(gateway: &Gateway, change: Change) -> Result<(), DatabaseError> {
    let database = &gateway.records.database;
    let noting = database.write(move |writing| Box::pin(async move { change.note(writing).await }));
    noting.await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::Action;

    #[test]
    fn a_row_waits_once_with_what_has_become_of_it_and_so_many_do() {
        let owed = Owed::default();
        let change = |target: &str| {
            let actor = "operator:bearer".to_owned();
            Change::by_actor(actor, Action::Drain, target)
        };
        let first = change("r1");
        assert!(owed.add(first.clone()).unwrap());
        let done = first.clone().became(json!({"draining": true}));
        assert!(!owed.add(done.clone()).unwrap());
        owed.settle(&first);
        assert_eq!(owed.first().as_ref(), Some(&done), "more has become of it");
        for _ in 1..MOST_OWED {
            assert!(!owed.add(change("r2")).unwrap());
        }
        assert!(owed.add(change("r3")).is_err());
        owed.settle(&done);
        assert!(owed.add(change("r3")).is_ok());
    }
}
