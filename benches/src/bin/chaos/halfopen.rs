//! R19: how long the slots of calls stay taken whose carrier or agent has vanished.
//!
//! Calls talk by nginx, each with an agent in a process of its own. Then every packet of one side is
//! dropped: no FIN, no RST, no webhook. Other calls, of other addresses, go on beside them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use callgate_benches::carrier::Ending;
use callgate_benches::cluster::{Cluster, Parrot, Redis};
use callgate_benches::twilio::Answer;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::lab::{Lab, Verdict, conclude};
use crate::life::sid;
use crate::namespace::{self, Network};
use crate::statistics::{Latencies, rounded};

const GOAL: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);
/// How long calls may take until they talk, and callers until they hear why they do not.
const PATIENCE: Duration = Duration::from_secs(15);
/// Longer than any call here.
const LONG: Duration = Duration::from_secs(600);

/// Where the media of a carrier come from that will vanish.
const CARRIER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Where an agent is that will vanish.
const AGENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Whoever dials this gets that agent.
const ITS_NUMBER: &str = "+15550000003";
/// Where all agents listen: in a network of its own no port is taken.
const AGENTS_PORT: u16 = 5051;

/// Who vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Carrier,
    Agent,
}

impl Side {
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Carrier => CARRIER,
            Self::Agent => AGENT,
        }
    }
}

/// Calls of which the same side vanishes, or none.
struct Group {
    vanishes: Option<Side>,
    sids: HashSet<String>,
    /// Each is over when its media socket is, with what the caller is told then.
    talking: JoinSet<Option<Answer>>,
}

/// What became of the calls of a side that has vanished.
struct Vanished {
    side: Side,
    calls: usize,
    /// From the cut to the slot's absence, of those that came free.
    free: Vec<Duration>,
    /// How many media sockets closed.
    closed: usize,
    /// How many callers were told something.
    told: usize,
    reasons: BTreeMap<String, usize>,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let Some(outside) = &lab.outside else {
        return namespace::repeat(lab, "halfopen").await;
    };
    let network = Network::enter(outside)?;
    let directory = TempDir::with_prefix("callgate-halfopen-")?;
    let calls = lab.or_short(50, 10);
    let config = directory.path().join("campaigns.toml");
    fs::write(&config, campaigns(calls))?;
    // One process is the agent of all calls, and listens on every address.
    let mut agents = Parrot::at((Ipv4Addr::UNSPECIFIED, AGENTS_PORT).into());
    let at_once = ["--answer-after-ms", "0"];
    agents
        .start(&lab.gateway, directory.path(), &at_once)
        .await?;
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", calls * 3)
        .set("MAX_CALLS_PER_TENANT", calls * 3)
        .set("CALLGATE_CONFIG", config.display());
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(lab, &cluster, &network, calls).await;
    conclude(&mut cluster, measured)
}

/// Describes two agents, which differ by their address alone.
fn campaigns(calls: usize) -> String {
    let agent = |address| {
        format!(
            "kind = \"openai\"\nurl = \"ws://{address}:{AGENTS_PORT}/v1/realtime\"\napi_key = \"any\""
        )
    };
    format!(
        "default_campaign = \"stays\"\n\
         [agents.stays]\n{}\n[agents.vanishes]\n{}\n\
         [campaigns.stays]\nagent = \"stays\"\nmax_calls = {}\n\
         [campaigns.vanishes]\nagent = \"vanishes\"\nnumbers = [\"{ITS_NUMBER}\"]\nmax_calls = {calls}\n",
        agent(Ipv4Addr::LOCALHOST),
        agent(AGENT),
        calls * 2,
    )
}

