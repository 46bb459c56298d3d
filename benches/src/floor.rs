//! The smallest honest relay: one thread, one epoll, one `recv` and one `send` for what arrives.
//!
//! It parses and masks WebSocket frames, answers pings and closes, finds the audio by a search for
//! its key, and wraps the same base64 text anew. It has no admission, no session, no timers, no
//! logs, and takes what callers say before the agent has answered for silence. Rates
//! and encodings are not its business: the agent gets what the carrier sent.

use std::io::{self, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crate::acs;
use crate::frame::{self, FrameError, Frames, Masks, Opcode};
use crate::link::{INBOX, Link};
use crate::message::{APPEND, FromCarrier, MEDIA_SUFFIX, Reader, media_prefix};
use crate::upgrade::{self, LONGEST_HEAD};

const LISTENER: Token = Token(usize::MAX);

/// Both directions, edge-triggered: being writable costs no event until a socket was full.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Where carriers connect. Port 0 takes a free one; the address is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where the agent's WebSocket is, without TLS.
    #[arg(long)]
    agent: SocketAddr,
    /// Whose messages are relayed
    #[arg(long, value_enum, default_value_t = Carrier::Twilio)]
    carrier: Carrier,
}

/// Whose messages are relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Carrier {
    Twilio,
    Acs,
}

/// Relays until the process is ended.
///
/// # Errors
/// When it cannot listen or poll; what breaks in one call ends that call only.
pub fn run(options: &Options) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(options.listen)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut out = io::stdout();
    writeln!(out, "listening on {}", listener.local_addr()?)?;
    out.flush()?;

    let mut floor = Floor {
        agent: options.agent,
        carrier: options.carrier,
        calls: Vec::new(),
        tools: Tools::default(),
    };
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        for event in &events {
            if event.token() == LISTENER {
                floor.accept(&listener, poll.registry());
            } else {
                let (write, closed) = (event.is_writable(), event.is_read_closed());
                floor.advance(event.token(), write, closed);
            }
        }
    }
}

struct Floor {
    agent: SocketAddr,
    carrier: Carrier,
    /// A call's sockets have the tokens `2 * index` and `2 * index + 1`.
    calls: Vec<Option<Call>>,
    tools: Tools,
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) {
        // An error of accept(2) is the caller's who gave up, or a lack of files that the next
        // caller will meet too.
        while let Ok((carrier, _)) = listener.accept() {
            let free = self.calls.iter().position(Option::is_none);
            let index = free.unwrap_or_else(|| {
                self.calls.push(None);
                self.calls.len() - 1
            });
            let call = Call::new(carrier, self.agent, index, registry, self.carrier);
            self.calls[index] = call.ok();
        }
    }

    fn advance(&mut self, token: Token, writable: bool, closed: bool) {
        let (index, side) = match token {
            Token(even) if even % 2 == 0 => (even / 2, Side::Carrier),
            Token(odd) => (odd / 2, Side::Agent),
        };
        let Some(Some(call)) = self.calls.get_mut(index) else {
            return; // An event of a socket that was closed by an earlier one of the same poll.
        };
        if call
            .advance(side, writable, closed, &mut self.tools)
            .is_err()
        {
            self.calls[index] = None; // Closing the sockets takes them off the poll.
        }
    }
}

/// What all calls share because one is served at a time.
struct Tools {
    inbox: Box<[u8]>,
    to_carrier: Vec<u8>,
    to_agent: Vec<u8>,
    reader: Reader,
    masks: Masks,
}

