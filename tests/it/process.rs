//! The program itself: its log, its signals and its exit codes.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use callgate::parrot::{Parrot, ParrotOptions};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    net::TcpListener,
    process::{Child, Command},
    sync::watch,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    audio::{FRAME, syllables},
    carrier::{ACCOUNT, CALLER, Carrier, PUBLIC_URL, TOKEN, call_sid, form, ringing},
    gateway::{drained, nobody_listens},
    line::{GUARD, Line, stop},
    rest::{Act, RestServer},
};

const OPS_TOKEN: &str = "an-operators-canary-token";
const AGENT_KEY: &str = "sk-canary-of-the-agent";
const TICKET_SECRET: &str = "a-canary-that-signs-tickets";

/// A gateway in a process of its own.
pub struct Program {
    child: Child,
    pub log: watch::Receiver<Vec<String>>,
    pub carrier: Carrier,
    _directory: tempfile::TempDir,
}

impl Program {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut child = command(settings, &directory).spawn().unwrap();
        let log = follow(child.stderr.take().unwrap());
        let found = until(&log, "listening").await;
        let (_, port) = found.split_once("127.0.0.1:").unwrap();
        let port = port.split(|letter: char| !letter.is_ascii_digit()).next();
        let address = format!("127.0.0.1:{}", port.unwrap());
        Self {
            carrier: Carrier::new(address.parse().unwrap()),
            child,
            log,
            _directory: directory,
        }
    }

    /// Brings a call and its media.
    pub async fn call(&self, sid: &str) -> Line {
        self.call_from(sid, CALLER).await
    }

    pub async fn call_from(&self, sid: &str, caller: &str) -> Line {
        let mut fields = ringing(sid);
        for (name, value) in &mut fields {
            if *name == "From" {
                *value = caller;
            }
        }
        let answer = self.carrier.webhook("/webhook/incoming_call", &fields);
        let answer = answer.await.twiml();
        let stream = answer.child("Connect").child("Stream");
        let ticket = stream.child("Parameter").attribute("value");
        let socket = self.carrier.open(stream.attribute("url")).await.unwrap();
        Line::begin(socket, sid, ticket).await
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    pub fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        let mut kill = std::process::Command::new("kill");
        assert!(kill.args([signal, &id]).status().unwrap().success());
    }

    pub async fn ended(&mut self) -> ExitStatus {
        drained(self.child.wait()).await.unwrap()
    }

    pub fn log(&self) -> String {
        self.log.borrow().join("\n")
    }
}

pub fn command(settings: &[(&str, &str)], directory: &tempfile::TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
    command
        .env_clear()
        .current_dir(directory)
        .env("NO_COLOR", "1")
        .env("RUST_LOG", "debug")
        .env("LISTEN", "127.0.0.1:0")
        .env("WORKERS", "1")
        .env("PUBLIC_URL", PUBLIC_URL)
        .env("TWILIO_AUTH_TOKEN", TOKEN)
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Asserts that the log has the lines that dashboards are built on, at their levels.
async fn assert_tells(log: &watch::Receiver<Vec<String>>, first: &str, second: &str, third: &str) {
    let masked = "+9*******4567";
    for (line, level) in [
        (
            format!("[CAPACITY] ACQUIRED call_id={first} active_calls=2/2"),
            "WARN",
        ),
        (
            format!("[CAPACITY] ACQUIRED call_id={second} active_calls=1/2"),
            "WARN",
        ),
        (
            format!("[CAPACITY] REJECTED call_id={third} active_calls=2 max=2"),
            "WARN",
        ),
        (
            format!("[CAPACITY] RELEASED call_id={first} active_calls=1/2"),
            "WARN",
        ),
        (
            format!("[CAPACITY] RELEASED call_id={second} active_calls=0/2"),
            "WARN",
        ),
        ("Connection registered: ".to_owned(), "INFO"),
        (
            format!(" (type=twilio, caller={masked}). Active connections: 1/1"),
            "INFO",
        ),
        ("Connection unregistered: ".to_owned(), "INFO"),
        ("s). Active connections: 0/1".to_owned(), "INFO"),
        ("Failed to register connection ".to_owned(), "WARN"),
        (" - connection limit reached".to_owned(), "WARN"),
        (
            format!("] Connected to OpenAI Realtime API for caller_id={masked}"),
            "INFO",
        ),
    ] {
        let found = until(log, &line).await;
        assert!(found.contains(&format!(" {level} ")), "{found}");
    }
}

/// Reads what a process says, to its end.
pub fn follow(said: impl AsyncRead + Unpin + Send + 'static) -> watch::Receiver<Vec<String>> {
    let mut lines = BufReader::new(said).lines();
    let (log, followed) = watch::channel(Vec::new());
    TaskTracker::new().spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            log.send_modify(|log| log.push(line));
        }
    });
    followed
}

