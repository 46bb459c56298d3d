//! Writes what is noted, many facts in one transaction, so that a flood of refusals is cheap.
//!
//! Invariant: a fact waits here until it is committed; a database that is down costs time only.
//! Invariant: what is written twice, because nobody heard that it was done, is written once.

mod announcing;
mod batch;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    call::CarrierCallId,
    record::{Database, DatabaseError, Entry, Fact, Numbers, What, kept_text, unix_millis},
};

pub use announcing::{COLUMNS, CallFacts, Event, Told, announce, date, last_words};
pub use batch::MERGED;
#[cfg(test)]
pub use batch::write;

/// How many facts wait for the database at most; a call has about ten, words aside.
const MOST_WAITING: usize = 50_000;
/// How many places among them are kept for what closes calls: without it a call would stay open in its
/// record. Ten thousand calls end by it.
const KEPT_FOR_ENDS: usize = 10_000;
/// How many places beyond those are kept from what is said, of which there is most and which is missed
/// least.
const KEPT_FROM_WORDS: usize = 10_000;
/// How many facts are written at once.
const MOST_AT_ONCE: usize = 500;
/// How long facts wait for others to be written with.
const GATHERED_FOR: Duration = Duration::from_millis(40);
/// The pause before a failed transaction is tried again, and what it grows to.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// How many calls a slow listener may not have heard of whose ends are written.
const UNHEARD_OF: usize = 4_096;
/// How long what still waits may take to be written when the process ends.
pub const LAST_WORDS: Duration = Duration::from_secs(5);

/// Takes facts for the database, without waiting.
#[derive(Debug)]
pub struct Recorder {
    queue: mpsc::Sender<Entry>,
    transcripts: bool,
    standing: Arc<Counts>,
}

/// How the writing stands, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Facts that wait to be written.
    pub waiting: usize,
    /// Facts that nobody has room for any more.
    pub dropped: u64,
    /// Facts that the database does not take.
    pub refused: u64,
    /// Why nothing is written at the moment.
    pub failing: Option<String>,
    pub failing_for: Option<Duration>,
}

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    dropped: AtomicU64,
    refused: AtomicU64,
    failing: Mutex<Option<(Instant, String)>>,
}

/// The other end of a [`Recorder`].
pub struct Writer {
    queue: mpsc::Receiver<Entry>,
    database: Database,
    numbers: Arc<Numbers>,
    told: Arc<dyn Told>,
    replica: String,
    /// Is told which calls' ends are committed.
    written: broadcast::Sender<CarrierCallId>,
    standing: Arc<Counts>,
}

#[cfg(test)]
impl Writer {
    /// Returns the first that waits, and does not write it.
    pub async fn first_waiting(&mut self) -> Option<Entry> {
        self.queue.recv().await
    }
}

impl Recorder {
    /// Returns a recorder, and what writes for it.
    pub fn new(
        database: &Database,
        numbers: Arc<Numbers>,
        told: Arc<dyn Told>,
        replica: &str,
        transcripts: bool,
    ) -> (Self, Writer) {
        let (queue, queued) = mpsc::channel(MOST_WAITING);
        let standing = Arc::new(Counts::default());
        let writer = Writer {
            queue: queued,
            database: database.for_records(),
            numbers,
            told,
            replica: replica.to_owned(),
            written: broadcast::Sender::new(UNHEARD_OF),
            standing: Arc::clone(&standing),
        };
        let recorder = Self {
            queue,
            transcripts,
            standing,
        };
        (recorder, writer)
    }

    /// Notes a fact of a call.
    pub fn note(&self, call: &CarrierCallId, mut fact: Fact) {
        if !self.transcripts && matches!(fact, Fact::Happened(What::Said { .. })) {
            return;
        }
        if let Fact::Happened(What::Said { text, .. }) = &mut fact {
            // As long as it waits it takes no more room than it will in the database.
            *text = kept_text(text);
        }
        let entry = Entry {
            id: Uuid::now_v7(),
            call: call.clone(),
            at: unix_millis(),
            fact,
        };
        let kept = kept_from(&entry.fact);
        self.standing.waiting.fetch_add(1, Ordering::Relaxed);
        let has_room = self.queue.capacity() > kept;
        if has_room && self.queue.try_send(entry).is_ok() {
            return;
        }
        self.standing.waiting.fetch_sub(1, Ordering::Relaxed);
        let dropped = self.standing.dropped.fetch_add(1, Ordering::Relaxed);
        if dropped.is_multiple_of(1_000) {
            tracing::error!(
                dropped,
                "records are lost: the database is away for too long"
            );
        }
    }

    /// Tells whether what is said is kept.
    pub fn keeps_words(&self) -> bool {
        self.transcripts
    }

    pub fn standing(&self) -> Standing {
        let counts = &self.standing;
        let failing = counts.failing.lock();
        let failing = failing.unwrap_or_else(PoisonError::into_inner).clone();
        Standing {
            waiting: counts.waiting.load(Ordering::Relaxed),
            dropped: counts.dropped.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            failing_for: failing.as_ref().map(|(since, _)| since.elapsed()),
            failing: failing.map(|(_, why)| why),
        }
    }
}

/// Returns how many places a fact may not take.
fn kept_from(fact: &Fact) -> usize {
    match fact {
        Fact::Lost { .. } | Fact::Happened(What::Ended(_)) => 0,
        Fact::Happened(What::Said { .. } | What::Turn(_)) => KEPT_FOR_ENDS + KEPT_FROM_WORDS,
        Fact::Arrived(_) | Fact::Happened(_) | Fact::Talked(_) | Fact::Used(_) => KEPT_FOR_ENDS,
    }
}

