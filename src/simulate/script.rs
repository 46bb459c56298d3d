//! What a caller does: when it speaks, listens and interrupts. Decides frame by frame, without IO.

use std::{fmt, sync::Arc, time::Duration};

use rand::{RngExt, rngs::StdRng};

use super::{
    loudspeaker::Loudspeaker,
    voice::{Frame, Repertoire},
};

/// How long a caller waits to be greeted before it speaks first.
const GREETING_PATIENCE: Duration = Duration::from_millis(1_500);

/// How long a caller waits for an answer before it says its next sentence.
const ANSWER_PATIENCE: Duration = Duration::from_secs(6);

/// How long a caller lets the agent speak before it interrupts.
const INTERRUPTS_AFTER: Duration = Duration::from_millis(800);

/// What a simulated caller does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum, serde::Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Script {
    /// Says a sentence, listens to the answer, pauses, again.
    Talk,
    /// Starts to speak while the agent speaks.
    BargeIn,
    /// Sends line noise only.
    Silent,
    /// Talks, then cuts the connection: neither a goodbye nor a status follows. By ACS the call
    /// goes on without media, and has to be ended by the gateway.
    Drop,
    /// Talks, and each webhook is sent twice at the same moment; both answers have to be the same.
    RepeatWebhook,
    /// Talks, but soon stops reading from its socket.
    SlowReader,
    /// Each call plays one of the others, talking most often.
    Mixed,
}

impl Script {
    /// Returns the script of one call.
    #[must_use]
    pub fn of_a_call(self, rng: &mut StdRng) -> Self {
        match self {
            Self::Mixed => match rng.random_range(0..10) {
                0..5 => Self::Talk,
                5 | 6 => Self::BargeIn,
                7 => Self::Silent,
                8 => Self::RepeatWebhook,
                _ => Self::pick_a_fault(rng),
            },
            Self::Talk
            | Self::BargeIn
            | Self::Silent
            | Self::Drop
            | Self::RepeatWebhook
            | Self::SlowReader => self,
        }
    }

    fn pick_a_fault(rng: &mut StdRng) -> Self {
        if rng.random() {
            Self::Drop
        } else {
            Self::SlowReader
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Talk => "talk",
            Self::BargeIn => "barge-in",
            Self::Silent => "silent",
            Self::Drop => "drop",
            Self::RepeatWebhook => "repeat-webhook",
            Self::SlowReader => "slow-reader",
            Self::Mixed => "mixed",
        })
    }
}

/// A caller's mouth: what it says in each frame, given what it hears.
pub struct Mouth {
    script: Script,
    repertoire: Arc<Repertoire>,
    rng: StdRng,
    /// The sentence that comes next.
    next: usize,
    turn: Turn,
}

enum Turn {
    Listening {
        since: Duration,
        /// How many answers the caller had heard when it began to speak.
        answers: u32,
        patience: Duration,
        /// Silence after an answer, before the caller speaks.
        pause: Duration,
    },
    Speaking {
        sentence: usize,
        frame: usize,
        answers: u32,
    },
}

/// What begins with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    Nothing,
    Sentence,
    /// A sentence, while the agent was speaking.
    Interruption,
}

impl Mouth {
    pub fn new(script: Script, repertoire: Arc<Repertoire>, mut rng: StdRng) -> Self {
        Self {
            script,
            next: rng.random_range(0..repertoire.sentences.len()),
            turn: Turn::Listening {
                since: Duration::ZERO,
                answers: 0,
                patience: GREETING_PATIENCE,
                pause: Duration::from_millis(500),
            },
            repertoire,
            rng,
        }
    }

    /// Returns what the caller sends at `at`, and whether it begins to speak with it.
    pub fn frame(&mut self, at: Duration, heard: &Loudspeaker) -> (&Frame, Begins) {
        let begins = self.take_turn(at, heard);
        let frame = match self.turn {
            Turn::Listening { .. } => {
                let noise = self.rng.random_range(0..self.repertoire.noise.len());
                &self.repertoire.noise[noise]
            }
            Turn::Speaking {
                sentence,
                ref mut frame,
                ..
            } => {
                *frame += 1;
                &self.repertoire.sentences[sentence].frames[*frame - 1]
            }
        };
        (frame, begins)
    }

    /// Returns the sentence that is or was said last.
    pub fn sentence(&self) -> &str {
        let count = self.repertoire.sentences.len();
        &self.repertoire.sentences[(self.next + count - 1) % count].text
    }