impl Default for Tools {
    fn default() -> Self {
        Self {
            inbox: vec![0; INBOX].into_boxed_slice(),
            to_carrier: Vec::with_capacity(INBOX),
            to_agent: Vec::with_capacity(INBOX),
            reader: Reader::default(),
            masks: Masks::default(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Carrier,
    Agent,
}

/// What reading once came to.
enum Progress {
    Nothing,
    Drained,
    More,
}

/// Why a call is over.
enum Over {
    Closed,
    Broken,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl From<FrameError> for Over {
    fn from(_: FrameError) -> Self {
        Self::Broken
    }
}

struct Call {
    carrier: End,
    agent: End,
    speaks: Carrier,
    /// What comes before the audio in a message to the carrier. Twilio's is known from `start` on.
    media_prefix: Option<Box<str>>,
}

struct End {
    link: Link,
    is_open: bool,
}

impl Call {
    fn new(
        mut carrier: TcpStream,
        address: SocketAddr,
        index: usize,
        registry: &Registry,
        speaks: Carrier,
    ) -> io::Result<Self> {
        carrier.set_nodelay(true)?;
        let mut agent = TcpStream::connect(address)?;
        registry.register(&mut carrier, Token(2 * index), BOTH)?;
        registry.register(&mut agent, Token(2 * index + 1), BOTH)?;
        let mut agent = End::new(agent);
        let host = address.to_string();
        let request = upgrade::request(&host, "/v1/realtime?model=floor", &[]);
        agent.link.postpone(request.as_bytes())?; // Leaves once the socket is connected.
        Ok(Self {
            carrier: End::new(carrier),
            agent,
            speaks,
            media_prefix: match speaks {
                Carrier::Twilio => None,
                Carrier::Acs => Some(acs::MEDIA_PREFIX.into()),
            },
        })
    }

    fn advance(
        &mut self,
        side: Side,
        writable: bool,
        closed: bool,
        tools: &mut Tools,
    ) -> Result<(), Over> {
        let end = match side {
            Side::Carrier => &mut self.carrier,
            Side::Agent => &mut self.agent,
        };
        if writable {
            if side == Side::Agent && !end.is_open {
                end.link.stream.set_nodelay(true)?;
            }
            end.link.flush()?;
        }
        loop {
            let progress = self.receive(side, tools);
            // What was understood leaves even when a close came after it.
            if !tools.to_agent.is_empty() {
                self.agent.link.send(&tools.to_agent)?;
            }
            if !tools.to_carrier.is_empty() {
                self.carrier.link.send(&tools.to_carrier)?;
            }
            match progress? {
                Progress::More => {}
                Progress::Drained if closed => {} // The end raised this event and raises no other.
                Progress::Drained | Progress::Nothing => return Ok(()),
            }
        }
    }

    /// Reads once, and leaves what is to be sent in the buffers of `tools`.
    fn receive(&mut self, side: Side, tools: &mut Tools) -> Result<Progress, Over> {
        let Tools {
            inbox,
            to_carrier,
            to_agent,
            reader,
            masks,
        } = tools;
        to_carrier.clear();
        to_agent.clear();
        let end = match side {
            Side::Carrier => &mut self.carrier,
            Side::Agent => &mut self.agent,
        };
        let Some(received) = end.link.receive(inbox)? else {
            return Ok(Progress::Nothing);
        };
        let progress = if received.drained {
            Progress::Drained
        } else {
            Progress::More
        };
        let mut bytes = received.bytes;
        if !end.is_open {
            let Some(head) = upgrade::head(bytes) else {
                if LONGEST_HEAD < bytes.len() {
                    return Err(Over::Broken);
                }
                end.link.keep(bytes);
                return Ok(progress);
            };
            match side {
                Side::Carrier => {
                    let response = upgrade::response(head).ok_or(Over::Broken)?;
                    to_carrier.extend_from_slice(response.as_bytes());
                }
                Side::Agent if upgrade::is_granted(head) => {}
                Side::Agent => return Err(Over::Broken),
            }
            end.is_open = true;
            let head = head.len();
            bytes = &mut bytes[head..];
        }

        let mut frames = Frames::new(bytes);
        while let Some(frame) = frames.next()? {
            match (frame.opcode, side) {
                (Opcode::Text, Side::Carrier) => match self.speaks.read(reader, frame.payload) {
                    Some(FromCarrier::Media(audio)) if self.agent.is_open => {
                        let [before, after] = APPEND;
                        let parts = [before.as_bytes(), audio.as_bytes(), after.as_bytes()];
                        frame::append(to_agent, Opcode::Text, Some(masks.next_mask()), &parts);
                    }
                    Some(FromCarrier::Start { stream_sid }) => {
                        self.media_prefix = Some(media_prefix(stream_sid).into_boxed_str());
                    }
                    Some(FromCarrier::Media(_) | FromCarrier::Mark(_)) | None => {}
                },
                (Opcode::Text, Side::Agent) => {
                    if let Some(audio) = reader.agent(frame.payload)
                        && let Some(before) = &self.media_prefix
                    {
                        let parts = [before, audio, MEDIA_SUFFIX].map(str::as_bytes);
                        frame::append(to_carrier, Opcode::Text, None, &parts);
                    }
                }
                (Opcode::Ping, Side::Carrier) => {
                    frame::append(to_carrier, Opcode::Pong, None, &[frame.payload]);
                }
                (Opcode::Ping, Side::Agent) => {
                    let mask = Some(masks.next_mask());
                    frame::append(to_agent, Opcode::Pong, mask, &[frame.payload]);
                }
                (Opcode::Close, _) => {
                    // The peer's own code to both; at most a code, for reasons are for people.
                    let code = &frame.payload[..frame.payload.len().min(2)];
                    frame::append(to_carrier, Opcode::Close, None, &[code]);
                    if self.agent.is_open {
                        let mask = Some(masks.next_mask());
                        frame::append(to_agent, Opcode::Close, mask, &[code]);
                    }
                    return Err(Over::Closed);
                }
                (Opcode::Binary | Opcode::Pong, _) => {}
            }
        }
        match side {
            Side::Carrier => self.carrier.link.keep(frames.rest()),
            Side::Agent => self.agent.link.keep(frames.rest()),
        }
        Ok(progress)
    }
}

impl Carrier {
    fn read<'a>(self, reader: &Reader, text: &'a [u8]) -> Option<FromCarrier<'a>> {
        match self {
            Self::Twilio => reader.carrier(text),
            Self::Acs => reader.acs(text).map(FromCarrier::Media),
        }
    }
}

impl End {
    fn new(stream: TcpStream) -> Self {
        Self {
            link: Link::new(stream),
            is_open: false,
        }
    }
}
