//! What replicas do, and what the model says must come of it.

use proptest::{prelude::*, test_runner::TestCaseError};

use super::{super::*, Play, Replica, agents, all_scopes, as_told};

impl Play<'_> {
    pub(super) async fn acquire(
        &mut self,
        replica: usize,
        number: u32,
        dials: bool,
        rings: bool,
    ) -> Result<(), TestCaseError> {
        let (call, mut rooms) = (call(number), self.rooms(number));
        if rings {
            rooms.retain(|room| room.scope != Scope::Setup);
        }
        let state = state(&rooms);
        let request = Request {
            call: &call,
            rooms: &rooms,
            lease: SETUP,
        };
        self.tickets += 1;
        let chosen = self.choices(number);
        let tickets = chosen
            .iter()
            .map(|(agent, _)| format!("{agent}-{}", self.tickets));
        let tickets: Vec<String> = tickets.collect();
        let agents = chosen.iter().zip(&tickets);
        let agents: Vec<Choice<'_>> = agents
            .map(|((agent, budget), ticket)| Choice {
                agent,
                budget: *budget,
                rests: false,
                ticket,
                state: &state,
            })
            .collect();
        let choices = Choices {
            agents: &agents,
            dials,
        };
        let store = self.house.store(replica);
        let acquired = store.acquire(self.house.now, &request, &choices).await;
        let acquired = acquired.unwrap();
        let mut given = 0;
        if let Acquired::Admitted { epoch, used, agent } = &acquired {
            given = self.newer(*epoch)?;
            let sessions = agents[*agent].budget.sessions;
            let caps = rooms.iter().map(|room| room.cap);
            let caps = caps.chain([sessions.unwrap_or(u32::MAX)]);
            let over = caps.zip(used).find(|(cap, used)| *used > cap);
            prop_assert_eq!(over, None, "over its cap");
        }
        let name = self.name(replica);
        let expected = self.model.acquire(&name, &request, &choices, given);
        prop_assert_eq!(&acquired, &expected);
        match acquired {
            Acquired::Admitted { epoch, agent, .. } => {
                let Choice { agent, budget, .. } = agents[agent];
                if let Some(cap) = budget.dials {
                    prop_assert!(self.model.asked_of(agent).dials <= cap, "over its budget");
                }
                let at = chosen.iter().position(|(chosen, _)| chosen == agent);
                self.given.insert(call.clone(), at.unwrap());
                let mut rooms = self.rooms_with_agent(number);
                if rings {
                    rooms.retain(|room| room.scope != Scope::Setup);
                }
                self.believe(replica, &call, epoch, &rooms, false);
            }
            Acquired::Refused(_) => {
                let look = self.house.pass(0);
                let (before, after) = (self.last.without_decisions(), look.without_decisions());
                prop_assert_eq!(before, after, "a refusal leaves a trace");
            }
            Acquired::Repeated(_) | Acquired::Held | Acquired::Ended | Acquired::Resync => {}
        }
        Ok(())
    }

    pub(super) async fn report(
        &mut self,
        replica: usize,
        report: AgentReport,
    ) -> Result<(), TestCaseError> {
        let store = self.house.store(replica);
        let reports = [report];
        let used = store.report(self.house.now, &reports).await.unwrap();
        let name = self.name(replica);
        let expected = self.model.report(&name, &reports[0]);
        prop_assert_eq!(as_told(&used), [expected]);
        Ok(())
    }

    /// Compares what is known of all agents.
    pub(super) async fn ask_of_agents(&self) -> Result<(), TestCaseError> {
        let questions = agents().map(AgentReport::question);
        let store = self.house.store(0);
        let used = store.report(self.house.now, &questions).await.unwrap();
        let expected = agents().map(|agent| self.model.asked_of(&agent));
        prop_assert_eq!(as_told(&used), expected);
        Ok(())
    }

    pub(super) async fn adopt(
        &mut self,
        replica: usize,
        number: u32,
        nonce: u32,
    ) -> Result<(), TestCaseError> {
        let (call, rooms) = (call(number), self.rooms_with_agent(number));
        let nonce = format!("{number}-{nonce}");
        let state = state(&rooms);
        let request = Request {
            call: &call,
            rooms: &rooms,
            lease: LEASE,
        };
        // A call that a replica has let in by itself says so in its ticket.
        let without = self.replicas.iter().any(|replica| {
            let mut calls = replica.calls.iter();
            calls.any(|it| it.claim.lease == lease(&call, 0))
        });
        let (agent, budget) = self.agent(number);
        let arrival = Arrival {
            nonce: &nonce,
            admitted_without: without,
            state: &state,
            dials: budget.dials.is_some().then_some(&agent),
        };
        let store = self.house.store(replica);
        let adopted = store.adopt(self.house.now, &request, &arrival).await;
        let mut adopted = adopted.unwrap();
        let mut given = 0;
        if let Adopted::Live {
            lease,
            state: noted,
            ..
        } = &mut adopted
        {
            given = self.newer(lease.epoch)?;
            noted.clone_from(&state); // A story of its own tells what becomes of it.
        }
        let name = self.name(replica);
        let expected = self.model.adopt(&name, &request, &arrival, given);
        prop_assert_eq!(&adopted, &expected);
        match adopted {
            Adopted::Live { lease, .. } => {
                self.believe(replica, &call, lease.epoch, &rooms, true);
            }
            Adopted::Refused(_) | Adopted::Used | Adopted::Ended => {
                let look = self.house.pass(0);
                prop_assert_eq!(&self.last.lines, &look.lines, "a refusal leaves a trace");
            }
        }
        Ok(())
    }

    pub(super) async fn refuse_without(
        &mut self,
        replica: usize,
        number: u32,
        unheard: bool,
    ) -> Result<(), TestCaseError> {
        if self.knows(replica, number) {
            return Ok(()); // It remembers what it has decided.
        }
        if unheard {
            self.acquire(replica, number, true, false).await?;
        }
        let (call, scopes) = (call(number), all_scopes());
        self.forget(replica, &call);
        let refusal = Refusal {
            reason: Reason::Full,
            scope: Scope::Global,
            used: 0,
            cap: 0,
        };
        let (store, name) = (self.house.store(replica), self.name(replica));
        let refused = store.refuse(&call, &scopes, &refusal).await.unwrap();
        prop_assert_eq!(refused, self.model.refuse(&name, &call, &refusal));
        Ok(())
    }

    pub(super) async fn renew(
        &mut self,
        replica: usize,
        bits: u8,
        was_away: bool,
        places: Option<u32>,
    ) -> Result<(), TestCaseError> {
        let now = self.house.now;
        let calls = &mut self.replicas[replica].calls;
        calls.retain(|it| it.until.is_none_or(|until| now < until));
        let due = calls.iter_mut().enumerate();
        let due = due.filter(|(at, _)| bits & (1 << (at % 8)) != 0);
        let claims: Vec<Claim> = due
            .map(|(_, it)| {
                it.claim.lasts = it.until.map_or(LEASE, |until| LEASE.min(until - now));
                it.claim.clone()
            })
            .collect();
        let scopes = all_scopes();
        let renewal = Renewal {
            claims: &claims,
            scopes: &scopes,
            puts_up_gate: was_away,
            looks_after: true,
            places,
            hurried: false,
        };
        let renewed = self.house.store(replica).renew(now, &renewal).await;
        let mut renewed = renewed.unwrap();
        renewed.now = 0;
        if self.house.is_shared() {
            renewed.used.swap(0, 1); // It counts the set-up scope in any case, and first.
        }
        let mut given = Vec::new();
        for (call, news) in &renewed.news {
            let claimed = claims.iter().find(|claim| claim.lease.call == *call);
            if let News::TakenIn(epoch) = news
                && claimed.is_some_and(|claim| claim.lease.epoch != *epoch)
                && *epoch > self.model.newest
            {
                given.push(self.newer(*epoch)?);
            }
        }
        let name = self.name(replica);
        let expected = self.model.renew(&name, &renewal, &given);
        prop_assert_eq!(&renewed, &expected);
        for (call, news) in renewed.news {
            match news {
                News::TakenIn(epoch) => {
                    let calls = &mut self.replicas[replica].calls;
                    let believed = calls.iter_mut().find(|it| it.claim.lease.call == call);
                    believed.unwrap().claim.lease.epoch = epoch;
                    self.replicas[replica].had.push(lease(&call, epoch));
                }
                News::Lost | News::Ended(_) => self.forget(replica, &call),
            }
        }
        Ok(())
    }

    pub(super) async fn release(
        &mut self,
        replica: usize,
        number: u32,
        forever: bool,
    ) -> Result<(), TestCaseError> {
        let call = call(number);
        let had = self.replicas[replica].had.iter().rev();
        let Some(lease) = had.into_iter().find(|lease| lease.call == call).cloned() else {
            return Ok(());
        };
        let ending = Ending {
            reason: EndReason::CallerHungUp,
            without_media: EndReason::NoMedia,
            state: None,
            forever,
            had_media: false,
        };
        let scopes = all_scopes();
        let store = self.house.store(replica);
        let released = store.release(self.house.now, &lease, &scopes, &ending);
        let name = self.name(replica);
        let expected = self.model.release(&name, &lease, &ending);
        prop_assert_eq!(released.await.unwrap(), expected);
        self.forget(replica, &call);
        Ok(())
    }

    pub(super) async fn end(&mut self, replica: usize, number: u32) -> Result<(), TestCaseError> {
        let call = call(number);
        let ending = Ending {
            reason: EndReason::CarrierEnded,
            without_media: EndReason::NoMedia,
            state: None,
            forever: true,
            had_media: false,
        };
        let (store, now) = (self.house.store(replica), self.house.now);
        let released = store.end(now, &call, &ending).await;
        let name = self.name(replica);
        prop_assert_eq!(released.unwrap(), self.model.end(&name, &call, &ending));
        let ended = store.ended(now, &call).await.unwrap();
        prop_assert_eq!(ended, self.model.reason(&call));
        Ok(())
    }

    pub(super) async fn rebind(
        &mut self,
        replica: usize,
        number: u32,
        name: u32,
    ) -> Result<(), TestCaseError> {
        let (pending, named) = (call(number), call(name));
        let had = self.replicas[replica].had.iter().rev();
        let Some(lease) = had.into_iter().find(|lease| lease.call == pending).cloned() else {
            return Ok(());
        };
        let (scopes, state) = (all_scopes(), state(&self.rooms(number)));
        let store = self.house.store(replica);
        let rebound = store.rebind(self.house.now, &lease, &named, &scopes, &state);
        let rebound = rebound.await.unwrap();
        prop_assert_eq!(rebound, self.model.rebind(&lease, &named));
        if rebound == Rebound::Named {
            self.carriers_own.insert(name);
            let Replica { calls, had, .. } = &mut self.replicas[replica];
            calls.retain(|it| it.claim.lease.call != named);
            for believed in calls.iter_mut() {
                if believed.claim.lease.call == pending {
                    believed.claim.lease.call = named.clone();
                }
            }
            had.push(Lease {
                call: named,
                ..lease
            });
        }
        Ok(())
    }

    pub(super) async fn pick_up(
        &mut self,
        replica: usize,
        number: u32,
        name: u32,
        dials: bool,
    ) -> Result<(), TestCaseError> {
        if self.carriers_own.contains(&number) {
            return Ok(());
        }
        let (pending, named) = (call(number), call(name));
        let rooms = self.rooms_with_agent(number);
        let state = state(&rooms);
        self.tickets += 1;
        let ticket = format!("picked-up-{}", self.tickets);
        let request = Request {
            call: &named,
            rooms: &rooms,
            lease: SETUP,
        };
        let (agent, budget) = self.agent(number);
        let pick_up = PickUp {
            pending: &pending,
            ticket: &ticket,
            state: &state,
            agent: budget.dials.is_some().then_some(&agent),
            dials,
        };
        let store = self.house.store(replica);
        let picked_up = store.pick_up(self.house.now, &request, &pick_up).await;
        let picked_up = picked_up.unwrap();
        let mut given = 0;
        if let PickedUp::Waits { epoch, .. } = picked_up {
            given = self.newer(epoch)?;
        }
        let by = self.name(replica);
        let expected = self.model.pick_up(&by, &request, &pick_up, given);
        prop_assert_eq!(&picked_up, &expected);
        match picked_up {
            PickedUp::Waits { epoch, .. } => {
                self.forget(replica, &pending);
                self.believe(replica, &named, epoch, &rooms, false);
            }
            PickedUp::Refused(_) => {
                let look = self.house.pass(0);
                let (before, after) = (self.last.without_decisions(), look.without_decisions());
                prop_assert_eq!(before, after, "a refusal leaves a trace");
            }
            PickedUp::Repeated(_) | PickedUp::Ended => {}
        }
        Ok(())
    }

    pub(super) async fn sweep(&mut self) -> Result<(), TestCaseError> {
        if let Store::Redis(store) = self.house.store(0) {
            let swept = store.reap(&all_scopes()).await.unwrap();
            prop_assert_eq!(swept, self.model.sweep());
        }
        Ok(())
    }
}
