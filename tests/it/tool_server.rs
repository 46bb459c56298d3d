//! A tenant's server that agents' tools ask: does as its test says, and writes down what it is asked.

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

use crate::line::GUARD;

/// A server that records every request.
pub struct ToolServer {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    /// How many of those that were left hanging have been given up.
    left: watch::Receiver<usize>,
    _stop: DropGuard,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub body: String,
}

/// What the server does with a request that it has read.
#[derive(Debug, Clone)]
pub enum Act {
    /// Answers with a status, a content type and a body.
    Answer(u16, &'static str, String),
    /// Closes the connection without a word.
    Cut,
    /// Says nothing until the other side leaves.
    Hang,
}

impl ToolServer {
    /// Starts a server that does each act once, and then hangs.
    pub async fn start(acts: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/tool", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let acts = Arc::new(Mutex::new(acts.iter().cloned().collect::<VecDeque<_>>()));
        let (leaving, left) = watch::channel(0);
        let (record, tasks) = (Arc::clone(&requests), TaskTracker::new());
        let stop = CancellationToken::new();
        let connections = tasks.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acts, record) = (Arc::clone(&acts), Arc::clone(&record));
                let leaving = leaving.clone();
                connections.spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(request) = read(&mut stream).await {
                        record.lock().unwrap().push(request);
                        let act = acts.lock().unwrap().pop_front().unwrap_or(Act::Hang);
                        match act {
                            Act::Answer(status, kind, body) => {
                                let length = body.len();
                                let answer = format!(
                                    "HTTP/1.1 {status} Told\r\nContent-Type: {kind}\r\n\
                                     Content-Length: {length}\r\n\r\n{body}"
                                );
                                let _ = stream.write_all(answer.as_bytes()).await;
                            }
                            Act::Cut => return,
                            Act::Hang => {
                                let mut rest = Vec::new();
                                let _ = stream.read_to_end(&mut rest).await;
                                leaving.send_modify(|left| *left += 1);
                                return;
                            }
                        }
                    }
                });
            }
        }));
        Self {
            url,
            requests,
            left,
            _stop: stop.drop_guard(),
        }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Waits until two requests that were left hanging have been given up.
    pub async fn until_left(&self) {
        let mut left = self.left.clone();
        let gone = timeout(GUARD, left.wait_for(|left| *left == 2)).await;
        gone.expect("they were given up in time").unwrap();
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if stream.read_line(&mut header).await.ok()? == 0 {
            return None;
        }
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        line: line.trim().to_owned(),
        body: String::from_utf8(body).unwrap(),
    })
}
