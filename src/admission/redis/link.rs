//! The connection to Redis: one for all operations, made anew when it fails.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use redis::{
    Client, Cmd, ErrorKind, IntoConnectionInfo, Pipeline, RedisResult, ScriptInvocation,
    ServerErrorKind, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};
use secrecy::ExposeSecret;

use crate::{
    admission::redis::{PATIENCE, StoreError, bounded},
    config::RedisSettings,
};

/// The first version with all that the scripts use.
const OLDEST: (u32, u32) = (6, 2);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How long sent commands may stay unacknowledged before the connection counts as lost.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// How often a script is tried on a server that has forgotten it again since it was taught it.
const TRIES: usize = 3;

/// What makes connections, and the one there is.
pub struct Link {
    client: Maker,
    connection: Mutex<Option<Connection>>,
}

enum Maker {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
}

/// A connection, shared by all who clone it.
#[derive(Clone)]
pub enum Connection {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

/// What a server is like, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// `redis` or `valkey`, and its version.
    pub server: String,
    /// The version of Redis that it is compatible with.
    pub version: (u32, u32),
    /// What it does when its memory is full; empty where it does not say.
    pub eviction: String,
    pub is_replica: bool,
    /// Whether it is a cluster and we were not told.
    pub is_cluster: bool,
}

/// Why a server is not fit for slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("{0} is too old for slots: it takes Redis 6.2 or a later one")]
    TooOld(String),
    #[error(
        "the slot store evicts keys when it is full ({0}), which forgets live calls: set \
         maxmemory-policy to noeviction"
    )]
    Evicts(String),
    #[error("the slot store is a read-only replica: name its primary")]
    ReadOnly,
    #[error(
        "the slot store is a Redis Cluster: set REDIS_CLUSTER=1 and a REDIS_KEY_PREFIX in braces"
    )]
    IsCluster,
}

impl Link {
    pub fn new(settings: &RedisSettings) -> RedisResult<Self> {
        let info = settings.url.expose_secret().into_connection_info()?;
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_user_timeout(UNACKNOWLEDGED);
        let client = if settings.cluster {
            let builder = ClusterClient::builder([info])
                .connection_timeout(CONNECT)
                .response_timeout(PATIENCE)
                .tcp_settings(tcp)
                .retries(1);
            Maker::Cluster(Box::new(builder.build()?))
        } else {
            Maker::Single(Box::new(Client::open(info.set_tcp_settings(tcp))?))
        };
        Ok(Self {
            client,
            connection: Mutex::default(),
        })
    }

    /// Returns the connection, if there is one.
    pub fn connected(&self) -> Result<Connection, StoreError> {
        let connection = self.lock().clone();
        connection.ok_or(StoreError::Away)
    }

    /// Connects, unless there is a connection already.
    pub async fn connect(&self) -> Result<(), StoreError> {
        if self.lock().is_some() {
            return Ok(());
        }
        let connection = bounded(CONNECT * 2, self.client.connection()).await?;
        *self.lock() = Some(connection);
        Ok(())
    }

    pub fn forget(&self) {
        *self.lock() = None;
    }

    pub async fn inspect(&self) -> Result<Inspection, StoreError> {
        self.connect().await?;
        let mut connection = self.connected()?;
        let mut info = Cmd::new();
        info.arg("INFO");
        let info = bounded(CONNECT, connection.command(&info)).await?;
        // A cluster answers for each of its nodes: one speaks for all.
        let info = if let Value::Map(nodes) = info {
            let first = nodes.into_iter().next();
            first.map_or(Value::Nil, |(_, info)| info)
        } else {
            info
        };
        let info: String =
            redis::from_redis_value(info).map_err(|_| StoreError::Garbled("INFO"))?;
        let knows_cluster = matches!(self.client, Maker::Cluster(_));
        Ok(Inspection::read(&info, knows_cluster))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Maker {
    async fn connection(&self) -> RedisResult<Connection> {
        match self {
            Self::Single(client) => {
                // The next heartbeat is the next try.
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(CONNECT))
                    .set_response_timeout(Some(PATIENCE))
                    .set_number_of_retries(1)
                    .set_pipeline_buffer_size(256);
                let manager = ConnectionManager::new_with_config(*client.clone(), config);
                Ok(Connection::Single(manager.await?))
            }
            Self::Cluster(client) => Ok(Connection::Cluster(client.get_async_connection().await?)),
        }
    }
}

impl Connection {
    pub async fn script(&mut self, script: &ScriptInvocation<'static>) -> RedisResult<Value> {
        match self {
            Self::Single(connection) => run(connection, script).await,
            Self::Cluster(connection) => run(connection, script).await,
        }
    }

