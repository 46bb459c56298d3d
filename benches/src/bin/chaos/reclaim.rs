//! R4 and R10: how long the slots of a killed replica stay taken and the rows of its calls open,
//! and what its death does to calls elsewhere.
//!
//! Slots are read from Redis and rows from the database; whether a call goes on is known by its
//! media socket.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use callgate_benches::carrier::{Carrier, Ending};
use callgate_benches::cluster::Cluster;
use callgate_benches::twilio::Answer;
use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::lab::{Lab, Verdict, conclude};
use crate::life::sid;
use crate::records::Records;
use crate::statistics::rounded;

const POLL: Duration = Duration::from_millis(100);
/// How long slots and rows may take to be written down.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than any call here.
const LONG: Duration = Duration::from_secs(600);
/// Calls at another replica.
const ELSEWHERE: u64 = 5;
/// How the row of a call stands whose replica is gone.
const LOST: &str = "instance_lost instance_lost";

/// Until when all has to be well again after a kill.
#[derive(Clone, Copy)]
struct Goals {
    slots: Duration,
    rows: Duration,
}

/// Calls that talk at one replica.
struct Talking {
    carrier: Arc<Carrier>,
    sids: HashSet<String>,
    /// Each is over when its media socket is.
    calls: JoinSet<()>,
}

/// What one kill came to.
struct Reclaimed {
    slots_after: Duration,
    rows_after: Duration,
    /// How many slots were left at each poll.
    left: Vec<u64>,
    /// How the rows of the killed replica's calls stand in the end.
    stand: BTreeMap<String, u64>,
    /// Calls elsewhere whose media socket, slot or row is over.
    harmed: usize,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    // The shortest lease there is, where a run has to be short.
    let lease = lab.or_short(30, 15);
    let url = lab.postgres("reclaim").await?;
    let options = lab
        .options()
        .set("MAX_ACTIVE_CALLS", 200)
        .set("TELEPHONY_SEMAPHORE_TTL_SEC", lease)
        .set("DATABASE_URL", &url);
    let mut cluster = Cluster::start(&options).await?;
    let measured = measure(lab, &mut cluster, &url, Duration::from_secs(lease)).await;
    conclude(&mut cluster, measured)
}

