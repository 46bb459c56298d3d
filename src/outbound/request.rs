//! What a program asks for, read within bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{carrier::twilio::Detection, outbound::Refused};

/// How long a call rings where the request does not say so, and what it may say.
const RING_FOR: u64 = 30;
const RINGS: std::ops::RangeInclusive<u64> = 5..=120;
/// The longest texts, in characters, and the longest metadata, in bytes.
const LONGEST_INSTRUCTIONS: usize = 16_000;
const LONGEST_GREETING: usize = 2_000;
const LONGEST_VOICE: usize = 64;
const LONGEST_METADATA: usize = 4 << 10;
const LONGEST_NAME: usize = 64;

/// What a request may say.
pub const FIELDS: [&str; 8] = [
    "to",
    "from",
    "campaign",
    "agent",
    "metadata",
    "ring_timeout",
    "machine_detection",
    "when_machine",
];
/// What it may say of the agent.
pub const AGENT_FIELDS: [&str; 3] = ["instructions", "voice", "greeting"];

/// A call that a program asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub to: String,
    pub from: Option<String>,
    pub campaign: Option<String>,
    pub terms: Terms,
}

/// What is kept of a request for as long as the call is not over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    pub overrides: Overrides,
    pub metadata: Map<String, Value>,
    pub ring_seconds: u64,
    pub detection: MachineDetection,
    pub when_machine: WhenMachine,
    /// How long it may last by what its tenant had left of the day when it was noted. Rows of older
    /// replicas do not say.
    #[serde(default)]
    pub left_of_day: Option<Duration>,
}

/// What this call's agent does otherwise than its campaign's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    pub instructions: Option<String>,
    pub voice: Option<String>,
    pub greeting: Option<String>,
}

/// Whether to listen for an answering machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MachineDetection {
    #[default]
    Off,
    Detect,
    /// The agent talks to a machine when its greeting is over.
    DetectMessageEnd,
}

/// What happens if a machine picks up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenMachine {
    #[default]
    HangUp,
    /// The agent talks, and so leaves a message.
    Talk,
}

impl Request {
    /// Reads a JSON body.
    ///
    /// # Errors
    /// If a field is missing, unknown or wrong.
    pub fn read(body: &Value) -> Result<Self, Refused> {
        let fields = object(body).ok_or_else(|| invalid("", "the body is a JSON object"))?;
        let fields = &fields;
        refuse_unknown(fields, &FIELDS, "")?;
        let ring_seconds = match fields.get("ring_timeout") {
            None => RING_FOR,
            Some(seconds) => seconds
                .as_u64()
                .filter(|seconds| RINGS.contains(seconds))
                .ok_or_else(|| invalid("ring_timeout", "seconds: a whole number from 5 to 120"))?,
        };
        let metadata = match fields.get("metadata") {
            None => Map::new(),
            Some(Value::Object(metadata)) => metadata.clone(),
            Some(_) => return Err(invalid("metadata", "an object")),
        };
        if Value::from(metadata.clone()).to_string().len() > LONGEST_METADATA {
            return Err(invalid("metadata", "at most 4096 bytes of JSON"));
        }
        Ok(Self {
            to: text(fields, "to", LONGEST_NAME)?
                .ok_or_else(|| invalid("to", "the number to call, in E.164 form"))?,
            from: text(fields, "from", LONGEST_NAME)?,
            campaign: text(fields, "campaign", LONGEST_NAME)?,
            terms: Terms {
                overrides: Overrides::read(fields.get("agent"))?,
                metadata,
                ring_seconds,
                detection: word(
                    fields,
                    "machine_detection",
                    "off, detect or detect_message_end",
                )?,
                when_machine: word(fields, "when_machine", "hang_up or talk")?,
                left_of_day: None,
            },
        })
    }
}

impl Terms {
    pub fn ring_for(&self) -> Duration {
        Duration::from_secs(self.ring_seconds)
    }

    /// Returns how long it may last, where none lasts for longer than `longest`.
    pub fn lasts_at_most(&self, longest: Duration) -> Duration {
        self.left_of_day.map_or(longest, |left| left.min(longest))
    }

    pub fn twilio_detection(&self) -> Detection {
        match self.detection {
            MachineDetection::Off => Detection::Off,
            MachineDetection::Detect => Detection::Enable,
            MachineDetection::DetectMessageEnd => Detection::MessageEnd,
        }
    }
}

