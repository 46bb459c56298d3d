//! What operators and replicas leave for each other beside slots: plain keys that lapse.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::{Cmd, FromRedisValue, Value};

use crate::admission::{
    Wishes,
    redis::{RedisStore, StoreError, bounded},
};

/// How long anybody waits for these: no caller does.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long somebody counts as watching who has last said so.
const WATCHED_MS: u64 = 10_000;
/// How long what a replica shows may be looked at.
const SHOWN_MS: u64 = 5_000;
/// How long a replica has to hear that it is to drain.
const DRAIN_MS: u64 = 60_000;
/// How long ended logins are known, of which none would last longer.
const ENDED_MS: u64 = 12 * 3_600_000;
/// How many replicas are looked at.
const MOST_REPLICAS: isize = 256;

impl RedisStore {
    /// Returns what operators want of this replica.
    pub async fn wishes(&self) -> Result<Wishes, StoreError> {
        let keys = &self.inner.keys;
        let mut command = Cmd::new();
        let drain = keys.drain(&self.inner.replica);
        command
            .arg("MGET")
            .arg(&keys.intake)
            .arg(&keys.watched)
            .arg(drain)
            .arg(&keys.ended_logins);
        let mut found: Vec<Option<String>> = self.plain(command, "wishes").await?;
        let ended_logins = found.pop().flatten();
        let is_set = |at: usize| found.get(at).is_some_and(Option::is_some);
        Ok(Wishes {
            stops_intake: is_set(0),
            watched: is_set(1),
            drains: is_set(2),
            ended_logins,
        })
    }

    /// Notes whether replicas let new calls in. It does not lapse: only an operator changes it.
    pub async fn set_intake(&self, stops: bool) -> Result<(), StoreError> {
        let intake = &self.inner.keys.intake;
        let command = if stops {
            Cmd::set(intake, "stopped")
        } else {
            Cmd::del(intake)
        };
        self.plain::<Value>(command, "intake").await.map(drop)
    }

    pub async fn ask_to_drain(&self, replica: &str) -> Result<(), StoreError> {
        let mut command = Cmd::set(self.inner.keys.drain(replica), "1");
        command.arg("PX").arg(DRAIN_MS);
        self.plain::<Value>(command, "drain").await.map(drop)
    }

    pub async fn tell_ended_logins(&self, ended: String) -> Result<(), StoreError> {
        let mut command = Cmd::set(&self.inner.keys.ended_logins, ended);
        command.arg("PX").arg(ENDED_MS);
        self.plain::<Value>(command, "ended logins").await.map(drop)
    }

    pub async fn show_view(&self, view: String) -> Result<(), StoreError> {
        let mut command = Cmd::set(self.inner.keys.view(&self.inner.replica), view);
        command.arg("PX").arg(SHOWN_MS);
        self.plain::<Value>(command, "view").await.map(drop)
    }

    /// Says that somebody watches; returns the replicas that live, with what they show.
    pub async fn watch(&self) -> Result<Vec<(String, Option<String>)>, StoreError> {
        let keys = &self.inner.keys;
        let mut watched = Cmd::set(&keys.watched, "1");
        watched.arg("PX").arg(WATCHED_MS);
        self.plain::<Value>(watched, "watched").await?;
        let listed = Cmd::zrange(&keys.replicas, 0, MOST_REPLICAS - 1);
        let names: Vec<String> = self.plain(listed, "replicas").await?;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = Cmd::new();
        command.arg("MGET");
        for name in &names {
            command.arg(keys.view(name));
        }
        let views: Vec<Option<String>> = self.plain(command, "views").await?;
        Ok(names.into_iter().zip(views).collect())
    }

    /// Runs a command that neither a caller nor a slot waits for; not at all while the store is
    /// known to be away.
    async fn plain<T: FromRedisValue>(
        &self,
        command: Cmd,
        what: &'static str,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let value = self.run(async move {
            if inner.away.load(Ordering::Relaxed) {
                return Err(StoreError::Away);
            }
            let mut link = inner.link.connected()?;
            bounded(PATIENCE, link.command(&command)).await
        });
        redis::from_redis_value(value.await?).map_err(|_| StoreError::Garbled(what))
    }
}
