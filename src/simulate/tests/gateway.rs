//! A small gateway on loopback that keeps what it was sent.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{Message, handshake::server},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::{Url, form_urlencoded};

use super::{TOKEN, plan};
use crate::{
    simulate::{
        caller::call,
        carrier::{Carrier, Fields},
        outcome::{CallEvent, CallOutcome},
        plan::CallPlan,
        script::Script,
    },
    webhook::twilio::signature::{Key, is_valid},
};

/// What a gateway answers to a webhook, by its path and how many came before it.
pub type Answers = fn(&str, usize) -> (u16, &'static str);

/// What an agent does with a message, given how many audio frames came before it.
pub type Agent = fn(&Value, usize) -> Vec<Reply>;

pub enum Reply {
    Say(Value),
    Close,
    Break,
}

/// A gateway that keeps what it was sent.
pub struct Gateway {
    pub address: String,
    webhooks: Arc<Mutex<Vec<(String, Fields)>>>,
    signed: Arc<Mutex<Vec<Value>>>,
    heard: Arc<Mutex<Vec<Value>>>,
    _guard: DropGuard,
}

impl Gateway {
    pub async fn start(answers: Answers, agent: Agent) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        let gateway = Self {
            address: listener.local_addr().unwrap().to_string(),
            webhooks: Arc::default(),
            signed: Arc::default(),
            heard: Arc::default(),
            _guard: stop.clone().drop_guard(),
        };
        let (address, webhooks, signed, heard) = (
            gateway.address.clone(),
            gateway.webhooks.clone(),
            gateway.signed.clone(),
            gateway.heard.clone(),
        );
        let tasks = TaskTracker::new();
        let connections = tasks.clone();
        tasks.spawn(stop.run_until_cancelled_owned(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let connection = Connection {
                    address: address.clone(),
                    answers,
                    agent,
                    webhooks: webhooks.clone(),
                    signed: signed.clone(),
                    heard: heard.clone(),
                };
                connections.spawn(connection.serve(socket));
            }
        }));
        gateway
    }

    pub fn carrier(&self) -> Carrier {
        let url = Url::parse(&format!("http://{}", self.address)).unwrap();
        Carrier::new(&url, None, Some(TOKEN.into()), "AC1".into()).unwrap()
    }

    /// Makes a call of 300 ms.
    pub async fn call(&self, script: Script) -> (CallOutcome, Vec<CallEvent>) {
        self.call_as(plan(script)).await
    }

    /// Makes a call that the gateway ends.
    pub async fn long_call(&self) -> CallOutcome {
        let long = CallPlan {
            talk_for: Duration::from_mins(1),
            ..plan(Script::Talk)
        };
        self.call_as(long).await.0
    }

    pub async fn call_as(&self, plan: CallPlan) -> (CallOutcome, Vec<CallEvent>) {
        self.call_until(plan, &CancellationToken::new()).await
    }

    /// Makes a call whose caller is stopped by `stop`.
    pub async fn call_until(
        &self,
        plan: CallPlan,
        stop: &CancellationToken,
    ) -> (CallOutcome, Vec<CallEvent>) {
        let mut events = Vec::new();
        let mut watch = |event| events.push(event);
        let outcome = call(&self.carrier(), plan, &mut watch, stop).await;
        (outcome, events)
    }

    pub fn paths(&self) -> Vec<String> {
        let webhooks = self.webhooks.lock().unwrap();
        webhooks.iter().map(|(path, _)| path.clone()).collect()
    }

    pub fn field(&self, webhook: usize, name: &str) -> String {
        let webhooks = self.webhooks.lock().unwrap();
        let fields = &webhooks[webhook].1;
        let found = fields.iter().find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    }

    /// Returns every request with its signature, as `tests/official/check` reads them.
    pub fn signed(&self) -> Vec<Value> {
        self.signed.lock().unwrap().clone()
    }

    pub fn heard(&self, event: &str) -> Vec<Value> {
        let heard = self.heard.lock().unwrap();
        let of_event = heard.iter().filter(|message| message["event"] == event);
        of_event.cloned().collect()
    }
}

struct Connection {
    address: String,
    answers: Answers,
    agent: Agent,
    webhooks: Arc<Mutex<Vec<(String, Fields)>>>,
    signed: Arc<Mutex<Vec<Value>>>,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Connection {
    async fn serve(self, mut socket: TcpStream) {
        let mut start = [0; 10];
        while socket.peek(&mut start).await.unwrap_or(0) == start.len() {
            if &start == b"GET /media" {
                return self.stream(socket).await;
            }
            self.webhook(&mut socket).await;
        }
    }

    async fn webhook(&self, socket: &mut TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let found = lines.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned())
        };
        let mut body = vec![0; header("content-length").unwrap().parse().unwrap()];
        socket.read_exact(&mut body).await.unwrap();
        let fields: Fields = form_urlencoded::parse(&body).into_owned().collect();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let url = Url::parse(&format!("http://{}{path}", self.address)).unwrap();
        let signature = header("x-twilio-signature").unwrap();
        self.assert_signed(&url, &fields, &signature);
        let before = {
            let mut webhooks = self.webhooks.lock().unwrap();
            let before = webhooks.iter().filter(|(seen, _)| *seen == path).count();
            webhooks.push((path.clone(), fields));
            before
        };
        let (status, document) = (self.answers)(&path, before);
        let document = document.replace("{ws}", &format!("ws://{}", self.address));
        let answer = format!(
            "HTTP/1.1 {status} Whatever\r\nContent-Type: text/xml; charset=utf-8\r\n\
             Content-Length: {}\r\n\r\n{document}",
            document.len()
        );
        socket.write_all(answer.as_bytes()).await.unwrap();
    }

    fn assert_signed(&self, url: &Url, fields: &[(String, String)], signature: &str) {
        let token = SecretString::from(TOKEN);
        assert!(is_valid(&Key::AuthToken(&token), url, fields, signature));
        self.signed.lock().unwrap().push(json!({
            "type": "HMAC_SHA1", "token": TOKEN, "url": url.as_str(), "fields": fields, "body": null,
            "accepted": [signature], "refused": [],
        }));
    }

    async fn stream(self, socket: TcpStream) {
        let url = format!("ws://{}/media", self.address).parse().unwrap();
        #[expect(clippy::result_large_err)]
        let check = |request: &server::Request, answer| {
            let signature = request.headers()["x-twilio-signature"].to_str().unwrap();
            self.assert_signed(&url, &[], signature);
            Ok(answer)
        };
        let mut socket = accept_hdr_async(socket, check).await.unwrap();
        let mut frames = 0;
        while let Some(Ok(message)) = socket.next().await {
            let Message::Text(text) = message else {
                continue;
            };
            let message: Value = serde_json::from_str(&text).unwrap();
            let replies = (self.agent)(&message, frames);
            frames += usize::from(message["event"] == "media");
            let sid = message["streamSid"].clone();
            self.heard.lock().unwrap().push(message);
            for reply in replies {
                match reply {
                    Reply::Say(mut reply) => {
                        reply["streamSid"] = sid.clone();
                        let _ = socket.send(Message::text(reply.to_string())).await;
                    }
                    Reply::Close => drop(socket.close(None).await),
                    Reply::Break => return,
                }
            }
        }
    }
}
