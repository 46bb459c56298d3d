//! What remains of a call: its row, its steps and its words, as whoever watches is told of them
//! and as the database keeps them.
//!
//! Invariant: nobody who has a call waits for the database.

mod database;
mod fact;
mod handed_over;
mod lost;
mod number;
mod placed;
mod retention;
mod row;
mod traffic;
mod writer;

#[cfg(test)]
#[path = "../tests/it/postgres_server.rs"]
pub mod postgres_server;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::broadcast, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    call::{CallId, CarrierCallId},
    campaign::Name,
    config::RecordSettings,
    recent::Millis,
    record::{
        lost::{Living, Lookout},
        retention::keep_short,
        writer::LAST_WORDS,
    },
    trace::{Phase, Traces},
};

pub use database::{Database, DatabaseError, Fields, Kind as DatabaseKind, Sql, Writing};
pub use fact::{Arrival, Direction, Entry, Fact, Impairment, Seen, Step, Usage, What};
pub use handed_over::was_handed_over;
pub use lost::which_are_over;
pub use number::{KeptNumber, Numbers};
pub use placed::find_placed;
#[cfg(test)]
pub use retention::sweep;
pub use retention::{Doomed, PAUSE, count_open, erase_some, take_duty};
pub use row::{OVER, State};
pub use traffic::{CampaignTraffic, traffic};
#[cfg(test)]
pub use writer::announce;
pub use writer::{Event, Recorder, Standing, Told, date};

/// How long the tasks of records may take to end, once the last of them is written.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
/// How many steps a slow watcher may lag behind before it misses some.
const LAG: usize = 1_024;
/// The longest text of one utterance that is kept, in characters.
const LONGEST_WORDS: usize = 8_000;

/// Where records go, and who writes them.
#[derive(Debug)]
pub struct Records {
    pub database: Database,
    pub numbers: Arc<Numbers>,
    recorder: Arc<Recorder>,
    told: Arc<dyn Told>,
    writing: TaskTracker,
    written: broadcast::Sender<CarrierCallId>,
    living: Living,
    stop: CancellationToken,
}

/// Nobody is told of events.
#[cfg(test)]
#[derive(Debug)]
pub struct Nobody;

#[cfg(test)]
impl Told for Nobody {
    fn deliveries(&self, _: &[&Event]) -> Vec<Sql> {
        Vec::new()
    }
}

/// Tells every step to whoever watches, which costs next to nothing while nobody does, and to the
/// recorder.
#[derive(Debug, Clone)]
pub struct Timeline {
    watchers: broadcast::Sender<Step>,
    recorder: Arc<Recorder>,
    traces: Traces,
}

impl Records {
    /// Opens the database and begins to write what `replica` notes. A server that is away is waited
    /// for.
    ///
    /// # Errors
    /// If the address is none, or a file cannot be one of ours.
    pub async fn open(
        settings: &RecordSettings,
        told: Arc<dyn Told>,
        replica: &str,
    ) -> Result<Self, DatabaseError> {
        let database = Database::open(settings)?;
        // A file that cannot be used is the settings' fault, and known at once.
        if settings.is_sqlite()
            && let Err(error) = database.migrate().await
            && error.is_final()
        {
            return Err(error);
        }
        let numbers = Arc::new(Numbers::new(settings));
        let (recorder, writer) = Recorder::new(
            &database,
            Arc::clone(&numbers),
            Arc::clone(&told),
            replica,
            settings.transcripts,
        );
        let written = writer.written();
        let (writing, stop) = (TaskTracker::new(), CancellationToken::new());
        database.spawn(writing.track_future(writer.run(stop.clone())));
        let keep_short = keep_short(database.clone(), settings.kept, stop.clone());
        database.spawn(writing.track_future(keep_short));
        writing.close();
        Ok(Self {
            database,
            numbers,
            recorder: Arc::new(recorder),
            told,
            writing,
            written,
            living: Living::default(),
            stop,
        })
    }

    /// Tells from here on of each call that was let in, once its end is committed here. Who is slow
    /// misses some.
    pub fn written(&self) -> broadcast::Receiver<CarrierCallId> {
        self.written.subscribe()
    }

    pub fn timeline(&self) -> Timeline {
        Timeline::new(Arc::clone(&self.recorder))
    }

    /// Notes the name that the carrier has for a call that we placed, in its record too. Tells
    /// whether it is the first name that the call gets, or the same: a second one would be a second
    /// call.
    ///
    /// # Errors
    /// If the database does not do it.
    pub async fn name_placed(
        &self,
        call: CallId,
        name: &CarrierCallId,
    ) -> Result<bool, DatabaseError> {
        let (told, name) = (Arc::clone(&self.told), name.clone());
        let write = self.database.write(move |writing| {
            Box::pin(async move { placed::bind(writing, call, &name, told.as_ref()).await })
        });
        write.await
    }

