//! The messages of the OpenAI Realtime protocol (GA), which Azure OpenAI and the parrot speak too.
//! What Azure Voice Live says differently is in [`voice_live`]. No IO.
//!
//! Source: developers.openai.com/api/docs/guides/realtime, and the types of OpenAI's own SDK.

use std::{borrow::Cow, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    agent::{Complaint, Dialect, Event, Garbled, Limit, voice_live},
    campaign::Campaign,
    chunk::{Chunk, Encoding},
    config::{AgentSettings, Detector},
    session::{Answered, Input, Interrupted, ItemId, Speaker, ToolCall, ToolResult},
    tool::Tools,
    wire::Str,
};

/// The longest name of an item that is believed.
const LONGEST_ID: usize = 128;

/// The longest arguments of a tool that are read, in bytes.
const LONGEST_ARGUMENTS: usize = 16 << 10;

/// The most tokens that one answer is believed to have used up.
const MOST_TOKENS: u32 = 10_000_000;

/// How long a rate limit is waited for when the agent does not say.
const RATE_LIMIT_WAIT: Duration = Duration::from_secs(1);
/// How long any other failure is waited for before the answer is asked for again.
const FAILURE_WAIT: Duration = Duration::from_millis(300);

/// Failures that the next attempt would meet again, under either key that may carry them.
const FATAL: [&str; 7] = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "account_deactivated",
    "invalid_api_key",
    "beta_api_shape_disabled",
    "model_not_found",
];

/// Returns the message that sets up a session for a call of `campaign`.
pub fn session_update(settings: &AgentSettings, campaign: &Campaign, encoding: Encoding) -> String {
    let language = &campaign.language;
    let turns = &settings.turn_detection;
    let turn_detection = match settings.detector() {
        // The last one is unknown here, and settings do not let it come so far.
        Detector::Server | Detector::AzureSemantic => json!({
            "type": "server_vad",
            "threshold": turns.threshold,
            "prefix_padding_ms": 300,
            "silence_duration_ms": u64::try_from(turns.silence.as_millis()).unwrap_or(u64::MAX),
            "create_response": true,
            "interrupt_response": true,
        }),
        Detector::Semantic => json!({
            "type": "semantic_vad",
            "create_response": true,
            "interrupt_response": true,
        }),
    };
    let mut input = json!({
        "format": format(encoding),
        "turn_detection": turn_detection,
    });
    // Left out where nobody writes anything down: the vendor's types know no null here.
    if let Some(model) = settings.transcription_model() {
        input["transcription"] = json!({"model": model, "language": language.primary()});
    }
    let mut session = json!({
        "type": "realtime",
        "instructions": settings.instructions,
        "output_modalities": ["audio"],
        "audio": {
            "input": input,
            "output": {"format": format(encoding), "voice": settings.voice(language)},
        },
    });
    offer(&campaign.tools, &mut session);
    json!({"type": "session.update", "session": session}).to_string()
}

/// Offers tools in a session; where there are none, nothing is said of them.
pub fn offer(tools: &Tools, session: &mut Value) {
    if !tools.is_empty() {
        session["tools"] = tools.offers().map(|offer| json!(offer)).collect();
        session["tool_choice"] = "auto".into();
    }
}

/// Returns the wire name of audio.
fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Mulaw => "audio/pcmu",
        Encoding::Pcm16k | Encoding::Pcm24k => "audio/pcm",
    }
}

/// Describes audio; of PCM the protocol knows 24 kHz alone.
fn format(encoding: Encoding) -> Value {
    match encoding {
        Encoding::Mulaw => json!({"type": name(encoding)}),
        Encoding::Pcm16k | Encoding::Pcm24k => {
            json!({"type": name(encoding), "rate": encoding.rate()})
        }
    }
}

