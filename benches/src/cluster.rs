//! A whole cluster of real processes on loopback: Redis, replicas of callgate, and nginx.
//!
//! Invariant: only what was started here is signalled, by its id, and all of it is dead after
//! `drop`; if this process dies in a way that leaves no time for that, the kernel sees to it.

mod leftovers;
mod parrot;
mod ports;
mod process;
mod proxy;
mod redis;
mod replica;
mod report;

use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub use leftovers::leftovers;
pub use parrot::Parrot;
pub use ports::free as free_port;
pub use process::{Process, Signal};
pub use proxy::{Proxy, Way};
pub use redis::{Key, Redis};
pub use replica::Replica;
pub use report::{Report, credentials};

use crate::carrier::Carrier;
use crate::http::Http;

/// How long a process may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often a program is started on another port after the first one was taken.
const ATTEMPTS: u32 = 3;

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program of a replica.
    pub gateway: PathBuf,
    pub replicas: usize,
    /// Without it each replica keeps its slots in memory.
    pub redis: bool,
    /// Who asks Redis, and by which password; everybody may where this is nobody in particular.
    pub redis_user: Option<(String, String)>,
    pub proxied: Proxied,
    /// Settings of all replicas, beside those that make them a cluster.
    pub settings: Vec<(String, String)>,
}

/// Who reaches Redis by a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxied {
    Nobody,
    /// The first replica alone.
    One,
    Everybody,
}

/// A running cluster.
pub struct Cluster {
    pub redis: Option<Redis>,
    /// The way to Redis of those that reach it by a proxy.
    pub proxy: Option<Proxy>,
    pub replicas: Vec<Replica>,
    pub nginx: Process,
    /// Where nginx listens.
    pub door: SocketAddr,
    /// Logs and configurations; removed with the cluster unless it is kept.
    directory: TempDir,
}

impl Options {
    pub fn new(gateway: PathBuf, replicas: usize) -> Self {
        Self {
            gateway,
            replicas,
            redis: true,
            redis_user: None,
            proxied: Proxied::Nobody,
            settings: Vec::new(),
        }
    }

    #[must_use]
    pub fn set(mut self, name: &str, value: impl Display) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    #[must_use]
    pub fn by_proxy(mut self, proxied: Proxied) -> Self {
        self.proxied = proxied;
        self
    }

    /// Has replicas ask Redis as a user with a password.
    #[must_use]
    pub fn redis_user(mut self, name: &str, password: &str) -> Self {
        self.redis_user = Some((name.to_owned(), password.to_owned()));
        self
    }

    #[must_use]
    pub fn without_redis(mut self) -> Self {
        self.redis = false;
        self
    }
}

impl Cluster {
    /// Starts everything and waits until all of it is ready.
    ///
    /// Has to be called on a thread that lives as long as the cluster: the kernel kills the
    /// processes when the thread that started them ends.
    ///
    /// # Errors
    /// If something does not start. Nothing is left running then.
    pub async fn start(options: &Options) -> anyhow::Result<Self> {
        let directory = TempDir::with_prefix("callgate-cluster-")?;
        let redis = if options.redis {
            let redis = Redis::start(directory.path(), "redis").await?;
            redis.make_known().await?;
            if let Some((name, password)) = &options.redis_user {
                redis.let_in(name, password).await?;
            }
            Some(redis)
        } else {
            None
        };
        let proxy = match (&redis, options.proxied) {
            (None, _) | (_, Proxied::Nobody) => None,
            (Some(redis), Proxied::One | Proxied::Everybody) => {
                Some(Proxy::start(redis.address())?)
            }
        };
        // Below the ports of outgoing connections, and tried: nginx is started last, so that it is
        // given the replicas that there are.
        let door = SocketAddr::from(([127, 0, 0, 1], ports::free()?));
        let mut replicas = Vec::new();
        for number in 1..=options.replicas {
            let by_proxy = proxy.as_ref().filter(|_| match options.proxied {
                Proxied::Nobody => false,
                Proxied::One => number == 1,
                Proxied::Everybody => true,
            });
            let direct = redis.as_ref().map(Redis::address);
            let store = by_proxy.map(Proxy::address).or(direct);
            let environment = environment(options, store, door);
            let gateway = &options.gateway;
            replicas
                .push(Replica::start_new(number, gateway, environment, directory.path()).await?);
        }
        let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.address).collect();
        let nginx = start_nginx(directory.path(), door, &addresses).await?;
        if let Some(redis) = &redis {
            redis.until_settled().await?;
        }
        Ok(Self {
            redis,
            proxy,
            replicas,
            nginx,
            door,
            directory,
        })
    }

    /// Returns a carrier whose calls come in by nginx.
    pub fn carrier(&self) -> Carrier {
        Carrier::new(format!("http://{}", self.door), self.door)
    }

    /// Returns where each replica listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.replicas.iter().map(|replica| replica.address);
        addresses.collect()
    }

    /// Returns the Redis.
    ///
    /// # Errors
    /// If the cluster was started without one.
    pub fn redis(&mut self) -> anyhow::Result<&mut Redis> {
        self.redis.as_mut().context("this cluster has no Redis")
    }

    /// Returns the proxy before Redis.
    ///
    /// # Errors
    /// If the cluster was started without one.
    pub fn proxy(&self) -> anyhow::Result<&Proxy> {
        self.proxy.as_ref().context("this cluster has no proxy")
    }

    /// Starts a second Redis, which no replica knows of.
    ///
    /// # Errors
    /// If it does not become ready.
    pub async fn start_second_redis(&self) -> anyhow::Result<Redis> {
        Redis::start(self.directory.path(), "redis-2").await
    }

    /// Returns where logs and configurations are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Keeps logs and configurations, and returns where they are.
    pub fn keep_directory(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }
}

