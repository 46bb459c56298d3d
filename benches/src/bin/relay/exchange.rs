//! The ears of all callers and the echoing agent, on one thread that never sleeps.
//!
//! Were it to sleep, whoever sends to it would pay for waking its core: the more idle the machine,
//! the more, so that a candidate would seem the dearer the less it has to do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::anyhow;
use callgate_benches::frame::{self, FrameError, Frames, Opcode};
use callgate_benches::link::{INBOX, Link};
use callgate_benches::message::{FromClient, Reader, agent};
use callgate_benches::upgrade;
use hdrhistogram::Histogram;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::audio::{Cutter, Stamp, elapsed};
use crate::line::{Line, Told};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// What a caller says besides audio; it leaves with the next frame that is due.
pub enum Reply {
    /// Everything before this mark was played.
    Mark(String),
    Pong(Vec<u8>),
}

/// What came back to the callers, of the frames that count.
#[derive(Clone)]
pub struct Heard {
    /// In nanoseconds.
    pub round_trips: Histogram<u64>,
    pub duplicated: u32,
    /// Behind a frame that was sent later.
    pub reordered: u32,
    /// Audio that none of the call's frames is made of.
    pub strange: u32,
    /// Calls that the candidate ended or broke.
    pub calls_dropped: u32,
}

/// A thread that listens for agents' clients and to callers. Dropping it ends it.
pub struct Exchange {
    /// Where the agent is.
    pub agent: SocketAddr,
    agents: Arc<AtomicUsize>,
    busy_ns: Arc<AtomicU64>,
    hung_up: Arc<AtomicBool>,
    callers: Sender<NewCaller>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<anyhow::Result<Vec<Heard>>>>,
}

struct NewCaller {
    index: u16,
    /// Which of the lines.
    line: usize,
    stream: std::net::TcpStream,
    early: Vec<u8>,
}

impl Exchange {
    /// Starts the thread. The numbers of frames that count are `counted`, in every call; what is
    /// heard is told apart by line.
    pub fn start(
        counted: Range<u32>,
        lines: &[Line],
    ) -> anyhow::Result<(Self, Receiver<(u16, Reply)>)> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let agent = listener.local_addr()?;
        let registry = poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(registry, WAKER)?);

        let agents = Arc::new(AtomicUsize::new(0));
        let busy_ns = Arc::new(AtomicU64::new(0));
        let hung_up = Arc::new(AtomicBool::new(false));
        let (callers, new_callers) = mpsc::channel();
        let (sender, replies) = mpsc::channel();
        let mut inner = Inner {
            poll,
            listener,
            new_callers,
            agents: Arc::clone(&agents),
            busy_ns: Arc::clone(&busy_ns),
            hung_up: Arc::clone(&hung_up),
            peers: Vec::new(),
            tools: Tools {
                out: Vec::new(),
                reader: Reader::default(),
                replies: sender,
                counted,
                heard: lines.iter().map(|_| Heard::default()).collect(),
            },
            lines: lines.to_vec(),
        };
        let thread = thread::spawn(move || inner.run());
        let exchange = Self {
            agent,
            agents,
            busy_ns,
            hung_up,
            callers,
            waker,
            thread: Some(thread),
        };
        Ok((exchange, replies))
    }

    /// Listens to a caller from here on.
    pub fn listen_to(
        &self,
        index: u16,
        line: usize,
        stream: std::net::TcpStream,
        early: Vec<u8>,
    ) -> anyhow::Result<()> {
        let caller = NewCaller {
            index,
            line,
            stream,
            early,
        };
        let sent = self.callers.send(caller);
        sent.map_err(|_| anyhow!("the exchange is gone"))?;
        Ok(self.waker.wake()?)
    }

    /// Returns how many agents talk with a client.
    pub fn agents(&self) -> usize {
        self.agents.load(Ordering::Relaxed)
    }

    /// Returns how long the thread was at work so far, be it that it waited for its core meanwhile.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }

    /// Stops listening, and returns what was heard on each line.
    pub fn finish(mut self) -> anyhow::Result<Vec<Heard>> {
        self.end()?;
        let thread = self.thread.take().expect("it is taken here only");
        thread
            .join()
            .map_err(|_| anyhow!("the exchange panicked"))?
    }

    fn end(&self) -> io::Result<()> {
        self.hung_up.store(true, Ordering::Relaxed);
        self.waker.wake()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // Fails only when the thread is gone; nobody waits for it then.
        let _ = self.end();
    }
}

