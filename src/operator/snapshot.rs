//! All replicas at a moment, as a dashboard shows them: one value, made in one place.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    event::Standing,
    gateway::Gateway,
    operator::{
        history::{SAMPLES, Sample},
        outlook::{Costs, Forecast},
        view::{AgentView, LiveCall, RecordsView, StoreView, View},
    },
    telemetry::Tally,
};

/// How many live calls are shown.
const MOST_CALLS: usize = 100;

/// All replicas at a moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    /// Calls that hold a slot, of all replicas, and how many may.
    pub live: u32,
    pub cap: u32,
    pub intake_stopped: bool,
    /// Whether replicas share their slots.
    pub is_shared: bool,
    /// How the store lets this replica down, if it does.
    pub store: Option<StoreView>,
    pub store_flaws: Vec<String>,
    pub caps: Vec<Cap>,
    pub replicas: Vec<Replica>,
    /// Those that are live for longest first.
    pub calls: Vec<ShownCall>,
    /// How many more there are.
    pub calls_unshown: usize,
    pub agents: Vec<AgentView>,
    pub endpoints: Vec<Endpoint>,
    pub records: RecordsView,
    /// What has come in the last ten minutes.
    pub lately: Tally,
    /// How many of Twilio, ACS and browsers may call.
    pub ways_in: usize,
    /// How many replicas there should be at least.
    pub least_replicas: u32,
    /// How far this replica's clock is ahead of the store's, in seconds.
    pub clock_skew: f64,
    /// The last hour, the newest first; blank where nobody has seen it.
    #[serde(skip)]
    pub history: Vec<Sample>,
    /// Whether what is said is kept, and so shown.
    pub has_words: bool,
    /// What is to come in each scope; nothing before anybody has asked.
    pub forecast: Forecast,
    /// What calls cost; `None` while the database does not tell.
    pub costs: Option<Costs>,
}

/// How much of a cap is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cap {
    pub scope: String,
    pub used: u32,
    pub most: u32,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replica {
    pub name: String,
    /// Whether it is the one that shows all this.
    pub is_here: bool,
    /// Whether it has shown itself.
    pub is_seen: bool,
    pub draining: bool,
    pub connections: usize,
    pub places: usize,
    pub version: String,
}

/// A live call, and which replica carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownCall {
    pub replica: String,
    #[serde(flatten)]
    pub call: LiveCall,
}

/// How an endpoint's deliveries stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    pub tenant: String,
    pub name: String,
    pub waiting: u64,
    pub oldest_s: u64,
    pub dead: u64,
}

impl Snapshot {
    /// Puts what `gateway` knows together with what the `others` show.
    pub fn of(gateway: &Gateway, mine: View, others: Vec<(String, Option<View>)>) -> Self {
        let room = gateway.admission.occupancy();
        let campaigns = gateway.campaigns.current();
        let caps = gateway.admission.usage(&campaigns).into_iter();
        let caps = caps.map(|(scope, used, most)| Cap {
            scope: scope.to_string(),
            used,
            most,
        });
        let blank = Self {
            live: room.active,
            cap: room.cap,
            intake_stopped: gateway.desk.stops_intake(),
            is_shared: gateway.admission.is_shared(),
            store: mine.store.clone(),
            store_flaws: gateway.store_flaws(),
            ways_in: [
                gateway.twilio.is_open(),
                gateway.acs.is_some(),
                gateway.web.open,
            ]
            .iter()
            .filter(|is_open| **is_open)
            .count(),
            least_replicas: gateway.admission.least_replicas(),
            clock_skew: gateway.admission.clock_skew(),
            caps: caps.collect(),
            endpoints: gateway
                .deliveries
                .standing()
                .into_iter()
                .map(Endpoint::from)
                .collect(),
            has_words: gateway.timeline.keeps_words(),
            ..Self::default()
        };
        blank.with(gateway.admission.replica(), mine, others)
    }

    /// Adds what replicas show: `here` the one that asks, and the others.
    fn with(mut self, here: &str, mine: View, others: Vec<(String, Option<View>)>) -> Self {
        let others = others.into_iter().filter(|(name, _)| name != here);
        let mut all = vec![(here.to_owned(), Some(mine))];
        all.extend(others);
        let mut agents: BTreeMap<String, AgentView> = BTreeMap::new();
        for (name, view) in all {
            let view = view.as_ref();
            self.replicas.push(Replica {
                is_here: name == here,
                is_seen: view.is_some(),
                draining: view.is_some_and(|view| view.draining),
                connections: view.map_or(0, |view| view.connections),
                places: view.map_or(0, |view| view.places),
                version: view.map_or_else(String::new, |view| view.version.clone()),
                name: name.clone(),
            });
            let Some(view) = view else { continue };
            self.calls_unshown += view.connections.saturating_sub(view.calls.len());
            self.calls.extend(view.calls.iter().map(|call| ShownCall {
                replica: name.clone(),
                call: call.clone(),
            }));
            for agent in &view.agents {
                match agents.get_mut(&agent.name) {
                    Some(known) => known.learn(agent),
                    None => drop(agents.insert(agent.name.clone(), agent.clone())),
                }
            }
            self.records.learn(&view.records);
            self.lately = self.lately.and(view.lately);
            self.remember(view);
        }
        self.replicas
            .sort_by(|one, other| one.name.cmp(&other.name));
        self.calls
            .sort_by_key(|shown| std::cmp::Reverse(shown.call.age_s));
        self.calls_unshown += self.calls.len().saturating_sub(MOST_CALLS);
        self.calls.truncate(MOST_CALLS);
        self.agents = agents.into_values().collect();
        self
    }

