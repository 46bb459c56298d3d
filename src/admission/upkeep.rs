//! What keeps slots true while calls go on: leases are renewed, and what that shows is heeded.

use futures_util::{StreamExt, stream};

use crate::{
    admission::{
        Admission, Book, Lease, Reason, Refusal, Scope, Siblings, SlotId, TICK, Trouble,
        clock::millis,
        deciding::Asking,
        ending::{AT_ONCE, Debt},
        ledger::{Entry, Media},
        redis::{Inspection, StoreError},
        store::{Claim, Ending, News, Released, Renewal, Renewed, Store},
    },
    call::{CarrierCallId, EndReason},
};

/// What a renewal has shown that calls must hear of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Live calls that a later owner has.
    pub taken_over: Vec<SlotId>,
    /// Live calls that are over, as the carrier has told another replica, or an operator the store.
    pub over: Vec<(SlotId, EndReason)>,
    /// Calls whose media never came, here or anywhere.
    pub never_came: Vec<CarrierCallId>,
    /// Calls whose media does not come here any more.
    pub gone_elsewhere: Vec<CarrierCallId>,
    /// Calls that nobody has any more, and whose ends may not be written: this replica is to look
    /// after them.
    pub unwritten: Vec<CarrierCallId>,
}

impl Admission {
    /// Renews what is due: everything, or only what is short-lived. `places` are those that are
    /// free for media sockets; `None` while the replica drains.
    pub async fn renew(&self, everything: bool, scopes: &[Scope], places: Option<u32>) -> Upkeep {
        let mut upkeep = Upkeep::default();
        let (claims, puts_up_gate) = {
            let mut book = self.book();
            book.places = places;
            let everything = everything || book.outage.trouble().is_some();
            let (now, lease) = (self.clock.local(), millis(self.caps.lease));
            let claims = book.ledger.claims(now, lease, everything);
            (claims, book.outage.put_up_gate(self.clock.elapsed()))
        };
        let renewal = Renewal {
            claims: &claims,
            scopes,
            puts_up_gate,
            looks_after: true,
            places,
            hurried: false,
        };
        let began = self.clock.elapsed();
        match self.store.renew(self.clock.local(), &renewal).await {
            Ok(renewed) => {
                let took = self.clock.elapsed().saturating_sub(began);
                let was_slow = self.store.is_slow(&renewal, took);
                self.renewed(&renewed, &claims, was_slow, &mut upkeep);
            }
            Err(error) => self.failed(&error),
        }
        upkeep
    }

    /// Notes that a renewal has taken longer than a tick.
    pub fn is_kept_waiting(&self) {
        self.failed(&StoreError::TooSlow(TICK));
    }

    /// Completes when a renewal should not wait for the next tick.
    pub async fn nudged(&self) {
        self.nudged.notified().await;
    }

