//! What Azure Voice Live says differently from the protocol in [`super::openai`]: a flat session,
//! and the names of the beta, which the decoder there reads as well. No IO.
//!
//! Source: learn.microsoft.com/azure/ai-services/speech-service/voice-live-how-to, its API
//! reference of 2026-07-15, and the types of Microsoft's own SDK.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    agent::{Event, Garbled, openai},
    campaign::Campaign,
    chunk::Encoding,
    config::{AgentSettings, Detector, NOISE_SUPPRESSION},
    language::Language,
    session::Input,
    wire::Str,
};

/// What a token of Entra is asked for.
pub const SCOPE: &str = "https://cognitiveservices.azure.com/.default";

/// Returns the message that sets up a session for a call of `campaign`.
pub fn session_update(settings: &AgentSettings, campaign: &Campaign, encoding: Encoding) -> String {
    let language = &campaign.language;
    let ours = &settings.voice_live;
    let mut session = json!({
        "modalities": ["text", "audio"],
        "voice": voice(settings.voice(language)),
        "input_audio_format": input_format(encoding),
        "input_audio_sampling_rate": encoding.rate(),
        "output_audio_format": output_format(encoding),
        "turn_detection": turn_detection(settings),
    });
    // An agent that was made in Foundry has its own.
    if ours.foundry.is_none() {
        session["instructions"] = settings.instructions.as_str().into();
        openai::offer(&campaign.tools, &mut session);
    }
    if ours.noise_suppression {
        session["input_audio_noise_reduction"] = json!({"type": NOISE_SUPPRESSION});
    }
    if ours.echo_cancellation {
        session["input_audio_echo_cancellation"] = json!({"type": "server_echo_cancellation"});
    }
    if let Some(model) = settings.transcription_model() {
        session["input_audio_transcription"] =
            json!({"model": model, "language": spoken(model, language)});
    }
    json!({"type": "session.update", "session": session}).to_string()
}

/// Tells whether the session that was acknowledged has audio as it was asked for.
pub fn fits(
    input: Option<&str>,
    sampling_rate: Option<u32>,
    output: Option<&str>,
    encoding: Encoding,
) -> bool {
    // What is said where there is no rate: 8,000 for mu-law, 24,000 for PCM.
    let usual = match encoding {
        Encoding::Mulaw => Encoding::Mulaw.rate(),
        Encoding::Pcm16k | Encoding::Pcm24k => Encoding::Pcm24k.rate(),
    };
    // An early version spelled the rate after a hyphen.
    let output = output.map(|output| output.replace('-', "_"));
    input == Some(input_format(encoding))
        && sampling_rate.unwrap_or(usual) == encoding.rate()
        && output.as_deref() == Some(output_format(encoding))
}

/// Reads a message of which a field is not of the type that it has in all others. There is one,
/// about agents that were made in Foundry, and it is nothing to us.
///
/// # Errors
/// If it is any other message.
pub fn of_another_shape(message: &[u8]) -> Result<Event, Garbled> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        r#type: Str<'a>,
    }
    match serde_json::from_slice::<Wire<'_>>(message) {
        Ok(wire) if &*wire.r#type == "response.invocation.delta" => {
            Ok(Event::Input(Input::AgentAlive))
        }
        Ok(_) | Err(_) => Err(Garbled),
    }
}

fn input_format(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Mulaw => "g711_ulaw",
        Encoding::Pcm16k | Encoding::Pcm24k => "pcm16",
    }
}

fn output_format(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Mulaw => "g711_ulaw",
        Encoding::Pcm16k => "pcm16_16000hz",
        Encoding::Pcm24k => "pcm16",
    }
}

/// Azure's voices are called by their language, such as `he-IL-HilaNeural`; OpenAI's are not.
fn voice(name: &str) -> Value {
    if name.contains('-') {
        json!({"type": "azure-standard", "name": name})
    } else {
        json!({"type": "openai", "name": name})
    }
}

/// Returns the language as `model` wants it. Azure's recognisers take a whole tag, and without
/// the region they would guess, which they cannot where the language is Hebrew.
fn spoken<'a>(model: &str, language: &'a Language) -> &'a str {
    let is_azures = model.starts_with("azure-") || model.starts_with("mai-");
    match (is_azures, language.primary()) {
        (true, "he") => "he-IL",
        (true, _) => language.as_str(),
        (false, primary) => primary,
    }
}

/// Neither the end of an utterance nor filler words are looked for: what does so knows no Hebrew.
fn turn_detection(settings: &AgentSettings) -> Value {
    let turns = &settings.turn_detection;
    let silence_ms = u64::try_from(turns.silence.as_millis()).unwrap_or(u64::MAX);
    let mut detection = match settings.detector() {
        Detector::Server => json!({
            "type": "server_vad",
            "threshold": turns.threshold,
            "prefix_padding_ms": 400,
            "silence_duration_ms": silence_ms,
        }),
        Detector::Semantic => json!({"type": "semantic_vad"}),
        Detector::AzureSemantic => json!({
            "type": "azure_semantic_vad",
            "threshold": turns.threshold,
            "prefix_padding_ms": 420,
            "speech_duration_ms": 80,
            "silence_duration_ms": silence_ms,
        }),
    };
    detection["create_response"] = true.into();
    detection["interrupt_response"] = true.into();
    detection["auto_truncate"] = settings.voice_live.auto_truncate.into();
    detection
}

#[cfg(test)]
mod tests;
