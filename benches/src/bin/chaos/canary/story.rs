//! Calls of all kinds with a gateway, and requests that are none: everything that could spill what
//! it was told.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use callgate_benches::carrier::{ACCOUNT_SID, AUTH_TOKEN, Carrier, Ending, caller};
use callgate_benches::cluster::Cluster;
use callgate_benches::twilio::{self, Answer};
use callgate_benches::{http, upgrade};
use rand::rngs::StdRng;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::agent::{MESSAGE, Script, Server};
use super::marks::Marks;
use super::pages::{self, Keys, Page};
use super::settings::{ID, Secrets};
use crate::fake_twilio::FakeTwilio;
use crate::lab::output_of;
use crate::life::sid;
use crate::records::Records;

/// Whom callers dial.
const DIALED: &str = "+97236123456";
/// Who is called.
const CALLED: &str = "+972502345679";
/// Who rings by ACS.
const BY_ACS: &str = "+972541234567";
/// Who stands in requests that are no calls.
const STRANGER: &str = "+97236123457";
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a call may take to be placed.
const LONG: Duration = Duration::from_secs(30);
/// Longer than an agent of these takes to break.
const A_WHILE: Duration = Duration::from_secs(2);
/// The page that never ends, and how long it is read.
const ENDLESS: &str = "/dashboard/events";
const READ_FOR: Duration = Duration::from_secs(3);
/// Pages that show calls while they live, which may be short.
const LIVE: [&str; 5] = [
    "/stats",
    "/dashboard",
    "/calls",
    "/v1/calls",
    "/metrics/summary",
];

/// A gateway, and what it has said so far.
pub struct Story<'a> {
    pub cluster: &'a Cluster,
    pub carrier: Arc<Carrier>,
    /// What the agent does next.
    pub script: watch::Sender<Script>,
    pub secrets: &'a Secrets,
    pub marks: &'a mut Marks,
    pub keys: Keys,
    pub records: Records,
    pub random: StdRng,
    /// Where it was asked, and what was answered, headers included.
    pub said: Vec<(String, String)>,
}

impl<'a> Story<'a> {
    pub fn new(
        cluster: &'a Cluster,
        (secrets, marks): (&'a Secrets, &'a mut Marks),
        (keys, records): (Keys, Records),
        script: watch::Sender<Script>,
        random: StdRng,
    ) -> Self {
        for (what, number) in [
            ("whom callers dial", DIALED),
            ("who rings by ACS", BY_ACS),
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
            keys,
            records,
            random,
            said: Vec::new(),
        }
    }

