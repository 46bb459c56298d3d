//! What the caller is heard to say: finds the holes in it. A carrier leaves silence out, and an
//! agent that hears nothing at all never notices that a sentence has ended.

use std::time::Duration;

use crate::chunk::Chunk;

/// A hole shorter than this is the network's trembling.
const TOLERATED: Duration = Duration::from_millis(40);
/// A carrier that has sent nothing for so long has left silence out. Longer than agents take for
/// the end of a sentence, so that a stumbling network does not make one.
const FILL_AFTER: Duration = Duration::from_secs(1);
/// No hole is filled beyond this.
const MOST_FILLED: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Hearing {
    /// How far the carrier's stream has been passed on; `None` before its first audio.
    until: Option<Duration>,
    /// When audio last came, or silence was put in its place.
    fed_at: Duration,
    /// When audio last came.
    last_at: Duration,
}

impl Hearing {
    /// Begins to listen `at` this time.
    pub fn from(at: Duration) -> Self {
        Self {
            until: None,
            fed_at: at,
            last_at: at,
        }
    }

    /// Notes audio that came `at` this time and lies at `starts_at` of the carrier's stream.
    /// Returns how much is missing before it.
    pub fn hear(&mut self, at: Duration, chunk: &Chunk, starts_at: Duration) -> Option<Duration> {
        let until = self.until.unwrap_or(starts_at);
        let hole = starts_at.saturating_sub(until).min(MOST_FILLED);
        self.until = Some(until.max(starts_at + chunk.duration()));
        self.last_at = at;
        self.fed_at = at;
        (hole >= TOLERATED).then_some(hole)
    }

    /// Returns how much silence is due because nothing has come for long enough.
    pub fn missing(&mut self, at: Duration) -> Option<Duration> {
        let due = self.fill_at().is_some_and(|due| due <= at);
        if !due {
            return None;
        }
        let hole = at.saturating_sub(self.fed_at).min(MOST_FILLED);
        self.until = self.until.map(|until| until + hole);
        self.fed_at = at;
        Some(hole)
    }

    /// Starts to count anew, once there is somebody to hear.
    pub fn resume(&mut self, at: Duration) {
        self.fed_at = self.fed_at.max(at);
    }

    /// Goes on with a stream that counts from its own beginning.
    pub fn begin_anew(&mut self) {
        self.until = None;
    }

    /// Returns when silence will be due.
    pub fn fill_at(&self) -> Option<Duration> {
        self.until.map(|_| self.fed_at + FILL_AFTER)
    }

    /// Returns when audio last came; the beginning before any did.
    pub fn last_at(&self) -> Duration {
        self.last_at
    }
}
