//! R12: events that are lost or told twice while their receiver fails and replicas are killed; and
//! calls of which a killed replica had committed nothing.
//!
//! Callers are refused, each of which is an event, at three replicas that share a database and a
//! Redis. What is committed is what the database has; what was delivered is what the sink has
//! written down. A replica is killed while the database takes nothing and it has two calls more, one
//! of which has ended: the others can know of them from Redis alone, and may be killed next.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::carrier::Carrier;
use callgate_benches::cluster::Cluster;
use callgate_benches::twilio::Answer;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::lab::{Lab, REPLICAS, Verdict, conclude};
use crate::life::sid;
use crate::records::{self, Records};
use crate::sink::{SECRET, Sink};

/// How many of the sink's answers are failures, in percent.
const FAILING: u32 = 30;
/// The pauses between tries, in seconds: some events find the sink failing every time.
const PAUSES: &str = "1,1,1,1";
const TRIES: u64 = 5;
/// What a replica has under way to one endpoint at most (`src/event/delivery/worker.rs`).
const UNDER_WAY: u64 = 8;
/// Callers who ring at once.
const CALLERS: usize = 8;
/// Whom those dial who are always let in.
const OPEN: &str = "+15550000001";
/// How long it may take until such a call is in Redis and not in the database: a replica asks
/// nobody for a moment when Redis was slow, and what it admits then nobody else can know.
const LET_IN_WITHIN: Duration = Duration::from_secs(30);
/// What is written of a call whose replica is gone: its state, and the reason for its end.
const LOST: &str = "instance_lost instance_lost";
/// How long it may take until nothing waits, once the last caller has rung: a killed replica's
/// leases of half a minute, and every try.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// What one database came to.
struct Seen {
    committed: u64,
    lost: u64,
    twice: u64,
    dead: u64,
    /// Dead ones that the sink has not refused as often as they are tried.
    dead_early: u64,
    forged: u64,
    /// How many messages the sink has read and not answered.
    cut: u64,
    waiting: u64,
    kills: u64,
    /// How many calls killed replicas had of which nothing was committed, two each, and how many of
    /// them are written as lost.
    uncommitted: usize,
    written: usize,
    seconds: f64,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let measure_one = async |name: &str, url: String| {
        let mut random = lab.random(&format!("events {name}"));
        let sink = Sink::start(FAILING, &mut random).await?;
        let directory = TempDir::with_prefix("callgate-events-")?;
        let campaigns = write_campaigns(directory.path(), &sink)?;
        let options = lab
            .options()
            .set("DATABASE_URL", &url)
            .set("CALLGATE_CONFIG", campaigns)
            // Slots of those who are gone come back as soon as they may.
            .set("TELEPHONY_SEMAPHORE_TTL_SEC", 15)
            .set("EVENTS_RETRY_SECONDS", PAUSES)
            .set("GUARD_ALLOW", "127.0.0.0/8");
        let mut cluster = Cluster::start(&options).await?;
        let seen = measure(lab, &mut cluster, &sink, &url, random).await;
        conclude(&mut cluster, seen.map(|seen| seen.verdict(name)))
    };
    let parts = records::over_both(lab, "events", measure_one).await?;
    Ok(Verdict::of(
        parts,
        json!({
            "replicas": REPLICAS,
            "events": lab.or_short(10_000, 200),
            "kills": lab.or_short(20, 2),
            "failing_percent": FAILING,
            "pauses_s": PAUSES,
        }),
    ))
}

/// Writes a campaign that is full with one call, and one that has room for a call each kill.
fn write_campaigns(directory: &Path, sink: &Sink) -> anyhow::Result<String> {
    let file = directory.join("campaigns.toml");
    let address = sink.address;
    let text = format!(
        r#"default_campaign = "full"
[tenants.chaos.endpoints.sink]
url = "http://{address}/"
secret = "{SECRET}"
[campaigns.full]
tenant = "chaos"
max_calls = 1
[campaigns.open]
tenant = "chaos"
numbers = ["{OPEN}"]
max_calls = 40
"#
    );
    std::fs::write(&file, text)?;
    Ok(file.display().to_string())
}

