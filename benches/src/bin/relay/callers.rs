//! How a caller comes in: straight to the floor, or through the gateway's webhook as from Twilio, by
//! an event as from ACS, or from a browser.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use callgate_benches::acs::{self, Format};
use callgate_benches::frame::{self, Masks, Opcode};
use callgate_benches::message::CarrierSide;
use callgate_benches::twilio::{self, Answer, Stream};
use callgate_benches::upgrade::{self, LONGEST_HEAD};
use serde_json::Map;

use crate::audio::elapsed;
use crate::candidate::{ACCOUNT_SID, AUTH_TOKEN, Candidate, EVENT_SECRET};
use crate::line::{Line, Voice};
use crate::rest::{self, Rest};

/// How long any step of coming in may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer: a page of 1,000 live connections.
const LONGEST_ANSWER: u64 = 1 << 20;

/// Where calls come in.
pub struct Door<'a> {
    pub candidate: Candidate,
    pub address: SocketAddr,
    pub rest: &'a Rest,
}

/// A caller whose media socket is open and whose stream has started.
pub struct Caller {
    pub voice: Voice,
    pub stream: TcpStream,
    /// What was read behind the upgrade.
    pub early: Vec<u8>,
    /// How long it took from the event to the gateway's request that answers the call, with ACS.
    pub answered_after: Option<Duration>,
}

/// What an HTTP request was answered with.
pub struct Reply {
    pub status: u16,
    pub body: String,
}

impl Door<'_> {
    /// Brings the call with this index in.
    pub fn call(&self, line: Line, index: u16) -> anyhow::Result<Caller> {
        match line {
            Line::Twilio => self.twilio(index),
            Line::Acs { format, .. } => self.acs(format, index),
            Line::Web => self.web(),
        }
    }

    fn twilio(&self, index: u16) -> anyhow::Result<Caller> {
        let side = CarrierSide {
            account_sid: ACCOUNT_SID.to_owned(),
            call_sid: format!("CA{index:032}"),
            stream_sid: format!("MZ{index:032}"),
        };
        let stream = match self.candidate {
            Candidate::Floor => Stream {
                url: self.floor(),
                parameters: Map::new(),
            },
            Candidate::Gateway => ring(&side, self.address, index)?,
        };
        let signature = twilio::sign(AUTH_TOKEN, &stream.url, &[]);
        let (mut socket, early) = open(&stream.url, &[("X-Twilio-Signature", &signature)])?;
        let start = side.start(&stream.parameters);
        greet(&mut socket, &[CarrierSide::CONNECTED, &start])?;
        Ok(Caller {
            voice: Voice::Twilio(side),
            stream: socket,
            early,
            answered_after: None,
        })
    }

    fn acs(&self, format: Format, index: u16) -> anyhow::Result<Caller> {
        let correlation = format!("0b1c2d3e-1111-4222-8333-{index:012}");
        let (url, answered_after) = match self.candidate {
            Candidate::Floor => (self.floor(), None),
            Candidate::Gateway => {
                let (url, after) = self.announce(format, index, &correlation)?;
                (url, Some(after))
            }
        };
        let connection = rest::connection_of(&correlation);
        let headers = [
            ("x-ms-call-connection-id", connection.as_str()),
            ("x-ms-call-correlation-id", &correlation),
        ];
        let (mut socket, early) = open(&url, &headers)?;
        greet(&mut socket, &[&acs::metadata(format)])?;
        Ok(Caller {
            voice: Voice::Acs,
            stream: socket,
            early,
            answered_after,
        })
    }

    fn web(&self) -> anyhow::Result<Caller> {
        let address = self.address;
        let (stream, early) = open(&format!("ws://{address}/web/ws"), &[])?;
        Ok(Caller {
            voice: Voice::Web,
            stream,
            early,
            answered_after: None,
        })
    }

    /// Rings as ACS does, by Event Grid, and returns where the call's audio goes, and how long the
    /// gateway took until it asked for that.
    fn announce(
        &self,
        format: Format,
        index: u16,
        correlation: &str,
    ) -> anyhow::Result<(String, Duration)> {
        let ringing = acs::Ringing {
            correlation,
            from: &format!("+1555{index:07}"),
            to: "+15550000000",
            context: correlation,
        };
        let event = acs::event(self.address, EVENT_SECRET, &ringing);
        let sent = elapsed();
        let Reply { status, body } = exchange(self.address, &event)?;
        ensure!(status == 200, "the event was answered {status}: {body}");
        let answered = self.rest.answer(correlation)?;
        let asked = &answered.media.audio_format;
        ensure!(
            asked.eq_ignore_ascii_case(format.name()),
            "asked for {asked}"
        );
        Ok((
            answered.media.transport_url,
            answered.at.saturating_sub(sent),
        ))
    }

    fn floor(&self) -> String {
        format!("ws://{}/", self.address)
    }
}

