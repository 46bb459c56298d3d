//! What replicas take up, and what is written down, at one moment.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::cluster::{Cluster, Redis, Replica, leftovers};
use callgate_benches::http::Http;
use callgate_benches::machine::field;
use serde::Serialize;
use sqlx::{AnyConnection, Connection, Row};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(5);

/// What one replica takes up.
#[derive(Debug, Clone, Serialize)]
pub struct Taken {
    pub rss_kib: u64,
    /// What of it is not mapped from files, as the program's text is, which the kernel brings in and
    /// drops as it sees fit.
    pub anonymous_kib: u64,
    /// The kernel's: a thread of the process each.
    pub tasks: usize,
    pub descriptors: usize,
    /// Media sockets, each of which is a task of the gateway's.
    pub connections: u64,
    pub series: usize,
}

/// One line of the file.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    pub at_seconds: f64,
    pub phase: Phase,
    pub replicas: Vec<Taken>,
    pub redis_keys: usize,
    /// Those that have no business in an empty house.
    pub redis_leftovers: usize,
    pub leases: usize,
    pub calls: u64,
    pub open_calls: u64,
    pub steps: u64,
    /// Of all that the cluster writes: logs, and records in SQLite.
    pub disk_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// After a few calls and before the others.
    Baseline,
    WarmUp,
    Measured,
    Drained,
}

/// Looks at a cluster.
pub struct Looker {
    http: Http,
    database: AnyConnection,
    /// Where records in SQLite are.
    records: PathBuf,
    began: Instant,
}

impl Looker {
    /// # Errors
    /// If the database cannot be read.
    pub async fn new(url: &str, records: &Path) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        let database = AnyConnection::connect(url).await;
        Ok(Self {
            http: Http::default(),
            database: database.context("the database cannot be read")?,
            records: records.to_owned(),
            began: Instant::now(),
        })
    }

    /// # Errors
    /// If a replica has died, or something does not answer.
    pub async fn look(&mut self, cluster: &Cluster, phase: Phase) -> anyhow::Result<Sample> {
        let mut replicas = Vec::new();
        for replica in &cluster.replicas {
            replicas.push(self.taken(replica).await?);
        }
        let redis = cluster.redis.as_ref().context("there is no Redis")?;
        let (redis_keys, redis_leftovers) = keys(redis).await?;
        Ok(Sample {
            at_seconds: (self.began.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            phase,
            replicas,
            redis_keys,
            redis_leftovers,
            leases: redis.leased().await?.len(),
            calls: self.count("SELECT COUNT(*) FROM calls").await?,
            open_calls: self
                .count("SELECT COUNT(*) FROM calls WHERE rank < 90")
                .await?,
            steps: self.count("SELECT COUNT(*) FROM steps").await?,
            disk_bytes: size(cluster.directory())? + size(&self.records)?,
        })
    }

    async fn taken(&self, replica: &Replica) -> anyhow::Result<Taken> {
        let pid = replica.pid().context("a replica does not run")?;
        let process = Path::new("/proc").join(pid.to_string());
        let status = fs::read_to_string(process.join("status")).context("a replica has died")?;
        let kib = |name| {
            let value = field(&status, name).and_then(|value| value.split(' ').next());
            value.context("the kernel says nothing of memory")
        };
        let metrics = self.http.get(replica.address, "/metrics", PATIENCE).await?;
        ensure!(
            metrics.status == 200,
            "/metrics answered {}",
            metrics.status
        );
        let stats = replica.page("/stats").await?;
        Ok(Taken {
            rss_kib: kib("VmRSS:")?.parse()?,
            anonymous_kib: kib("RssAnon:")?.parse()?,
            tasks: fs::read_dir(process.join("task"))?.count(),
            descriptors: fs::read_dir(process.join("fd"))?.count(),
            connections: stats["active_connections"]
                .as_u64()
                .context("/stats says nothing of connections")?,
            series: series(&metrics.body),
        })
    }

    async fn count(&mut self, question: &'static str) -> anyhow::Result<u64> {
        let row = sqlx::query(question).fetch_one(&mut self.database).await?;
        let count: i64 = row.try_get(0)?;
        Ok(count.try_into()?)
    }
}

/// Counts the keys, and those that have no business in an empty house.
async fn keys(redis: &Redis) -> anyhow::Result<(usize, usize)> {
    let keys = redis.keys().await?;
    Ok((keys.len(), leftovers(&keys).len()))
}

/// Counts lines that are no comments.
fn series(metrics: &str) -> usize {
    let lines = metrics.lines();
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .count()
}

/// Returns how many bytes the files of a directory have.
fn size(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(directory)? {
        // One that has gone meanwhile takes up nothing.
        bytes += file?.metadata().map_or(0, |file| file.len());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_series() {
        assert_eq!(
            series("# HELP a b\n# TYPE a counter\na_total{x=\"#\"} 1\na_total 2\n\n# EOF\n"),
            2
        );
    }
}