/// Writes the message that lets the agent hear `chunk`.
pub fn append(chunk: &Chunk, message: &mut BytesMut) {
    message.put_slice(br#"{"type":"input_audio_buffer.append","audio":""#);
    message.put_slice(chunk.text());
    message.put_slice(br#""}"#);
}

/// Returns the message that asks the agent for its first words.
pub fn greet(greeting: &str) -> String {
    json!({"type": "response.create", "response": {"instructions": greeting}}).to_string()
}

/// Returns the message that asks the agent for an answer.
pub fn answer() -> String {
    json!({"type": "response.create"}).to_string()
}

/// Returns the message that tells the agent what was heard of an item.
pub fn truncate(interrupted: &Interrupted) -> String {
    let name = |item: &ItemId| String::from_utf8_lossy(item.as_bytes()).into_owned();
    let message: Value = match interrupted {
        Interrupted::Heard { item, heard } => json!({
            "type": "conversation.item.truncate",
            "item_id": name(item),
            "content_index": 0,
            "audio_end_ms": u64::try_from(heard.as_millis()).unwrap_or(u64::MAX),
        }),
        Interrupted::Unheard { item } => json!({
            "type": "conversation.item.delete",
            "item_id": name(item),
        }),
    };
    message.to_string()
}

/// Returns the message that tells the agent of a key on the caller's phone.
pub fn pressed(key: char) -> String {
    let text = format!("The caller pressed {key} on the keypad.");
    json!({
        "type": "conversation.item.create",
        "item": {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        },
    })
    .to_string()
}

/// Returns the message that tells the agent what came of a tool.
pub fn result(result: &ToolResult) -> String {
    json!({
        "type": "conversation.item.create",
        "item": {"type": "function_call_output", "call_id": result.id, "output": result.text},
    })
    .to_string()
}

/// Any message of the agent's, with what we read of it. Names that older dialects use are
/// accepted too.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    r#type: Str<'a>,
    #[serde(borrow)]
    item_id: Option<Str<'a>>,
    #[serde(borrow)]
    delta: Option<Str<'a>>,
    transcript: Option<String>,
    error: Option<WireError>,
    response: Option<WireResponse>,
    session: Option<WireSession>,
    rate_limits: Option<Vec<WireLimit>>,
}

#[derive(Deserialize)]
struct WireLimit {
    name: String,
    remaining: f64,
}

#[derive(Deserialize)]
struct WireError {
    r#type: Option<String>,
    code: Option<String>,
    message: Option<String>,
}

#[derive(Deserialize)]
struct WireResponse {
    status: Option<String>,
    status_details: Option<WireStatus>,
    /// Of any shape: a call does not end for its bill.
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct WireStatus {
    reason: Option<String>,
    error: Option<WireError>,
}

/// The session of either dialect.
#[derive(Deserialize)]
struct WireSession {
    audio: Option<WireAudio>,
    input_audio_format: Option<String>,
    input_audio_sampling_rate: Option<u32>,
    output_audio_format: Option<String>,
}

#[derive(Deserialize)]
struct WireAudio {
    input: Option<WireDirection>,
    output: Option<WireDirection>,
}

#[derive(Deserialize)]
struct WireDirection {
    format: Option<WireFormat>,
}

#[derive(Deserialize)]
struct WireFormat {
    r#type: String,
}

/// Reads a message. Audio stays a part of it, without a copy.
///
/// # Errors
/// If it is not JSON of the protocol's shape, or its audio is not base64.
pub fn decode(message: &Bytes, dialect: Dialect, encoding: Encoding) -> Result<Event, Garbled> {
    let Ok(wire) = serde_json::from_slice::<Wire<'_>>(message) else {
        return voice_live::of_another_shape(message);
    };
    let item = |id: Option<Str<'_>>| match id {
        Some(Str(id)) if id.len() > LONGEST_ID => Err(Garbled),
        Some(Str(Cow::Borrowed(id))) => Ok(ItemId::new(message.slice_ref(id.as_bytes()))),
        Some(Str(Cow::Owned(id))) => Ok(ItemId::new(id.into())),
        None => Err(Garbled),
    };
    let input = match &*wire.r#type {
        "response.output_audio.delta" | "response.audio.delta" => Input::AgentAudio {
            chunk: Chunk::within(message, wire.delta.ok_or(Garbled)?.0, encoding)
                .map_err(|_| Garbled)?,
            item: item(wire.item_id)?,
        },
        "response.output_audio.done" | "response.audio.done" => {
            Input::AgentFinished(item(wire.item_id)?)
        }
        "input_audio_buffer.speech_started" => Input::AgentInterrupted,
        "input_audio_buffer.committed" => Input::AgentWillAnswer,
        "response.created" => Input::AgentAnswering,
        "response.done" => {
            let response = wire.response.ok_or(Garbled)?;
            let tokens = tokens(response.usage.as_ref());
            return Ok(Event::Answered(answered(response), tokens));
        }
        "response.output_audio_transcript.done" | "response.audio_transcript.done" => Input::Said {
            who: Speaker::Agent,
            text: wire.transcript.ok_or(Garbled)?,
        },
        "conversation.item.input_audio_transcription.completed" => Input::Said {
            who: Speaker::Caller,
            text: wire.transcript.ok_or(Garbled)?,
        },
        "session.created" => return Ok(Event::Created),
        "session.updated" => {
            let session = wire.session.as_ref();
            let fits = session.is_some_and(|session| session.fits(dialect, encoding));
            return Ok(Event::Updated { fits });
        }
        "rate_limits.updated" => {
            return Ok(Event::Limits(limits(&wire.rate_limits.unwrap_or_default())));
        }
        "response.output_item.done" => item_done(message)?,
        "error" => return Ok(Event::Complaint(complaint(wire.error.ok_or(Garbled)?))),
        // Types appear without notice; all of them are signs of life.
        _ => Input::AgentAlive,
    };
    Ok(Event::Input(input))
}

