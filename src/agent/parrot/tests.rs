//! The parrot as a client meets it, over loopback.

use base64::{Engine, engine::general_purpose::STANDARD};
use clap::Parser;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message},
};

use super::{
    hearing::level_db,
    voice::{at_level, times},
    *,
};
use crate::chunk::{SILENT_SAMPLE, duration_of};

/// Long enough for a busy machine; nothing here takes so long.
const GUARD: Duration = Duration::from_secs(20);

/// How long nothing has to happen to be taken for silence.
const HUSH: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_caller_is_greeted_and_hears_itself() {
    let directory = tempfile::tempdir().unwrap();
    let record = directory.path().join("record.jsonl");
    let parrot = start(ParrotOptions {
        answer_after: Duration::from_millis(50),
        record: Some(record.clone()),
        ..ParrotOptions::default()
    })
    .await;
    let mut client = Client::connect(&parrot).await.unwrap();
    client.update().await;
    client.create_response().await;
    let greeting = client.answer().await;
    assert_eq!(duration_of(greeting.len()), Duration::from_millis(1_200));
    assert!((level_db(&greeting) + 18.0).abs() < 1.0);

    let wave: Vec<f32> = times()
        .take(8_000)
        .map(|time| (3_000.0 * time).sin())
        .collect();
    let word = at_level(&wave, 0.1);
    client.speak(&[0xFF; 4_000]).await;
    client.speak(&word).await;
    client.speak(&[SILENT_SAMPLE; 4_800]).await;
    let answer = client.answer().await;
    let voiced: Vec<u8> = answer
        .into_iter()
        .filter(|&sample| sample != SILENT_SAMPLE)
        .collect();
    assert!(voiced.len().abs_diff(word.len()) < 160, "{}", voiced.len());
    assert!((level_db(&voiced) - level_db(&word)).abs() < 1.0);

    assert_eq!(parrot.sessions(), 1);
    parrot.stop().await;
    assert_eq!(client.closed().await, 1001);
    let record = std::fs::read_to_string(record).unwrap();
    let kinds = record
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone());
    let kinds: Vec<Value> = kinds.collect();
    assert_eq!(kinds[..2], ["session.update", "response.create"]);
    assert_eq!(kinds.len(), 2 + 25 + 50 + 30);
}

#[tokio::test]
async fn an_echo_comes_at_once() {
    let parrot = start(ParrotOptions {
        echo: true,
        ..ParrotOptions::default()
    })
    .await;
    let mut client = Client::connect(&parrot).await.unwrap();
    client.update().await;
    for frame in 0..50_u8 {
        client.speak(&[frame; 160]).await;
        let echo = client.event("response.output_audio.delta").await;
        assert_eq!(audio(&echo), [frame; 160]);
    }
    drop(client);
    parrot.stop().await;
}

#[tokio::test]
async fn upgrades_fail_as_told() {
    for (fault, status) in [
        (Fault::Unauthorized, 401),
        (Fault::RateLimit, 429),
        (Fault::Unavailable, 503),
    ] {
        let parrot = faulty(fault).await;
        match Client::connect(&parrot).await.map(|_| ()) {
            Err(Error::Http(response)) => assert_eq!(response.status(), status),
            other => panic!("{fault:?}: {other:?}"),
        }
        parrot.stop().await;
    }
    let parrot = faulty(Fault::Refuse).await;
    assert!(Client::connect(&parrot).await.is_err());
    parrot.stop().await;
    for fault in [Fault::HangTcp, Fault::HangUpgrade] {
        let parrot = faulty(fault).await;
        let connecting = timeout(HUSH, Client::connect(&parrot)).await;
        assert!(connecting.is_err(), "{fault:?}");
        parrot.stop().await;
    }
    let parrot = faulty(Fault::HangSession).await;
    let mut client = Client::connect(&parrot).await.unwrap();
    assert!(timeout(HUSH, client.socket.next()).await.is_err());
    drop(client);
    parrot.stop().await;
}

#[tokio::test]
async fn sessions_end_as_told() {
    for (fault, code) in [
        (Fault::EarlyClose, 1000),
        (Fault::CloseMidCall, 1011),
        (Fault::Expired, 1001),
    ] {
        let parrot = faulty(fault).await;
        let mut client = Client::connect(&parrot).await.unwrap();
        client.update().await;
        client.create_response().await;
        assert_eq!(client.closed().await, code, "{fault:?}");
        drop(client);
        parrot.stop().await;
    }
}

#[tokio::test]
async fn responses_go_wrong_as_told() {
    for (fault, code) in [
        (Fault::FailedResponse, "insufficient_quota"),
        (Fault::RateLimitedResponse, "rate_limit_exceeded"),
    ] {
        let parrot = faulty(fault).await;
        let mut client = Client::connect(&parrot).await.unwrap();
        client.update().await;
        client.create_response().await;
        let done = client.event("response.done").await;
        let details = &done["response"]["status_details"];
        assert_eq!(details["error"]["code"], code);
        drop(client);
        parrot.stop().await;
    }
    let parrot = faulty(Fault::WrongFormat).await;
    let mut client = Client::connect(&parrot).await.unwrap();
    let updated = client.update().await;
    let format = &updated["session"]["audio"]["output"]["format"];
    assert_eq!(*format, json!({ "type": "audio/pcm", "rate": 24_000 }));
    drop(client);
    parrot.stop().await;
}

