//! Calls from a browser.

use callgate::{EndReason, What, parrot::ParrotOptions};
use serde_json::{Value, json};
use std::{future::ready, time::Duration};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{ClientRequestBuilder, Error},
};

use crate::{
    audio::{loudness, share_of},
    carrier::{PUBLIC_URL, Socket},
    gateway::{Settings, TestGateway},
    pcm::{FRAME, PcmLine, Tongue, syllables},
};

/// How long the parrot's tune is.
const TUNE: usize = 60 * FRAME;

#[tokio::test]
async fn a_browser_is_heard_and_hears() {
    let gateway = start(&[]).await;
    let line = call(&gateway).await;
    let state = line.told(|told| told["Kind"] == "State").await;
    assert_eq!(state["State"], "connected");
    line.until_played(TUNE).await;
    assert!(loudness(&line.played(0)) > 1_000.0);
    let before = line.played(0).len() * 3;
    line.speak(syllables(1_100.0, 50));
    line.until_played(before + 40 * FRAME).await;
    let share = share_of(1_100.0, &line.played(before));
    assert!(share > 0.7, "{share}");
    line.send(json!({"Kind": "Ping", "Id": 7}));
    line.told(|told| *told == json!({"Kind": "Pong", "Id": 7}))
        .await;
    line.told(|told| told["Kind"] == "Transcription").await;

    assert_eq!(gateway.active_calls().await, 1);
    line.close();
    assert_eq!(ended(&gateway).await, EndReason::CallerHungUp);
    gateway.until_active(0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn speaking_over_the_agent_stops_the_page() {
    let gateway = start(&[]).await;
    let line = call(&gateway).await;
    line.until_played(15 * FRAME).await;
    line.speak(syllables(1_100.0, 30));
    let played = line.until(|heard| heard.stops.first().copied()).await;
    assert!(played < TUNE, "the tune was over before the caller spoke");
    line.close();
    gateway.until_active(0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_browser_for_which_there_is_no_room_is_told_so() {
    let gateway = start(&[("MAX_ACTIVE_CALLS", "1")]).await;
    let first = call(&gateway).await;
    first.told(|told| told["State"] == "connected").await;
    let refused = call(&gateway).await;
    refused.told(|told| told["State"] == "busy").await;
    assert_eq!(refused.closed().await, 4429);
    assert!(loudness(&refused.played(0)) > 300.0);
    assert_eq!(gateway.active_calls().await, 1);
    first.close();
    gateway.until_active(0).await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_page_of_another_site_is_refused() {
    let gateway = start(&[]).await;
    for origin in [
        "https://evil.example",
        "null",
        "https://voice.example.com.evil.example",
    ] {
        let opened = open(&gateway, "/web/ws", Some(origin)).await;
        assert_eq!(opened.err(), Some(403), "{origin}");
    }
    gateway.finish().await;
}

/// A site whose own name leads here has pages of the same origin, and needs no token.
#[tokio::test]
async fn without_tokens_no_page_is_served_nor_heard_under_a_name_of_others() {
    let gateway = start(&[]).await;
    let port = gateway.carrier.address.port();
    let table = [
        (format!("127.0.0.1:{port}"), true),
        (format!("localhost:{port}"), true),
        (format!("[::1]:{port}"), true),
        ("voice.example.com".to_owned(), true),
        (format!("evil.example:{port}"), false),
        ("voice.example.com.evil.example".to_owned(), false),
        ("192.0.2.1".to_owned(), false),
        (String::new(), false),
    ];
    for (host, is_ours) in table {
        let origin = format!("http://{host}");
        let uri = format!("ws://{host}/web/ws");
        let uri = uri
            .parse()
            .unwrap_or_else(|_| "ws://x/web/ws".parse().unwrap());
        let request = ClientRequestBuilder::new(uri).with_header("Origin", origin);
        let tcp = TcpStream::connect(gateway.carrier.address).await.unwrap();
        let opened = client_async(request, tcp).await;
        assert_eq!(opened.is_ok(), is_ours, "{host}");
        if let Ok((socket, _)) = opened {
            PcmLine::over(socket, Tongue::Web).close();
            ended(&gateway).await;
        }
        for path in ["/", "/web/web.js"] {
            let page = gateway.carrier.get(path).header("Host", &host);
            let status = page.send().await.unwrap().status();
            assert_eq!(status.is_success(), is_ours, "{host}{path}: {status}");
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_campaign_that_there_is_not_is_said_to_be_none() {
    let gateway = start(&[]).await;
    let socket = open(&gateway, "/web/ws?campaign=sales", Some(PUBLIC_URL)).await;
    let line = PcmLine::over(socket.unwrap(), Tongue::Web);
    assert_eq!(line.closed().await, 4404);
    gateway.finish().await;
}

#[tokio::test]
async fn in_production_a_call_takes_a_token_and_a_token_is_good_once() {
    let settings = [
        ("PRODUCTION", "1"),
        ("OPS_TOKEN", "operators-have-a-token"),
        ("TICKET_SECRET", "the same on every replica"),
        ("WEB_CALLS", "1"),
        // Nobody is there: a call that begins ends with an apology.
        ("OPENAI_REALTIME_URL", "wss://127.0.0.1:1/"),
    ];
    let gateway = TestGateway::with_agent("", &settings).await;
    let line = |path: String| {
        let gateway = &gateway;
        async move {
            let socket = open(gateway, &path, Some(PUBLIC_URL)).await.unwrap();
            PcmLine::over(socket, Tongue::Web)
        }
    };
    for path in ["/web/ws", "/web/ws?token=", "/web/ws?token=a.b"] {
        assert_eq!(line(path.to_owned()).await.closed().await, 4401, "{path}");
    }
    // Without its tables, which a new database takes a while to get, a token is in the log alone.
    let audit = "SELECT actor, action, tenant, became FROM audit";
    assert!(gateway.database.ask(audit).await.is_empty());
    let order = gateway.carrier.post("/web/tokens").json(&json!({}));
    let refused = order.try_clone().unwrap().send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let made = order
        .bearer_auth("operators-have-a-token")
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    let row = r#"operator:bearer web_tokens.create default {"campaign":"default"}"#;
    assert_eq!(gateway.database.ask(audit).await, [row]);
    let path = format!("/web/ws?token={}", made["token"].as_str().unwrap());
    let first = line(path.clone()).await;
    first.told(|told| told["State"] == "connected").await;
    assert_eq!(line(path.clone()).await.closed().await, 4401);
    first.close();
    ended(&gateway).await;
    assert_eq!(line(path).await.closed().await, 4401);
    gateway.drain(ready(())).await;
}

pub async fn start(settings: Settings<'_>) -> TestGateway {
    let parrot = ParrotOptions {
        answer_after: Duration::from_millis(100),
        ..ParrotOptions::default()
    };
    let mut settings = settings.to_vec();
    settings.push(("AGENT_VAD_SILENCE_MS", "200"));
    TestGateway::with_parrot(parrot, &settings).await
}

/// Calls from a page of the gateway's own.
pub async fn call(gateway: &TestGateway) -> PcmLine {
    let socket = open(gateway, "/web/ws", Some(PUBLIC_URL)).await;
    PcmLine::over(socket.unwrap(), Tongue::Web)
}

/// # Errors
/// With the status if the upgrade is refused.
async fn open(gateway: &TestGateway, path: &str, origin: Option<&str>) -> Result<Socket, u16> {
    let uri = format!("ws://{}{path}", gateway.carrier.address);
    let mut request = ClientRequestBuilder::new(uri.parse().unwrap());
    if let Some(origin) = origin {
        request = request.with_header("Origin", origin);
    }
    let tcp = TcpStream::connect(gateway.carrier.address).await.unwrap();
    match client_async(request, tcp).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// Waits until a browser's call has ended.
pub async fn ended(gateway: &TestGateway) -> EndReason {
    let ended = |step: &What| {
        let What::Ended(reason) = step else {
            return None;
        };
        Some(*reason)
    };
    gateway.until_step_of("web-", ended).await
}
