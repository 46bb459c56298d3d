//! What one replica shows of itself: to its own dashboard, and through the store to the others'.
//!
//! Invariant: it is of bounded size, whatever callers do.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    admission::Trouble, agent::AgentHealth, connections::Live, gateway::Gateway,
    operator::history::Sample, record::Standing, telemetry::Tally,
};

/// How many live calls, and how many agents, a replica shows.
const MOST_CALLS: usize = 50;
const MOST_AGENTS: usize = 32;
/// How much of why the database fails is shown, in characters.
const MOST_OF_A_REASON: usize = 200;

/// One replica at a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct View {
    pub version: String,
    pub draining: bool,
    /// Media sockets, and how many there may be.
    pub connections: usize,
    pub places: usize,
    pub calls: Vec<LiveCall>,
    pub agents: Vec<AgentView>,
    pub records: RecordsView,
    /// What has come in the last ten minutes.
    #[serde(default)]
    pub lately: Tally,
    /// How the store lets it down, if it does.
    pub store: Option<StoreView>,
    /// The last hour, the newest first: live calls of all replicas, and those that this one refused.
    pub live: Vec<u32>,
    pub refused: Vec<u32>,
}

/// A live call at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveCall {
    pub call: String,
    pub carrier: String,
    pub campaign: String,
    /// Masked.
    pub caller: String,
    pub age_s: u64,
    pub has_agent: bool,
    /// Of 0 to 100.
    pub caller_level: u32,
    pub agent_level: u32,
    /// Who said the last words, and what; not where words are not kept.
    pub words: Option<(String, String)>,
}

/// An agent, as one replica knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    pub name: String,
    pub kind: String,
    pub resting: bool,
    pub health: AgentHealth,
    /// What is used of its budgets by all replicas: which, how much, of how much.
    pub budgets: Vec<(String, u32, u32)>,
}

/// How one replica's writing of records stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordsView {
    pub waiting: usize,
    pub dropped: u64,
    pub refused: u64,
    pub failing: Option<String>,
    pub failing_for_s: u64,
}

/// How the store lets a replica down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreView {
    /// Whether it answers, and may not know all calls yet.
    pub answers: bool,
    pub for_s: u64,
    /// How many more calls this replica admits by itself; `None` where there is no bound.
    pub more: Option<u32>,
}

impl View {
    /// Looks at this replica.
    pub fn of(gateway: &Gateway) -> Self {
        let history = gateway.desk.history();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            draining: gateway.is_draining(),
            connections: gateway.connections.count(),
            places: gateway.connections.most(),
            calls: calls(gateway),
            agents: agents(gateway),
            records: RecordsView::from(gateway.records.standing()),
            lately: gateway.desk.lately(),
            store: store(gateway),
            live: history.iter().map(|sample: &Sample| sample.live).collect(),
            refused: history.iter().map(|sample| sample.refused).collect(),
        }
    }
}

fn calls(gateway: &Gateway) -> Vec<LiveCall> {
    let now = Timestamp::now();
    let live = gateway.connections.live(MOST_CALLS).into_iter();
    let shown = live.map(
        |Live {
             brought,
             connected_at,
             reading,
         }| LiveCall {
            call: brought.call_id.to_string(),
            carrier: brought.call.carrier().as_str().to_owned(),
            campaign: brought.campaign.to_string(),
            caller: brought.caller.to_string(),
            age_s: u64::try_from(now.duration_since(connected_at).as_secs()).unwrap_or(0),
            has_agent: reading.has_agent,
            caller_level: reading.caller_level,
            agent_level: reading.agent_level,
            words: reading
                .words
                .map(|(who, text)| (who.as_str().to_owned(), text)),
        },
    );
    shown.collect()
}

fn agents(gateway: &Gateway) -> Vec<AgentView> {
    let (agents, campaigns) = (gateway.campaigns.agents(), gateway.campaigns.current());
    let shown = agents.all().take(MOST_AGENTS).map(|agent| {
        let budgets = gateway.admission.budgets_of(agent.name(), &campaigns);
        let budgets = budgets.into_iter();
        AgentView {
            name: agent.name().to_string(),
            kind: agent.kind().as_str().to_owned(),
            resting: agent.is_resting() || gateway.admission.asked_of(agent.name()).rests > 0,
            health: agent.health().standing(),
            budgets: budgets
                .map(|(name, used, cap)| (name.to_owned(), used, cap))
                .collect(),
        }
    });
    let mut shown: Vec<AgentView> = shown.collect();
    shown.sort_by(|one, other| one.name.cmp(&other.name));
    shown
}

fn store(gateway: &Gateway) -> Option<StoreView> {
    let admission = &gateway.admission;
    let trouble = admission.trouble()?;
    Some(StoreView {
        answers: trouble == Trouble::Gated,
        for_s: admission.troubled_for().unwrap_or_default().as_secs(),
        more: admission.admits_alone(&gateway.campaigns.current()),
    })
}

impl From<Standing> for RecordsView {
    fn from(standing: Standing) -> Self {
        let why = standing.failing;
        Self {
            waiting: standing.waiting,
            dropped: standing.dropped,
            refused: standing.refused,
            failing: why.map(|why| why.chars().take(MOST_OF_A_REASON).collect()),
            failing_for_s: standing.failing_for.unwrap_or_default().as_secs(),
        }
    }
}
