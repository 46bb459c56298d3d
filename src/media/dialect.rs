//! What a media socket speaks: one door to the messages of all carriers. No IO.

use actix_ws::{CloseCode, CloseReason, Message};
use bytes::Bytes;

use crate::{
    call::EndReason,
    chunk::{Chunk, Encoding},
    language::Language,
    media::{
        acs,
        twilio::{self, Start},
        web::{self, State},
    },
    session::{Follows, Input, Mark, Speaker},
};

/// What a media socket speaks.
pub enum Dialect {
    Twilio(twilio::MediaStream),
    Acs(acs::MediaStream),
    Web(web::MediaStream),
}

/// What a message means.
#[derive(Debug, PartialEq)]
pub enum Event {
    /// Whose stream it is, where the socket's address does not say.
    Started(Start),
    Input(Input),
    /// A message to be sent back.
    Reply(Message),
    /// Nothing to act on: a greeting, a repetition, or a type of the future.
    Ignored,
}

/// Why a message is not acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("the message is not one of a media stream")]
    Garbled,
    #[error("the stream's or the call's id changed within the socket")]
    OtherStream,
    #[error("the stream's audio is not encoded as it was asked for")]
    WrongFormat,
}

impl Dialect {
    /// Returns how the carrier's audio is encoded, both ways.
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::Twilio(_) => Encoding::Mulaw,
            Self::Acs(stream) => stream.encoding(),
            Self::Web(_) => web::ENCODING,
        }
    }

    /// Returns how it is known what the caller has heard.
    pub fn follows(&self) -> Follows {
        match self {
            Self::Twilio(_) => Follows::Marks,
            Self::Acs(_) | Self::Web(_) => Follows::Clock,
        }
    }

    /// Returns what it means that the carrier has closed the socket.
    pub fn closed(&self, why: Option<&CloseReason>) -> EndReason {
        let failed = [CloseCode::Error, CloseCode::Restart, CloseCode::Again];
        let failed = why.is_some_and(|why| failed.contains(&why.code));
        match self {
            // It would have said so before.
            Self::Twilio(_) => EndReason::CarrierLost,
            Self::Acs(_) if failed => EndReason::CarrierLost,
            Self::Acs(_) | Self::Web(_) => EndReason::CallerHungUp,
        }
    }

    /// Tells whether the carrier is known to answer pings. Nothing is written of ACS's.
    pub fn answers_pings(&self) -> bool {
        match self {
            Self::Twilio(_) | Self::Web(_) => true,
            Self::Acs(_) => false,
        }
    }

    /// Reads a text message.
    ///
    /// # Errors
    /// If it must not be acted on.
    pub fn read(&mut self, message: &Bytes) -> Result<Event, Fault> {
        match self {
            Self::Twilio(stream) => stream.read(message),
            Self::Acs(stream) => stream.read(message),
            Self::Web(_) => web::MediaStream::read(message),
        }
    }

    /// Reads a binary message, which is audio if it is anything.
    ///
    /// # Errors
    /// If it must not be acted on.
    pub fn hear(&mut self, samples: &Bytes) -> Result<Event, Fault> {
        match self {
            Self::Web(stream) => stream.hear(samples),
            Self::Twilio(_) | Self::Acs(_) => Err(Fault::Garbled),
        }
    }

    /// Returns the message that plays `chunk` to the caller.
    pub fn play(&mut self, chunk: &Chunk) -> Option<Message> {
        match self {
            Self::Twilio(stream) => stream.play(chunk).and_then(text),
            Self::Acs(stream) => text(stream.play(chunk)),
            Self::Web(_) => Some(Message::Binary(chunk.samples().into())),
        }
    }

    /// Returns the message that asks to be told when everything before it was played, where there
    /// is one.
    pub fn mark(&mut self, mark: Mark) -> Option<Message> {
        match self {
            Self::Twilio(stream) => stream.mark(mark).and_then(text),
            Self::Acs(_) | Self::Web(_) => None,
        }
    }

    /// Returns the message that drops what was not played yet.
    pub fn clear(&mut self) -> Option<Message> {
        match self {
            Self::Twilio(stream) => stream.clear().and_then(text),
            Self::Acs(_) => text(acs::MediaStream::clear()),
            Self::Web(_) => text(web::MediaStream::clear()),
        }
    }

    /// Tells whether a message that waits to be sent is sent though the audio before it is not.
    pub fn outlives_clear(&self, message: &Message) -> bool {
        match (self, message) {
            (_, Message::Pong(_)) => true,
            (Self::Web(_), Message::Text(_)) => true, // What was said, and how the call stands.
            (_, _) => false,
        }
    }

    /// Returns the message that shows what was said to a caller who can read it.
    pub fn said(&self, who: Speaker, words: &str) -> Option<Message> {
        match self {
            Self::Web(_) => text(web::MediaStream::said(who, words)),
            Self::Twilio(_) | Self::Acs(_) => None,
        }
    }

    /// Returns the message that tells a browser how its call stands.
    pub fn tell(&self, state: State, language: &Language) -> Option<Message> {
        match self {
            Self::Web(_) => text(web::MediaStream::tell(state, language)),
            Self::Twilio(_) | Self::Acs(_) => None,
        }
    }
}

fn text(message: Bytes) -> Option<Message> {
    message.try_into().ok().map(Message::Text)
}

/// Reads a key of the caller's phone: the character, or the word that ACS may have for it.
pub fn pressed_key(text: &str) -> Option<char> {
    match text.as_bytes() {
        [key @ (b'0'..=b'9' | b'*' | b'#' | b'A'..=b'D')] => Some(char::from(*key)),
        _ if text.eq_ignore_ascii_case("asterisk") => Some('*'),
        _ if text.eq_ignore_ascii_case("pound") => Some('#'),
        _ => None,
    }
}