    /// Returns what `replica` looks after lost calls by.
    pub fn lookout(&self, replica: &str) -> Lookout {
        Lookout {
            database: self.database.clone(),
            told: Arc::clone(&self.told),
            replica: replica.to_owned(),
            living: self.living.clone(),
        }
    }

    /// Tells whether a replica may live, as far as it shows itself in the database.
    pub fn may_live(&self, replica: &str) -> bool {
        self.living.has(replica)
    }

    /// Returns how the writing stands.
    pub fn standing(&self) -> Standing {
        self.recorder.standing()
    }

    /// Writes what still waits, within bounds, and closes the database.
    pub async fn close(&self, replica: &str) {
        self.stop.cancel();
        let patience = LAST_WORDS * 2 + CLOSED_WITHIN;
        let _ = timeout(patience, self.writing.wait()).await;
        if let Err(error) = self.lookout(replica).leave().await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(
                error,
                "could not leave the list of replicas that write records"
            );
        }
        self.database.close().await;
    }
}

impl Timeline {
    pub fn new(recorder: Arc<Recorder>) -> Self {
        Self {
            watchers: broadcast::Sender::new(LAG),
            recorder,
            traces: Traces::default(),
        }
    }

    /// Returns the same timeline, which tells `traces` too.
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    pub fn step(&self, call: &CarrierCallId, what: What) {
        self.tell(call, &what);
        self.recorder.note(call, Fact::Happened(what));
    }

    fn tell(&self, call: &CarrierCallId, what: &What) {
        if self.watchers.receiver_count() > 0 {
            // Fails only when the last watcher has just left.
            let _ = self.watchers.send(Step {
                call: call.clone(),
                at: SystemTime::now(),
                what: what.clone(),
            });
        }
        self.traces.step(call, what);
    }

    /// Notes who has called whom, and what came of it: a step of its own.
    pub fn arrived(&self, call: &CarrierCallId, arrival: Arrival) {
        let what = arrival.what();
        self.traces.arrived(call, &arrival);
        // It is a step by itself, with what was seen.
        self.recorder.note(call, Fact::Arrived(Box::new(arrival)));
        self.tell(call, &what);
    }

    /// Notes by which id a call goes that its carrier calls so: one that we placed.
    pub fn named(&self, name: &CarrierCallId, call: CallId) {
        self.traces.named(name, call);
    }

    /// Returns our id of the call that its carrier calls so, as far as this replica can tell.
    pub fn id_of(&self, name: &CarrierCallId) -> CallId {
        self.traces.id_of(name)
    }

    /// Tells whether calls are traced.
    pub fn is_traced(&self) -> bool {
        self.traces.are_taken()
    }

    /// Notes that the media of a call has come to this replica.
    pub fn claimed(&self, call: &CarrierCallId, id: CallId, campaign: &Name) {
        self.traces.claimed(call, id, campaign.as_str());
    }

    /// Notes how long something took that is no step.
    pub fn took(&self, call: &CarrierCallId, phase: Phase, took: Duration) {
        self.traces.took(call, phase, took);
    }

    /// Notes that whoever had a call is gone, with what is known of it.
    pub fn lost(&self, call: &CarrierCallId, arrival: Arrival, rang_at: Option<Millis>) {
        let arrival = Box::new(arrival);
        self.recorder.note(call, Fact::Lost { arrival, rang_at });
    }

    pub fn talked(&self, call: &CarrierCallId, lasted: Duration) {
        self.recorder.note(call, Fact::Talked(lasted));
    }

    pub fn used(&self, call: &CarrierCallId, usage: Usage) {
        self.recorder.note(call, Fact::Used(Box::new(usage)));
    }

    /// Tells whether what is said is kept.
    pub fn keeps_words(&self) -> bool {
        self.recorder.keeps_words()
    }

    /// Watches the steps of all calls from here on.
    pub fn watch(&self) -> broadcast::Receiver<Step> {
        self.watchers.subscribe()
    }
}

/// Returns a text as it can be kept: of bounded length, and without what Postgres refuses.
fn kept_text(text: &str) -> String {
    let plain = text.chars().filter(|letter| *letter != '\0');
    plain.take(LONGEST_WORDS).collect()
}

/// Returns the time by the machine's clock, as records are dated.
pub fn unix_millis() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
    })
}

/// Returns [`unix_millis`] as the database has it.
pub fn unix_millis_i64() -> i64 {
    i64::try_from(unix_millis()).unwrap_or(i64::MAX)
}

/// Returns the UTC day of a time in Unix milliseconds, such as 2026-03-01.
pub fn day(at: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d").to_string()
}
