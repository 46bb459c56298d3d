//! Twilio's REST API, as far as a gateway uses it: takes messages and does as it is told.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use url::form_urlencoded;

use crate::line::GUARD;

/// A server that records every request.
pub struct RestServer {
    pub url: String,
    requests: watch::Receiver<Vec<Request>>,
    plan: Arc<Mutex<VecDeque<Act>>>,
    release: watch::Sender<bool>,
    _stop: DropGuard,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub authorization: String,
    pub fields: Vec<(String, String)>,
}

/// What the server does with a request that it has read.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers with a status, one more header and a body.
    Answer(u16, &'static str, &'static str),
    /// Takes the message once [`RestServer::let_go`] says so.
    Hold,
    /// Closes the connection without a word.
    Cut,
}

const TAKEN: Act = Act::Answer(
    201,
    "",
    r#"{"sid":"SM00000000000000000000000000000001","status":"queued"}"#,
);

impl RestServer {
    /// Starts a server that does each act once and then takes every message.
    pub async fn start(plan: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (record, requests) = watch::channel(Vec::new());
        let (release, hold) = watch::channel(true);
        let plan = Arc::new(Mutex::new(plan.iter().cloned().collect::<VecDeque<_>>()));
        let acts = Arc::clone(&plan);
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let connections = tasks.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acts, record, hold) = (Arc::clone(&acts), record.clone(), hold.clone());
                connections.spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let Some(request) = read(&mut stream).await else {
                        return;
                    };
                    let act = acts.lock().unwrap().pop_front().unwrap_or(TAKEN);
                    record.send_modify(|requests| requests.push(request));
                    act.on(stream, hold).await;
                });
            }
        }));
        Self {
            url: format!("http://{address}"),
            requests,
            plan,
            release,
            _stop: stop.drop_guard(),
        }
    }

    /// Does this with the next requests.
    pub fn then(&self, act: &Act, times: usize) {
        let mut plan = self.plan.lock().unwrap();
        plan.extend(std::iter::repeat_n(act.clone(), times));
    }

    /// Takes every message that is held, now and later.
    pub fn let_go(&self) {
        self.release.send_replace(false);
    }

    /// Waits until there have been so many requests, and returns them.
    pub async fn requests(&self, count: usize) -> Vec<Request> {
        let mut requests = self.requests.clone();
        let came = timeout(GUARD, requests.wait_for(|all| all.len() >= count)).await;
        came.expect("the requests came in time").unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.requests.borrow().len()
    }
}

impl Request {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Act {
    async fn on(self, mut stream: BufReader<TcpStream>, mut hold: watch::Receiver<bool>) {
        let (status, header, body) = match self {
            Self::Cut => return,
            Self::Hold => {
                let _ = hold.wait_for(|held| !held).await;
                (201, "", "{}")
            }
            Self::Answer(status, header, body) => (status, header, body),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} As-Told\r\nContent-Type: application/json\r\n{header}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let header = |name: &str| {
        let found = head.iter().filter_map(|line| line.split_once(": "));
        let mut found = found.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        line: head.first()?.clone(),
        authorization: header("authorization").unwrap_or_default(),
        fields: form_urlencoded::parse(&body).into_owned().collect(),
    })
}
