//! A redis-server beside gateways that run on the test's own thread: whatever takes time is done on
//! another, so that no gateway finds its store slow because of the test.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::redis_server::RedisServer;

/// A redis-server of a test's own, which can be killed, stopped and started again.
pub struct Redis(Arc<RedisServer>);

impl Redis {
    /// Starts an empty one.
    pub async fn start() -> Self {
        let started = spawn_blocking(RedisServer::start).await;
        Self(Arc::new(started.unwrap()))
    }

    pub fn url(&self) -> String {
        self.0.url()
    }

    pub fn port(&self) -> u16 {
        self.0.port()
    }

    pub async fn kill(&self) {
        self.aside(RedisServer::kill).await;
    }

    /// Lets it hang.
    pub async fn stop(&self) {
        self.aside(RedisServer::pause).await;
    }

    /// Lets it go on.
    pub async fn cont(&self) {
        self.aside(RedisServer::resume).await;
    }

    /// Starts it anew on the same port, empty.
    pub async fn restart(&self) {
        self.aside(RedisServer::restart).await;
    }

    /// Asks it as an operator does, and returns what `redis-cli` prints.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        self.aside(move |server| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            server.cli(&arguments)
        })
        .await
    }

    async fn aside<T: Send + 'static>(
        &self,
        act: impl FnOnce(&RedisServer) -> T + Send + 'static,
    ) -> T {
        let server = Arc::clone(&self.0);
        spawn_blocking(move || act(&server)).await.unwrap()
    }
}