async fn measure(
    lab: &Lab,
    cluster: &mut Cluster,
    sink: &Sink,
    url: &str,
    mut random: StdRng,
) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let (events, kills) = (lab.or_short(10_000, 200), lab.or_short(20, 2));
    let mut database = Records::open(url).await?;
    let mut holder = Records::open(url).await?;
    let carrier = cluster.carrier();
    let open = cluster.carrier().dialing(OPEN);
    let mut uncommitted = Vec::new();
    let door = cluster.door;
    let bar = lab.bar(events, "events");
    let mut ringing = Vec::new();
    for _ in 0..CALLERS {
        let (carrier, mut random) = (&carrier, StdRng::from_rng(&mut random));
        ringing.push(async move {
            loop {
                // One that meets a replica which has just died leaves nothing, or is told elsewhere.
                let _ = carrier.ring(door, &sid(&mut random)).await;
                sleep(Duration::from_millis(random.random_range(20..60))).await;
            }
        });
    }
    let until_over = async {
        let mut killed = 0;
        loop {
            let committed = database.count("SELECT COUNT(*) FROM events").await?;
            bar.set_position(committed.min(events));
            if committed >= events && killed >= kills {
                return anyhow::Ok(());
            }
            // Spread over the whole run, wherever in their work the replicas are.
            let due = events * (killed + 1) / (kills + 1);
            if killed < kills && committed >= due {
                let victim = random.random_range(0..REPLICAS);
                holder.hold().await?;
                let over = a_call_more(cluster, victim, &open, &mut random).await?;
                let address = cluster.replicas[victim].address;
                open.status(address, &over, "completed").await?;
                let rings = a_call_more(cluster, victim, &open, &mut random).await?;
                let known = known_calls(&mut database).await?;
                ensure!(
                    !known.contains_key(&over) && !known.contains_key(&rings),
                    "a database that is held took a call"
                );
                cluster.replicas[victim].kill()?;
                holder.release().await?;
                uncommitted.extend([over, rings]);
                sleep(Duration::from_millis(random.random_range(0..500))).await;
                cluster.replicas[victim].start().await?;
                killed += 1;
            }
            sleep(Duration::from_millis(random.random_range(20..200))).await;
        }
    };
    tokio::select! {
        over = until_over => over?,
        _ = futures_util::future::join_all(ringing) => {}
    }
    let patience = Instant::now() + SETTLED_WITHIN;
    let (waiting, written) = loop {
        // What a replica has in memory is committed within moments.
        sleep(Duration::from_secs(1)).await;
        let waiting = "SELECT COUNT(*) FROM deliveries WHERE state = 'waiting'";
        let waiting = database.count(waiting).await?;
        let known = known_calls(&mut database).await?;
        let written = count_lost(&known, &uncommitted);
        let is_settled = waiting == 0 && written == uncommitted.len();
        if is_settled || patience <= Instant::now() {
            break (waiting, written);
        }
    };
    bar.finish_and_clear();
    let log = sink.log();
    let mut seen = Seen {
        committed: 0,
        lost: 0,
        twice: 0,
        dead: 0,
        dead_early: 0,
        forged: log.forged,
        cut: log.cut,
        waiting,
        kills,
        uncommitted: uncommitted.len(),
        written,
        seconds: began.elapsed().as_secs_f64(),
    };
    let rows = "SELECT e.event, d.state FROM events e LEFT JOIN deliveries d ON d.event = e.event";
    for (event, state) in database.pairs(rows).await? {
        let (taken, refused) = log.answers.get(&event).copied().unwrap_or_default();
        seen.committed += 1;
        seen.twice += taken.saturating_sub(1);
        match state.as_deref() {
            Some("dead") => {
                seen.dead += 1;
                seen.dead_early += u64::from(refused < TRIES);
            }
            Some(_) | None => seen.lost += u64::from(taken == 0),
        }
    }
    Ok(seen)
}

/// Brings a call to a replica, and returns it once Redis has it.
async fn a_call_more(
    cluster: &Cluster,
    replica: usize,
    carrier: &Carrier,
    random: &mut StdRng,
) -> anyhow::Result<String> {
    let redis = cluster.redis.as_ref().context("no Redis")?;
    let began = Instant::now();
    loop {
        let sid = sid(random);
        let rung = carrier
            .ring(cluster.replicas[replica].address, &sid)
            .await?;
        let is_in = matches!(rung.answer, Answer::Connect(_));
        if is_in && redis.leased().await?.contains(&sid) {
            return Ok(sid);
        }
        ensure!(
            began.elapsed() < LET_IN_WITHIN,
            "no call is let in by Redis"
        );
        sleep(Duration::from_millis(500)).await;
    }
}

/// Counts those of these calls that are written as lost.
fn count_lost(known: &BTreeMap<String, String>, calls: &[String]) -> usize {
    let lost = |call: &&String| known.get(*call).is_some_and(|stands| stands == LOST);
    calls.iter().filter(lost).count()
}

/// Returns how each call stands that is committed.
async fn known_calls(database: &mut Records) -> anyhow::Result<BTreeMap<String, String>> {
    let calls = database.calls().await?.into_iter();
    Ok(calls.map(|call| (call.carrier_call, call.stands)).collect())
}

impl Seen {
    fn verdict(self, database: &str) -> Verdict {
        let most_twice = self.kills * UNDER_WAY;
        let passed = self.lost == 0
            && self.waiting == 0
            && self.dead_early == 0
            && self.forged == 0
            // Or nothing of the kind was tried.
            && self.cut > 0
            && self.written == self.uncommitted
            && self.twice <= most_twice;
        Verdict {
            passed,
            line: format!(
                "{database}: {} events, {} kills: {} lost, {} told twice (at most {most_twice}), \
                 {} dead, {} of them too early, {} forged, {} cut; {} of {} uncommitted calls written \
                 as lost",
                self.committed,
                self.kills,
                self.lost,
                self.twice,
                self.dead,
                self.dead_early,
                self.forged,
                self.cut,
                self.written,
                self.uncommitted
            ),
            parameters: Value::Null,
            result: json!({
                "committed": self.committed,
                "lost": self.lost,
                "still_waiting": self.waiting,
                "twice": self.twice,
                "dead": self.dead,
                "dead_early": self.dead_early,
                "forged": self.forged,
                "cut": self.cut,
                "uncommitted": self.uncommitted,
                "written_as_lost": self.written,
                "seconds": self.seconds.round(),
            }),
            samples: Value::Null,
            logs: None,
        }
    }
}
