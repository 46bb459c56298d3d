//! When a turn starts and ends: a session's `turn_detection`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::agent::Dialect;

/// When a turn starts and ends, as a session's `turn_detection` says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct TurnDetection {
    pub kind: Detector,
    /// From 0 to 1; higher needs louder speech.
    pub threshold: f32,
    pub prefix_padding: Duration,
    pub silence: Duration,
    pub create_response: bool,
    pub interrupt_response: bool,
    /// Voice Live's: what an interrupting caller can have heard is cut without being asked.
    pub auto_truncate: bool,
}

/// What is told apart by its name only: all of them listen alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Detector {
    ServerVad,
    SemanticVad,
    AzureSemanticVad,
    AzureSemanticVadEn,
    AzureSemanticVadMultilingual,
}

impl Detector {
    /// Tells whether Voice Live alone knows it.
    pub fn is_azures(self) -> bool {
        match self {
            Self::ServerVad | Self::SemanticVad => false,
            Self::AzureSemanticVad
            | Self::AzureSemanticVadEn
            | Self::AzureSemanticVadMultilingual => true,
        }
    }
}

impl Default for TurnDetection {
    fn default() -> Self {
        Self {
            kind: Detector::ServerVad,
            threshold: 0.5,
            prefix_padding: Duration::from_millis(300),
            silence: Duration::from_millis(500),
            create_response: true,
            interrupt_response: true,
            auto_truncate: false,
        }
    }
}

impl TurnDetection {
    /// Returns it in its wire form.
    pub fn describe(&self, dialect: Dialect) -> Value {
        let mut detection = json!({
            "type": self.kind,
            "threshold": self.threshold,
            "prefix_padding_ms": self.prefix_padding.as_millis(),
            "silence_duration_ms": self.silence.as_millis(),
            "create_response": self.create_response,
            "interrupt_response": self.interrupt_response,
        });
        match dialect {
            Dialect::OpenAi => {}
            Dialect::VoiceLive => detection["auto_truncate"] = self.auto_truncate.into(),
        }
        detection
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
    auto_truncate: Option<bool>,
}

impl TryFrom<Unchecked> for TurnDetection {
    type Error = &'static str;

    fn try_from(wire: Unchecked) -> Result<Self, Self::Error> {
        let given = Self::default();
        let millis = |ms: Option<u32>, default| {
            ms.map_or(default, |ms| Duration::from_millis(u64::from(ms)))
        };
        let this = Self {
            kind: wire.kind,
            threshold: wire.threshold.unwrap_or(given.threshold),
            prefix_padding: millis(wire.prefix_padding_ms, given.prefix_padding),
            silence: millis(wire.silence_duration_ms, given.silence),
            create_response: wire.create_response.unwrap_or(given.create_response),
            interrupt_response: wire.interrupt_response.unwrap_or(given.interrupt_response),
            auto_truncate: wire.auto_truncate.unwrap_or(given.auto_truncate),
        };
        if !(0.0..=1.0).contains(&this.threshold) {
            return Err("threshold is not between 0 and 1");
        }
        if this.prefix_padding > Duration::from_secs(5) || this.silence > Duration::from_secs(10) {
            return Err("prefix_padding_ms is above 5000 or silence_duration_ms above 10000");
        }
        Ok(this)
    }
}
