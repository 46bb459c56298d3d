//! A session on its socket: waits, and does what the session decides.

use std::{collections::VecDeque, fs::File, future::poll_fn, io::Write, time::Duration};

use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Error, Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
        protocol::{
            CloseFrame, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    faults::Fault,
    session::{Input, LONGEST_SESSION, Session},
    wire::{Output, Part},
};
use crate::agent::Dialect;

const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How long a connection that never gets anywhere is held open.
const HANG: Duration = Duration::from_mins(1);

const MOST_MESSAGE_BYTES: usize = 1024 * 1024;

/// A client that does not read is not read either once so many messages wait for it.
const MOST_WAITING: usize = 256;

/// What the path of a client ends in that wants Voice Live's dialect.
pub const VOICE_LIVE_PATH: &str = "/voice-live/realtime";

/// Upgrades the connection, unless the fault is that it does not. Returns the dialect that the
/// client's path asks for, too.
pub async fn upgrade(
    mut stream: TcpStream,
    delay: Duration,
    fault: Option<Fault>,
) -> Option<(WebSocketStream<TcpStream>, Dialect)> {
    if fault == Some(Fault::Refuse) {
        return None;
    }
    if fault == Some(Fault::HangTcp) {
        sleep(HANG).await;
        return None;
    }
    if fault == Some(Fault::HangUpgrade) {
        let mut read = [0; 1024];
        let discard = async { while matches!(stream.read(&mut read).await, Ok(1..)) {} };
        let _ = timeout(HANG, discard).await; // Either way it is over.
        return None;
    }
    let refusal = refusal(fault);
    let mut dialect = Dialect::OpenAi;
    #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
    let decide = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        if request.uri().path().ends_with(VOICE_LIVE_PATH) {
            dialect = Dialect::VoiceLive;
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None => Ok(response),
        }
    };
    sleep(delay).await;
    let upgrade = accept_hdr_async_with_config(stream, decide, Some(config()));
    match timeout(HANDSHAKE_PATIENCE, upgrade).await {
        Ok(Ok(socket)) => Some((socket, dialect)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "parrot did not upgrade a connection");
            None
        }
        Err(_) => {
            tracing::debug!("parrot was sent no upgrade request in time");
            None
        }
    }
}

