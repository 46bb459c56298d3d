//! One call's connection to its agent.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::timeout;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::{
    agent::{
        AgentError, Complaint, Dialect, Event, Garbled, Limit, openai, stream::Movable, voice_live,
    },
    call::EndReason,
    campaign::{Campaign, Name},
    chunk::{Chunk, Encoding},
    config::AgentSettings,
    record::Usage,
    session::{Input, Interrupted, ToolResult},
    spending::{Prices, Tokens},
    telemetry::{AgentMetrics, Counted},
};

/// How long an agent may take none of our audio before the call ends.
const BLOCKED_FOR: Duration = Duration::from_secs(10);
/// How many messages may make no sense before the call ends.
const MOST_GARBLED: u32 = 20;

/// One call's connection to its agent, ready to talk.
pub struct AgentSocket {
    socket: WebSocketStream<MaybeTlsStream<Movable>>,
    dialect: Dialect,
    encoding: Encoding,
    /// It cuts an interrupted answer itself, and must not be told to as well.
    cuts_itself: bool,
    outgoing: BytesMut,
    greeting: Option<String>,
    unsent: bool,
    blocked_since: Option<Duration>,
    garbled: u32,
    /// The caller's audio that found no room in the outbox.
    dropped: u64,
    metrics: AgentMetrics,
    _counted: Counted,
    /// Tokens that the agent has used up, of all its calls.
    tokens: Arc<AtomicU32>,
    /// And in this one.
    spent: Tokens,
    name: Name,
    model: String,
    prices: Prices,
    connected_in: Duration,
}

impl AgentSocket {
    /// Sets up the session that an upgraded connection is for.
    ///
    /// # Errors
    /// If the agent is not ready for audio in `encoding`.
    pub(super) async fn ready(
        socket: WebSocketStream<MaybeTlsStream<Movable>>,
        name: Name,
        settings: &AgentSettings,
        campaign: &Campaign,
        encoding: Encoding,
        metrics: AgentMetrics,
        tokens: Arc<AtomicU32>,
    ) -> Result<Self, AgentError> {
        let dialect = Dialect::of(settings.kind);
        let mut agent = Self {
            socket,
            dialect,
            encoding,
            cuts_itself: match dialect {
                Dialect::OpenAi => false,
                Dialect::VoiceLive => settings.voice_live.auto_truncate,
            },
            outgoing: BytesMut::new(),
            greeting: settings.greeting.clone(),
            unsent: false,
            blocked_since: None,
            garbled: 0,
            dropped: 0,
            _counted: metrics.session(name.as_str()),
            metrics,
            tokens,
            spent: Tokens::default(),
            name,
            model: settings.model.clone(),
            prices: settings.prices,
            connected_in: Duration::ZERO,
        };
        agent.set_up(settings, campaign).await?;
        Ok(agent)
    }

    /// Returns how long connecting it took, set-up included.
    pub fn connected_in(&self) -> Duration {
        self.connected_in
    }

    pub(super) fn took(mut self, connected_in: Duration) -> Self {
        self.connected_in = connected_in;
        self
    }

    async fn set_up(
        &mut self,
        settings: &AgentSettings,
        campaign: &Campaign,
    ) -> Result<(), AgentError> {
        loop {
            match self.next_event().await? {
                Event::Created => {
                    let session_update = match self.dialect {
                        Dialect::OpenAi => openai::session_update,
                        Dialect::VoiceLive => voice_live::session_update,
                    };
                    let update = session_update(settings, campaign, self.encoding);
                    let sent = self.socket.send(Message::text(update)).await;
                    sent.map_err(AgentError::Unreachable)?;
                }
                Event::Updated { fits: true } => return Ok(()),
                Event::Updated { fits: false } => return Err(AgentError::WrongFormat),
                Event::Complaint(Complaint::Expired) => return Err(AgentError::Closed),
                Event::Complaint(Complaint::Fatal(code) | Complaint::Harmless(code)) => {
                    return Err(AgentError::Failed(code));
                }
                Event::Input(_) | Event::Answered(..) | Event::Limits(_) => {}
            }
        }
    }

