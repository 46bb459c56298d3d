//! When a turn starts and ends: a session's `turn_detection`.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

/// When a turn starts and ends, as a session's `turn_detection` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct TurnDetection {
    /// From 0 to 1; higher needs louder speech.
    pub threshold: f32,
    pub prefix_padding: Duration,
    pub silence: Duration,
    pub create_response: bool,
    pub interrupt_response: bool,
}

impl Default for TurnDetection {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            prefix_padding: Duration::from_millis(300),
            silence: Duration::from_millis(500),
            create_response: true,
            interrupt_response: true,
        }
    }
}

impl TurnDetection {
    /// Returns it in its wire form.
    pub fn describe(&self) -> Value {
        json!({
            "type": "server_vad",
            "threshold": self.threshold,
            "prefix_padding_ms": self.prefix_padding.as_millis(),
            "silence_duration_ms": self.silence.as_millis(),
            "create_response": self.create_response,
            "interrupt_response": self.interrupt_response,
        })
    }
}

/// The wire form of [`TurnDetection`]; `semantic_vad` has no numbers and so gets the defaults.
#[derive(Deserialize)]
struct Unchecked {
    #[serde(rename = "type")]
    kind: Detector,
    threshold: Option<f32>,
    prefix_padding_ms: Option<u32>,
    silence_duration_ms: Option<u32>,
    create_response: Option<bool>,
    interrupt_response: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Detector {
    ServerVad,
    SemanticVad,
}

impl TryFrom<Unchecked> for TurnDetection {
    type Error = &'static str;

    fn try_from(wire: Unchecked) -> Result<Self, Self::Error> {
        let given = Self::default();
        let millis = |ms: Option<u32>, default| {
            ms.map_or(default, |ms| Duration::from_millis(u64::from(ms)))
        };
        let this = Self {
            threshold: wire.threshold.unwrap_or(given.threshold),
            prefix_padding: millis(wire.prefix_padding_ms, given.prefix_padding),
            silence: millis(wire.silence_duration_ms, given.silence),
            create_response: wire.create_response.unwrap_or(given.create_response),
            interrupt_response: wire.interrupt_response.unwrap_or(given.interrupt_response),
        };
        match wire.kind {
            Detector::ServerVad | Detector::SemanticVad => {}
        }
        if !(0.0..=1.0).contains(&this.threshold) {
            return Err("threshold is not between 0 and 1");
        }
        if this.prefix_padding > Duration::from_secs(5) || this.silence > Duration::from_secs(10) {
            return Err("prefix_padding_ms is above 5000 or silence_duration_ms above 10000");
        }
        Ok(this)
    }
}
