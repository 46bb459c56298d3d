//! How a caller comes in: straight to the floor, or through the gateway's webhook as from Twilio.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use callgate_benches::frame::{self, Masks, Opcode};
use callgate_benches::message::CarrierSide;
use callgate_benches::upgrade::{self, LONGEST_HEAD};
use hmac::{Hmac, KeyInit, Mac};
use quick_xml::XmlVersion;
use quick_xml::events::Event;
use serde_json::{Map, Value};
use sha1::Sha1;

use crate::candidate::{ACCOUNT_SID, AUTH_TOKEN, Candidate};

/// How long any step of coming in may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A caller whose media socket is open and whose stream has started.
pub struct Caller {
    pub side: CarrierSide,
    pub stream: TcpStream,
    /// What was read behind the upgrade.
    pub early: Vec<u8>,
}

/// What an HTTP request was answered with.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// Where TwiML sends a call's audio.
#[derive(Debug, Default, PartialEq)]
struct Stream {
    url: String,
    parameters: Map<String, Value>,
}

impl Caller {
    /// Brings the call with this index in.
    pub fn call(candidate: Candidate, address: SocketAddr, index: u16) -> anyhow::Result<Self> {
        let side = CarrierSide {
            account_sid: ACCOUNT_SID.to_owned(),
            call_sid: format!("CA{index:032}"),
            stream_sid: format!("MZ{index:032}"),
        };
        let stream = match candidate {
            Candidate::Floor => Stream {
                url: format!("ws://{address}/"),
                parameters: Map::new(),
            },
            Candidate::Gateway => ring(&side, address, index)?,
        };
        let (mut socket, early) = open(&stream.url)?;
        let (mut hello, mut masks) = (Vec::new(), Masks::default());
        let start = side.start(&stream.parameters);
        for text in [CarrierSide::CONNECTED, &start] {
            let mask = Some(masks.next_mask());
            frame::append(&mut hello, Opcode::Text, mask, &[text.as_bytes()]);
        }
        socket.write_all(&hello)?;
        Ok(Self {
            side,
            stream: socket,
            early,
        })
    }
}

/// Asks for a page.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    exchange(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"),
    )
}

/// Rings as Twilio does, and returns where the call's audio goes.
fn ring(side: &CarrierSide, address: SocketAddr, index: u16) -> anyhow::Result<Stream> {
    let from = format!("+1555{index:07}");
    let fields = BTreeMap::from([
        ("AccountSid", side.account_sid.as_str()),
        ("ApiVersion", "2010-04-01"),
        ("CallSid", &side.call_sid),
        ("CallStatus", "ringing"),
        ("Called", "+15550000000"),
        ("Caller", &from),
        ("Direction", "inbound"),
        ("From", &from),
        ("To", "+15550000000"),
    ]);
    let path = "/webhook/incoming_call";
    let signature = sign(&format!("http://{address}{path}"), &fields);
    let form: Vec<String> = fields
        .iter()
        // The plus of a number is the only character here that a form may not hold as it is.
        .map(|(name, value)| format!("{name}={}", value.replace('+', "%2B")))
        .collect();
    let form = form.join("&");
    let length = form.len();
    let answer = exchange(
        address,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n\
             Content-Length: {length}\r\nX-Twilio-Signature: {signature}\r\n\r\n{form}"
        ),
    )?;
    let Answer { status, body } = answer;
    ensure!(status == 200, "the webhook answered {status}: {body}");
    stream_of(&body)?.with_context(|| format!("the call was not let in: {body}"))
}