    async fn next_event(&mut self) -> Result<Event, AgentError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let decoded = self.decode(text.as_ref());
                    return decoded.map_err(|_| AgentError::Garbled);
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    return Err(AgentError::Garbled);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(AgentError::Closed),
            }
        }
    }

    /// Moves the connection to this worker, so that one call runs on one thread; tells whether
    /// another one had opened it.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn come_here(&mut self) -> io::Result<bool> {
        match self.socket.get_mut() {
            MaybeTlsStream::Rustls(tls) => tls.get_mut().0.come_here(),
            MaybeTlsStream::Plain(tcp) => tcp.come_here(),
            _ => Ok(false),
        }
    }

    /// Returns how the audio of both sides is encoded.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Lets the agent hear the caller; drops the audio if the agent takes none.
    pub fn hear(&mut self, chunk: &Chunk) {
        openai::append(chunk, &mut self.outgoing);
        let text = Utf8Bytes::try_from(self.outgoing.split().freeze());
        self.send(text.expect("base64 in a literal"));
    }

    pub fn greet(&mut self) {
        if let Some(greeting) = &self.greeting {
            let message = openai::greet(greeting);
            self.send(message.into());
        }
    }

    pub fn answer(&mut self) {
        self.send(openai::answer().into());
    }

    /// Tells the agent what was heard of an answer, unless it sees to that itself.
    pub fn truncate(&mut self, interrupted: &Interrupted) {
        if !self.cuts_itself {
            self.send(openai::truncate(interrupted).into());
        }
    }

    pub fn pressed(&mut self, key: char) {
        self.send(openai::pressed(key).into());
    }

    /// Tells the agent what came of a tool; [`AgentSocket::answer`] has it go on.
    pub fn tell_result(&mut self, result: &ToolResult) {
        self.send(openai::result(result).into());
    }

    /// Returns how many messages found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns how many messages made no sense.
    pub fn garbled(&self) -> u32 {
        self.garbled
    }

    fn send(&mut self, text: Utf8Bytes) {
        // Buffers only: what the socket does not take waits for `poll_outbox`, and a broken
        // socket shows there.
        match Pin::new(&mut self.socket).start_send(Message::Text(text)) {
            Ok(()) => self.unsent = true,
            Err(tungstenite::Error::WriteBufferFull(_)) => self.dropped += 1,
            Err(_) => self.unsent = true,
        }
    }

    /// Sends what waits. Never completes otherwise than with the end of the call.
    pub fn poll_outbox(&mut self, cx: &mut Context<'_>, at: Duration) -> Poll<EndReason> {
        if self.unsent {
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    self.unsent = false;
                    self.blocked_since = None;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(EndReason::AgentClosed),
                Poll::Pending => {
                    let since = *self.blocked_since.get_or_insert(at);
                    if since + BLOCKED_FOR <= at {
                        return Poll::Ready(EndReason::AgentBlocked);
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Tells whether everything has gone to the kernel.
    pub fn is_sent(&self) -> bool {
        !self.unsent
    }

    /// Returns when [`AgentSocket::poll_outbox`] must be asked again.
    pub fn deadline(&self) -> Duration {
        self.blocked_since
            .map_or(Duration::MAX, |since| since + BLOCKED_FOR)
    }

    /// Reads what the agent sends. Cancel-safe: an input is returned or still to come.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        loop {
            let message = match Pin::new(&mut self.socket).poll_next(cx) {
                Poll::Ready(message) => message,
                Poll::Pending => return Poll::Pending,
            };
            let decoded = match message {
                Some(Ok(Message::Text(text))) => self.decode(text.as_ref()),
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => Err(Garbled),
                Some(Ok(Message::Ping(_))) => {
                    self.unsent = true; // The answer to it waits in the outbox.
                    continue;
                }
                Some(Ok(Message::Pong(_))) => continue,
                Some(Err(tungstenite::Error::Capacity(_))) => {
                    return Poll::Ready(Input::End(EndReason::AgentGarbled));
                }
                // OpenAI says so in an error first, and here again: a lost error changes nothing.
                Some(Ok(Message::Close(Some(goodbye)))) if goodbye.reason.contains("expired") => {
                    return Poll::Ready(Input::End(EndReason::AgentExpired));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => {
                    return Poll::Ready(Input::End(EndReason::AgentClosed));
                }
            };
            return Poll::Ready(self.input(decoded));
        }
    }

    fn decode(&self, message: &Bytes) -> Result<Event, Garbled> {
        openai::decode(message, self.dialect, self.encoding)
    }

    fn input(&mut self, decoded: Result<Event, Garbled>) -> Input {
        match decoded {
            Ok(Event::Input(input)) => input,
            Ok(Event::Answered(answered, tokens)) => {
                let total = u32::try_from(tokens.total).unwrap_or(u32::MAX);
                self.tokens.fetch_add(total, Ordering::Relaxed);
                self.spent += tokens;
                Input::AgentAnswered(answered)
            }
            Ok(Event::Created | Event::Updated { fits: true }) => Input::AgentAlive,
            Ok(Event::Limits(limits)) => {
                for (limit, remaining) in limits {
                    match limit {
                        Limit::Requests => self.metrics.requests_remaining(remaining),
                        Limit::Tokens => self.metrics.tokens_remaining(remaining),
                    }
                }
                Input::AgentAlive
            }
            Ok(Event::Updated { fits: false }) => Input::End(EndReason::AgentWrongFormat),
            Ok(Event::Complaint(Complaint::Expired)) => Input::End(EndReason::AgentExpired),
            Ok(Event::Complaint(Complaint::Fatal(code))) => {
                tracing::warn!(code, "agent reported a failure");
                Input::End(EndReason::AgentFailed)
            }
            Ok(Event::Complaint(Complaint::Harmless(code))) => {
                tracing::debug!(code, "agent complained");
                Input::AgentAlive
            }
            Err(Garbled) => {
                self.garbled += 1;
                if self.garbled > MOST_GARBLED {
                    Input::End(EndReason::AgentGarbled)
                } else {
                    Input::AgentAlive
                }
            }
        }
    }

    /// Returns what the agent has used up in a call that `lasted` so long.
    pub fn usage(&self, lasted: Duration) -> Usage {
        let spent = &self.spent;
        Usage {
            agent: self.name.clone(),
            model: self.model.clone(),
            text_in: spent.text_in,
            audio_in: spent.audio_in,
            cached_in: spent.cached_text + spent.cached_audio,
            text_out: spent.text_out,
            audio_out: spent.audio_out,
            lasted,
            cost_micros: self.prices.cost_micros(spent, lasted),
        }
    }

    /// Says goodbye to the agent; a second is enough for that.
    pub async fn close(mut self) {
        let goodbye = CloseFrame {
            code: CloseCode::Normal,
            reason: Utf8Bytes::from_static(""),
        };
        let closing = async {
            if self.socket.close(Some(goodbye)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        let _ = timeout(Duration::from_secs(1), closing).await;
    }
}
