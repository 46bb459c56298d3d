//! R11: calls whose webhooks come more than once, at once, on several replicas, and in any order.
//!
//! Waves of calls ring together; when every copy is answered, Redis holds exactly the slots of
//! those that the carrier was told to connect. Then their statuses come, in random order and again,
//! and nothing may be held, and every call has ended for one reason. In the end the database holds
//! one row a call, and a sink was told once that it began and once that it is over.

mod told;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use callgate_benches::carrier::{Carrier, Ending, Over, Truth};
use callgate_benches::cluster::{Cluster, Redis};
use callgate_benches::twilio::{Answer, Stream};
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::told::Entry;
use crate::lab::{Lab, Verdict, conclude};
use crate::life::sid;
use crate::records::Records;
use crate::sink::{SECRET, Sink};

const WAVE: usize = 100;
/// Below a wave, so that refusals are repeated, too.
const CAP: usize = 80;
/// How long the registry may take until it agrees with the carrier.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a call of a wave goes through.
struct Plan {
    sid: String,
    /// Where the copies of its first webhook arrive; those of one group do at once.
    copies: Vec<Vec<SocketAddr>>,
    /// Whether the carrier says that it is over before it says that it rings.
    ends_first: bool,
    has_media: bool,
    statuses: Vec<&'static str>,
    /// Where everything after that arrives.
    then_at: SocketAddr,
}

/// A call whose copies have been answered.
struct Answered {
    plan: Plan,
    answer: Answer,
}

/// What went wrong, and how often.
type Faults = BTreeMap<&'static str, u64>;

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let url = lab.postgres("duplicates").await?;
    let sink = Sink::start(0, &mut lab.random("sink of duplicates")).await?;
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", CAP)
        .set("DATABASE_URL", &url)
        .set("EVENTS_URL", format!("http://{}/", sink.address))
        .set("EVENTS_SECRET", SECRET)
        .set("GUARD_ALLOW", "127.0.0.0/8");
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(lab, &mut cluster, &sink, &url).await;
    conclude(&mut cluster, measured)
}

async fn measure(
    lab: &Lab,
    cluster: &mut Cluster,
    sink: &Sink,
    url: &str,
) -> anyhow::Result<Verdict> {
    let calls = lab.or_short(10_000, 300);
    let mut random = lab.random("duplicates");
    let carrier = Arc::new(cluster.carrier());
    let replicas = cluster.addresses();
    let redis = cluster.redis()?;
    let bar = lab.bar(calls as u64, "duplicates");
    let mut faults = Faults::new();
    let mut counts = BTreeMap::from([("admitted", 0), ("refused", 0), ("ended_first", 0)]);
    let mut reasons = BTreeMap::new();
    let mut copies = 0;
    let mut known = BTreeMap::new();
    for _ in 0..calls / WAVE {
        let plans: Vec<Plan> = (0..WAVE).map(|_| plan(&mut random, &replicas)).collect();
        copies += plans.iter().flat_map(|plan| &plan.copies).flatten().count() - WAVE;
        let answered = ring(&carrier, plans, &mut faults).await?;
        for call in &answered {
            let what = match call.answer {
                Answer::Connect(_) => Entry::Admitted,
                Answer::Told(_) => Entry::Refused,
                Answer::HungUp => Entry::EndedFirst,
            };
            known.insert(call.plan.sid.clone(), what);
            *counts.entry(what.name()).or_default() += 1;
        }
        if !holds(redis, carrier.truth.live()).await? {
            *faults
                .entry("waves_whose_slots_are_not_the_carriers")
                .or_default() += 1;
        }
        let admitted = answered
            .iter()
            .filter(|call| matches!(call.answer, Answer::Connect(_)));
        let keys: Vec<String> = admitted
            .map(|call| format!("calls:state:{}", call.plan.sid))
            .collect();
        end(&carrier, answered, &mut random, &mut faults).await?;
        if !holds(redis, 0).await? {
            *faults.entry("waves_that_left_slots").or_default() += 1;
        }
        read_reasons(redis, &keys, &mut reasons, &mut faults).await?;
        bar.inc(WAVE as u64);
    }
    bar.finish_and_clear();

    // What was written once stays: nothing that came later has changed it.
    let mut later = BTreeMap::new();
    let keys: Vec<String> = reasons.keys().cloned().collect();
    read_reasons(redis, &keys, &mut later, &mut faults).await?;
    let changed = reasons
        .iter()
        .filter(|(key, reason)| later.get(*key) != Some(reason));
    let changed = changed.count();
    let mut records = Records::open(url).await?;
    let told = told::until_told(&mut records, sink).await?;
    told::judge(&known, &records.calls().await?, &told, &mut faults);
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for reason in reasons.values() {
        *by_reason.entry(reason).or_default() += 1;
    }
    Ok(Verdict {
        passed: faults.is_empty() && changed == 0,
        line: format!(
            "{calls} calls with {copies} copies: {} admitted, {} refused, {} events; faults: {faults:?}, \
             {changed} end reasons changed",
            counts["admitted"],
            counts["refused"],
            told.answers.len(),
        ),
        parameters: json!({"calls": calls, "wave": WAVE, "cap": CAP, "replicas": replicas.len()}),
        result: json!({
            "copies": copies, "calls": counts, "faults": faults, "end_reasons": by_reason,
            "end_reasons_changed": changed, "events": told.answers.len(),
        }),
        samples: Value::Null,
        logs: None,
    })
}

