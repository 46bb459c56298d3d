//! What an endpoint learns of an event: as much of its call's numbers, and of the rest, as it may.
//!
//! Invariant: a number goes out whole only to an endpoint that is set to get whole ones.

use std::str::FromStr;

use serde_json::{Value, json};

use crate::event::Endpoint;

/// What of a number an endpoint is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToldNumbers {
    /// What a masked one shows.
    #[default]
    Masked,
    /// As much as is kept.
    Whole,
}

/// How much of an event an endpoint is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Payload {
    /// The call as it is recorded.
    #[default]
    Full,
    /// Ids, kind, time and state; the receiver asks `/v1` for the rest.
    Small,
}

/// An event as the database has it, and the numbers of its call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub body: String,
    pub caller: TellableNumber,
    pub called: TellableNumber,
}

/// What can be told of a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TellableNumber {
    /// Nothing where it is not kept; a code begins with `h:`.
    pub kept: Option<String>,
    pub masked: Option<String>,
}

impl Content {
    /// Returns the body that an endpoint is sent; the same for every try, as long as its settings
    /// and its call's record are.
    pub fn body_for(&self, endpoint: &Endpoint) -> String {
        let Ok(mut event) = serde_json::from_str::<Value>(&self.body) else {
            return self.body.clone();
        };
        if !event["data"].is_object() {
            return self.body.clone();
        }
        match endpoint.payload {
            Payload::Full => {
                let numbers = [("caller", &self.caller), ("called", &self.called)];
                for (field, number) in numbers {
                    event["data"][field] = json!(number.told(endpoint.numbers));
                }
            }
            Payload::Small => event["data"] = small(&event["data"]),
        }
        event.to_string()
    }
}

impl TellableNumber {
    fn told(&self, numbers: ToldNumbers) -> Option<&str> {
        // A code says nothing to people.
        let kept = self.kept.as_deref().filter(|kept| !kept.starts_with("h:"));
        match numbers {
            ToldNumbers::Masked => self.masked.as_deref(),
            ToldNumbers::Whole => kept.or(self.masked.as_deref()),
        }
    }
}

fn small(data: &Value) -> Value {
    let mut small = json!({
        "call_id": data["call_id"],
        "trace_id": data["trace_id"],
        "carrier_call_id": data["carrier_call_id"],
        "state": data["state"],
    });
    for (of, id) in [("recording", "recording_id"), ("whatsapp", "message_id")] {
        if let Some(id_of) = data[of].get(id) {
            small[of] = json!({ id: id_of });
        }
    }
    small
}

impl FromStr for ToldNumbers {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "masked" => Ok(Self::Masked),
            "whole" => Ok(Self::Whole),
            _ => Err(()),
        }
    }
}

impl FromStr for Payload {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "full" => Ok(Self::Full),
            "small" => Ok(Self::Small),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::SigningSecrets, guard::GuardRules};

    fn number(kept: Option<&str>) -> TellableNumber {
        TellableNumber {
            kept: kept.map(str::to_owned),
            masked: Some("+9*******4567".to_owned()),
        }
    }

    fn told(body: &Value, kept: Option<&str>, numbers: ToldNumbers, payload: Payload) -> Value {
        let content = Content {
            body: body.to_string(),
            caller: number(kept),
            called: TellableNumber::default(),
        };
        let secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let body = content.body_for(&Endpoint {
            name: "crm".parse().unwrap(),
            url: GuardRules::default().url("https://a.example.com/").unwrap(),
            secrets: SigningSecrets::read([secret]).unwrap(),
            kinds: Vec::new(),
            numbers,
            payload,
        });
        serde_json::from_str(&body).unwrap()
    }

    #[test]
    fn numbers_are_as_whole_as_the_endpoint_may_know_and_the_records_do() {
        // What an older version has noted may hold whole numbers.
        let event =
            json!({"type": "call.ended", "data": {"caller": "+972501234567", "called": "+1"}});
        for (kept, numbers, caller) in [
            (Some("+972501234567"), ToldNumbers::Masked, "+9*******4567"),
            (Some("+972501234567"), ToldNumbers::Whole, "+972501234567"),
            (Some("h:0f"), ToldNumbers::Whole, "+9*******4567"),
            (None, ToldNumbers::Whole, "+9*******4567"),
        ] {
            let told = told(&event, kept, numbers, Payload::Full);
            let expected =
                json!({"type": "call.ended", "data": {"caller": caller, "called": null}});
            assert_eq!(told, expected, "{kept:?} {numbers:?}");
        }
    }

    #[test]
    fn a_small_payload_holds_ids_kind_time_and_state() {
        let event = json!({
            "type": "voicemail.received", "timestamp": "2026-12-31T23:58:59.120Z",
            "data": {
                "call_id": "c", "trace_id": "t", "carrier_call_id": "CA1", "state": "ended",
                "caller": "+1",
                "metadata": {"order": 7}, "transcript": [{"text": "hello"}],
                "recording": {"recording_id": "RE1", "url": "https://a.example.com/", "seconds": 7},
            },
        });
        let told = told(&event, Some("+1"), ToldNumbers::Whole, Payload::Small);
        let expected = json!({
            "type": "voicemail.received", "timestamp": "2026-12-31T23:58:59.120Z",
            "data": {
                "call_id": "c", "trace_id": "t", "carrier_call_id": "CA1", "state": "ended",
                "recording": {"recording_id": "RE1"},
            },
        });
        assert_eq!(told, expected);
    }
}
