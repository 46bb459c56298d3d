//! One call's media socket, from the carrier's side.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};

use crate::carrier::{ACCOUNT_SID, PATIENCE, Truth};
use crate::frame::{self, FrameError, Frames, Masks, Opcode};
use crate::http::{self, HttpError};
use crate::message::{CarrierSide, FromCarrier, MEDIA_SUFFIX, Reader};
use crate::twilio::Stream;
use crate::upgrade;

/// How much audio a message holds. Twilio sends 20 ms; ten times as much costs the machine a tenth,
/// and these figures are about calls and not about frames.
const PIECE: Duration = Duration::from_millis(200);
const PIECE_BYTES: usize = 1_600;
/// Silence, in mu-law: no agent answers it.
const SILENCE: [u8; 2] = [0xff; 2];
/// A loud tone, in mu-law: what agents take for words.
const TONE: [u8; 2] = [0x10, 0x90];
/// How many pieces the tone is long, when something is said.
const WORD_PIECES: u32 = 3;
/// The close code of who has nothing more to say: RFC 6455, 7.4.1.
const NORMAL: u16 = 1_000;
/// How long a write may take before the other end counts as gone.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// An open media socket whose stream has started.
pub struct Media {
    socket: TcpStream,
    side: CarrierSide,
    /// What was read and is no whole frame yet.
    unread: Vec<u8>,
    sequence: u32,
    /// How many pieces of audio were sent.
    pieces: u32,
    masks: Masks,
    reader: Arc<Reader>,
}

/// How the caller leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    HangsUp,
    /// The socket is cut, without a word.
    Dies,
}

/// How a stream was over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The caller left as it meant to.
    Left,
    /// The gateway closed the socket, or its end was lost.
    Closed,
}

/// Why there is no media socket.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the media socket was refused with status {0}")]
    Refused(u16),
    #[error("no media socket within {0:?}")]
    TooSlow(Duration),
}

impl From<io::Error> for MediaError {
    fn from(error: io::Error) -> Self {
        Self::Http(error.into())
    }
}

impl Media {
    pub(super) async fn open(
        source: Option<Ipv4Addr>,
        door: SocketAddr,
        sid: &str,
        stream: &Stream,
        signature: &str,
        reader: Arc<Reader>,
    ) -> Result<Self, MediaError> {
        let opening = Self::open_patiently(source, door, sid, stream, signature, reader);
        let opened = timeout(PATIENCE, opening).await;
        opened.map_err(|_| MediaError::TooSlow(PATIENCE))?
    }

    async fn open_patiently(
        source: Option<Ipv4Addr>,
        door: SocketAddr,
        sid: &str,
        stream: &Stream,
        signature: &str,
        reader: Arc<Reader>,
    ) -> Result<Self, MediaError> {
        let rest = stream.url.split_once("://").map_or("", |(_, rest)| rest);
        let slash = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(slash);
        let request = upgrade::request(host, path, &[("X-Twilio-Signature", signature)]);
        let mut socket = match source {
            Some(source) => http::connect_from(source, door).await?,
            None => http::connect(door).await?,
        };
        socket.write_all(request.as_bytes()).await?;
        let mut unread = Vec::new();
        let length = http::read_head(&mut socket, &mut unread).await?;
        let head = upgrade::head(&unread).ok_or(HttpError::Garbled)?;
        if !upgrade::is_granted(head) {
            return Err(MediaError::Refused(http::status(head)?));
        }
        unread.drain(..length);
        let mut media = Self {
            socket,
            side: CarrierSide {
                account_sid: ACCOUNT_SID.to_owned(),
                call_sid: sid.to_owned(),
                stream_sid: sid.replacen("CA", "MZ", 1),
            },
            unread,
            sequence: 1,
            pieces: 0,
            masks: Masks::default(),
            reader,
        };
        let start = media.side.start(&stream.parameters);
        media.send(Opcode::Text, CarrierSide::CONNECTED).await?;
        media.send(Opcode::Text, &start).await?;
        Ok(media)
    }

