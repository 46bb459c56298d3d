//! The last hour, as one replica has seen it. Pure: time is handed in.

use std::{collections::VecDeque, time::Duration};

/// How long a sample lasts.
pub const SAMPLE: Duration = Duration::from_secs(15);
/// How many of them make an hour.
pub const SAMPLES: usize = 240;

/// The last hour, in samples of 15 s.
#[derive(Debug, Default)]
pub struct History {
    /// The newest last.
    samples: VecDeque<Sample>,
    /// Which sample the newest is, since the start.
    number: u128,
    /// The refusals counted up to now.
    refused: Option<u64>,
}

/// What 15 s were like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    /// The most live calls of all replicas at a time.
    pub live: u32,
    /// The calls that were refused.
    pub refused: u32,
}

impl History {
    /// Notes how things stand `at` this time since the start: live calls, and how many have been
    /// refused since the start.
    pub fn note(&mut self, at: Duration, live: u32, refused: u64) {
        let number = at.as_millis() / SAMPLE.as_millis();
        if self.samples.is_empty() {
            self.number = number;
            self.samples.push_back(Sample::default());
        }
        // Where nobody has looked for a while, nothing is known.
        while self.number < number {
            self.number += 1;
            self.samples.push_back(Sample::default());
        }
        while self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        let more = refused - self.refused.replace(refused).unwrap_or(0).min(refused);
        if let Some(sample) = self.samples.back_mut() {
            sample.live = sample.live.max(live);
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            sample.refused = sample.refused.saturating_add(more);
        }
    }

    /// Returns the samples, the newest first.
    pub fn newest_first(&self) -> Vec<Sample> {
        self.samples.iter().rev().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_kept_with_the_most_calls_and_the_refusals_of_each_sample() {
        let mut history = History::default();
        let seconds = Duration::from_secs;
        for (at, live, refused) in [(1, 3, 2), (2, 5, 2), (14, 1, 3), (16, 1, 4), (46, 2, 4)] {
            history.note(seconds(at), live, refused);
        }
        let sample = |live, refused| Sample { live, refused };
        let expected = [sample(2, 0), sample(0, 0), sample(1, 1), sample(5, 3)];
        assert_eq!(history.newest_first(), expected);
        history.note(seconds(100_000), 7, 9);
        let all = history.newest_first();
        assert_eq!((all.len(), all[0]), (SAMPLES, sample(7, 5)));
    }
}
