//! When frames are sent. Time is handed in, as the time since the stream began.

use std::time::Duration;

use crate::chunk::FRAME;

/// Which frame is due when. A stream that is late catches up; none drifts.
#[derive(Default)]
pub struct Pace {
    sent: u32,
}

impl Pace {
    /// Returns when the next frame is due.
    pub fn next(&self) -> Duration {
        FRAME * self.sent
    }

    /// Takes the next frame that is due by `at`: when it should have been sent.
    pub fn due(&mut self, at: Duration) -> Option<Duration> {
        let due = self.next();
        (due <= at).then(|| {
            self.sent += 1;
            due
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Wakes at the given times. Returns which frames are sent then.
    fn sent(wakes: &[u64]) -> Vec<Vec<u128>> {
        let mut pace = Pace::default();
        let due = |at| std::iter::from_fn(|| pace.due(ms(at))).collect::<Vec<_>>();
        let in_ms = |due: Vec<Duration>| due.iter().map(Duration::as_millis).collect();
        wakes.iter().copied().map(due).map(in_ms).collect()
    }

    #[test]
    fn every_frame_is_sent_once_and_late_ones_are_caught_up() {
        let table: &[(&[u64], &[&[u128]])] = &[
            (&[0, 20, 40], &[&[0], &[20], &[40]]),
            // Waking late does not move the frames that follow.
            (&[0, 27, 41, 60], &[&[0], &[20], &[40], &[60]]),
            (&[0, 5, 19], &[&[0], &[], &[]]),
            (
                &[0, 105, 119, 120],
                &[&[0], &[20, 40, 60, 80, 100], &[], &[120]],
            ),
        ];
        for (wakes, expected) in table {
            assert_eq!(sent(wakes), *expected, "{wakes:?}");
        }
    }

    #[test]
    fn a_long_call_does_not_drift() {
        let mut pace = Pace::default();
        for _ in 0..4 * 3_600 * 50 {
            pace.due(Duration::MAX);
        }
        assert_eq!(pace.next(), Duration::from_hours(4));
    }
}