fn plan(random: &mut StdRng, replicas: &[SocketAddr]) -> Plan {
    let mut anywhere = || *replicas.choose(random).expect("there are replicas");
    let (first, again, then_at) = (anywhere(), anywhere(), anywhere());
    let mut copies = vec![vec![first]];
    match random.random_range(0..100) {
        // At the same moment, on all replicas.
        0..15 => copies = vec![replicas.to_vec()],
        // One after the other.
        15..25 => copies.push(vec![again]),
        // Both.
        25..30 => copies = vec![replicas.to_vec(), vec![again]],
        _ => {}
    }
    let mut statuses = vec!["ringing", "in-progress", "completed"];
    if random.random_bool(0.3) {
        statuses.push("completed");
    }
    if random.random_bool(0.1) {
        statuses.push("no-answer");
    }
    statuses.shuffle(random);
    Plan {
        sid: sid(random),
        copies,
        ends_first: random.random_bool(0.05),
        has_media: random.random_bool(0.2),
        statuses,
        then_at,
    }
}

/// Rings with a wave of calls, and compares the answers that each call got.
async fn ring(
    carrier: &Arc<Carrier>,
    plans: Vec<Plan>,
    faults: &mut Faults,
) -> anyhow::Result<Vec<Answered>> {
    let mut ringing = JoinSet::new();
    for plan in plans {
        let carrier = Arc::clone(carrier);
        ringing.spawn(async move {
            let sid = plan.sid.as_str();
            if plan.ends_first {
                carrier.status(plan.then_at, sid, "completed").await?;
            }
            let mut answers = Vec::new();
            for group in &plan.copies {
                let rings = group.iter().map(|replica| carrier.ring(*replica, sid));
                for rung in join_all(rings).await {
                    answers.push(rung?.answer);
                }
            }
            anyhow::Ok((plan, answers))
        });
    }
    let mut answered = Vec::new();
    for rung in ringing.join_all().await {
        let (plan, mut answers) = rung.context("a copy of a webhook was not answered")?;
        let answer = answers.swap_remove(0);
        if answers.iter().any(|other| *other != answer) {
            *faults.entry("calls_with_different_answers").or_default() += 1;
        }
        if plan.ends_first != (answer == Answer::HungUp) {
            *faults
                .entry("calls_answered_against_their_end")
                .or_default() += 1;
        }
        answered.push(Answered { plan, answer });
    }
    Ok(answered)
}

/// Ends a wave of calls: some have media, all have statuses, and then the first webhook once more.
async fn end(
    carrier: &Arc<Carrier>,
    answered: Vec<Answered>,
    random: &mut StdRng,
    faults: &mut Faults,
) -> anyhow::Result<()> {
    let mut ending = JoinSet::new();
    for call in answered {
        let carrier = Arc::clone(carrier);
        let random = StdRng::from_rng(random);
        ending.spawn(async move { end_one(&carrier, call, random).await });
    }
    for fault in ending.join_all().await {
        if let Some(fault) = fault? {
            *faults.entry(fault).or_default() += 1;
        }
    }
    Ok(())
}

async fn end_one(
    carrier: &Carrier,
    Answered { plan, answer }: Answered,
    mut random: StdRng,
) -> anyhow::Result<Option<&'static str>> {
    let sid = plan.sid.as_str();
    let mut fault = None;
    if let (true, Answer::Connect(stream)) = (plan.has_media, &answer) {
        fault = bring_media(carrier, sid, stream, &mut random).await?;
    }
    for status in &plan.statuses {
        carrier.status(plan.then_at, sid, status).await?;
    }
    if random.random_bool(0.2) {
        let rung = carrier.ring(plan.then_at, sid).await?;
        if rung.answer != Answer::HungUp && matches!(answer, Answer::Connect(_)) {
            fault = Some("ended_calls_answered_again");
        }
        carrier.truth.ended(sid);
    }
    Ok(fault)
}

/// Brings a call's media twice: one of the sockets gets the call, whichever says the ticket first,
/// and the other one is sent away.
async fn bring_media(
    carrier: &Carrier,
    sid: &str,
    stream: &Stream,
    random: &mut StdRng,
) -> anyhow::Result<Option<&'static str>> {
    let time = Duration::from_millis(random.random_range(1_000..1_500));
    let mut sockets = JoinSet::new();
    for media in [
        carrier.open(sid, stream).await?,
        carrier.open(sid, stream).await?,
    ] {
        // A truth of its own: that one socket is over does not end the call.
        sockets.spawn(async move { media.talk(time, Ending::HangsUp, &Truth::default()).await });
    }
    let lasted = sockets.join_all().await;
    let lasted = lasted.iter().filter(|over| **over == Over::Left).count();
    carrier.truth.ended(sid);
    Ok(match lasted {
        0 => Some("calls_without_media"),
        1 => None,
        _ => Some("tickets_used_twice"),
    })
}

/// Waits until Redis holds so many slots, and no more and no fewer.
async fn holds(redis: &Redis, slots: usize) -> anyhow::Result<bool> {
    let began = Instant::now();
    while redis.leased().await?.len() != slots {
        if PATIENCE < began.elapsed() {
            return Ok(false);
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}

/// Reads for what reason each call has ended.
async fn read_reasons(
    redis: &Redis,
    keys: &[String],
    reasons: &mut BTreeMap<String, String>,
    faults: &mut Faults,
) -> anyhow::Result<()> {
    for (key, state) in keys.iter().zip(redis.get_all(keys).await?) {
        let state = state.map(|state| serde_json::from_str::<Value>(&state));
        let reason = match &state {
            Some(Ok(state)) => state["end_reason"].as_str(),
            Some(Err(_)) | None => None,
        };
        if let Some(reason) = reason {
            reasons.insert(key.clone(), reason.to_owned());
        } else {
            *faults.entry("calls_without_an_end_reason").or_default() += 1;
        }
    }
    Ok(())
}
