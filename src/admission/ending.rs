//! Slots come back, and the store hears why: at once, or when it answers again.

use std::collections::{HashSet, VecDeque};

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admission::{
        Admission, Book, Refusal, SETUP, StoreError, Trouble,
        clock::millis,
        deciding::Asking,
        scope::Scope,
        slot::{Freed, Lease},
        state::Fate,
        store::{END_KNOWN, Ending, Released},
    },
    call::{CallId, CarrierCallId, EndReason},
    recent::Millis,
};

/// How a call ended whose carrier says so, by whether its media was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    pub live: EndReason,
    pub waiting: EndReason,
    /// Whether it was never answered, so that its media cannot be anywhere.
    pub unanswered: bool,
}

/// Where a call goes on that an agent has handed over: a name of the directory of its campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onward {
    pub campaign: String,
    pub destination: String,
}

/// What is to be done at the carrier to a call that has ended here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    HangUp,
    Transfer,
}

/// What the store is still to be told.
#[derive(Debug, Default)]
pub struct Owed(VecDeque<Debt>);

/// Something that the store must hear of.
#[derive(Debug, Clone)]
pub enum Debt {
    Release {
        lease: Lease,
        scopes: Vec<Scope>,
        reason: EndReason,
        state: String,
        had_media: bool,
    },
    End {
        call: CarrierCallId,
        ended: Ended,
        /// What the store may not have been told of a call that was waiting here.
        state: Option<String>,
        /// Whether only the store can tell that the call was waiting, so that nobody has noted its
        /// end.
        untold: bool,
    },
    /// A call was refused without the store.
    Refusal {
        call: CarrierCallId,
        scopes: Vec<Scope>,
        refusal: Refusal,
        /// Until when its webhook may come again; no end where the store may have taken a slot for
        /// it, though nobody waited for the answer any more.
        until: Option<Millis>,
    },
    /// Fields of a call's state, as a JSON object.
    Note(CarrierCallId, String),
}

/// What replicas have noted of a call for each other.
#[derive(Deserialize)]
struct Noted {
    call_id: Option<CallId>,
    transfer: Option<Onward>,
    due: Option<Due>,
    #[serde(default)]
    called_off: bool,
}

/// Returns by what it is noted that a placed call is to be over: beside its state, which goes by one
/// name after the other.
fn called_off(call: CallId) -> Option<CarrierCallId> {
    CarrierCallId::try_from(format!("off-{call}")).ok()
}

/// How much the store is told at once of what can wait.
pub const AT_ONCE: usize = 16;

/// How many ends are remembered for a store that is away; beyond it leases lapse instead.
const MOST_OWED: usize = 10_000;

/// How many debts there may be before refusals are not added to them: a flood of callers must not
/// push out ends.
const MOST_REFUSALS: usize = 1_000;

/// The calls that have ended lately, for a store that has lost that: until a call's ticket has
/// expired, another replica may take it for one that still waits.
#[derive(Debug, Default)]
pub struct Lately(VecDeque<(Millis, CarrierCallId, EndReason)>);

impl Lately {
    fn note(&mut self, now: Millis, call: CarrierCallId, reason: EndReason) {
        let old = |(at, ..): &(Millis, CarrierCallId, EndReason)| at + millis(SETUP) <= now;
        while self.0.len() >= MOST_OWED || self.0.front().is_some_and(old) {
            self.0.pop_front();
        }
        self.0.push_back((now, call, reason));
    }
}

impl Debt {
    /// Returns the call whose end this tells, if it tells one.
    fn ends(&self) -> Option<&CarrierCallId> {
        match self {
            Self::Release { lease, .. } => Some(&lease.call),
            Self::End { call, .. } => Some(call),
            Self::Refusal { .. } | Self::Note(..) => None,
        }
    }

