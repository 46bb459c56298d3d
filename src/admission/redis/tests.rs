use super::*;
use crate::admission::redis_server::RedisServer;

/// A caller in a test may wait for as long as a busy machine takes.
const LONG: Duration = Duration::from_secs(30);

/// Returns a store that has connected; `prefix` is what its keys begin with.
pub async fn connected(url: &str, prefix: &str, replica: &str) -> RedisStore {
    let settings = RedisSettings {
        url: url.into(),
        key_prefix: prefix.to_owned(),
        cluster: false,
    };
    let store = patient(&settings, replica);
    store.inspect().await.expect("redis-server answers");
    store
}

/// Returns a store that has not connected yet.
pub fn patient(settings: &RedisSettings, replica: &str) -> RedisStore {
    let lease = Duration::from_secs(30);
    let made = RedisStore::new(settings, replica.to_owned(), lease, CapacityMetrics::new());
    let mut store = made.expect("a good address");
    alone(&mut store).budget = LONG;
    store
}

impl RedisStore {
    /// Makes another replica of this one, or moves it to keys of its own, on the same connection.
    pub fn become_another(&mut self, prefix: &str, replica: &str) {
        let inner = alone(self);
        inner.keys = Keys::new(prefix.to_owned());
        inner.replica = replica.to_owned();
    }
}

fn alone(store: &mut RedisStore) -> &mut Inner {
    Arc::get_mut(&mut store.inner).expect("no operation is under way")
}
