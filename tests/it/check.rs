//! `callgate check`, as an operator runs it.

use std::{fs, process::Stdio};

use callgate::parrot::{Parrot, ParrotOptions};
use serde_json::Value;
use tokio::{io::AsyncReadExt, net::TcpListener, process::Command};
use tokio_util::task::TaskTracker;

use crate::{
    gateway::{TestGateway, drained},
    process::{Program, command},
};

pub const SECRET: &str = "sk-canary-of-the-check";

/// Runs the check; returns its exit code and what it printed.
pub async fn check(settings: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut check: Command = command(settings, &directory);
    check.arg("check").args(arguments).stdout(Stdio::piped());
    let output = drained(check.output()).await.unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(!told.contains(SECRET), "{told}");
    (output.status.code(), told)
}

pub fn line<'a>(told: &'a str, start: &str) -> &'a str {
    let found = told.lines().find(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no {start:?} in\n{told}"))
}

#[tokio::test]
async fn what_is_right_is_said_in_a_line_each() {
    let listen = ParrotOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        ..ParrotOptions::default()
    };
    let agent = Parrot::start(listen).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callgate.toml");
    fs::write(
        &file,
        format!(
            "[tenants.acme]\n[agents.other]\nurl = \"{}\"\n[campaigns.a]\ntenant = \"acme\"\n\
             agent = \"other\"\nnumbers = [\"+97221111111\", \"+97222222222\"]\n",
            agent.url()
        ),
    )
    .unwrap();
    let url = agent.url();
    let settings = [
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", SECRET),
        ("OPENAI_REALTIME_URL", url.as_str()),
        ("CALLGATE_CONFIG", file.to_str().unwrap()),
    ];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    for start in [
        "ok       settings: ",
        "ok       campaign file: 1 campaigns of 1 tenants, 2 numbers, 1 agents",
        "ok       templates: ",
        "ok       prompts: ",
        "ok       LISTEN: ",
        "ok       PUBLIC_URL: https://voice.example.com/",
        "ok       twilio: open",
        "warning  twilio's auth token: not tried: set TWILIO_ACCOUNT_SID",
        "warning  way in: nobody answers at PUBLIC_URL",
        "ok       slots: ",
        "ok       database: ",
        "ok       agent default: ws://127.0.0.1",
        "ok       agent other: ws://127.0.0.1",
    ] {
        line(&told, start);
    }
    assert_eq!(told.lines().count(), 13, "{told}");
    let (code, told) = check(&settings, &["--json"]).await;
    assert_eq!(code, Some(0), "{told}");
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["findings"].as_array().unwrap().len(), 13);
    assert_eq!(report["findings"][0]["level"], "ok");
    assert_eq!(report["findings"][0]["about"], "settings");
    agent.stop().await;
}

#[tokio::test]
async fn wrong_settings_are_said_in_a_line_each() {
    let settings = [("MAX_ACTIVE_CALLS", "many"), ("LISTEN", "everywhere")];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(1));
    line(&told, "error    settings: MAX_ACTIVE_CALLS=\"many\": ");
    line(&told, "error    settings: LISTEN=\"everywhere\": ");
    let (code, told) = check(&settings, &["--json"]).await;
    assert_eq!(code, Some(1));
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["ok"], false);
}

#[tokio::test]
async fn what_is_odd_is_a_warning_and_no_failure() {
    let settings = [
        ("PUBLIC_URL", ""),
        ("TWILIO_AUTH_TOKEN", ""),
        ("MAX_ACTIVE_CALLS", "200"),
        ("MAX_CONNECTIONS", "150"),
    ];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(
        &told,
        "warning  settings: MAX_CONNECTIONS=150 is below the 200 calls",
    );
    line(&told, "warning  PUBLIC_URL: not set");
    line(&told, "warning  twilio: closed: set TWILIO_AUTH_TOKEN");
    line(&told, "ok       agent default: the parrot");
    for url in [
        "http://voice.example.com",
        "https://localhost",
        "https://10.0.0.7",
    ] {
        let (code, told) = check(&[("PUBLIC_URL", url)], &[]).await;
        assert_eq!(code, Some(0), "{told}");
        line(&told, "warning  PUBLIC_URL: http");
    }
}

#[tokio::test]
async fn what_does_not_work_fails_the_check_with_its_place() {
    let squatter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = squatter.local_addr().unwrap().to_string();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("ws://{}/", closed.local_addr().unwrap());
    drop(closed);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callgate.toml");
    fs::write(&file, "[campaigns.a]\nmax_calls = \"many\"\n").unwrap();
    fs::create_dir_all(folder.path().join("twiml/en-US")).unwrap();
    fs::write(folder.path().join("twiml/en-US/busy.xml"), "<Response>").unwrap();
    fs::create_dir_all(folder.path().join("prompts/en-US")).unwrap();
    fs::write(folder.path().join("prompts/en-US/busy.wav"), "ID3").unwrap();
    let settings = [
        ("LISTEN", listen.as_str()),
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", SECRET),
        ("OPENAI_REALTIME_URL", gone.as_str()),
        ("CALLGATE_CONFIG", file.to_str().unwrap()),
        ("TEMPLATES_DIR", folder.path().to_str().unwrap()),
    ];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(1));
    assert_eq!(
        told.matches("error    campaign file: ").count(),
        2,
        "{told}"
    );
    assert!(line(&told, "error    campaign file: ").contains("callgate.toml:1:12: "));
    assert!(line(&told, "error    templates: ").contains("busy.xml:1"));
    assert!(line(&told, "error    prompts: ").contains("busy.wav: it is no WAV file"));
    line(&told, &format!("error    LISTEN: {listen} cannot be used"));
    line(
        &told,
        &format!("error    agent default: {gone} cannot be reached"),
    );
}

#[tokio::test]
async fn an_agent_behind_tls_needs_a_server_that_speaks_it() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut tcp, _)) = mute.accept().await {
            let _ = tcp.read(&mut [0; 16]).await;
            kept.push(tcp);
        }
    });
    let url = format!("wss://localhost:{}/", address.port());
    let settings = [
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", SECRET),
        ("OPENAI_REALTIME_URL", url.as_str()),
    ];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(1));
    line(
        &told,
        &format!("error    agent default: {url} cannot be reached: the agent was not ready"),
    );
}

#[tokio::test]
async fn a_gateway_that_serves_already_is_no_mistake() {
    let gateway = TestGateway::start().await;
    let listen = gateway.carrier.address.to_string();
    let (code, told) = check(&[("LISTEN", &listen), ("PUBLIC_URL", "")], &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "ok       LISTEN: a gateway serves");
    let (code, told) = check(&[("LISTEN", &listen)], &[]).await;
    assert_eq!(code, Some(1), "its public address leads nowhere: {told}");
    line(
        &told,
        "error    way in: nobody answers at PUBLIC_URL, though",
    );
    gateway.finish().await;
}

#[tokio::test]
async fn health_tells_by_its_exit_code_whether_the_gateway_is_alive() {
    let directory = tempfile::tempdir().unwrap();
    let health = async |listen: &str| {
        let mut health: Command = command(&[("LISTEN", listen)], &directory);
        let output = drained(health.arg("health").output()).await.unwrap();
        output.status.code()
    };
    let mut gateway = Program::start(&[]).await;
    let address = gateway.carrier.address.to_string();
    assert_eq!(health(&address).await, Some(0));
    assert_eq!(health("everywhere").await, Some(78));
    gateway.terminate();
    gateway.ended().await;
    assert_eq!(health(&address).await, Some(1));
}