    /// Returns a call whose end is this replica's to note, now that the store has said what became of it.
    fn newly_told(self, released: Option<Released>) -> Option<(CarrierCallId, EndReason)> {
        let released = released?;
        match self {
            Self::End {
                call,
                ended,
                untold: true,
                ..
            } => released.waited().then_some((call, ended.waiting)),
            // It waited here, and its carrier has told others before the store knew of it.
            Self::Release { lease, reason, .. } => {
                matches!(released, Released::Gone { waited: true, .. })
                    .then_some((lease.call, reason))
            }
            Self::End { untold: false, .. } | Self::Refusal { .. } | Self::Note(..) => None,
        }
    }
}

impl Owed {
    pub(super) fn push(&mut self, debt: Debt) {
        if self.0.len() >= MOST_OWED {
            self.0.pop_front();
        }
        self.0.push_back(debt);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Admission {
    /// Notes the carrier's word that a call is over; tells whether it was still waiting for its
    /// media.
    pub async fn end(&self, carrier_call: &CarrierCallId, ending: Ended) -> bool {
        let (waiting, is_news) = {
            let mut book = self.book();
            let now = self.clock.local();
            let is_news = book.ended.get(now, carrier_call).is_none();
            if is_news {
                let call = carrier_call.clone();
                book.lately.note(now, call.clone(), ending.live);
                book.ended.put(now, END_KNOWN, call, ending.live);
            }
            let waiting = book.ledger.remove_waiting(carrier_call);
            if let Some(entry) = waiting.as_ref().filter(|_| !ending.unanswered) {
                book.outage.went(&entry.scopes);
            }
            (waiting, is_news)
        };
        let waited_here = waiting.is_some();
        let state = waiting.map(|entry| entry.state.ended(self.clock.shared(), ending.waiting));
        let owed = Debt::End {
            call: carrier_call.clone(),
            ended: ending,
            state: state.map(|state| state.json()),
            untold: is_news && !waited_here,
        };
        match self.settle_or_owe(owed).await {
            Some(released) => is_news && released.waited(),
            None => waited_here,
        }
    }

    /// Tells whether a call is known here to be over.
    pub fn has_ended(&self, carrier_call: &CarrierCallId) -> bool {
        self.ended_here(carrier_call).is_some()
    }

    /// Returns why a call ended that is known here to be over.
    pub fn ended_here(&self, carrier_call: &CarrierCallId) -> Option<EndReason> {
        let now = self.clock.local();
        self.book().ended.get(now, carrier_call).copied()
    }

    /// Returns why a call ended that may have been another replica's.
    pub async fn ended_elsewhere(&self, carrier_call: &CarrierCallId) -> Option<EndReason> {
        if self.book().outage.trouble() == Some(Trouble::Away) {
            return None;
        }
        let ended = self.store.ended(self.clock.local(), carrier_call).await;
        ended.unwrap_or_else(|error| {
            self.failed(&error);
            None
        })
    }

    /// Tells what has become of a call of whose end nobody has told that it is written, or of which no
    /// more than that is.
    pub async fn fate(&self, carrier_call: &CarrierCallId, end_is_written: bool) -> Fate {
        let here = self.book().ledger.get_mut(carrier_call).is_some();
        if here || self.book().outage.trouble().is_some() {
            return Fate::Open;
        }
        let fate = self.store.fate(carrier_call, end_is_written).await;
        fate.unwrap_or_else(|error| {
            self.failed(&error);
            Fate::Open
        })
    }

    /// Tells that the ends of these calls are written, or never will be: nobody need look after them.
    /// Where that is not heard, somebody does, and tells again.
    pub async fn written(&self, calls: &[CarrierCallId]) {
        if calls.is_empty() || self.trouble() == Some(Trouble::Away) {
            return; // They come again.
        }
        if let Err(error) = self.store.written(calls).await {
            self.failed(&error);
        }
    }

    /// Returns where a call goes on that an agent has handed over, as its replica has noted.
    pub async fn transfer_noted(&self, carrier_call: &CarrierCallId) -> Option<Onward> {
        self.noted(carrier_call).await?.transfer
    }

    /// Returns what is due to a call, as the replica has noted that could not do it.
    pub async fn due_noted(&self, carrier_call: &CarrierCallId) -> Option<Due> {
        self.noted(carrier_call).await?.due
    }

    /// Notes that somebody wants a placed call to be over.
    pub async fn note_called_off(&self, call: CallId) {
        if let Some(key) = called_off(call) {
            self.note(&key, json!({"called_off": true}).to_string())
                .await;
        }
    }

    /// Tells whether somebody wants a placed call to be over, as a replica has noted.
    pub async fn called_off_noted(&self, call: CallId) -> bool {
        match called_off(call) {
            Some(key) => self.noted(&key).await.is_some_and(|it| it.called_off),
            None => false,
        }
    }

    /// Returns our id of a call, as the replica has noted that has or had it.
    pub async fn id_noted(&self, carrier_call: &CarrierCallId) -> Option<CallId> {
        self.noted(carrier_call).await?.call_id
    }

    async fn noted(&self, carrier_call: &CarrierCallId) -> Option<Noted> {
        if self.book().outage.trouble() == Some(Trouble::Away) {
            return None;
        }
        let state = self.store.state(carrier_call).await;
        let state = state.unwrap_or_else(|error| {
            self.failed(&error);
            None
        });
        serde_json::from_str(&state?).ok()
    }

    /// Gives a dropped slot back to the store, or remembers to.
    pub async fn release(&self, freed: Freed) {
        let entry = {
            let mut book = self.book();
            let now = self.clock.local();
            let entry = book.ledger.remove_slot(&freed.call, freed.id);
            if entry.is_some() && book.ended.get(now, &freed.call).is_none() {
                book.lately.note(now, freed.call.clone(), freed.reason);
                book.ended
                    .put(now, END_KNOWN, freed.call.clone(), freed.reason);
            }
            entry
        };
        // One that was lost to a later owner is not ours to give back.
        if let Some(entry) = entry {
            let state = entry.state.ended(self.clock.shared(), freed.reason);
            self.settle_or_owe(Debt::Release {
                lease: Lease {
                    call: freed.call,
                    epoch: entry.epoch,
                },
                scopes: entry.scopes,
                reason: freed.reason,
                state: state.json(),
                had_media: true,
            })
            .await;
        }
        if let Some(done) = freed.done {
            let _ = done.send(()); // Whoever waited may have stopped waiting.
        }
    }

    /// Adds fields, a JSON object, to what the store keeps of a call.
    pub async fn note(&self, call: &CarrierCallId, fields: String) {
        self.settle_or_owe(Debt::Note(call.clone(), fields)).await;
    }

    /// Tells the store what it must hear of, now or once it answers; returns what became of the
    /// slot, if that is what it was told and it could say.
    pub(super) async fn settle_or_owe(&self, debt: Debt) -> Option<Released> {
        if self.book().outage.trouble() != Some(Trouble::Away) {
            match self.settle(&debt).await {
                Ok(released) => return released,
                Err(error) => self.failed(&error),
            }
        }
        self.book().owed.push(debt);
        None
    }

    /// Remembers to tell the store of a refusal that it had no part in; `unheard` if it was asked
    /// and did not answer in time.
    pub(super) fn owe_refusal(&self, askings: &[Asking<'_>], refusal: &Refusal, unheard: bool) {
        let mut book = self.book();
        if !unheard && book.owed.0.len() >= MOST_REFUSALS {
            return;
        }
        // Which of its agents the store may have given it, nobody has heard.
        let mut scopes: Vec<Scope> = Vec::new();
        for scope in askings.iter().flat_map(|asking| &asking.scopes) {
            if !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        book.owed.push(Debt::Refusal {
            call: askings[0].carrier_call.clone(),
            scopes,
            refusal: refusal.clone(),
            // Carriers repeat a webhook sooner than they give up on the call.
            until: (!unheard).then(|| self.clock.local() + millis(SETUP)),
        });
    }

    /// Has the store told once more of what has ended lately: it may have lost that.
    pub(super) fn tell_again(&self, book: &mut Book) {
        book.dials.tell_again();
        let since = self.clock.local().saturating_sub(millis(SETUP));
        let Book { lately, owed, .. } = book;
        let known: HashSet<CarrierCallId> = owed.0.iter().filter_map(Debt::ends).cloned().collect();
        let ends = lately.0.iter().filter(|(at, ..)| *at >= since);
        // What is owed already is told anyway: a burst of the same words would hold up new ones.
        for (_, call, reason) in ends.filter(|(_, call, _)| !known.contains(call)) {
            let reason = *reason;
            owed.push(Debt::End {
                call: call.clone(),
                ended: Ended {
                    live: reason,
                    waiting: reason,
                    unanswered: false,
                },
                state: None,
                untold: false,
            });
        }
    }

    /// Tells the store what it was not there to hear, some at a time, until it is away again.
    /// Each call that was waiting for its media elsewhere when its end was told here, and why it
    /// ended, is noted by `note` at once: nobody else will, and what comes after may be cut short.
    pub async fn settle_debts<Noting: Future<Output = ()>>(
        &self,
        note: impl Fn(CarrierCallId, EndReason) -> Noting,
    ) {
        while self.trouble() != Some(Trouble::Away) {
            let due: Vec<Debt> = {
                let mut book = self.book();
                let some = book.owed.0.len().min(AT_ONCE);
                book.owed.0.drain(..some).collect()
            };
            if due.is_empty() {
                break;
            }
            let settling = due
                .into_iter()
                .map(async |debt| match self.settle(&debt).await {
                    Ok(released) => {
                        if let Some((call, reason)) = debt.newly_told(released) {
                            note(call, reason).await;
                        }
                    }
                    Err(error) => {
                        self.failed(&error);
                        self.book().owed.push(debt);
                    }
                });
            let settling: FuturesUnordered<_> = settling.collect();
            settling.collect::<()>().await;
        }
    }

    /// Tells the store; returns what became of the slot, if that is what it was told.
    async fn settle(&self, debt: &Debt) -> Result<Option<Released>, StoreError> {
        let now = self.clock.local();
        let (call, released) = match debt {
            Debt::Release {
                lease,
                scopes,
                reason,
                state,
                had_media,
            } => {
                let ending = Ending {
                    reason: *reason,
                    without_media: *reason,
                    state: Some(state),
                    forever: true,
                    had_media: *had_media,
                };
                let released = self.store.release(now, lease, scopes, &ending);
                (&lease.call, released.await?)
            }
            Debt::End {
                call, ended, state, ..
            } => {
                let ending = Ending {
                    reason: ended.live,
                    without_media: ended.waiting,
                    state: state.as_deref(),
                    forever: true,
                    had_media: false,
                };
                (call, self.store.end(now, call, &ending).await?)
            }
            Debt::Refusal {
                call,
                scopes,
                refusal,
                until,
            } => {
                if until.is_none_or(|until| now < until) {
                    self.store.refuse(call, scopes, refusal).await?;
                }
                return Ok(None);
            }
            Debt::Note(call, fields) => {
                self.store.note(call, fields).await?;
                return Ok(None);
            }
        };
        self.log_release(call, released);
        Ok(Some(released))
    }

    pub(super) fn log_release(&self, call: &CarrierCallId, released: Released) {
        match released {
            Released::Freed { active, .. } => {
                let cap = self.caps.global;
                self.log(format_args!(
                    "[CAPACITY] RELEASED call_id={call} active_calls={active}/{cap}"
                ));
            }
            Released::Gone { .. } | Released::Stale => {}
        }
    }
}
