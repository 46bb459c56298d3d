//! Histories: what several replicas may do to a store, in any order, and what must come of it.

use std::collections::{HashMap, HashSet};

use proptest::{collection::vec as vec_of, prelude::*, sample::select, test_runner::TestCaseError};

use super::{
    house::{House, Look, SLACK, replica_name},
    model::Model,
    *,
};

pub const REPLICAS: usize = 3;
const CALLS: u32 = 8;
/// How long a call that was placed may ring.
const RING: Millis = 45_000;
/// Times to pass that come no nearer than 300 ms to any time after which a shared store forgets
/// something: its clock goes on while operations run.
const CLEAR_OF_LIMITS: Millis = 1_700;

/// Caps, reserves, and whether most calls have brought no media lately.
#[derive(Debug, Clone)]
pub struct Setting {
    global: u32,
    setup: u32,
    tenants: [u32; 2],
    campaign: u32,
    /// Slots that the second tenant has for its own.
    kept_for_tenant: u32,
    /// Slots of the first tenant that its campaign has for its own.
    kept_for_campaign: u32,
    flooded: bool,
    /// What the two agents may be asked for that have a budget.
    budgets: [Budget; 2],
}

#[derive(Debug, Clone)]
pub enum Step {
    Acquire {
        replica: usize,
        call: u32,
        /// Whether the agent is dialed at once.
        dials: bool,
    },
    /// A slot is taken for a call that is about to be placed.
    Reserve {
        replica: usize,
        call: u32,
    },
    /// Somebody picks up a call that was placed, by the name that its carrier has for it.
    PickUp {
        replica: usize,
        call: u32,
        name: u32,
        dials: bool,
    },
    Adopt {
        replica: usize,
        call: u32,
        nonce: u32,
    },
    /// A call comes in while its replica is without the store, with its media or before it; maybe
    /// the store was asked, and answered when nobody waited any more.
    AdmitWithout {
        replica: usize,
        call: u32,
        has_media: bool,
        unheard: bool,
    },
    /// A call is refused while its replica is without the store, which is told afterwards.
    RefuseWithout {
        replica: usize,
        call: u32,
        unheard: bool,
    },
    /// Renews those of the replica's calls whose bit is set.
    Renew {
        replica: usize,
        calls: u8,
        was_away: bool,
        places: Option<u32>,
    },
    /// Gives back what the replica last had of a call, be it still the replica's or not.
    Release {
        replica: usize,
        call: u32,
        forever: bool,
    },
    /// Its carrier says that it is over, perhaps once more.
    End {
        replica: usize,
        call: u32,
    },
    Rebind {
        replica: usize,
        call: u32,
        name: u32,
    },
    /// A replica tells of an agent.
    Report {
        replica: usize,
        agent: usize,
        tokens: u32,
        rest: Rest,
        /// A call for which it has dialed.
        dialed: Option<u32>,
    },
    Pass(Millis),
    /// An operator has what has lapsed swept up.
    Sweep,
    /// The replica dies, with it the knowledge of its calls, and another takes its place.
    Crash(usize),
    Lose,
}

pub fn any_setting() -> impl Strategy<Value = Setting> {
    let caps = (1..6_u32, 1..5_u32, [1..5_u32, 1..5_u32], 1..4_u32);
    let reserves = (0..3_u32, 0..3_u32, prop::bool::weighted(0.1));
    let some = |most| prop::option::weighted(0.7, 1..most);
    let budget = move || (some(4_u32), some(5_u32), some(12_u32));
    let budget = move || {
        budget().prop_map(|(sessions, dials, tokens)| Budget {
            sessions,
            dials,
            tokens,
        })
    };
    let all = (caps, reserves, [budget(), budget()]);
    all.prop_map(
        |((global, setup, tenants, campaign), reserves, budgets)| Setting {
            budgets,
            global,
            setup,
            tenants,
            campaign,
            kept_for_tenant: reserves.0,
            kept_for_campaign: reserves.1,
            flooded: reserves.2,
        },
    )
}