async fn measure(
    lab: &Lab,
    cluster: &Cluster,
    network: &Network,
    calls: usize,
) -> anyhow::Result<Verdict> {
    let redis = cluster.redis.as_ref().context("no Redis")?;
    let mut random = lab.random("halfopen");
    let others = calls / 2;
    let mut groups = Vec::new();
    for (vanishes, calls) in [
        (Some(Side::Carrier), calls),
        (Some(Side::Agent), calls),
        (None, others),
    ] {
        groups.push(Group::start(cluster, vanishes, calls, &mut random).await?);
    }
    let turns = lab.or_short(
        vec![vec![Side::Carrier], vec![Side::Agent]],
        vec![vec![Side::Carrier, Side::Agent]],
    );
    let at_once = turns.len() == 1;
    let bar = lab.bar(turns.len() as u64, "halfopen");
    let (mut vanished, mut ended) = (Vec::new(), HashSet::new());
    for sides in turns {
        // At any moment between two pings, when no agent owes an answer: that would be noticed
        // sooner.
        sleep(Duration::from_millis(random.random_range(2_000..5_000))).await;
        let is_cut = |group: &Group| group.vanishes.is_some_and(|side| sides.contains(&side));
        let (cut, rest): (Vec<_>, Vec<_>) = groups.into_iter().partition(is_cut);
        groups = rest;
        let free = watch(redis, network, &cut, &groups, &mut ended).await?;
        for group in cut {
            if let Some(side) = group.vanishes {
                vanished.push(group.conclude(side, &free, redis).await?);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut closed = 0;
    for group in &mut groups {
        while group.talking.try_join_next().is_some() {
            closed += 1;
        }
    }
    let parameters = json!({
        "calls": calls, "others": others, "at_once": at_once, "goal_seconds": GOAL.as_secs(),
        "poll_ms": POLL.as_millis(), "replicas": cluster.replicas.len(),
    });
    Ok(Verdict {
        parameters,
        ..judge(&vanished, ended.len().max(closed))
    })
}

/// Cuts off the sides of some groups, and returns how long it took until Redis held each of their
/// slots no more. What it holds no more of the `others` goes to `ended`.
async fn watch(
    redis: &Redis,
    network: &Network,
    cut: &[Group],
    others: &[Group],
    ended: &mut HashSet<String>,
) -> anyhow::Result<HashMap<String, Duration>> {
    let mut free = HashMap::new();
    let began = Instant::now();
    for side in cut.iter().filter_map(|group| group.vanishes) {
        network.cut(side.address())?;
    }
    let mut polls = interval(POLL);
    // Twice the goal has failed as thoroughly as for ever.
    while free.len() < count(cut) && began.elapsed() < GOAL * 2 {
        polls.tick().await;
        let leased = redis.leased().await?;
        let gone = |sid: &&String| !leased.contains(*sid);
        for sid in cut.iter().flat_map(|group| &group.sids).filter(gone) {
            free.entry(sid.clone()).or_insert_with(|| began.elapsed());
        }
        let others = others.iter().flat_map(|group| &group.sids);
        ended.extend(others.filter(gone).cloned());
    }
    Ok(free)
}

fn count(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.sids.len()).sum()
}

impl Group {
    /// Starts calls, and waits until audio goes both ways in each.
    async fn start(
        cluster: &Cluster,
        vanishes: Option<Side>,
        calls: usize,
        random: &mut StdRng,
    ) -> anyhow::Result<Self> {
        let carrier = match vanishes {
            Some(Side::Carrier) => cluster.carrier().sending_from(CARRIER),
            Some(Side::Agent) => cluster.carrier().dialing(ITS_NUMBER),
            None => cluster.carrier(),
        };
        let carrier = Arc::new(carrier);
        let door = carrier.door();
        let (bridged, mut heard) = mpsc::unbounded_channel();
        let (mut sids, mut talking) = (HashSet::new(), JoinSet::new());
        for _ in 0..calls {
            let sid = sid(random);
            let rung = carrier.ring(door, &sid).await?;
            let Answer::Connect(stream) = rung.answer else {
                bail!("{sid} was not admitted: {:?}", rung.answer);
            };
            let mut media = carrier.open(&sid, &stream).await.context("no media")?;
            sids.insert(sid.clone());
            let (carrier, bridged) = (Arc::clone(&carrier), bridged.clone());
            talking.spawn(async move {
                // Fails only when nobody waits any more.
                let _ = bridged.send(media.converse(PATIENCE).await);
                media.talk(LONG, Ending::HangsUp, &carrier.truth).await;
                if vanishes == Some(Side::Carrier) {
                    return None; // Who has vanished asks nothing.
                }
                carrier.stream_ended(door, &sid).await.ok()
            });
        }
        for _ in 0..calls {
            let bridged = heard.recv().await.context("a call panicked")?;
            bridged.context("a caller heard nothing of the agent")?;
        }
        Ok(Self {
            vanishes,
            sids,
            talking,
        })
    }

    /// Says what became of calls of which `side` has vanished.
    async fn conclude(
        mut self,
        side: Side,
        free: &HashMap<String, Duration>,
        redis: &Redis,
    ) -> anyhow::Result<Vanished> {
        let patience = match side {
            Side::Carrier => Duration::ZERO, // Nothing reaches it.
            Side::Agent => PATIENCE,
        };
        let mut closed = Vec::new();
        let closing = async {
            while let Some(answer) = self.talking.join_next().await {
                closed.push(answer?);
            }
            anyhow::Ok(())
        };
        // Those that are late are missing among the closed ones.
        timeout(patience, closing).await.unwrap_or(Ok(()))?;
        let told = |answer: &&Option<Answer>| matches!(answer, Some(Answer::Told(_)));
        let keys = self.sids.iter().map(|sid| format!("calls:state:{sid}"));
        let mut reasons = BTreeMap::new();
        for state in redis.get_all(&keys.collect::<Vec<_>>()).await? {
            let state: Value = serde_json::from_str(&state.unwrap_or_default()).unwrap_or_default();
            let reason = state["end_reason"].as_str().unwrap_or("none");
            *reasons.entry(reason.to_owned()).or_default() += 1;
        }
        let free = self.sids.iter().filter_map(|sid| free.get(sid));
        Ok(Vanished {
            side,
            calls: self.sids.len(),
            free: free.copied().collect(),
            closed: closed.len(),
            told: closed.iter().filter(told).count(),
            reasons,
        })
    }
}

fn judge(vanished: &[Vanished], others_ended: usize) -> Verdict {
    let mut checks = BTreeMap::from([("others_unharmed", others_ended == 0)]);
    let (mut lines, mut sides, mut samples) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for one in vanished {
        let (name, in_time, noticed) = match one.side {
            // A socket that closed was told something: that was no half-open one.
            Side::Carrier => (
                "carrier",
                "carrier_in_time",
                ("carrier_told_nothing", one.closed == 0),
            ),
            Side::Agent => (
                "agent",
                "agent_in_time",
                ("callers_told", one.told == one.calls),
            ),
        };
        let times = Latencies::of(one.free.iter().copied());
        let (median, most) = (times.p50_ms / 1e3, times.max_ms / 1e3);
        let latest = (GOAL + POLL).as_secs_f64();
        let all_in_time = one.free.len() == one.calls && most <= latest;
        checks.extend([(in_time, all_in_time), noticed]);
        lines.push(format!(
            "{name}: {} of {} free, after {median:.1} s in the median and {most:.1} s at most",
            one.free.len(),
            one.calls,
        ));
        sides.insert(
            name,
            json!({
                "calls": one.calls, "free": one.free.len(), "median_seconds": rounded(median),
                "worst_seconds": rounded(most), "end_reasons": one.reasons,
                "media_closed": one.closed, "callers_told": one.told,
            }),
        );
        let seconds = one.free.iter().map(|free| rounded(free.as_secs_f64()));
        samples.insert(name, seconds.collect::<Vec<_>>());
    }
    Verdict {
        passed: checks.values().all(|passed| *passed),
        line: format!("{}; {others_ended} others ended", lines.join("; ")),
        parameters: Value::Null,
        result: json!({"checks": checks, "sides": sides, "others_ended": others_ended}),
        samples: json!({"free_seconds": samples}),
        logs: None,
    }
}
