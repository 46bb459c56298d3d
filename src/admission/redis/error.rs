//! How the store fails.

use std::time::Duration;

use crate::admission::redis::PATIENCE;

/// Why the slot store gave no answer. No caller is turned away for it; see [`crate::admission::outage`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the slot store is known to be away")]
    Away,
    #[error("the slot store did not answer within {0:?}")]
    TooSlow(Duration),
    #[error("the slot store failed: {0}")]
    Failed(redis::RedisError), // Not a source: it says its own source in what it says.
    #[error("the slot store's answer makes no sense: {0}")]
    Garbled(&'static str),
}

impl From<redis::RedisError> for StoreError {
    fn from(error: redis::RedisError) -> Self {
        Self::Failed(error)
    }
}

impl StoreError {
    /// Tells whether the connection itself may be at fault: its server has become a replica, or
    /// has said nothing for as long as a heartbeat waits.
    pub fn takes_a_new_connection(&self) -> bool {
        self.class() == "readonly" || matches!(self, Self::TooSlow(waited) if *waited >= PATIENCE)
    }

    /// Returns what kind of failure it is, for metrics and for what to do about it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what redis-rs tells apart beyond this is for its source to say"
    )]
    pub fn class(&self) -> &'static str {
        use redis::{ErrorKind, ServerErrorKind as Server};
        match self {
            Self::Away => "away",
            Self::TooSlow(_) => "timeout",
            Self::Garbled(_) => "garbled",
            // The client has a deadline of its own, which may come first.
            Self::Failed(error) if error.is_timeout() => "timeout",
            Self::Failed(error) => match error.kind() {
                ErrorKind::Io => "io",
                ErrorKind::AuthenticationFailed => "noauth",
                ErrorKind::Server(Server::ReadOnly) => "readonly",
                ErrorKind::Server(Server::NoPerm) => "noperm",
                ErrorKind::Server(Server::BusyLoading) => "loading",
                ErrorKind::Server(Server::MasterDown) => "masterdown",
                ErrorKind::Server(Server::NoScript) => "noscript",
                ErrorKind::Server(
                    Server::Moved
                    | Server::Ask
                    | Server::CrossSlot
                    | Server::ClusterDown
                    | Server::TryAgain,
                ) => "cluster",
                ErrorKind::Server(_) | ErrorKind::Extension => by_code(error),
                _ => "other",
            },
        }
    }
}

/// Names what redis-rs has no kind for, or what a script has met on its way.
fn by_code(error: &redis::RedisError) -> &'static str {
    let text = error.to_string();
    let codes = [
        ("OOM", "oom"),
        ("READONLY", "readonly"),
        ("NOPERM", "noperm"),
        ("NOAUTH", "noauth"),
        ("WRONGPASS", "noauth"),
        ("LOADING", "loading"),
        ("BUSY", "busy"),
        ("MISCONF", "misconf"),
        // What is long is not read from those who have not said who they are.
        ("unauthenticated", "noauth"),
        // So says Redis 6.2 where a script may not do what it does.
        ("The user executing the script", "noperm"),
    ];
    let known = codes.iter().find(|(code, _)| text.contains(code));
    known.map_or("other", |(_, class)| class)
}
