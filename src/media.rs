//! The carrier's socket: limits, keep-alive and a bounded outbox around the carrier's messages.

pub mod acs;
pub mod dialect;
pub mod twilio;
pub mod web;

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, Message};
use bytes::Bytes;
use futures_util::{Sink, Stream};
use tokio::time::{Instant, timeout};

use crate::{
    call::EndReason,
    chunk::{Chunk, Encoding},
    language::Language,
    media::{
        dialect::{Dialect, Event, Fault},
        twilio::Start,
        web::State,
    },
    session::{Follows, Input, Mark, Speaker},
};

/// The longest frame, and the longest message made of several.
pub const LONGEST_FRAME: usize = 16 << 10;
pub const LONGEST_MESSAGE: usize = 64 << 10;
/// How long a socket may take to say whose it is.
const START_PATIENCE: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long a socket may answer no ping, or, where nobody knows whether it would, say nothing.
const PONG_PATIENCE: Duration = Duration::from_secs(20);
/// How much audio waits for a socket that takes none; the oldest is dropped beyond it.
const MOST_WAITING: Duration = Duration::from_secs(2);
/// How many bytes of what is not audio may wait for a socket that takes none, with so many for each
/// message beside its own: the words of a long answer are a few thousand.
const MOST_BESIDE: usize = 1 << 20;
const BESIDE_EACH: usize = 256;
/// How long a socket may take none.
const BLOCKED_FOR: Duration = Duration::from_secs(10);
/// How far ahead of its time a sentence of ours is sent, in pieces of this length.
const LEAD: Duration = Duration::from_secs(1);
const PIECE: Duration = Duration::from_millis(180);
/// How long the end of a sentence may be on its way to the caller's ear.
const ON_ITS_WAY: Duration = Duration::from_millis(500);
/// How many messages may make no sense.
const MOST_GARBLED: u32 = 20;
/// How many pings and pongs a socket may send within a second.
const MOST_CONTROLS: u32 = 100;

/// A carrier's media socket.
pub struct MediaSocket {
    sender: actix_ws::Session,
    receiver: AggregatedMessageStream,
    dialect: Dialect,
    began: Instant,
    outbox: VecDeque<Outgoing>,
    waiting: Duration,
    /// What waits beside audio, as [`MOST_BESIDE`] counts it.
    beside: usize,
    dropped: u64,
    blocked_since: Option<Duration>,
    ping_at: Duration,
    alive_at: Duration,
    garbled: u32,
    controls: u32,
    controls_since: Duration,
}

struct Outgoing {
    message: Message,
    /// How long it plays; nothing for what is not audio.
    duration: Duration,
}

impl Outgoing {
    /// Returns what it weighs beside audio, which is bounded by how long it plays.
    fn beside(&self) -> usize {
        if !self.duration.is_zero() {
            return 0;
        }
        let length = match &self.message {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
            Message::Continuation(_) | Message::Close(_) | Message::Nop => 0,
        };
        length + BESIDE_EACH
    }
}

impl MediaSocket {
    pub fn new(
        dialect: Dialect,
        sender: actix_ws::Session,
        receiver: actix_ws::MessageStream,
    ) -> Self {
        let receiver = receiver
            .max_frame_size(LONGEST_FRAME)
            .aggregate_continuations();
        Self {
            sender,
            receiver: receiver.max_continuation_size(LONGEST_MESSAGE),
            dialect,
            began: Instant::now(),
            outbox: VecDeque::new(),
            waiting: Duration::ZERO,
            beside: 0,
            dropped: 0,
            blocked_since: None,
            ping_at: PING_EVERY,
            alive_at: Duration::ZERO,
            garbled: 0,
            controls: 0,
            controls_since: Duration::ZERO,
        }
    }