#[tokio::test]
async fn a_stalled_session_is_silent_but_alive() {
    let parrot = faulty(Fault::Stall).await;
    let mut client = Client::connect(&parrot).await.unwrap();
    client.update().await;
    client.create_response().await;
    for _ in 0..3 {
        client.event("response.output_audio.delta").await;
    }
    assert!(timeout(HUSH, client.socket.next()).await.is_err());
    client.send(Message::Ping("still there?".into())).await;
    assert!(client.next().await.is_pong());
    drop(client);
    parrot.stop().await;
}

#[tokio::test]
async fn garbage_is_mixed_in() {
    let parrot = faulty(Fault::Garbage).await;
    let mut client = Client::connect(&parrot).await.unwrap();
    client.update().await;
    client.create_response().await;
    let (mut binary, mut broken, mut sound) = (0, 0, 0);
    while binary < 2 || broken < 10 || sound < 5 {
        match client.next().await {
            Message::Binary(_) => binary += 1,
            Message::Text(text) => match serde_json::from_str::<Value>(&text) {
                Ok(event) if event["type"].is_string() => sound += 1,
                Ok(_) | Err(_) => broken += 1,
            },
            other @ (Message::Ping(_)
            | Message::Pong(_)
            | Message::Close(_)
            | Message::Frame(_)) => {
                panic!("{other:?}")
            }
        }
    }
    drop(client);
    parrot.stop().await;
}

#[tokio::test]
async fn a_flood_and_a_huge_message_are_as_large_as_told() {
    let parrot = faulty(Fault::Flood).await;
    let mut client = Client::connect(&parrot).await.unwrap();
    client.update().await;
    client.create_response().await;
    let flood = client.answer().await;
    assert_eq!(duration_of(flood.len()), Duration::from_mins(10));
    drop(client);
    parrot.stop().await;

    let parrot = faulty(Fault::HugeMessage).await;
    let mut client = Client::connect(&parrot).await.unwrap();
    client.update().await;
    client.create_response().await;
    loop {
        match timeout(GUARD, client.socket.next()).await.unwrap().unwrap() {
            Ok(message) => assert!(message.len() < 10_000),
            Err(Error::Capacity(_)) => break, // More than tungstenite takes by default.
            Err(error) => panic!("{error}"),
        }
    }
    drop(client);
    parrot.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_keep_the_parrot_from_stopping() {
    let parrot = faulty(Fault::Flood).await;
    let mut client = Client::connect(&parrot).await.unwrap();
    client.update().await;
    client.create_response().await;
    timeout(GUARD, parrot.stop()).await.unwrap();
}

#[test]
fn the_command_line_and_the_code_agree_on_what_is_usual() {
    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: ParrotOptions,
    }
    let usual = Command::parse_from(["parrot"]).options;
    assert_eq!(
        format!("{usual:?}"),
        format!("{:?}", ParrotOptions::default())
    );
    let told = ["parrot", "--fault", "hang-tcp", "--delay-ms", "250"];
    let told = Command::parse_from(told).options;
    assert_eq!(told.fault, Some(Fault::HangTcp));
    assert_eq!(told.delay, Duration::from_millis(250));
}

async fn faulty(fault: Fault) -> Parrot {
    start(ParrotOptions {
        fault: Some(fault),
        ..ParrotOptions::default()
    })
    .await
}

async fn start(options: ParrotOptions) -> Parrot {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Parrot::start(ParrotOptions { listen, ..options })
        .await
        .unwrap()
}

struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    async fn connect(parrot: &Parrot) -> Result<Self, Error> {
        let stream = TcpStream::connect(parrot.address()).await?;
        let (socket, _) = client_async(parrot.url() + "?model=parrot", stream).await?;
        Ok(Self { socket })
    }

    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Agrees on mu-law; returns what was acknowledged.
    async fn update(&mut self) -> Value {
        let created = self.event("session.created").await;
        assert_eq!(created["session"]["type"], "realtime");
        let format = json!({ "format": { "type": "audio/pcmu" } });
        let session = json!({ "type": "realtime", "audio": { "input": format, "output": format } });
        let update = json!({ "type": "session.update", "session": session });
        self.send(update.to_string().into()).await;
        self.event("session.updated").await
    }

    async fn create_response(&mut self) {
        // An early close may be faster.
        let create = r#"{"type":"response.create"}"#;
        let _ = self.socket.send(create.into()).await;
    }

    async fn speak(&mut self, samples: &[u8]) {
        for frame in samples.chunks(160) {
            let audio = STANDARD.encode(frame);
            let append = json!({ "type": "input_audio_buffer.append", "audio": audio });
            self.send(append.to_string().into()).await;
        }
    }

    async fn next(&mut self) -> Message {
        let next = timeout(GUARD, self.socket.next()).await;
        next.expect("in time").expect("open").unwrap()
    }

    /// Returns the next event of type `kind`.
    async fn event(&mut self, kind: &str) -> Value {
        loop {
            let event = serde_json::from_str::<Value>(self.next().await.to_text().unwrap());
            match event {
                Ok(event) if event["type"] == kind => return event,
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// Returns the audio of the next response.
    async fn answer(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        loop {
            let event: Value = serde_json::from_str(self.next().await.to_text().unwrap()).unwrap();
            match event["type"].as_str().unwrap() {
                "response.output_audio.delta" => heard.extend(audio(&event)),
                "response.done" => {
                    assert_eq!(event["response"]["status"], "completed");
                    return heard;
                }
                _ => {}
            }
        }
    }

    /// Returns the code with which the parrot closes.
    async fn closed(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.next().await {
                return frame.expect("a code").code.into();
            }
        }
    }
}

fn audio(delta: &Value) -> Vec<u8> {
    STANDARD.decode(delta["delta"].as_str().unwrap()).unwrap()
}
