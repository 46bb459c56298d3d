//! A store as several replicas see it, with its time in the test's hands.

use redis::Script;

use super::*;
use crate::admission::{redis::tests::connected, redis_server::RedisServer};

/// How far the server's clock may go on while an operation runs without leases lapsing early.
pub const SLACK: Millis = 250;

/// One line of what is stored: key, member or content, and what it is.
pub type Line = (String, String, String);

/// Replicas over one store.
pub struct House {
    /// One for each replica; memory has one for all.
    stores: Vec<Store>,
    shared: Option<Shared>,
    pub now: Millis,
    /// By how much a shared store's clock has gone on between two looks at most.
    pub slowest: Millis,
}

/// What the replicas' Redis is reached by.
struct Shared {
    _server: RedisServer,
    operator: redis::Connection,
    pass: Script,
    prefix: String,
    houses: u32,
    /// The server's time when it was last looked at.
    seen_at: Millis,
}

/// What is stored.
pub struct Look {
    pub lines: Vec<Line>,
    /// The keys that never expire.
    pub eternal: Vec<String>,
}

impl House {
    pub fn in_memory() -> Self {
        Self {
            stores: vec![Store::Memory(Box::default())],
            shared: None,
            now: BEGIN,
            slowest: 0,
        }
    }

    /// Opens a house of `replicas` over a server of its own.
    pub async fn in_redis(replicas: usize) -> Self {
        let server = RedisServer::start();
        let mut stores = Vec::new();
        for replica in 0..replicas {
            let store = connected(&server.url(), "", &replica_name(replica, 0)).await;
            stores.push(Store::Redis(Box::new(store)));
        }
        let shared = Shared {
            operator: server.connection(),
            _server: server,
            pass: Script::new(include_str!("pass.lua")),
            prefix: String::new(),
            houses: 0,
            seen_at: 0,
        };
        let mut house = Self {
            stores,
            shared: Some(shared),
            now: BEGIN,
            slowest: 0,
        };
        house.begin();
        house
    }

    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Begins anew: a fresh memory, or a fresh prefix on the same server.
    pub fn begin(&mut self) {
        self.now = BEGIN;
        match &mut self.shared {
            None => self.stores = vec![Store::Memory(Box::default())],
            Some(shared) => {
                shared.houses += 1;
                shared.prefix = format!("house-{}:", shared.houses);
                shared.server_is_empty();
                for replica in 0..self.stores.len() {
                    self.rename(replica, &replica_name(replica, 0));
                }
                self.pass(0);
                self.slowest = 0;
            }
        }
    }

    /// Loses what is stored.
    pub fn lose(&mut self, newest: u64) {
        match &mut self.shared {
            // A process is not started again within a millisecond.
            None => {
                self.stores = vec![Store::Memory(Box::default())];
                self.now = self.now.max(newest + 1);
            }
            // Nor is a server; but operations are faster than that, and epochs count them.
            Some(shared) => {
                while shared.flush() <= newest {}
                shared.pass(0);
            }
        }
    }

    /// Puts another process in a replica's place.
    pub fn rename(&mut self, replica: usize, name: &str) {
        let Some(shared) = &self.shared else {
            return;
        };
        if let Store::Redis(store) = &mut self.stores[replica] {
            store.become_another(&shared.prefix, name);
        }
    }

    pub fn store(&self, replica: usize) -> &Store {
        self.stores.get(replica).unwrap_or(&self.stores[0])
    }

    pub fn pass(&mut self, by: Millis) -> Look {
        self.now += by;
        match &mut self.shared {
            None => Look {
                lines: self.memory().dump(self.now),
                eternal: Vec::new(),
            },
            Some(shared) => {
                let (look, drift) = shared.pass(by);
                self.slowest = self.slowest.max(drift);
                look
            }
        }
    }

    /// Returns what a scope holds.
    pub fn count(&mut self, scope: &Scope) -> u32 {
        let look = self.pass(0);
        self.count_in(&look, scope)
    }

    /// Returns what a scope held at that look.
    pub fn count_in(&self, look: &Look, scope: &Scope) -> u32 {
        let key = match (scope, &self.shared) {
            (Scope::Global, Some(shared)) => format!("{}calls:lease", shared.prefix),
            (other, Some(shared)) => format!("{}calls:lease:{other}", shared.prefix),
            (_, None) => return self.memory().used_at(self.now, scope),
        };
        let leases = look.lines.iter();
        let live = leases.filter(|(name, _, is)| *name == key && is == "live");
        u32::try_from(live.count()).unwrap()
    }

    /// Returns the mirrors that operators read: who is active, and how many.
    pub fn mirrors(&self, look: &Look) -> Option<(Vec<String>, String)> {
        let shared = self.shared.as_ref()?;
        let prefix = &shared.prefix;
        let of = |name: &str| {
            let key = format!("{prefix}calls:{name}");
            let lines = look.lines.iter().filter(move |(found, ..)| *found == key);
            lines.map(|(_, value, _)| value.clone()).collect::<Vec<_>>()
        };
        let mut active = of("active");
        active.sort();
        let mut count = of("active_count").concat();
        if count.is_empty() {
            count.push('0'); // As operators are told to read it.
        }
        Some((active, count))
    }

    fn memory(&self) -> MutexGuard<'_, MemoryStore> {
        match &self.stores[0] {
            Store::Memory(store) => lock(store),
            Store::Redis(_) => unreachable!("a house of Redis asks its server"),
        }
    }
}

impl Look {
    /// Returns what is stored beside decisions, which even a refusal is entitled to.
    pub fn without_decisions(&self) -> Vec<&Line> {
        let lines = self.lines.iter();
        lines
            .filter(|(key, ..)| !key.contains("calls:decision:"))
            .collect()
    }
}

impl Shared {
    fn pass(&mut self, by: Millis) -> (Look, Millis) {
        let passed = self
            .pass
            .arg(&self.prefix)
            .arg(by)
            .arg(self.seen_at)
            .invoke::<(Millis, Millis, Vec<Line>, Vec<String>)>(&mut self.operator);
        let (now, drift, lines, eternal) = passed.unwrap();
        self.seen_at = now;
        let unprefixed = eternal
            .iter()
            .filter_map(|key| key.strip_prefix(&self.prefix));
        let eternal = unprefixed.map(str::to_owned).collect();
        (Look { lines, eternal }, drift)
    }

    fn server_is_empty(&mut self) {
        let flushed = redis::cmd("FLUSHALL").exec(&mut self.operator);
        flushed.unwrap();
    }

    /// Loses everything; returns the server's time.
    fn flush(&mut self) -> Millis {
        self.server_is_empty();
        let time = redis::cmd("TIME").query::<(u64, u64)>(&mut self.operator);
        let (seconds, micros) = time.unwrap();
        seconds * 1_000 + micros / 1_000
    }
}

/// Returns what a replica is called after so many crashes.
pub fn replica_name(replica: usize, crashes: u32) -> String {
    format!("r{replica}.{crashes}")
}