/// Waits for a line of the log that has `wanted` in it.
pub async fn until(log: &watch::Receiver<Vec<String>>, wanted: &str) -> String {
    until_or_end(log, wanted).await.expect(wanted)
}

/// Waits for a line of the log that has `wanted` in it; `None` if the process ends without.
pub async fn until_or_end(log: &watch::Receiver<Vec<String>>, wanted: &str) -> Option<String> {
    let mut log = log.clone();
    let find = |lines: &Vec<String>| lines.iter().find(|line| line.contains(wanted)).cloned();
    let found = timeout(GUARD, log.wait_for(|lines| find(lines).is_some())).await;
    find(&*found.expect("the line came in time").ok()?)
}

#[tokio::test]
async fn the_log_tells_of_capacity_and_connections_and_of_nobody_in_person() {
    let record = tempfile::NamedTempFile::new().unwrap();
    let agent = Parrot::start(ParrotOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        answer_after: Duration::from_millis(100),
        record: Some(record.path().to_owned()),
        ..ParrotOptions::default()
    });
    let agent = agent.await.unwrap();
    let url = agent.url();
    let settings = [
        ("AGENT", "openai"),
        ("OPENAI_REALTIME_URL", url.as_str()),
        ("OPENAI_API_KEY", AGENT_KEY),
        ("OPS_TOKEN", OPS_TOKEN),
        ("TICKET_SECRET", TICKET_SECRET),
        ("MAX_ACTIVE_CALLS", "2"),
        ("MAX_CONNECTIONS", "1"),
        ("AGENT_VAD_SILENCE_MS", "200"),
        ("AGENT_INSTRUCTIONS", "canary instructions"),
    ];
    let mut program = Program::start(&settings).await;
    let (first, second, third) = (call_sid(), call_sid(), call_sid());
    let fields = ringing(&second);
    let answer = program.carrier.webhook("/webhook/incoming_call", &fields);
    let answer = answer.await.twiml();
    let line = program.call(&first).await;
    let stream = answer.child("Connect").child("Stream");
    let ticket = stream.child("Parameter").attribute("value").to_owned();
    let url = stream.attribute("url");
    assert_eq!(program.carrier.open(url).await.err(), Some(503));
    let fields = ringing(&third);
    let busy = program.carrier.webhook("/webhook/incoming_call", &fields);
    busy.await.twiml().last_words();
    let wrong = program.carrier.upgrade(url, Some("wrong")).await;
    assert_eq!(wrong.err(), Some(403));
    line.until_played(9_600).await; // The greeting,
    line.speak(syllables(1_100.0, 30));
    line.until_played(9_600 + 20 * FRAME).await; // and an answer.
    line.press("7");
    line.send(stop(&first));
    line.closed().await;
    let mut done = ringing(&second);
    done.retain(|(name, _)| *name != "CallStatus");
    done.push(("CallStatus", "completed"));
    program.carrier.webhook("/webhook/call_status", &done).await;
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0));
    until(&program.log, "stopped").await;

    assert_tells(&program.log, &first, &second, &third).await;
    let log = program.log();
    let registered = log.split_once("Connection registered: ").unwrap().1;
    let connection = registered.split_whitespace().next().unwrap();
    connection.parse::<uuid::Uuid>().unwrap();
    assert!(log.contains(&format!("[connection_id={connection}] Connected to ")));
    assert!(log.contains(&format!("Connection unregistered: {connection} (duration=")));
    for private in [
        CALLER,
        &CALLER[1..],
        &form(&[("", CALLER)])[1..],
        "972721234567",
        TOKEN,
        OPS_TOKEN,
        AGENT_KEY,
        TICKET_SECRET,
        &ticket,
        "s of speech",
        "you spoke for",
        "short tune",
        "canary instructions",
        "TEL AVIV",
    ] {
        assert!(!log.contains(private), "{private:?} is in the log");
    }
    agent.stop().await;
}

