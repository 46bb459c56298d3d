//! An agent that does exactly what its test says, in the words of the OpenAI Realtime protocol, or
//! with a flat session where it is called at Voice Live's path.

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderMap, Uri},
    },
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::line::GUARD;

/// A server whose sessions wait for their test.
pub struct ScriptedAgent {
    pub url: String,
    sessions: mpsc::UnboundedReceiver<Session>,
    _stop: DropGuard,
}

/// One call's session, ready to talk.
pub struct Session {
    socket: WebSocketStream<TcpStream>,
    /// How the gateway asked for the session.
    pub uri: Uri,
    pub headers: HeaderMap,
    /// What the gateway set the session up with.
    pub settings: Value,
}

impl ScriptedAgent {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/v1/realtime", listener.local_addr().unwrap());
        let (ready, sessions) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let ready = ready.clone();
                connections.spawn(async move {
                    if let Some(session) = Session::begin(tcp).await {
                        let _ = ready.send(session);
                    }
                });
            }
        }));
        Self {
            url,
            sessions,
            _stop: stop.drop_guard(),
        }
    }

    /// Waits for the next session.
    pub async fn session(&mut self) -> Session {
        let session = timeout(GUARD, self.sessions.recv()).await;
        session.expect("an agent is called in time").unwrap()
    }

    /// Tells whether nobody has called.
    pub fn is_alone(&self) -> bool {
        self.sessions.is_empty()
    }
}

impl Session {
    async fn begin(tcp: TcpStream) -> Option<Self> {
        let mut asked = None;
        #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
        let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            asked = Some((request.uri().clone(), request.headers().clone()));
            Ok(response)
        };
        let socket = accept_hdr_async(tcp, note).await.ok()?;
        let (uri, headers) = asked?;
        let mut this = Self {
            socket,
            uri,
            headers,
            settings: Value::Null,
        };
        this.say(json!({"type": "session.created", "session": {"type": "realtime"}}))
            .await;
        this.settings = this.hear().await?["session"].take();
        // Whatever encoding was asked for is as well.
        let format = json!({"format": this.settings["audio"]["input"]["format"]});
        let session = if this.uri.path().ends_with("/voice-live/realtime") {
            json!({"input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw"})
        } else {
            json!({"type": "realtime", "audio": {"input": format, "output": format}})
        };
        this.say(json!({"type": "session.updated", "session": session}))
            .await;
        Some(this)
    }

    pub async fn say(&mut self, mut message: Value) {
        message["event_id"] = "event_1".into();
        // A gateway that has gone shows when it is heard.
        let _ = self.socket.send(Message::text(message.to_string())).await;
    }

    pub async fn begin_response(&mut self) {
        self.say(json!({"type": "response.created", "response": {"id": "resp_1"}}))
            .await;
    }

    /// Says `audio` as a part of the item.
    pub async fn speak(&mut self, item: &str, audio: &[u8]) {
        self.say(json!({
            "type": "response.output_audio.delta", "response_id": "resp_1", "item_id": item,
            "output_index": 0, "content_index": 0, "delta": STANDARD.encode(audio),
        }))
        .await;
    }

    pub async fn end_response(&mut self, item: &str) {
        self.say(json!({"type": "response.output_audio.done", "item_id": item}))
            .await;
        self.say(json!({"type": "response.done", "response": {"status": "completed"}}))
            .await;
    }

    pub async fn hears_speech(&mut self) {
        self.say(json!({"type": "input_audio_buffer.speech_started", "item_id": "item_said"}))
            .await;
    }

    /// Returns the next message; `None` when the gateway has closed.
    pub async fn hear(&mut self) -> Option<Value> {
        loop {
            let message = timeout(GUARD, self.socket.next()).await;
            match message.expect("the gateway says something in time")? {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Returns the next message that is not audio.
    pub async fn hear_words(&mut self) -> Option<Value> {
        loop {
            let message = self.hear().await?;
            if message["type"] != "input_audio_buffer.append" {
                return Some(message);
            }
        }
    }

    /// Returns so much of what the caller says.
    pub async fn hear_audio(&mut self, bytes: usize) -> Vec<u8> {
        let mut audio = Vec::new();
        while audio.len() < bytes {
            let message = self.hear().await.expect("the call goes on");
            if message["type"] == "input_audio_buffer.append" {
                let part = STANDARD.decode(message["audio"].as_str().unwrap());
                audio.extend(part.unwrap());
            }
        }
        audio
    }

    /// Waits until the gateway has closed the session.
    pub async fn closed(&mut self) {
        while self.hear().await.is_some() {}
    }
}
