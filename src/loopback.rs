//! An HTTP server of a test's own, which answers as the test says and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::task::TaskTracker;

pub struct Loopback {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

#[derive(Debug, Clone)]
pub struct Request {
    /// Method and target, such as `POST /path?query`.
    pub line: String,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: String,
}

pub enum Reply {
    Answer(u16, String),
    /// With a header line.
    With(u16, &'static str, String),
    /// An answer byte by byte, so slowly that nobody waits for it.
    Trickle,
    /// 200, and then a body without an end.
    Endless,
    /// Nothing, ever.
    Hang,
    /// The connection is closed.
    Close,
}

type Answer = Arc<Mutex<dyn FnMut(usize, &Request) -> Reply + Send>>;

impl Loopback {
    /// Starts a server that answers the n-th request, from 0 on, with `answer(n, request)`.
    pub async fn start(answer: impl FnMut(usize, &Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::default();
        let answer: Answer = Arc::new(Mutex::new(answer));
        let requests = Arc::clone(&seen);
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tasks.spawn(serve(stream, Arc::clone(&requests), Arc::clone(&answer)));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(found, _)| found == name);
        header.map(|(_, value)| value.as_str())
    }
}

async fn serve(stream: TcpStream, seen: Arc<Mutex<Vec<Request>>>, answer: Answer) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream).await else {
        return;
    };
    let reply = {
        let mut seen = seen.lock().unwrap();
        let reply = (answer.lock().unwrap())(seen.len(), &request);
        seen.push(request);
        reply
    };
    let (status, header, body) = match reply {
        Reply::Answer(status, body) => (status, "X-None: 0", body),
        Reply::With(status, header, body) => (status, header, body),
        Reply::Trickle => return trickle(stream).await,
        Reply::Endless => return endless(stream).await,
        Reply::Hang => return sleep(Duration::from_secs(3_600)).await,
        Reply::Close => return,
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} Said\r\n{header}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    let _ = stream.write_all(answer.as_bytes()).await;
}

async fn trickle(mut stream: BufReader<TcpStream>) {
    let answer = b"HTTP/1.1 200 Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for byte in answer {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn endless(mut stream: BufReader<TcpStream>) {
    let mut part = "HTTP/1.1 200 Said\r\nConnection: close\r\n\r\n".to_owned();
    while stream.write_all(part.as_bytes()).await.is_ok() {
        part = "x".repeat(4 << 10);
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        lines.push(line.to_owned());
    }
    let (line, _) = lines.first()?.rsplit_once(' ')?;
    let headers: Vec<_> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        line: line.to_owned(),
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}
