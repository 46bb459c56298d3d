//! What operators' pages need beside the rest of the gateway, and the look-out that keeps it up to
//! date.
//!
//! Invariant: nothing here is on a call's path, and next to nothing is done while nobody watches.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{HttpRequest, web};
use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{StoreError, Wishes},
    api::Failures,
    gateway::{Gateway, address_of},
    operator::{
        dashboard::Picture,
        ended::EndedLogins,
        history::{History, Sample},
        login::LoginId,
        noting::Owed,
        question::Questions,
        snapshot::Snapshot,
        view::View,
    },
    telemetry::Tally,
};

/// How often a dashboard shows something new.
const LOOK: Duration = Duration::from_secs(1);
/// How many dashboards one replica keeps up to date.
const MOST_WATCHERS: usize = 32;

/// What operators' pages need beside the rest of the gateway.
#[derive(Debug)]
pub struct Desk {
    /// Tokens that are no operator's.
    pub failures: Failures,
    /// Logins that are good no longer.
    pub ended: EndedLogins,
    /// Rows of `audit` that wait for the database.
    pub owed: Owed,
    /// Is cancelled when an operator wants this replica to drain.
    pub drains: CancellationToken,
    stops_intake: AtomicBool,
    started: Instant,
    history: Mutex<History>,
    picture: watch::Sender<Option<Arc<Picture>>>,
    seats: Arc<Semaphore>,
    /// What operators ask of the database.
    pub questions: Questions,
}

/// A dashboard that is kept up to date, until it is dropped.
pub struct Watcher {
    pub picture: watch::Receiver<Option<Arc<Picture>>>,
    _seat: OwnedSemaphorePermit,
}

impl Desk {
    pub fn new() -> Self {
        Self {
            failures: Failures::new(),
            ended: EndedLogins::default(),
            owed: Owed::default(),
            drains: CancellationToken::new(),
            stops_intake: AtomicBool::new(false),
            started: Instant::now(),
            history: Mutex::default(),
            picture: watch::Sender::new(None),
            seats: Arc::new(Semaphore::new(MOST_WATCHERS)),
            questions: Questions::new(),
        }
    }

    /// Tells whether an operator wants no new calls let in.
    pub fn stops_intake(&self) -> bool {
        self.stops_intake.load(Ordering::Relaxed)
    }

    /// Returns the last hour, the newest first.
    pub fn history(&self) -> Vec<Sample> {
        let history = self.history.lock();
        history
            .unwrap_or_else(PoisonError::into_inner)
            .newest_first()
    }

    /// Takes a seat before the dashboard; `None` when all are taken.
    pub fn watch(&self) -> Option<Watcher> {
        let seat = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        Some(Watcher {
            picture: self.picture.subscribe(),
            _seat: seat,
        })
    }

    fn heed(&self, wishes: &Wishes) {
        let before = self
            .stops_intake
            .swap(wishes.stops_intake, Ordering::Relaxed);
        match (before, wishes.stops_intake) {
            (false, true) => tracing::warn!("the intake of calls is stopped by an operator"),
            (true, false) => tracing::info!("calls are let in again"),
            (true, true) | (false, false) => {}
        }
        if wishes.drains && !self.drains.is_cancelled() {
            tracing::info!("an operator wants this replica to drain");
            self.drains.cancel();
        }
    }

    /// Returns what has come in the last ten minutes.
    pub fn lately(&self) -> Tally {
        let history = self.history.lock();
        history.unwrap_or_else(PoisonError::into_inner).lately()
    }

    fn note(&self, live: u32, refused: u64, tally: Tally) {
        let history = self.history.lock();
        let mut history = history.unwrap_or_else(PoisonError::into_inner);
        history.note(self.started.elapsed(), live, refused, tally);
    }
}

/// Looks every second what operators want, and shows them what there is, as long as somebody
/// watches.
pub async fn look_out(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let look = async || {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            gateway.look().await;
        }
    };
    let survives = async || {
        if AssertUnwindSafe(look()).catch_unwind().await.is_err() {
            tracing::error!("looking out for operators panicked and goes on: this is a bug");
        }
    };
    while stop.run_until_cancelled(survives()).await.is_some() {}
}