    /// Says something and waits until the agent says something, too. Where it was not to speak
    /// first, audio goes both ways then. [`Self::talk`] has to go on from there.
    ///
    /// # Errors
    /// If the socket breaks, or the agent says nothing within `patience`.
    pub async fn converse(&mut self, patience: Duration) -> io::Result<()> {
        let conversing = async {
            let mut pieces = pieces();
            while !self.listen().await? {
                tokio::select! {
                    read = self.socket.read_buf(&mut self.unread) => if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    },
                    _ = pieces.tick() => {
                        let says = self.pieces < WORD_PIECES;
                        self.speak(if says { TONE } else { SILENCE }).await?;
                    }
                }
            }
            Ok(())
        };
        timeout(patience, conversing).await?
    }

    /// Is silent for `time`, as callers are who have nothing to say, and leaves. The call is struck
    /// from `truth` before the gateway can know that it has ended.
    pub async fn talk(mut self, time: Duration, ending: Ending, truth: &Truth) -> Over {
        let sid = self.side.call_sid.clone();
        let until = Instant::now() + time;
        let mut pieces = pieces();
        // Something may have come with the upgrade already.
        let mut stepped = self.listen().await.map(drop);
        let spoken = loop {
            if let Err(error) = stepped {
                break Err(error);
            }
            let step = tokio::select! {
                // Late or not, what is due before the end is done before the end.
                biased;
                read = self.socket.read_buf(&mut self.unread) => Step::Read(read),
                _ = pieces.tick() => Step::Speak,
                () = sleep_until(until) => break Ok(()),
            };
            stepped = match step {
                Step::Read(Ok(0)) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Step::Read(Ok(_)) => self.listen().await.map(drop),
                Step::Read(Err(error)) => break Err(error),
                Step::Speak => self.speak(SILENCE).await,
            };
        };
        truth.ended(&sid);
        match (spoken, ending) {
            (Err(_), _) => Over::Closed,
            (Ok(()), Ending::Dies) => Over::Left,
            (Ok(()), Ending::HangsUp) => {
                let stop = self.side.stop(self.sequence + 1);
                let told = self.send(Opcode::Text, &stop).await;
                // The socket is dropped right after: whether it took the words matters no more.
                let _ = told.and(self.send_bytes(Opcode::Close, &NORMAL.to_be_bytes()).await);
                Over::Left
            }
        }
    }

    /// Sends a piece of audio that repeats `samples`.
    async fn speak(&mut self, samples: [u8; 2]) -> io::Result<()> {
        self.sequence += 1;
        self.pieces += 1;
        let (sequence, piece) = (self.sequence, self.pieces);
        let stream_sid = &self.side.stream_sid;
        let at = u128::from(piece) * PIECE.as_millis();
        let mut text = String::new();
        write!(
            text,
            r#"{{"event":"media","sequenceNumber":"{sequence}","streamSid":"{stream_sid}","media":{{"track":"inbound","chunk":"{piece}","timestamp":"{at}","payload":""#
        )
        .expect("a string takes any text");
        STANDARD.encode_string(samples.repeat(PIECE_BYTES / samples.len()), &mut text);
        text.push_str(MEDIA_SUFFIX);
        self.send(Opcode::Text, &text).await
    }

    /// Answers what asks for an answer: marks and pings. Tells whether the agent was heard.
    async fn listen(&mut self) -> io::Result<bool> {
        let mut replies = Vec::new();
        let mut frames = Frames::new(&mut self.unread);
        let (mut closed, mut heard) = (false, false);
        while let Some(frame) = frames.next().map_err(garbled)? {
            match frame.opcode {
                Opcode::Text => match self.reader.carrier(frame.payload) {
                    Some(FromCarrier::Mark(name)) => {
                        self.sequence += 1;
                        let mark = self.side.mark(self.sequence, name);
                        replies.push((Opcode::Text, mark.into_bytes()));
                    }
                    Some(FromCarrier::Media(_)) => heard = true,
                    Some(FromCarrier::Start { .. }) | None => {}
                },
                Opcode::Ping => replies.push((Opcode::Pong, frame.payload.to_vec())),
                Opcode::Close => closed = true,
                Opcode::Binary | Opcode::Pong => {}
            }
        }
        let rest = frames.rest().len();
        self.unread.drain(..self.unread.len() - rest);
        for (opcode, payload) in replies {
            self.send_bytes(opcode, &payload).await?;
        }
        if closed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(heard)
    }

    async fn send(&mut self, opcode: Opcode, text: &str) -> io::Result<()> {
        self.send_bytes(opcode, text.as_bytes()).await
    }

    async fn send_bytes(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + 16);
        frame::append(&mut bytes, opcode, Some(self.masks.next_mask()), &[payload]);
        timeout(WRITE_PATIENCE, self.socket.write_all(&bytes)).await?
    }
}

/// Says when the next piece of audio is due.
fn pieces() -> Interval {
    let mut pieces = interval_at(Instant::now() + PIECE, PIECE);
    pieces.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pieces
}

enum Step {
    Read(io::Result<usize>),
    Speak,
}

fn garbled(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
