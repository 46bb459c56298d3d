//! The messages of ACS media streaming. No IO.
//!
//! Source: learn.microsoft.com/azure/communication-services/how-tos/call-automation/
//! audio-streaming-quickstart, and the streaming parser of Microsoft's own npm package.

use std::{borrow::Cow, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    chunk::{Chunk, Encoding, FRAME},
    media::dialect::{Event, Fault, pressed_key},
    session::Input,
    wire::Str,
};

/// One stream's side of the conversation: reads its messages in order and writes ours.
#[derive(Debug)]
pub struct MediaStream {
    encoding: Encoding,
    /// Whether the stream has said how its audio is encoded.
    described: bool,
    /// The service's time of the first audio.
    began: Option<Timestamp>,
    /// Where the next audio lies if its time does not say.
    expected_at: Duration,
    silence: Chunk,
    outgoing: BytesMut,
}

/// Names are accepted in both casings that the vendor's own packages use.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow, alias = "Kind")]
    kind: Str<'a>,
    #[serde(alias = "AudioMetadata")]
    audio_metadata: Option<WireMetadata>,
    #[serde(borrow, alias = "AudioData")]
    audio_data: Option<WireAudio<'a>>,
    #[serde(borrow, alias = "DtmfData")]
    dtmf_data: Option<WireDtmf<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    #[serde(alias = "Encoding")]
    encoding: String,
    #[serde(alias = "SampleRate")]
    sample_rate: u32,
    #[serde(alias = "Channels")]
    channels: u32,
}

#[derive(Deserialize)]
struct WireAudio<'a> {
    #[serde(borrow, alias = "Data")]
    data: Option<Str<'a>>,
    #[serde(borrow, alias = "Timestamp")]
    timestamp: Option<Str<'a>>,
    #[serde(alias = "Silent")]
    silent: Option<bool>,
}

#[derive(Deserialize)]
struct WireDtmf<'a> {
    #[serde(borrow, alias = "Data")]
    data: Str<'a>,
}

impl MediaStream {
    /// A stream that was asked for in this encoding.
    pub fn new(encoding: Encoding) -> Self {
        let frame = encoding.rate() as usize / 50 * encoding.width();
        Self {
            encoding,
            described: false,
            began: None,
            expected_at: Duration::ZERO,
            silence: Chunk::encode(&vec![0; frame], encoding),
            outgoing: BytesMut::new(),
        }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Reads the next message. Audio stays a part of it, without a copy.
    ///
    /// # Errors
    /// If it must not be acted on; after [`Fault::WrongFormat`] the socket is of no use.
    pub fn read(&mut self, message: &Bytes) -> Result<Event, Fault> {
        let wire: Wire<'_> = serde_json::from_slice(message).map_err(|_| Fault::Garbled)?;
        match &*wire.kind {
            "AudioData" | "audioData" => {
                self.audio(message, wire.audio_data.ok_or(Fault::Garbled)?)
            }
            "AudioMetadata" | "audioMetadata" => {
                self.describe(&wire.audio_metadata.ok_or(Fault::Garbled)?)
            }
            "DtmfData" | "dtmfData" => {
                let key = wire
                    .dtmf_data
                    .as_ref()
                    .and_then(|dtmf| pressed_key(&dtmf.data));
                let key = key.ok_or(Fault::Garbled)?;
                Ok(Event::Input(Input::CallerPressed(key)))
            }
            _ => Ok(Event::Ignored), // The service announces kinds that it will add.
        }
    }

    fn describe(&mut self, metadata: &WireMetadata) -> Result<Event, Fault> {
        let fits = metadata.encoding.eq_ignore_ascii_case("pcm")
            && metadata.sample_rate == self.encoding.rate()
            && metadata.channels == 1;
        if !fits {
            return Err(Fault::WrongFormat);
        }
        self.described = true;
        Ok(Event::Ignored)
    }

    fn audio(&mut self, message: &Bytes, audio: WireAudio<'_>) -> Result<Event, Fault> {
        if !self.described {
            return Ok(Event::Ignored); // Nobody knows yet what it is.
        }
        let text = audio.data.map_or(Cow::Borrowed(""), |Str(text)| text);
        let chunk = if text.is_empty() && audio.silent != Some(false) {
            // Left out as it would be all zeros; the agent's time is to go on.
            self.silence.clone()
        } else {
            Chunk::within(message, text, self.encoding).map_err(|_| Fault::Garbled)?
        };
        if chunk.is_empty() {
            return Ok(Event::Ignored);
        }
        let starts_at = self.place(audio.timestamp.as_deref());
        self.expected_at = starts_at + chunk.duration().max(FRAME);
        Ok(Event::Input(Input::CallerAudio { chunk, starts_at }))
    }

    /// Returns where audio lies in the stream. A time without a fraction of a second is too coarse
    /// to tell a hole by.
    fn place(&mut self, timestamp: Option<&str>) -> Duration {
        let time = timestamp.filter(|text| text.contains('.'));
        let time: Option<Timestamp> = time.and_then(|text| text.parse().ok());
        let Some(time) = time else {
            return self.expected_at;
        };
        let began = *self.began.get_or_insert(time);
        let since = Duration::try_from(time.duration_since(began));
        // Times go forward; and a jump of the clock is no hole in what was said.
        let longest = self.expected_at + Duration::from_secs(60);
        since.map_or(self.expected_at, |since| {
            since.clamp(self.expected_at, longest)
        })
    }

    /// Returns the message that plays `chunk` to the caller.
    pub fn play(&mut self, chunk: &Chunk) -> Bytes {
        self.outgoing
            .put_slice(br#"{"kind":"AudioData","audioData":{"data":""#);
        self.outgoing.put_slice(chunk.text());
        self.outgoing.put_slice(br#""}}"#);
        self.outgoing.split().freeze()
    }

    /// Returns the message that drops what was not played yet.
    pub fn clear() -> Bytes {
        Bytes::from_static(br#"{"kind":"StopAudio","stopAudio":{}}"#)
    }
}

#[cfg(test)]
mod tests;