/// Returns a histogram of nanoseconds, good for a minute with three digits.
pub fn histogram() -> Histogram<u64> {
    let longest = Duration::from_mins(1).as_nanos();
    let longest = u64::try_from(longest).expect("a minute is not that long");
    Histogram::new_with_max(longest, 3).expect("these bounds are valid")
}

struct Inner {
    poll: Poll,
    listener: TcpListener,
    new_callers: Receiver<NewCaller>,
    agents: Arc<AtomicUsize>,
    busy_ns: Arc<AtomicU64>,
    hung_up: Arc<AtomicBool>,
    /// By token. They stay until the end, closed or not.
    peers: Vec<Option<Peer>>,
    tools: Tools,
    lines: Vec<Line>,
}

struct Tools {
    out: Vec<u8>,
    reader: Reader,
    replies: Sender<(u16, Reply)>,
    counted: Range<u32>,
    /// By line.
    heard: Vec<Heard>,
}

struct Peer {
    link: Link,
    role: Role,
}

enum Role {
    /// An agent, before the client has asked for a WebSocket.
    Ringing,
    Agent,
    Caller(Box<Ear>),
}

/// What one caller has heard.
struct Ear {
    call: u16,
    line: Line,
    /// Where what was heard on its line is counted.
    count: usize,
    cutter: Cutter,
    /// Which of the frames that count.
    heard: Vec<bool>,
    latest: Option<u32>,
}

/// Why a peer is no more.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl From<FrameError> for Gone {
    fn from(_: FrameError) -> Self {
        Self
    }
}

impl Inner {
    fn run(&mut self) -> anyhow::Result<Vec<Heard>> {
        let mut inbox = vec![0; INBOX];
        let mut events = Events::with_capacity(1024);
        while !self.hung_up.load(Ordering::Relaxed) {
            let began = elapsed();
            match self.poll.poll(&mut events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => result?,
            }
            if events.is_empty() {
                continue;
            }
            for event in &events {
                match event.token() {
                    LISTENER => {
                        while let Ok((stream, _)) = self.listener.accept() {
                            self.add(stream, Role::Ringing, &[])?;
                        }
                    }
                    WAKER => {
                        while let Ok(caller) = self.new_callers.try_recv() {
                            self.listen_to(caller)?;
                        }
                    }
                    Token(index) => {
                        let Some(Some(peer)) = self.peers.get_mut(index) else {
                            continue;
                        };
                        let was_ringing = matches!(peer.role, Role::Ringing);
                        let closed = event.is_read_closed();
                        let result = peer.advance(closed, &mut inbox, &mut self.tools);
                        let is_agent = matches!(peer.role, Role::Agent);
                        if was_ringing && is_agent {
                            self.agents.fetch_add(1, Ordering::Relaxed);
                        }
                        if result.is_err() {
                            if let Role::Caller(ear) = &peer.role {
                                self.tools.heard[ear.count].calls_dropped += 1;
                            }
                            self.peers[index] = None;
                        }
                    }
                }
            }
            let busy = elapsed().saturating_sub(began).as_nanos();
            let busy = u64::try_from(busy).expect("a bench ends within centuries");
            self.busy_ns.fetch_add(busy, Ordering::Relaxed);
        }
        Ok(self.tools.heard.clone())
    }

    fn listen_to(&mut self, caller: NewCaller) -> io::Result<()> {
        let NewCaller {
            index,
            line: count,
            stream,
            early,
        } = caller;
        let line = self.lines[count];
        stream.set_nonblocking(true)?;
        let ear = Ear {
            call: index,
            line,
            count,
            cutter: Cutter::new(line.audio()),
            heard: vec![false; self.tools.counted.len()],
            latest: None,
        };
        let role = Role::Caller(Box::new(ear));
        self.add(TcpStream::from_std(stream), role, &early)
    }

    fn add(&mut self, mut stream: TcpStream, role: Role, early: &[u8]) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let token = Token(self.peers.len());
        self.poll.registry().register(&mut stream, token, BOTH)?;
        let mut link = Link::new(stream);
        link.keep(early);
        self.peers.push(Some(Peer { link, role }));
        Ok(())
    }
}