    /// One call for each thing that an agent does. While the first one talks, every page is looked at.
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
            let carrier = Arc::clone(&self.carrier);
            if script == Script::Talks {
                tokio::select! {
                    _ = media.talk(LONG * 2, Ending::HangsUp, &carrier.truth) => {
                        bail!("a call is over before its pages are looked at");
                    }
                    looked = self.pages() => looked?,
                }
            } else {
                // Tools are used, and whoever breaks has broken by then.
                media.talk(A_WHILE, Ending::HangsUp, &carrier.truth).await;
            }
            // Whatever is told then is the caller's own, a number to dial included.
            let _ = self.carrier.stream_ended(door, &sid).await;
            self.carrier.status(door, &sid, "completed").await?;
        }
        self.script.send_replace(Script::Talks);
        Ok(())
    }

    /// More calls than there is room for; returns one that is refused.
    pub async fn a_call_too_many(&mut self) -> anyhow::Result<String> {
        let door = self.carrier.door();
        let redis = self.cluster.redis.as_ref().context("no Redis")?;
        let began = Instant::now();
        while !redis.leased().await?.is_empty() {
            ensure!(began.elapsed() < LONG, "slots do not come back");
            sleep(Duration::from_millis(100)).await;
        }
        let sids: Vec<String> = (0..3).map(|_| self.sid()).collect();
        let mut refused = None;
        for sid in &sids {
            let rung = self.carrier.ring(door, sid).await?;
            if !matches!(rung.answer, Answer::Connect(_)) {
                refused = Some(sid.clone());
            }
        }
        for sid in &sids {
            self.carrier.status(door, sid, "completed").await?;
        }
        refused.context("no caller is refused")
    }

    /// A refused caller leaves a message.
    pub async fn a_message_is_left(&mut self, sid: &str) -> anyhow::Result<()> {
        let recording = self.marks.recording(&mut self.random);
        let url = format!(
            "https://api.twilio.com/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{recording}"
        );
        let from = caller(sid);
        let name = sid.replacen("CA", "RE", 1);
        for path in ["/webhook/voicemail", "/webhook/recording_status"] {
            let fields = [
                ("CallSid", sid),
                ("AccountSid", ACCOUNT_SID),
                ("From", &from),
                ("To", DIALED),
                ("RecordingSid", &name),
                ("RecordingUrl", &url),
                ("RecordingStatus", "completed"),
                ("RecordingDuration", "7"),
            ];
            self.webhook(path, &fields).await?;
        }
        Ok(())
    }

    /// A refused caller is written to, and the message does not arrive.
    pub async fn a_message_is_sent(&mut self, sid: &str, sent: &Server) -> anyhow::Result<()> {
        let began = Instant::now();
        while sent.asked().is_empty() {
            ensure!(began.elapsed() < LONG, "nobody is written to");
            sleep(Duration::from_millis(100)).await;
        }
        let to = format!("whatsapp:{}", caller(sid));
        let fields = [
            ("AccountSid", ACCOUNT_SID),
            ("MessageSid", MESSAGE),
            ("MessageStatus", "undelivered"),
            ("ErrorCode", "63003"),
            ("To", &to),
            ("From", "whatsapp:+972722234568"),
        ];
        let path = format!("/webhook/message_status/{sid}");
        self.webhook(&path, &fields).await
    }

    /// A call that comes by another carrier, `acs` or `web`, as the simulator plays it.
    pub async fn a_call_by(
        &mut self,
        carrier: &str,
        acs: SocketAddr,
        gateway: &Path,
    ) -> anyhow::Result<()> {
        let mut simulator = Command::new(gateway)
            .args(["simulate", "--carrier", carrier, "--talk-for", "2s"])
            .args(["--from", BY_ACS, "--to", DIALED, "--acs-resource-id", ID])
            // By nginx browsers do not come in.
            .args([
                "--url",
                &format!("http://{}", self.cluster.replicas[0].address),
            ])
            .args(["--public-url", &format!("http://{}", self.cluster.door)])
            .env_clear()
            .env("ACS_CONNECTION_STRING", self.secrets.acs_at(acs))
            .env("EVENTGRID_SECRET", &self.secrets.event_grid)
            .env("OPS_TOKEN", &self.secrets.operator)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let began = Instant::now();
        // How well its callers liked it is another question.
        while simulator.try_wait()?.is_none() {
            if LONG * 2 < began.elapsed() {
                simulator.kill()?;
            }
            self.glance().await?;
            sleep(Duration::from_millis(100)).await;
        }
        let connected = "SELECT carrier, COUNT(*) FROM calls WHERE connected_at IS NOT NULL \
                         GROUP BY carrier";
        while !self.records.counts(connected).await?.contains_key(carrier) {
            ensure!(began.elapsed() < LONG * 3, "no call comes by {carrier}");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// A call that we place; waits until it is over.
    pub async fn a_call_that_is_placed(&mut self, twilio: &FakeTwilio) -> anyhow::Result<()> {
        let key = self.keys.plain.clone();
        let words = &self.secrets.words;
        let body = json!({
            "to": CALLED, "ring_timeout": 5, "metadata": {"note": "the tenant's own"},
            "agent": {"instructions": words.agent, "greeting": words.agent},
        });
        let body = body.to_string();
        let began = Instant::now();
        // A store that is slow on a busy machine says that it cannot tell; the key stays the same.
        while self.post("/v1/calls", Some(&key), &body, "once").await? >= 300 {
            let last = self.said.last();
            ensure!(began.elapsed() < LONG, "a call is not placed: {last:?}");
            sleep(Duration::from_secs(1)).await;
        }
        // Who asked is told what it asked for.
        self.said.pop();
        let open = "SELECT COUNT(*) FROM outbound WHERE state <> 'over'";
        while self.records.count(open).await? > 0 {
            ensure!(began.elapsed() < LONG * 2, "a placed call is not over");
            self.glance().await?;
            sleep(Duration::from_millis(100)).await;
        }
        ensure!(twilio.dials(CALLED).await? == 1, "nobody was called");
        Ok(())
    }

    /// Requests that are refused, with everything in them that must not come back.
    pub async fn bad_requests(&mut self) -> anyhow::Result<()> {
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
        let key = self.keys.plain.clone();
        let almost = format!("{key}x");
        let call = json!({"to": STRANGER, "note": words.caller});
        for key in [None, Some(almost.as_str()), Some(key.as_str())] {
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
            self.send("a strange path", &request).await?;
        }
        Ok(())
    }

    /// Everything that can be asked for with GET, of every call that there is.
    pub async fn pages(&mut self) -> anyhow::Result<()> {
        let calls = self.records.calls().await?.into_iter();
        let calls: Vec<String> = calls.map(|row| row.call).collect();
        for page in pages::all(self.secrets, &self.keys, &calls)? {
            self.look(&page).await?;
        }
        Ok(())
    }

    /// What shows calls while they live.
    async fn glance(&mut self) -> anyhow::Result<()> {
        for page in pages::all(self.secrets, &self.keys, &[])? {
            if LIVE.contains(&page.place.as_str()) {
                self.look(&page).await?;
            }
        }
        Ok(())
    }

    async fn look(&mut self, page: &Page) -> anyhow::Result<()> {
        let bearer = page.bearer.as_ref();
        let bearer = bearer.map_or(String::new(), |bearer| {
            format!("Authorization: Bearer {bearer}\r\n")
        });
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n{bearer}\r\n",
            page.path, self.cluster.door
        );
        let status = self.send(&page.place, &request).await?;
        let is_as_it_should = status == 200 || !page.is_shown;
        ensure!(is_as_it_should, "{} answered {status}", page.place);
        Ok(())
    }

    /// What commands say of the same settings, and of settings that are wrong; and what everybody
    /// on the machine sees of the process.
    pub async fn commands(&mut self, gateway: &Path) -> anyhow::Result<()> {
        let replica = &self.cluster.replicas[0];
        let delete = ["records", "delete", "--number", STRANGER];
        for (arguments, wrong) in [
            (&["check"][..], false),
            (&["check"], true),
            (&["serve"], true),
            (&["slots"], false),
            (&["slots"], true),
            (&["events", "list"], false),
            (&["events", "count"], false),
            (&["events", "list"], true),
            (&["keys", "list"], false),
            (&["keys", "list"], true),
            (&delete, false),
            (&delete, true),
        ] {
            let name = arguments[..arguments.len().min(2)].join(" ");
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
            command.args(arguments).env_clear().envs(settings);
            command.current_dir(self.cluster.directory());
            let said = output_of(command).await?;
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

    /// Posts what only Twilio can say, which is taken.
    async fn webhook(&mut self, path: &str, fields: &[(&str, &str)]) -> anyhow::Result<()> {
        let public = format!("http://{}", self.cluster.door);
        let request = twilio::webhook(AUTH_TOKEN, &public, path, fields);
        let status = self.send(path, &request).await?;
        ensure!(matches!(status, 200 | 204), "{path} answered {status}");
        Ok(())
    }

    /// Sends a request and keeps all that is answered; returns its status.
    async fn send(&mut self, place: &str, request: &str) -> anyhow::Result<u16> {
        // By nginx some of it is not there.
        let replica = self.cluster.replicas[0].address;
        // Of this version no answer comes in pieces, within which nothing would be found.
        let request = request.replacen(" HTTP/1.1\r\n", " HTTP/1.0\r\n", 1);
        let mut stream = http::connect(replica).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let patience = if place == ENDLESS { READ_FOR } else { LONG };
        let read = timeout(patience, stream.read_to_end(&mut answer)).await;
        ensure!(read.is_ok() || place == ENDLESS, "{place} does not end");
        let head = upgrade::head(&answer).with_context(|| format!("{place} says nothing"))?;
        let status = http::status(head)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        self.said.push((place.to_owned(), answer));
        Ok(status)
    }
}