    fn take_turn(&mut self, at: Duration, heard: &Loudspeaker) -> Begins {
        match self.turn {
            Turn::Speaking {
                sentence,
                frame,
                answers,
            } => {
                if frame == self.repertoire.sentences[sentence].frames.len() {
                    self.turn = Turn::Listening {
                        since: at,
                        answers,
                        patience: ANSWER_PATIENCE,
                        pause: Duration::from_millis(self.rng.random_range(700..1_500)),
                    };
                }
                Begins::Nothing
            }
            Turn::Listening {
                since,
                answers,
                patience,
                pause,
            } => {
                let begins = self.wants_to_speak(at, heard, (since, answers, patience, pause));
                if begins != Begins::Nothing {
                    self.turn = Turn::Speaking {
                        sentence: self.next,
                        frame: 0,
                        answers: heard.heard().answers,
                    };
                    self.next = (self.next + 1) % self.repertoire.sentences.len();
                }
                begins
            }
        }
    }

    fn wants_to_speak(
        &self,
        at: Duration,
        heard: &Loudspeaker,
        (since, answers, patience, pause): (Duration, u32, Duration, Duration),
    ) -> Begins {
        if self.script == Script::Silent {
            return Begins::Nothing;
        }
        if let Some(long) = heard.speaking_for(at) {
            return if self.script == Script::BargeIn && INTERRUPTS_AFTER <= long {
                Begins::Interruption
            } else {
                Begins::Nothing
            };
        }
        let (wait, quiet_since) = match heard.sounds_until() {
            Some(until) if answers < heard.heard().answers => (pause, until.max(since)),
            Some(_) | None => (patience, since),
        };
        if at >= quiet_since + wait {
            Begins::Sentence
        } else {
            Begins::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chunk::{Encoding, FRAME, samples_in},
        simulate::voice::{Voices, sounds},
    };
    use rand::SeedableRng;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Lets a caller speak for `seconds` with an agent that greets after `greets`, and that
    /// answers for two seconds, 500 ms after each sentence. Returns when the caller began what.
    fn talk(script: Script, greets: Option<u64>, seconds: u32) -> (Vec<(u64, Begins)>, u32) {
        let repertoire = Voices::shipped(3).encoded(Encoding::Mulaw);
        let mut mouth = Mouth::new(script, repertoire, StdRng::seed_from_u64(3));
        let mut speaker = Loudspeaker::new(Encoding::Mulaw);
        let (mut began, mut spoken) = (Vec::new(), 0);
        let mut answer_at = greets.map(ms);
        for frame in 0..seconds * 50 {
            let at = FRAME * frame;
            if answer_at.is_some_and(|due| due <= at) {
                answer_at = None;
                speaker.play(at, &vec![0x80; samples_in(ms(2_000))]);
            }
            let (said, begins) = mouth.frame(at, &speaker);
            let speaks = sounds(&said.samples, Encoding::Mulaw).is_some();
            if begins != Begins::Nothing {
                began.push((u64::try_from(at.as_millis()).unwrap(), begins));
                speaker.clear(at);
            }
            if speaks {
                spoken += 1;
                answer_at = greets.map(|_| at + ms(500));
            }
        }
        (began, spoken)
    }

    #[test]
    fn a_caller_waits_for_the_greeting_and_for_every_answer() {
        let (began, _) = talk(Script::Talk, Some(1_000), 30);
        assert_eq!(began[0], (3_500, Begins::Sentence)); // 1000 + 2000 + 500 ms.
        assert!((3..6).contains(&began.len()), "{began:?}");
        assert!(began.iter().all(|(_, begins)| *begins == Begins::Sentence));
    }

    #[test]
    fn a_caller_who_gets_no_answer_tries_again() {
        let (began, _) = talk(Script::Talk, None, 20);
        assert_eq!(began[0], (1_500, Begins::Sentence));
        assert_eq!(began.len(), 3, "{began:?}");
    }

    #[test]
    fn an_impatient_caller_speaks_while_the_agent_does() {
        let (began, _) = talk(Script::BargeIn, Some(1_000), 30);
        assert_eq!(began[0], (1_800, Begins::Interruption));
        assert!(
            began
                .iter()
                .all(|(_, begins)| *begins == Begins::Interruption)
        );
    }

    #[test]
    fn a_silent_caller_says_nothing() {
        assert_eq!(talk(Script::Silent, Some(1_000), 30), (Vec::new(), 0));
    }

    #[test]
    fn a_mixed_run_has_every_script_and_talking_most_often() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..1_000 {
            *counts.entry(Script::Mixed.of_a_call(&mut rng)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6, "{counts:?}");
        assert_eq!(
            counts.iter().max_by_key(|(_, count)| **count).unwrap().0,
            &Script::Talk
        );
    }
}
