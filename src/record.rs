//! What remains of a call: its row, its steps and its words, as whoever watches is told of them
//! and as the database keeps them.
//!
//! Invariant: nobody who has a call waits for the database.

mod database;
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
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::{sync::broadcast, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    admission::{Refusal, Scope},
    call::{CallId, CallerId, CarrierCallId, EndReason},
    campaign::{Name, WhenFull},
    carrier::MessageId,
    config::RecordSettings,
    recent::Millis,
    record::{lost::look_after, retention::keep_short, writer::LAST_WORDS},
    recording::Recording,
    session::{Speaker, Turn},
    tool::ToolOutcome,
    trace::{Phase, Traces},
};

pub use database::{Database, DatabaseError, Fields, Kind as DatabaseKind, Sql, Writing};
pub use number::{KeptNumber, Numbers};
#[cfg(test)]
pub use retention::sweep;
pub use retention::{Doomed, PAUSE, erase_some, take_duty};
pub use row::{OVER, State};
pub use traffic::{CampaignTraffic, traffic};
pub use writer::{Recorder, Standing, Told, date};

/// How long the tasks of records may take to end, once the last of them is written.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
/// How many steps a slow watcher may lag behind before it misses some.
const LAG: usize = 1_024;
/// The longest text of one utterance that is kept, in characters.
const LONGEST_WORDS: usize = 8_000;

/// One dated entry of a call's timeline.
#[derive(Debug, Clone)]
pub struct Step {
    pub call: CarrierCallId,
    pub at: SystemTime,
    pub what: What,
}

/// What happened to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The carrier is asked to place the call.
    Dialing,
    /// The carrier may have placed it, or not.
    Unsure,
    /// It rings at the other end.
    Rings,
    /// Whom we called has picked up.
    PickedUp,
    Admitted,
    Refused,
    /// What the caller was offered for whom there was no room.
    Offered(WhenFull),
    /// The caller, for whom there was no room, has left a message.
    LeftMessage(Recording),
    /// What became of the WhatsApp message that the caller was to get.
    Invited {
        /// Twilio's name for it, if it told that.
        message: Option<MessageId>,
        result: &'static str,
    },
    /// The media socket has brought the call.
    Connected,
    AgentReady {
        /// How long connecting it took, which went on while the call rang.
        connected_in: Duration,
    },
    /// The agent's first audio goes to the caller.
    FirstWords,
    Said {
        who: Speaker,
        text: String,
    },
    /// The agent has answered the caller, or greeted: what of the wait was whose.
    Turn(Turn),
    /// The call's media was not all there.
    Impaired(Impairment),
    /// How many marks of what the agent said went to the carrier, and how many it returned: what the
    /// caller has heard is known by them.
    Marked {
        sent: u32,
        returned: u32,
    },
    /// The caller spoke over the agent, which had been heard for this long.
    Interrupted {
        heard_ms: u64,
    },
    /// The agent has used a tool, or wanted to.
    ToolUsed {
        /// As the agent calls it; `None` where that is no name.
        tool: Option<Name>,
        outcome: ToolOutcome,
        lasted: Duration,
    },
    Ended(EndReason),
    /// What became of a call that its agent has handed over: its end with us came before.
    TransferEnded {
        answered: bool,
    },
}

/// Who has called whom, and what admission made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub direction: Direction,
    pub tenant: Name,
    pub campaign: Name,
    /// Who talks with the caller; nobody if the call was refused.
    pub agent: Option<Name>,
    pub caller: CallerId,
    pub called: CallerId,
    pub refused: Option<Refusal>,
    /// What a call that we placed was called before its carrier had a name for it.
    pub placed_as: Option<CarrierCallId>,
    /// What was decided by; nothing where it is not known.
    pub seen: Option<Seen>,
}

/// What admission has seen of the caps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub decided_in: Duration,
    /// Each scope that the call counts in, how much of it was used then, the call included if it
    /// was let in, and its cap.
    pub counts: Vec<(Scope, u32, u32)>,
}

