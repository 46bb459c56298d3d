//! One call's life, as a carrier lives it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use callgate_benches::carrier::{Carrier, Ending, MediaError, Over, WebhookError};
use callgate_benches::twilio::{Answer, Stream};
use futures_util::future::join_all;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use crate::statistics::milliseconds;

/// The shortest call where it matters that its ticket is read before its last status arrives.
pub const SHORTEST: Duration = Duration::from_millis(300);

/// A cluster, as calls see it, and what became of them.
pub struct World {
    pub carrier: Carrier,
    pub replicas: Vec<SocketAddr>,
    pub began: Instant,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    rings: Mutex<Vec<Ring>>,
    /// When streams were lost that their callers had not left, since the world began.
    losses: Mutex<Vec<Duration>>,
}

/// One webhook of a ringing call.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    /// When it was due, since the world began.
    pub at: Duration,
    /// From sending it to its answer.
    pub took: Duration,
    /// From when it was due to its answer, however late it was sent.
    pub waited: Duration,
    pub admitted: bool,
    /// Whether its media comes if it is admitted.
    pub has_media: bool,
}

impl Ring {
    /// Returns when it rang and how long that took, in milliseconds.
    pub fn sample(&self) -> [f64; 2] {
        [milliseconds(self.at), milliseconds(self.took)]
    }
}

/// What a call is going to do.
#[derive(Debug, Clone)]
pub struct Life {
    pub sid: String,
    /// Where its webhook arrives; several get a copy at the same moment.
    pub rings_at: Vec<SocketAddr>,
    pub media: Media,
    /// How often its last status is told: it may be lost, and it may come twice.
    pub finals: u32,
    /// Whether its first webhook comes again when all is over.
    pub rings_again: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Media {
    Talks(Duration, Ending),
    /// The media never comes; the caller is gone after this time.
    NeverComes(Duration),
}

impl Life {
    /// A caller who rings at `door`, talks for a random time of this mean, and hangs up.
    pub fn talking(random: &mut StdRng, door: SocketAddr, mean: Duration) -> Self {
        Self {
            sid: sid(random),
            rings_at: vec![door],
            media: Media::Talks(around(random, mean).max(SHORTEST), Ending::HangsUp),
            finals: 1,
            rings_again: false,
        }
    }
}

impl World {
    pub fn new(carrier: Carrier, replicas: Vec<SocketAddr>) -> Self {
        Self {
            carrier,
            replicas,
            began: Instant::now(),
            counts: Mutex::default(),
            rings: Mutex::default(),
            losses: Mutex::default(),
        }
    }

    /// Lives through a call; tells whether it was admitted.
    pub async fn live(&self, life: &Life) -> bool {
        self.live_from(Instant::now(), life).await
    }

    /// Lives through a call that was due then; tells whether it was admitted.
    pub async fn live_from(&self, due: Instant, life: &Life) -> bool {
        let door = self.carrier.door();
        let stream = match self.ring(due, life).await {
            Some(Answer::Connect(stream)) => stream,
            Some(Answer::Told(_)) => {
                self.count("refused");
                // Twilio says so when the busy text is over.
                self.tell(door, &life.sid, "completed").await;
                return false;
            }
            Some(Answer::HungUp) => {
                self.count("hung_up");
                return false;
            }
            None => {
                self.tell(door, &life.sid, "failed").await;
                return false;
            }
        };
        self.count("admitted");
        match life.media {
            Media::Talks(time, ending) => self.talk(life, &stream, time, ending).await,
            Media::NeverComes(time) => {
                self.count("without_media");
                sleep(time).await;
            }
        }
        self.carrier.truth.ended(&life.sid);
        for _ in 0..life.finals {
            self.tell(door, &life.sid, "completed").await;
        }
        if life.rings_again {
            self.ring_again(life).await;
        }
        true
    }

    /// Rings wherever the call rings, at once, and returns what it is answered.
    async fn ring(&self, due: Instant, life: &Life) -> Option<Answer> {
        let rings = life.rings_at.iter().map(async |to| {
            let rung = self.carrier.ring(*to, &life.sid).await;
            let rung = rung.map_err(|error| self.count(webhook_fault(&error)));
            Some((rung.ok()?, due.elapsed()))
        });
        let mut rung = join_all(rings).await.into_iter().flatten();
        let (first, waited) = rung.next()?;
        lock(&self.rings).push(Ring {
            at: due.saturating_duration_since(self.began),
            took: first.took,
            waited,
            admitted: matches!(first.answer, Answer::Connect(_)),
            has_media: matches!(life.media, Media::Talks(..)),
        });
        if rung.any(|(other, _)| other.answer != first.answer) {
            self.count("copies_answered_differently");
        }
        Some(first.answer)
    }

    async fn talk(&self, life: &Life, stream: &Stream, time: Duration, ending: Ending) {
        let lost = match self.carrier.open(&life.sid, stream).await {
            Ok(media) => {
                let over = media.talk(time, ending, &self.carrier.truth).await;
                if over == Over::Closed {
                    self.count("streams_lost");
                    lock(&self.losses).push(self.began.elapsed());
                }
                over == Over::Closed || ending == Ending::Dies
            }
            Err(error) => {
                self.count(media_fault(&error));
                true
            }
        };
        if lost {
            // The caller is still there, and Twilio asks what it hears.
            let asked = self
                .carrier
                .stream_ended(self.carrier.door(), &life.sid)
                .await;
            if let Err(error) = asked {
                self.count(webhook_fault(&error));
            }
        }
    }

    async fn ring_again(&self, life: &Life) {
        let door = self.carrier.door();
        match self.carrier.ring(door, &life.sid).await {
            Ok(rung) => {
                self.count("rung_again");
                if matches!(rung.answer, Answer::Connect(_)) {
                    // Only where nobody was told that the call has ended.
                    self.count("rung_again_and_connected");
                    self.tell(door, &life.sid, "completed").await;
                }
            }
            Err(error) => self.count(webhook_fault(&error)),
        }
    }

    async fn tell(&self, to: SocketAddr, sid: &str, status: &str) {
        if let Err(error) = self.carrier.status(to, sid, status).await {
            self.count(webhook_fault(&error));
        }
    }

    pub fn count(&self, what: &'static str) {
        *lock(&self.counts).entry(what).or_default() += 1;
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    pub fn rings(&self) -> Vec<Ring> {
        lock(&self.rings).clone()
    }

    pub fn losses(&self) -> Vec<Duration> {
        lock(&self.losses).clone()
    }
}

/// Returns a name for a call.
pub fn sid(random: &mut StdRng) -> String {
    format!("CA{:032x}", random.random::<u128>())
}

/// Returns a random time of this mean: most are shorter, none is four times as long.
pub fn around(random: &mut StdRng, mean: Duration) -> Duration {
    let share: f64 = random.random_range(0.018..1.0); // e^-4 is 0.018.
    mean.mul_f64(-share.ln())
}

fn webhook_fault(error: &WebhookError) -> &'static str {
    match error {
        WebhookError::Http(_) => "webhooks_unanswered",
        WebhookError::Status(502..=504) => "webhooks_without_replica",
        WebhookError::Status(_) | WebhookError::Twiml(_) => "webhooks_answered_badly",
    }
}

fn media_fault(error: &MediaError) -> &'static str {
    match error {
        MediaError::Refused(403) => "media_forbidden",
        MediaError::Refused(_) => "media_refused",
        MediaError::Http(_) | MediaError::TooSlow(_) => "media_unreachable",
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
