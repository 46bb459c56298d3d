//! What ACS says is wrong, and what of it may be shown.

use serde::Deserialize;
use serde_json::Value;

/// How much of a message is kept, in characters.
const LONGEST_MESSAGE: usize = 200;
/// A longer word is a ticket or a token rather than a word.
const LONGEST_WORD: usize = 40;
/// So many digits in a row may be a phone number.
const MOST_DIGITS: usize = 6;

/// What ACS says of a request that it did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("status {status}, code {subcode:?}: {message}")]
pub struct Problem {
    pub status: u16,
    /// ACS's own number for it.
    pub subcode: Option<u32>,
    /// Without what nobody may see; see [`tamed`].
    pub message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Said,
}

/// Each of any type: what answers for an unknown version or path is another service.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    code: Value,
    message: Value,
}

impl Problem {
    /// Reads an answer's body, which may be anything.
    pub fn read(status: u16, body: &[u8]) -> Self {
        let Body { error } = serde_json::from_slice(body).unwrap_or_default();
        let subcode = match &error.code {
            Value::String(code) => code.trim().parse().ok(),
            Value::Number(code) => code.as_u64().and_then(|code| u32::try_from(code).ok()),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        Self {
            status,
            subcode,
            message: tamed(error.message.as_str().unwrap_or_default()),
        }
    }

    /// Tells whether something is being played to the call already.
    pub fn is_taken(&self) -> bool {
        matches!(self.subcode, Some(8500 | 8583))
    }

    /// Tells whether there is no call any more to be acted on.
    pub fn is_gone(&self) -> bool {
        let not_found = self.status == 404 && self.subcode == Some(8522);
        // Not 8501, "not established yet": such a call is about to be there.
        not_found || matches!(self.subcode, Some(8528 | 8585))
    }
}

/// Returns a message from outside as it may be logged: short, in one line, without addresses,
/// tickets and numbers. ACS repeats in its messages what it was sent.
pub fn tamed(message: &str) -> String {
    let mut tame = String::new();
    for word in message.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        let word = if is_private(word) { "…" } else { word };
        if tame.chars().count() + 1 + word.chars().count() > LONGEST_MESSAGE {
            break;
        }
        if !tame.is_empty() {
            tame.push(' ');
        }
        tame.push_str(word);
    }
    tame
}

fn is_private(word: &str) -> bool {
    let longest_run = word
        .split(|c: char| !c.is_ascii_digit())
        .map(str::len)
        .max()
        .unwrap_or_default();
    word.contains("://") || word.chars().count() > LONGEST_WORD || longest_run > MOST_DIGITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_problem_whatever_it_says() {
        for (body, subcode, message) in [
            (
                r#"{"error":{"code":"7509","message":"HMAC-SHA256 validation failed","target":null}}"#,
                Some(7509),
                "HMAC-SHA256 validation failed",
            ),
            (
                r#"{"error":{"code":8523,"message":"a\nb"}}"#,
                Some(8523),
                "a b",
            ),
            (r#"{"error":{"code":"BadRequest","message":7}}"#, None, ""),
            (r#"{"error":"no"}"#, None, ""),
            (r#"{"Message":"No HTTP resource was found"}"#, None, ""),
            ("<html>502</html>", None, ""),
            ("", None, ""),
        ] {
            let problem = Problem::read(400, body.as_bytes());
            assert_eq!(
                (problem.subcode, &*problem.message),
                (subcode, message),
                "{body}"
            );
        }
    }

    #[test]
    fn a_message_names_no_ticket_no_address_and_no_number() {
        let ticket = "eyJhbGciOiJSUzI1NiJ9.".repeat(4);
        let message = format!(
            "The field CallbackUri=https://gw/acs/callbacks/1?k=2 of {ticket} to 4:+14255550123 is bad."
        );
        assert_eq!(tamed(&message), "The field … of … to … is bad.");
        assert_eq!(tamed(&"word ".repeat(1_000)).chars().count(), 199);
    }
}