/// What was wrong with a call's media, altogether.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Silence that was put where the carrier sent nothing.
    pub filled: Duration,
    /// Messages that one side did not take in time.
    pub dropped: u64,
    /// Messages of the carrier's that made no sense.
    pub garbled: u32,
}

/// Who has begun a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    /// We have placed it.
    Outbound,
}

/// What an agent has used up in a call, in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub agent: Name,
    pub model: String,
    pub text_in: u64,
    pub audio_in: u64,
    /// The part of what went in that the agent had in its cache.
    pub cached_in: u64,
    pub text_out: u64,
    pub audio_out: u64,
    pub lasted: Duration,
    /// In millionths of the currency that the prices are in.
    pub cost_micros: u64,
}

/// Something to be recorded of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    Arrived(Box<Arrival>),
    Happened(What),
    /// Whoever had it is gone.
    Lost(Box<Arrival>),
    /// How long its media was bridged.
    Talked(Duration),
    Used(Box<Usage>),
}

/// A fact with what makes it one: written twice, it is the same.
#[derive(Debug, Clone)]
pub struct Entry {
    pub id: Uuid,
    pub call: CarrierCallId,
    pub at: Millis,
    pub fact: Fact,
}

/// Where records go, and who writes them.
#[derive(Debug)]
pub struct Records {
    pub database: Database,
    pub numbers: Arc<Numbers>,
    recorder: Arc<Recorder>,
    told: Arc<dyn Told>,
    writing: TaskTracker,
    stop: CancellationToken,
}

/// Nobody is told of events.
#[cfg(test)]
#[derive(Debug)]
pub struct Nobody;

