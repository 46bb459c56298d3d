//! R20 and F39: people who are called twice, and calls that nobody looks after, while the carrier
//! fails, loses a fifth of its status callbacks, and replicas are killed between a reservation and its
//! dial.
//!
//! Every key has a number of its own, so that the carrier's own list tells how often a key was
//! dialed, whatever its askers were told. How a call has ended is what its record says.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use callgate_benches::cluster::{Cluster, leftovers};
use futures_util::future::join_all;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::dialer::{Dialer, make_key, number};
use crate::fake_twilio::FakeTwilio;
use crate::lab::{Lab, REPLICAS, Verdict, conclude};
use crate::records::{self, Records};
use crate::statistics::rounded;

/// Programs that ask for calls at once.
const ASKERS: u64 = 40;
/// How often one key is sent at once.
const TWINS: u64 = 100;
/// How fast all replicas ask the carrier: slower than they are asked for calls, so that a replica
/// that is killed leaves calls with a slot and without a dial.
const PER_SECOND: u32 = 15;
/// Of 100 status callbacks, how many do not come.
const LOST_CALLBACKS: u8 = 20;
pub const RING_SECONDS: u64 = 5;
/// The shortest lease there is.
const LEASE_SECONDS: u64 = 15;
/// How long it may take until every call is over: a killed replica's calls are left alone for 35 s,
/// wait for their turn, and are then looked for until they cannot ring any more.
const SETTLED_WITHIN: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_millis(500);
/// How many calls are not over, by how far they have come.
const OPEN: &str = "SELECT state, COUNT(*) FROM outbound WHERE state <> 'over' GROUP BY state";

/// What became of the requests.
#[derive(Default)]
struct Asked {
    /// What each call that was accepted was answered.
    accepted: BTreeMap<u64, Value>,
    given_up: u64,
    /// Answers to a key that were others than its first.
    unequal: u64,
    /// How many calls of all replicas were under way at the kills, by how far they had come.
    open_at_kills: BTreeMap<String, u64>,
}

/// What Redis held when every call was over, for as long as it was waited.
struct Left {
    slots: u64,
    keys: Vec<String>,
    after: Duration,
}

/// What one database came to.
struct Seen {
    asked: Asked,
    left: Left,
    twice: Vec<String>,
    never: u64,
    /// Accepted calls by how they have ended; those that have not by `open: ` and their state.
    ends: BTreeMap<String, u64>,
    open: u64,
    kills: u64,
    /// How often askers had to ask again, by the answer.
    again: BTreeMap<u16, u64>,
    settled_after: Duration,
    seconds: f64,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let measure_one = async |name: &str, url: String| {
        let twilio = FakeTwilio::choose(faults(lab), LOST_CALLBACKS)?;
        let options = lab
            .options()
            .set("DATABASE_URL", &url)
            .set("MAX_ACTIVE_CALLS", 400)
            .set("MAX_OUTBOUND_CALLS", 400)
            .set("MAX_DAILY_CALLS", 100_000)
            .set("TELEPHONY_SEMAPHORE_TTL_SEC", LEASE_SECONDS)
            .set("TWILIO_ACCOUNT_SID", callgate_benches::carrier::ACCOUNT_SID)
            .set("TWILIO_API_BASE", twilio.url())
            .set("OUTBOUND_COUNTRIES", "IL")
            .set("OUTBOUND_FROM", "+972722234567")
            .set("OUTBOUND_CALLS_PER_SECOND", PER_SECOND)
            .set("OUTBOUND_PER_KEY_MINUTE", 100_000)
            // Their numbers follow each other.
            .set("OUTBOUND_PER_PREFIX_HOUR", 100_000);
        let mut cluster = Cluster::start(&options).await?;
        let mut random = lab.random(&format!("dials {name}"));
        let seen = measure(lab, &mut cluster, twilio, &url, &mut random).await;
        conclude(&mut cluster, seen.map(|seen| seen.verdict(name)))
    };
    let parts = records::over_both(lab, "dials", measure_one).await?;
    Ok(Verdict::of(
        parts,
        json!({
            "replicas": REPLICAS,
            "calls": lab.or_short(300, 40),
            "kills": lab.or_short(8, 0),
            "same_key_at_once": TWINS,
            "same_key_rounds": lab.or_short(5, 1),
            "cut_throttled_failed_percent": faults(lab),
            "lost_callbacks_percent": LOST_CALLBACKS,
            "calls_per_second": PER_SECOND,
            "ring_seconds": RING_SECONDS,
            "lease_seconds": LEASE_SECONDS,
        }),
    ))
}

