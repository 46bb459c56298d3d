//! What can be wrong with an agent: the faults the parrot plays on request.

use std::time::Duration;

use bytes::Bytes;

use super::wire::{Output, audio_delta};
use crate::agent::Dialect;

/// What goes wrong, in every session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Fault {
    /// Closes every accepted connection at once.
    Refuse,
    /// Answers the upgrade with 401.
    Unauthorized,
    /// Answers the upgrade with 429.
    RateLimit,
    /// Answers the upgrade with 503.
    Unavailable,
    /// Accepts the connection and neither reads nor writes.
    HangTcp,
    /// Reads the upgrade request and never answers it.
    HangUpgrade,
    /// Upgrades and then stays silent: no `session.created`.
    HangSession,
    /// Closes with 1000 right after `session.updated`.
    EarlyClose,
    /// Closes with 1011 after half of the first response.
    CloseMidCall,
    /// Sends nothing more after half of the first response, though the socket lives.
    Stall,
    /// Mixes in broken JSON, wrong types, bad base64, binary frames and unknown events, from the
    /// first response until the socket closes.
    Garbage,
    /// Makes the first response 10 minutes long and sends it as fast as the socket takes it.
    Flood,
    /// Sends one message of 100 MB in the first response.
    HugeMessage,
    /// Acknowledges another encoding than was asked for.
    WrongFormat,
    /// Fails every response with `insufficient_quota`.
    FailedResponse,
    /// Fails the first response with `rate_limit_exceeded`.
    RateLimitedResponse,
    /// Says `session_expired` after the first response and closes with 1001.
    Expired,
}

/// How long the first response of a flood is.
pub const FLOOD: Duration = Duration::from_mins(10);

/// The base64 text in a huge message; whole groups of four.
pub const HUGE_TEXT: usize = 100_000_000;

/// The time between two pieces of garbage.
pub const GARBAGE_EVERY: Duration = Duration::from_millis(20);

/// Returns the `turn`th piece of garbage; they come round again.
pub fn garbage(turn: usize, dialect: Dialect) -> Output {
    const TEXTS: [&str; 15] = [
        "",
        "so this is not JSON",
        r#"{"type":"response.output_audio.delta","delta":"#,
        "[]",
        "null",
        "{}",
        r#"{"type":42}"#,
        r#"{"type":"response.sung","event_id":"event_g","song":["la","la"]}"#,
        r#"{"type":"response.output_audio.delta","event_id":"event_g","response_id":7,"item_id":[],"output_index":"zero","content_index":null,"delta":12}"#,
        r#"{"type":"response.output_audio.delta","event_id":"event_g","response_id":"resp_g","item_id":"item_g","output_index":0,"content_index":0,"delta":"!!!!"}"#,
        r#"{"type":"response.output_audio.delta","event_id":"event_g","response_id":"resp_g","item_id":"item_g","output_index":0,"content_index":0,"delta":"AA\"A"}"#,
        r#"{"type":"response.output_audio.delta","event_id":"event_g","response_id":"resp_g","item_id":"item_g","output_index":0,"content_index":0,"delta":"AAA"}"#,
        r#"{"type":"response.done","event_id":"event_g","response":null}"#,
        r#"{"type":"input_audio_buffer.speech_started","event_id":"event_g","audio_start_ms":-1e300,"item_id":"item_g"}"#,
        r#"{"type":"error","event_id":"event_g","error":"everything"}"#,
    ];
    match turn % (TEXTS.len() + 2) {
        0 => Output::Binary(Bytes::from_static(&[0, 159, 146, 150, 255])),
        // Deeper than a parser should follow.
        1 => Output::Text("[".repeat(5_000).into()),
        other => {
            let text = TEXTS[other - 2];
            let kind = audio_delta(dialect);
            Output::Text(text.replace("response.output_audio.delta", kind).into())
        }
    }
}
