//! A Redis of our own, without a disk: one that is started again is empty.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, cmd};
use tokio::time::{Instant, sleep};

use crate::cluster::{ATTEMPTS, Process, Signal, ports, until_ready};

/// How long a Redis that is asked may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the replicas of a new cluster may take until they trust its Redis.
const SETTLING: Duration = Duration::from_secs(15);
/// A little more than the time between two of a replica's looks at Redis.
const TICK: Duration = Duration::from_millis(1_250);
/// How many keys are asked about at once.
const BATCH: usize = 1_000;

pub struct Redis {
    process: Process,
    port: u16,
}

/// What is known of a key, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    /// Whether it vanishes by itself.
    pub expires: bool,
}

impl Redis {
    pub(super) async fn start(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let mut attempt = 1;
        loop {
            let port = ports::free()?;
            let port_text = port.to_string();
            let process = Process::new(name, "redis-server", directory).arguments([
                "--bind",
                "127.0.0.1",
                "--port",
                &port_text,
                "--save",
                "",
                "--appendonly",
                "no",
                "--maxmemory-policy",
                "noeviction",
                // What it did in which time is read after a run.
                "--slowlog-log-slower-than",
                "10000",
                // One that follows another gets everything at once, and not after 5 s.
                "--repl-diskless-sync-delay",
                "0",
                // What it got is not read by whoever is started here next.
                "--rdb-del-sync-files",
                "yes",
            ]);
            let mut redis = Self { process, port };
            match redis.restart().await {
                Ok(()) => return Ok(redis),
                Err(error) if attempt == ATTEMPTS => {
                    return Err(error.context("no Redis: apt-get install redis-server"));
                }
                Err(_) => attempt += 1,
            }
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn url(&self) -> String {
        url(self.address())
    }

    /// Kills it, with all it knew, and waits until it is dead.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()
    }

    /// Starts it again, empty, and waits until it answers.
    ///
    /// # Errors
    /// If it runs already, or does not become ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.process.start()?;
        let url = self.url();
        until_ready(&mut self.process, async || {
            let pong: anyhow::Result<String> = ask(&url, cmd("PING")).await;
            pong.is_ok()
        })
        .await
    }

