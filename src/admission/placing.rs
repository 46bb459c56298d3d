//! Slots of calls that we place: taken before anybody is called, and given back on every way in
//! which nobody picks up.
//!
//! Invariant: what may ring holds a slot, by a name of ours until its carrier has one for it.
//! Invariant: no call is placed while the store cannot say that there is room: whoever wants one
//! can wait, unlike a caller.

use std::time::Duration;

use crate::{
    admission::{
        Admission, Book, Decision, Kept, Lease, Readiness, Refusal, SETUP, Trouble,
        clock::millis,
        deciding::Asking,
        ending::Ended,
        ledger::Media,
        rooms,
        scope::Scope,
        store::{Acquired, PickUp, PickedUp, Rebound, Request},
    },
    call::{CallId, CallerId, CarrierCallId, EndReason},
    campaign::{Campaign, Campaigns, Name},
};

/// What became of a request for a slot, before a call is placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reservation {
    /// It is held here, for a conversation with this agent.
    Held {
        agent: Name,
    },
    Refused(Refusal),
    /// Another replica holds it, or has held it a moment ago.
    Elsewhere,
    /// The call is over.
    Ended,
    /// The store cannot say.
    Unavailable,
}

/// A call that we place.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub call: CallId,
    /// What it is called until its carrier has a name for it.
    pub pending: &'a CarrierCallId,
    /// Whom it is for.
    pub to: &'a CallerId,
    pub campaign: &'a Campaign,
    /// How long it may last, if not as long as any.
    pub lasts_at_most: Option<Duration>,
}

impl Admission {
    /// Takes a slot for a call that is about to be placed, in every scope that it counts in. It is
    /// renewed here for as long as it may ring: `hold`.
    pub async fn reserve(
        &self,
        outgoing: &Outgoing<'_>,
        campaigns: &Campaigns,
        ready: &Readiness,
        hold: Duration,
    ) -> Reservation {
        let Outgoing {
            call,
            pending,
            to,
            campaign,
            ..
        } = *outgoing;
        if !self.book().outage.may_ask() {
            return Reservation::Unavailable;
        }
        let rooms = rooms::ringing_rooms(campaign, campaigns, &self.caps);
        // Its agent is dialed once somebody picks up.
        let later = Readiness {
            dials: false,
            ..ready.clone()
        };
        let askings = campaign.agents().map(|agent| {
            let names = (call, pending);
            self.asking(names, to, (campaign, campaigns), &rooms, agent, &later)
        });
        let askings: Vec<Asking<'_>> = askings.collect();
        match self.acquire(pending, &rooms, &askings).await {
            Ok((_, Acquired::Admitted { epoch, used, agent })) => {
                let asking = &askings[agent];
                let mut book = self.book();
                let scopes = asking.scopes.iter();
                book.outage.counted(scopes.zip(used));
                self.enter_ringing(&mut book, asking, epoch, hold);
                drop(book);
                let (active, cap) = (self.used(&Scope::Global), self.caps.global);
                self.log(format_args!(
                    "[CAPACITY] ACQUIRED call_id={pending} active_calls={active}/{cap}"
                ));
                Reservation::Held {
                    agent: asking.agent.clone(),
                }
            }
            Ok((_, Acquired::Refused(refusal))) => {
                self.book().outage.counted([(&refusal.scope, refusal.used)]);
                self.refused(pending, refusal.clone());
                Reservation::Refused(refusal)
            }
            Ok((_, Acquired::Repeated(Kept::Refused(refusal)))) => Reservation::Refused(refusal),
            Ok((_, Acquired::Repeated(Kept::Admitted(_)) | Acquired::Held)) => {
                Reservation::Elsewhere
            }
            Ok((_, Acquired::Ended)) => Reservation::Ended,
            Ok((_, Acquired::Resync)) => {
                self.met_the_gate();
                Reservation::Unavailable
            }
            Err(error) => {
                self.failed(&error);
                // The store may have taken a slot unheard.
                self.unplaced(pending, EndReason::NotPlaced).await;
                Reservation::Unavailable
            }
        }
    }

    /// Takes over a call that may ring, from a replica that has died: it counts from the next
    /// renewal on, above the cap if need be, for it rings already.
    pub fn take_over_ringing(
        &self,
        outgoing: &Outgoing<'_>,
        named: &CarrierCallId,
        agent: &Name,
        campaigns: &Campaigns,
        hold: Duration,
    ) {
        let Outgoing {
            call, to, campaign, ..
        } = *outgoing;
        let rooms = rooms::ringing_rooms(campaign, campaigns, &self.caps);
        let ready = Readiness::default();
        let (names, whose) = ((call, named), (campaign, campaigns));
        let asking = self.asking(names, to, whose, &rooms, agent, &ready);
        let mut book = self.book();
        if !book.ledger.holds(named) {
            self.enter_ringing(&mut book, &asking, 0, hold);
        }
        drop(book);
        self.nudged.notify_one();
    }

