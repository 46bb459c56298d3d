//! Histories: what several replicas may do to a store, in any order, and what must come of it.

mod acts;
mod steps;

use std::collections::{HashMap, HashSet};

use proptest::{prelude::*, test_runner::TestCaseError};

use super::{
    house::{House, Look, SLACK, replica_name},
    model::Model,
    *,
};

use self::steps::CLEAR_OF_LIMITS;
pub use self::steps::{Setting, Step, any_history, any_setting, any_shared_history};

pub const REPLICAS: usize = 3;
/// How long a call that was placed may ring.
const RING: Millis = 45_000;
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
            Step::Written { replica, call } => {
                let call = super::call(*call);
                let store = self.house.store(*replica);
                store.written(std::slice::from_ref(&call)).await.unwrap();
                self.model.written(&call);
                Ok(())
            }
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
