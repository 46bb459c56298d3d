//! An agent that says distinctive words, wants a tool with them, complains with its key, or breaks;
//! and the server of the tool.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use callgate_benches::frame::{self, Frames, Opcode};
use callgate_benches::{http, upgrade};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Audio of 200 ms, in mu-law.
const AUDIO: [u8; 1_600] = [0x10; 1_600];

/// What is said and written in calls.
#[derive(Debug, Clone)]
pub struct Words {
    pub caller: String,
    pub agent: String,
    pub argument: String,
    pub result: String,
    /// What a complaint quotes.
    pub key: String,
}

/// What the agent does in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Talks,
    UsesTools,
    Complains,
    Garbles,
    Refuses,
}

impl Script {
    pub const ALL: [Self; 5] = [
        Self::Talks,
        Self::UsesTools,
        Self::Complains,
        Self::Garbles,
        Self::Refuses,
    ];
}

/// A server on loopback, which ends with this value.
pub struct Server {
    pub address: SocketAddr,
    /// How many connections it has had.
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Server {
    /// Starts the agent, which does what `script` says by then.
    pub async fn agent(words: &Words, script: watch::Receiver<Script>) -> anyhow::Result<Self> {
        let words = words.clone();
        Self::start(move |stream| {
            let (words, script) = (words.clone(), *script.borrow());
            async move { converse(stream, script, &words).await }
        })
        .await
    }

    /// Starts a tenant's server, which answers everything with words.
    pub async fn tool(words: &Words) -> anyhow::Result<Self> {
        let answer = json!({"says": words.result}).to_string();
        Self::start(move |stream| {
            let answer = answer.clone();
            async move { say(stream, "200 OK", &answer).await }
        })
        .await
    }

    async fn start<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> anyhow::Result<Self>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(AtomicUsize::new(0));
        let (counted, mut serving) = (Arc::clone(&asked), JoinSet::new());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let served = serve(stream);
                // Calls here end in all ways, sockets too.
                connections.spawn(async move { drop(served.await) });
            }
        });
        Ok(Self {
            address,
            asked,
            _serving: serving,
        })
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Answers one request, whatever it is.
async fn say(mut stream: TcpStream, status: &str, body: &str) -> anyhow::Result<()> {
    let mut request = Vec::new();
    http::read_head(&mut stream, &mut request).await?;
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(())
}

async fn converse(stream: TcpStream, script: Script, words: &Words) -> anyhow::Result<()> {
    let complaint = json!({"error": {
        "type": "invalid_request_error", "code": "invalid_api_key",
        "message": format!("Incorrect API key provided: {}", words.key),
    }});
    if script == Script::Refuses {
        return say(stream, "401 Unauthorized", &complaint.to_string()).await;
    }
    let mut session = Session::begin(stream).await?;
    match script {
        Script::Talks => session.talk(words).await?,
        Script::UsesTools => {
            session.talk(words).await?;
            for (tool, arguments) in [
                ("book", json!({"who": words.argument})),
                ("unheard_of", json!({"who": words.argument})),
                ("transfer_call", json!({"destination": words.argument})),
                ("transfer_call", json!({"destination": "desk"})),
            ] {
                session.use_tool(tool, &arguments.to_string()).await?;
            }
        }
        Script::Complains => {
            let mut error = complaint;
            error["type"] = "error".into();
            session.say(&error).await?;
            let status = json!({"status": "failed", "status_details": {
                "type": "failed", "error": error["error"],
            }});
            session
                .say(&json!({"type": "response.done", "response": status}))
                .await?;
        }
        Script::Garbles => {
            let garbled = format!(
                "{{\"type\": \"response.done\", {} {}",
                words.agent, words.key
            );
            for _ in 0..50 {
                session.send(garbled.as_bytes()).await?;
            }
        }
        Script::Refuses => {} // There is no session.
    }
    session.until_closed().await
}