    pub async fn command(&mut self, command: &Cmd) -> RedisResult<Value> {
        let answer = match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        };
        answer.and_then(Value::extract_error)
    }

    pub async fn pipeline(&mut self, pipeline: &Pipeline) -> RedisResult<()> {
        match self {
            Self::Single(connection) => pipeline.exec_async(connection).await,
            Self::Cluster(connection) => pipeline.exec_async(connection).await,
        }
    }
}

/// Runs a script, and teaches it to a server that does not know it. One that is told to forget its
/// scripts between the two has run nothing, and is taught again.
async fn run(
    connection: &mut impl ConnectionLike,
    script: &ScriptInvocation<'static>,
) -> RedisResult<Value> {
    let mut answer = script.invoke_async(connection).await;
    for _ in 1..TRIES {
        let Err(error) = &answer else { break };
        if error.kind() != ErrorKind::Server(ServerErrorKind::NoScript) {
            break;
        }
        answer = script.invoke_async(connection).await;
    }
    answer
}

impl Inspection {
    fn read(info: &str, knows_cluster: bool) -> Self {
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.strip_prefix(':'))
                .map_or("", str::trim)
        };
        let mut numbers = field("redis_version").split('.').map(str::parse);
        let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
        let version = (number(), number());
        let valkey = field("valkey_version");
        Self {
            server: if valkey.is_empty() {
                format!("redis {}", field("redis_version"))
            } else {
                format!("valkey {valkey}")
            },
            version,
            eviction: field("maxmemory_policy").to_owned(),
            is_replica: field("role") == "slave",
            is_cluster: field("cluster_enabled") == "1" && !knows_cluster,
        }
    }

    /// Returns why this server is not fit for slots.
    pub fn flaws(&self) -> Vec<Flaw> {
        let too_old = (self.version < OLDEST).then(|| Flaw::TooOld(self.server.clone()));
        let evicts = !matches!(self.eviction.as_str(), "" | "noeviction");
        let evicts = evicts.then(|| Flaw::Evicts(self.eviction.clone()));
        let read_only = self.is_replica.then_some(Flaw::ReadOnly);
        let is_cluster = self.is_cluster.then_some(Flaw::IsCluster);
        let flaws = [too_old, evicts, read_only, is_cluster];
        flaws.into_iter().flatten().collect()
    }
}

