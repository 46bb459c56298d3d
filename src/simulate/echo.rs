//! Measures a gateway whose agent says back every frame: each frame carries its number, which is
//! looked for in what comes back, however that is cut.

use std::time::Duration;

use hdrhistogram::Histogram;

/// What a number begins with: bytes that neither speech nor silence has in a row.
const MAGIC: [u8; 4] = [0x2A, 0xD5, 0x13, 0xEC];

/// The magic, the number, and the number inverted. Twelve bytes are sixteen characters of
/// base64, so the rest of a frame's text stays as it is.
pub const LENGTH: usize = 12;
pub const TEXT_LENGTH: usize = 16;

/// What was sent this shortly before the end may still be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The longest round trip that is told from a longer one, in microseconds.
pub const LONGEST_MICROS: u64 = 120_000_000;

/// Frames that were sent, and which of them came back when.
pub struct Echo {
    /// When each frame was sent, and whether it was heard.
    sent: Vec<(Duration, bool)>,
    last_heard: Option<u32>,
    /// The end of what was heard, where a number may be cut in two.
    tail: Vec<u8>,
    heard: Echoed,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Echoed {
    /// In microseconds.
    pub round_trip: Histogram<u32>,
    pub sent: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            sent: Vec::new(),
            last_heard: None,
            tail: Vec::new(),
            heard: Echoed {
                round_trip: micros(),
                sent: 0,
                lost: 0,
                duplicated: 0,
                reordered: 0,
            },
        }
    }
}

impl Echo {
    /// Returns the bytes that the next frame begins with.
    pub fn number(&mut self, at: Duration) -> [u8; LENGTH] {
        let number = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        self.sent.push((at, false));
        pattern(number)
    }

    /// Looks for numbers in samples that came back.
    pub fn heard(&mut self, at: Duration, samples: &[u8]) {
        let mut tail = std::mem::take(&mut self.tail);
        tail.extend_from_slice(samples);
        let mut rest = tail.as_slice();
        while let Some(found) = rest.windows(MAGIC.len()).position(|four| four == MAGIC) {
            rest = &rest[found..];
            let Some((candidate, after)) = rest.split_at_checked(LENGTH) else {
                break; // The rest of it comes with the next message.
            };
            if let Some(number) = number(candidate) {
                self.came_back(at, number);
                rest = after;
            } else {
                rest = &rest[1..];
            }
        }
        let keep = rest.len().saturating_sub(LENGTH - 1);
        tail.drain(..tail.len() - rest.len() + keep);
        self.tail = tail;
    }

    /// Takes stock at the end of the stream.
    pub fn finish(mut self, at: Duration) -> Echoed {
        self.heard.sent = self.sent.len() as u64;
        let lost = |(sent, heard): &&(Duration, bool)| !heard && *sent + ON_ITS_WAY < at;
        self.heard.lost = self.sent.iter().filter(lost).count() as u64;
        self.heard
    }

    fn came_back(&mut self, at: Duration, number: u32) {
        let Some((sent, heard)) = self.sent.get_mut(number as usize) else {
            return; // No frame of ours.
        };
        if *heard {
            self.heard.duplicated += 1;
            return;
        }
        *heard = true;
        if self.last_heard.is_some_and(|last| number < last) {
            self.heard.reordered += 1;
        }
        self.last_heard = self.last_heard.max(Some(number));
        let took = at.saturating_sub(*sent);
        record(&mut self.heard.round_trip, took);
    }
}

/// Returns an empty histogram of microseconds, exact to about one percent.
pub fn micros() -> Histogram<u32> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, 2).expect("the bounds are in order")
}

/// Adds a time to a histogram of microseconds.
pub fn record(histogram: &mut Histogram<u32>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

fn pattern(number: u32) -> [u8; LENGTH] {
    let mut pattern = [0; LENGTH];
    pattern[..4].copy_from_slice(&MAGIC);
    pattern[4..8].copy_from_slice(&number.to_be_bytes());
    pattern[8..].copy_from_slice(&(!number).to_be_bytes());
    pattern
}

fn number(candidate: &[u8]) -> Option<u32> {
    let (number, inverted) = candidate.get(4..)?.split_first_chunk()?;
    let number = u32::from_be_bytes(*number);
    (inverted == (!number).to_be_bytes()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends `count` frames, 20 ms apart.
    fn sent(count: u64) -> (Echo, Vec<Vec<u8>>) {
        let mut echo = Echo::default();
        let frames = (0..count).map(|frame| {
            let mut samples = echo.number(ms(20 * frame)).to_vec();
            samples.resize(160, 0xFF);
            samples
        });
        let frames = frames.collect();
        (echo, frames)
    }

    #[test]
    fn a_frame_is_found_however_the_answer_is_cut() {
        for size in [1, 7, 12, 13, 159, 160, 161, 480, 100_000] {
            let (mut echo, frames) = sent(50);
            for piece in frames.concat().chunks(size) {
                echo.heard(ms(1_000), piece);
            }
            let echoed = echo.finish(ms(60_000));
            assert_eq!(echoed.round_trip.len(), 50, "pieces of {size}");
            assert_eq!(
                (echoed.lost, echoed.duplicated, echoed.reordered),
                (0, 0, 0)
            );
        }
    }

    #[test]
    fn lost_doubled_and_swapped_frames_are_told_apart() {
        let (mut echo, frames) = sent(6);
        for frame in [0, 1, 1, 4, 3] {
            echo.heard(ms(200), &frames[frame]);
        }
        let echoed = echo.finish(ms(60_000));
        assert_eq!(echoed.sent, 6);
        assert_eq!(echoed.lost, 2);
        assert_eq!(echoed.duplicated, 1);
        assert_eq!(echoed.reordered, 1);
    }

    #[test]
    fn the_round_trip_is_from_a_frames_sending_to_its_return() {
        let (mut echo, frames) = sent(2);
        echo.heard(ms(5), &frames[0]);
        echo.heard(ms(50), &frames[1]);
        let round_trip = echo.finish(ms(100)).round_trip;
        assert!(round_trip.equivalent(round_trip.min(), 5_000));
        assert!(round_trip.equivalent(round_trip.max(), 30_000));
    }

    #[test]
    fn what_is_still_on_its_way_is_not_lost() {
        let (echo, _) = sent(100); // The last one at 1980 ms.
        assert_eq!(echo.finish(ms(2_001)).lost, 51);
    }

    proptest::proptest! {
        #[test]
        fn noise_is_not_taken_for_frames(
            noise in proptest::collection::vec(proptest::sample::select(
                vec![0x2A_u8, 0xD5, 0x13, 0xEC, 0, 1, 0xFF]), 0..400),
        ) {
            let (mut echo, _) = sent(1);
            for piece in noise.chunks(50) {
                echo.heard(ms(1), piece);
            }
            proptest::prop_assert!(echo.tail.len() < LENGTH);
        }
    }
}
