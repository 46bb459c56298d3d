//! The messages of a browser's media socket, as the page writes and reads them.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    chunk::Encoding,
    simulate::{
        dialect::{Fault, Said},
        echo,
        voice::Frame,
    },
};

/// How audio is encoded, both ways.
pub const ENCODING: Encoding = Encoding::Pcm24k;

/// How often the page asks whether the gateway is still there, and how long that may take.
const PING_EVERY: Duration = Duration::from_secs(1);
const PONG_PATIENCE: Duration = Duration::from_secs(5);

/// Writes one page's messages, and keeps which of its pings were answered.
pub struct Writer {
    name: String,
    next_ping: Duration,
    pings: u64,
    /// When each ping was sent that has not been answered yet.
    unanswered: VecDeque<(u64, Duration)>,
}

/// What the gateway tells of the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Connected,
    Busy,
    /// It is over; why.
    Ended(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    kind: String,
    id: Option<u64>,
    state: Option<String>,
    reason: Option<String>,
}

impl Writer {
    /// A stream to be called `name`.
    pub fn new(name: String) -> Self {
        Self {
            name,
            next_ping: Duration::ZERO,
            pings: 0,
            unanswered: VecDeque::new(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes 20 ms of audio; a `number` takes the place of its first bytes.
    pub fn audio(frame: &Frame, number: Option<[u8; echo::LENGTH]>) -> Message {
        let mut samples = frame.samples.to_vec();
        if let Some(number) = number {
            samples[..number.len()].copy_from_slice(&number);
        }
        Message::Binary(Bytes::from(samples))
    }

    /// Returns a ping when it is time for one.
    pub fn ping(&mut self, at: Duration) -> Option<Message> {
        if at < self.next_ping {
            return None;
        }
        self.next_ping = at + PING_EVERY;
        self.pings += 1;
        self.unanswered.push_back((self.pings, at));
        Some(Message::text(
            json!({"Kind": "Ping", "Id": self.pings}).to_string(),
        ))
    }

    /// Returns what is wrong if a ping has not been answered in time.
    pub fn missed(&self, at: Duration) -> Option<Fault> {
        let &(_, sent) = self.unanswered.front()?;
        (sent + PONG_PATIENCE < at).then(|| "a ping was not answered within 5 s".into())
    }

    /// Reads a text message.
    ///
    /// # Errors
    /// If it is not JSON with a kind.
    pub fn read(&mut self, text: &str) -> Result<Said, Fault> {
        let raw = Raw::read(text)?;
        Ok(match raw.kind.as_str() {
            "StopAudio" => Said::Clear,
            "State" if raw.state.as_deref() == Some("ended") => Said::Over,
            "Transcription" => Said::Words,
            "Pong" => {
                self.unanswered.retain(|&(id, _)| Some(id) != raw.id);
                Said::Nothing
            }
            _ => Said::Nothing,
        })
    }
}

impl State {
    /// Reads a text message that tells how the call stands.
    pub fn read(text: &str) -> Option<Self> {
        let raw = Raw::read(text).ok().filter(|raw| raw.kind == "State")?;
        match raw.state?.as_str() {
            "connected" => Some(Self::Connected),
            "busy" => Some(Self::Busy),
            "ended" => Some(Self::Ended(raw.reason.unwrap_or_default())),
            _ => None,
        }
    }
}

impl Raw {
    fn read(text: &str) -> Result<Self, Fault> {
        serde_json::from_str(text).map_err(|_| "a message is not JSON with a Kind".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_that_is_not_answered_is_missed() {
        let mut writer = Writer::new("web".into());
        let second = Duration::from_secs(1);
        assert!(writer.ping(Duration::ZERO).is_some());
        assert!(writer.ping(second / 2).is_none());
        assert!(writer.ping(second).is_some());
        assert_eq!(writer.read(r#"{"Kind":"Pong","Id":1}"#), Ok(Said::Nothing));
        assert_eq!(writer.missed(second * 6), None);
        assert!(writer.missed(second * 7).is_some());
    }

    #[test]
    fn a_gateways_messages_are_read() {
        let mut writer = Writer::new("web".into());
        let table = [
            (
                r#"{"Kind":"StopAudio","AudioData":null,"StopAudio":{}}"#,
                Ok(Said::Clear),
            ),
            (
                r#"{"Kind":"Transcription","Text":"hello","Speaker":"agent"}"#,
                Ok(Said::Words),
            ),
            (r#"{"Kind":"Later"}"#, Ok(Said::Nothing)),
        ];
        for (text, expected) in table {
            assert_eq!(writer.read(text), expected, "{text}");
        }
        assert!(writer.read("hello").is_err());
        let state = |text| State::read(text);
        let ended = r#"{"Kind":"State","State":"ended","Reason":"drained","Language":"he-IL"}"#;
        assert_eq!(state(ended), Some(State::Ended("drained".into())));
        assert_eq!(
            state(r#"{"Kind":"State","State":"busy"}"#),
            Some(State::Busy)
        );
        assert_eq!(state(r#"{"Kind":"Transcription"}"#), None);
    }
}