impl Writer {
    /// Returns what is told which calls' ends are committed.
    pub fn written(&self) -> broadcast::Sender<CarrierCallId> {
        self.written.clone()
    }

    /// Writes until `stop`, and then what still waits.
    pub async fn run(mut self, stop: CancellationToken) {
        let ready = stop.run_until_cancelled(self.bring_up_to_date()).await;
        if ready.is_some() {
            while let Some(Some(first)) = stop.run_until_cancelled(self.queue.recv()).await {
                let batch = self.gather(first, &stop).await;
                if stop
                    .run_until_cancelled(self.commit(&batch))
                    .await
                    .is_none()
                {
                    // It is tried once more below, with what came after it.
                    if timeout(LAST_WORDS, self.commit(&batch)).await.is_err() {
                        break;
                    }
                }
            }
        }
        self.queue.close();
        let rest = async {
            while let Some(first) = self.queue.recv().await {
                let batch = self.gather(first, &stop).await;
                self.commit(&batch).await;
            }
        };
        let _ = timeout(LAST_WORDS, rest).await;
        let unwritten = self.standing.waiting.load(Ordering::Relaxed);
        if unwritten > 0 {
            tracing::error!(
                unwritten,
                "records are lost: the database was away at the end"
            );
        }
    }

    async fn bring_up_to_date(&self) {
        self.until_done("the records' tables cannot be brought up to date", || {
            self.database.migrate()
        })
        .await;
        self.works();
        tracing::info!(kind = ?self.database.kind(), "records are kept in a database");
    }

    /// Gathers what else there is to write, for a moment.
    async fn gather(&mut self, first: Entry, stop: &CancellationToken) -> Arc<[Entry]> {
        let until = Instant::now() + GATHERED_FOR;
        let mut batch = vec![first];
        while batch.len() < MOST_AT_ONCE {
            let next = if stop.is_cancelled() {
                self.queue.try_recv().ok()
            } else {
                let next = tokio::time::timeout_at(until, self.queue.recv());
                next.await.unwrap_or_default()
            };
            let Some(entry) = next else { break };
            batch.push(entry);
        }
        batch.into()
    }

    /// Writes a batch, however long it takes. Rows that the database does not take are left out; of
    /// what it does not do in time, half may be done.
    async fn commit(&self, batch: &Arc<[Entry]>) {
        const FAILING: &str = "records cannot be written";
        let mut parts = vec![Arc::clone(batch)];
        while let Some(part) = parts.pop() {
            let refused = self
                .until_done(FAILING, || async {
                    match self.write(&part).await {
                        Err(DatabaseError::TooSlow) if part.len() > 1 => {
                            self.fails(FAILING, &DatabaseError::TooSlow);
                            Ok(Some(DatabaseError::TooSlow))
                        }
                        Err(error) if error.blames_rows() => Ok(Some(error)),
                        done => done.map(|()| None),
                    }
                })
                .await;
            if !matches!(refused, Some(DatabaseError::TooSlow)) {
                self.works();
            }
            match refused {
                None => {}
                // Another replica may have given the call its name meanwhile: once more.
                Some(_) if part.len() == 1 && self.write(&part).await.is_ok() => {}
                Some(error) if part.len() == 1 => {
                    self.standing.refused.fetch_add(1, Ordering::Relaxed);
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, call = %part[0].call, "a record is not taken");
                }
                Some(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second.into(), first.into()]);
                    continue;
                }
            }
            self.standing
                .waiting
                .fetch_sub(part.len(), Ordering::Relaxed);
        }
    }

    async fn write(&self, part: &Arc<[Entry]>) -> Result<(), DatabaseError> {
        let (part, numbers) = (Arc::clone(part), Arc::clone(&self.numbers));
        let (told, replica) = (Arc::clone(&self.told), self.replica.clone());
        let over = self.database.write(move |writing| {
            Box::pin(async move {
                batch::write(writing, &part, &numbers, told.as_ref(), &replica).await
            })
        });
        for call in over.await? {
            let _ = self.written.send(call); // Fails while nobody listens.
        }
        Ok(())
    }

    /// Does something until the database has done it; says once that it fails.
    async fn until_done<T, F>(&self, failing: &str, attempt: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, DatabaseError>>,
    {
        let mut tries = 0;
        loop {
            match attempt().await {
                Ok(done) => return done,
                Err(error) => self.fails(failing, &error),
            }
            let pause = PAUSES[tries.min(PAUSES.len() - 1)];
            tries += 1;
            sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }

    /// Says once that the database works again.
    fn works(&self) {
        if self.failing().take().is_some() {
            tracing::info!("records are written again");
        }
    }

    fn fails(&self, what: &str, error: &DatabaseError) {
        let why = match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        let mut failing = self.failing();
        if failing.is_none() {
            tracing::error!(why, "{what}: calls go on, and rows wait (DATABASE_URL)");
        }
        let since = failing.take().map_or_else(Instant::now, |(since, _)| since);
        *failing = Some((since, why));
    }

    fn failing(&self) -> std::sync::MutexGuard<'_, Option<(Instant, String)>> {
        let failing = self.standing.failing.lock();
        failing.unwrap_or_else(PoisonError::into_inner)
    }
}