    /// Makes it hang, with its sockets open.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::Stop)
    }

    /// # Errors
    /// If it does not run.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::Continue)
    }

    /// Makes it one that has served before: replicas trust it from the first moment. One that is
    /// empty has them wait behind the gate, which figures see that empty it.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) async fn make_known(&self) -> anyhow::Result<()> {
        let mut set = cmd("SET");
        set.arg("calls:gen").arg("of a cluster on loopback");
        self.ask(set).await
    }

    /// Lets a user in by a password, who may do everything.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) async fn let_in(&self, name: &str, password: &str) -> anyhow::Result<()> {
        let mut set = cmd("ACL");
        set.arg(&["SETUSER", name, "on", "~*", "&*", "+@all"])
            .arg(format!(">{password}"));
        self.ask(set).await
    }

    /// Makes it forget everything.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn flush(&self) -> anyhow::Result<()> {
        self.ask(cmd("FLUSHALL")).await
    }

    /// Makes it a copy of `primary` that follows what that one does, and waits until it is one.
    ///
    /// # Errors
    /// If it is none in time.
    pub async fn follow(&self, primary: &Self) -> anyhow::Result<()> {
        let mut follow = cmd("REPLICAOF");
        follow
            .arg(primary.address().ip().to_string())
            .arg(primary.port);
        self.ask::<()>(follow).await?;
        let began = Instant::now();
        let mut replication = cmd("INFO");
        replication.arg("replication");
        loop {
            let says: String = self.ask(replication.clone()).await?;
            if says.contains("master_link_status:up") {
                return Ok(());
            }
            ensure!(began.elapsed() < SETTLING, "it does not follow: {says}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Makes it follow nobody, with what it knows by now.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn promote(&self) -> anyhow::Result<()> {
        let mut promote = cmd("REPLICAOF");
        promote.arg("NO").arg("ONE");
        self.ask(promote).await
    }

    /// Counts the leases that the replica of this name looks after.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn held_by(&self, replica: &str) -> anyhow::Result<usize> {
        let calls = self.leased().await?.into_iter();
        let owners: Vec<String> = calls.map(|call| format!("calls:active:{call}")).collect();
        let owners = self.get_all(&owners).await?.into_iter().flatten();
        // An epoch, and who has it.
        let owners = owners.filter_map(|it| it.split_once(' ').map(|(_, owner)| owner == replica));
        Ok(owners.filter(|is_its| *is_its).count())
    }

    /// Waits until the replicas of a new cluster have found each other: one that does not trust its
    /// Redis yet admits only its share.
    pub(super) async fn until_settled(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let marked = self.count("EXISTS", "calls:gen").await?;
            let gated = self.count("EXISTS", "calls:gen:recover").await?;
            if marked == 1 && gated == 0 {
                // Each replica hears of it at its next tick.
                sleep(TICK).await;
                return Ok(());
            }
            ensure!(
                began.elapsed() < SETTLING,
                "no replica has registered, or the gate stays up: calls:gen {marked}, \
                 calls:gen:recover {gated}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lists the calls whose lease has not lapsed: what admission counts.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn leased(&self) -> anyhow::Result<HashSet<String>> {
        let (seconds, micros): (u64, u64) = self.ask(cmd("TIME")).await?;
        let now = seconds * 1_000 + micros / 1_000;
        let mut live = cmd("ZRANGEBYSCORE");
        live.arg("calls:lease").arg(format!("({now}")).arg("+inf");
        self.ask(live).await
    }

    /// Asks for a number about a key, such as its value or its size; one that is gone counts as 0.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn count(&self, command: &str, key: &str) -> anyhow::Result<u64> {
        let mut command = cmd(command);
        command.arg(key);
        let count: Option<u64> = self.ask(command).await?;
        Ok(count.unwrap_or_default())
    }

    /// Reads strings, where there are any.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn get_all(&self, keys: &[String]) -> anyhow::Result<Vec<Option<String>>> {
        let mut connection = connect(&self.url()).await?;
        let mut values = Vec::with_capacity(keys.len());
        for batch in keys.chunks(BATCH) {
            let mut mget = cmd("MGET");
            mget.arg(batch);
            let some: Vec<Option<String>> = mget.query_async(&mut connection).await?;
            values.extend(some);
        }
        Ok(values)
    }

    /// Lists every key there is.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn keys(&self) -> anyhow::Result<Vec<Key>> {
        let mut connection = connect(&self.url()).await?;
        let mut keys = cmd("KEYS");
        keys.arg("*");
        let names: Vec<String> = keys.query_async(&mut connection).await?;
        let mut keys = Vec::with_capacity(names.len());
        for batch in names.chunks(BATCH) {
            let mut times = redis::pipe();
            for name in batch {
                times.cmd("PTTL").arg(name);
            }
            let times: Vec<i64> = times.query_async(&mut connection).await?;
            let batch = batch.iter().zip(times);
            // -2 says that it has gone since it was listed: redis.io/commands/pttl.
            keys.extend(
                batch
                    .filter(|(_, time)| *time != -2)
                    .map(|(name, time)| Key {
                        name: name.clone(),
                        expires: 0 <= time,
                    }),
            );
        }
        Ok(keys)
    }

    async fn ask<T: FromRedisValue>(&self, command: redis::Cmd) -> anyhow::Result<T> {
        ask(&self.url(), command).await
    }
}

/// Returns what a replica has to be told to reach a Redis there.
fn url(address: SocketAddr) -> String {
    format!("redis://{address}/0")
}

/// Asks on a connection of its own: one that is kept would not survive what is done to Redis here.
async fn ask<T: FromRedisValue>(url: &str, command: redis::Cmd) -> anyhow::Result<T> {
    let mut connection = connect(url).await?;
    Ok(command.query_async(&mut connection).await?)
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let client = Client::open(url)?;
    let connection = client.get_multiplexed_async_connection_with_config(&config);
    connection.await.context("Redis cannot be asked")
}
