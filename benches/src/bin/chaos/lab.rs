//! What the figures share: numbers, clusters, and how they are concluded.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::Context;
use callgate_benches::cluster::{Cluster, Options};
use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use crate::postgres_server::PostgresServer;
use crate::statistics::store_patience_ms;

/// How many replicas a cluster has.
pub const REPLICAS: usize = 3;

/// What all figures are measured with.
pub struct Lab {
    pub seed: u64,
    pub short: bool,
    pub memory: bool,
    pub gateway: PathBuf,
    /// How long replaced replicas may take, in seconds, where that was said.
    pub window: Option<u64>,
    /// The network outside, where this is a figure's own one.
    pub outside: Option<String>,
    /// The server that all figures share, once one of them has asked for a database.
    pub postgres: OnceCell<PostgresServer>,
}

/// What a figure came to.
#[derive(Serialize, Deserialize)]
pub struct Verdict {
    pub passed: bool,
    /// For people.
    pub line: String,
    pub parameters: Value,
    pub result: Value,
    pub samples: Value,
    pub logs: Option<PathBuf>,
}

impl Verdict {
    /// Puts the parts of a figure together: it has passed if all of them have.
    pub fn of(parts: Vec<(String, Self)>, parameters: Value) -> Self {
        let mut all = Self {
            passed: true,
            line: String::new(),
            parameters,
            result: Value::Null,
            samples: Value::Null,
            logs: None,
        };
        let (mut lines, mut results, mut samples) = (Vec::new(), Map::new(), Map::new());
        for (name, part) in parts {
            all.passed &= part.passed;
            all.logs = all.logs.or(part.logs);
            lines.push(part.line);
            results.insert(name.clone(), part.result);
            samples.insert(name, part.samples);
        }
        all.line = lines.join("; ");
        all.result = Value::Object(results);
        all.samples = Value::Object(samples);
        all
    }
}

impl Lab {
    /// Returns the first number, or the second one in a short run.
    pub fn or_short<T>(&self, long: T, short: T) -> T {
        if self.short { short } else { long }
    }

    /// Returns a source of choices that is a figure's own: it does not matter which others ran.
    pub fn random(&self, figure: &str) -> StdRng {
        let mut hasher = DefaultHasher::new(); // Keys are constant, so a seed means the same always.
        figure.hash(&mut hasher);
        StdRng::seed_from_u64(self.seed ^ hasher.finish())
    }

    /// Describes three replicas with Redis, or one with its slots in memory.
    pub fn options(&self) -> Options {
        let options = if self.memory {
            Options::new(self.gateway.clone(), 1).without_redis()
        } else {
            Options::new(self.gateway.clone(), REPLICAS)
        };
        options.set("REDIS_TIMEOUT_MS", store_patience_ms())
    }

    /// Returns the address of a Postgres database that is made for a figure.
    ///
    /// # Errors
    /// If there is no server to be had.
    pub async fn postgres(&self, name: &str) -> anyhow::Result<String> {
        // Beside whatever else is measured: making one takes seconds.
        let start = async || spawn_blocking(PostgresServer::start).await;
        let server = self.postgres.get_or_try_init(start).await;
        Ok(server.context("no Postgres")?.database(name))
    }

    /// Shows how far something is, if somebody watches.
    #[expect(clippy::unused_self, reason = "whoever measures has a lab to ask")]
    pub fn bar(&self, length: u64, what: &'static str) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg:<14} {bar:40} {pos}/{len}  {elapsed}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length)
            .with_style(style)
            .with_message(what)
    }
}

/// Runs a command to its end, while whatever else is measured goes on: one thread serves all of it, a
/// receiver of events that has to answer in time included.
///
/// # Errors
/// If it cannot be run.
pub async fn output_of(mut command: Command) -> anyhow::Result<Output> {
    Ok(spawn_blocking(move || command.output()).await??)
}

/// Keeps the logs of a cluster whose figure did not pass, and says where they are.
pub fn conclude(
    cluster: &mut Cluster,
    measured: anyhow::Result<Verdict>,
) -> anyhow::Result<Verdict> {
    match measured {
        Ok(verdict) if verdict.passed => Ok(verdict),
        Ok(verdict) => Ok(Verdict {
            logs: Some(cluster.keep_directory().to_owned()),
            ..verdict
        }),
        Err(error) => {
            let logs = cluster.keep_directory().display();
            Err(error.context(format!("logs are in {logs}")))
        }
    }
}
