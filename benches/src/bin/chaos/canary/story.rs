//! Calls of all kinds with a gateway, and requests that are none: everything that could spill what
//! it was told.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use callgate_benches::carrier::{ACCOUNT_SID, AUTH_TOKEN, Carrier, Ending, caller};
use callgate_benches::cluster::Cluster;
use callgate_benches::twilio::{self, Answer};
use rand::rngs::StdRng;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::agent::Script;
use super::marks::Marks;
use super::settings::Secrets;
use crate::fake_twilio::FakeTwilio;
use crate::life::sid;
use crate::records::Records;

/// Whom callers dial.
const DIALED: &str = "+97236123456";
/// Who is called.
const CALLED: &str = "+972502345679";
/// Who stands in requests that are no calls.
const STRANGER: &str = "+97236123457";
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a call may take to be placed.
const LONG: Duration = Duration::from_secs(30);
/// Longer than an agent of these takes to break.
const A_WHILE: Duration = Duration::from_secs(2);
const PAGES: [&str; 8] = [
    "/health",
    "/health/live",
    "/health/ready",
    "/health/details",
    "/stats",
    "/metrics",
    "/metrics.json",
    "/v1/openapi.json",
];

/// A gateway, and what it has said so far.
pub struct Story<'a> {
    pub cluster: &'a Cluster,
    pub carrier: Arc<Carrier>,
    /// What the agent does next.
    pub script: watch::Sender<Script>,
    pub secrets: &'a Secrets,
    pub marks: &'a mut Marks,
    pub random: StdRng,
    /// Answers, and where they come from.
    pub said: Vec<(String, String)>,
}

impl<'a> Story<'a> {
    pub fn new(
        cluster: &'a Cluster,
        (secrets, marks): (&'a Secrets, &'a mut Marks),
        script: watch::Sender<Script>,
        random: StdRng,
    ) -> Self {
        for (what, number) in [
            ("whom callers dial", DIALED),
            ("who is called", CALLED),
            ("a number in bad requests", STRANGER),
        ] {
            marks.number(what, number);
        }
        Self {
            cluster,
            carrier: Arc::new(cluster.carrier().dialing(DIALED)),
            script,
            secrets,
            marks,
            random,
            said: Vec::new(),
        }
    }

    /// One call for each thing that an agent does.
    pub async fn calls_that_come_in(&mut self) -> anyhow::Result<()> {
        for script in Script::ALL {
            self.script.send_replace(script);
            let sid = self.sid();
            let door = self.carrier.door();
            let Answer::Connect(stream) = self.carrier.ring(door, &sid).await?.answer else {
                bail!("a caller is refused");
            };
            let mut media = self.carrier.open(&sid, &stream).await?;
            let talks = matches!(script, Script::Talks | Script::UsesTools);
            if talks {
                media
                    .converse(PATIENCE)
                    .await
                    .context("the agent is not heard")?;
            }
            // Tools are used, and whoever breaks has broken by then.
            media
                .talk(A_WHILE, Ending::HangsUp, &self.carrier.truth)
                .await;
            // Whatever is told then is the caller's own, a number to dial included.
            let _ = self.carrier.stream_ended(door, &sid).await;
            self.carrier.status(door, &sid, "completed").await?;
        }
        self.script.send_replace(Script::Talks);
        Ok(())
    }

    /// More calls than there is room for: the last one is refused.
    pub async fn a_call_too_many(&mut self) -> anyhow::Result<()> {
        let door = self.carrier.door();
        let redis = self.cluster.redis.as_ref().context("no Redis")?;
        let began = Instant::now();
        while !redis.leased().await?.is_empty() {
            anyhow::ensure!(began.elapsed() < LONG, "slots do not come back");
            sleep(Duration::from_millis(100)).await;
        }
        let sids: Vec<String> = (0..3).map(|_| self.sid()).collect();
        let mut refused = 0;
        for sid in &sids {
            let rung = self.carrier.ring(door, sid).await?;
            refused += usize::from(!matches!(rung.answer, Answer::Connect(_)));
        }
        for sid in &sids {
            self.carrier.status(door, sid, "completed").await?;
        }
        anyhow::ensure!(refused > 0, "no caller is refused");
        Ok(())
    }

    /// A call that we place; waits until it is over.
    pub async fn a_call_that_is_placed(
        &mut self,
        key: &str,
        twilio: &FakeTwilio,
        records: &mut Records,
    ) -> anyhow::Result<()> {
        let words = &self.secrets.words;
        let body = json!({
            "to": CALLED, "ring_timeout": 5, "metadata": {"note": "the tenant's own"},
            "agent": {"instructions": words.agent, "greeting": words.agent},
        });
        let body = body.to_string();
        let began = Instant::now();
        // A store that is slow on a busy machine says that it cannot tell; the key stays the same.
        while self.post("/v1/calls", Some(key), &body, "once").await? >= 300 {
            let last = self.said.last();
            anyhow::ensure!(began.elapsed() < LONG, "a call is not placed: {last:?}");
            sleep(Duration::from_secs(1)).await;
        }
        // Who asked is told what it asked for.
        self.said.pop();
        let open = "SELECT COUNT(*) FROM outbound WHERE state <> 'over'";
        while records.count(open).await? > 0 {
            anyhow::ensure!(began.elapsed() < LONG * 2, "a placed call is not over");
            sleep(Duration::from_millis(100)).await;
        }
        anyhow::ensure!(twilio.dials(CALLED).await? == 1, "nobody was called");
        Ok(())
    }