async fn measure(
    lab: &Lab,
    cluster: &mut Cluster,
    url: &str,
    lease: Duration,
) -> anyhow::Result<Verdict> {
    let (calls, kills) = (lab.or_short(50, 10), lab.or_short(30, 1));
    // Nobody looks more often, and a short run shares its thread with others.
    let seen_after = POLL + lab.or_short(Duration::ZERO, Duration::from_secs(1));
    let goals = Goals {
        slots: lease + Duration::from_secs(1) + seen_after,
        rows: lease + Duration::from_secs(5) + seen_after,
    };
    let mut records = Records::open(url).await?;
    let mut random = lab.random("reclaim");
    let bar = lab.bar(kills, "reclaim");
    let mut all = Vec::new();
    for _ in 0..kills {
        let victim = random.random_range(0..cluster.replicas.len());
        all.push(reclaim(cluster, &mut records, victim, calls, goals, &mut random).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let worst = |time: fn(&Reclaimed) -> Duration| all.iter().map(time).max().unwrap_or_default();
    let (slots, rows) = (worst(|one| one.slots_after), worst(|one| one.rows_after));
    let harmed: usize = all.iter().map(|one| one.harmed).sum();
    let mut stand = BTreeMap::new();
    for (how, count) in all.iter().flat_map(|one| &one.stand) {
        *stand.entry(how.as_str()).or_default() += count;
    }
    let lost: u64 = stand.get(LOST).copied().unwrap_or_default();
    let seconds = |time: fn(&Reclaimed) -> Duration| {
        let times = all.iter().map(|one| rounded(time(one).as_secs_f64()));
        times.collect::<Vec<_>>()
    };
    Ok(Verdict {
        passed: slots <= goals.slots && rows <= goals.rows && lost == calls * kills && harmed == 0,
        line: format!(
            "{kills} kills with {calls} calls: the worst took {slots:.1?} of {:?} for slots and \
             {rows:.1?} of {:?} for rows, {lost} of {} rows instance_lost, {harmed} calls harmed \
             elsewhere",
            goals.slots,
            goals.rows,
            calls * kills,
        ),
        parameters: json!({
            "calls": calls, "calls_elsewhere": ELSEWHERE, "kills": kills,
            "lease_seconds": lease.as_secs(), "poll_ms": POLL.as_millis(),
            "replicas": cluster.replicas.len(),
        }),
        result: json!({
            "worst_seconds": rounded(slots.as_secs_f64()),
            "goal_seconds": rounded(goals.slots.as_secs_f64()),
            "worst_seconds_of_rows": rounded(rows.as_secs_f64()),
            "goal_seconds_of_rows": rounded(goals.rows.as_secs_f64()),
            "rows": stand, "harmed_elsewhere": harmed,
        }),
        samples: json!({
            "seconds": seconds(|one| one.slots_after),
            "seconds_of_rows": seconds(|one| one.rows_after),
            "scard_each_100_ms": all.iter().map(|one| &one.left).collect::<Vec<_>>(),
        }),
        logs: None,
    })
}

/// Fills a replica with live calls, kills it, and waits until `SCARD` no longer counts them and
/// their rows are closed.
async fn reclaim(
    cluster: &mut Cluster,
    records: &mut Records,
    victim: usize,
    calls: u64,
    goals: Goals,
    random: &mut StdRng,
) -> anyhow::Result<Reclaimed> {
    let elsewhere = (victim + 1) % cluster.replicas.len();
    let there = Talking::start(cluster, victim, calls, random).await?;
    let mut others = Talking::start(cluster, elsewhere, ELSEWHERE, random).await?;
    until_written(cluster, records, victim, calls).await?;
    // At any moment between two heartbeats, so that the leases are of any age.
    sleep(Duration::from_millis(random.random_range(0..5_000))).await;
    cluster.replicas[victim].kill()?;
    let killed = Instant::now();
    let (mut slots_after, mut rows_after, mut left) = (None, None, Vec::new());
    let mut polls = interval(POLL);
    // Twice the goal has failed as thoroughly as for ever.
    while (slots_after.is_none() || rows_after.is_none()) && killed.elapsed() < goals.rows * 2 {
        polls.tick().await;
        let slots = cluster.redis()?.count("SCARD", "calls:active").await?;
        left.push(slots);
        if slots <= ELSEWHERE {
            slots_after.get_or_insert(killed.elapsed());
        }
        let open = records.open_calls().await?;
        if !open
            .iter()
            .any(|row| there.sids.contains(&row.carrier_call))
        {
            rows_after.get_or_insert(killed.elapsed());
        }
    }
    let harmed = others.harmed(cluster, records).await?;
    let mut stand = BTreeMap::new();
    for row in records.calls().await? {
        if there.sids.contains(&row.carrier_call) {
            *stand.entry(row.stands).or_default() += 1;
        }
    }
    cluster.replicas[victim].start().await?;
    there.calls.join_all().await;
    others.hang_up().await?;
    Ok(Reclaimed {
        slots_after: slots_after.unwrap_or(killed.elapsed()),
        rows_after: rows_after.unwrap_or(killed.elapsed()),
        left,
        stand,
        harmed,
    })
}

/// Waits until all calls are written down, those of earlier kills as over.
async fn until_written(
    cluster: &mut Cluster,
    records: &mut Records,
    victim: usize,
    calls: u64,
) -> anyhow::Result<()> {
    let all = calls + ELSEWHERE;
    let began = Instant::now();
    loop {
        let slots = cluster.redis()?.count("SCARD", "calls:active").await?;
        let open = records.open_calls().await?;
        let talking = open.iter().filter(|row| row.stands == "connected").count() as u64;
        let health = cluster.replicas[victim].page("/health").await?;
        if slots == all
            && (talking, open.len() as u64) == (all, all)
            && health["active_connections"] == calls
        {
            return Ok(());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "of {all} calls {slots} have slots, {} rows and {talking} connected ones; the replica \
             says: {health}",
            open.len(),
        );
        sleep(POLL).await;
    }
}

impl Talking {
    /// Brings calls to one replica, media included.
    async fn start(
        cluster: &Cluster,
        replica: usize,
        calls: u64,
        random: &mut StdRng,
    ) -> anyhow::Result<Self> {
        let address = cluster.replicas[replica].address;
        let carrier = Arc::new(Carrier::new(format!("http://{}", cluster.door), address));
        let mut talking = Self {
            carrier: Arc::clone(&carrier),
            sids: HashSet::new(),
            calls: JoinSet::new(),
        };
        for _ in 0..calls {
            let sid = sid(random);
            let rung = carrier.ring(address, &sid).await?;
            let Answer::Connect(stream) = rung.answer else {
                bail!("{sid} was not admitted: {:?}", rung.answer);
            };
            let media = carrier.open(&sid, &stream).await.context("no media")?;
            let carrier = Arc::clone(&carrier);
            talking.calls.spawn(async move {
                media.talk(LONG, Ending::HangsUp, &carrier.truth).await;
            });
            talking.sids.insert(sid);
        }
        Ok(talking)
    }

    /// Counts the calls that do not go on as they were.
    async fn harmed(
        &mut self,
        cluster: &mut Cluster,
        records: &mut Records,
    ) -> anyhow::Result<usize> {
        let mut closed = 0;
        while self.calls.try_join_next().is_some() {
            closed += 1;
        }
        let leased = cluster.redis()?.leased().await?;
        let open = records.open_calls().await?.into_iter();
        let open: HashSet<String> = open.map(|row| row.carrier_call).collect();
        let goes_on = |sid: &&String| leased.contains(*sid) && open.contains(*sid);
        let over = self.sids.len() - self.sids.iter().filter(goes_on).count();
        Ok(over.max(closed))
    }

    async fn hang_up(self) -> anyhow::Result<()> {
        for sid in &self.sids {
            let door = self.carrier.door();
            self.carrier.status(door, sid, "completed").await?;
        }
        self.calls.join_all().await;
        Ok(())
    }
}
