//! The caller's loudspeaker: plays in real time what the gateway sends, as carriers do.
//!
//! Invariant: marks come back in the order in which they were sent, each once.
//! Invariant: what is cleared is not heard.
//!
//! Time is handed in, as the time since the stream began, and never runs backwards.

use std::{collections::VecDeque, time::Duration};

use super::voice::sounds;
use crate::chunk::Encoding;

/// Twilio discards what would wait longer (warning 31931).
const LONGEST_QUEUE: Duration = Duration::from_mins(10);

/// Silence of this length ends what the agent was saying. Within it, a queue that ran dry is a
/// gap in the middle of an utterance.
const UTTERANCE_ENDS: Duration = Duration::from_secs(1);

/// A queue that is dry for less than a frame is jitter, which a phone's own buffer covers.
const AUDIBLE_GAP: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Loudspeaker {
    encoding: Encoding,
    /// When all that was sent will have been played.
    ends: Duration,
    /// When each mark is due.
    marks: VecDeque<(Duration, String)>,
    /// When what the agent is saying, or said last, began to be heard; none after a clear.
    utterance: Option<Duration>,
    /// When the last sound was or will be over.
    sounds_until: Option<Duration>,
    heard: Heard,
}

/// What came out of a loudspeaker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    /// When the caller first heard a sound.
    pub first: Option<Duration>,
    /// How often the agent began to speak.
    pub answers: u32,
    /// How often the loudspeaker ran dry in the middle of an utterance.
    pub gaps: u32,
    pub longest_gap: Duration,
    /// Whether something was discarded because ten minutes were waiting.
    pub overflowed: bool,
}

