//! Several gateways over one Redis.

use std::{future::pending, net::SocketAddr, ops::Index, time::Duration};

use callgate::{
    EndReason,
    parrot::{Parrot, ParrotOptions},
};
use futures_util::future::join_all;
use serde_json::Value;

use super::{Settings, TestGateway, assert_each_ended_once, drained, eventually};
use crate::redis::Redis;

/// Gateways that share a store, and the agent that all of them call.
pub struct Replicas {
    pub redis: Redis,
    pub parrot: Parrot,
    gateways: Vec<TestGateway>,
}

impl Replicas {
    /// Starts so many gateways with the same settings over a Redis that has served others before,
    /// and waits until it decides.
    pub async fn start(count: usize, settings: Settings<'_>) -> Self {
        Self::each(&vec![settings; count]).await
    }

    /// Starts a gateway with each of these settings.
    pub async fn each(settings: &[Settings<'_>]) -> Self {
        Self::with_parrot(ParrotOptions::default(), settings).await
    }

    /// Starts gateways with these settings each, whose parrot has these options.
    pub async fn with_parrot(options: ParrotOptions, settings: &[Settings<'_>]) -> Self {
        let redis = Redis::start().await;
        redis.cli(&["SET", "calls:gen", "an earlier one"]).await;
        let replicas = Self::over_with(redis, options, settings).await;
        replicas.healthy().await;
        replicas
    }

    /// Starts gateways over a Redis as it is.
    pub async fn over(redis: Redis, settings: &[Settings<'_>]) -> Self {
        Self::over_with(redis, ParrotOptions::default(), settings).await
    }

    async fn over_with(redis: Redis, options: ParrotOptions, settings: &[Settings<'_>]) -> Self {
        let options = ParrotOptions {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            answer_after: Duration::from_millis(100),
            ..options
        };
        let mut replicas = Self {
            redis,
            parrot: Parrot::start(options).await.unwrap(),
            gateways: Vec::new(),
        };
        let expected = settings.len().to_string();
        for settings in settings {
            let mut settings = settings.to_vec();
            settings.push(("EXPECTED_REPLICAS", &expected));
            replicas.gateways.push(replicas.another(&settings).await);
        }
        replicas
    }

    /// Starts one more gateway, which its test looks after. Unless a test is about the time that
    /// callers wait for the store, a machine that stumbles must not look like a store that is away.
    pub async fn another(&self, settings: Settings<'_>) -> TestGateway {
        let url = self.redis.url();
        let mut settings = settings.to_vec();
        settings.extend([
            ("REDIS_TIMEOUT_MS", "1000"),
            ("REDIS_URL", url.as_str()),
            ("TICKET_SECRET", "the same on every replica"),
            ("AGENT_VAD_SILENCE_MS", "200"),
        ]);
        TestGateway::with_agent(&self.parrot.url(), &settings).await
    }

    pub fn all(&self) -> impl Iterator<Item = &TestGateway> {
        self.gateways.iter()
    }

    /// Waits until the store decides for every replica, and each has seen all the others.
    pub async fn healthy(&self) {
        for gateway in &self.gateways {
            gateway.until_degraded(&[]).await;
            let replicas = self.gateways.len();
            eventually(async || gateway.detail("replicas").await == replicas).await;
        }
    }

    /// Waits until every replica has seen so many slots held.
    pub async fn until_active(&self, calls: u64) {
        for gateway in &self.gateways {
            gateway.until_active(calls).await;
        }
    }

    /// Waits until every replica says that so much is degraded.
    pub async fn until_degraded(&self, what: &[&str]) {
        for gateway in &self.gateways {
            gateway.until_degraded(what).await;
        }
    }

    /// Returns a figure's sum over all replicas.
    pub async fn figure(&self, name: &str) -> u64 {
        let figures = self.gateways.iter().map(|gateway| gateway.figure(name));
        join_all(figures).await.into_iter().sum()
    }

    /// Returns how many calls the store holds, by the command that is documented for it.
    pub async fn registered(&self) -> usize {
        self.redis
            .cli(&["SCARD", "calls:active"])
            .await
            .parse()
            .unwrap()
    }

    /// Waits until the store holds exactly so many calls.
    pub async fn until_registered(&self, calls: usize) {
        eventually(async || self.registered().await == calls).await;
    }

    /// Returns what is kept of a call.
    pub async fn state(&self, sid: &str) -> Value {
        let key = format!("calls:state:{sid}");
        let state = self.redis.cli(&["GET", &key]).await;
        serde_json::from_str(&state).unwrap_or(Value::Null)
    }

    /// Returns the name of the replica that the store says carries a call.
    pub async fn owner(&self, sid: &str) -> String {
        let key = format!("calls:active:{sid}");
        let owner = self.redis.cli(&["GET", &key]).await;
        let (_, replica) = owner.split_once(' ').unwrap_or_default();
        replica.to_owned()
    }

    /// Waits until the agent's server carries so many sessions.
    pub async fn until_agents(&self, sessions: usize) {
        eventually(async || self.parrot.sessions() == sessions).await;
    }

    /// Asserts that nothing is held anywhere, that no call ended twice over all replicas, and
    /// that they end.
    pub async fn finish(self) {
        self.until_agents(0).await;
        let running: Vec<_> = self.gateways.iter().filter(|g| g.is_running()).collect();
        for gateway in &running {
            gateway.until_idle().await;
        }
        self.nothing_is_held().await;
        join_all(
            running
                .iter()
                .map(|gateway| drained(gateway.drain(pending()))),
        )
        .await;
        let mut ends = Vec::new();
        for gateway in &self.gateways {
            gateway.is_gone().await;
            ends.extend(gateway.ends());
        }
        // What another replica carries on has not ended.
        ends.retain(|(_, reason)| *reason != EndReason::TakenOver);
        assert_each_ended_once(&ends);
        drained(self.parrot.stop()).await;
    }

    async fn nothing_is_held(&self) {
        self.until_registered(0).await;
        let scopes = self.redis.cli(&["KEYS", "calls:lease*"]).await;
        for scope in scopes.lines() {
            assert_eq!(self.redis.cli(&["ZCARD", scope]).await, "0", "{scope}");
        }
    }
}

impl Index<usize> for Replicas {
    type Output = TestGateway;

    fn index(&self, replica: usize) -> &TestGateway {
        &self.gateways[replica]
    }
}
