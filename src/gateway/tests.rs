use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use secrecy::SecretString;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    sync::broadcast::{Receiver, error::RecvError},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{ClientRequestBuilder, Message},
};

use super::{unheard::ask_after_some, *};
use crate::{
    call::{EndReason, Farewell},
    config::Config,
    loopback::{Loopback, Reply},
    record::{Sql, What, unix_millis_i64},
    webhook::twilio::signature::sign,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";

type Socket = WebSocketStream<TcpStream>;

/// Starts a gateway, and returns it with the folder of its database, which has to outlive it: SQLite
/// takes a file that is made anew under the name of one that is open for the same.
async fn gateway(settings: &[(&str, &str)]) -> (TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::load(|name| {
        let setting = settings.iter().find(|(set, _)| *set == name);
        setting
            .map(|(_, value)| (*value).to_owned())
            .or_else(|| match name {
                "LISTEN" => Some("127.0.0.1:0".to_owned()),
                "TWILIO_AUTH_TOKEN" => Some(TOKEN.to_owned()),
                "DATABASE_URL" => Some(format!("sqlite://{}/records.db", folder.path().display())),
                _ => None,
            })
    });
    (folder, Gateway::start(config.unwrap()).await.unwrap())
}

/// Rings; returns the TwiML.
async fn ring(running: &Running, call: &str) -> String {
    let url = format!("http://{}/webhook/incoming_call", running.address());
    let fields = [
        ("AccountSid", ACCOUNT),
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
        "accountSid": ACCOUNT, "callSid": call, "streamSid": "MZ1",
        "customParameters": {"ticket": ticket},
    }});
    socket.send(Message::text(start.to_string())).await.unwrap();
    socket
}

/// Has a caller be heard: who is silent for 10 s has a broken stream.
async fn heard(socket: &mut Socket) {
    let silence = STANDARD.encode([0xFF; 160]);
    let media = json!({"event": "media", "streamSid": "MZ1", "media": {
        "track": "inbound", "chunk": "1", "timestamp": "0", "payload": silence,
    }});
    socket.send(Message::text(media.to_string())).await.unwrap();
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
    let (_folder, running) = gateway(&[("WORKERS", "1")]).await;
    let mut steps = running.watch();
    let mut other = connect(&running, "CA1").await;
    step(&mut steps, "CA1", |what| *what == What::FirstWords).await;
    let mut socket = connect(&running, "CApanic").await;
    heard(&mut other).await;
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
async fn a_call_that_is_hung_up_as_its_media_comes_ends_for_that_reason() {
    let (_folder, running) = gateway(&[("WORKERS", "1")]).await;
    let mut steps = running.watch();
    let _socket = connect(&running, "CAended").await;
    let ended = step(&mut steps, "CAended", |what| matches!(what, What::Ended(_))).await;
    assert_eq!(ended, What::Ended(EndReason::Requested));
    freed(&running, 0).await;
    running.drain(std::future::pending()).await;
}

#[tokio::test]
async fn an_agent_that_another_worker_connected_moves_to_the_media_sockets_worker() {
    let (_folder, running) = gateway(&[("WORKERS", "2")]).await;
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

/// Returns the calls that are not over in their record.
async fn open_calls(running: &Running) -> Vec<String> {
    let database = &running.gateway.records.database;
    let rows = database.read(|pool| async move {
        let sql = "SELECT carrier_call FROM calls WHERE rank < 90 ORDER BY carrier_call";
        Sql::new(sql).read(&pool).await
    });
    let rows = rows.await.unwrap();
    rows.iter().map(|row| sqlx::Row::get(row, 0)).collect()
}

#[tokio::test]
async fn a_call_whose_end_nobody_has_told_is_asked_after_and_closed() {
    let twilio = Loopback::start(|_, request| {
        let line = request.line.trim_end_matches('?'); // It asks with an empty query.
        let of = |call: &str| line.ends_with(&format!("/Calls/{call}.json"));
        let sid = line.rsplit('/').next().unwrap().trim_end_matches(".json");
        let found =
            |status: &str| Reply::Answer(200, json!({"sid": sid, "status": status}).to_string());
        match () {
            () if of("CAtalks") => found("in-progress"),
            () if of("CAgone") => Reply::Answer(404, json!({"code": 20_404}).to_string()),
            () if of("CAunknown") => Reply::Answer(500, String::new()),
            () => found("completed"),
        }
    })
    .await;
    let (_folder, running) = gateway(&[
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_API_BASE", &twilio.url("")),
    ])
    .await;
    let mut steps = running.watch();
    let mut live = connect(&running, "CAlive").await;
    step(&mut steps, "CAlive", |what| *what == What::FirstWords).await;
    let now = unix_millis_i64();
    let forgotten = [
        "CAtalks",
        "CAgone",
        "CAunknown",
        "CAover1",
        "CAover2",
        "web-7",
    ];
    let write = running.gateway.records.database.write(move |writing| {
        Box::pin(async move {
            let mut sql = Sql::new(
                "INSERT INTO calls (call, carrier_call, carrier, direction, tenant, state, rank, \
                 rang_at) VALUES ",
            );
            sql.rows(&forgotten, |fields, name| {
                let call = CarrierCallId::try_from((*name).to_owned()).unwrap();
                fields.push(crate::call::CallId::of(&call).to_string());
                fields.push(*name).push(call.carrier().as_str());
                fields.push("inbound").push("default").push("connected");
                fields.push(50_i64).push(now);
            });
            sql.execute(writing).await
        })
    });
    write.await.unwrap();
    heard(&mut live).await;
    // They are young yet; and an hour later they are not.
    assert_eq!(
        ask_after_some(&running.gateway, now + 61_000)
            .await
            .unwrap(),
        0
    );
    assert_eq!(twilio.requests().len(), 0);
    let closed = ask_after_some(&running.gateway, now + 3_600_000)
        .await
        .unwrap();
    assert_eq!(closed, 4);
    heard(&mut live).await;
    let expected = ["CAlive", "CAtalks", "CAunknown"];
    let recorded = async {
        while open_calls(&running).await != expected {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), recorded)
        .await
        .expect("their ends are recorded");
    assert!(
        twilio
            .requests()
            .iter()
            .all(|it| !it.line.contains("CAlive"))
    );
    // Another replica has had its turn within the minute.
    let asked = twilio.requests().len();
    ask_after_some(&running.gateway, now + 3_601_000)
        .await
        .unwrap();
    assert_eq!(twilio.requests().len(), asked);
    live.close(None).await.unwrap();
    freed(&running, 0).await;
    running.drain(std::future::pending()).await;
}
