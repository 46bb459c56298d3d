//! R21: secrets, whole numbers and words of callers in logs, on pages, in errors, in events, in traces,
//! in what commands say and in command lines.
//!
//! A gateway with a secret of its own in every setting that takes one lives through all kinds of
//! calls at `RUST_LOG=debug`, once with its log as text and once as JSON. Every page is looked at while
//! somebody talks, and again in the end. Then everything that the gateway has said is looked through,
//! and once more with all of it spilt, which has to be found. What somebody is meant to be shown is in
//! one table, and has to be there.

mod agent;
mod marks;
mod meant;
mod pages;
mod settings;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::ensure;
use callgate_benches::cluster::{Cluster, Options, free_port};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::agent::{Script, Server};
use self::marks::{Hit, Kind, Marks};
use self::pages::Keys;
use self::settings::{Others, Secrets, Way};
use self::story::Story;
use crate::dialer::make_key;
use crate::fake_twilio::FakeTwilio;
use crate::lab::{Lab, Verdict, conclude};
use crate::records::Records;
use crate::sink::Sink;
use crate::statistics::store_patience_ms;

const PATIENCE: Duration = Duration::from_secs(15);
/// How long spans wait for others at most (`src/trace/exporter.rs`), and some more.
const SPANS_WAIT: Duration = Duration::from_millis(2_500);

/// What one gateway has spilt, and whether there was something to spill.
struct Seen {
    hits: BTreeSet<Hit>,
    /// What is shown by design and was not seen: it was not looked for well.
    unseen: Vec<String>,
    marks: usize,
    /// How many of the marks were found where all of them were spilt.
    found_when_spilt: usize,
    log_bytes: u64,
    answers: usize,
    events: usize,
    traces: usize,
    words_recorded: u64,
    tools_asked: usize,
}

/// Whom a gateway has to do with.
struct World {
    tool: Server,
    messages: Server,
    collector: Server,
    sink: Sink,
    twilio: FakeTwilio,
    acs: SocketAddr,
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let mut parts = Vec::new();
    let mut covered = BTreeSet::new();
    let both = Way::ALL.map(|way| live(lab, way));
    for (way, lived) in Way::ALL
        .into_iter()
        .zip(futures_util::future::join_all(both).await)
    {
        let (verdict, names) = lived?;
        covered.extend(names);
        parts.push((way.name().to_owned(), verdict));
    }
    let secret = settings::secret_settings();
    let unset: Vec<&String> = secret.difference(&covered).collect();
    let parameters = json!({"secret_settings": secret, "without_a_canary": unset});
    let mut all = Verdict::of(parts, parameters);
    all.passed &= unset.is_empty();
    if !unset.is_empty() {
        all.line = format!("{}; no canary for {unset:?}", all.line);
    }
    Ok(all)
}

async fn live(lab: &Lab, way: Way) -> anyhow::Result<(Verdict, BTreeSet<String>)> {
    let mut random = lab.random(&format!("canary {}", way.name()));
    let mut marks = Marks::default();
    let secrets = Secrets::make(&mut marks, way, &mut random);
    let (script, plays) = watch::channel(Script::Talks);
    let agent = Server::agent(&secrets.words, plays).await?;
    let mut world = World {
        tool: Server::tool(&secrets.words).await?,
        messages: Server::messages().await?,
        collector: Server::collector(way == Way::Text).await?,
        sink: Sink::start_with(&secrets.events, 0, &mut random).await?,
        twilio: FakeTwilio::choose("0:0:0", 0)?,
        acs: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
    };
    let url = lab.postgres(&format!("canary_{}", way.name())).await?;
    // A campaign file holds secrets: it must not lie among what is looked through.
    let directory = TempDir::with_prefix("callgate-canary-")?;
    let others = Others {
        agent: agent.address,
        tool: world.tool.address,
        sink: world.sink.address,
        collector: world.collector.address,
        twilio: match way {
            Way::Text => format!("http://{}", world.messages.address),
            Way::Json => world.twilio.url(),
        },
        acs: world.acs,
        directory: directory.path(),
    };
    let options = Options::new(lab.gateway.clone(), 1);
    let options = options.set("REDIS_TIMEOUT_MS", store_patience_ms());
    let (options, names) = settings::set(
        options,
        way,
        (&secrets, &mut marks),
        &others,
        &url,
        &mut random,
    )?;
    let mut cluster = Cluster::start(&options).await?;
    let story = (script, StdRng::from_rng(&mut random));
    let marked = (&secrets, &mut marks);
    let lived = look(lab, way, &cluster, marked, &mut world, &url, story).await;
    let verdict = conclude(&mut cluster, lived.map(|seen| seen.verdict(way)))?;
    Ok((verdict, names))
}