/// What goes wrong at the carrier. What it fails and has not done is looked for until it could not
/// ring any more, which is longer than a short run.
fn faults(lab: &Lab) -> &'static str {
    lab.or_short("20:10:5", "20:10:0")
}

async fn measure(
    lab: &Lab,
    cluster: &mut Cluster,
    mut twilio: FakeTwilio,
    url: &str,
    random: &mut StdRng,
) -> anyhow::Result<Seen> {
    let began = Instant::now();
    twilio.start(cluster, &lab.gateway).await?;
    let dialer = Dialer::new(
        cluster.addresses(),
        make_key(lab, url, "default", "calls:write").await?,
    );
    let mut database = Records::open(url).await?;
    let mut asked = Asked::default();
    let (calls, rounds) = (lab.or_short(300, 40), lab.or_short(5, 1));
    for round in 0..rounds {
        same_key(&dialer, calls + round, &mut asked).await?;
    }
    ask(
        lab,
        calls,
        &dialer,
        cluster,
        &mut database,
        random,
        &mut asked,
    )
    .await?;

    let settling = Instant::now();
    while !database.counts(OPEN).await?.is_empty() && settling.elapsed() < SETTLED_WITHIN {
        sleep(LOOK).await;
    }
    let settled_after = settling.elapsed();
    let left = until_free(cluster).await?;
    // Who asks again when all is over is told the same.
    for (call, answer) in &asked.accepted {
        asked.unequal += u64::from(dialer.place(*call).await.as_ref() != Some(answer));
    }
    let mut seen = Seen {
        asked,
        left,
        twice: Vec::new(),
        never: 0,
        ends: BTreeMap::new(),
        open: 0,
        kills: lab.or_short(8, 0),
        again: dialer.again(),
        settled_after,
        seconds: 0.0,
    };
    for call in 0..calls + rounds {
        match twilio.dials(&number(call)).await? {
            0 => seen.never += 1,
            1 => {}
            _ => seen.twice.push(number(call)),
        }
    }
    let calls = database.calls().await?.into_iter();
    let mut calls: HashMap<_, _> = calls.map(|row| (row.call.clone(), row)).collect();
    for answer in seen.asked.accepted.values() {
        let id = answer["call_id"].as_str().context("a call has an id")?;
        let end = match calls.remove(id) {
            Some(row) if row.is_final => row.stands,
            row => {
                seen.open += 1;
                let stands = row.map_or_else(|| "no record".to_owned(), |row| row.stands);
                format!("open: {stands}")
            }
        };
        *seen.ends.entry(end).or_default() += 1;
    }
    seen.seconds = began.elapsed().as_secs_f64();
    Ok(seen)
}