#[cfg(test)]
impl Told for Nobody {
    fn deliveries(&self, _: &str, _: &str, _: &str, _: Millis) -> Vec<Sql> {
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
    /// Opens the database and begins to write what `replica` notes, and to close the calls of those
    /// that show nothing for a `lease`. A server that is away is waited for.
    ///
    /// # Errors
    /// If the address is none, or a file cannot be one of ours.
    pub async fn open(
        settings: &RecordSettings,
        told: Arc<dyn Told>,
        replica: &str,
        lease: Duration,
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
            database.clone(),
            Arc::clone(&numbers),
            Arc::clone(&told),
            replica,
            settings.transcripts,
        );
        let (writing, stop) = (TaskTracker::new(), CancellationToken::new());
        let lost = look_after(
            database.clone(),
            Arc::clone(&told),
            replica.to_owned(),
            lease,
            stop.clone(),
        );
        database.spawn(writing.track_future(writer.run(stop.clone())));
        database.spawn(writing.track_future(lost));
        let keep_short = keep_short(database.clone(), settings.kept, stop.clone());
        database.spawn(writing.track_future(keep_short));
        writing.close();
        Ok(Self {
            database,
            numbers,
            recorder: Arc::new(recorder),
            told,
            writing,
            stop,
        })
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

    /// Returns how the writing stands.
    pub fn standing(&self) -> Standing {
        self.recorder.standing()
    }

    /// Writes what still waits, within bounds, and closes the database.
    pub async fn close(&self, replica: &str) {
        self.stop.cancel();
        let patience = LAST_WORDS * 2 + CLOSED_WITHIN;
        let _ = timeout(patience, self.writing.wait()).await;
        if let Err(error) = lost::leave(&self.database, &self.told, replica).await {
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
    pub fn lost(&self, call: &CarrierCallId, arrival: Arrival) {
        self.recorder.note(call, Fact::Lost(Box::new(arrival)));
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

impl What {
    /// Returns what the step is called; `None` where it is kept as something else than a step.
    pub fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Dialing => "dialing",
            Self::Unsure => "unknown",
            Self::Rings => "ringing",
            Self::PickedUp => "picked_up",
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::Offered(_) => "offered",
            Self::LeftMessage(_) => "left_message",
            Self::Invited { .. } => "invited",
            Self::Connected => "connected",
            Self::AgentReady { .. } => "agent_ready",
            Self::FirstWords => "first_words",
            Self::Said { .. } => return None,
            Self::Turn(_) => "turn",
            Self::Impaired(_) => "impaired",
            Self::Marked { .. } => "marks",
            Self::Interrupted { .. } => "interrupted",
            Self::ToolUsed { .. } => "tool_used",
            Self::Ended(_) => "ended",
            Self::TransferEnded { .. } => "transfer_ended",
        })
    }

    /// Returns what else there is to say of it.
    pub fn details(&self) -> Option<Value> {
        match self {
            Self::AgentReady { connected_in } => {
                Some(json!({"connected_in_ms": millis(*connected_in)}))
            }
            Self::Turn(turn) => Some(json!({
                "spoke_ms": turn.spoke.map(millis),
                "answer_ms": turn.answer.map(millis),
                "sent_ms": turn.sent.map(millis),
                "played_ms": turn.played.map(millis),
                "interrupted": turn.interrupted,
            })),
            Self::Impaired(impairment) => Some(json!({
                "filled_ms": millis(impairment.filled),
                "dropped": impairment.dropped,
                "garbled": impairment.garbled,
            })),
            Self::Marked { sent, returned } => Some(json!({"sent": sent, "returned": returned})),
            Self::Interrupted { heard_ms } => Some(json!({"heard_ms": heard_ms})),
            Self::ToolUsed {
                tool,
                outcome,
                lasted,
            } => Some(json!({
                "tool": tool.as_ref().map(Name::as_str),
                "outcome": outcome.as_str(),
                "lasted_ms": millis(*lasted),
            })),
            Self::Ended(reason) => {
                Some(json!({"reason": reason.as_str(), "blame": reason.blame().as_str()}))
            }
            Self::TransferEnded { answered } => Some(json!({"answered": answered})),
            Self::Offered(offer) => Some(json!({"offer": offer.as_str()})),
            Self::Invited { message, result } => Some(json!({
                "message": message.as_ref().map(MessageId::as_str),
                "result": result,
            })),
            Self::LeftMessage(recording) => Some(json!({
                "recording": recording.id.as_str(),
                "seconds": recording.duration.as_secs(),
            })),
            Self::Dialing
            | Self::Unsure
            | Self::Rings
            | Self::PickedUp
            | Self::Admitted
            | Self::Refused
            | Self::Connected
            | Self::FirstWords
            | Self::Said { .. } => None,
        }
    }
}

impl Arrival {
    /// Returns what happened.
    pub fn what(&self) -> What {
        match self.refused {
            None => What::Admitted,
            Some(_) => What::Refused,
        }
    }

    /// Returns what else there is to say of it.
    pub fn details(&self) -> Option<Value> {
        let seen = self.seen.as_ref().map(|seen| {
            let counts = seen.counts.iter();
            let counts = counts.map(
                |(scope, used, cap)| json!({"scope": scope.to_string(), "used": used, "cap": cap}),
            );
            (millis(seen.decided_in), counts.collect::<Vec<_>>())
        });
        let refusal = self.refused.as_ref();
        if seen.is_none() && refusal.is_none() {
            return None;
        }
        let mut details = json!({});
        if let Some((decided_in, counts)) = seen {
            details["decided_in_ms"] = decided_in.into();
            details["counts"] = counts.into();
        }
        if let Some(refusal) = refusal {
            details["reason"] = refusal.reason.as_str().into();
            details["scope"] = refusal.scope.to_string().into();
            details["used"] = refusal.used.into();
            details["cap"] = refusal.cap.into();
        }
        Some(details)
    }
}

impl Impairment {
    /// Tells whether there was none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl FromStr for Direction {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = Self::ALL.into_iter().find(|it| it.as_str() == text);
        known.ok_or(())
    }
}

/// Returns a text as it can be kept: of bounded length, and without what Postgres refuses.
fn kept_text(text: &str) -> String {
    let plain = text.chars().filter(|letter| *letter != '\0');
    plain.take(LONGEST_WORDS).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
