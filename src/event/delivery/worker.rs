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
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    event::{
        Cause, Endpoint, Endpoints, Fate, Outcome, Schedule,
        outbox::{Claimed, LEASE, Outbox, Place, Settled},
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

/// What has come of tries.
#[derive(Default)]
struct Heard {
    /// What is to be settled.
    settled: Vec<Settled>,
    /// Until when the receiver wants to be left alone.
    rests_until: Option<Instant>,
}

/// What came of a try.
struct Tried {
    settled: Settled,
    /// How long the receiver wants to be left alone.
    rest: Option<Duration>,
}

impl Worker {
    /// Sends what is due, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut under_way: JoinSet<Option<Tried>> = JoinSet::new();
        let mut heard = Heard::default();
        let mut is_due = false;
        loop {
            let may_claim = is_due && heard.rests_until.is_none();
            if heard.settled.is_empty() && (!may_claim || under_way.len() == MOST_UNDER_WAY) {
                let rested = heard.rests_until.unwrap_or_else(Instant::now);
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.wake.notified() => is_due = true,
                    () = sleep_until(rested), if heard.rests_until.is_some() => {
                        heard.rests_until = None;
                    }
                    Some(ended) = under_way.join_next() => {
                        self.hear(ended, &mut heard);
                        sleep(GATHERED_FOR).await;
                    }
                }
            }
            while let Some(ended) = under_way.try_join_next() {
                self.hear(ended, &mut heard);
            }
            let Some(endpoint) = self.endpoint() else {
                break; // It is in force no more.
            };
            let room = if is_due && heard.rests_until.is_none() {
                MOST_UNDER_WAY - under_way.len()
            } else {
                0
            };
            if room == 0 && heard.settled.is_empty() {
                continue;
            }
            let asked_at = Instant::now();
            let turn = self.outbox.turn(&self.place, heard.settled.clone(), room);
            match stop.run_until_cancelled(turn).await {
                None => break,
                Some(Ok(claimed)) => {
                    heard.settled.clear();
                    is_due = is_due && claimed.len() == room;
                    for one in claimed {
                        under_way.spawn(self.try_once(endpoint.clone(), one, asked_at));
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
        self.go_home(under_way, heard).await;
    }

    /// Waits a moment for what is under way. What is not settled then is sent again, by whoever
    /// comes when its lease has lapsed.
    async fn go_home(&self, mut under_way: JoinSet<Option<Tried>>, mut heard: Heard) {
        let last = async {
            while let Some(ended) = under_way.join_next().await {
                self.hear(ended, &mut heard);
            }
        };
        let _ = timeout(LAST_MOMENT, last).await;
        if !heard.settled.is_empty() {
            let turn = self.outbox.turn(&self.place, heard.settled, 0);
            let _ = timeout(LAST_MOMENT, turn).await;
        }
    }

    fn endpoint(&self) -> Option<Endpoint> {
        self.place.find(&self.endpoints.borrow()).cloned()
    }

    /// Notes what has come of a try.
    fn hear(&self, ended: Result<Option<Tried>, JoinError>, heard: &mut Heard) {
        let Tried { settled, rest } = match ended {
            Ok(Some(tried)) => tried,
            Ok(None) => return, // Somebody else may have claimed it.
            Err(error) => {
                tracing::error!(%error, "sending an event panicked: this is a bug");
                return; // Its lease lapses.
            }
        };
        let rests_until = rest.map(|rest| Instant::now() + rest);
        heard.rests_until = heard.rests_until.max(rests_until);
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
        heard.settled.push(settled);
    }

    /// Sends what was claimed by a question that was asked at `asked_at`, unless its lease may lapse
    /// before the try is over: whoever claims it then would send it as well.
    fn try_once(
        &self,
        endpoint: Endpoint,
        claimed: Claimed,
        asked_at: Instant,
    ) -> impl Future<Output = Option<Tried>> + Send + 'static {
        let (client, schedule) = (self.client.clone(), Arc::clone(&self.schedule));
        async move {
            // This process may have been stopped meanwhile, or have waited for the database.
            if asked_at.elapsed() + LIMITS.patience > LEASE {
                return None;
            }
            let answer = send(&client, &endpoint, &claimed).await;
            let (status, error, outcome) = match &answer {
                Ok(answer) => {
                    let status = answer.status.as_u16();
                    let outcome = Outcome::Answered(status, pause_asked_by(answer));
                    (Some(status), None, outcome)
                }
                Err(error) => (None, Some(error.as_str()), Outcome::NotAnswered),
            };
            let settled = Settled {
                fate: schedule.fate(claimed.tries + 1, outcome, rand::random()),
                event: claimed.event,
                lease: claimed.lease,
                status,
                error,
            };
            let rest = outcome.rest();
            Some(Tried { settled, rest })
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

#[cfg(test)]
mod tests {
    use tokio::time::{advance, pause, resume};

    use super::*;
    use crate::event::{
        EventKind,
        tests::{Post, place, rules, sink},
    };

    #[tokio::test]
    async fn what_was_claimed_too_long_ago_is_left_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let post = Post::open(&format!("sqlite://{}/a.db", folder.path().display())).await;
        let server = sink(|_, _| 200).await;
        post.tell(&[("crm", &server, &[])]);
        post.write(EventKind::CallEnded, &["evt_1"]).await;
        let worker = Worker {
            client: GuardedClient::new(&rules()).unwrap().of(&place().tenant),
            place: place(),
            outbox: post.outbox.clone(),
            endpoints: post.endpoints.subscribe(),
            schedule: Arc::default(),
            metrics: EventMetrics::default(),
            wake: Arc::default(),
        };
        let endpoint = worker.endpoint().unwrap();
        let asked_at = Instant::now();
        let claimed = worker.outbox.turn(&place(), Vec::new(), 1).await.unwrap();
        let claimed = claimed.into_iter().next().unwrap();
        pause();
        advance(LEASE.saturating_sub(LIMITS.patience)).await;
        resume();
        let late = worker.try_once(endpoint.clone(), claimed.clone(), asked_at);
        assert!(late.await.is_none());
        assert!(server.requests().is_empty());
        let in_time = worker.try_once(endpoint, claimed, Instant::now());
        assert_eq!(in_time.await.unwrap().settled.fate, Fate::Delivered);
        assert_eq!(server.requests().len(), 1);
        post.database.close().await;
    }
}