/// Steps among several replicas over a store that they share.
pub fn any_shared_history() -> impl Strategy<Value = Vec<Step>> {
    let refused = (0..REPLICAS, 0..CALLS, any::<bool>());
    let refused = refused.prop_map(|(replica, call, unheard)| Step::RefuseWithout {
        replica,
        call,
        unheard,
    });
    let times = [1, 2, 4, 5, 8, 12, 18, 19, 36, 2_200];
    let pass = select(
        times
            .map(|times| Step::Pass(times * CLEAR_OF_LIMITS))
            .to_vec(),
    );
    let without = (0..REPLICAS, 0..CALLS, any::<bool>(), any::<bool>());
    let without = without.prop_map(|(replica, call, has_media, unheard)| Step::AdmitWithout {
        replica,
        call,
        has_media,
        unheard,
    });
    vec_of(
        prop_oneof![24 => any_step(), 5 => pass, 2 => without, 1 => refused, 1 => Just(Step::Sweep)],
        0..60,
    )
}

/// Steps in one process, whose time is exact.
pub fn any_history() -> impl Strategy<Value = Vec<Step>> {
    let limits = [SETUP, LEASE, 60_000, 3_600_000];
    let near = limits.into_iter().flat_map(|at| [at - 1, at, at + 1]);
    let pass = prop_oneof![4 => 0..25_000_u64, 1 => select(near.collect::<Vec<_>>())];
    vec_of(
        prop_oneof![24 => any_step(), 5 => pass.prop_map(Step::Pass)],
        0..60,
    )
}

fn any_step() -> impl Strategy<Value = Step> {
    let (replica, call) = (|| 0..REPLICAS, || 0..CALLS);
    let acquire = (replica(), call(), prop::bool::weighted(0.7));
    let acquire = acquire.prop_map(|(replica, call, dials)| Step::Acquire {
        replica,
        call,
        dials,
    });
    let rest = prop_oneof![3 => Just(Rest::No), 1 => Just(Rest::For(2_000)), 1 => Just(Rest::Over)];
    let told = (0..8_u32, rest, prop::option::weighted(0.2, call()));
    let report = (replica(), 0..2_usize, told);
    let report = report.prop_map(|(replica, agent, (tokens, rest, dialed))| Step::Report {
        replica,
        agent,
        tokens,
        rest,
        dialed,
    });
    let adopt = (replica(), call(), 0..3_u32).prop_map(|(replica, call, nonce)| Step::Adopt {
        replica,
        call,
        nonce,
    });
    let renew = (
        replica(),
        prop_oneof![3 => Just(u8::MAX), 1 => any::<u8>()],
        prop::bool::weighted(0.1),
        prop::option::weighted(0.8, 0..5_u32),
    );
    let renew = renew.prop_map(|(replica, calls, was_away, places)| Step::Renew {
        replica,
        calls,
        was_away,
        places,
    });
    let release = (replica(), call(), any::<bool>());
    let release = release.prop_map(|(replica, call, forever)| Step::Release {
        replica,
        call,
        forever,
    });
    // A name that others use, or one that nobody does; a call counts in the same scopes by it.
    let rebind = (replica(), call(), any::<bool>());
    let end = (replica(), call()).prop_map(|(replica, call)| Step::End { replica, call });
    let rebind = rebind.prop_map(|(replica, call, is_new)| Step::Rebind {
        replica,
        call,
        name: if is_new {
            call + CALLS
        } else {
            (call + 4) % CALLS
        },
    });
    let reserve = (replica(), call()).prop_map(|(replica, call)| Step::Reserve { replica, call });
    let pick_up = (replica(), call(), any::<bool>(), any::<bool>());
    // Its carrier may have told the name before.
    let pick_up = pick_up.prop_map(|(replica, call, is_known, dials)| Step::PickUp {
        replica,
        call,
        name: call + if is_known { CALLS } else { 2 * CALLS },
        dials,
    });
    prop_oneof![
        8 => acquire,
        5 => adopt,
        6 => renew,
        3 => release,
        2 => end,
        2 => rebind,
        4 => reserve,
        3 => pick_up,
        2 => report,
        1 => replica().prop_map(Step::Crash),
        1 => Just(Step::Lose),
    ]
}