/// Runs a session until either side closes or `stop` is cancelled.
pub async fn converse(
    socket: WebSocketStream<TcpStream>,
    mut session: Session,
    mut record: Option<File>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (sink, mut stream) = socket.split();
    let mut outbox = Outbox::new(sink);
    let began = Instant::now();
    // A session ends itself by then, except where the client does not read its end.
    let too_late = began + LONGEST_SESSION + CLOSE_PATIENCE;
    outbox.take(session.handle(Duration::ZERO, Input::Opened));
    while !outbox.closes {
        let message = tokio::select! {
            () = stop.cancelled() => {
                outbox.put(close(1001, "the parrot goes away"));
                None
            }
            () = sleep_until(too_late) => return Ok(()),
            sent = outbox.send(), if outbox.has_work() => {
                sent?;
                continue;
            }
            message = stream.next(), if outbox.waiting.len() < MOST_WAITING => match message {
                Some(message) => Some(message?),
                None => return Ok(()),
            },
            // Ticks wait for the socket, so that a session speaks no faster than the client reads.
            () = sleep_until(began + session.deadline()), if !outbox.has_work() => None,
        };
        let at = began.elapsed();
        match message {
            Some(Message::Text(text)) => {
                if let Some(record) = &mut record {
                    write_line(record, &text).map_err(Error::Io)?;
                }
                outbox.take(session.handle(at, Input::Message(&text)));
            }
            Some(Message::Binary(_)) => outbox.take(session.handle(at, Input::BinaryMessage)),
            Some(Message::Close(_)) => break,
            Some(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            None => outbox.take(session.handle(at, Input::Tick)),
        }
    }
    // Says the rest, then waits for the client to close as well.
    let goodbye = async {
        while outbox.has_work() {
            outbox.send().await?;
        }
        while let Some(message) = stream.next().await {
            message?;
        }
        Ok(())
    };
    timeout(CLOSE_PATIENCE, goodbye).await.unwrap_or(Ok(()))
}

/// Messages on their way to the client.
struct Outbox {
    waiting: VecDeque<Message>,
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    unflushed: bool,
    /// The last message that waits closes the socket.
    closes: bool,
}

impl Outbox {
    fn new(sink: SplitSink<WebSocketStream<TcpStream>, Message>) -> Self {
        Self {
            waiting: VecDeque::new(),
            sink,
            unflushed: false,
            closes: false,
        }
    }

    fn take(&mut self, outputs: impl Iterator<Item = Output>) {
        outputs.for_each(|output| self.put(message(output)));
    }

    fn put(&mut self, message: Message) {
        if !self.closes {
            self.closes = message.is_close();
            self.waiting.push_back(message);
        }
    }

    fn has_work(&self) -> bool {
        self.unflushed || !self.waiting.is_empty()
    }

    /// Sends what waits. Cancel-safe: a message leaves the queue only when the sink takes it.
    async fn send(&mut self) -> Result<(), Error> {
        while !self.waiting.is_empty() {
            poll_fn(|context| self.sink.poll_ready_unpin(context)).await?;
            if let Some(message) = self.waiting.pop_front() {
                self.unflushed = true;
                self.sink.start_send_unpin(message)?;
            }
        }
        self.sink.flush().await?;
        self.unflushed = false;
        Ok(())
    }
}

fn message(output: Output) -> Message {
    match output {
        Output::Text(text) => Message::Text(text),
        Output::Binary(bytes) => Message::Binary(bytes),
        Output::Fragment { text, part } => Message::Frame(match part {
            Part::First => Frame::message(text, OpCode::Data(Data::Text), false),
            Part::Middle => Frame::message(text, OpCode::Data(Data::Continue), false),
            Part::Last => Frame::message(text, OpCode::Data(Data::Continue), true),
        }),
        Output::Close { code, reason } => close(code, reason),
    }
}

fn close(code: u16, reason: &'static str) -> Message {
    Message::Close(Some(CloseFrame {
        code: code.into(),
        reason: reason.into(),
    }))
}

/// Writes one line at once, so that lines of several sessions do not mix. A line break in JSON is
/// only ever white space.
fn write_line(record: &mut File, message: &str) -> std::io::Result<()> {
    let mut line = message.replace(['\n', '\r'], " ");
    line.push('\n');
    record.write_all(line.as_bytes())
}

fn refusal(fault: Option<Fault>) -> Option<ErrorResponse> {
    let (status, code) = match fault? {
        Fault::Unauthorized => (StatusCode::UNAUTHORIZED, "invalid_api_key"),
        Fault::RateLimit => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        Fault::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "server_error"),
        Fault::Refuse
        | Fault::HangTcp
        | Fault::HangUpgrade
        | Fault::HangSession
        | Fault::EarlyClose
        | Fault::CloseMidCall
        | Fault::Stall
        | Fault::Garbage
        | Fault::Flood
        | Fault::HugeMessage
        | Fault::WrongFormat
        | Fault::FailedResponse
        | Fault::RateLimitedResponse
        | Fault::Expired => return None,
    };
    let body = format!(r#"{{"error":{{"type":"{code}","code":"{code}","message":"told to"}}}}"#);
    let mut refusal = ErrorResponse::new(Some(body));
    *refusal.status_mut() = status;
    Some(refusal)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(4 * 1024)
        .max_write_buffer_size(2 * MOST_MESSAGE_BYTES) // An echo is as long as what it echoes.
        .max_message_size(Some(MOST_MESSAGE_BYTES))
        .max_frame_size(Some(MOST_MESSAGE_BYTES))
}
