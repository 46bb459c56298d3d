//! Sends what is due: a worker for each endpoint, so that one bad receiver delays nobody else.
//!
//! Invariant: what is sent was committed before, and is sent until it is settled.
//! Invariant: what is under way when the process ends is settled within moments, or sent again.

mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    event::{
        Endpoints, Schedule,
        delivery::worker::Worker,
        names,
        outbox::{Outbox, Place, Standing},
    },
    guard::{GuardRules, GuardedClient},
    record::Database,
    telemetry::EventMetrics,
};

/// How often the database is asked what is due, at most: after what was committed here.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it is asked at least: what others have committed, or left, and what is to be tried
/// again, is told by nobody.
const LOOK: Duration = Duration::from_secs(2);
/// How often it is asked how deliveries stand, which means counting them.
const COUNT: Duration = Duration::from_secs(10);

/// What sends events, until it is closed.
#[derive(Debug)]
pub struct Deliveries {
    standing: Arc<Mutex<Vec<Standing>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What counts deliveries, beside whatever else is done: counting may take long.
struct Counter {
    outbox: Outbox,
    endpoints: watch::Receiver<Arc<Endpoints>>,
    metrics: EventMetrics,
    standing: Arc<Mutex<Vec<Standing>>>,
    /// Where events wait for an endpoint that is not in force, as the log has it already.
    warned_of: BTreeSet<(String, String)>,
}

/// What wakes and ends workers.
struct Dispatcher {
    outbox: Outbox,
    database: Database,
    endpoints: watch::Receiver<Arc<Endpoints>>,
    client: GuardedClient,
    schedule: Arc<Schedule>,
    metrics: EventMetrics,
    tasks: TaskTracker,
    stop: CancellationToken,
    workers: BTreeMap<Place, Handle>,
}

struct Handle {
    wake: Arc<Notify>,
    stop: CancellationToken,
}

impl Deliveries {
    /// Begins to send what is due to the endpoints in force, on the database's thread.
    ///
    /// # Errors
    /// If there is no TLS to be had, or the proxy is none.
    pub fn start(
        database: &Database,
        endpoints: watch::Receiver<Arc<Endpoints>>,
        rules: &GuardRules,
        schedule: Schedule,
        metrics: EventMetrics,
    ) -> Result<Self, reqwest::Error> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let standing = Arc::default();
        let counter = Counter {
            outbox: Outbox::new(database.clone()),
            endpoints: endpoints.clone(),
            metrics: metrics.clone(),
            standing: Arc::clone(&standing),
            warned_of: BTreeSet::new(),
        };
        database.spawn(tasks.track_future(counter.run(stop.clone())));
        let dispatcher = Dispatcher {
            outbox: Outbox::new(database.clone()),
            database: database.clone(),
            endpoints,
            client: GuardedClient::new(rules)?,
            schedule: Arc::new(schedule),
            metrics,
            tasks: tasks.clone(),
            stop: stop.clone(),
            workers: BTreeMap::new(),
        };
        database.spawn(tasks.track_future(dispatcher.run()));
        Ok(Self {
            standing,
            tasks,
            stop,
        })
    }

    /// Returns how deliveries stood when they were counted last.
    pub fn standing(&self) -> Vec<Standing> {
        let standing = self.standing.lock();
        standing.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Claims nothing more, and waits a moment for what is under way.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        // Each task bounds its own end.
        self.tasks.wait().await;
    }
}

impl Handle {
    fn works(&self) -> bool {
        Arc::strong_count(&self.wake) > 1
    }
}

impl Dispatcher {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let mut commits = self.database.commits();
        loop {
            commits.mark_unchanged();
            self.employ();
            let looked = Instant::now();
            if stop.run_until_cancelled(self.wake()).await.is_none() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(looked + LOOK) => {}
                // Their senders are gone at the end only.
                Ok(()) = commits.changed() => {}
                Ok(()) = self.endpoints.changed() => {}
            }
            if stop
                .run_until_cancelled(sleep_until(looked + PAUSE))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Gives each endpoint in force a worker, and sends home those of the others.
    fn employ(&mut self) {
        let endpoints = Arc::clone(&self.endpoints.borrow_and_update());
        let places = endpoints.iter().flat_map(|(tenant, own)| {
            own.iter().map(|endpoint| Place {
                tenant: tenant.clone(),
                endpoint: endpoint.name.clone(),
            })
        });
        let mut idle = std::mem::take(&mut self.workers);
        for place in places {
            // One that has panicked is replaced.
            let handle = idle.remove(&place).filter(Handle::works);
            let handle = handle.unwrap_or_else(|| self.hire(place.clone()));
            self.workers.insert(place, handle);
        }
        for handle in idle.values() {
            handle.stop.cancel();
        }
    }

    fn hire(&self, place: Place) -> Handle {
        let (wake, stop) = (Arc::new(Notify::new()), self.stop.child_token());
        let worker = Worker {
            client: self.client.of(&place.tenant),
            place,
            outbox: self.outbox.clone(),
            endpoints: self.endpoints.clone(),
            schedule: Arc::clone(&self.schedule),
            metrics: self.metrics.clone(),
            wake: Arc::clone(&wake),
        };
        let working = self.tasks.track_future(worker.run(stop.clone()));
        self.database.spawn(working);
        Handle { wake, stop }
    }

    async fn wake(&self) {
        if self.workers.is_empty() {
            return;
        }
        let places: Vec<_> = self.workers.keys().cloned().collect();
        match self.outbox.due(&places).await {
            Ok(due) => {
                let due = due.iter().filter_map(|place| self.workers.get(place));
                due.for_each(|handle| handle.wake.notify_one());
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::debug!(error, "nobody knows which events are due");
            }
        }
    }
}

impl Counter {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(COUNT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if stop.run_until_cancelled(self.count()).await.is_none() {
                return;
            }
        }
    }

    async fn count(&mut self) {
        let endpoints = Arc::clone(&self.endpoints.borrow());
        match self.outbox.standing(&endpoints).await {
            Ok(standing) => {
                let known: BTreeMap<_, _> = standing
                    .iter()
                    .map(|one| ((one.tenant.as_str(), one.endpoint.as_str()), one))
                    .collect();
                // Also where nothing waits: what grows from nothing would not be seen to grow.
                self.metrics.stand(names(&endpoints).map(|place| {
                    let (waiting, oldest, dead) = known
                        .get(&place)
                        .map_or_else(Default::default, |one| (one.waiting, one.oldest, one.dead));
                    (place, waiting, oldest, dead)
                }));
                self.warn_where_nobody_sends(&standing);
                *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
            }
            Err(error) => {
                let error = &error as &dyn Error;
                tracing::debug!(error, "nobody could count the events that wait");
            }
        }
    }

    /// Says once of each endpoint that is not in force that events wait for it, which nobody sends.
    fn warn_where_nobody_sends(&mut self, standing: &[Standing]) {
        let known = std::mem::take(&mut self.warned_of);
        for one in standing {
            if one.in_force || one.waiting == 0 {
                continue;
            }
            let place = (one.tenant.clone(), one.endpoint.clone());
            if !known.contains(&place) {
                tracing::warn!(
                    tenant = one.tenant,
                    endpoint = one.endpoint,
                    waiting = one.waiting,
                    "events wait for an endpoint that is not in force: nobody sends them"
                );
            }
            self.warned_of.insert(place);
        }
    }
}
