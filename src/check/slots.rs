//! The store that slots are in: what kind of server it is, and whether it lets us write.

use crate::{
    admission::{RedisStore, StoreError},
    check::{
        clock::{self, Clock},
        finding::Finding,
    },
    config::{Config, RedisSettings},
    telemetry::CapacityMetrics,
};

pub async fn probe(config: &Config) -> Vec<Finding> {
    let Some(redis) = &config.store.redis else {
        return vec![Finding::SlotsInMemory];
    };
    let mut findings = Vec::new();
    if let Err(error) = try_out(config, redis, &mut findings).await {
        findings.push(Finding::SlotsFail(error));
    }
    findings
}

async fn try_out(
    config: &Config,
    redis: &RedisSettings,
    findings: &mut Vec<Finding>,
) -> Result<(), StoreError> {
    let metrics = CapacityMetrics::new();
    let store = RedisStore::new(redis, "a check".to_owned(), config.caps.lease, metrics)?;
    let server = store.inspect().await?;
    findings.extend(server.flaws().into_iter().map(|flaw| Finding::SlotsFlawed {
        fatal: flaw.is_fatal(config.production),
        flaw,
    }));
    // Before this process counts as a replica for a moment.
    let before = clock::now();
    let looked = store.look_around().await?;
    let ours = (before, clock::now());
    store.try_out().await?;
    findings.push(Finding::SlotsFit(server.server));
    findings.push(clock::compare(Clock::Redis, ours, looked.now, 1));
    let expected = config.store.expected_replicas;
    findings.push(if looked.replicas > expected {
        Finding::ReplicasMore {
            live: looked.replicas,
            expected,
        }
    } else {
        Finding::ReplicasFit(looked.replicas)
    });
    Ok(())
}
