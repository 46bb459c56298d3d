//! What a client asks of the parrot: the client events of the OpenAI Realtime GA protocol, or of
//! Voice Live's, whose session is flat.

use std::borrow::Cow;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{detection::TurnDetection, wire::Problem};
use crate::{agent::Dialect, chunk::Encoding};

/// A client event, of the kinds the parrot knows.
#[derive(Debug)]
pub enum ClientEvent<'a> {
    UpdateSession(Box<Change>),
    /// Base64, verified as such by [`is_base64`] where it is not decoded.
    Append(Cow<'a, str>),
    Commit,
    Clear,
    CreateItem(Value),
    TruncateItem(Truncation),
    DeleteItem(String),
    CreateResponse,
    CancelResponse,
}

/// What a `session.update` asks for; what is absent stays as it is.
#[derive(Debug, Default)]
pub struct Change {
    pub input: Option<Encoding>,
    pub output: Option<Encoding>,
    pub turns: Option<Turns>,
    pub transcription: Option<Value>,
    pub voice: Option<Value>,
    pub instructions: Option<Value>,
    pub tools: Option<Value>,
}

/// What ends a caller's turn.
#[derive(Debug)]
pub enum Turns {
    /// The client commits.
    Committed,
    Detected(TurnDetection),
}

#[derive(Debug, Deserialize)]
pub struct Truncation {
    pub item_id: String,
    pub content_index: u32,
    pub audio_end_ms: u64,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    event_id: Option<String>,
    #[serde(default, borrow)]
    audio: Cow<'a, str>,
}

/// Reads a message. Returns the client's name for the event, if it has one, and the event.
pub fn parse(text: &str, dialect: Dialect) -> (Option<String>, Result<ClientEvent<'_>, Problem>) {
    match serde_json::from_str::<Head>(text) {
        Ok(head) => {
            let event = event(&head.kind, head.audio, text, dialect);
            (head.event_id, event)
        }
        Err(error) => {
            let problem = Problem::new("invalid_event", format!("not an event: {error}"));
            (None, Err(problem))
        }
    }
}

/// Returns whether `text` is safe in a JSON string and looks like base64.
pub fn is_base64(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    text.len().is_multiple_of(4) && text.bytes().all(plain)
}

fn event<'a>(
    kind: &str,
    audio: Cow<'a, str>,
    text: &str,
    dialect: Dialect,
) -> Result<ClientEvent<'a>, Problem> {
    #[derive(Deserialize)]
    struct Update {
        session: Value,
    }
    #[derive(Deserialize)]
    struct Creation {
        item: Value,
    }
    #[derive(Deserialize)]
    struct Deletion {
        item_id: String,
    }
    Ok(match kind {
        "input_audio_buffer.append" => ClientEvent::Append(audio),
        "session.update" => {
            let session = body::<Update>(text)?.session;
            let change = match dialect {
                Dialect::OpenAi => change(&session)?,
                Dialect::VoiceLive => flat_change(&session)?,
            };
            ClientEvent::UpdateSession(Box::new(change))
        }
        "input_audio_buffer.commit" => ClientEvent::Commit,
        "input_audio_buffer.clear" => ClientEvent::Clear,
        "conversation.item.create" => ClientEvent::CreateItem(body::<Creation>(text)?.item),
        "conversation.item.truncate" => ClientEvent::TruncateItem(body(text)?),
        "conversation.item.delete" => ClientEvent::DeleteItem(body::<Deletion>(text)?.item_id),
        "response.create" => ClientEvent::CreateResponse,
        "response.cancel" => ClientEvent::CancelResponse,
        other => {
            let message = format!("the parrot does not know events of type {other:.64}");
            return Err(Problem::invalid("type", message));
        }
    })
}

fn body<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    serde_json::from_str(text)
        .map_err(|error| Problem::new("invalid_event", format!("a field is wrong: {error}")))
}

