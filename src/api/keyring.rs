//! The good keys, as this replica knows them: read together and kept for seconds, so that wrong
//! keys cost the database nothing.
//!
//! Invariant: a key that was revoked is refused within [`KEPT_FOR`], database or not.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        KeyId,
        key::{Presented, StoredKey},
        keys,
    },
    record::{Database, DatabaseError, unix_millis_i64},
};

/// How long keys are good that were read.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// When they are read again if somebody asks.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// How soon they are read again, be it for a key that is not among them or because it failed.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long a request waits for them.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is noted which were used.
const USES_EVERY: Duration = Duration::from_secs(60);
/// How long that may take at the end.
const LAST_USES: Duration = Duration::from_secs(2);

type Known = Arc<HashMap<KeyId, StoredKey>>;

/// The good keys.
#[derive(Debug)]
pub struct Keyring {
    database: Database,
    state: Mutex<State>,
    /// One reads for all who ask meanwhile.
    reading: tokio::sync::Mutex<()>,
    uses: Mutex<BTreeMap<KeyId, i64>>,
}

#[derive(Default)]
struct State {
    read: Option<(Instant, Known)>,
    tried: Option<Instant>,
}

/// The keys could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

impl Keyring {
    pub fn new(database: Database) -> Self {
        Self {
            database,
            state: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            uses: Mutex::default(),
        }
    }

    /// Finds the key that was presented; `None` if there is no such key, or it is revoked.
    ///
    /// # Errors
    /// If that is not known, because the database is away.
    pub async fn find(&self, presented: &Presented) -> Result<Option<StoredKey>, Away> {
        let mut known = self.known(FRESH_FOR);
        if known
            .as_ref()
            .is_none_or(|known| !known.contains_key(&presented.id))
        {
            // It may have been made a moment ago.
            known = self.read_again(READ_EVERY).await;
        }
        let known = known.or_else(|| self.known(KEPT_FOR)).ok_or(Away)?;
        let key = known.get(&presented.id).filter(|key| presented.is(key));
        if let Some(key) = key {
            lock(&self.uses).insert(key.id.clone(), unix_millis_i64());
        }
        Ok(key.cloned())
    }

    /// Returns the keys, if they were read within `age`.
    fn known(&self, age: Duration) -> Option<Known> {
        let state = lock(&self.state);
        let (at, known) = state.read.as_ref()?;
        (at.elapsed() < age).then(|| Arc::clone(known))
    }

    /// Reads the keys, unless somebody has within `age`; `None` if that failed, or just has.
    async fn read_again(&self, age: Duration) -> Option<Known> {
        let _one = timeout(PATIENCE, self.reading.lock()).await.ok()?;
        if let Some(known) = self.known(age) {
            return Some(known);
        }
        let now = Instant::now();
        {
            let mut state = lock(&self.state);
            if state.tried.is_some_and(|tried| now < tried + READ_EVERY) {
                return None;
            }
            state.tried = Some(now);
        }
        let reading = self
            .database
            .read(|pool| async move { keys::good(&pool).await });
        let read = timeout(PATIENCE, reading)
            .await
            .unwrap_or(Err(DatabaseError::TooSlow));
        let mut state = lock(&self.state);
        match read {
            Ok(keys) => {
                let keys = keys.into_iter().map(|key| (key.id.clone(), key));
                let known: Known = Arc::new(keys.collect());
                state.read = Some((now, Arc::clone(&known)));
                state.tried = None;
                Some(known)
            }
            Err(error) => {
                state.tried = Some(Instant::now());
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "keys cannot be read (DATABASE_URL)");
                None
            }
        }
    }

    /// Notes now and then which keys were used, until `stop` and once more.
    pub async fn note_uses(&self, stop: CancellationToken) {
        let mut ticks = interval(USES_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.write_uses().await;
        }
        let _ = timeout(LAST_USES, self.write_uses()).await;
    }

    async fn write_uses(&self) {
        let uses = std::mem::take(&mut *lock(&self.uses));
        if uses.is_empty() {
            return;
        }
        let written = keys::note_uses(&self.database, uses.into_iter().collect()).await;
        if let Err(error) = written {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(error, "it is not noted which keys were used");
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.read.as_ref().map_or(0, |(_, known)| known.len());
        write!(f, "{keys} keys")
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