    fn enter_ringing(&self, book: &mut Book, asking: &Asking<'_>, epoch: u64, hold: Duration) {
        let now = self.clock.local();
        let media = Media::Rings {
            until: now + millis(hold),
        };
        let (call, state, scopes) = (
            asking.carrier_call,
            asking.state.clone(),
            asking.scopes.clone(),
        );
        book.ledger.enter(now, call, epoch, media, state, scopes);
    }

    /// Notes what a placed call's carrier calls it. If somebody has picked it up elsewhere
    /// meanwhile, the next renewal shows it.
    pub async fn named(&self, pending: &CarrierCallId, call: &CarrierCallId) {
        let known = {
            let book = self.book();
            let entry = book.ledger.get(pending);
            entry.map(|entry| (entry.epoch, entry.scopes.clone(), entry.state.clone()))
        };
        let Some((epoch, scopes, mut state)) = known else {
            return;
        };
        state.carrier_call_id = call.clone();
        let mut is_over = false;
        if epoch > 0 && self.trouble() != Some(Trouble::Away) {
            let lease = Lease {
                call: pending.clone(),
                epoch,
            };
            let (now, state) = (self.clock.local(), state.json());
            let rebound = self.store.rebind(now, &lease, call, &scopes, &state);
            match rebound.await {
                Ok(rebound) => is_over = rebound == Rebound::Ended,
                Err(error) => self.failed(&error),
            }
        }
        if is_over {
            self.unplaced(pending, EndReason::NoAnswer).await;
        } else {
            self.book().ledger.rename(pending, call);
        }
    }

    /// Gives back the slot of a placed call that will not be picked up. Tells whether somebody has
    /// done so at this moment, so that it waited for its media.
    pub async fn unplaced(&self, call: &CarrierCallId, reason: EndReason) -> bool {
        let ended = Ended {
            live: reason,
            waiting: reason,
            unanswered: true,
        };
        self.end(call, ended).await
    }

    /// Decides about a placed call that somebody has picked up: from here on it waits for its media
    /// here. It is refused only if its slot has lapsed and there is no other.
    pub async fn pick_up(
        &self,
        outgoing: &Outgoing<'_>,
        carrier_call: &CarrierCallId,
        agent: &Name,
        campaigns: &Campaigns,
        ready: &Readiness,
    ) -> Decision {
        if let Some(decision) = self.decided(carrier_call, None) {
            return decision;
        }
        let Outgoing {
            call,
            pending,
            to,
            campaign,
            lasts_at_most,
        } = *outgoing;
        let agent = campaigns.agent_for(agent, campaign);
        let mut rooms = rooms::rooms(campaign, campaigns, &self.caps);
        rooms.push(rooms::outbound_room(&self.caps));
        let (names, whose) = ((call, carrier_call), (campaign, campaigns));
        let mut asking = self.asking(names, to, whose, &rooms, agent, ready);
        asking.lasts_at_most = lasts_at_most;
        if self.trouble() != Some(Trouble::Away) {
            let (ticket, state) = (self.ticket(&asking, false), asking.state.json());
            let request = Request {
                call: carrier_call,
                rooms: &asking.rooms,
                lease: millis(SETUP),
            };
            let pick_up = PickUp {
                pending,
                ticket: &ticket,
                state: &state,
                agent: asking.budget.dials.is_some().then_some(agent),
                dials: asking.dials,
            };
            let now = self.clock.local();
            match self.store.pick_up(now, &request, &pick_up).await {
                Ok(PickedUp::Waits { epoch, gated }) => {
                    if gated {
                        self.met_the_gate();
                    }
                    self.forget_ringing(pending, carrier_call);
                    let active = self.used(&Scope::Global);
                    return self.admitted(&asking, ticket, epoch, active);
                }
                Ok(PickedUp::Repeated(kept)) => return self.repeated(carrier_call, kept),
                Ok(PickedUp::Refused(refusal)) => return self.refused(carrier_call, refusal),
                Ok(PickedUp::Ended) => return Self::already_over(carrier_call),
                Err(error) => self.failed(&error),
            }
        }
        // Somebody is on the line already: where the store is away, the call brings its allowance
        // along.
        asking.state.degraded = true;
        let ticket = self.ticket(&asking, true);
        let held_here = self.forget_ringing(pending, carrier_call);
        let mut book = self.book();
        self.enter_waiting(&mut book, &asking, &ticket, 0);
        self.remember(&mut book, carrier_call, &ticket);
        if !held_here {
            book.outage.came(&asking.scopes);
        }
        drop(book);
        let active = self.occupancy().active;
        self.admitted(&asking, ticket, 0, active)
    }

    /// Drops what was held here for a call while it rang; tells whether there was any.
    fn forget_ringing(&self, pending: &CarrierCallId, call: &CarrierCallId) -> bool {
        let mut book = self.book();
        let removed = [pending, call].map(|name| book.ledger.remove_waiting(name));
        removed.iter().any(Option::is_some)
    }
}
