//! May a ringing call come in? Asked of the store, or decided without it.

use crate::{
    admission::{
        Admission, Book, Decision, Kept, Occupancy, Reason, Refusal, SETUP, StoreError, Trouble,
        clock::millis,
        ledger::Media,
        outage::Verdict,
        rooms,
        scope::{Room, Scope},
        state::CallState,
        store::{Acquired, DECISION_KEPT, Request},
        ticket::Ticket,
    },
    call::{CallId, CallerId, CarrierCallId},
    campaign::{Campaign, Campaigns},
};

/// A call that asks for a slot.
pub struct Asking<'a> {
    pub carrier_call: &'a CarrierCallId,
    pub rooms: &'a [Room],
    pub scopes: Vec<Scope>,
    pub state: CallState,
}

impl Admission {
    /// Decides about a ringing call, once: a repeated webhook gets the first one's decision. With
    /// `closed` there is no place for its media anywhere, whatever the caps say.
    pub async fn admit(
        &self,
        carrier_call: &CarrierCallId,
        caller: &CallerId,
        campaign: &Campaign,
        campaigns: &Campaigns,
        closed: Option<Reason>,
    ) -> Decision {
        if let Some(decision) = self.decided(carrier_call, closed) {
            return decision;
        }
        let mut rooms = rooms::rooms(campaign, campaigns, &self.caps);
        if closed.is_some() {
            // Another replica may have decided about this call before; no other gets in.
            rooms[0].cap = 0;
        }
        let call = CallId::new();
        let scopes: Vec<Scope> = rooms.iter().map(|room| room.scope.clone()).collect();
        let state = CallState::new(call, carrier_call.clone(), campaign, &self.replica, &scopes);
        let asking = Asking {
            carrier_call,
            rooms: &rooms,
            scopes,
            state: state.rang(self.clock.shared(), caller),
        };
        let mut unheard = false;
        if self.book().outage.may_ask() {
            let ticket = self.ticket(&asking, false);
            let request = Request {
                call: carrier_call,
                rooms: &rooms,
                lease: millis(SETUP),
                state: &asking.state.json(),
            };
            let acquired = self.store.acquire(self.clock.local(), &request, &ticket);
            match acquired.await {
                Ok(Acquired::Resync) => self.met_the_gate(),
                Ok(Acquired::Refused(_)) if closed.is_some() => {}
                Ok(acquired) => return self.acquired(&asking, ticket, acquired),
                Err(error) => {
                    unheard = !matches!(error, StoreError::Away);
                    self.failed(&error);
                }
            }
        }
        match closed {
            Some(reason) => self.refused(carrier_call, self.no_place(reason)),
            None => self.admit_without_store(asking, unheard).await,
        }
    }

    /// Returns what this replica has decided about a call already. Whether a call that was
    /// admitted has ended since, at any replica, a shared store knows better.
    fn decided(&self, call: &CarrierCallId, closed: Option<Reason>) -> Option<Decision> {
        let kept = {
            let book = self.book();
            let now = self.clock.local();
            if book.ended.get(now, call).is_some() {
                return Some(Self::already_over(call));
            }
            let kept = book.decisions.get(now, call).cloned()?;
            let asks = self.is_shared() && book.outage.may_ask() && closed.is_none();
            if asks && matches!(kept, Kept::Admitted(_)) {
                return None;
            }
            kept
        };
        Some(self.repeated(call, kept))
    }

    fn repeated(&self, call: &CarrierCallId, kept: Kept) -> Decision {
        match kept {
            Kept::Refused(refusal) => Decision::Refuse {
                refusal,
                first: false,
            },
            Kept::Admitted(ticket) => match self.tickets.read(&ticket, call, 0) {
                Ok(read) => Decision::Admit {
                    call: read.call,
                    ticket,
                    first: false,
                },
                // Only a ticket whose secret was changed since reads as another's.
                Err(_) => Decision::Ended,
            },
        }
    }

    fn already_over(call: &CarrierCallId) -> Decision {
        tracing::info!(carrier_call.id = %call, "an ended call's webhook came again");
        Decision::Ended
    }

    /// Turns the store's answer into a decision, and remembers it.
    fn acquired(&self, asking: &Asking<'_>, ticket: String, acquired: Acquired) -> Decision {
        let call = asking.carrier_call;
        match acquired {
            Acquired::Admitted { epoch, used } => {
                let mut book = self.book();
                let scopes = asking.rooms.iter().map(|room| &room.scope);
                book.outage.counted(scopes.zip(used));
                drop(book);
                let active = self.used(&Scope::Global);
                self.admitted(asking, ticket, epoch, active)
            }
            Acquired::Refused(refusal) => {
                let counted = [(&refusal.scope, refusal.used)];
                self.book().outage.counted(counted);
                self.refused(call, refusal)
            }
            Acquired::Repeated(kept) => self.repeated(call, kept),
            Acquired::Held => {
                // A store that has lost the answer has been told of the slot only.
                let kept = self.book().decisions.get(self.clock.local(), call).cloned();
                match kept {
                    Some(kept) => self.repeated(call, kept),
                    None => Self::already_over(call),
                }
            }
            Acquired::Ended => Self::already_over(call),
            Acquired::Resync => unreachable!("the caller decides without the store then"),
        }
    }

