//! The calls of a fake ACS: what is known of each.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{RngExt, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{callback::Callback, options::Fault};
use crate::{chunk::Encoding, simulate::reach::Reach};

/// How many callbacks of a call may wait; it has about ten.
pub const MOST_CALLBACKS: usize = 64;

/// One call at a fake ACS.
pub struct Call {
    pub name: Names,
    pub from: String,
    pub to: String,
    pub manner: Manner,
    /// The way to the gateway that the call rings at.
    pub gateway: Arc<Reach>,
    pub status: watch::Sender<Status>,
    pub callbacks: mpsc::Sender<Callback>,
    /// Cancelled when nobody is interested in the call anymore.
    pub over: CancellationToken,
    /// What has gone wrong once already.
    tripped: Mutex<HashSet<Fault>>,
}

/// What a call is called, by whom.
pub struct Names {
    /// The ticket to answer it by.
    pub context: String,
    pub correlation: String,
    pub connection: String,
    pub server_call: String,
}

/// How a fake ACS handles a call: as one would like it, but for these.
#[derive(Debug, Clone, Default)]
pub struct Manner(Vec<Habit>);

/// What ACS and Event Grid may do, and a gateway has to live with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// The event comes in the `CloudEvents` schema.
    CloudEvents,
    /// The event comes together with others.
    Batched,
    /// The event and the callbacks come twice.
    Repeated,
    /// The callbacks come in any order.
    Shuffled,
    /// Silence comes without samples.
    Hushed,
}

/// What has become of a call.
#[derive(Debug, Clone, Default)]
pub struct Status {
    pub answered: Option<Answered>,
    pub turned: Option<Turned>,
    pub transferred: Option<String>,
    /// Files that were played to it.
    pub played: Vec<String>,
    pub is_playing: bool,
    pub is_streaming: bool,
    /// Who has ended it after its answer, or given it up before.
    pub ended_by: Option<Ender>,
    /// The gateway knows that it is over.
    pub is_told: bool,
    /// What was wrong with how the gateway took its callbacks.
    pub faults: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ender {
    Gateway,
    Caller,
}

/// How a call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The call's name from then on.
    pub connection: String,
    pub callback: String,
    pub media: Option<Media>,
}

/// What media a call was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    pub url: String,
    /// Samples a second.
    pub rate: u32,
    /// Whether the gateway is to be heard.
    pub bidirectional: bool,
}

/// How a call was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turned {
    /// With a reason.
    Rejected(String),
    /// To a number.
    Redirected(String),
}

/// The calls that somebody is interested in.
#[derive(Default)]
pub struct Calls(Mutex<HashMap<String, Arc<Call>>>);

impl Call {
    pub fn new(
        gateway: Arc<Reach>,
        from: &str,
        to: &str,
        manner: Manner,
        callbacks: mpsc::Sender<Callback>,
    ) -> Self {
        let guid = || Uuid::new_v4().to_string();
        Self {
            name: Names {
                context: format!("ey.{}.{}", guid(), "x".repeat(2_000)), // Real ones are as long.
                correlation: guid(),
                connection: guid(),
                server_call: format!("aHR0cHM6Ly9h{}", Uuid::new_v4().simple()),
            },
            from: from.to_owned(),
            to: to.to_owned(),
            manner,
            gateway,
            status: watch::Sender::new(Status::default()),
            callbacks,
            over: CancellationToken::new(),
            tripped: Mutex::default(),
        }
    }

    /// Tells whether a fault happens here for the first time.
    pub fn trips(&self, fault: Fault) -> bool {
        lock(&self.tripped).insert(fault)
    }

    /// Tells the gateway something, by and by.
    pub fn tell(&self, callback: Callback) {
        // Nobody listens once the call is over; and no call has so many that the queue is full.
        let _ = self.callbacks.try_send(callback);
    }

    /// Tells the gateway that the call is over, which is the last that it is told.
    pub fn tell_the_end(&self) {
        if self.status.borrow().is_streaming {
            self.tell(Callback::streaming_stopped());
        }
        self.tell(Callback::disconnected());
    }

    /// Returns what ACS says of a connection.
    pub fn properties(&self) -> Value {
        let status = self.status.borrow();
        let answered = status.answered.as_ref();
        json!({
            "callConnectionId": self.name.connection,
            "serverCallId": self.name.server_call,
            "correlationId": self.name.correlation,
            "callConnectionState": match (status.is_over(), status.is_streaming) {
                (true, _) => "disconnected",
                (false, true) => "connected",
                (false, false) => "connecting",
            },
            "callbackUri": answered.map(|answered| &answered.callback),
            "source": phone(&self.from),
            "targets": [phone(&self.to)],
            "sourceCallerIdNumber": null,
            "answeredFor": {"value": self.to},
            "mediaStreamingSubscription": answered.and_then(|it| it.media.as_ref()).map(|_| json!({
                "id": self.name.connection, "state": "inactive",
                "subscribedContentTypes": ["audio"],
            })),
        })
    }
}

impl Status {
    /// Tells whether the call is over, whoever ended it.
    pub fn is_over(&self) -> bool {
        self.ended_by.is_some() || self.turned.is_some()
    }
}

impl Media {
    pub(in crate::simulate) fn encoding(&self) -> Encoding {
        if self.rate == Encoding::Pcm16k.rate() {
            Encoding::Pcm16k
        } else {
            Encoding::Pcm24k
        }
    }
}

impl Manner {
    /// Handles a call in any of the ways that there are; well most often.
    pub fn any(rng: &mut StdRng) -> Self {
        let habits = [
            (Habit::CloudEvents, 4),
            (Habit::Batched, 8),
            (Habit::Repeated, 8),
            (Habit::Shuffled, 4),
            (Habit::Hushed, 4),
        ];
        let habits = habits
            .into_iter()
            .filter(|(_, one_in)| rng.random_ratio(1, *one_in));
        Self(habits.map(|(habit, _)| habit).collect())
    }

    #[must_use]
    pub fn with(mut self, habit: Habit) -> Self {
        self.0.push(habit);
        self
    }

    pub fn has(&self, habit: Habit) -> bool {
        self.0.contains(&habit)
    }
}

impl Calls {
    pub fn add(&self, call: &Arc<Call>) {
        let mut calls = lock(&self.0);
        for name in [&call.name.context, &call.name.connection] {
            calls.insert(name.clone(), Arc::clone(call));
        }
    }

    pub fn remove(&self, call: &Call) {
        let mut calls = lock(&self.0);
        for name in [&call.name.context, &call.name.connection] {
            calls.remove(name);
        }
    }

    /// Returns the call of a context or a connection.
    pub fn named(&self, name: &str) -> Option<Arc<Call>> {
        lock(&self.0).get(name).cloned()
    }
}

/// Returns how ACS writes a phone number.
pub fn phone(number: &str) -> Value {
    json!({
        "kind": "phoneNumber", "rawId": format!("4:{number}"), "phoneNumber": {"value": number},
    })
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