impl Peer {
    fn advance(&mut self, closed: bool, inbox: &mut [u8], tools: &mut Tools) -> Result<(), Gone> {
        self.link.flush()?;
        loop {
            let Some(received) = self.link.receive(inbox)? else {
                return Ok(());
            };
            let mut bytes = received.bytes;
            tools.out.clear();
            if let Role::Ringing = self.role {
                let Some(request) = upgrade::head(bytes) else {
                    self.link.keep(bytes);
                    return Ok(());
                };
                let response = upgrade::response(request).ok_or(Gone)?;
                tools.out.extend_from_slice(response.as_bytes());
                tools.say(&[agent::SESSION_CREATED]);
                self.role = Role::Agent;
                let head = request.len();
                bytes = &mut bytes[head..];
            }
            let mut frames = Frames::new(bytes);
            while let Some(frame) = frames.next()? {
                match (frame.opcode, &mut self.role) {
                    (Opcode::Text, Role::Agent) => tools.echo(frame.payload),
                    (opcode @ (Opcode::Text | Opcode::Binary), Role::Caller(ear)) => {
                        tools.hear(ear, opcode, frame.payload);
                    }
                    (Opcode::Ping, Role::Caller(ear)) => {
                        tools.reply(ear.call, Reply::Pong(frame.payload.to_vec()));
                    }
                    (Opcode::Ping, _) => {
                        frame::append(&mut tools.out, Opcode::Pong, None, &[frame.payload]);
                    }
                    (Opcode::Close, _) => return Err(Gone),
                    (Opcode::Text | Opcode::Binary | Opcode::Pong, _) => {}
                }
            }
            self.link.keep(frames.rest());
            if !tools.out.is_empty() {
                self.link.send(&tools.out)?;
            }
            if received.drained && !closed {
                return Ok(());
            }
        }
    }
}

impl Tools {
    /// Answers as the agent does, with the caller's own audio.
    fn echo(&mut self, text: &[u8]) {
        match self.reader.client(text) {
            Some(FromClient::Append(audio)) => {
                let [before, after] = agent::DELTA;
                let parts = [before, audio, after].map(str::as_bytes);
                frame::append(&mut self.out, Opcode::Text, None, &parts);
            }
            Some(FromClient::SessionUpdate { mulaw: true }) => self.say(&[agent::SESSION_UPDATED]),
            Some(FromClient::SessionUpdate { mulaw: false }) => {
                self.say(&[agent::SESSION_UPDATED_PCM]);
            }
            Some(FromClient::ResponseCreate) => {
                self.say(&[agent::RESPONSE_CREATED, agent::RESPONSE_DONE]);
            }
            None => {}
        }
    }

    fn say(&mut self, texts: &[&str]) {
        for text in texts {
            frame::append(&mut self.out, Opcode::Text, None, &[text.as_bytes()]);
        }
    }

    fn hear(&mut self, ear: &mut Ear, opcode: Opcode, payload: &[u8]) {
        let now = elapsed();
        let Ear {
            call,
            line,
            count,
            cutter,
            heard,
            latest,
        } = ear;
        let (counts, counted) = (&mut self.heard[*count], &self.counted);
        let count = |stamp| counts.count(*call, stamp, now, counted, heard, latest);
        match line.read(&self.reader, opcode, payload) {
            Some(Told::Text(audio)) => cutter.hear_text(audio, count),
            Some(Told::Bytes(audio)) => cutter.hear_bytes(audio, count),
            Some(Told::Mark(name)) => self.reply(*call, Reply::Mark(name.to_owned())),
            None => {}
        }
    }

    fn reply(&self, call: u16, reply: Reply) {
        // Fails only when the callers have stopped talking.
        let _ = self.replies.send((call, reply));
    }
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            round_trips: histogram(),
            duplicated: 0,
            reordered: 0,
            strange: 0,
            calls_dropped: 0,
        }
    }
}

impl Heard {
    fn count(
        &mut self,
        call: u16,
        stamp: Option<Stamp>,
        now: Duration,
        counted: &Range<u32>,
        heard: &mut [bool],
        latest: &mut Option<u32>,
    ) {
        let Some(stamp) = stamp.filter(|stamp| stamp.call == call) else {
            self.strange += 1;
            return;
        };
        let number = stamp.number;
        if latest.is_some_and(|latest| number < latest) {
            self.reordered += 1;
        }
        *latest = (*latest).max(Some(number));
        if !counted.contains(&number) {
            return;
        }
        let index = (number - counted.start) as usize;
        if std::mem::replace(&mut heard[index], true) {
            self.duplicated += 1;
            return;
        }
        let trip = now.saturating_sub(stamp.sent).as_nanos();
        let trip = u64::try_from(trip).unwrap_or(u64::MAX);
        self.round_trips.saturating_record(trip);
    }
}