/// A WebSocket of the gateway's, which it has set up.
struct Session {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Session {
    async fn begin(mut stream: TcpStream) -> anyhow::Result<Self> {
        let mut unread = Vec::new();
        let length = http::read_head(&mut stream, &mut unread).await?;
        let head = upgrade::head(&unread).context("no head")?.to_owned();
        unread.drain(..length);
        let granted = upgrade::response(&head).context("no upgrade")?;
        stream.write_all(granted.as_bytes()).await?;
        let mut session = Self { stream, unread };
        session
            .say(&json!({"type": "session.created", "session": {}}))
            .await?;
        let asked = session.hear().await?;
        let settings = if head.contains("/voice-live/") {
            json!({"input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw"})
        } else {
            let format = json!({"format": asked["session"]["audio"]["input"]["format"]});
            json!({"type": "realtime", "audio": {"input": format, "output": format}})
        };
        session
            .say(&json!({"type": "session.updated", "session": settings}))
            .await?;
        Ok(session)
    }

    /// Has the caller's words written down, and answers.
    async fn talk(&mut self, words: &Words) -> anyhow::Result<()> {
        for message in [
            json!({"type": "conversation.item.input_audio_transcription.completed",
                "item_id": "item_c", "transcript": words.caller}),
            json!({"type": "response.created", "response": {"id": "resp_1"}}),
            json!({"type": "response.output_audio.delta", "response_id": "resp_1",
                "item_id": "item_a", "output_index": 0, "content_index": 0,
                "delta": STANDARD.encode(AUDIO)}),
            json!({"type": "response.output_audio_transcript.done", "response_id": "resp_1",
                "item_id": "item_a", "transcript": words.agent}),
            json!({"type": "response.output_audio.done", "item_id": "item_a"}),
            json!({"type": "response.done", "response": {"status": "completed"}}),
        ] {
            self.say(&message).await?;
        }
        Ok(())
    }

    async fn use_tool(&mut self, tool: &str, arguments: &str) -> anyhow::Result<()> {
        let item = json!({
            "id": format!("item_{tool}"), "type": "function_call", "status": "completed",
            "call_id": format!("use_{tool}_{}", arguments.len()), "name": tool,
            "arguments": arguments,
        });
        for message in [
            json!({"type": "response.created", "response": {"id": "resp_1"}}),
            json!({"type": "response.output_item.done", "response_id": "resp_1",
                "output_index": 0, "item": item}),
            json!({"type": "response.done",
                "response": {"id": "resp_1", "status": "completed"}}),
        ] {
            self.say(&message).await?;
        }
        // What came of it is told before the agent is asked to go on.
        while self.hear().await?["type"] != "response.create" {}
        Ok(())
    }

    async fn say(&mut self, message: &Value) -> anyhow::Result<()> {
        self.send(message.to_string().as_bytes()).await
    }

    async fn send(&mut self, text: &[u8]) -> anyhow::Result<()> {
        let mut out = Vec::new();
        frame::append(&mut out, Opcode::Text, None, &[text]);
        self.stream.write_all(&out).await?;
        Ok(())
    }

    /// Returns the next message.
    async fn hear(&mut self) -> anyhow::Result<Value> {
        loop {
            let mut frames = Frames::new(&mut self.unread);
            let (mut heard, mut closed) = (None, false);
            if let Some(frame) = frames.next()? {
                match frame.opcode {
                    Opcode::Text => heard = serde_json::from_slice(frame.payload).ok(),
                    Opcode::Close => closed = true,
                    Opcode::Binary | Opcode::Ping | Opcode::Pong => {}
                }
                let rest = frames.rest().len();
                self.unread.drain(..self.unread.len() - rest);
            } else if self.stream.read_buf(&mut self.unread).await? == 0 {
                bail!("the gateway has gone");
            }
            if closed {
                bail!("the gateway has closed");
            }
            if let Some(heard) = heard {
                return Ok(heard);
            }
        }
    }

    async fn until_closed(mut self) -> anyhow::Result<()> {
        loop {
            self.hear().await?;
        }
    }
}