impl Gateway {
    async fn look(&self) {
        let (_, refused) = self.metrics.totals();
        let (live, tally) = (self.admission.occupancy().active, self.metrics.tally());
        self.desk.note(live, refused, tally);
        let watched = match self.admission.wishes().await {
            Ok(Some(wishes)) => {
                self.desk.heed(&wishes);
                self.share_ended(&wishes).await;
                wishes.watched
            }
            Ok(None) => false,
            Err(error) => {
                // The heartbeat tells how the store does.
                tracing::debug!(%error, "what operators want is not known");
                false
            }
        };
        let watched_here = self.desk.picture.receiver_count() > 0;
        self.connections.watch(watched || watched_here);
        if watched_here {
            let picture = Picture::of(&self.snapshot().await);
            self.desk.picture.send_replace(Some(Arc::new(picture)));
        } else if watched {
            self.show_others(&View::of(self)).await;
        }
    }

    /// Looks at all replicas, as far as they show themselves, and shows them this one.
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let mine = View::of(self);
        self.show_others(&mine).await;
        let others = self.admission.watch().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the other replicas cannot be seen");
            Vec::new()
        });
        // Another version's may be something else.
        let read = |view: String| serde_json::from_str::<View>(&view).ok();
        let others = others.into_iter();
        let others = others.map(|(name, view)| (name, view.and_then(read)));
        let (forecast, costs) = self.outlook().await;
        Snapshot {
            forecast,
            costs,
            ..Snapshot::of(self, mine, others.collect())
        }
    }

    async fn show_others(&self, view: &View) {
        if !self.admission.is_shared() {
            return;
        }
        let view = serde_json::to_string(view).expect("texts and numbers always serialize");
        if let Err(error) = self.admission.show_view(view).await {
            tracing::debug!(%error, "the other replicas cannot see this one");
        }
    }

    /// Counts a request with a token that is no operator's.
    ///
    /// # Errors
    /// If there are too many from its address, or from all: with how long to wait.
    pub(crate) fn wrong_token(&self, request: &HttpRequest) -> Result<(), Duration> {
        self.metrics.operator_refused();
        let address = address_of(request);
        if self.may_warn() {
            tracing::warn!(
                ?address,
                path = request.path(),
                "a token that is no operator's"
            );
        }
        address.map_or(Ok(()), |address| self.desk.failures.count(address))
    }

    /// Has a login be good no longer: here at once, and on the other replicas once they hear of it.
    pub(crate) async fn end_login(&self, login: LoginId, until: i64) {
        self.desk.ended.add(login, until);
        match self.admission.wishes().await {
            Ok(Some(wishes)) => self.share_ended(&wishes).await,
            Ok(None) => {}
            Err(error) => tracing::warn!(
                %error,
                "the other replicas cannot be told yet that an operator has logged out"
            ),
        }
    }

    /// Learns which logins have ended elsewhere, and tells what the store lacks.
    async fn share_ended(&self, wishes: &Wishes) {
        let now = Timestamp::now().as_second();
        let lacking = self.desk.ended.learn(wishes.ended_logins.as_deref(), now);
        let Some(ended) = lacking else { return };
        if let Err(error) = self.admission.tell_ended_logins(ended).await {
            tracing::debug!(%error, "the store does not know yet which logins have ended");
        }
    }

    /// Lets new calls in, or none, on all replicas.
    ///
    /// # Errors
    /// If the others could not be told: then nothing has changed.
    pub(crate) async fn set_intake(&self, stops: bool) -> Result<(), StoreError> {
        self.admission.set_intake(stops).await?;
        self.desk.heed(&Wishes {
            stops_intake: stops,
            ..Wishes::default()
        });
        Ok(())
    }

    /// Has a replica drain, whichever.
    ///
    /// # Errors
    /// If it could not be told.
    pub(crate) async fn ask_to_drain(&self, replica: &str) -> Result<(), StoreError> {
        if replica != self.admission.replica() {
            return self.admission.ask_to_drain(replica).await;
        }
        self.desk.heed(&Wishes {
            stops_intake: self.desk.stops_intake(),
            drains: true,
            ..Wishes::default()
        });
        Ok(())
    }
}
