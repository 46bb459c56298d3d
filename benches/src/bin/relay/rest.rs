//! Call Automation's REST, as far as a gateway needs it here: every answer is taken.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::acs;

use crate::audio::elapsed;

/// How long a call may take to be answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest body of a request.
const LONGEST_BODY: usize = 256 * 1024;
/// How many answers may wait for their callers.
const MOST_WAITING: usize = 1024;

/// A server that ends with its process: a thread for each connection of a gateway's.
pub struct Rest {
    pub address: SocketAddr,
    answers: Receiver<Answered>,
}

/// A gateway has answered a call.
pub struct Answered {
    pub correlation: String,
    pub media: acs::Media,
    /// When its request had arrived whole, in the time of stamps.
    pub at: Duration,
}

impl Rest {
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (sender, answers) = mpsc::sync_channel(MOST_WAITING);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let sender = sender.clone();
                // What breaks a connection breaks the call whose answer it carries: that is seen.
                thread::spawn(move || serve(stream, &sender));
            }
        });
        Ok(Self { address, answers })
    }

    /// Waits until a gateway answers the call with this correlation id.
    pub fn answer(&self, correlation: &str) -> anyhow::Result<Answered> {
        loop {
            let answered = self.answers.recv_timeout(PATIENCE);
            let answered = answered.context("the gateway did not answer a call")?;
            if answered.correlation == correlation {
                return Ok(answered);
            }
        }
    }
}

/// Returns the id of the connection that carries a call, which is as unlike its other names as
/// ACS's is.
pub fn connection_of(correlation: &str) -> String {
    format!("connection-{correlation}")
}

fn serve(stream: TcpStream, answers: &SyncSender<Answered>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut stream = BufReader::new(stream);
    while let Some((path, body)) = request(&mut stream)? {
        let at = elapsed();
        if !path.contains("/callConnections:answer") {
            out.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?; // A call is ended.
            continue;
        }
        let answer: acs::Answer = serde_json::from_slice(&body)?;
        let correlation = answer.incoming_call_context;
        let properties = acs::properties(&connection_of(&correlation), &correlation);
        let length = properties.len();
        let response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{properties}"
        );
        out.write_all(response.as_bytes())?;
        answers.send(Answered {
            correlation,
            media: answer.media_streaming_options,
            at,
        })?;
    }
    Ok(())
}

/// Reads a request, and returns its path and its body; `None` at the end of the connection.
fn request(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Option<(String, Vec<u8>)>> {
    let first = line(stream)?;
    let Some(path) = first.split(' ').nth(1) else {
        return Ok(None);
    };
    let mut length = 0;
    loop {
        let header = line(stream)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    ensure!(length <= LONGEST_BODY, "a body of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some((path.to_owned(), body)))
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(16 * 1024).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