    /// Decides by this replica's share of what was free when the trouble began. `unheard` if the
    /// store was asked and may have decided too.
    async fn admit_without_store(&self, mut asking: Asking<'_>, unheard: bool) -> Decision {
        asking.state.degraded = true;
        let call = asking.carrier_call;
        let ticket = self.ticket(&asking, true);
        let (verdict, gated) = {
            let mut book = self.book();
            // The same webhook may have been decided about while this one waited for the store.
            if let Some(kept) = book.decisions.get(self.clock.local(), call).cloned() {
                drop(book);
                return self.repeated(call, kept);
            }
            let Book { ledger, outage, .. } = &mut *book;
            if ledger.holds(call) {
                drop(book);
                return Self::already_over(call);
            }
            let verdict = outage.decide(asking.rooms, ledger.held());
            if verdict == Verdict::Admit {
                self.enter_waiting(&mut book, &asking, &ticket, 0);
                self.remember(&mut book, call, &ticket);
            }
            (verdict, book.outage.trouble() == Some(Trouble::Gated))
        };
        if let Verdict::Refuse { scope, used, cap } = verdict {
            let refusal = Refusal {
                reason: Reason::Outage,
                scope,
                used,
                cap,
            };
            self.owe_refusal(&asking, &refusal, unheard);
            return self.refused(call, refusal);
        }
        if gated && let Some(refusal) = self.register(&asking).await {
            self.owe_refusal(&asking, &refusal, false);
            return self.refused(call, refusal);
        }
        self.metrics.admitted_without_store();
        let active = self.occupancy().active;
        self.admitted(&asking, ticket, 0, active)
    }

    fn admitted(&self, asking: &Asking<'_>, ticket: String, epoch: u64, active: u32) -> Decision {
        let (call, cap) = (asking.carrier_call, self.caps.global);
        let degraded = if asking.state.degraded {
            " degraded=true"
        } else {
            ""
        };
        self.log(format_args!(
            "[CAPACITY] ACQUIRED call_id={call} active_calls={active}/{cap}{degraded}"
        ));
        if epoch > 0 {
            let mut book = self.book();
            self.enter_waiting(&mut book, asking, &ticket, epoch);
            self.remember(&mut book, call, &ticket);
        }
        Decision::Admit {
            call: asking.state.call_id,
            ticket,
            first: true,
        }
    }

    fn refused(&self, call: &CarrierCallId, refusal: Refusal) -> Decision {
        let Refusal {
            scope, used, cap, ..
        } = &refusal;
        self.log(format_args!(
            "[CAPACITY] REJECTED call_id={call} active_calls={used} max={cap} scope={scope}"
        ));
        let kept = Kept::Refused(refusal.clone());
        let now = self.clock.local();
        let mut book = self.book();
        book.decisions.put(now, DECISION_KEPT, call.clone(), kept);
        drop(book);
        Decision::Refuse {
            refusal,
            first: true,
        }
    }

    fn no_place(&self, reason: Reason) -> Refusal {
        let Occupancy { active, cap } = self.occupancy();
        Refusal {
            reason,
            scope: Scope::Global,
            used: active,
            cap,
        }
    }

    fn remember(&self, book: &mut Book, call: &CarrierCallId, ticket: &str) {
        let kept = Kept::Admitted(ticket.to_owned());
        let now = self.clock.local();
        book.decisions.put(now, millis(SETUP), call.clone(), kept);
    }

    fn enter_waiting(&self, book: &mut Book, asking: &Asking<'_>, ticket: &str, epoch: u64) {
        let now = self.clock.local();
        let until = now + millis(SETUP);
        let (call, state) = (asking.carrier_call, asking.state.clone());
        let media = Media::Awaited { until };
        let scopes = asking.scopes.clone();
        book.ledger.enter(now, call, epoch, media, state, scopes);
        if epoch == 0
            && let Some(entry) = book.ledger.get_mut(call)
        {
            entry.ticket = Some(ticket.to_owned());
        }
    }

    fn ticket(&self, asking: &Asking<'_>, degraded: bool) -> String {
        self.tickets.sign(&Ticket {
            call: asking.state.call_id,
            carrier_call: asking.carrier_call.clone(),
            campaign: asking.state.campaign.clone(),
            issuer: self.replica.clone(),
            expires_at: self.clock.shared() + millis(SETUP),
            nonce: format!("{:032x}", rand::random::<u128>()),
            degraded,
        })
    }
}
