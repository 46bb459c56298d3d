//! The floor relays whole calls, however their bytes arrive.

#![expect(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use callgate_benches::frame::{self, Frame, Frames, Opcode};
use callgate_benches::message::{APPEND, CarrierSide, MEDIA_SUFFIX, agent};
use callgate_benches::upgrade;

const MASK: Option<[u8; 4]> = Some([0xa1, 0xb2, 0xc3, 0xd4]);

#[test]
fn audio_is_relayed_however_it_is_cut() {
    let floor = Floor::start();
    let mut call = floor.call();
    let audio: Vec<String> = (0..4).map(|number| format!("//{number}/")).collect();

    // All frames in one write towards the agent.
    let media: Vec<String> = audio.iter().map(|audio| media(audio)).collect();
    let mut bytes = Vec::new();
    for text in &media {
        frame::append(&mut bytes, Opcode::Text, MASK, &[text.as_bytes()]);
    }
    call.carrier.stream.write_all(&bytes).unwrap();
    let [before, after] = APPEND;
    for audio in &audio {
        let expected = format!("{before}{audio}{after}");
        assert_eq!(call.agent.next(), (Opcode::Text, expected));
    }

    // Byte by byte towards the caller, with an event in between that is no audio.
    let [before, after] = agent::DELTA;
    for audio in &audio {
        let delta = format!("{before}{audio}{after}");
        let mut bytes = Vec::new();
        for text in [&delta, agent::RESPONSE_DONE] {
            frame::append(&mut bytes, Opcode::Text, None, &[text.as_bytes()]);
        }
        for byte in bytes {
            call.agent.stream.write_all(&[byte]).unwrap();
        }
        let expected =
            format!(r#"{{"event":"media","streamSid":"MZ1","media":{{"payload":"{audio}"}}}}"#);
        assert_eq!(call.carrier.next(), (Opcode::Text, expected));
    }
}

#[test]
fn pings_are_answered_and_a_close_ends_both_sides() {
    let floor = Floor::start();
    let mut call = floor.call();
    call.carrier.send(Opcode::Ping, MASK, "one");
    assert_eq!(call.carrier.next(), (Opcode::Pong, "one".to_owned()));
    call.agent.send(Opcode::Ping, None, "two");
    assert_eq!(call.agent.next(), (Opcode::Pong, "two".to_owned()));

    call.carrier.send(Opcode::Close, MASK, "");
    assert_eq!(call.carrier.next().0, Opcode::Close);
    assert_eq!(call.agent.next().0, Opcode::Close);
    for peer in [&mut call.carrier, &mut call.agent] {
        assert_eq!(peer.stream.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_broken_call_ends_alone() {
    let floor = Floor::start();
    let (mut broken, mut whole) = (floor.call(), floor.call());
    broken.carrier.stream.write_all(&[0xff; 16]).unwrap();
    assert_eq!(broken.agent.stream.read(&mut [0]).unwrap(), 0);
    whole.carrier.send(Opcode::Text, MASK, &media("AAAA"));
    let [before, after] = APPEND;
    let expected = format!("{before}AAAA{after}");
    assert_eq!(whole.agent.next(), (Opcode::Text, expected));
}

struct Floor {
    child: Child,
    address: SocketAddr,
    agents: TcpListener,
}

impl Floor {
    fn start() -> Self {
        let agents = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_floor"))
            .args(["--agent", &agents.local_addr().unwrap().to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        let address = address.parse().unwrap();
        Self {
            child,
            address,
            agents,
        }
    }

    fn call(&self) -> Call {
        let mut carrier = Peer::new(TcpStream::connect(self.address).unwrap());
        let request = upgrade::request("localhost", "/", &[]);
        carrier.stream.write_all(request.as_bytes()).unwrap();
        assert!(upgrade::is_granted(&carrier.head()));

        let mut agent = Peer::new(self.agents.accept().unwrap().0);
        let response = upgrade::response(&agent.head()).unwrap();
        agent.stream.write_all(response.as_bytes()).unwrap();
        // A pong proves that the response was read.
        agent.send(Opcode::Ping, None, "");
        assert_eq!(agent.next().0, Opcode::Pong);

        carrier.send(Opcode::Text, MASK, CarrierSide::CONNECTED);
        let start = side().start(&serde_json::Map::new());
        carrier.send(Opcode::Text, MASK, &start);
        carrier.send(Opcode::Ping, MASK, "");
        assert_eq!(carrier.next().0, Opcode::Pong);
        Call { carrier, agent }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Call {
    carrier: Peer,
    agent: Peer,
}

struct Peer {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let patience = Some(Duration::from_secs(10));
        stream.set_read_timeout(patience).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    fn send(&mut self, opcode: Opcode, mask: Option<[u8; 4]>, text: &str) {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, opcode, mask, &[text.as_bytes()]);
        self.stream.write_all(&bytes).unwrap();
    }

    fn head(&mut self) -> String {
        loop {
            if let Some(head) = upgrade::head(&self.unread).map(str::to_owned) {
                self.unread.drain(..head.len());
                return head;
            }
            self.read();
        }
    }

    fn next(&mut self) -> (Opcode, String) {
        loop {
            // A copy, because what is looked at is unmasked.
            let mut bytes = self.unread.clone();
            let mut frames = Frames::new(&mut bytes);
            if let Some(Frame { opcode, payload }) = frames.next().unwrap() {
                let text = str::from_utf8(payload).unwrap().to_owned();
                let rest = frames.rest().len();
                self.unread.drain(..self.unread.len() - rest);
                return (opcode, text);
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let mut some = [0; 4096];
        let read = self.stream.read(&mut some).unwrap();
        assert_ne!(read, 0, "the floor hung up");
        self.unread.extend_from_slice(&some[..read]);
    }
}

fn side() -> CarrierSide {
    CarrierSide {
        account_sid: "AC1".to_owned(),
        call_sid: "CA1".to_owned(),
        stream_sid: "MZ1".to_owned(),
    }
}

fn media(audio: &str) -> String {
    let mut text = String::new();
    side().media_head(2, 1, &mut text);
    text + audio + MEDIA_SUFFIX
}
