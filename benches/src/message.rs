//! What the carrier and the agent say, as far as audio goes: found by searching for a key, and
//! rewrapped around the same base64 text.
//!
//! Source: Twilio's Media Streams messages, and the GA events of OpenAI's realtime API.

use std::fmt::Write;

use memchr::memchr;
use memchr::memmem::Finder;

/// What comes before and after the base64 text in a message to the agent.
pub const APPEND: [&str; 2] = [r#"{"type":"input_audio_buffer.append","audio":""#, "\"}"];

/// What comes after the base64 text in a message to the carrier; [`media_prefix`] comes before it,
/// or the prefix of ACS.
pub const MEDIA_SUFFIX: &str = "\"}}";

/// Returns what comes before the base64 text in a message to the carrier.
pub fn media_prefix(stream_sid: &str) -> String {
    format!(r#"{{"event":"media","streamSid":"{stream_sid}","media":{{"payload":""#)
}

/// What one side may say that matters to a relay. Everything else is dropped.
#[derive(Debug, PartialEq, Eq)]
pub enum FromCarrier<'a> {
    /// The stream begins, under this name.
    Start { stream_sid: &'a str },
    /// Base64 text.
    Media(&'a str),
    /// A mark, by name, that is to be sent back once what came before it was played.
    Mark(&'a str),
}

/// What the agent's client says.
#[derive(Debug, PartialEq, Eq)]
pub enum FromClient<'a> {
    /// The session's settings, with mu-law or else 16-bit samples at 24 kHz.
    SessionUpdate {
        mulaw: bool,
    },
    /// Base64 text.
    Append(&'a str),
    ResponseCreate,
}

/// Finds its way in messages without parsing them. The searches are prepared once.
pub struct Reader {
    media: Finder<'static>,
    start: Finder<'static>,
    mark: Finder<'static>,
    stream_sid: Finder<'static>,
    payload: Finder<'static>,
    acs_audio: Finder<'static>,
    data: Finder<'static>,
    name: Finder<'static>,
    audio_delta: Finder<'static>,
    delta: Finder<'static>,
    append: Finder<'static>,
    audio: Finder<'static>,
    session_update: Finder<'static>,
    mulaw: Finder<'static>,
    response_create: Finder<'static>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            media: Finder::new(r#""event":"media""#),
            start: Finder::new(r#""event":"start""#),
            mark: Finder::new(r#""event":"mark""#),
            stream_sid: Finder::new(r#""streamSid":""#),
            payload: Finder::new(r#""payload":""#),
            acs_audio: Finder::new(r#""kind":"AudioData""#),
            data: Finder::new(r#""data":""#),
            name: Finder::new(r#""name":""#),
            audio_delta: Finder::new(r#""type":"response.output_audio.delta""#),
            delta: Finder::new(r#""delta":""#),
            append: Finder::new(r#""type":"input_audio_buffer.append""#),
            audio: Finder::new(r#""audio":""#),
            session_update: Finder::new(r#""type":"session.update""#),
            mulaw: Finder::new(r#""audio/pcmu""#),
            response_create: Finder::new(r#""type":"response.create""#),
        }
    }
}

impl Reader {
    /// Understands a message of Twilio's dialect, whichever side sent it.
    pub fn carrier<'a>(&self, text: &'a [u8]) -> Option<FromCarrier<'a>> {
        if self.media.find(text).is_some() {
            value(&self.payload, text).map(FromCarrier::Media)
        } else if self.start.find(text).is_some() {
            let stream_sid = value(&self.stream_sid, text)?;
            Some(FromCarrier::Start { stream_sid })
        } else if self.mark.find(text).is_some() {
            value(&self.name, text).map(FromCarrier::Mark)
        } else {
            None
        }
    }

    /// Returns the base64 text of ACS's audio, whichever side sent it.
    pub fn acs<'a>(&self, text: &'a [u8]) -> Option<&'a str> {
        self.acs_audio.find(text)?;
        value(&self.data, text)
    }

    /// Returns the base64 text of an audio delta of the agent.
    pub fn agent<'a>(&self, text: &'a [u8]) -> Option<&'a str> {
        self.audio_delta.find(text)?;
        value(&self.delta, text)
    }

    /// Understands what an agent is told by its client.
    pub fn client<'a>(&self, text: &'a [u8]) -> Option<FromClient<'a>> {
        if self.append.find(text).is_some() {
            value(&self.audio, text).map(FromClient::Append)
        } else if self.session_update.find(text).is_some() {
            let mulaw = self.mulaw.find(text).is_some();
            Some(FromClient::SessionUpdate { mulaw })
        } else if self.response_create.find(text).is_some() {
            Some(FromClient::ResponseCreate)
        } else {
            None
        }
    }
}

/// What a caller's carrier says of one call.
pub struct CarrierSide {
    pub account_sid: String,
    pub call_sid: String,
    pub stream_sid: String,
}

impl CarrierSide {
    pub const CONNECTED: &str = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#;

    pub fn start(&self, parameters: &serde_json::Map<String, serde_json::Value>) -> String {
        let Self {
            account_sid,
            call_sid,
            stream_sid,
        } = self;
        serde_json::json!({
            "event": "start",
            "sequenceNumber": "1",
            "streamSid": stream_sid,
            "start": {
                "accountSid": account_sid,
                "callSid": call_sid,
                "streamSid": stream_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": parameters,
            }
        })
        .to_string()
    }

    /// Writes what comes before the base64 text of the `chunk`th audio frame, counted from 1.
    /// [`MEDIA_SUFFIX`] comes after it.
    pub fn media_head(&self, sequence: u32, chunk: u32, out: &mut String) {
        let (stream_sid, timestamp) = (&self.stream_sid, chunk * 20);
        write!(
            out,
            r#"{{"event":"media","sequenceNumber":"{sequence}","streamSid":"{stream_sid}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp}","payload":""#
        )
        .expect("a string takes any text");
    }

    pub fn mark(&self, sequence: u32, name: &str) -> String {
        let stream_sid = &self.stream_sid;
        format!(
            r#"{{"event":"mark","sequenceNumber":"{sequence}","streamSid":"{stream_sid}","mark":{{"name":"{name}"}}}}"#
        )
    }

    pub fn stop(&self, sequence: u32) -> String {
        let Self {
            account_sid,
            call_sid,
            stream_sid,
        } = self;
        format!(
            r#"{{"event":"stop","sequenceNumber":"{sequence}","streamSid":"{stream_sid}","stop":{{"accountSid":"{account_sid}","callSid":"{call_sid}"}}}}"#
        )
    }
}

/// What the echoing agent says.
pub mod agent {
    pub const SESSION_CREATED: &str = r#"{"type":"session.created","event_id":"e1","session":{"type":"realtime","object":"realtime.session","id":"sess_bench","model":"gpt-realtime","output_modalities":["audio"],"audio":{"input":{"format":{"type":"audio/pcm","rate":24000}},"output":{"format":{"type":"audio/pcm","rate":24000},"voice":"marin"}}}}"#;
    pub const SESSION_UPDATED: &str = r#"{"type":"session.updated","event_id":"e2","session":{"type":"realtime","object":"realtime.session","id":"sess_bench","model":"gpt-realtime","output_modalities":["audio"],"audio":{"input":{"format":{"type":"audio/pcmu"}},"output":{"format":{"type":"audio/pcmu"},"voice":"marin"}}}}"#;
    pub const SESSION_UPDATED_PCM: &str = r#"{"type":"session.updated","event_id":"e2","session":{"type":"realtime","object":"realtime.session","id":"sess_bench","model":"gpt-realtime","output_modalities":["audio"],"audio":{"input":{"format":{"type":"audio/pcm","rate":24000}},"output":{"format":{"type":"audio/pcm","rate":24000},"voice":"marin"}}}}"#;
    pub const RESPONSE_CREATED: &str = r#"{"type":"response.created","event_id":"e3","response":{"object":"realtime.response","id":"g","status":"in_progress","output":[]}}"#;
    pub const RESPONSE_DONE: &str = r#"{"type":"response.done","event_id":"e4","response":{"object":"realtime.response","id":"g","status":"completed","status_details":null,"output":[]}}"#;
    /// What comes before and after the base64 text of an echo.
    pub const DELTA: [&str; 2] = [
        r#"{"type":"response.output_audio.delta","event_id":"e","response_id":"r","item_id":"i","output_index":0,"content_index":0,"delta":""#,
        "\"}",
    ];
}

/// Returns the text between `key`, which ends in a quotation mark, and the next one.
fn value<'a>(key: &Finder<'_>, text: &'a [u8]) -> Option<&'a str> {
    let start = key.find(text)? + key.needle().len();
    let rest = &text[start..];
    str::from_utf8(&rest[..memchr(b'"', rest)?]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "CA00000000000000000000000000000001";
    const STREAM: &str = "MZ00000000000000000000000000000001";

    #[test]
    fn a_callers_audio_is_rewrapped_for_the_agent() {
        let mut media = String::new();
        side().media_head(7, 6, &mut media);
        let media = media + "//7+/v7" + MEDIA_SUFFIX;
        let parsed: serde_json::Value = serde_json::from_str(&media).unwrap();
        assert_eq!(parsed["media"]["payload"], "//7+/v7");
        assert_eq!(parsed["media"]["timestamp"], "120");

        let Some(FromCarrier::Media(audio)) = Reader::default().carrier(media.as_bytes()) else {
            panic!("not understood: {media}");
        };
        let [before, after] = APPEND;
        assert_eq!(
            format!("{before}{audio}{after}"),
            r#"{"type":"input_audio_buffer.append","audio":"//7+/v7"}"#
        );
    }

    #[test]
    fn the_agents_audio_is_rewrapped_for_the_caller() {
        let [before, after] = agent::DELTA;
        let delta = format!("{before}//9/f39/{after}");
        let audio = Reader::default().agent(delta.as_bytes()).unwrap();
        assert_eq!(
            media_prefix(STREAM) + audio + MEDIA_SUFFIX,
            format!(
                r#"{{"event":"media","streamSid":"{STREAM}","media":{{"payload":"//9/f39/"}}}}"#
            )
        );
    }

    #[test]
    fn only_audio_and_the_start_concern_a_relay() {
        let reader = Reader::default();
        let start = side().start(&serde_json::Map::new());
        let stream_sid = STREAM;
        assert_eq!(
            reader.carrier(start.as_bytes()),
            Some(FromCarrier::Start { stream_sid })
        );
        let mark = side().mark(9, "g3:m17");
        assert_eq!(
            reader.carrier(mark.as_bytes()),
            Some(FromCarrier::Mark("g3:m17"))
        );
        for other in [CarrierSide::CONNECTED, &side().stop(9), "", "{}"] {
            assert_eq!(reader.carrier(other.as_bytes()), None, "{other}");
        }
        let transcript = r#"{"type":"response.output_audio_transcript.delta","delta":"Hello"}"#;
        for other in [agent::SESSION_UPDATED, agent::RESPONSE_DONE, transcript] {
            assert_eq!(reader.agent(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_agent_understands_its_client() {
        let reader = Reader::default();
        let cases = [
            (
                r#"{"type":"session.update","session":{"audio":{}}}"#,
                Some(FromClient::SessionUpdate { mulaw: false }),
            ),
            (
                r#"{"type":"session.update","audio":{"input":{"format":{"type":"audio/pcmu"}}}}"#,
                Some(FromClient::SessionUpdate { mulaw: true }),
            ),
            (
                r#"{"type":"input_audio_buffer.append","audio":"//8="}"#,
                Some(FromClient::Append("//8=")),
            ),
            (
                r#"{"type":"response.create"}"#,
                Some(FromClient::ResponseCreate),
            ),
            (r#"{"type":"response.cancel"}"#, None),
        ];
        for (text, expected) in cases {
            assert_eq!(reader.client(text.as_bytes()), expected, "{text}");
        }
    }

    fn side() -> CarrierSide {
        CarrierSide {
            account_sid: "AC00000000000000000000000000000001".to_owned(),
            call_sid: CALL.to_owned(),
            stream_sid: STREAM.to_owned(),
        }
    }
}