    /// Returns the time since the socket opened, the time of all its deadlines.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Returns when the time of its deadlines began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Goes on with a call whose time began before this socket opened.
    pub fn take_over(&mut self, began: Instant) {
        let before = self.began.saturating_duration_since(began);
        self.began = began;
        for at in [
            &mut self.ping_at,
            &mut self.alive_at,
            &mut self.controls_since,
        ] {
            *at += before;
        }
    }

    /// Tells whether the carrier may bring a call's media again once this socket is lost.
    pub fn may_be_replaced(&self) -> bool {
        matches!(self.dialect, Dialect::Acs(_))
    }

    /// Returns how the carrier's audio is encoded, both ways.
    pub fn encoding(&self) -> Encoding {
        self.dialect.encoding()
    }

    /// Returns how it is known what the caller has heard.
    pub fn follows(&self) -> Follows {
        self.dialect.follows()
    }

    /// Waits for the stream's start.
    ///
    /// # Errors
    /// If it does not come in time, or something else does.
    pub async fn started(&mut self) -> Result<Start, EndReason> {
        let start = std::future::poll_fn(|cx| {
            loop {
                let at = self.now();
                match std::task::ready!(self.poll_read(cx, at)) {
                    Ok(Event::Started(start)) => return Poll::Ready(Ok(start)),
                    Ok(Event::Input(Input::CallerHungUp)) => {
                        return Poll::Ready(Err(EndReason::CallerHungUp));
                    }
                    Ok(Event::Input(_) | Event::Reply(_) | Event::Ignored) => {}
                    Err(reason) => return Poll::Ready(Err(reason)),
                }
            }
        });
        let start = timeout(START_PATIENCE, start).await;
        start.unwrap_or(Err(EndReason::CarrierGarbled))
    }