/// A history under way: a store, what it is to answer, and what the replicas believe.
pub struct Play<'a> {
    house: &'a mut House,
    model: Model,
    setting: Setting,
    replicas: [Replica; REPLICAS],
    last: Look,
    tickets: u32,
    /// Which of its choices each call was last given.
    given: HashMap<CarrierCallId, usize>,
    /// Names that a carrier has given: of calls that some replica has let in without the store, and
    /// those that a call was bound to. Nobody picks them up, because a call that we place has a name
    /// that no carrier gives.
    carriers_own: HashSet<u32>,
}

#[derive(Debug, Clone, Default)]
struct Replica {
    crashes: u32,
    calls: Vec<Believed>,
    /// What it has ever had.
    had: Vec<Lease>,
}

/// What a replica believes of one of its calls.
#[derive(Debug, Clone)]
struct Believed {
    claim: Claim,
    /// Until when its media may come.
    until: Option<Millis>,
}

/// Plays a history to its end, or to where this machine was too slow for it.
pub async fn play(
    house: &mut House,
    setting: &Setting,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    house.begin();
    let last = house.pass(0);
    let mut play = Play {
        model: Model::new(house.is_shared()),
        house,
        setting: setting.clone(),
        replicas: Default::default(),
        last,
        tickets: 0,
        given: HashMap::new(),
        carriers_own: HashSet::new(),
    };
    let first = Step::Renew {
        replica: 0,
        calls: 0,
        was_away: false,
        places: None,
    };
    // A shared store decides nothing before a replica has renewed, and the gate is gone.
    let mut before = vec![first.clone(), Step::Pass(2 * CLEAR_OF_LIMITS)];
    for flood in 0..if setting.flooded { 60 } else { 0 } {
        let call = 1_000 + flood;
        before.push(Step::Acquire {
            replica: 0,
            call,
            dials: true,
        });
        before.push(Step::Pass(12 * CLEAR_OF_LIMITS));
        before.push(first.clone());
        before.push(Step::Crash(0));
    }
    for step in before.iter().chain(steps) {
        if !play.step(step).await? {
            break;
        }
    }
    Ok(())
}

