//! The messages of Twilio's media streams. No IO.
//!
//! Source: twilio.com/docs/voice/media-streams/websocket-messages.

use std::{collections::HashMap, fmt::Write, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;

use crate::{
    call::CarrierCallId,
    chunk::{Chunk, Encoding, FRAME},
    media::dialect::{Event, Fault, pressed_key},
    session::{Input, Mark},
    wire::Str,
};

/// What a stream's first words say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub call: CarrierCallId,
    pub account: String,
    /// What our TwiML put into the stream's parameters, the ticket among it.
    pub parameters: HashMap<String, String>,
}

impl Start {
    /// Returns the ticket that our TwiML has put into the stream's parameters; blank if there is none.
    pub fn ticket(&self) -> &str {
        self.parameters.get("ticket").map_or("", String::as_str)
    }
}

/// One stream's side of the conversation: reads its messages in order and writes ours.
#[derive(Debug, Default)]
pub struct MediaStream {
    started: Option<Started>,
    /// Where the next audio lies if the carrier does not say.
    expected_at: Duration,
    outgoing: BytesMut,
}

#[derive(Debug)]
struct Started {
    stream: String,
    call: CarrierCallId,
    /// Our audio messages up to their audio.
    media: Bytes,
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    event: Str<'a>,
    #[serde(borrow, rename = "streamSid")]
    stream: Option<Str<'a>>,
    #[serde(borrow)]
    media: Option<WireMedia<'a>>,
    start: Option<WireStart>,
    dtmf: Option<WireDtmf>,
    mark: Option<WireMark>,
}

#[derive(Deserialize)]
struct WireMedia<'a> {
    #[serde(borrow)]
    payload: Str<'a>,
    #[serde(borrow)]
    timestamp: Option<Str<'a>>,
    #[serde(borrow)]
    track: Option<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStart {
    account_sid: String,
    call_sid: String,
    stream_sid: String,
    media_format: Option<WireFormat>,
    #[serde(default)]
    custom_parameters: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFormat {
    encoding: String,
    sample_rate: u32,
    channels: u32,
}

#[derive(Deserialize)]
struct WireDtmf {
    digit: String,
}

#[derive(Deserialize)]
struct WireMark {
    name: String,
}

impl MediaStream {
    /// Reads the next message. Audio stays a part of it, without a copy.
    ///
    /// # Errors
    /// If it must not be acted on; after [`Fault::OtherStream`] and [`Fault::WrongFormat`] the
    /// socket is not to be trusted with a call.
    pub fn read(&mut self, message: &Bytes) -> Result<Event, Fault> {
        let wire: Wire<'_> = serde_json::from_slice(message).map_err(|_| Fault::Garbled)?;
        if let (Some(started), Some(stream)) = (&self.started, &wire.stream)
            && *started.stream != **stream
        {
            return Err(Fault::OtherStream);
        }
        match &*wire.event {
            "media" => self.media(message, wire.media.ok_or(Fault::Garbled)?),
            "mark" => Ok(heard(&wire.mark.ok_or(Fault::Garbled)?.name)),
            "dtmf" => pressed(&wire.dtmf.ok_or(Fault::Garbled)?.digit),
            "stop" => Ok(Event::Input(Input::CallerHungUp)),
            "start" => self.start(wire.start.ok_or(Fault::Garbled)?),
            _ => Ok(Event::Ignored),
        }
    }

    fn media(&mut self, message: &Bytes, media: WireMedia<'_>) -> Result<Event, Fault> {
        // Before its start a stream belongs to nobody; and we ask for the caller's track only.
        let inbound = media.track.is_none_or(|track| *track == *"inbound");
        if self.started.is_none() || !inbound {
            return Ok(Event::Ignored);
        }
        let chunk =
            Chunk::within(message, media.payload.0, Encoding::Mulaw).map_err(|_| Fault::Garbled)?;
        if chunk.is_empty() {
            return Ok(Event::Ignored);
        }
        let said = media.timestamp.and_then(|at| at.parse().ok());
        let starts_at = said.map_or(self.expected_at, Duration::from_millis);
        self.expected_at = starts_at + chunk.duration().max(FRAME);
        Ok(Event::Input(Input::CallerAudio { chunk, starts_at }))
    }

    fn start(&mut self, start: WireStart) -> Result<Event, Fault> {
        let call = CarrierCallId::try_from(start.call_sid).map_err(|_| Fault::Garbled)?;
        if let Some(started) = &self.started {
            let same = started.stream == start.stream_sid && started.call == call;
            return if same {
                Ok(Event::Ignored)
            } else {
                Err(Fault::OtherStream)
            };
        }
        let fits = start.media_format.is_none_or(|format| {
            format.encoding == "audio/x-mulaw"
                && format.sample_rate == 8_000
                && format.channels == 1
        });
        if !fits {
            return Err(Fault::WrongFormat);
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if start.stream_sid.is_empty() || !start.stream_sid.bytes().all(plain) {
            return Err(Fault::Garbled);
        }
        let stream = start.stream_sid;
        let media = format!(r#"{{"event":"media","streamSid":"{stream}","media":{{"payload":""#);
        self.started = Some(Started {
            media: media.into(),
            stream,
            call: call.clone(),
        });
        Ok(Event::Started(Start {
            call,
            account: start.account_sid,
            parameters: start.custom_parameters.unwrap_or_default(),
        }))
    }

    /// Returns the message that plays `chunk` to the caller; nothing before the start.
    pub fn play(&mut self, chunk: &Chunk) -> Option<Bytes> {
        let started = self.started.as_ref()?;
        self.outgoing.put_slice(&started.media);
        self.outgoing.put_slice(chunk.text());
        self.outgoing.put_slice(br#""}}"#);
        Some(self.outgoing.split().freeze())
    }

    /// Returns the message that asks to be told when everything before it was played.
    pub fn mark(&mut self, mark: Mark) -> Option<Bytes> {
        let stream = &self.started.as_ref()?.stream;
        let Mark { generation, number } = mark;
        write!(
            self.outgoing,
            r#"{{"event":"mark","streamSid":"{stream}","mark":{{"name":"g{generation}:m{number}"}}}}"#
        )
        .expect("a buffer grows");
        Some(self.outgoing.split().freeze())
    }

    /// Returns the message that drops what was not played yet.
    pub fn clear(&mut self) -> Option<Bytes> {
        let stream = &self.started.as_ref()?.stream;
        Some(format!(r#"{{"event":"clear","streamSid":"{stream}"}}"#).into())
    }
}

fn heard(name: &str) -> Event {
    let parts = name
        .strip_prefix('g')
        .and_then(|rest| rest.split_once(":m"));
    let mark = parts.and_then(|(generation, number)| {
        Some(Mark {
            generation: generation.parse().ok()?,
            number: number.parse().ok()?,
        })
    });
    mark.map_or(Event::Ignored, |mark| {
        Event::Input(Input::CallerHeard(mark))
    })
}

fn pressed(digit: &str) -> Result<Event, Fault> {
    let key = pressed_key(digit).ok_or(Fault::Garbled)?;
    Ok(Event::Input(Input::CallerPressed(key)))
}

#[cfg(test)]
mod tests;
