//! Where slots are counted.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::config::reader::{Environment, Reader};

/// How many replicas there may be said to be.
const MOST_REPLICAS: u64 = 1_000;

/// Where slots are counted, and what happens while that place is away.
#[derive(Debug)]
pub struct StoreSettings {
    /// `None`: in this process's memory.
    pub redis: Option<RedisSettings>,
    /// `REDIS_OUTAGE`: `bounded`, `open` or `closed`. Default `bounded`.
    pub outage: RedisOutage,
    /// `EXPECTED_REPLICAS`: how many replicas there are at most, which share what is free while Redis is
    /// away. Default 1; more count if more have been seen.
    pub expected_replicas: u32,
    /// `LEAST_REPLICAS`: how many replicas there are at any time; fewer are an alarm. Default
    /// `EXPECTED_REPLICAS`.
    pub least_replicas: u32,
}

/// How Redis is reached.
#[derive(Debug)]
pub struct RedisSettings {
    /// `REDIS_URL`: `redis://` or `rediss://`, with user and password where it has them.
    pub url: SecretString,
    /// `REDIS_KEY_PREFIX`: what all key names begin with. Default: nothing.
    pub key_prefix: String,
    /// `REDIS_CLUSTER`: whether it is a Redis Cluster. Default off.
    pub cluster: bool,
    /// `REDIS_TIMEOUT_MS`: how long a caller waits for it. Default 60 ms, at most a second.
    pub timeout: Duration,
}

/// Who is admitted while Redis is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisOutage {
    /// This replica's share of what was free.
    Bounded,
    /// Everybody.
    Open,
    /// Nobody.
    Closed,
}

impl StoreSettings {
    pub(super) fn load(read: &Reader<impl Environment>) -> Self {
        let redis = RedisSettings::load(read);
        let outage = read.parsed("REDIS_OUTAGE", "bounded, open or closed");
        let expected = read.number("EXPECTED_REPLICAS", 1, 1..=MOST_REPLICAS);
        let least = read.number("LEAST_REPLICAS", expected, 1..=MOST_REPLICAS);
        if least > expected {
            let rule = "at most EXPECTED_REPLICAS";
            read.mistake("LEAST_REPLICAS", Some(least.to_string()), rule);
        }
        let replicas = |number| u32::try_from(number).expect("at most 1000");
        Self {
            redis,
            outage: outage.unwrap_or(RedisOutage::Bounded),
            expected_replicas: replicas(expected),
            least_replicas: replicas(least),
        }
    }
}

impl RedisSettings {
    fn load(read: &Reader<impl Environment>) -> Option<Self> {
        let key_prefix = key_prefix(read);
        let cluster = read.switch("REDIS_CLUSTER");
        let timeout = Duration::from_millis(read.number("REDIS_TIMEOUT_MS", 60, 10..=1_000));
        let url = read.secret("REDIS_URL")?;
        if !is_address(url.expose_secret()) {
            let rule = "the address of a Redis: redis://host:6379/0, or rediss://… with TLS";
            read.mistake("REDIS_URL", None, rule); // It may hold a password.
        }
        if cluster && !has_hash_tag(&key_prefix) {
            let rule = "in a cluster all keys must share one slot: set a prefix in braces, \
                        such as {callgate}:";
            read.mistake("REDIS_KEY_PREFIX", Some(key_prefix.clone()), rule);
        }
        Some(Self {
            url,
            key_prefix,
            cluster,
            timeout,
        })
    }
}

fn key_prefix(read: &Reader<impl Environment>) -> String {
    let prefix = read.text("REDIS_KEY_PREFIX").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"{}:_-.".contains(&byte);
    if prefix.len() > 64 || !prefix.bytes().all(plain) {
        let rule = "at most 64 letters, digits and { } : _ - .";
        read.mistake("REDIS_KEY_PREFIX", Some(prefix), rule);
        return String::new();
    }
    prefix
}

/// Tells whether keys with this prefix share a slot: redis.io, "Redis cluster specification", hash
/// tags. What counts is the first opening brace and the first closing one after it.
fn has_hash_tag(key_prefix: &str) -> bool {
    let tag = key_prefix
        .split_once('{')
        .and_then(|(_, tag)| tag.split_once('}'));
    tag.is_some_and(|(tag, _)| !tag.is_empty())
}

fn is_address(url: &str) -> bool {
    let scheme = url.starts_with("redis://") || url.starts_with("rediss://");
    scheme && redis::Client::open(url).is_ok()
}

impl std::str::FromStr for RedisOutage {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "bounded" => Ok(Self::Bounded),
            "open" => Ok(Self::Open),
            "closed" => Ok(Self::Closed),
            _ => Err(()),
        }
    }
}