    /// Requests that are refused, with everything in them that must not come back.
    pub async fn bad_requests(&mut self, key: Option<&str>) -> anyhow::Result<()> {
        let (words, secrets) = (self.secrets.words.clone(), self.secrets.clone());
        let sid = self.sid();
        let fields = [
            ("CallSid", sid.as_str()),
            ("AccountSid", ACCOUNT_SID),
            ("From", STRANGER),
            ("To", DIALED),
            ("SpeechResult", &words.caller),
        ];
        let public = format!("http://{}", self.cluster.door);
        for path in [
            "/webhook/incoming_call",
            "/webhook/call_status",
            "/webhook/voicemail",
        ] {
            // Signed by nobody we know, and well, with half of the fields.
            for (token, fields) in [
                ("no token of ours", &fields[..]),
                (AUTH_TOKEN, &fields[2..]),
            ] {
                let request = twilio::webhook(token, &public, path, fields);
                self.send(path, &request).await?;
            }
        }
        let event = json!([{"id": STRANGER, "eventType": "Microsoft.Communication.IncomingCall",
            "data": {"from": {"rawId": format!("4:{STRANGER}")}, "words": words.caller}}]);
        for secret in [secrets.event_grid.as_str(), &secrets.event_grid[1..]] {
            let path = format!("/acs/incomingcall?secret={secret}");
            self.post(&path, None, &event.to_string(), "").await?;
            self.post(&path, None, &words.caller, "").await?;
        }
        let almost = format!("{}x", key.unwrap_or(&secrets.operator));
        let call = json!({"to": STRANGER, "note": words.caller});
        for key in [None, Some(almost.as_str()), key] {
            for body in [
                call.to_string(),
                format!("{{\"to\": \"{STRANGER}\", {}", words.caller),
            ] {
                self.post("/v1/calls", key, &body, "again").await?;
            }
        }
        for path in [
            format!("/{STRANGER}/{}", words.caller),
            format!("/stats?token={}", secrets.operator),
            format!("/v1/calls?number={STRANGER}&{}=1", words.caller),
            format!("/twilio/media?ticket={}", words.key),
        ] {
            let host = self.cluster.door;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            self.send("GET", &request).await?;
        }
        Ok(())
    }

    /// Every page that the gateway shows.
    pub async fn pages(&mut self) -> anyhow::Result<()> {
        for path in PAGES {
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
                self.cluster.door, self.secrets.operator
            );
            let status = self.send(path, &request).await?;
            anyhow::ensure!(status == 200, "{path} answered {status}");
        }
        Ok(())
    }

    /// What commands say of the same settings, and of settings that are wrong; and what everybody
    /// on the machine sees of the process.
    pub fn commands(&mut self, gateway: &Path) -> anyhow::Result<()> {
        let replica = &self.cluster.replicas[0];
        for (name, wrong) in [
            ("check", false),
            ("check", true),
            ("serve", true),
            ("slots", false),
        ] {
            let settings = replica.environment().iter().map(|(name, value)| {
                // Too short for some, too long for others, and no address.
                let value = if wrong {
                    format!("x {value} x")
                } else {
                    value.clone()
                };
                (name.clone(), value)
            });
            let mut command = Command::new(gateway);
            command.arg(name).env_clear().envs(settings);
            let said = command.current_dir(self.cluster.directory()).output()?;
            for (stream, text) in [("stdout", said.stdout), ("stderr", said.stderr)] {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.said
                    .push((format!("{stream} of callgate {name}"), text));
            }
        }
        let pid = replica.pid().context("the replica does not run")?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline"))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        self.said.push(("/proc/<pid>/cmdline".to_owned(), line));
        Ok(())
    }

    fn sid(&mut self) -> String {
        let sid = sid(&mut self.random);
        self.marks.number("who rings", &caller(&sid));
        sid
    }

    async fn post(
        &mut self,
        path: &str,
        key: Option<&str>,
        body: &str,
        once: &str,
    ) -> anyhow::Result<u16> {
        let key = key.map_or(String::new(), |key| {
            format!("Authorization: Bearer {key}\r\n")
        });
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{key}Idempotency-Key: {once}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.cluster.door,
            body.len()
        );
        let place = path.split('?').next().unwrap_or(path);
        self.send(place, &request).await
    }

    /// Sends a request and keeps what is answered; returns its status.
    async fn send(&mut self, place: &str, request: &str) -> anyhow::Result<u16> {
        // By nginx some of it is not there.
        let replica = self.cluster.replicas[0].address;
        let reply = self.carrier.http.exchange(replica, request, LONG).await?;
        let place = format!("{} answer of {place}", reply.status);
        self.said.push((place, reply.body));
        Ok(reply.status)
    }
}