    /// Looks at what kind of server the store is; `None` where it is this process.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn inspect(&self) -> Result<Option<Inspection>, StoreError> {
        match &self.store {
            Store::Memory(_) => Ok(None),
            Store::Redis(store) => match store.inspect().await {
                Ok(server) => Ok(Some(server)),
                Err(error) => {
                    if matches!(error, StoreError::TooSlow(_)) || error.class() == "io" {
                        self.failed(&error);
                    }
                    Err(error)
                }
            },
        }
    }

    /// Takes this replica off the list of those that live.
    pub async fn leave(&self) {
        if let Store::Redis(store) = &self.store
            && let Err(error) = store.leave().await
        {
            tracing::debug!(%error, "could not leave the list of replicas");
        }
    }

    /// Registers a call that was admitted behind the gate, at once: a store that has lost calls
    /// must not miss this one when the gate goes up. Returns why it may not come in after all.
    pub(super) async fn register(&self, asking: &Asking<'_>) -> Option<Refusal> {
        let call = asking.carrier_call;
        let (claim, places) = {
            let book = self.book();
            let (now, lease) = (self.clock.local(), millis(self.caps.lease));
            (book.ledger.claim(call, now, lease)?, book.places)
        };
        let claims = [claim];
        let renewal = Renewal {
            claims: &claims,
            scopes: &asking.scopes,
            puts_up_gate: false,
            looks_after: false,
            places,
            hurried: true,
        };
        let renewed = match self.store.renew(self.clock.local(), &renewal).await {
            Ok(renewed) => renewed,
            Err(error) => {
                self.failed(&error);
                return None;
            }
        };
        let (room, used, entry) = {
            let mut book = self.book();
            for (call, news) in &renewed.news {
                if let News::TakenIn(epoch) = news
                    && let Some(entry) = book.ledger.get_mut(call)
                {
                    entry.epoch = *epoch;
                }
            }
            // The others may not all have registered: what is too much now will be so then.
            let (room, used) = asking.rooms.iter().find_map(|room| {
                let mut counts = renewed.used.iter();
                let (_, used) = counts.find(|(scope, _)| *scope == room.scope)?;
                (*used > room.cap).then_some((room, *used))
            })?;
            (room, used, book.ledger.remove(call)?)
        };
        let lease = Lease {
            call: call.clone(),
            epoch: entry.epoch,
        };
        let ending = Ending {
            reason: EndReason::NoMedia,
            without_media: EndReason::NoMedia,
            state: None,
            forever: false,
            had_media: false,
        };
        let now = self.clock.local();
        let released = self.store.release(now, &lease, &entry.scopes, &ending);
        if let Err(error) = released.await {
            self.failed(&error);
        }
        Some(Refusal {
            reason: Reason::Full,
            scope: room.scope.clone(),
            used: used - 1,
            cap: room.cap,
        })
    }

    /// Takes in what a renewal has shown.
    fn renewed(&self, renewed: &Renewed, claims: &[Claim], was_slow: bool, upkeep: &mut Upkeep) {
        let now = self.clock.local();
        let mut book = self.book();
        let mut taken_in = 0_u32;
        let mut has_forgotten = false;
        for (call, news) in &renewed.news {
            let claimed = claims.iter().find(|claim| claim.lease.call == *call);
            let Some(entry) = book.ledger.get_mut(call) else {
                continue;
            };
            // What has changed hands while the renewal was under way is not what was renewed.
            if claimed.is_none_or(|claim| {
                claim.lease.epoch != entry.epoch || claim.has_media == entry.waits()
            }) {
                continue;
            }
            match news {
                News::TakenIn(epoch) => {
                    has_forgotten |= entry.epoch > 0;
                    taken_in += u32::from(entry.epoch == *epoch && !entry.waits());
                    entry.epoch = *epoch;
                    // It may have lost the state as well.
                    entry.told = claimed.and_then(|claim| claim.state.as_ref()).map(|_| now);
                    continue;
                }
                News::Lost | News::Ended(_) => {}
            }
            let Some(entry) = book.ledger.remove(call) else {
                continue;
            };
            if let News::Ended(reason) = *news {
                // Who has told of the end need not have known anything else of the call.
                let state = entry.state.clone().ended(self.clock.shared(), reason);
                book.owed.push(Debt::Release {
                    lease: Lease {
                        call: call.clone(),
                        epoch: entry.epoch,
                    },
                    scopes: entry.scopes.clone(),
                    reason,
                    state: state.json(),
                    had_media: !entry.waits(),
                });
            }
            match (entry.media, news) {
                (Media::Rings { .. } | Media::Awaited { .. }, _) => {
                    book.outage.went(&entry.scopes);
                    upkeep.gone_elsewhere.push(call.clone());
                }
                (Media::Here, News::Ended(reason)) => upkeep.over.push((entry.id, *reason)),
                (Media::Here, _) => upkeep.taken_over.push(entry.id),
            }
        }
        for claim in claims.iter().filter(|claim| claim.state.is_some()) {
            if let Some(entry) = book.ledger.get_mut(&claim.lease.call) {
                entry.told = Some(now);
                entry.ticket = None;
            }
        }
        if has_forgotten {
            self.tell_again(&mut book);
        }
        if book.heard + self.caps.lease < self.clock.elapsed() {
            // Whatever has taken them in again since, their leases had lapsed.
            let live = claims.iter().filter(|claim| claim.has_media);
            taken_in = u32::try_from(live.count()).unwrap_or(u32::MAX);
        }
        self.note_condition(&mut book, renewed, was_slow);
        drop(book);
        // As this renewal has left it: what was last trusted is older than what came back.
        let used = renewed.used.iter();
        let used = used.filter(|(scope, _)| *scope == Scope::Global);
        let used = used.map(|(_, used)| *used).max().unwrap_or(0);
        let over_cap = used.saturating_sub(self.caps.global).min(taken_in);
        upkeep.unwritten.clone_from(&renewed.unwritten);
        self.metrics.looks_after(upkeep.unwritten.len());
        self.metrics
            .renewed(renewed.lapsed.len(), upkeep.taken_over.len(), over_cap);
        if over_cap > 0 {
            tracing::warn!(over_cap, "live calls came back above the cap");
        }
    }

    /// Draws from a renewal how things stand with the store.
    fn note_condition(&self, book: &mut Book, renewed: &Renewed, was_slow: bool) {
        let before = book.outage.trouble();
        let jumped = self.is_shared() && self.clock.set(renewed.now);
        book.siblings = Siblings {
            replicas: renewed.replicas,
            open: renewed.siblings,
            places: renewed.places,
        };
        let Book { ledger, outage, .. } = book;
        let elapsed = self.clock.elapsed();
        if was_slow {
            outage.failed(elapsed, ledger.held());
        } else if jumped {
            // Leases have lapsed by its clock that were renewed in time by everybody else's.
            tracing::warn!("the slot store's clock has jumped: all calls are registered anew");
            self.metrics.clock_jumped();
            outage.forgot(elapsed, ledger.held());
            self.nudged.notify_one();
        } else if outage.must_gate() && !outage.puts_up_gate() {
            outage.answered();
            self.nudged.notify_one();
        } else if renewed.gated {
            outage.gated(elapsed, ledger.held());
        } else if before.is_none() || ledger.all_known() {
            outage.recovered(elapsed);
            let used = renewed.used.iter();
            outage.counted(used.map(|(scope, used)| (scope, *used)));
        } else {
            self.nudged.notify_one(); // A call was admitted meanwhile: that one first.
        }
        outage.replicas(renewed.replicas);
        let after = outage.trouble();
        book.heard = elapsed;
        if let Store::Redis(store) = &self.store {
            store.set_away(after == Some(Trouble::Away));
        }
        if before != after {
            match after {
                None => tracing::info!("the slot store decides again"),
                Some(Trouble::Gated) => {
                    tracing::info!("the slot store is gated: all calls are registered anew");
                }
                Some(Trouble::Away) => {
                    tracing::warn!("the slot store is slow: admitting by our share");
                }
            }
            if after == Some(Trouble::Gated) && before.is_none() {
                self.tell_again(book);
                self.nudged.notify_one(); // That renewal may have been of a few calls only.
            }
        }
    }

    /// Gives back what calls held whose media has not come in time.
    pub async fn give_up_on_lapsed(&self) -> Upkeep {
        let lapsed = {
            let mut book = self.book();
            let lapsed = book.ledger.take_lapsed(self.clock.local());
            for (_, entry) in &lapsed {
                book.outage.went(&entry.scopes);
            }
            lapsed
        };
        let given_up = lapsed.into_iter().map(async |(call, entry)| {
            // What rings has an owner elsewhere, who sees what becomes of it.
            let rings = matches!(entry.media, Media::Rings { .. });
            let never_came = self.give_up(&call, entry).await && !rings;
            (call, never_came)
        });
        let given_up: Vec<_> = stream::iter(given_up)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (never_came, elsewhere): (Vec<_>, Vec<_>) = given_up
            .into_iter()
            .partition(|(_, never_came)| *never_came);
        let calls = |some: Vec<(CarrierCallId, bool)>| some.into_iter().map(|(call, _)| call);
        Upkeep {
            never_came: calls(never_came).collect(),
            gone_elsewhere: calls(elsewhere).collect(),
            ..Upkeep::default()
        }
    }

    /// Gives back what a call held whose media has not come; tells whether it came nowhere, as far
    /// as the store knows.
    async fn give_up(&self, call: &CarrierCallId, entry: Entry) -> bool {
        if self.trouble() == Some(Trouble::Away) {
            return false; // It may be live on another replica, which counts it there.
        }
        let lease = Lease {
            call: call.clone(),
            epoch: entry.epoch,
        };
        let reason = EndReason::NoMedia;
        let state = entry.state.ended(self.clock.shared(), reason).json();
        let ending = Ending {
            reason,
            without_media: reason,
            state: Some(&state),
            forever: false,
            had_media: false,
        };
        let now = self.clock.local();
        match self
            .store
            .release(now, &lease, &entry.scopes, &ending)
            .await
        {
            Ok(Released::Stale) => false,
            Ok(released) => {
                self.log_release(call, released);
                released.reason() == Some(reason)
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }
}