impl Loudspeaker {
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            ends: Duration::ZERO,
            marks: VecDeque::new(),
            utterance: None,
            sounds_until: None,
            heard: Heard::default(),
        }
    }

    /// Queues `samples` behind what is there. Returns when they begin to be played, or
    /// `None` if ten minutes are waiting already.
    pub fn play(&mut self, at: Duration, samples: &[u8]) -> Option<Duration> {
        let begins = self.ends.max(at);
        let ends = begins + self.encoding.duration_of(samples.len());
        if ends > at + LONGEST_QUEUE {
            self.heard.overflowed = true;
            return None;
        }
        let dry = at.saturating_sub(self.ends);
        self.ends = ends;
        if let Some(sounds) = sounds(samples, self.encoding) {
            self.sound(begins + sounds.start, begins + sounds.end, dry);
        }
        Some(begins)
    }

    /// Queues a mark behind what is there.
    pub fn mark(&mut self, at: Duration, name: String) {
        self.marks.push_back((self.ends.max(at), name));
    }

    /// Empties the queue; all its marks come back at once.
    pub fn clear(&mut self, at: Duration) {
        self.ends = self.ends.min(at);
        self.sounds_until = self.sounds_until.map(|until| until.min(at));
        self.utterance = None;
        for (due, _) in &mut self.marks {
            *due = at.min(*due);
        }
    }

    /// Takes the next mark that has come back by `at`.
    pub fn due_mark(&mut self, at: Duration) -> Option<String> {
        let due = self.next_mark().is_some_and(|due| due <= at);
        due.then(|| self.marks.pop_front())?.map(|(_, name)| name)
    }

    /// Returns when the next mark comes back.
    pub fn next_mark(&self) -> Option<Duration> {
        self.marks.front().map(|&(due, _)| due)
    }

    /// Returns for how long the agent has been speaking, if it is.
    pub fn speaking_for(&self, at: Duration) -> Option<Duration> {
        let speaks = self.sounds_until.is_some_and(|until| at < until);
        speaks.then(|| at.checked_sub(self.utterance?))?
    }

    /// Returns when the last sound was or will be over.
    pub fn sounds_until(&self) -> Option<Duration> {
        self.sounds_until
    }

    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    fn sound(&mut self, from: Duration, until: Duration, dry: Duration) {
        let goes_on = self.utterance.is_some()
            && self
                .sounds_until
                .is_some_and(|last| from < last + UTTERANCE_ENDS);
        if !goes_on {
            self.utterance = Some(from);
            self.heard.answers += 1;
            self.heard.first.get_or_insert(from);
        } else if dry >= AUDIBLE_GAP {
            self.heard.gaps += 1;
            self.heard.longest_gap = self.heard.longest_gap.max(dry);
        }
        self.sounds_until = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{SILENT_SAMPLE, samples_in};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What happens to a loudspeaker, and when (in ms).
    enum Happens {
        Sound(u64, u64),
        Silence(u64, u64),
        Mark(u64, &'static str),
        Clear(u64),
    }
    use Happens::{Clear, Mark, Silence, Sound};

    /// Plays the story. Returns the loudspeaker and the marks with when they came back.
    fn play(story: &[Happens]) -> (Loudspeaker, Vec<(u64, String)>) {
        let (mut speaker, mut marks) = (Loudspeaker::new(Encoding::Mulaw), Vec::new());
        let mut story = story.iter().peekable();
        for now in 0..20_000 {
            let at = ms(now);
            while let Some(next) = story.next_if(|next| match next {
                Sound(at, _) | Silence(at, _) | Mark(at, _) | Clear(at) => *at == now,
            }) {
                match *next {
                    Sound(_, long) => {
                        speaker.play(at, &vec![0x80; samples_in(ms(long))]);
                    }
                    Silence(_, long) => {
                        speaker.play(at, &vec![SILENT_SAMPLE; samples_in(ms(long))]);
                    }
                    Mark(_, name) => speaker.mark(at, name.into()),
                    Clear(_) => speaker.clear(at),
                }
            }
            while let Some(name) = speaker.due_mark(at) {
                marks.push((now, name));
            }
        }
        (speaker, marks)
    }

    #[test]
    fn a_mark_comes_back_when_everything_before_it_was_played() {
        type Case = (&'static [Happens], &'static [(u64, &'static str)]);
        let table: &[Case] = &[
            (&[Mark(5, "a")], &[(5, "a")]),
            (&[Sound(0, 100), Mark(0, "a")], &[(100, "a")]),
            (
                &[Sound(0, 100), Mark(1, "a"), Sound(2, 60), Mark(3, "b")],
                &[(100, "a"), (160, "b")],
            ),
            (&[Sound(0, 100), Mark(150, "late")], &[(150, "late")]),
            (
                &[Sound(0, 100), Sound(500, 100), Mark(500, "a")],
                &[(600, "a")],
            ),
            (
                &[Sound(0, 100), Mark(0, "a"), Mark(0, "a")],
                &[(100, "a"), (100, "a")],
            ),
        ];
        for (story, expected) in table {
            let (_, marks) = play(story);
            let marks: Vec<_> = marks.iter().map(|(at, name)| (*at, &**name)).collect();
            assert_eq!(&marks, expected);
        }
    }

    #[test]
    fn a_clear_brings_all_marks_back_at_once_and_ends_the_sound() {
        let (speaker, marks) = play(&[
            Sound(0, 2_000),
            Mark(0, "heard half of it"),
            Sound(0, 2_000),
            Mark(0, "never heard"),
            Clear(700),
            Sound(900, 100),
            Mark(900, "after"),
        ]);
        let marks: Vec<_> = marks.iter().map(|(at, name)| (*at, &**name)).collect();
        assert_eq!(
            marks,
            [
                (700, "heard half of it"),
                (700, "never heard"),
                (1_000, "after")
            ]
        );
        assert_eq!(speaker.heard().answers, 2);
        assert_eq!(speaker.heard().gaps, 0);
    }

    #[test]
    fn a_queue_that_runs_dry_within_an_utterance_is_a_gap() {
        let table: &[(&[Happens], u32, u64, u32)] = &[
            // Queued ahead, or late by jitter: no gap.
            (&[Sound(0, 100), Sound(50, 100)], 0, 0, 1),
            (&[Sound(0, 20), Sound(25, 20), Sound(50, 20)], 0, 0, 1),
            // A stall.
            (&[Sound(0, 100), Sound(180, 100)], 1, 80, 1),
            (&[Sound(0, 20), Sound(50, 20), Sound(570, 20)], 2, 500, 1),
            // The agent was done, and speaks again.
            (&[Sound(0, 100), Sound(1_100, 100)], 0, 0, 2),
            // Silence is not an answer.
            (&[Silence(0, 100), Silence(300, 100)], 0, 0, 0),
        ];
        for (number, (story, gaps, longest, answers)) in table.iter().enumerate() {
            let (speaker, _) = play(story);
            let heard = speaker.heard();
            assert_eq!(heard.gaps, *gaps, "case {number}");
            assert_eq!(heard.longest_gap, ms(*longest), "case {number}");
            assert_eq!(heard.answers, *answers, "case {number}");
        }
    }

    #[test]
    fn the_first_sound_is_heard_after_the_silence_before_it() {
        let (speaker, _) = play(&[Silence(40, 60), Sound(40, 20)]);
        assert_eq!(speaker.heard().first, Some(ms(100)));
    }

    #[test]
    fn the_agent_speaks_from_its_first_sound_to_its_last() {
        let mut speaker = Loudspeaker::new(Encoding::Mulaw);
        speaker.play(ms(100), &[0x80; 1600]);
        assert_eq!(speaker.speaking_for(ms(100)), Some(ms(0)));
        assert_eq!(speaker.speaking_for(ms(250)), Some(ms(150)));
        assert_eq!(speaker.speaking_for(ms(300)), None);
        speaker.play(ms(300), &[0x80; 1600]);
        speaker.clear(ms(350));
        assert_eq!(speaker.speaking_for(ms(351)), None);
        assert_eq!(speaker.sounds_until(), Some(ms(350)));
    }

    #[test]
    fn what_would_wait_ten_minutes_is_discarded() {
        let mut speaker = Loudspeaker::new(Encoding::Mulaw);
        let minute = vec![0x80; samples_in(Duration::from_mins(1))];
        for _ in 0..10 {
            assert!(speaker.play(ms(0), &minute).is_some());
        }
        assert!(!speaker.heard().overflowed);
        assert_eq!(speaker.play(ms(0), &[0x80; 8]), None);
        assert!(speaker.heard().overflowed);
        speaker.clear(ms(1));
        assert!(speaker.play(ms(1), &[0x80; 8]).is_some());
    }
}