    /// Reads what the carrier sends. Cancel-safe: an input is returned or still to come.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, at: Duration) -> Poll<Input> {
        loop {
            match std::task::ready!(self.poll_read(cx, at)) {
                Ok(Event::Input(input)) => return Poll::Ready(input),
                Ok(Event::Started(_) | Event::Reply(_) | Event::Ignored) => {}
                Err(reason) => return Poll::Ready(Input::End(reason)),
            }
        }
    }

    /// Reads, and answers a ping at once: there may be nothing else to wake us.
    fn poll_read(&mut self, cx: &mut Context<'_>, at: Duration) -> Poll<Result<Event, EndReason>> {
        let read = self.poll_event(cx, at);
        if read.is_pending()
            && !self.outbox.is_empty()
            && let Poll::Ready(reason) = self.poll_outbox(cx, at)
        {
            return Poll::Ready(Err(reason));
        }
        read
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, at: Duration) -> Poll<Result<Event, EndReason>> {
        let message = std::task::ready!(Pin::new(&mut self.receiver).poll_next(cx));
        if !self.dialect.answers_pings() {
            self.alive_at = at;
        }
        Poll::Ready(match message {
            Some(Ok(AggregatedMessage::Text(text))) => {
                let read = self.dialect.read(text.as_bytes());
                self.judge(read, at)
            }
            Some(Ok(AggregatedMessage::Binary(samples))) => {
                let read = self.dialect.hear(&samples);
                self.judge(read, at)
            }
            Some(Ok(AggregatedMessage::Ping(payload))) => {
                self.put(Message::Pong(payload), Duration::ZERO);
                self.control(at)
            }
            Some(Ok(AggregatedMessage::Pong(_))) => {
                self.alive_at = at;
                self.control(at)
            }
            Some(Ok(AggregatedMessage::Close(why))) => Err(self.dialect.closed(why.as_ref())),
            None => Err(EndReason::CarrierLost),
            // Text that is not UTF-8, a message that grew too long, or the loss of the socket:
            // what came before it, a stop perhaps, is still to be read, and a lost socket ends then.
            Some(Err(actix_ws::ProtocolError::Io(_))) => self.judge(Err(Fault::Garbled), at),
            Some(Err(_)) => Err(EndReason::CarrierGarbled),
        })
    }

    fn judge(&mut self, read: Result<Event, Fault>, at: Duration) -> Result<Event, EndReason> {
        match read {
            Ok(Event::Reply(message)) => {
                self.put(message, Duration::ZERO);
                self.control(at)
            }
            Ok(event) => Ok(event),
            Err(Fault::OtherStream | Fault::WrongFormat) => Err(EndReason::CarrierGarbled),
            Err(Fault::Garbled) => {
                self.garbled += 1;
                if self.garbled > MOST_GARBLED {
                    Err(EndReason::CarrierGarbled)
                } else {
                    Ok(Event::Ignored)
                }
            }
        }
    }

    fn control(&mut self, at: Duration) -> Result<Event, EndReason> {
        if self.controls_since + Duration::from_secs(1) <= at {
            self.controls_since = at;
            self.controls = 0;
        }
        self.controls += 1;
        if self.controls > MOST_CONTROLS {
            Err(EndReason::CarrierGarbled)
        } else {
            Ok(Event::Ignored)
        }
    }

    pub fn play(&mut self, chunk: &Chunk) {
        let message = self.dialect.play(chunk);
        self.put_some(message, chunk.duration());
    }

    /// Asks to be told when everything before was played; where nobody tells, nobody asks.
    pub fn mark(&mut self, mark: Mark) {
        let message = self.dialect.mark(mark);
        self.put_some(message, Duration::ZERO);
    }

    /// Shows what was said to a caller who can read it.
    pub fn said(&mut self, who: Speaker, text: &str) {
        let message = self.dialect.said(who, text);
        self.put_some(message, Duration::ZERO);
    }

    /// Tells a browser how its call stands.
    pub fn tell(&mut self, state: State, language: &Language) {
        let message = self.dialect.tell(state, language);
        self.put_some(message, Duration::ZERO);
    }

    /// Drops what was not played yet, here and at the carrier.
    pub fn clear(&mut self) {
        let dialect = &self.dialect;
        self.outbox
            .retain(|outgoing| dialect.outlives_clear(&outgoing.message));
        self.waiting = Duration::ZERO;
        self.beside = self.outbox.iter().map(Outgoing::beside).sum();
        let message = self.dialect.clear();
        self.put_some(message, Duration::ZERO);
    }

    /// Returns how much audio was dropped, in messages, because the socket took none.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns how many messages made no sense.
    pub fn garbled(&self) -> u32 {
        self.garbled
    }

    fn put_some(&mut self, message: Option<Message>, duration: Duration) {
        if let Some(message) = message {
            self.put(message, duration);
        }
    }

    fn put(&mut self, message: Message, duration: Duration) {
        let outgoing = Outgoing { message, duration };
        self.waiting += duration;
        self.beside += outgoing.beside();
        self.outbox.push_back(outgoing);
        // Audio that comes late is worth less than audio that comes now.
        while self.waiting > MOST_WAITING
            && let Some(at) = self.outbox.iter().position(|it| !it.duration.is_zero())
            && let Some(oldest) = self.outbox.remove(at)
        {
            self.waiting = self.waiting.saturating_sub(oldest.duration);
            self.dropped += 1;
        }
    }

    /// Sends what waits, and pings. Never completes otherwise than with the end of the call.
    pub fn poll_outbox(&mut self, cx: &mut Context<'_>, at: Duration) -> Poll<EndReason> {
        if self.ping_at <= at {
            self.ping_at = at + PING_EVERY;
            self.put(Message::Ping(Bytes::new()), Duration::ZERO);
        }
        if self.alive_at + PONG_PATIENCE <= at {
            return Poll::Ready(EndReason::CarrierUnresponsive);
        }
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.sender).poll_ready(cx) {
                Poll::Ready(Ok(())) => self.blocked_since = None,
                Poll::Ready(Err(_)) => return Poll::Ready(EndReason::CarrierLost),
                Poll::Pending => {
                    let since = *self.blocked_since.get_or_insert(at);
                    if since + BLOCKED_FOR <= at || self.beside > MOST_BESIDE {
                        return Poll::Ready(EndReason::CarrierBlocked);
                    }
                    return Poll::Pending;
                }
            }
            let Some(next) = self.outbox.pop_front() else {
                break;
            };
            self.waiting = self.waiting.saturating_sub(next.duration);
            self.beside = self.beside.saturating_sub(next.beside());
            if Pin::new(&mut self.sender).start_send(next.message).is_err() {
                return Poll::Ready(EndReason::CarrierLost);
            }
        }
        Poll::Pending
    }

    /// Tells whether everything has gone to the server that writes it.
    pub fn is_sent(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Returns when [`MediaSocket::poll_outbox`] must be asked again.
    pub fn deadline(&self) -> Duration {
        let blocked = self
            .blocked_since
            .map_or(Duration::MAX, |since| since + BLOCKED_FOR);
        blocked.min(self.ping_at).min(self.alive_at + PONG_PATIENCE)
    }

    /// Plays `audio` and returns once it has been played, or the carrier has had enough.
    pub async fn say(&mut self, mut audio: Chunk) {
        self.clear();
        let mut fed_until = self.now();
        let over = fed_until + audio.duration() + ON_ITS_WAY;
        loop {
            let at = self.now();
            while !audio.is_empty() && fed_until <= at + LEAD {
                let piece = audio.split_off_front(PIECE);
                fed_until += piece.duration();
                self.play(&piece);
            }
            let again = if audio.is_empty() { over } else { at + PIECE };
            let until = again.min(self.deadline()).saturating_sub(at);
            let ended = std::future::poll_fn(|cx| self.poll_end(cx));
            let ended = timeout(until.max(Duration::from_millis(1)), ended).await;
            if ended.is_ok() || over <= self.now() {
                return;
            }
        }
    }

    /// Sends what waits, and completes when the socket is of no more use.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.now();
        if self.poll_outbox(cx, at).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let input = std::task::ready!(self.poll_next(cx, at));
            if let Input::End(_) | Input::CallerHungUp = input {
                return Poll::Ready(());
            }
        }
    }

    /// Closes the socket; a carrier that takes no goodbye is not waited for.
    pub async fn close(self, reason: EndReason) {
        self.close_as(close_code(reason), reason.as_str()).await;
    }

    /// Closes the socket with a code of its own protocol.
    pub async fn close_as(self, code: CloseCode, description: &str) {
        let reason = CloseReason {
            code,
            description: Some(description.to_owned()),
        };
        let _ = timeout(Duration::from_secs(1), self.sender.close(Some(reason))).await;
    }
}