/// Opens the media socket, and returns what was read behind its upgrade too.
fn open(url: &str) -> anyhow::Result<(TcpStream, Vec<u8>)> {
    let rest = url.strip_prefix("ws://");
    let rest = rest.with_context(|| format!("not a plain WebSocket: {url}"))?;
    let slash = rest.find('/').unwrap_or(rest.len());
    let (host, path) = rest.split_at(slash);
    let mut stream = connect(host.parse()?)?;
    let signature = sign(url, &BTreeMap::new());
    let path = if path.is_empty() { "/" } else { path };
    let request = upgrade::request(host, path, &[("X-Twilio-Signature", &signature)]);
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

fn exchange(address: SocketAddr, request: &str) -> anyhow::Result<Answer> {
    let mut stream = connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream
        .take(LONGEST_HEAD as u64 * 8)
        .read_to_end(&mut answer)?;
    let head = upgrade::head(&answer).context("not an answer in HTTP")?;
    if upgrade::header(head, "Transfer-Encoding").is_some() {
        bail!("an answer in chunks");
    }
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let body = String::from_utf8_lossy(&answer[head.len()..]).into_owned();
    Ok(Answer { status, body })
}

fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Signs a form posted to `url`, or, without fields, an upgrade, as
/// twilio.com/docs/usage/security says.
fn sign(url: &str, fields: &BTreeMap<&str, &str>) -> String {
    let mut signed = url.to_owned();
    for (name, value) in fields {
        write!(signed, "{name}{value}").expect("a string takes any text");
    }
    let mut mac = Hmac::<Sha1>::new_from_slice(AUTH_TOKEN.as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(signed.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Finds the stream in TwiML, or returns `None` if the call is answered in another way.
fn stream_of(twiml: &str) -> anyhow::Result<Option<Stream>> {
    let mut reader = quick_xml::Reader::from_str(twiml);
    let mut stream = None;
    loop {
        let event = reader.read_event()?;
        let (Event::Start(tag) | Event::Empty(tag)) = &event else {
            if matches!(event, Event::Eof) {
                return Ok(stream);
            }
            continue;
        };
        let attribute = |name: &str| -> anyhow::Result<String> {
            let found = tag.try_get_attribute(name)?;
            let found = found.with_context(|| format!("a tag without {name}: {twiml}"))?;
            let value = found.normalized_value(XmlVersion::Implicit1_0)?;
            Ok(value.into_owned())
        };
        match tag.name().as_ref() {
            "Stream" => {
                stream = Some(Stream {
                    url: attribute("url")?,
                    parameters: Map::new(),
                });
            }
            "Parameter" => {
                let stream = stream.as_mut().context("a parameter of no stream")?;
                let value = Value::String(attribute("value")?);
                stream.parameters.insert(attribute("name")?, value);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_upgrades_are_signed_as_by_twilio() {
        // Computed with twilio-python 9.13.0.
        let fields = BTreeMap::from([
            ("CallSid", "CA00000000000000000000000000000001"),
            ("AccountSid", "AC00000000000000000000000000000001"),
            ("From", "+972501234567"),
            ("To", "+972721234567"),
            ("CallStatus", "ringing"),
            ("ApiVersion", "2010-04-01"),
            ("Direction", "inbound"),
            ("CallerName", ""),
            ("FromCity", "TEL AVIV"),
        ]);
        let url = "https://voice.example.com/twilio/voice?tenant=acme";
        assert_eq!(sign(url, &fields), "23KWQiRfonZvSwqMmJglfz51m/s=");
        let url = "wss://voice.example.com/twilio/media";
        assert_eq!(sign(url, &BTreeMap::new()), "3Wv0T80qzAY3OCARW9y1gnUJZtE=");
    }

    #[test]
    fn a_stream_is_found_in_twiml() {
        let twiml = r#"<?xml version="1.0" encoding="UTF-8"?>
            <Response><Connect><Stream url="ws://127.0.0.1:5050/twilio/media">
            <Parameter name="ticket" value="a&amp;b"/></Stream></Connect></Response>"#;
        let stream = stream_of(twiml).unwrap().unwrap();
        assert_eq!(stream.url, "ws://127.0.0.1:5050/twilio/media");
        assert_eq!(stream.parameters["ticket"], "a&b");

        let refused = "<Response><Say>Nobody is free.</Say><Hangup/></Response>";
        assert_eq!(stream_of(refused).unwrap(), None);
    }
}