/// Tells nginx apart from whatever else is wrong with a machine: its configuration is tried first.
async fn start_nginx(
    directory: &Path,
    door: SocketAddr,
    replicas: &[SocketAddr],
) -> anyhow::Result<Process> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/nginx-conf");
    let rendered = Command::new(&script)
        .arg(directory)
        .arg(door.to_string())
        .args(replicas.iter().map(SocketAddr::to_string))
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    let complaint = String::from_utf8_lossy(&rendered.stderr);
    ensure!(rendered.status.success(), "{complaint}");
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, rendered.stdout)?;
    let (directory_text, configuration) = (text(directory)?, text(&configuration)?);
    let log = format!("{directory_text}/nginx-error.log");
    let arguments = ["-p", directory_text, "-c", configuration, "-e", &log, "-g"];
    let tried = Command::new("nginx")
        .args(arguments)
        .args(["daemon off;", "-t"])
        .output();
    let tried = tried.context("cannot run nginx: apt-get install nginx-light")?;
    let complaint = String::from_utf8_lossy(&tried.stderr);
    ensure!(tried.status.success(), "{complaint}");
    let mut nginx = Process::new("nginx", "nginx", directory)
        .arguments(arguments)
        .arguments(["daemon off;"])
        // Killed by force, it would leave its workers behind.
        .ends_by(Signal::Terminate);
    nginx.start()?;
    until_ready(&mut nginx, async || {
        Http::default()
            .get(door, "/health/live", Duration::from_secs(1))
            .await
            .is_ok_and(|reply| reply.status == 200)
    })
    .await?;
    Ok(nginx)
}

fn environment(
    options: &Options,
    store: Option<SocketAddr>,
    door: SocketAddr,
) -> Vec<(String, String)> {
    let mut environment: Vec<(String, String)> = [
        ("PUBLIC_URL", format!("http://{door}").as_str()),
        ("TWILIO_AUTH_TOKEN", crate::carrier::AUTH_TOKEN),
        ("TICKET_SECRET", "of a cluster on loopback"),
        ("AGENT_GREETING", "none"),
        ("WORKERS", "1"),
        ("LOG_FORMAT", "json"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if let Some(store) = store {
        let replicas = options.replicas.to_string();
        let user = options.redis_user.as_ref();
        let user = user.map_or(String::new(), |(name, password)| {
            format!("{name}:{password}@")
        });
        let url = format!("redis://{user}{store}/0");
        environment.push(("REDIS_URL".to_owned(), url));
        environment.push(("EXPECTED_REPLICAS".to_owned(), replicas));
    }
    environment.extend_from_slice(&options.settings);
    environment
}

/// Waits until `is_ready`.
///
/// # Errors
/// If the process ends, or takes too long.
pub async fn until_ready(
    process: &mut Process,
    is_ready: impl AsyncFn() -> bool,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !is_ready().await {
        if let Some(status) = process.ended()? {
            bail!(
                "{} ended: {status}\n{}",
                process.name(),
                process.last_words()
            );
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "{} is not ready after {PATIENCE:?}\n{}",
            process.name(),
            process.last_words()
        );
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .context("the temporary directory has an odd name")
}
