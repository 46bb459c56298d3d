//! The tools that every gateway has, as far as a campaign lets its agent use them.

use std::str::FromStr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    campaign::Name,
    tool::{Directory, Does, Refusal, Schema, Tool},
};

/// A tool that every gateway has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BuiltIn {
    EndCall,
    TransferCall,
    SendDtmf,
}

/// Keys to be heard at the other end: `0` to `9`, `*`, `#`, and `w` for a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digits(String); // Invariant: as the schema of `send_dtmf` has it.

/// The destination that a transfer is to have.
#[derive(Debug)]
pub struct Destined(pub Name);

impl BuiltIn {
    pub const ALL: [Self; 3] = [Self::EndCall, Self::TransferCall, Self::SendDtmf];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::EndCall => "end_call",
            Self::TransferCall => "transfer_call",
            Self::SendDtmf => "send_dtmf",
        }
    }

    /// Returns the tool for a campaign that has this directory.
    pub fn with(self, directory: &Directory) -> Tool {
        let (description, properties) = match self {
            Self::EndCall => (
                "Ends the call. Say goodbye before: the call ends once the caller has heard it."
                    .to_owned(),
                json!({}),
            ),
            Self::TransferCall => {
                let names: Vec<_> = directory.destinations.keys().map(Name::as_str).collect();
                let destination = json!({
                    "type": "string",
                    "enum": names,
                    "description": "The name of who is to go on with the caller.",
                });
                let before = match directory.key {
                    None => "Tell the caller so before.".to_owned(),
                    Some(key) => format!(
                        "The caller has to agree by pressing {} on the phone: ask for that, and use \
                         this once it was pressed.",
                        key.as_char()
                    ),
                };
                (
                    format!(
                        "Hands the caller over to somebody else and ends your part of the call. \
                         {before}"
                    ),
                    json!({ "destination": destination }),
                )
            }
            Self::SendDtmf => {
                let digits = json!({
                    "type": "string",
                    "pattern": "^[0-9*#w]{1,32}$",
                    "description": "The keys, such as \"12#\"; w is a pause of half a second.",
                });
                (
                    "Presses keys of the phone, for a menu at the other end of the line."
                        .to_owned(),
                    json!({ "digits": digits }),
                )
            }
        };
        let required: Vec<_> = properties.as_object().into_iter().flatten().collect();
        let required: Vec<_> = required.into_iter().map(|(name, _)| name).collect();
        let schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        Tool {
            name: self.as_str().parse().expect("a literal name"),
            description,
            schema: Schema::new(schema).expect("our own schema"),
            does: Does::BuiltIn(self),
        }
    }
}

impl FromStr for BuiltIn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = Self::ALL.into_iter().find(|tool| tool.as_str() == text);
        known.ok_or(())
    }
}

impl Digits {
    /// Reads what the schema of `send_dtmf` has let pass.
    ///
    /// # Errors
    /// If it is something else after all.
    pub fn of(arguments: &Value) -> Result<Self, Refusal> {
        let digits = arguments["digits"].as_str();
        let digits = digits.filter(|text| {
            let plain = |byte: u8| byte.is_ascii_digit() || b"*#w".contains(&byte);
            (1..=32).contains(&text.len()) && text.bytes().all(plain)
        });
        let digits = digits.map(|text| Self(text.to_owned()));
        digits.ok_or_else(|| Refusal::invalid("digits: 1 to 32 of 0-9, *, # and w".to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Destined {
    /// Reads what the schema of `transfer_call` has let pass.
    ///
    /// # Errors
    /// If it is something else after all.
    pub fn of(arguments: &Value) -> Result<Self, Refusal> {
        #[derive(Deserialize)]
        struct Transfer {
            destination: String,
        }
        let transfer = Transfer::deserialize(arguments).ok();
        let name = transfer.and_then(|transfer| transfer.destination.parse().ok());
        let name = name.ok_or_else(|| Refusal::invalid("destination: a name".to_owned()))?;
        Ok(Self(name))
    }
}