async fn look(
    lab: &Lab,
    way: Way,
    cluster: &Cluster,
    (secrets, marks): (&Secrets, &mut Marks),
    world: &mut World,
    url: &str,
    (script, random): (watch::Sender<Script>, StdRng),
) -> anyhow::Result<Seen> {
    let records = Records::open(url).await?;
    let key = |scopes| make_key(lab, url, way.tenant(), scopes);
    let keys = Keys {
        plain: key("calls:read,calls:write,usage:read,events:read").await?,
        reads_all: key("calls:read,numbers:read,transcripts:read").await?,
    };
    for key in [&keys.plain, &keys.reads_all] {
        marks.add(Kind::Secret, "a key of /v1", key);
    }
    let mut story = Story::new(cluster, (secrets, marks), (keys, records), script, random);
    story.calls_that_come_in().await?;
    let refused = story.a_call_too_many().await?;
    match way {
        Way::Text => {
            story.a_message_is_sent(&refused, &world.messages).await?;
            for carrier in ["acs", "web"] {
                story.a_call_by(carrier, world.acs, &lab.gateway).await?;
            }
        }
        Way::Json => {
            story.a_message_is_left(&refused).await?;
            world.twilio.start(cluster, &lab.gateway).await?;
            story.a_call_that_is_placed(&world.twilio).await?;
        }
    }
    story.bad_requests().await?;
    story.pages().await?;
    story.commands(&lab.gateway).await?;
    let (mut said, mut records) = (story.said, story.records);

    let began = Instant::now();
    let waiting = "SELECT COUNT(*) FROM deliveries WHERE state <> 'delivered'";
    while records.count(waiting).await? > 0 {
        ensure!(began.elapsed() < PATIENCE, "events are not delivered");
        sleep(Duration::from_millis(100)).await;
    }
    sleep(SPANS_WAIT).await;
    let traces = world.collector.asked();
    let answers = said.len();
    said.extend(traces.iter().map(|it| ("a trace".to_owned(), it.clone())));
    let events = world.sink.log().bodies;
    said.extend(
        events
            .values()
            .map(|event| ("an event".to_owned(), event.to_string())),
    );

    let mut hits: BTreeSet<Hit> = marks.find_below(cluster.directory())?.into_iter().collect();
    hits.extend(
        said.iter()
            .flat_map(|(place, text)| marks.find(place, text)),
    );
    let seen = |meant: &&meant::Meant| hits.iter().any(|hit| meant.is(hit));
    let unseen = meant::all(way).filter(|meant| !seen(meant));
    let unseen = unseen.map(meant::Meant::name).collect();
    hits.retain(|hit| !meant::all(way).any(|meant| meant.is(hit)));
    let log_bytes = fs::metadata(cluster.directory().join("replica-1.log"))?.len();
    let spilt = cluster.directory().join("spilt.log");
    fs::write(&spilt, marks.spilt())?;
    let found = marks.find_below(cluster.directory())?.into_iter();
    let found_when_spilt = found.filter(|hit| hit.place == "spilt.log").count();
    fs::remove_file(&spilt)?;
    Ok(Seen {
        hits,
        unseen,
        marks: marks.count(),
        found_when_spilt,
        log_bytes,
        answers,
        events: events.len(),
        traces: traces.len(),
        words_recorded: records.count("SELECT COUNT(*) FROM words").await?,
        tools_asked: world.tool.asked().len(),
    })
}

impl Seen {
    fn verdict(self, way: Way) -> Verdict {
        let tools_expected = match way {
            Way::Text => 0,
            Way::Json => 1,
        };
        let checks = BTreeMap::from([
            ("no_hits", self.hits.is_empty()),
            ("shown_where_it_is_meant", self.unseen.is_empty()),
            ("spilt_is_found", self.found_when_spilt == self.marks),
            // Or there was nothing that could have been spilt.
            ("words_recorded", self.words_recorded >= 4),
            ("events_told", self.events >= 3),
            ("traces_sent", self.traces > 0),
            ("tools_asked", self.tools_asked >= tools_expected),
            ("log_is_written", self.log_bytes > 0),
        ]);
        let failed: Vec<&str> = checks.iter().filter(|it| !it.1).map(|it| *it.0).collect();
        let hits = self
            .hits
            .iter()
            .map(|hit| format!("{} in {}", hit.what, hit.place));
        let hits: Vec<String> = hits.collect();
        let unseen: Vec<String> = self.unseen.iter().map(|it| format!("no {it}")).collect();
        let details = [hits.as_slice(), &unseen].concat().join(", ");
        Verdict {
            passed: failed.is_empty(),
            line: format!(
                "log as {}: {} hits of {} canaries in {} KiB of log, {} answers, {} events and {} \
                 batches of spans; {} found when spilt{}{}",
                way.name(),
                hits.len(),
                self.marks,
                self.log_bytes / 1_024,
                self.answers,
                self.events,
                self.traces,
                self.found_when_spilt,
                if failed.is_empty() {
                    String::new()
                } else {
                    format!(" ({failed:?})")
                },
                if details.is_empty() {
                    String::new()
                } else {
                    format!(": {details}")
                },
            ),
            parameters: Value::Null,
            result: json!({
                "checks": checks, "hits": hits, "canaries": self.marks,
                "found_when_spilt": self.found_when_spilt, "log_bytes": self.log_bytes,
                "answers": self.answers, "events": self.events, "traces": self.traces,
                "unseen": self.unseen,
                "words_recorded": self.words_recorded, "tools_asked": self.tools_asked,
            }),
            samples: Value::Null,
            logs: None,
        }
    }
}
