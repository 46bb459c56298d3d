//! How many calls there may be.

use std::time::Duration;

use crate::config::{
    StoreSettings,
    reader::{Environment, Reader},
};

/// The names of the global cap.
const GLOBAL: [&str; 2] = ["MAX_ACTIVE_CALLS", "TELEPHONY_GLOBAL_MAX_CONCURRENCY"];

/// How many live calls each scope may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// `MAX_ACTIVE_CALLS`, also called `TELEPHONY_GLOBAL_MAX_CONCURRENCY` and
    /// `MAX_CONCURRENT_CALLS`. Default 50, in production 15.
    pub global: u32,
    /// `MAX_CALLS_PER_TENANT`. Default: the global cap.
    pub tenant: u32,
    /// `TELEPHONY_PER_CAMPAIGN_MAX_CONCURRENCY`: the default campaign's. Default: none of its own.
    pub campaign: Option<u32>,
    /// `MAX_SETUP_CALLS`: calls whose media has not arrived. Default: the global cap.
    pub setup: u32,
    /// `MAX_OUTBOUND_CALLS`, also called `MAX_CONCURRENT_CALLS` where a global cap is set: calls
    /// that we place. Default 10.
    pub outbound: u32,
    /// `MAX_CONNECTIONS`: media sockets of this replica. Default 100, or the global cap if that
    /// is larger and nobody else could take the rest.
    pub connections: u32,
    /// `TELEPHONY_SEMAPHORE_TTL_SEC` bounds it from above. Default 30 s.
    pub lease: Duration,
    /// `CALLS_CAPACITY_LOG_LEVEL`. Default `WARNING`.
    pub log_level: tracing::Level,
}

impl Caps {
    pub(super) fn load(
        read: &Reader<impl Environment>,
        production: bool,
        store: &StoreSettings,
    ) -> Self {
        let global = global_cap(read).unwrap_or(if production { 15 } else { 50 });
        let tenant = read.cap("MAX_CALLS_PER_TENANT").unwrap_or(global);
        let caps = Self {
            global,
            tenant,
            campaign: read.cap("TELEPHONY_PER_CAMPAIGN_MAX_CONCURRENCY"),
            setup: read.cap("MAX_SETUP_CALLS").unwrap_or(global),
            outbound: outbound_cap(read).unwrap_or(10),
            connections: read
                .cap("MAX_CONNECTIONS")
                .unwrap_or(if store.redis.is_some() {
                    100
                } else {
                    global.max(100)
                }),
            lease: lease(read),
            log_level: log_level(read),
        };
        for (name, cap) in [
            ("MAX_CALLS_PER_TENANT", caps.tenant),
            (
                "TELEPHONY_PER_CAMPAIGN_MAX_CONCURRENCY",
                caps.campaign.unwrap_or(0),
            ),
        ] {
            if cap > global {
                read.warning(format!(
                    "{name}={cap} can never be reached: {global} calls at most"
                ));
            }
        }
        let replicas = store.expected_replicas;
        if store.redis.is_none() && caps.connections < global {
            read.warning(format!(
                "MAX_CONNECTIONS={} is below the {global} calls that may be live: a replica \
                 alone turns the rest away",
                caps.connections
            ));
        } else if caps.connections.saturating_mul(replicas) < global {
            read.warning(format!(
                "MAX_CONNECTIONS={} on EXPECTED_REPLICAS={replicas} is below the {global} calls \
                 that may be live: they turn the rest away unless there are more of them",
                caps.connections
            ));
        }
        caps
    }
}

/// The smaller of the two names counts; a third one does when neither is set.
fn global_cap(read: &Reader<impl Environment>) -> Option<u32> {
    let caps = GLOBAL.map(|name| read.cap(name));
    if let [Some(first), Some(second)] = caps
        && first != second
    {
        let counts = if first < second { GLOBAL[0] } else { GLOBAL[1] };
        read.warning(format!(
            "{}={first} and {}={second}: {counts} counts",
            GLOBAL[0], GLOBAL[1]
        ));
    }
    let smaller = caps.into_iter().flatten().min();
    smaller.or_else(|| read.cap("MAX_CONCURRENT_CALLS"))
}

/// `MAX_CONCURRENT_CALLS` means this cap where the global one is set beside it.
fn outbound_cap(read: &Reader<impl Environment>) -> Option<u32> {
    let is_global_set = GLOBAL.iter().any(|name| read.text(name).is_some());
    let other = || is_global_set.then(|| read.cap("MAX_CONCURRENT_CALLS"));
    read.cap("MAX_OUTBOUND_CALLS").or_else(|| other()?)
}

fn lease(read: &Reader<impl Environment>) -> Duration {
    let bound = read.number("TELEPHONY_SEMAPHORE_TTL_SEC", 3_600, 0..=u64::MAX);
    if bound < 15 {
        read.warning(format!("TELEPHONY_SEMAPHORE_TTL_SEC={bound} counts as 15"));
    }
    Duration::from_secs(bound.clamp(15, 30))
}

fn log_level(read: &Reader<impl Environment>) -> tracing::Level {
    match read
        .text("CALLS_CAPACITY_LOG_LEVEL")
        .map(|level| level.to_ascii_uppercase())
    {
        None => tracing::Level::WARN,
        Some(level) => match level.as_str() {
            "DEBUG" => tracing::Level::DEBUG,
            "INFO" => tracing::Level::INFO,
            "WARN" | "WARNING" => tracing::Level::WARN,
            "ERROR" => tracing::Level::ERROR,
            _ => {
                let rule = "DEBUG, INFO, WARNING or ERROR";
                read.mistake("CALLS_CAPACITY_LOG_LEVEL", Some(level), rule);
                tracing::Level::WARN
            }
        },
    }
}