impl Play<'_> {
    /// Takes a step; tells whether it was quick enough to be followed by another.
    async fn step(&mut self, step: &Step) -> Result<bool, TestCaseError> {
        let by = if let Step::Pass(by) = step { *by } else { 0 };
        self.model.pass(by);
        self.last = self.house.pass(by);
        let mut outcome = self.act(step).await;
        if outcome.is_ok() {
            outcome = self.ask_of_agents().await;
        }
        self.model.pass(self.house.now - self.model.now);
        let look = self.house.pass(0);
        if self.house.slowest > SLACK {
            return Ok(false);
        }
        outcome.map_err(|error| TestCaseError::fail(format!("{step:?}: {error}")))?;
        for scope in all_scopes() {
            let (store, model) = (self.house.count_in(&look, &scope), self.model.count(&scope));
            prop_assert_eq!(store, model, "{} after {:?}", scope, step);
        }
        for key in &look.eternal {
            let may = matches!(key.as_str(), "calls:gen" | "calls:epoch");
            prop_assert!(may, "{} never expires after {:?}", key, step);
        }
        if let (Step::Renew { .. } | Step::Sweep, Some((active, count))) =
            (step, self.house.mirrors(&look))
        {
            prop_assert_eq!(&active, &self.model.live(), "the mirror");
            prop_assert_eq!(count, active.len().to_string(), "the mirrored count");
        }
        Ok(true)
    }

    async fn act(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Acquire {
                replica,
                call,
                dials,
            } => self.acquire(*replica, *call, *dials, false).await,
            Step::Reserve { replica, call } => self.acquire(*replica, *call, false, true).await,
            Step::PickUp {
                replica,
                call,
                name,
                dials,
            } => self.pick_up(*replica, *call, *name, *dials).await,
            Step::Adopt {
                replica,
                call,
                nonce,
            } => self.adopt(*replica, *call, *nonce).await,
            Step::AdmitWithout {
                replica,
                call,
                has_media,
                unheard,
            } => {
                if self.knows(*replica, *call) {
                    return Ok(()); // It remembers what it has decided.
                }
                if *unheard {
                    self.acquire(*replica, *call, true, false).await?;
                }
                let rooms = self.rooms_with_agent(*call);
                self.carriers_own.insert(*call);
                self.believe(*replica, &super::call(*call), 0, &rooms, *has_media);
                Ok(())
            }
            Step::RefuseWithout {
                replica,
                call,
                unheard,
            } => self.refuse_without(*replica, *call, *unheard).await,
            Step::Renew {
                replica,
                calls,
                was_away,
                places,
            } => self.renew(*replica, *calls, *was_away, *places).await,
            Step::Release {
                replica,
                call,
                forever,
            } => self.release(*replica, *call, *forever).await,
            Step::End { replica, call } => self.end(*replica, *call).await,
            Step::Rebind {
                replica,
                call,
                name,
            } => self.rebind(*replica, *call, *name).await,
            Step::Report {
                replica,
                agent,
                tokens,
                rest,
                dialed,
            } => {
                let dialed = dialed.map(|number| (super::call(number), 40_000));
                let report = AgentReport {
                    agent: agents()[*agent].clone(),
                    tokens: *tokens,
                    rest: *rest,
                    dials: dialed.into_iter().collect(),
                };
                self.report(*replica, report).await
            }
            Step::Pass(_) => Ok(()),
            Step::Sweep => self.sweep().await,
            Step::Crash(replica) => {
                let died = &mut self.replicas[*replica];
                *died = Replica {
                    crashes: died.crashes + 1,
                    ..Replica::default()
                };
                let name = self.name(*replica);
                self.house.rename(*replica, &name);
                Ok(())
            }
            Step::Lose => {
                self.house.lose(self.model.newest);
                self.model.lose();
                Ok(())
            }
        }
    }

    async fn acquire(
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

    async fn report(&mut self, replica: usize, report: AgentReport) -> Result<(), TestCaseError> {
        let store = self.house.store(replica);
        let reports = [report];
        let used = store.report(self.house.now, &reports).await.unwrap();
        let name = self.name(replica);
        let expected = self.model.report(&name, &reports[0]);
        prop_assert_eq!(as_told(&used), [expected]);
        Ok(())
    }

    /// Compares what is known of all agents.
    async fn ask_of_agents(&self) -> Result<(), TestCaseError> {
        let questions = agents().map(AgentReport::question);
        let store = self.house.store(0);
        let used = store.report(self.house.now, &questions).await.unwrap();
        let expected = agents().map(|agent| self.model.asked_of(&agent));
        prop_assert_eq!(as_told(&used), expected);
        Ok(())
    }

    async fn adopt(
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

    async fn refuse_without(
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

    async fn renew(
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

    async fn release(
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

    async fn end(&mut self, replica: usize, number: u32) -> Result<(), TestCaseError> {
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

    async fn rebind(
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

    async fn pick_up(
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

    async fn sweep(&mut self) -> Result<(), TestCaseError> {
        if let Store::Redis(store) = self.house.store(0) {
            let swept = store.reap(&all_scopes()).await.unwrap();
            prop_assert_eq!(swept, self.model.sweep());
        }
        Ok(())
    }

    /// Checks that an epoch is higher than any before it.
    fn newer(&mut self, epoch: u64) -> Result<u64, TestCaseError> {
        prop_assert!(epoch > self.model.newest, "epoch {} goes backwards", epoch);
        Ok(epoch)
    }

    fn believe(
        &mut self,
        replica: usize,
        call: &CarrierCallId,
        epoch: u64,
        rooms: &[Room],
        has_media: bool,
    ) {
        self.forget(replica, call);
        let scopes = rooms.iter().map(|room| room.scope.clone());
        let claim = Claim {
            lease: lease(call, epoch),
            scopes: scopes.filter(|scope| scope.counts(has_media)).collect(),
            lasts: LEASE,
            has_media,
            state: Some(state(rooms)),
            ticket: (epoch == 0).then(|| format!("ticket-of-{call}")),
        };
        let rings = !has_media && !claim.scopes.contains(&Scope::Setup);
        let patience = if rings { RING } else { SETUP };
        let until = (!has_media).then_some(self.house.now + patience);
        let Replica { calls, had, .. } = &mut self.replicas[replica];
        had.push(claim.lease.clone());
        calls.push(Believed { claim, until });
    }

    fn forget(&mut self, replica: usize, call: &CarrierCallId) {
        let calls = &mut self.replicas[replica].calls;
        calls.retain(|it| it.claim.lease.call != *call);
    }

    fn knows(&self, replica: usize, number: u32) -> bool {
        let call = call(number);
        let mut known = self.replicas[replica].calls.iter();
        known.any(|it| it.claim.lease.call == call)
    }

    fn name(&self, replica: usize) -> String {
        replica_name(replica, self.replicas[replica].crashes)
    }

    /// Returns the agents that a call may have: some have no budget, and some calls a second one.
    fn choices(&self, call: u32) -> Vec<(Name, Budget)> {
        let [eager, patient] = agents();
        let [first, second] = self.setting.budgets;
        match call % 3 {
            0 => vec![(name("tireless"), Budget::default())],
            1 => vec![(eager, first)],
            _ => vec![(eager, first), (patient, second)],
        }
    }

    /// Returns the agent that a call has.
    fn agent(&self, number: u32) -> (Name, Budget) {
        let given = self.given.get(&call(number)).copied();
        self.choices(number).swap_remove(given.unwrap_or(0))
    }

    fn rooms_with_agent(&self, number: u32) -> Vec<Room> {
        let (agent, budget) = self.agent(number);
        let mut rooms = self.rooms(number);
        if budget != Budget::default() {
            let cap = budget.sessions.unwrap_or(u32::MAX);
            rooms.push(Room::new(Scope::Agent(agent), cap));
        }
        rooms
    }

    /// Returns what a call needs: even ones are the first tenant's, and every other of those its
    /// campaign's; every other odd one is placed by us.
    fn rooms(&self, call: u32) -> Vec<Room> {
        let caps = &self.setting;
        let [global, setup, first, second, campaign, ..] = all_scopes();
        let setup = Room::new(setup, caps.setup);
        let mut global = Room::new(global, caps.global);
        if !call.is_multiple_of(2) {
            let mut rooms = vec![global, setup, Room::new(second, caps.tenants[1])];
            rooms.extend((call % 4 == 3).then(|| Room::new(Scope::Outbound, 2)));
            return rooms;
        }
        global.reserves.push((second, caps.kept_for_tenant));
        let mut tenant = Room::new(first, caps.tenants[0]);
        if call.is_multiple_of(4) {
            let campaign = Room::new(campaign, caps.campaign);
            return vec![global, setup, tenant, campaign];
        }
        tenant.reserves.push((campaign, caps.kept_for_campaign));
        vec![global, setup, tenant]
    }
}

fn agents() -> [Name; 2] {
    ["eager", "patient"].map(name)
}

/// Returns what was told of agents, where it does not matter for how long they rest.
fn as_told(used: &[AgentUse]) -> Vec<AgentUse> {
    let used = used.iter().map(|used| AgentUse {
        rests: u64::from(used.rests > 0),
        ..*used
    });
    used.collect()
}

fn all_scopes() -> [Scope; 8] {
    let [eager, patient] = agents().map(Scope::Agent);
    [
        Scope::Global,
        Scope::Setup,
        Scope::Tenant(name("first")),
        Scope::Tenant(name("second")),
        Scope::Campaign(name("third")),
        eager,
        patient,
        Scope::Outbound,
    ]
}
