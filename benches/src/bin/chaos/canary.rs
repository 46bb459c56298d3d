//! R21: secrets, whole numbers and words of callers in logs, on pages, in errors, in events, in what
//! commands say and in command lines.
//!
//! A gateway with a secret of its own in every setting that takes one lives through all kinds of
//! calls at `RUST_LOG=debug`, once with its log as text and once as JSON. Then everything that it has
//! said is looked through, and once more with all of it spilt, which has to be found.

mod agent;
mod marks;
mod settings;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::ensure;
use callgate_benches::cluster::{Cluster, Options};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::agent::{Script, Server};
use self::marks::{Hit, Marks};
use self::settings::{Others, Secrets, Way};
use self::story::Story;
use crate::dialer::make_key;
use crate::fake_twilio::FakeTwilio;
use crate::lab::{Lab, Verdict, conclude};
use crate::records::Records;
use crate::sink::Sink;

const PATIENCE: Duration = Duration::from_secs(15);

/// What one gateway has spilt, and whether there was something to spill.
struct Seen {
    hits: BTreeSet<Hit>,
    marks: usize,
    /// How many of the marks were found where all of them were spilt.
    found_when_spilt: usize,
    log_bytes: u64,
    texts: usize,
    events: usize,
    words_recorded: u64,
    tools_asked: usize,
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
    let tool = Server::tool(&secrets.words).await?;
    let sink = Sink::start_with(&secrets.events, 0, &mut random).await?;
    let mut twilio = FakeTwilio::choose("0:0:0", 0)?;
    let url = lab.postgres(&format!("canary_{}", way.name())).await?;
    // A campaign file holds secrets: it must not lie among what is looked through.
    let directory = TempDir::with_prefix("callgate-canary-")?;
    let others = Others {
        agent: agent.address,
        tool: tool.address,
        sink: sink.address,
        twilio: twilio.url(),
        directory: directory.path(),
    };
    let options = Options::new(lab.gateway.clone(), 1);
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
    let servers = (&tool, &sink, &mut twilio);
    let lived = look(
        lab,
        way,
        &cluster,
        (&secrets, &mut marks),
        servers,
        &url,
        story,
    )
    .await;
    let verdict = conclude(&mut cluster, lived.map(|seen| seen.verdict(way)))?;
    Ok((verdict, names))
}

async fn look(
    lab: &Lab,
    way: Way,
    cluster: &Cluster,
    (secrets, marks): (&Secrets, &mut Marks),
    (tool, sink, twilio): (&Server, &Sink, &mut FakeTwilio),
    url: &str,
    (script, random): (watch::Sender<Script>, StdRng),
) -> anyhow::Result<Seen> {
    let mut records = Records::open(url).await?;
    let mut story = Story::new(cluster, (secrets, marks), script, random);
    story.calls_that_come_in().await?;
    story.a_call_too_many().await?;
    let key = match way {
        Way::Text => None,
        Way::Json => {
            twilio.start(cluster, &lab.gateway).await?;
            let key = make_key(lab, url, "canary", "calls:read,calls:write")?;
            story.marks.add("a key of /v1", &key);
            story
                .a_call_that_is_placed(&key, twilio, &mut records)
                .await?;
            Some(key)
        }
    };
    story.bad_requests(key.as_deref()).await?;
    story.pages().await?;
    story.commands(&lab.gateway)?;
    let mut said = story.said;

    let began = Instant::now();
    let waiting = "SELECT COUNT(*) FROM deliveries WHERE state <> 'delivered'";
    while records.count(waiting).await? > 0 {
        ensure!(began.elapsed() < PATIENCE, "events are not delivered");
        sleep(Duration::from_millis(100)).await;
    }
    let events = sink.log().bodies;
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
    let log_bytes = fs::metadata(cluster.directory().join("replica-1.log"))?.len();
    let spilt = cluster.directory().join("spilt.log");
    fs::write(&spilt, marks.spilt())?;
    let found = marks.find_below(cluster.directory())?.into_iter();
    let found_when_spilt = found.filter(|hit| hit.place == "spilt.log").count();
    fs::remove_file(&spilt)?;
    Ok(Seen {
        hits,
        marks: marks.count(),
        found_when_spilt,
        log_bytes,
        texts: said.len(),
        events: events.len(),
        words_recorded: records.count("SELECT COUNT(*) FROM words").await?,
        tools_asked: tool.asked(),
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
            ("spilt_is_found", self.found_when_spilt == self.marks),
            // Or there was nothing that could have been spilt.
            ("words_recorded", self.words_recorded >= 4),
            ("events_told", self.events >= 3),
            ("tools_asked", self.tools_asked >= tools_expected),
            ("log_is_written", self.log_bytes > 0),
        ]);
        let failed: Vec<&str> = checks.iter().filter(|it| !it.1).map(|it| *it.0).collect();
        let hits = self
            .hits
            .iter()
            .map(|hit| format!("{} in {}", hit.what, hit.place));
        let hits: Vec<String> = hits.collect();
        Verdict {
            passed: failed.is_empty(),
            line: format!(
                "log as {}: {} hits of {} canaries in {} KiB of log, {} answers and {} events; {} \
                 found when spilt{}{}",
                way.name(),
                hits.len(),
                self.marks,
                self.log_bytes / 1_024,
                self.texts - self.events,
                self.events,
                self.found_when_spilt,
                if failed.is_empty() {
                    String::new()
                } else {
                    format!(" ({failed:?})")
                },
                if hits.is_empty() {
                    String::new()
                } else {
                    format!(": {}", hits.join(", "))
                },
            ),
            parameters: Value::Null,
            result: json!({
                "checks": checks, "hits": hits, "canaries": self.marks,
                "found_when_spilt": self.found_when_spilt, "log_bytes": self.log_bytes,
                "answers": self.texts - self.events, "events": self.events,
                "words_recorded": self.words_recorded, "tools_asked": self.tools_asked,
            }),
            samples: Value::Null,
            logs: None,
        }
    }
}
