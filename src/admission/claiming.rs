//! A media socket brings a call: its ticket, and the slot that goes with it.

use crate::{
    admission::{
        Admission, ClaimError, Claimed, Slot, Trouble,
        clock::millis,
        ledger::Media,
        rooms,
        scope::Scope,
        state::{CallState, Phase},
        store::{Adopted, Arrival, NONCE_KEPT, Request, Store},
        ticket::{Ticket, TicketError},
    },
    call::CarrierCallId,
    campaign::{Campaign, Campaigns, Name},
};

impl Admission {
    /// Reads the ticket that a media socket has brought.
    ///
    /// # Errors
    /// If it is not good for `carrier_call`.
    pub fn read(&self, ticket: &str, carrier_call: &CarrierCallId) -> Result<Ticket, TicketError> {
        self.tickets.read(ticket, carrier_call, self.clock.shared())
    }

    /// Reads the call that a ticket in a media socket's address names. Whether it is still good is
    /// seen when it is claimed.
    ///
    /// # Errors
    /// If it is not ours.
    pub fn call_of(&self, ticket: &str) -> Result<CarrierCallId, TicketError> {
        Ok(self.tickets.open(ticket)?.carrier_call)
    }

    /// Returns how far a call has come, at whichever replica; `None` where nobody can tell.
    pub async fn phase(&self, carrier_call: &CarrierCallId) -> Option<Phase> {
        if self.has_ended(carrier_call) {
            return Some(Phase::Ended);
        }
        let (here, trouble) = {
            let book = self.book();
            let here = book.ledger.media_of(carrier_call);
            (here, book.outage.trouble())
        };
        match (here, &self.store) {
            (Some(Media::Here), _) => Some(Phase::Live),
            (Some(Media::Rings { .. } | Media::Awaited { .. }), Store::Memory(_)) => {
                Some(Phase::Ringing)
            }
            (None, Store::Memory(_)) => None,
            // What the store has noted may be of before.
            (_, Store::Redis(_)) if trouble.is_some() => None,
            (_, Store::Redis(store)) => {
                let state = store.state(carrier_call).await;
                let state = state.unwrap_or_else(|error| {
                    self.failed(&error);
                    None
                });
                Phase::noted(&state?)
            }
        }
    }

    /// Hands the call that `ticket` admitted to the media socket that brings it.
    ///
    /// # Errors
    /// If the ticket is used, or the call is over.
    pub async fn claim(
        &self,
        ticket: &Ticket,
        campaign: &Campaign,
        campaigns: &Campaigns,
    ) -> Result<Claimed, ClaimError> {
        let carrier_call = &ticket.carrier_call;
        if self.has_ended(carrier_call) {
            return Err(ClaimError::Ended);
        }
        let agent = campaigns.agent_for(&ticket.agent, campaign).clone();
        let mut rooms = rooms::rooms(campaign, campaigns, &self.caps);
        rooms.extend(ticket.outbound.then(|| rooms::outbound_room(&self.caps)));
        rooms.extend(rooms::agent_room(&agent, campaigns));
        let scopes = rooms.iter().map(|room| room.scope.clone());
        let scopes: Vec<Scope> = scopes.filter(|scope| scope.counts(true)).collect();
        let state = CallState::new(
            ticket.call,
            carrier_call.clone(),
            campaign,
            &agent,
            &self.replica,
            &scopes,
        );
        let mut state = state.connected(self.clock.shared());
        state.degraded = ticket.degraded;
        let request = Request {
            call: carrier_call,
            rooms: &rooms,
            lease: millis(self.caps.lease),
        };
        let counts_dials = campaigns.budget_of(&agent).dials.is_some();
        let arrival = Arrival {
            nonce: &ticket.nonce,
            admitted_without: ticket.degraded,
            state: &state.json(),
            dials: counts_dials.then_some(&agent),
        };
        let mut epoch = 0;
        if self.book().outage.trouble() != Some(Trouble::Away) {
            let now = self.clock.local();
            let adopted = self.store.adopt(now, &request, &arrival);
            match adopted.await {
                Ok(Adopted::Live {
                    lease,
                    state: noted,
                    gated,
                }) => {
                    epoch = lease.epoch;
                    state.learn(&noted);
                    if gated {
                        self.met_the_gate();
                    }
                }
                Ok(Adopted::Used) => return Err(ClaimError::Used),
                Ok(Adopted::Ended) => return Err(ClaimError::Ended),
                Ok(Adopted::Refused(_)) => return Err(ClaimError::Full),
                Err(error) => self.failed(&error),
            }
        }
        if counts_dials {
            let mut book = self.book();
            let now = self.clock.local();
            book.dials.note(now, &agent, carrier_call, epoch > 0);
        }
        self.enter_live(ticket, agent, state, &scopes, epoch)
    }

    fn enter_live(
        &self,
        ticket: &Ticket,
        agent: Name,
        state: CallState,
        scopes: &[Scope],
        epoch: u64,
    ) -> Result<Claimed, ClaimError> {
        let now = self.clock.local();
        let call = &ticket.carrier_call;
        let mut book = self.book();
        // Where the store does not keep tickets from being used twice, this replica does.
        if epoch == 0 && book.nonces.get(now, &ticket.nonce).is_some() {
            return Err(ClaimError::Used);
        }
        let nonce = ticket.nonce.clone();
        book.nonces.put(now, NONCE_KEPT, nonce, ());
        let caller = state.caller.clone();
        let (id, before) = book
            .ledger
            .enter(now, call, epoch, Media::Here, state, scopes.to_vec());
        if before.is_none() {
            book.outage.came(scopes);
        }
        drop(book);
        Ok(Claimed {
            call: ticket.call,
            agent,
            caller,
            slot: Slot::new(call.clone(), id, self.freed.clone()),
        })
    }
}