#[tokio::test]
async fn the_log_tells_of_each_message_once_and_of_nobody_in_person() {
    const PROBLEM: &str = r#"{"code":63016,"message":"+972501234567 has no template"}"#;
    const RECORDING: &str = "RE00000000000000000000000000000001";
    let rest = RestServer::start(&[Act::Answer(400, "", PROBLEM)]).await;
    let settings = [
        ("MAX_ACTIVE_CALLS", "1"),
        ("CALLS_OVER_CAPACITY_BEHAVIOR", "whatsapp"),
        ("TWILIO_API_BASE", &rest.url),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("WHATSAPP_FROM", "+972721234567"),
        (
            "WHATSAPP_TEMPLATE_SID",
            "HX00000000000000000000000000000001",
        ),
    ];
    let mut program = Program::start(&settings).await;
    let (first, refused) = (call_sid(), call_sid());
    for sid in [&first, &refused, &refused] {
        let fields = ringing(sid);
        let answer = program.carrier.webhook("/webhook/incoming_call", &fields);
        answer.await.twiml();
    }
    let failed = until(&program.log, "a WhatsApp message was not sent").await;
    for said in [
        " WARN ",
        "to=+9*******4567",
        "result=\"refused\"",
        "code=63016",
        "hint=\"is WHATSAPP_TEMPLATE_SID an approved template",
        &refused,
    ] {
        assert!(failed.contains(said), "{said} in {failed}");
    }
    for _ in 0..3 {
        let url = "https://api.twilio.com/canary/Recordings/RE1";
        let fields = [
            ("AccountSid", ACCOUNT),
            ("CallSid", &refused),
            ("RecordingSid", RECORDING),
            ("RecordingUrl", url),
            ("RecordingStatus", "completed"),
            ("RecordingDuration", "7"),
        ];
        let path = "/webhook/recording_status";
        let reply = program.carrier.webhook(path, &fields).await;
        assert_eq!(reply.status, 204);
    }
    let mut done = ringing(&first);
    done.retain(|(name, _)| *name != "CallStatus");
    done.push(("CallStatus", "completed"));
    program.carrier.webhook("/webhook/call_status", &done).await;
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0));
    until(&program.log, "stopped").await;
    let log = program.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("a caller has left a message"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    for said in [" INFO ", RECORDING, "duration_s=7", &refused] {
        assert!(told[0].contains(said), "{said} in {}", told[0]);
    }
    assert_eq!(log.matches("a WhatsApp message was not sent").count(), 1);
    let credentials = STANDARD.encode(format!("{ACCOUNT}:{TOKEN}"));
    for private in [&CALLER[1..], "972721234567", TOKEN, &credentials, "canary"] {
        assert!(!log.contains(private), "{private:?} is in the log");
    }
}

#[tokio::test]
async fn one_failed_start_names_every_mistake_and_opens_no_port() {
    // Did it listen, however briefly, this one would be in its way.
    let squatter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = squatter.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let listen = address.to_string();
    let settings = [
        ("LISTEN", listen.as_str()),
        ("PRODUCTION", "1"),
        ("PUBLIC_URL", "http://voice.example.com"),
        ("TWILIO_AUTH_TOKEN", ""),
        ("AGENT", "parrot"),
        ("TICKET_SECRET", "canary-short"),
        ("MAX_ACTIVE_CALLS", "many"),
        ("DRAIN_SECONDS", "-1"),
    ];
    let output = drained(command(&settings, &directory).output())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).unwrap();
    for name in [
        "PUBLIC_URL",
        "TWILIO_AUTH_TOKEN",
        "AGENT",
        "OPS_TOKEN",
        "TICKET_SECRET",
        "MAX_ACTIVE_CALLS=\"many\"",
        "DRAIN_SECONDS=\"-1\"",
    ] {
        assert!(told.contains(&format!("\n  {name}")), "{name} in {told}");
    }
    assert!(!told.contains("canary"), "{told}");
    assert!(!told.contains("listening"), "{told}");
    drop(squatter);
    nobody_listens(address).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_no_mistake_of_the_settings() {
    let squatter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = squatter.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let settings = [("LISTEN", listen.as_str())];
    let output = drained(command(&settings, &directory).output())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(71));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&listen), "{told}");
}

#[tokio::test]
async fn at_the_first_signal_a_live_call_goes_on_and_its_end_is_the_end() {
    let mut program = Program::start(&[]).await;
    let sid = call_sid();
    let line = program.call(&sid).await;
    line.until_played(FRAME).await;
    program.terminate();
    until(&program.log, " draining ").await;
    let played = line.until(|heard| Some(heard.played.len())).await;
    line.until_played(played + 10 * FRAME).await;
    assert!(line.is_open());
    line.send(stop(&sid));
    line.closed().await;
    assert_eq!(program.ended().await.code(), Some(0));
    nobody_listens(program.carrier.address).await;
}

#[tokio::test]
async fn a_live_call_outlasts_the_first_signal_by_the_time_that_is_set() {
    let mut program = Program::start(&[("DRAIN_SECONDS", "1")]).await;
    let line = program.call(&call_sid()).await;
    line.until_played(FRAME).await;
    program.terminate();
    assert_eq!(line.closed().await, 1012);
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_second_signal_ends_a_live_call_at_once() {
    let mut program = Program::start(&[("DRAIN_SECONDS", "86400")]).await;
    let line = program.call(&call_sid()).await;
    line.until_played(FRAME).await;
    program.terminate();
    until(&program.log, " draining ").await;
    program.terminate();
    line.closed().await; // In such a hurry it may be without a goodbye.
    assert_eq!(program.ended().await.code(), Some(0));
}