fn close_code(reason: EndReason) -> CloseCode {
    match reason {
        EndReason::CarrierGarbled => CloseCode::Policy,
        EndReason::Drained | EndReason::Stopped | EndReason::TakenOver => CloseCode::Restart,
        EndReason::Panicked => CloseCode::Error,
        EndReason::CallerHungUp
        | EndReason::CarrierEnded
        | EndReason::CarrierLost
        | EndReason::NoMedia
        | EndReason::MediaStalled
        | EndReason::CarrierUnresponsive
        | EndReason::CarrierBlocked
        | EndReason::AnswerFailed
        | EndReason::Busy
        | EndReason::NoAnswer
        | EndReason::Canceled
        | EndReason::NotPlaced
        | EndReason::Untold
        | EndReason::MachineAnswered
        | EndReason::Requested
        | EndReason::StreamFailed
        | EndReason::AgentUnreachable
        | EndReason::AgentRefused
        | EndReason::AgentTooSlow
        | EndReason::AgentClosed
        | EndReason::AgentStalled
        | EndReason::AgentBlocked
        | EndReason::AgentGarbled
        | EndReason::AgentWrongFormat
        | EndReason::AgentFailed
        | EndReason::AgentExpired
        | EndReason::AgentHungUp
        | EndReason::Transferred
        | EndReason::TooLong => CloseCode::Normal,
    }
}

#[cfg(test)]
mod tests;
