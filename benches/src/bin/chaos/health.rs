//! What replicas say of how they stand with Redis.

use std::time::Duration;

use anyhow::Context;
use callgate_benches::cluster::Replica;
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// How long replicas may take until they are well again.
pub const RECOVERY: Duration = Duration::from_secs(10);

/// Counts the replicas that say they are degraded.
pub async fn degraded(replicas: &[Replica]) -> anyhow::Result<usize> {
    let mut degraded = 0;
    for replica in replicas {
        let details = replica.page("/health/details").await?;
        let says = details
            .get("degraded")
            .context("/health/details says nothing of `degraded`")?;
        // A word, a list of words, or yes and no.
        degraded += usize::from(match says {
            Value::Null => false,
            Value::Bool(is) => *is,
            Value::String(what) => !matches!(what.as_str(), "" | "none" | "no"),
            Value::Array(what) => !what.is_empty(),
            Value::Object(what) => !what.is_empty(),
            Value::Number(what) => what.as_f64().is_some_and(|what| what > 0.0),
        });
    }
    Ok(degraded)
}

/// Waits until no replica says that it is degraded.
pub async fn until_recovered(replicas: &[Replica]) -> anyhow::Result<Option<Duration>> {
    let began = Instant::now();
    while began.elapsed() < RECOVERY {
        if degraded(replicas).await? == 0 {
            return Ok(Some(began.elapsed()));
        }
        sleep(Duration::from_millis(50)).await;
    }
    Ok(None)
}
