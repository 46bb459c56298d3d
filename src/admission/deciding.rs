//! May a ringing call come in? Asked of the store, or decided without it.

mod alone;

use std::time::Duration;

use crate::{
    admission::{
        Admission, Book, Decision, Kept, Occupancy, Reason, Refusal, SETUP, StoreError,
        clock::millis,
        ledger::Media,
        rooms,
        scope::{Room, Scope},
        state::CallState,
        store::{Acquired, Choice, Choices, DECISION_KEPT, Request},
        ticket::Ticket,
    },
    call::{CallId, CallerId, CarrierCallId},
    campaign::{Budget, Campaign, Campaigns, Name},
};

/// What this replica can do for a call at this moment.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Why there is no place for its media anywhere, if that is so.
    pub closed: Option<Reason>,
    /// Whether it would dial an agent at once.
    pub dials: bool,
    /// The agents that it leaves alone for a moment.
    pub resting: Vec<Name>,
}

/// A call that asks for a slot, and for one of the agents that it may have.
pub struct Asking<'a> {
    pub carrier_call: &'a CarrierCallId,
    pub agent: &'a Name,
    pub budget: Budget,
    pub rests: bool,
    pub dials: bool,
    /// What it needs; among the agent's calls it needs that last.
    pub rooms: Vec<Room>,
    pub scopes: Vec<Scope>,
    pub state: CallState,
    /// How long it may last, if not as long as any.
    pub lasts_at_most: Option<Duration>,
}

impl Admission {
    /// Decides about a ringing call, once: a repeated webhook gets the first one's decision.
    pub async fn admit(
        &self,
        carrier_call: &CarrierCallId,
        caller: &CallerId,
        campaign: &Campaign,
        campaigns: &Campaigns,
        ready: &Readiness,
    ) -> Decision {
        let closed = ready.closed;
        if let Some(decision) = self.decided(carrier_call, closed) {
            return decision;
        }
        let mut rooms = rooms::rooms(campaign, campaigns, &self.caps);
        if closed.is_some() {
            // Another replica may have decided about this call before; no other gets in.
            rooms[0].cap = 0;
        }
        let call = CallId::of(carrier_call);
        let askings = campaign.agents().map(|agent| {
            self.asking(
                (call, carrier_call),
                caller,
                (campaign, campaigns),
                &rooms,
                agent,
                ready,
            )
        });
        let askings: Vec<Asking<'_>> = askings.collect();
        let mut unheard = false;
        if self.book().outage.may_ask() {
            match self.acquire(carrier_call, &rooms, &askings).await {
                Ok((_, Acquired::Resync)) => self.met_the_gate(),
                Ok((_, Acquired::Refused(_))) if closed.is_some() => {}
                Ok((tickets, acquired)) => return self.acquired(&askings, tickets, acquired),
                Err(error) => {
                    unheard = !matches!(error, StoreError::Away);
                    self.failed(&error);
                }
            }
        }
        match closed {
            Some(reason) => self.refused(carrier_call, self.no_place(reason)),
            None => self.admit_without_store(askings, unheard).await,
        }
    }

