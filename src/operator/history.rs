//! The last hour, as one replica has seen it. Pure: time is handed in.

use std::{collections::VecDeque, time::Duration};

use crate::telemetry::Tally;

/// How long a sample lasts.
pub const SAMPLE: Duration = Duration::from_secs(15);
/// How many of them make an hour.
pub const SAMPLES: usize = 240;
/// How many of them are lately: ten minutes.
const LATELY: usize = 40;

/// The last hour, in samples of 15 s.
#[derive(Debug, Default)]
pub struct History {
    /// The newest last.
    samples: VecDeque<Sample>,
    /// Which sample the newest is, since the start.
    number: u128,
    /// The refusals counted up to now.
    refused: Option<u64>,
    /// What had come up to the end of each of the last samples, the newest last.
    tallies: VecDeque<Tally>,
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
    /// refused and what has come since the start.
    pub fn note(&mut self, at: Duration, live: u32, refused: u64, tally: Tally) {
        let number = at.as_millis() / SAMPLE.as_millis();
        if self.samples.is_empty() {
            self.number = number;
            self.samples.push_back(Sample::default());
            self.tallies.push_back(tally);
        }
        // Where nobody has looked for a while, nothing is known.
        while self.number < number {
            self.number += 1;
            self.samples.push_back(Sample::default());
            self.tallies
                .push_back(self.tallies.back().copied().unwrap_or(tally));
            if self.tallies.len() > LATELY {
                self.tallies.pop_front();
            }
        }
        if let Some(newest) = self.tallies.back_mut() {
            *newest = tally;
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

    /// Returns what has come in the last ten minutes, or since the first note.
    pub fn lately(&self) -> Tally {
        match (self.tallies.front(), self.tallies.back()) {
            (Some(oldest), Some(newest)) => newest.since(*oldest),
            _ => Tally::default(),
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
            history.note(seconds(at), live, refused, Tally::default());
        }
        let sample = |live, refused| Sample { live, refused };
        let expected = [sample(2, 0), sample(0, 0), sample(1, 1), sample(5, 3)];
        assert_eq!(history.newest_first(), expected);
        history.note(seconds(100_000), 7, 9, Tally::default());
        let all = history.newest_first();
        assert_eq!((all.len(), all[0]), (SAMPLES, sample(7, 5)));
    }

    #[test]
    fn what_has_come_lately_is_of_ten_minutes() {
        let mut history = History::default();
        let mut note = |minute: u64, unsigned| {
            let tally = Tally {
                unsigned,
                ..Tally::default()
            };
            history.note(Duration::from_secs(minute * 60), 0, 0, tally);
            history.lately().unsigned
        };
        assert_eq!(note(0, 2), 0, "before anybody looked");
        assert_eq!(note(1, 5), 3);
        assert_eq!(note(9, 6), 4);
        assert_eq!(note(12, 6), 1, "the rest is longer ago");
        assert_eq!(note(30, 6), 0);
    }
}