impl Flaw {
    /// Tells whether a gateway had better not start: a primary may come back, and outside
    /// production a shared server may do.
    pub fn is_fatal(&self, production: bool) -> bool {
        match self {
            Self::TooOld(_) | Self::IsCluster => true,
            Self::Evicts(_) => production,
            Self::ReadOnly => false,
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link") // Its address may hold a password.
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use redis::{RedisFuture, Script};

    use super::*;

    static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new("return 1"));

    /// A server that forgets its scripts after it was taught them, so many times.
    struct Forgetful {
        forgets: usize,
        knows: bool,
    }

    impl ConnectionLike for Forgetful {
        fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
            let sent = command.get_packed_command();
            let loads = sent.windows(4).any(|word| word == b"LOAD");
            let answer = if loads {
                self.knows = self.forgets == 0;
                self.forgets = self.forgets.saturating_sub(1);
                format!("+{}\r\n", SCRIPT.get_hash())
            } else if self.knows {
                "+OK\r\n".to_owned()
            } else {
                "-NOSCRIPT No matching script. Please use EVAL.\r\n".to_owned()
            };
            let answer = redis::parse_redis_value(answer.as_bytes());
            let answer = answer.and_then(Value::extract_error);
            Box::pin(std::future::ready(answer))
        }

        fn req_packed_commands<'a>(
            &'a mut self,
            _: &'a Pipeline,
            _: usize,
            _: usize,
        ) -> RedisFuture<'a, Vec<Value>> {
            unimplemented!("scripts are no pipelines")
        }

        fn get_db(&self) -> i64 {
            0
        }
    }

    #[tokio::test]
    async fn a_script_that_is_forgotten_before_it_is_run_is_taught_again() {
        let script = SCRIPT.prepare_invoke();
        for forgets in 0..=TRIES {
            let mut server = Forgetful {
                forgets,
                knows: false,
            };
            let is_run = run(&mut server, &script).await.is_ok();
            assert_eq!(is_run, forgets < TRIES, "{forgets}");
        }
    }

    /// Returns what is wrong with a server that says this of itself.
    fn flaws(info: &[&str]) -> Vec<Flaw> {
        let sections = ["# Server", "redis_mode:standalone", "role:master"];
        let info = [info, &sections].concat().join("\r\n");
        Inspection::read(&info, false).flaws()
    }

    #[test]
    fn a_server_is_fit_for_slots_or_says_itself_why_not() {
        let fit = "maxmemory_policy:noeviction";
        let too_old = |server: &str| vec![Flaw::TooOld(server.to_owned())];
        let table = [
            (vec!["redis_version:6.0.16", fit], too_old("redis 6.0.16")),
            (vec!["redis_version:5.0.14", fit], too_old("redis 5.0.14")),
            (vec!["redis_version:6.2.0", fit], vec![]),
            (vec!["redis_version:7.0.15", fit], vec![]),
            (vec!["redis_version:10.0.1", fit], vec![]),
            // Valkey says which Redis it is compatible with.
            (
                vec!["redis_version:7.2.4", "valkey_version:8.0.1", fit],
                vec![],
            ),
            // Some that are hosted do not say what they evict.
            (vec!["redis_version:7.0.15"], vec![]),
            (
                vec!["redis_version:7.0.15", "maxmemory_policy:allkeys-lru"],
                vec![Flaw::Evicts("allkeys-lru".to_owned())],
            ),
            (
                vec!["redis_version:7.0.15", "maxmemory_policy:volatile-ttl"],
                vec![Flaw::Evicts("volatile-ttl".to_owned())],
            ),
            (
                vec!["redis_version:7.0.15", "role:slave", fit],
                vec![Flaw::ReadOnly],
            ),
            (
                vec!["redis_version:7.0.15", "cluster_enabled:1", fit],
                vec![Flaw::IsCluster],
            ),
            (vec!["redis_version:garbage", fit], too_old("redis garbage")),
            (vec![], too_old("redis ")),
        ];
        for (info, expected) in table {
            assert_eq!(flaws(&info), expected, "{info:?}");
        }
    }

    #[test]
    fn who_knows_that_it_is_a_cluster_takes_it_for_one() {
        let info = "redis_version:7.0.15\r\ncluster_enabled:1\r\n";
        assert_eq!(Inspection::read(info, true).flaws(), []);
    }

    #[test]
    fn a_valkey_is_called_by_its_own_name() {
        let info = "redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n";
        assert_eq!(Inspection::read(info, false).server, "valkey 8.0.1");
    }

    #[test]
    fn a_start_fails_over_what_will_not_change_by_itself() {
        let evicts = Flaw::Evicts("allkeys-lru".to_owned());
        let table = [
            (Flaw::TooOld("redis 6.0.16".to_owned()), true, true),
            (Flaw::IsCluster, true, true),
            (evicts, false, true),
            (Flaw::ReadOnly, false, false),
        ];
        for (flaw, at_home, in_production) in table {
            assert_eq!(flaw.is_fatal(false), at_home, "{flaw}");
            assert_eq!(flaw.is_fatal(true), in_production, "{flaw}");
        }
    }
}