impl Overrides {
    fn read(agent: Option<&Value>) -> Result<Self, Refused> {
        let Some(agent) = agent else {
            return Ok(Self::default());
        };
        let fields = object(agent).ok_or_else(|| invalid("agent", "an object"))?;
        refuse_unknown(&fields, &AGENT_FIELDS, "agent.")?;
        Ok(Self {
            instructions: text(&fields, "agent.instructions", LONGEST_INSTRUCTIONS)?,
            voice: text(&fields, "agent.voice", LONGEST_VOICE)?,
            greeting: text(&fields, "agent.greeting", LONGEST_GREETING)?,
        })
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Returns an object's fields; `null` counts as not given.
fn object(value: &Value) -> Option<Map<String, Value>> {
    let fields = value.as_object()?.iter();
    let given = fields.filter(|(_, value)| !value.is_null());
    Some(given.map(|(name, it)| (name.clone(), it.clone())).collect())
}

fn refuse_unknown(
    fields: &Map<String, Value>,
    known: &[&str],
    within: &str,
) -> Result<(), Refused> {
    match fields.keys().find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(LONGEST_NAME).collect();
            let rule = format!("there is no such field here, but {}", known.join(", "));
            Err(invalid(format!("{within}{}", name.escape_debug()), &rule))
        }
    }
}

/// Takes the text whose name ends `path`; what is before that is where its object stands.
fn text(
    fields: &Map<String, Value>,
    path: &'static str,
    longest: usize,
) -> Result<Option<String>, Refused> {
    let rule = || invalid(path, &format!("a text of 1 to {longest} characters"));
    let name = path.rsplit_once('.').map_or(path, |(_, name)| name);
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => {
            let length = text.chars().count();
            let fits = (1..=longest).contains(&length) && !text.contains('\0');
            if fits {
                Ok(Some(text.clone()))
            } else {
                Err(rule())
            }
        }
        Some(_) => Err(rule()),
    }
}

fn word<T: Default + for<'de> Deserialize<'de>>(
    fields: &Map<String, Value>,
    name: &'static str,
    rule: &str,
) -> Result<T, Refused> {
    match fields.get(name) {
        None => Ok(T::default()),
        Some(word) => T::deserialize(word).map_err(|_| invalid(name, rule)),
    }
}

pub fn invalid(field: impl Into<String>, message: &str) -> Refused {
    Refused::Invalid {
        field: field.into(),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_read_with_its_defaults() {
        let read = Request::read(&json!({"to": "+972502345678"})).unwrap();
        assert_eq!(read.terms.ring_for(), Duration::from_secs(30));
        assert_eq!(read.terms.when_machine, WhenMachine::HangUp);
        assert!(read.terms.overrides.is_empty());
        let all = Request::read(&json!({
            "to": "+972502345678",
            "from": "+972722234567",
            "campaign": "support",
            "agent": {"instructions": "Be brief.", "voice": "marin", "greeting": "Say hello."},
            "metadata": {"order": 7},
            "ring_timeout": 5,
            "machine_detection": "detect_message_end",
            "when_machine": "talk",
        }))
        .unwrap();
        assert_eq!(all.terms.twilio_detection(), Detection::MessageEnd);
        assert_eq!(all.terms.metadata["order"], 7);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let big = "x".repeat(5_000);
        for (body, field) in [
            (json!([]), ""),
            (json!({}), "to"),
            (json!({"to": 5}), "to"),
            (json!({"to": null}), "to"),
            (json!({"to": "+1", "tos": 1}), "tos"),
            (json!({"to": "+1", "from": ""}), "from"),
            (json!({"to": "+1", "ring_timeout": 4}), "ring_timeout"),
            (json!({"to": "+1", "ring_timeout": "30"}), "ring_timeout"),
            (json!({"to": "+1", "metadata": []}), "metadata"),
            (json!({"to": "+1", "metadata": {"a": big}}), "metadata"),
            (json!({"to": "+1", "agent": "x"}), "agent"),
            (json!({"to": "+1", "agent": {"model": "x"}}), "agent.model"),
            (json!({"to": "+1", "agent": {"voice": ""}}), "agent.voice"),
            (
                json!({"to": "+1", "machine_detection": "maybe"}),
                "machine_detection",
            ),
            (json!({"to": "+1", "when_machine": 1}), "when_machine"),
        ] {
            let Err(Refused::Invalid { field: named, .. }) = Request::read(&body) else {
                panic!("{body} was read");
            };
            assert_eq!(named, field, "{body}");
        }
    }
}