fn change(session: &Value) -> Result<Change, Problem> {
    match session["type"].as_str() {
        Some("realtime") => {}
        Some(_) => return Err(Problem::invalid("session.type", "only realtime is known")),
        None => {
            return Err(Problem {
                param: Some("session.type"),
                ..Problem::new("missing_required_parameter", "session.type is missing")
            });
        }
    }
    let format = |path: &str, param| match session.pointer(path) {
        None => Ok(None),
        // Mu-law has no rate in this protocol: the strict form catches a client that sends one.
        Some(format) if *format == json!({ "type": "audio/pcmu" }) => Ok(Some(Encoding::Mulaw)),
        Some(format) if *format == json!({ "type": "audio/pcm", "rate": 24_000 }) => {
            Ok(Some(Encoding::Pcm24k))
        }
        Some(_) => Err(Problem::invalid(
            param,
            "the parrot speaks audio/pcmu without a rate, and audio/pcm of 24000",
        )),
    };
    let param = "session.audio.input.turn_detection";
    let turns = turns(session.pointer("/audio/input/turn_detection"), param)?;
    if let Some(Turns::Detected(detection)) = &turns
        && (detection.kind.is_azures() || detection.auto_truncate)
    {
        return Err(Problem::invalid(param, "known to Voice Live only"));
    }
    let any = |path: &str| session.pointer(path).cloned();
    Ok(Change {
        input: format("/audio/input/format", "session.audio.input.format")?,
        output: format("/audio/output/format", "session.audio.output.format")?,
        turns,
        transcription: any("/audio/input/transcription"),
        voice: any("/audio/output/voice"),
        instructions: any("/instructions"),
        tools: tools(session)?,
    })
}

fn flat_change(session: &Value) -> Result<Change, Problem> {
    let any = |name: &str| session.get(name).cloned();
    let input = match (any("input_audio_format"), any("input_audio_sampling_rate")) {
        (None, None) => None,
        (Some(format), rate) => match (format.as_str(), rate.map(|rate| rate.as_u64())) {
            (Some("g711_ulaw"), None | Some(Some(8_000))) => Some(Encoding::Mulaw),
            (Some("pcm16"), Some(Some(16_000))) => Some(Encoding::Pcm16k),
            (Some("pcm16"), None | Some(Some(24_000))) => Some(Encoding::Pcm24k),
            (_, _) => {
                return Err(Problem::invalid(
                    "session.input_audio_format",
                    "the parrot hears g711_ulaw of 8000, and pcm16 of 16000 and 24000",
                ));
            }
        },
        (None, Some(_)) => {
            let message = "say input_audio_format, too";
            return Err(Problem::invalid(
                "session.input_audio_sampling_rate",
                message,
            ));
        }
    };
    let output = match any("output_audio_format") {
        None => None,
        Some(format) => match format.as_str() {
            Some("g711_ulaw") => Some(Encoding::Mulaw),
            Some("pcm16_16000hz") => Some(Encoding::Pcm16k),
            Some("pcm16") => Some(Encoding::Pcm24k),
            Some(_) | None => {
                return Err(Problem::invalid(
                    "session.output_audio_format",
                    "the parrot speaks g711_ulaw, pcm16 and pcm16_16000hz",
                ));
            }
        },
    };
    let voice = any("voice");
    if voice
        .as_ref()
        .is_some_and(|voice| !voice["type"].is_string())
    {
        return Err(Problem::invalid("session.voice", "a voice has a type"));
    }
    Ok(Change {
        input,
        output,
        turns: turns(session.get("turn_detection"), "session.turn_detection")?,
        transcription: any("input_audio_transcription"),
        voice,
        instructions: any("instructions"),
        tools: tools(session)?,
    })
}

/// Reads what a client offers: functions only, in the flat shape of both dialects.
fn tools(session: &Value) -> Result<Option<Value>, Problem> {
    let Some(tools) = session.get("tools") else {
        return Ok(None);
    };
    let is_one = |tool: &Value| {
        tool["type"] == "function" && tool["name"].is_string() && tool["parameters"].is_object()
    };
    let are_all = tools.as_array().is_some_and(|all| all.iter().all(is_one));
    let problem = || Problem::invalid("session.tools", "functions with a name and parameters");
    are_all.then(|| Some(tools.clone())).ok_or_else(problem)
}

fn turns(given: Option<&Value>, param: &'static str) -> Result<Option<Turns>, Problem> {
    Ok(match given {
        None => None,
        Some(Value::Null) => Some(Turns::Committed),
        Some(given) => {
            let detection = TurnDetection::deserialize(given)
                .map_err(|error| Problem::invalid(param, error.to_string()))?;
            Some(Turns::Detected(detection))
        }
    })
}
