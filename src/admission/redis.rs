//! The store that replicas share: slots in Redis, each operation one script.
//!
//! Invariant: every key that a script touches is declared, and none is built in a script.
//! Invariant: a script that fails has written nothing, and each may be repeated.
//! Invariant: an operation is waited for no longer than its budget, and few are under way at once.

mod agents;
mod board;
mod calls;
mod error;
mod heartbeat;
mod keys;
mod link;
mod reply;
mod table;

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{Script, ScriptInvocation, Value};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    admission::{
        HEARTBEAT, SETUP,
        redis::{keys::Keys, link::Link, reply::Reply},
    },
    config::RedisSettings,
    telemetry::{CapacityMetrics, StoreOperation},
};

pub use error::StoreError;
pub use link::{Flaw, Inspection};
pub use table::SlotRow;

/// How long a heartbeat does: it is better late than never.
const PATIENCE: Duration = HEARTBEAT;
/// How many operations for callers may be under way at once.
const MOST_IN_FLIGHT: usize = 64;

/// The scripts, as the store is sent them.
struct Scripts {
    acquire: Script,
    adopt: Script,
    renew: Script,
    release: Script,
    refuse: Script,
    rebind: Script,
    pick_up: Script,
    note: Script,
    fate: Script,
    reap: Script,
    report: Script,
}

static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    acquire: Script::new(include_str!("redis/acquire.lua")),
    adopt: Script::new(include_str!("redis/adopt.lua")),
    renew: Script::new(include_str!("redis/renew.lua")),
    release: Script::new(include_str!("redis/release.lua")),
    refuse: Script::new(include_str!("redis/refuse.lua")),
    rebind: Script::new(include_str!("redis/rebind.lua")),
    pick_up: Script::new(include_str!("redis/pick_up.lua")),
    note: Script::new(include_str!("redis/note.lua")),
    fate: Script::new(include_str!("redis/fate.lua")),
    reap: Script::new(include_str!("redis/reap.lua")),
    report: Script::new(include_str!("redis/report.lua")),
});

/// Slots in Redis.
pub struct RedisStore {
    inner: Arc<Inner>,
    /// Operations run here, away from the workers: a worker that is busy with audio must not make
    /// the store look slow, and a webhook that is given up must not leave an operation half heard.
    runtime: Handle,
    tasks: TaskTracker,
}

struct Inner {
    link: Link,
    keys: Keys,
    replica: String,
    lease: Duration,
    /// How long a caller waits for an operation.
    budget: Duration,
    in_flight: Semaphore,
    /// Whether nobody is to wait for the store.
    away: AtomicBool,
    metrics: CapacityMetrics,
}

impl RedisStore {
    /// Makes a store that connects with its first heartbeat. Its operations run on the runtime
    /// that this is called on.
    ///
    /// # Errors
    /// If the settings do not make a client.
    pub fn new(
        settings: &RedisSettings,
        replica: String,
        lease: Duration,
        metrics: CapacityMetrics,
    ) -> Result<Self, StoreError> {
        let inner = Inner {
            link: Link::new(settings)?,
            keys: Keys::new(settings.key_prefix.clone()),
            replica,
            lease,
            budget: settings.timeout,
            in_flight: Semaphore::new(MOST_IN_FLIGHT),
            away: AtomicBool::new(false),
            metrics,
        };
        Ok(Self {
            inner: Arc::new(inner),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
        })
    }

    /// Says whether waiting for the store is pointless, for those who wait already.
    pub fn set_away(&self, away: bool) {
        self.inner.away.store(away, Ordering::Relaxed);
    }

    /// Makes a new connection before the next heartbeat.
    pub fn reconnect(&self) {
        self.inner.link.forget();
    }

    /// Looks at what kind of server this is.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn inspect(&self) -> Result<Inspection, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move { inner.link.inspect().await }).await
    }

    /// Takes this replica off the list of those that live.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let mut pipe = redis::pipe();
            pipe.zrem(&inner.keys.replicas, &inner.replica);
            pipe.hdel(&inner.keys.places, &inner.replica);
            let mut link = inner.link.connected()?;
            bounded(inner.budget, link.pipeline(&pipe)).await?;
            Ok(())
        })
        .await
    }

    async fn get(&self, key: String) -> Result<Option<String>, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let mut link = inner.link.connected()?;
            let command = redis::Cmd::get(key);
            let value = bounded(inner.budget, link.command(&command)).await?;
            redis::from_redis_value(value).map_err(|_| StoreError::Garbled("get"))
        })
        .await
    }

    /// Runs a script that a caller waits for, or that can wait for the store to be back.
    async fn for_caller(
        &self,
        operation: StoreOperation,
        script: ScriptInvocation<'static>,
    ) -> Result<Reply, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            let permit = inner.in_flight.acquire().await;
            let _permit = permit.map_err(|_| StoreError::Away)?;
            if inner.away.load(Ordering::Relaxed) {
                return Err(StoreError::Away);
            }
            inner.invoke(operation, &script, inner.budget).await
        })
        .await
    }

    async fn call(
        &self,
        operation: StoreOperation,
        script: ScriptInvocation<'static>,
        patience: Duration,
    ) -> Result<Reply, StoreError> {
        let inner = Arc::clone(&self.inner);
        self.run(async move {
            if operation == StoreOperation::Renew {
                inner.link.connect().await?;
            }
            inner.invoke(operation, &script, patience).await
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let running = self.tasks.spawn_on(operation, &self.runtime);
        // It ends early only with the runtime.
        running.await.unwrap_or(Err(StoreError::Away))
    }
}

impl Inner {
    /// How long any slot lasts that is not renewed.
    fn longest_lease(&self) -> u64 {
        let longest = self.lease.max(SETUP).as_millis();
        u64::try_from(longest).unwrap_or(u64::MAX)
    }

    async fn invoke(
        &self,
        operation: StoreOperation,
        script: &ScriptInvocation<'static>,
        patience: Duration,
    ) -> Result<Reply, StoreError> {
        let began = Instant::now();
        let mut link = self.link.connected()?;
        let result = bounded(patience, link.script(script)).await;
        self.metrics.took(operation, began.elapsed());
        if let Err(error) = &result {
            self.metrics.store_failed(operation, error.class());
        }
        let value = result?;
        Ok(Reply::new(if let Value::Array(values) = value {
            values
        } else {
            vec![value]
        }))
    }
}

async fn bounded<T>(
    patience: Duration,
    operation: impl Future<Output = redis::RedisResult<T>>,
) -> Result<T, StoreError> {
    match timeout(patience, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(StoreError::TooSlow(patience)),
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisStore")
    }
}

#[cfg(test)]
pub(super) mod tests;