    /// Takes in the hour that a replica has seen: all see the same calls, and each its own
    /// refusals.
    fn remember(&mut self, view: &View) {
        let seen = view.live.iter().zip(&view.refused).take(SAMPLES);
        for (at, (live, refused)) in seen.enumerate() {
            if at == self.history.len() {
                self.history.push(Sample::default());
            }
            let sample = &mut self.history[at];
            sample.live = sample.live.max(*live);
            sample.refused = sample.refused.saturating_add(*refused);
        }
    }
}

impl AgentView {
    /// Takes in what another replica knows of the same agent: the worse of both.
    fn learn(&mut self, other: &Self) {
        self.resting |= other.resting;
        let (ours, theirs) = (&mut self.health, &other.health);
        ours.tries += theirs.tries;
        ours.failures += theirs.failures;
        ours.connect_ms = ours.connect_ms.max(theirs.connect_ms);
        ours.first_words_ms = ours.first_words_ms.max(theirs.first_words_ms);
        let last = |failed: &Option<(String, u64)>| failed.as_ref().map_or(u64::MAX, |it| it.1);
        if last(&theirs.failed) < last(&ours.failed) {
            ours.failed.clone_from(&theirs.failed);
        }
    }
}

impl RecordsView {
    /// Takes in how another replica's writing stands.
    fn learn(&mut self, other: &Self) {
        self.waiting += other.waiting;
        self.dropped += other.dropped;
        self.refused += other.refused;
        if other.failing.is_some() && other.failing_for_s >= self.failing_for_s {
            self.failing.clone_from(&other.failing);
            self.failing_for_s = other.failing_for_s;
        }
    }
}

impl From<Standing> for Endpoint {
    fn from(standing: Standing) -> Self {
        Self {
            tenant: standing.tenant,
            name: standing.endpoint,
            waiting: standing.waiting,
            oldest_s: standing.oldest.as_secs(),
            dead: standing.dead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::AgentHealth;

    fn call(name: &str, age_s: u64) -> LiveCall {
        LiveCall {
            call: name.to_owned(),
            carrier: "twilio".to_owned(),
            campaign: "sales".to_owned(),
            caller: "+9*******4567".to_owned(),
            age_s,
            has_agent: true,
            caller_level: 0,
            agent_level: 0,
            words: None,
        }
    }

    fn view(calls: Vec<LiveCall>, live: &[u32], refused: &[u32], connect_ms: u32) -> View {
        View {
            version: "1".to_owned(),
            draining: false,
            connections: calls.len(),
            places: 100,
            calls,
            agents: vec![AgentView {
                name: "default".to_owned(),
                kind: "openai".to_owned(),
                resting: false,
                health: AgentHealth {
                    tries: 2,
                    failures: 1,
                    connect_ms: Some(connect_ms),
                    first_words_ms: None,
                    failed: Some(("agent_refused".to_owned(), u64::from(connect_ms))),
                },
                budgets: Vec::new(),
            }],
            records: RecordsView {
                waiting: 3,
                ..RecordsView::default()
            },
            lately: Tally {
                unsigned: 2,
                ..Tally::default()
            },
            store: None,
            live: live.to_vec(),
            refused: refused.to_vec(),
        }
    }

    #[test]
    fn replicas_are_put_together() {
        let mine = view(vec![call("a", 10), call("b", 30)], &[4, 2], &[1, 0], 40);
        let theirs = view(vec![call("c", 20)], &[3, 5, 6], &[2, 0, 1], 90);
        let others = vec![
            ("r1".to_owned(), None),
            ("r0".to_owned(), Some(theirs)),
            ("r2".to_owned(), None),
        ];
        let snapshot = Snapshot::default().with("r1", mine, others);
        let calls = snapshot.calls.iter();
        let calls: Vec<_> = calls
            .map(|it| (it.replica.as_str(), it.call.call.as_str()))
            .collect();
        assert_eq!(calls, [("r1", "b"), ("r0", "c"), ("r1", "a")]);
        let sample = |live, refused| Sample { live, refused };
        assert_eq!(snapshot.history, [sample(4, 3), sample(5, 0), sample(6, 1)]);
        let replicas = snapshot.replicas.iter();
        let replicas: Vec<_> = replicas
            .map(|it| (it.name.as_str(), it.is_here, it.is_seen))
            .collect();
        assert_eq!(
            replicas,
            [
                ("r0", false, true),
                ("r1", true, true),
                ("r2", false, false)
            ]
        );
        let health = &snapshot.agents[0].health;
        assert_eq!(
            (health.tries, health.failures, health.connect_ms),
            (4, 2, Some(90))
        );
        assert_eq!(health.failed, Some(("agent_refused".to_owned(), 40)));
        assert_eq!(snapshot.records.waiting, 6);
        assert_eq!(snapshot.lately.unsigned, 4);
    }

    #[test]
    fn no_more_calls_are_shown_than_a_page_bears() {
        let many = (0..150).map(|age| call("a", age)).collect();
        let snapshot = Snapshot::default().with("r1", view(many, &[], &[], 1), Vec::new());
        assert_eq!((snapshot.calls.len(), snapshot.calls_unshown), (100, 50));
    }
}