impl WireSession {
    fn fits(&self, dialect: Dialect, encoding: Encoding) -> bool {
        match dialect {
            Dialect::OpenAi => {
                let fits = |direction: &Option<WireDirection>| {
                    let format = direction.as_ref().and_then(|it| it.format.as_ref());
                    format.is_some_and(|format| format.r#type == name(encoding))
                };
                let audio = self.audio.as_ref();
                audio.is_some_and(|audio| fits(&audio.input) && fits(&audio.output))
            }
            Dialect::VoiceLive => voice_live::fits(
                self.input_audio_format.as_deref(),
                self.input_audio_sampling_rate,
                self.output_audio_format.as_deref(),
                encoding,
            ),
        }
    }
}

/// Reads what the agent has done: it may want to use a tool. `response.function_call_arguments.done`
/// tells of the same, but not whether an interruption has cut it off.
fn item_done(message: &[u8]) -> Result<Input, Garbled> {
    #[derive(Deserialize)]
    struct Done {
        item: Item,
    }
    #[derive(Deserialize)]
    struct Item {
        r#type: String,
        status: Option<String>,
        call_id: Option<String>,
        name: Option<String>,
        arguments: Option<String>,
    }
    let Done { item } = serde_json::from_slice(message).map_err(|_| Garbled)?;
    if item.r#type != "function_call" || item.status.as_deref() != Some("completed") {
        return Ok(Input::AgentAlive);
    }
    let id = item.call_id.filter(|id| id.len() <= LONGEST_ID);
    let mut tool = item.name.ok_or(Garbled)?;
    tool.truncate(tool.floor_char_boundary(LONGEST_ID)); // Nothing of ours is called so.
    let arguments = item.arguments.unwrap_or_default();
    Ok(Input::ToolCalled(ToolCall {
        id: id.ok_or(Garbled)?,
        tool,
        arguments: Some(arguments).filter(|arguments| arguments.len() <= LONGEST_ARGUMENTS),
    }))
}

fn limits(limits: &[WireLimit]) -> Vec<(Limit, u64)> {
    let known = limits.iter().filter_map(|limit| {
        let what = match limit.name.as_str() {
            "requests" => Limit::Requests,
            "tokens" => Limit::Tokens,
            _ => return None,
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast to an integer saturates, and a limit below zero is none"
        )]
        Some((what, limit.remaining as u64))
    });
    known.collect()
}

fn tokens(usage: Option<&Value>) -> u32 {
    let total = usage.and_then(|usage| usage.get("total_tokens")?.as_u64());
    u32::try_from(total.unwrap_or(0)).map_or(MOST_TOKENS, |total| total.min(MOST_TOKENS))
}

fn answered(response: WireResponse) -> Answered {
    let details = response.status_details;
    let reason = details
        .as_ref()
        .and_then(|details| details.reason.as_deref());
    match (response.status.as_deref(), reason) {
        (Some("completed"), _) => Answered::Fully,
        (Some("cancelled"), _) => Answered::Cancelled,
        (Some("incomplete"), Some("content_filter")) => Answered::Withheld,
        (Some("incomplete"), _) => Answered::CutShort,
        (Some("failed"), _) => failed(details.and_then(|details| details.error)),
        (_, _) => Answered::Fully,
    }
}

fn failed(error: Option<WireError>) -> Answered {
    let Some(error) = error else {
        return Answered::TryAgain(FAILURE_WAIT);
    };
    let codes = [error.code.as_deref(), error.r#type.as_deref()];
    let has = |codes_of: &[&str]| codes.iter().flatten().any(|code| codes_of.contains(code));
    if has(&FATAL) {
        Answered::Failed
    } else if has(&["rate_limit_exceeded", "inference_rate_limit_exceeded"]) {
        let message = error.message.as_deref().unwrap_or_default();
        Answered::TryAgain(wait_in(message).unwrap_or(RATE_LIMIT_WAIT))
    } else {
        Answered::TryAgain(FAILURE_WAIT)
    }
}

/// Finds the wait in a message such as "Please try again in 1.2s".
fn wait_in(message: &str) -> Option<Duration> {
    let (_, rest) = message.split_once("try again in ")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = rest.split_at(end);
    let number: f64 = number.trim_end_matches('.').parse().ok()?;
    let seconds = if unit.starts_with("ms") {
        number / 1_000.0
    } else {
        number
    };
    Duration::try_from_secs_f64(seconds).ok()
}

fn complaint(error: WireError) -> Complaint {
    let code = error.code.or(error.r#type);
    let mut code = code.unwrap_or_else(|| "unknown".to_owned());
    code.truncate(code.floor_char_boundary(64)); // It ends up in a log line.
    match code.as_str() {
        "session_expired" => Complaint::Expired,
        fatal if FATAL.contains(&fatal) => Complaint::Fatal(code),
        _ => Complaint::Harmless(code),
    }
}

#[cfg(test)]
mod tests;
