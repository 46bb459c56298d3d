//! Sends the events of one endpoint, several at once.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    event::{
        Cause, Endpoint, Endpoints, Fate, Outcome, Schedule,
        outbox::{Claimed, Outbox, Place, Settled},
        pause_asked_for,
    },
    guard::{Answer, GuardError, GuardedClient, Limits},
    telemetry::EventMetrics,
};

/// How many tries of one endpoint's are under way at once, those that are to be settled included.
const MOST_UNDER_WAY: usize = 8;
/// How long others that end are waited for, to be settled in one transaction.
const GATHERED_FOR: Duration = Duration::from_millis(20);
/// What one try may cost. Only the status of an answer counts; what is read of it lets the
/// connection be used again.
const LIMITS: Limits = Limits {
    patience: Duration::from_secs(10),
    longest_answer: 16 << 10,
};
/// The pause after the database has not answered.
const PAUSE: Duration = Duration::from_secs(1);
/// How long what is under way may go on when the worker is sent home, and settling it may take.
const LAST_MOMENT: Duration = Duration::from_secs(1);

pub struct Worker {
    pub place: Place,
    pub outbox: Outbox,
    pub endpoints: watch::Receiver<Arc<Endpoints>>,
    pub client: GuardedClient,
    pub schedule: Arc<Schedule>,
    pub metrics: EventMetrics,
    /// Says that something is due.
    pub wake: Arc<Notify>,
}

impl Worker {
    /// Sends what is due, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut under_way: JoinSet<Settled> = JoinSet::new();
        let mut settled: Vec<Settled> = Vec::new();
        let mut is_due = false;
        loop {
            if settled.is_empty() && (!is_due || under_way.len() == MOST_UNDER_WAY) {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.wake.notified() => is_due = true,
                    Some(ended) = under_way.join_next() => {
                        settled.extend(self.heard(ended));
                        sleep(GATHERED_FOR).await;
                    }
                }
            }
            while let Some(ended) = under_way.try_join_next() {
                settled.extend(self.heard(ended));
            }
            let Some(endpoint) = self.endpoint() else {
                break; // It is in force no more.
            };
            let room = if is_due {
                MOST_UNDER_WAY - under_way.len()
            } else {
                0
            };
            if room == 0 && settled.is_empty() {
                continue;
            }
            let turn = self.outbox.turn(&self.place, settled.clone(), room);
            match stop.run_until_cancelled(turn).await {
                None => break,
                Some(Ok(claimed)) => {
                    settled.clear();
                    is_due = is_due && claimed.len() == room;
                    for one in claimed {
                        under_way.spawn(self.try_once(endpoint.clone(), one));
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(error = &error as &dyn Error, "events wait for the database");
                    if stop.run_until_cancelled(sleep(PAUSE)).await.is_none() {
                        break;
                    }
                }
            }
        }
        self.go_home(under_way, settled).await;
    }

    /// Waits a moment for what is under way. What is not settled then is sent again, by whoever
    /// comes when its lease has lapsed.
    async fn go_home(&self, mut under_way: JoinSet<Settled>, mut settled: Vec<Settled>) {
        let last = async {
            while let Some(ended) = under_way.join_next().await {
                settled.extend(self.heard(ended));
            }
        };
        let _ = timeout(LAST_MOMENT, last).await;
        if !settled.is_empty() {
            let turn = self.outbox.turn(&self.place, settled, 0);
            let _ = timeout(LAST_MOMENT, turn).await;
        }
    }

    fn endpoint(&self) -> Option<Endpoint> {
        self.place.find(&self.endpoints.borrow()).cloned()
    }

    /// Notes what has come of a try.
    fn heard(&self, ended: Result<Settled, tokio::task::JoinError>) -> Option<Settled> {
        let settled = match ended {
            Ok(settled) => settled,
            Err(error) => {
                tracing::error!(%error, "sending an event panicked: this is a bug");
                return None; // Its lease lapses.
            }
        };
        let (tenant, endpoint) = (self.place.tenant.as_str(), self.place.endpoint.as_str());
        self.metrics.tried(tenant, endpoint, settled.fate);
        if let Fate::Dead(cause) = settled.fate {
            let (status, error) = (settled.status, settled.error);
            let event = &settled.event;
            match cause {
                Cause::Exhausted => tracing::warn!(
                    tenant,
                    endpoint,
                    event,
                    status,
                    error,
                    "an event is dead: every try has failed"
                ),
                Cause::Gone => tracing::warn!(
                    tenant,
                    endpoint,
                    event,
                    "an event is dead: its endpoint says that it is gone"
                ),
            }
        }
        Some(settled)
    }

    fn try_once(
        &self,
        endpoint: Endpoint,
        claimed: Claimed,
    ) -> impl Future<Output = Settled> + Send + 'static {
        let (client, schedule) = (self.client.clone(), Arc::clone(&self.schedule));
        async move {
            let answer = send(&client, &endpoint, &claimed).await;
            let (status, error, outcome) = match &answer {
                Ok(answer) => {
                    let status = answer.status.as_u16();
                    let outcome = Outcome::Answered(status, pause_asked_by(answer));
                    (Some(status), None, outcome)
                }
                Err(error) => (None, Some(error.as_str()), Outcome::NotAnswered),
            };
            Settled {
                fate: schedule.fate(claimed.tries + 1, outcome, rand::random()),
                event: claimed.event,
                lease: claimed.lease,
                status,
                error,
            }
        }
    }
}

async fn send(
    client: &GuardedClient,
    endpoint: &Endpoint,
    claimed: &Claimed,
) -> Result<Answer, GuardError> {
    // A receiver holds the time of sending against its own clock, so each try has its own.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let sent_at = since.unwrap_or_default().as_secs();
    let body = Bytes::from(claimed.content.body_for(endpoint));
    let mut headers: HeaderMap = endpoint.secrets.headers(&claimed.event, sent_at, &body);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    client.post(&endpoint.url, headers, body, LIMITS).await
}

fn pause_asked_by(answer: &Answer) -> Option<Duration> {
    let asked = answer.headers.get(RETRY_AFTER)?.to_str().ok()?;
    pause_asked_for(asked, SystemTime::now())
}
