//! What is spoken on a media socket, from the carrier's side: one door to the messages of all
//! carriers. No IO.

use std::{borrow::Cow, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio_tungstenite::tungstenite::Message;

use super::{acs::message as acs, echo, message as twilio, voice::Frame, web::message as web};
use crate::chunk::Encoding;

/// What a call's media socket speaks.
pub enum Dialect {
    Twilio {
        writer: twilio::Writer,
        /// What the TwiML had for the stream's start.
        parameters: Vec<(String, String)>,
    },
    Acs(acs::Writer),
    Web(web::Writer),
}

/// What a gateway says on a media socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Audio, which lies in the buffer that was handed in.
    Audio,
    Mark(String),
    Clear,
    /// What was said, to be read.
    Words,
    /// The call is over, whatever is still played.
    Over,
    Nothing,
}

/// What is wrong with a message.
pub type Fault = Cow<'static, str>;

impl Dialect {
    /// Returns how audio is encoded, both ways.
    pub fn encoding(&self) -> Encoding {
        match self {
            Self::Twilio { .. } => Encoding::Mulaw,
            Self::Acs(writer) => writer.encoding(),
            Self::Web(_) => web::ENCODING,
        }
    }

    /// Returns what to call the stream.
    pub fn name(&self) -> &str {
        match self {
            Self::Twilio { writer, .. } => writer.stream_sid(),
            Self::Acs(writer) => writer.subscription(),
            Self::Web(writer) => writer.name(),
        }
    }

    /// Returns what a stream begins with.
    pub fn greeting(&mut self) -> Vec<Message> {
        match self {
            Self::Twilio { writer, parameters } => {
                vec![twilio::Writer::connected(), writer.start(parameters)]
            }
            Self::Acs(writer) => vec![writer.metadata()],
            Self::Web(_) => Vec::new(),
        }
    }

    /// Writes 20 ms of audio; a `number` takes the place of its first bytes.
    pub fn audio(
        &mut self,
        at: Duration,
        frame: &Frame,
        number: Option<[u8; echo::LENGTH]>,
    ) -> Message {
        let number_text = number.map(|number| STANDARD.encode(number));
        let text = match &number_text {
            Some(number) => [number.as_str(), &frame.text[echo::TEXT_LENGTH..]],
            None => [frame.text.as_str(), ""],
        };
        match self {
            Self::Twilio { writer, .. } => writer.media(at, text),
            // Who counts frames wants each of them back.
            Self::Acs(writer) if number.is_none() && writer.hushes(frame) => writer.silence(at),
            Self::Acs(writer) => writer.audio(at, text),
            Self::Web(_) => web::Writer::audio(frame, number),
        }
    }

    /// Returns what is sent beside the audio from time to time.
    pub fn ping(&mut self, at: Duration) -> Option<Message> {
        match self {
            Self::Twilio { .. } | Self::Acs(_) => None,
            Self::Web(writer) => writer.ping(at),
        }
    }

    /// Writes that a mark has been reached; only who gets marks needs it.
    pub fn mark(&mut self, name: &str) -> Option<Message> {
        match self {
            Self::Twilio { writer, .. } => Some(writer.mark(name)),
            Self::Acs(_) | Self::Web(_) => None,
        }
    }

    /// Writes that the caller pressed a key; a browser has none.
    pub fn key(&mut self, key: char) -> Option<Message> {
        match self {
            Self::Twilio { writer, .. } => Some(writer.dtmf(key)),
            Self::Acs(_) => Some(acs::Writer::dtmf(key)),
            Self::Web(_) => None,
        }
    }

    /// Returns what is said before the caller's side closes the socket.
    pub fn goodbye(&mut self) -> Option<Message> {
        match self {
            Self::Twilio { writer, .. } => Some(writer.stop()),
            Self::Acs(_) | Self::Web(_) => None,
        }
    }

    /// Reads a message; puts the samples of audio into `samples`.
    ///
    /// # Errors
    /// If the carrier would pass it over, and warn.
    pub fn read(&mut self, message: &Message, samples: &mut Vec<u8>) -> Result<Said, Fault> {
        match (self, message) {
            // Pings are answered by tungstenite.
            (_, Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {
                Ok(Said::Nothing)
            }
            (Self::Twilio { writer, .. }, Message::Text(text)) => {
                match twilio::FromGateway::read(text, writer.stream_sid()) {
                    Ok(twilio::FromGateway::Media(payload)) => {
                        decode(&payload, samples, "a media payload is not base64 (31951)")
                    }
                    Ok(twilio::FromGateway::Mark(name)) => Ok(Said::Mark(name.into_owned())),
                    Ok(twilio::FromGateway::Clear) => Ok(Said::Clear),
                    Err(error) => Err(error.to_string().into()),
                }
            }
            (Self::Twilio { .. }, Message::Binary(_)) => Err("a binary message (31950)".into()),
            (Self::Acs(writer), Message::Text(text)) => match acs::FromGateway::read(text) {
                Ok(acs::FromGateway::Audio(data)) => {
                    let said = decode(&data, samples, "audio data are not base64")?;
                    if !samples.len().is_multiple_of(writer.encoding().width()) {
                        return Err("audio data end within a sample".into());
                    }
                    // One who asked for no audio is not heard.
                    Ok(if writer.is_heard() {
                        said
                    } else {
                        Said::Nothing
                    })
                }
                Ok(acs::FromGateway::Stop) => Ok(Said::Clear),
                Ok(acs::FromGateway::Other) => Ok(Said::Nothing),
                Err(error) => Err(error.to_string().into()),
            },
            (Self::Acs(_), Message::Binary(_)) => Err("a binary message".into()),
            (Self::Web(_), Message::Binary(audio)) => {
                if !audio.len().is_multiple_of(web::ENCODING.width()) {
                    return Err("audio ends within a sample".into());
                }
                samples.clear();
                samples.extend_from_slice(audio);
                Ok(Said::Audio)
            }
            (Self::Web(writer), Message::Text(text)) => writer.read(text),
        }
    }

    /// Returns what was missing, at the end of a stream.
    pub fn missed(&self, at: Duration) -> Option<Fault> {
        match self {
            Self::Twilio { .. } | Self::Acs(_) => None,
            Self::Web(writer) => writer.missed(at),
        }
    }

    /// Names a fault, with its number where Twilio has one.
    pub fn fault(&self, what: &str, code: u32) -> String {
        match self {
            Self::Twilio { .. } => format!("{what} ({code})"),
            Self::Acs(_) | Self::Web(_) => what.to_owned(),
        }
    }
}

fn decode(text: &str, samples: &mut Vec<u8>, fault: &'static str) -> Result<Said, Fault> {
    samples.clear();
    match STANDARD.decode_vec(text, samples) {
        Ok(()) => Ok(Said::Audio),
        Err(_) => Err(fault.into()),
    }
}
