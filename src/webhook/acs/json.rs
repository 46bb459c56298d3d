//! Bodies of events, read piece by piece: one that makes no sense spoils no other.

use serde_json::Value;

/// The longest body that is read, as Event Grid's longest batch.
pub const LONGEST_BODY: usize = 1 << 20;
/// The most events of a batch.
pub const MOST_EVENTS: usize = 5_000;

/// Why a body holds no events at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("the body is longer than {LONGEST_BODY} bytes")]
    TooLong,
    #[error("the body has more than {MOST_EVENTS} events")]
    TooMany,
    #[error("the body is no JSON")]
    NoJson,
    #[error("the body is neither an object nor an array")]
    NoEvents,
}

/// Returns the events of a body: what is in its array, or itself.
pub fn events(body: &[u8]) -> Result<Vec<Value>, BodyError> {
    if body.len() > LONGEST_BODY {
        return Err(BodyError::TooLong);
    }
    match serde_json::from_slice(body).map_err(|_| BodyError::NoJson)? {
        Value::Array(events) if events.len() > MOST_EVENTS => Err(BodyError::TooMany),
        Value::Array(events) => Ok(events),
        event @ Value::Object(_) => Ok(vec![event]),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(BodyError::NoEvents)
        }
    }
}

/// Returns a text that has 1 to `longest` bytes.
pub fn text<'a>(object: &'a Value, name: &str, longest: usize) -> Option<&'a str> {
    let text = object.get(name)?.as_str()?;
    (1..=longest).contains(&text.len()).then_some(text)
}
