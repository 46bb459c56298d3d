//! Calls that arrive at random, however those before them fare.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::lab::Lab;
use crate::life::{Life, World};

/// How long calls may go on after the last one has arrived.
const PATIENCE: Duration = Duration::from_secs(60);

/// Calls that arrive at a rate, which can be changed.
pub struct Arrivals {
    /// Calls a second; none at 0.
    rate: watch::Sender<f64>,
    arriving: JoinSet<JoinSet<()>>,
}

impl Arrivals {
    /// Lets calls arrive at `rate` a second. `next` decides what each one does.
    pub fn start(
        world: &Arc<World>,
        rate: f64,
        mut random: StdRng,
        mut next: impl FnMut(&mut StdRng) -> Life + Send + 'static,
    ) -> Self {
        let (rate, mut rates) = watch::channel(rate);
        let world = Arc::clone(world);
        let mut arriving = JoinSet::new();
        arriving.spawn(async move {
            let mut calls = JoinSet::new();
            let mut due = Instant::now();
            loop {
                let rate = *rates.borrow_and_update();
                // Independent callers: the times between them are distributed exponentially.
                let pause = -random.random_range(f64::MIN_POSITIVE..1.0).ln() / rate;
                let arrived = if rate > 0.0 {
                    due += Duration::from_secs_f64(pause);
                    tokio::select! {
                        () = sleep_until(due) => true,
                        changed = rates.changed() => match changed {
                            Ok(()) => false,
                            Err(_) => return calls,
                        }
                    }
                } else if rates.changed().await.is_ok() {
                    false
                } else {
                    return calls;
                };
                if arrived {
                    let life = next(&mut random);
                    let (world, due) = (Arc::clone(&world), due);
                    calls.spawn(async move {
                        world.live_from(due, &life).await;
                    });
                    while calls.try_join_next().is_some() {}
                } else {
                    due = Instant::now();
                }
            }
        });
        Self { rate, arriving }
    }

    pub fn set_rate(&self, rate: f64) {
        self.rate.send_replace(rate);
    }

    /// Lets no more calls arrive, and waits until those that have are over; a short run cuts them
    /// off.
    ///
    /// # Errors
    /// If some do not end.
    pub async fn end(self, lab: &Lab) -> anyhow::Result<()> {
        if lab.short {
            return Ok(());
        }
        let Self { rate, mut arriving } = self;
        drop(rate);
        let over = async {
            while let Some(calls) = arriving.join_next().await {
                calls?.join_all().await;
            }
            anyhow::Ok(())
        };
        let over = timeout(PATIENCE, over).await;
        ensure!(over.is_ok(), "some calls do not end within {PATIENCE:?}");
        over?
    }
}
