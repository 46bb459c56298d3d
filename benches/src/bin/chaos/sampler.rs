//! How many calls are live, looked at often enough to see a moment too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::anyhow;
use serde::Serialize;

use crate::life::World;
use crate::statistics::{number, rounded};

/// How often it is looked.
const EVERY: Duration = Duration::from_millis(4);
/// Every how many samples one is kept.
const KEPT: u64 = 50;

/// Looks from a thread of its own, so that it looks also while the carrier is busy.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Seen>,
}

/// What was seen.
#[derive(Serialize)]
pub struct Seen {
    pub samples: u64,
    pub over_cap: u64,
    pub most: usize,
    /// How many were live at a sample, in the mean.
    pub mean: f64,
    /// Every fiftieth sample: five a second.
    pub live: Vec<usize>,
}

impl Sampler {
    pub fn start(world: &Arc<World>, cap: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, world) = (Arc::clone(&stop), Arc::clone(world));
        let looking = thread::spawn(move || {
            let mut seen = Seen {
                samples: 0,
                over_cap: 0,
                most: 0,
                mean: 0.0,
                live: Vec::new(),
            };
            let mut sum = 0.0;
            while !stopped.load(Ordering::Relaxed) {
                let live = world.carrier.truth.live();
                if seen.samples.is_multiple_of(KEPT) {
                    seen.live.push(live);
                }
                seen.samples += 1;
                seen.over_cap += u64::from(cap < live);
                seen.most = seen.most.max(live);
                sum += number(live);
                thread::sleep(EVERY);
            }
            #[expect(clippy::cast_precision_loss, reason = "samples of minutes")]
            let count = seen.samples.max(1) as f64;
            seen.mean = rounded(sum / count);
            seen
        });
        Self { stop, looking }
    }

    /// # Errors
    /// If the thread has panicked.
    pub fn stop(self) -> anyhow::Result<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        let seen = self.looking.join();
        seen.map_err(|_| anyhow!("the sampler panicked"))
    }
}
