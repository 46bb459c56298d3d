use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use secrecy::SecretString;
use serde_json::json;
use tokio::{
    net::TcpStream,
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{ClientRequestBuilder, Message},
};

use super::*;
use crate::call::Farewell;
use crate::webhook::twilio::signature::sign;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

type Socket = WebSocketStream<TcpStream>;

async fn gateway(settings: &[(&str, &str)]) -> Running {
    let database = tempfile::NamedTempFile::new().unwrap();
    let config = Config::load(|name| match name {
        "LISTEN" => Some("127.0.0.1:0".to_owned()),
        "TWILIO_AUTH_TOKEN" => Some(TOKEN.to_owned()),
        "DATABASE_URL" => Some(format!("sqlite:{}", database.path().display())),
        _ => {
            let setting = settings.iter().find(|(set, _)| *set == name);
            setting.map(|(_, value)| (*value).to_owned())
        }
    });
    Gateway::start(config.unwrap()).await.unwrap()
}

/// Rings; returns the TwiML.
async fn ring(running: &Running, call: &str) -> String {
    let url = format!("http://{}/webhook/incoming_call", running.address());
    let fields = [
        ("CallSid", call),
        ("From", "+972501234567"),
        ("To", "+972721234567"),
    ];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Another test may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let signature = sign(&SecretString::from(TOKEN), &url, &fields);
    let request = reqwest::Client::new()
        .post(&url)
        .header("X-Twilio-Signature", signature);
    let response = request.form(&fields).send().await.unwrap();
    response.text().await.unwrap()
}

/// Rings and brings the media.
async fn connect(running: &Running, call: &str) -> Socket {
    let twiml = ring(running, call).await;
    let (_, rest) = twiml
        .split_once(r#"name="ticket" value=""#)
        .expect("a ticket");
    let (ticket, _) = rest.split_once('"').unwrap();
    let url = format!("ws://{}/twilio/media", running.address());
    let signature = sign(&SecretString::from(TOKEN), &url, &[]);
    let request = ClientRequestBuilder::new(url.parse().unwrap());
    let request = request.with_header("X-Twilio-Signature", signature);
    let tcp = TcpStream::connect(running.address()).await.unwrap();
    let (mut socket, _) = client_async(request, tcp).await.unwrap();
    let start = json!({"event": "start", "streamSid": "MZ1", "start": {
        "accountSid": "AC1", "callSid": call, "streamSid": "MZ1",
        "customParameters": {"ticket": ticket},
    }});
    socket.send(Message::text(start.to_string())).await.unwrap();
    socket
}

async fn step(steps: &mut Receiver<Step>, call: &str, wanted: impl Fn(&What) -> bool) -> What {
    let found = async {
        loop {
            match steps.recv().await {
                Ok(step) if step.call.as_str() == call && wanted(&step.what) => return step.what,
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => panic!("the gateway is gone"),
            }
        }
    };
    timeout(Duration::from_secs(10), found)
        .await
        .expect("the step comes")
}

async fn freed(running: &Running, active: u32) {
    let free = async {
        while running.gateway.admission.occupancy().active != active {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), free)
        .await
        .expect("the slot comes back");
}

#[tokio::test]
async fn a_panic_in_one_call_ends_that_call_only_and_its_slot_comes_back() {
    let running = gateway(&[("WORKERS", "1")]).await;
    let mut steps = running.watch();
    let mut other = connect(&running, "CA1").await;
    step(&mut steps, "CA1", |what| *what == What::FirstWords).await;
    let mut socket = connect(&running, "CApanic").await;
    let ended = step(&mut steps, "CApanic", |what| matches!(what, What::Ended(_))).await;
    assert_eq!(ended, What::Ended(EndReason::Panicked));
    let closed = async { while let Some(Ok(_)) = socket.next().await {} };
    timeout(Duration::from_secs(10), closed)
        .await
        .expect("the socket closes");
    freed(&running, 1).await;
    let call = CarrierCallId::try_from("CApanic".to_owned()).unwrap();
    assert_eq!(running.gateway.farewells.of(&call), Some(Farewell::Apology));
    assert!(
        running
            .gateway
            .metrics
            .text(|_| {})
            .contains("call_panics_total 1")
    );
    // The other call is still heard, on the same worker.
    while !matches!(other.next().await, Some(Ok(Message::Text(_)))) {}
    other.close(None).await.unwrap();
    step(&mut steps, "CA1", |what| matches!(what, What::Ended(_))).await;
    freed(&running, 0).await;
    running.drain(std::future::pending()).await;
}

#[tokio::test]
async fn an_agent_that_another_worker_connected_moves_to_the_media_sockets_worker() {
    let running = gateway(&[("WORKERS", "2")]).await;
    let mut steps = running.watch();
    let mut sockets = Vec::new();
    // Connections go to the workers in turn: with two for each call, some agents must move.
    for number in 0..6 {
        let call = format!("CA{number}");
        sockets.push(connect(&running, &call).await);
        step(&mut steps, &call, |what| *what == What::FirstWords).await;
    }
    let metrics = running.gateway.metrics.text(|_| {});
    let moved = metrics
        .lines()
        .find_map(|line| line.strip_prefix("agents_moved_total "));
    assert_ne!(moved, Some("0"));
    drop(sockets);
    freed(&running, 0).await;
    running.drain(std::future::pending()).await;
}