/// Sends what a stream begins with.
fn greet(socket: &mut TcpStream, texts: &[&str]) -> anyhow::Result<()> {
    let (mut hello, mut masks) = (Vec::new(), Masks::default());
    for text in texts {
        let mask = Some(masks.next_mask());
        frame::append(&mut hello, Opcode::Text, mask, &[text.as_bytes()]);
    }
    socket.write_all(&hello)?;
    Ok(())
}

/// Asks for a page.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    exchange(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    )
}

/// Rings as Twilio does, and returns where the call's audio goes.
fn ring(side: &CarrierSide, address: SocketAddr, index: u16) -> anyhow::Result<Stream> {
    let from = format!("+1555{index:07}");
    let fields = [
        ("AccountSid", side.account_sid.as_str()),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", &side.call_sid),
        ("CallStatus", "ringing"),
        ("Called", "+15550000000"),
        ("Caller", &from),
        ("Direction", "inbound"),
        ("From", &from),
        ("To", "+15550000000"),
    ];
    let base = format!("http://{address}");
    let path = "/webhook/incoming_call";
    let request = twilio::webhook(AUTH_TOKEN, &base, path, &fields);
    let Reply { status, body } = exchange(address, &request)?;
    ensure!(status == 200, "the webhook answered {status}: {body}");
    match Answer::read(&body)? {
        Answer::Connect(stream) => Ok(stream),
        Answer::Told(_) | Answer::HungUp => bail!("the call was not let in: {body}"),
    }
}

/// Opens the media socket, and returns what was read behind its upgrade too.
fn open(url: &str, headers: &[(&str, &str)]) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let rest = url.strip_prefix("ws://");
    let rest = rest.with_context(|| format!("not a plain WebSocket: {url}"))?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    let mut stream = connect(host.parse()?)?;
    let path = if path.is_empty() { "/" } else { path };
    let request = upgrade::request(host, path, headers);
    stream.write_all(request.as_bytes())?;

    let mut answer = Vec::new();
    let head = loop {
        if let Some(head) = upgrade::head(&answer) {
            break head;
        }
        ensure!(answer.len() < LONGEST_HEAD, "endless headers");
        let mut some = [0; 4096];
        let read = stream.read(&mut some)?;
        ensure!(read != 0, "the media socket was closed at its upgrade");
        answer.extend_from_slice(&some[..read]);
    };
    ensure!(upgrade::is_granted(head), "no media socket: {head}");
    let head = head.len();
    Ok((stream, answer.split_off(head)))
}

/// Sends a whole request over a connection of its own.
fn exchange(address: SocketAddr, request: &str) -> anyhow::Result<Reply> {
    let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    let mut stream = connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    let head = upgrade::head(&answer).context("not an answer in HTTP")?;
    if upgrade::header(head, "Transfer-Encoding").is_some() {
        bail!("an answer in chunks");
    }
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let body = String::from_utf8_lossy(&answer[head.len()..]).into_owned();
    Ok(Reply { status, body })
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
