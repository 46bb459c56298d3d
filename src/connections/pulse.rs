//! What a live call shows of itself, while somebody watches.
//!
//! Invariant: for a call that nobody watches, a chunk costs one look at a flag.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use audio_codec_algorithms::decode_ulaw;
use tokio::time::Instant;

use crate::{
    chunk::{Chunk, Encoding},
    session::Speaker,
};

/// How often a side's loudness is measured: often enough for a meter that people look at.
const EVERY: Duration = Duration::from_millis(200);
/// How long a measure counts: beyond it that side is silent.
const COUNTS_FOR: Duration = Duration::from_millis(700);
/// The quietest that a meter shows, in decibels below full scale.
const QUIETEST: f32 = 50.0;
/// How much of the last words is shown, in characters.
const MOST_WORDS: usize = 160;

/// What a live call shows of itself.
#[derive(Debug)]
pub struct Pulse {
    watched: Arc<AtomicBool>,
    opened: Instant,
    has_agent: AtomicBool,
    caller: Loudness,
    agent: Loudness,
    words: Mutex<Option<(Speaker, String)>>,
}

/// The last measure of one side: when, in milliseconds since the socket opened, and how loud.
#[derive(Debug, Default)]
struct Loudness {
    at: AtomicU32,
    level: AtomicU32,
}

/// A pulse as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub has_agent: bool,
    /// Of 0 to 100.
    pub caller_level: u32,
    pub agent_level: u32,
    pub words: Option<(Speaker, String)>,
}

impl Pulse {
    /// Begins one that is taken while `watched` is set.
    pub fn new(watched: Arc<AtomicBool>) -> Self {
        Self {
            watched,
            opened: Instant::now(),
            has_agent: AtomicBool::new(false),
            caller: Loudness::default(),
            agent: Loudness::default(),
            words: Mutex::default(),
        }
    }

    pub fn agent_is_there(&self) {
        self.has_agent.store(true, Ordering::Relaxed);
    }

    /// Notes audio of one side.
    pub fn hears(&self, who: Speaker, chunk: &Chunk) {
        if !self.watched.load(Ordering::Relaxed) {
            return;
        }
        let now = millis(self.opened.elapsed());
        let side = match who {
            Speaker::Caller => &self.caller,
            Speaker::Agent => &self.agent,
        };
        let before = side.at.load(Ordering::Relaxed);
        if before == 0 || now >= before.saturating_add(millis(EVERY)) {
            side.at.store(now.max(1), Ordering::Relaxed);
            side.level.store(level(chunk), Ordering::Relaxed);
        }
    }

    /// Notes what was said.
    pub fn said(&self, who: Speaker, text: &str) {
        let words: String = text.chars().take(MOST_WORDS).collect();
        *self.words.lock().unwrap_or_else(PoisonError::into_inner) = Some((who, words));
    }

    pub fn read(&self) -> Reading {
        let now = millis(self.opened.elapsed());
        let loud = |side: &Loudness| {
            let at = side.at.load(Ordering::Relaxed);
            let counts = at > 0 && now <= at.saturating_add(millis(COUNTS_FOR));
            if counts {
                side.level.load(Ordering::Relaxed)
            } else {
                0
            }
        };
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            has_agent: self.has_agent.load(Ordering::Relaxed),
            caller_level: loud(&self.caller),
            agent_level: loud(&self.agent),
            words: words.clone(),
        }
    }
}

/// Returns how loud the loudest sample is, of 0 to 100.
fn level(chunk: &Chunk) -> u32 {
    let samples = chunk.samples();
    let loudest = match chunk.encoding() {
        Encoding::Mulaw => samples
            .iter()
            .map(|byte| decode_ulaw(*byte).unsigned_abs())
            .max(),
        Encoding::Pcm16k | Encoding::Pcm24k => {
            let (pairs, _) = samples.as_chunks::<2>();
            let samples = pairs.iter().map(|pair| i16::from_le_bytes(*pair));
            samples.map(i16::unsigned_abs).max()
        }
    };
    let decibels = 20.0 * (f32::from(loudest.unwrap_or(0).max(1)) / 32_768.0).log10();
    let share = (1.0 + decibels / QUIETEST).clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and 100"
    )]
    let level = (share * 100.0).round() as u32;
    level
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mulaw(sample: i16) -> Chunk {
        let samples = [audio_codec_algorithms::encode_ulaw(sample); 160];
        Chunk::encode(&samples, Encoding::Mulaw)
    }

    #[test]
    fn loudness_is_read_from_every_encoding() {
        for (sample, expected) in [
            (0, 0..=1),
            (100, 0..=5),
            (3_000, 55..=62),
            (32_000, 98..=100),
        ] {
            let pcm: Vec<u8> = [i16::to_le_bytes(sample); 320].concat();
            for chunk in [
                mulaw(sample),
                Chunk::encode(&pcm, Encoding::Pcm16k),
                Chunk::encode(&pcm, Encoding::Pcm24k),
            ] {
                let level = level(&chunk);
                assert!(expected.contains(&level), "{sample}: {level} of {chunk:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_is_watched_is_measured_and_silence_sets_in_by_itself() {
        let watched = Arc::new(AtomicBool::new(false));
        let pulse = Pulse::new(Arc::clone(&watched));
        pulse.hears(Speaker::Caller, &mulaw(32_000));
        assert_eq!(pulse.read().caller_level, 0);
        watched.store(true, Ordering::Relaxed);
        pulse.hears(Speaker::Caller, &mulaw(32_000));
        let loud = pulse.read().caller_level;
        assert!(loud > 90, "{loud}");
        pulse.hears(Speaker::Caller, &mulaw(0));
        assert_eq!(pulse.read().caller_level, loud, "it is not time yet");
        tokio::time::advance(EVERY).await;
        pulse.hears(Speaker::Agent, &mulaw(3_000));
        assert!(pulse.read().agent_level > 50);
        tokio::time::advance(COUNTS_FOR + EVERY).await;
        let reading = pulse.read();
        assert_eq!((reading.caller_level, reading.agent_level), (0, 0));
    }
}