    /// Returns what a call asks for with one of its agents.
    pub(super) fn asking<'a>(
        &self,
        (call, carrier_call): (CallId, &'a CarrierCallId),
        caller: &CallerId,
        (campaign, campaigns): (&Campaign, &Campaigns),
        rooms: &[Room],
        agent: &'a Name,
        ready: &Readiness,
    ) -> Asking<'a> {
        let of_agent = rooms::agent_room(agent, campaigns);
        let rooms: Vec<Room> = rooms.iter().cloned().chain(of_agent).collect();
        let scopes: Vec<Scope> = rooms.iter().map(|room| room.scope.clone()).collect();
        let (of_call, replica) = (carrier_call.clone(), &self.replica);
        let state = CallState::new(call, of_call, campaign, agent, replica, &scopes);
        Asking {
            carrier_call,
            agent,
            budget: campaigns.budget_of(agent),
            rests: ready.resting.contains(agent),
            dials: ready.dials,
            rooms,
            scopes,
            state: state.rang(self.clock.shared(), caller),
            lasts_at_most: None,
        }
    }

    /// Asks the store; returns the ticket that goes with each agent as well.
    pub(super) async fn acquire(
        &self,
        call: &CarrierCallId,
        rooms: &[Room],
        askings: &[Asking<'_>],
    ) -> Result<(Vec<String>, Acquired), StoreError> {
        let tickets = askings.iter().map(|asking| self.ticket(asking, false));
        let tickets: Vec<String> = tickets.collect();
        let states: Vec<String> = askings.iter().map(|it| it.state.json()).collect();
        let kept = tickets.iter().zip(&states);
        let agents = askings.iter().zip(kept).map(|(asking, (ticket, state))| {
            let Asking {
                agent,
                budget,
                rests,
                ..
            } = *asking;
            Choice {
                agent,
                budget,
                rests,
                ticket,
                state,
            }
        });
        let choices = Choices {
            agents: &agents.collect::<Vec<_>>(),
            dials: askings.iter().any(|asking| asking.dials),
        };
        let request = Request {
            call,
            rooms,
            lease: millis(SETUP),
        };
        let acquired = self.store.acquire(self.clock.local(), &request, &choices);
        let acquired = acquired.await?;
        Ok((tickets, acquired))
    }

    /// Returns what this replica has decided about a call already. Whether a call that was
    /// admitted has ended since, at any replica, a shared store knows better.
    pub(super) fn decided(&self, call: &CarrierCallId, closed: Option<Reason>) -> Option<Decision> {
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

    pub(super) fn repeated(&self, call: &CarrierCallId, kept: Kept) -> Decision {
        match kept {
            Kept::Refused(refusal) => Decision::Refuse {
                refusal,
                first: false,
            },
            Kept::Admitted(ticket) => match self.tickets.read(&ticket, call, 0) {
                Ok(read) => Decision::Admit {
                    call: read.call,
                    agent: read.agent,
                    ticket,
                    first: false,
                },
                // Only a ticket whose secret was changed since reads as another's.
                Err(_) => Decision::Ended,
            },
        }
    }

    pub(super) fn already_over(call: &CarrierCallId) -> Decision {
        tracing::info!(carrier_call.id = %call, "an ended call's webhook came again");
        Decision::Ended
    }

    /// Turns the store's answer into a decision, and remembers it.
    fn acquired(
        &self,
        askings: &[Asking<'_>],
        mut tickets: Vec<String>,
        acquired: Acquired,
    ) -> Decision {
        let call = askings[0].carrier_call;
        match acquired {
            Acquired::Admitted { epoch, used, agent } => {
                let (asking, ticket) = (&askings[agent], tickets.swap_remove(agent));
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

    pub(super) fn admitted(
        &self,
        asking: &Asking<'_>,
        ticket: String,
        epoch: u64,
        active: u32,
    ) -> Decision {
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
            agent: asking.agent.clone(),
            ticket,
            first: true,
        }
    }

    pub(super) fn refused(&self, call: &CarrierCallId, refusal: Refusal) -> Decision {
        let Refusal {
            reason,
            scope,
            used,
            cap,
        } = &refusal;
        let reason = match scope {
            // What is spent of its budget is not always calls.
            Scope::Agent(_) => format!(" reason={}", reason.as_str()),
            Scope::Global
            | Scope::Setup
            | Scope::Tenant(_)
            | Scope::Campaign(_)
            | Scope::Group(_)
            | Scope::Outbound => String::new(),
        };
        self.log(format_args!(
            "[CAPACITY] REJECTED call_id={call} active_calls={used} max={cap} scope={scope}{reason}"
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

    pub(super) fn remember(&self, book: &mut Book, call: &CarrierCallId, ticket: &str) {
        let kept = Kept::Admitted(ticket.to_owned());
        let now = self.clock.local();
        book.decisions.put(now, millis(SETUP), call.clone(), kept);
    }

    pub(super) fn enter_waiting(
        &self,
        book: &mut Book,
        asking: &Asking<'_>,
        ticket: &str,
        epoch: u64,
    ) {
        let now = self.clock.local();
        let until = now + millis(SETUP);
        let (call, state) = (asking.carrier_call, asking.state.clone());
        let media = Media::Awaited { until };
        let scopes = asking.scopes.clone();
        book.ledger.enter(now, call, epoch, media, state, scopes);
        if asking.dials && asking.budget.dials.is_some() {
            book.dials.note(now, asking.agent, call, epoch > 0);
        }
        if epoch == 0
            && let Some(entry) = book.ledger.get_mut(call)
        {
            entry.ticket = Some(ticket.to_owned());
        }
    }

    pub(super) fn ticket(&self, asking: &Asking<'_>, degraded: bool) -> String {
        self.tickets.sign(&Ticket {
            call: asking.state.call_id,
            carrier_call: asking.carrier_call.clone(),
            campaign: asking.state.campaign.clone(),
            agent: asking.agent.clone(),
            issuer: self.replica.clone(),
            expires_at: self.clock.shared() + millis(SETUP),
            nonce: format!("{:032x}", rand::random::<u128>()),
            degraded,
            outbound: asking.scopes.contains(&Scope::Outbound),
            lasts_at_most: asking.lasts_at_most,
        })
    }
}
