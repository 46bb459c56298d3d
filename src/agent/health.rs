//! How an agent has done of late, for operators.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How many tries are remembered, and how many first words.
const REMEMBERED: usize = 64;

/// What an agent was like in its last calls on this replica.
#[derive(Debug, Default)]
pub struct Health(Mutex<Lately>);

#[derive(Debug, Default)]
struct Lately {
    /// How long connecting took, in milliseconds; `None` where it failed.
    tries: VecDeque<Option<u32>>,
    first_words: VecDeque<u32>,
    failed: Option<(Instant, &'static str)>,
}

/// How an agent has done of late.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentHealth {
    /// Of the last 64 tries to connect it.
    pub tries: u32,
    pub failures: u32,
    /// The median, in milliseconds, of the tries that worked.
    pub connect_ms: Option<u32>,
    /// The median, from a call's media to the agent's first audio.
    pub first_words_ms: Option<u32>,
    /// Why the last try failed that did, and how many seconds ago.
    pub failed: Option<(String, u64)>,
}

impl Health {
    /// Notes how long connecting took.
    pub fn connected(&self, took: Duration) {
        remember(&mut self.lock().tries, Some(millis(took)));
    }

    /// Notes that connecting failed.
    pub fn failed(&self, reason: &'static str) {
        let mut lately = self.lock();
        remember(&mut lately.tries, None);
        lately.failed = Some((Instant::now(), reason));
    }

    /// Notes when the first words of a call came.
    pub fn spoke(&self, after: Duration) {
        remember(&mut self.lock().first_words, millis(after));
    }

    pub fn standing(&self) -> AgentHealth {
        let lately = self.lock();
        let worked = lately.tries.iter().flatten().copied();
        let tries = u32::try_from(lately.tries.len()).unwrap_or(u32::MAX);
        let worked: Vec<u32> = worked.collect();
        let failed = lately.failed;
        AgentHealth {
            tries,
            failures: tries - u32::try_from(worked.len()).unwrap_or(tries).min(tries),
            connect_ms: median(worked),
            first_words_ms: median(lately.first_words.iter().copied().collect()),
            failed: failed.map(|(at, why)| (why.to_owned(), at.elapsed().as_secs())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lately> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember<T>(lately: &mut VecDeque<T>, news: T) {
    if lately.len() == REMEMBERED {
        lately.pop_front();
    }
    lately.push_back(news);
}

fn median(mut values: Vec<u32>) -> Option<u32> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_judged_by_its_last_tries() {
        let health = Health::default();
        assert_eq!(health.standing(), AgentHealth::default());
        for _ in 0..REMEMBERED {
            health.failed("agent_refused");
        }
        for took in [40, 20, 90] {
            health.connected(Duration::from_millis(took));
        }
        health.spoke(Duration::from_millis(300));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(
            health.standing(),
            AgentHealth {
                tries: 64,
                failures: 61,
                connect_ms: Some(40),
                first_words_ms: Some(300),
                failed: Some(("agent_refused".to_owned(), 7)),
            }
        );
    }
}
