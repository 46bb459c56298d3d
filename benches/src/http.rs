//! As much of an HTTP client as carriers and watchers need: small requests over connections that
//! are kept, and nothing is done twice behind the caller's back but what was never received.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::upgrade::{self, LONGEST_HEAD};

/// Connections that wait for the next request, by whom they lead to.
#[derive(Default)]
pub struct Http {
    idle: Mutex<HashMap<SocketAddr, Vec<TcpStream>>>,
}

/// What a request was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: String,
    pub took: Duration,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("nobody answers there")]
    Unreachable(#[source] io::Error),
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
    #[error("the answer is none that this client understands")]
    Garbled,
}

/// An answer, and whether its connection can be used again.
struct Received {
    status: u16,
    body: String,
    kept: bool,
}

impl Http {
    /// Sends `request`, which is whole, and waits for its answer.
    ///
    /// # Errors
    /// If there is none within `patience`.
    pub async fn exchange(
        &self,
        address: SocketAddr,
        request: &str,
        patience: Duration,
    ) -> Result<Reply, HttpError> {
        let began = Instant::now();
        let exchanged = timeout(patience, self.exchange_patiently(address, request)).await;
        let Received { status, body, .. } =
            exchanged.map_err(|_| HttpError::TooSlow(patience))??;
        Ok(Reply {
            status,
            body,
            took: began.elapsed(),
        })
    }

    /// Asks for a page.
    ///
    /// # Errors
    /// If there is no answer within `patience`.
    pub async fn get(
        &self,
        address: SocketAddr,
        path: &str,
        patience: Duration,
    ) -> Result<Reply, HttpError> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        self.exchange(address, &request, patience).await
    }

    /// Opens connections to `address` until this many are idle, so that what is measured begins
    /// with the request.
    ///
    /// # Errors
    /// If nobody takes them.
    pub async fn connect(&self, address: SocketAddr, connections: usize) -> Result<(), HttpError> {
        let there = self.lock().get(&address).map_or(0, Vec::len);
        for _ in there..connections {
            let stream = connect(address).await?;
            self.keep(address, stream);
        }
        Ok(())
    }

    /// Closes every idle connection: whoever answered there has ended.
    pub fn forget(&self) {
        self.lock().clear();
    }

    async fn exchange_patiently(
        &self,
        address: SocketAddr,
        request: &str,
    ) -> Result<Received, HttpError> {
        loop {
            let idle = self.lock().get_mut(&address).and_then(Vec::pop);
            let reused = idle.is_some();
            let mut stream = match idle {
                Some(stream) => stream,
                None => connect(address).await?,
            };
            let mut answer = Vec::new();
            match converse(&mut stream, request, &mut answer).await {
                // The server was tired of waiting for a request before this one was sent: RFC 9110,
                // 15.5.9.
                Ok(received) if reused && received.status == 408 => {}
                Ok(received) => {
                    if received.kept {
                        self.keep(address, stream);
                    }
                    return Ok(received);
                }
                // A kept connection may have been closed before the request reached it.
                Err(HttpError::Broken(_)) if reused && answer.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn keep(&self, address: SocketAddr, stream: TcpStream) {
        self.lock().entry(address).or_default().push(stream);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<TcpStream>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection that sends at once.
///
/// # Errors
/// If nobody takes it.
pub async fn connect(address: SocketAddr) -> Result<TcpStream, HttpError> {
    let connected = TcpStream::connect(address).await;
    let stream = connected.map_err(HttpError::Unreachable)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Opens such a connection from an address of ours, which stands for a network of its own.
///
/// # Errors
/// If the address is not ours, or nobody takes the connection.
pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Result<TcpStream, HttpError> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    let connected = socket.connect(address).await;
    let stream = connected.map_err(HttpError::Unreachable)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads until the head of an answer is whole, and returns its length. What follows it may have
/// been read, too.
///
/// # Errors
/// If it never is.
pub async fn read_head(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<usize, HttpError> {
    loop {
        if let Some(head) = upgrade::head(answer) {
            return Ok(head.len());
        }
        if LONGEST_HEAD < answer.len() {
            return Err(HttpError::Garbled);
        }
        if stream.read_buf(answer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

/// Returns the status in the head of an answer.
///
/// # Errors
/// If there is none.
pub fn status(head: &str) -> Result<u16, HttpError> {
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    status.ok_or(HttpError::Garbled)
}

async fn converse(
    stream: &mut TcpStream,
    request: &str,
    answer: &mut Vec<u8>,
) -> Result<Received, HttpError> {
    stream.write_all(request.as_bytes()).await?;
    let head_length = read_head(stream, answer).await?;
    let head = upgrade::head(answer).ok_or(HttpError::Garbled)?;
    let status = status(head)?;
    if upgrade::header(head, "Transfer-Encoding").is_some() {
        return Err(HttpError::Garbled);
    }
    let length = match upgrade::header(head, "Content-Length") {
        Some(length) => length.parse().map_err(|_| HttpError::Garbled)?,
        None if status == 204 => 0,
        None => return Err(HttpError::Garbled),
    };
    let kept = upgrade::header(head, "Connection") != Some("close");
    while answer.len() < head_length + length {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    let body = answer.get(head_length..head_length + length);
    Ok(Received {
        status,
        body: String::from_utf8_lossy(body.unwrap_or_default()).into_owned(),
        kept,
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_connection_is_kept_and_one_that_was_closed_is_opened_anew() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let http = Http::default();
        let server = async {
            let (mut first, _) = listener.accept().await.unwrap();
            for body in ["one", "two"] {
                answer(&mut first, body).await;
            }
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            answer(&mut second, "three").await;
        };
        let client = async {
            for body in ["one", "two", "three"] {
                let reply = http.get(address, "/", PATIENCE).await.unwrap();
                assert_eq!((reply.status, reply.body.as_str()), (200, body));
            }
        };
        tokio::join!(server, client);
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let http = Http::default();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream, &mut Vec::new()).await.unwrap();
            let half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
            stream.write_all(half).await.unwrap();
        };
        let (reply, ()) = tokio::join!(http.get(address, "/", PATIENCE), server);
        assert!(matches!(reply, Err(HttpError::Broken(_))), "{reply:?}");
    }

    async fn answer(stream: &mut TcpStream, body: &str) {
        read_head(stream, &mut Vec::new()).await.unwrap();
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}