/// Asks for calls, each by a key of its own, while replicas are killed.
async fn ask(
    lab: &Lab,
    calls: u64,
    dialer: &Dialer,
    cluster: &mut Cluster,
    database: &mut Records,
    random: &mut StdRng,
    asked: &mut Asked,
) -> anyhow::Result<()> {
    let bar = lab.bar(calls, "calls");
    let next = AtomicU64::new(0);
    let kills = lab.or_short(8, 0);
    let askers = (0..ASKERS).map(async |_| {
        let mut answers = Vec::new();
        loop {
            let call = next.fetch_add(1, Ordering::Relaxed);
            if calls <= call {
                return answers;
            }
            answers.push((call, dialer.place(call).await));
            bar.inc(1);
        }
    });
    let killing = async {
        let mut open = BTreeMap::new();
        for kill in 1..=kills {
            while bar.position() < calls * kill / (kills + 1) {
                sleep(Duration::from_millis(20)).await;
            }
            let victim = random.random_range(0..REPLICAS);
            cluster.replicas[victim].kill()?;
            for (state, count) in database.counts(OPEN).await? {
                *open.entry(state).or_default() += count;
            }
            sleep(Duration::from_millis(random.random_range(0..500))).await;
            cluster.replicas[victim].start().await?;
        }
        anyhow::Ok(open)
    };
    let (answers, open) = tokio::join!(join_all(askers), killing);
    bar.finish_and_clear();
    asked.open_at_kills = open?;
    for (call, answer) in answers.into_iter().flatten() {
        match answer {
            Some(answer) => drop(asked.accepted.insert(call, answer)),
            None => asked.given_up += 1,
        }
    }
    Ok(())
}

/// Waits until Redis holds nothing any more, for as long as a lease and a call that rings last.
async fn until_free(cluster: &mut Cluster) -> anyhow::Result<Left> {
    let began = Instant::now();
    let patience = Duration::from_secs(LEASE_SECONDS + RING_SECONDS + 1);
    loop {
        let redis = cluster.redis()?;
        let slots = redis.count("ZCARD", "calls:lease").await?
            + redis.count("SCARD", "calls:active").await?
            + redis.count("GET", "calls:active_count").await?;
        let keys = redis.keys().await?;
        let keys = leftovers(&keys);
        let after = began.elapsed();
        if slots == 0 && keys.is_empty() || patience <= after {
            let keys = keys.into_iter().map(str::to_owned).collect();
            return Ok(Left { slots, keys, after });
        }
        sleep(LOOK).await;
    }
}

/// Sends one key many times at once to all replicas.
async fn same_key(dialer: &Dialer, call: u64, asked: &mut Asked) -> anyhow::Result<()> {
    let asking = (0..TWINS).map(async |_| dialer.place(call).await);
    let answers = join_all(asking).await;
    let Some(first) = answers.first().cloned().flatten() else {
        bail!("a key that was sent {TWINS} times has no answer");
    };
    let others = answers.iter().filter(|it| it.as_ref() != Some(&first));
    asked.unequal += u64::try_from(others.count())?;
    asked.accepted.insert(call, first);
    Ok(())
}

impl Seen {
    fn verdict(self, database: &str) -> Verdict {
        let Self { asked, left, .. } = self;
        let passed = self.twice.is_empty()
            && asked.unequal == 0
            && asked.given_up == 0
            && self.open == 0
            && left.slots == 0
            && left.keys.is_empty();
        Verdict {
            passed,
            line: format!(
                "{database}: {} calls, {} kills: {} dialed twice, {} of other answers, {} not \
                 over, {} slots left",
                asked.accepted.len(),
                self.kills,
                self.twice.len(),
                asked.unequal,
                self.open,
                left.slots
            ),
            parameters: Value::Null,
            result: json!({
                "accepted": asked.accepted.len(),
                "given_up": asked.given_up,
                "dialed_twice": self.twice,
                "never_dialed": self.never,
                "other_answers": asked.unequal,
                "not_over": self.open,
                "ends": self.ends,
                "open_at_kills": asked.open_at_kills,
                "asked_again_after": self.again,
                "slots_left": left.slots,
                "keys_left": left.keys,
                "slots_gone_after_seconds": rounded(left.after.as_secs_f64()),
                "settled_after_seconds": rounded(self.settled_after.as_secs_f64()),
                "seconds": self.seconds.round(),
            }),
            samples: Value::Null,
            logs: None,
        }
    }
}
