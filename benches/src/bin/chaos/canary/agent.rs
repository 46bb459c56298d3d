//! An agent that says distinctive words, wants a tool with them, complains with its key, or breaks;
//! and the servers of the tool, of messages to callers and of traces.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

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

/// The name of the message that is sent to a caller.
pub const MESSAGE: &str = "SM00000000000000000000000000000001";
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
    /// The bodies of what it was asked, unless it is the agent.
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Server {
    /// Starts the agent, which does what `script` says by then.
    pub async fn agent(words: &Words, script: watch::Receiver<Script>) -> anyhow::Result<Self> {
        let words = words.clone();
        Self::start(move |stream, _| {
            let (words, script) = (words.clone(), *script.borrow());
            async move { converse(stream, script, &words).await }
        })
        .await
    }

    /// Starts a tenant's server, which answers everything with words.
    pub async fn tool(words: &Words) -> anyhow::Result<Self> {
        Self::answering("200 OK", json!({"says": words.result}).to_string()).await
    }

    /// Starts what takes messages to callers.
    pub async fn messages() -> anyhow::Result<Self> {
        let taken = json!({"sid": MESSAGE, "status": "queued"});
        Self::answering("201 Created", taken.to_string()).await
    }

    /// Starts a collector of traces that takes what it is sent, or complains of it.
    pub async fn collector(takes: bool) -> anyhow::Result<Self> {
        let status = if takes {
            "200 OK"
        } else {
            "503 Service Unavailable"
        };
        Self::answering(status, "{}".to_owned()).await
    }

    /// Starts a server that keeps what it is asked, and answers everything alike.
    async fn answering(status: &'static str, answer: String) -> anyhow::Result<Self> {
        Self::start(move |mut stream, asked| {
            let answer = answer.clone();
            async move {
                let body = read_body(&mut stream).await?;
                keep(&asked, body);
                say(&mut stream, status, &answer).await
            }
        })
        .await
    }

    async fn start<F>(
        serve: impl Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + 'static,
    ) -> anyhow::Result<Self>
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, mut serving) = (Arc::clone(&asked), JoinSet::new());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let served = serve(stream, Arc::clone(&kept));
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

    /// Returns the bodies of what it was asked.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

fn keep(asked: &Mutex<Vec<String>>, body: String) {
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.push(body);
}

/// Reads one request, and returns its body.
async fn read_body(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut read = Vec::new();
    let head_length = http::read_head(stream, &mut read).await?;
    let head = upgrade::head(&read).context("no head")?;
    let length: usize = upgrade::header(head, "Content-Length").map_or(Ok(0), str::parse)?;
    while read.len() < head_length + length {
        if stream.read_buf(&mut read).await? == 0 {
            bail!("the request breaks off");
        }
    }
    Ok(String::from_utf8_lossy(&read[head_length..]).into_owned())
}

async fn say(stream: &mut TcpStream, status: &str, body: &str) -> anyhow::Result<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await?;
    Ok(())
}

async fn converse(mut stream: TcpStream, script: Script, words: &Words) -> anyhow::Result<()> {
    let complaint = json!({"error": {
        "type": "invalid_request_error", "code": "invalid_api_key",
        "message": format!("Incorrect API key provided: {}", words.key),
    }});
    if script == Script::Refuses {
        read_body(&mut stream).await?;
        return say(&mut stream, "401 Unauthorized", &complaint.to_string()).await;
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
