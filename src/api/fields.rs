//! What a request says, field by field: each is taken once, and what nobody takes is unknown.

use std::{ops::RangeInclusive, str::FromStr};

use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::api::{ApiError, Code};

/// How many fields a query may have.
const MOST_FIELDS: usize = 32;
/// The longest query, in bytes.
const LONGEST_QUERY: usize = 4_096;

/// The fields of a query or of a JSON object that nobody has taken yet.
#[derive(Debug)]
pub struct Fields {
    rest: Map<String, Value>,
    /// In a query numbers are texts.
    is_query: bool,
}

/// What the fields of a request can be read into.
pub trait FromFields: Sized {
    /// # Errors
    /// If a field is missing or wrong.
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError>;
}

impl Fields {
    /// # Errors
    /// If the query is too long, or has a field twice.
    pub fn of_query(query: &str) -> Result<Self, ApiError> {
        if query.len() > LONGEST_QUERY {
            let message = format!("the query is longer than {LONGEST_QUERY} bytes");
            return Err(ApiError::new(Code::InvalidRequest, message));
        }
        let mut rest = Map::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).take(MOST_FIELDS + 1) {
            let name = shown(&name);
            if rest.insert(name.clone(), value.into()).is_some() {
                return Err(ApiError::field(name, "given twice"));
            }
        }
        if rest.len() > MOST_FIELDS {
            let message = format!("the query has more than {MOST_FIELDS} fields");
            return Err(ApiError::new(Code::InvalidRequest, message));
        }
        Ok(Self {
            rest,
            is_query: true,
        })
    }

    /// # Errors
    /// If the body is not one JSON object.
    pub fn of_body(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(rest)) => Ok(Self {
                rest,
                is_query: false,
            }),
            Ok(_) => {
                let message = "the body is JSON, but not an object";
                Err(ApiError::new(Code::InvalidRequest, message))
            }
            // Where it broke off is of use; what stood there is theirs.
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let message = format!("the body is not JSON: line {line}, column {column}");
                Err(ApiError::new(Code::InvalidRequest, message))
            }
        }
    }

    /// Takes all that there is, for whoever reads it elsewhere.
    pub fn all(&mut self) -> Value {
        Value::Object(std::mem::take(&mut self.rest))
    }

    /// Takes a field as it is; `null` counts as not given.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.rest.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a text of at most `longest` characters, none of which is a control character.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text(&mut self, name: &str, longest: usize) -> Result<Option<String>, ApiError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        match value {
            Value::String(text)
                if text.chars().count() <= longest && !text.chars().any(char::is_control) =>
            {
                Ok(Some(text))
            }
            Value::String(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => {
                let rule = format!("a text of at most {longest} plain characters");
                Err(ApiError::field(name, rule))
            }
        }
    }

    /// Takes what a short text means; `rule` says what it has to be.
    ///
    /// # Errors
    /// If it means nothing.
    pub fn parsed<T: FromStr>(&mut self, name: &str, rule: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let parsed = value.as_str().and_then(|text| text.parse().ok());
        parsed.map(Some).ok_or_else(|| ApiError::field(name, rule))
    }

    /// Takes a whole number within `range`.
    ///
    /// # Errors
    /// If it is none.
    pub fn number(
        &mut self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let number = if self.is_query {
            value.as_str().and_then(|text| text.parse().ok())
        } else {
            value.as_u64().and_then(|number| number.try_into().ok())
        };
        let number = number.filter(|number| range.contains(number));
        number.map(Some).ok_or_else(|| {
            let rule = format!("a whole number from {} to {}", range.start(), range.end());
            ApiError::field(name, rule)
        })
    }

    /// # Errors
    /// If there is a field that nobody has taken.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::field(shown(name), "there is no such field here")),
        }
    }
}

/// Returns a name of theirs as it may be said back.
fn shown(name: &str) -> String {
    name.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(read: Result<impl std::fmt::Debug, ApiError>) -> String {
        read.unwrap_err().to_string()
    }

    #[test]
    fn a_query_is_read_field_by_field() {
        let mut fields = Fields::of_query("limit=50&state=ended&x=%D7%A9").unwrap();
        assert_eq!(fields.number("limit", 1..=200), Ok(Some(50)));
        assert_eq!(fields.number("limit", 1..=200), Ok(None));
        assert_eq!(fields.text("state", 5), Ok(Some("ended".to_owned())));
        assert_eq!(
            fault(fields.finish()),
            "invalid_request: x: there is no such field here"
        );
        for (query, expected) in [
            ("limit=0", "limit: a whole number from 1 to 200"),
            ("limit=", "limit: a whole number from 1 to 200"),
            ("limit=-1", "limit: a whole number from 1 to 200"),
            ("limit=99999999999", "limit: a whole number from 1 to 200"),
            ("limit=1&limit=2", "limit: given twice"),
        ] {
            let read = Fields::of_query(query).and_then(|mut it| it.number("limit", 1..=200));
            assert_eq!(
                fault(read),
                format!("invalid_request: {expected}"),
                "{query}"
            );
        }
        let many: Vec<String> = (0..40).map(|number| format!("a{number}=1")).collect();
        assert!(
            Fields::of_query(&many.join("&")).is_err()
                && Fields::of_query(&"a".repeat(5_000)).is_err()
        );
    }

    #[test]
    fn a_body_names_the_field_that_is_at_fault() {
        let read = |body: &str| -> Result<Option<String>, ApiError> {
            let mut fields = Fields::of_body(body.as_bytes())?;
            let to = fields.text("to", 16)?;
            fields.number("speed", 1..=3)?;
            fields.finish()?;
            Ok(to)
        };
        assert_eq!(
            read("{\"to\": \"+1\", \"speed\": null}"),
            Ok(Some("+1".to_owned()))
        );
        for (body, expected) in [
            ("", "the body is not JSON: line 1, column 0"),
            ("{", "the body is not JSON: line 1, column 1"),
            ("[]", "the body is JSON, but not an object"),
            ("{\"to\": 7}", "to: a text of at most 16 plain characters"),
            (
                "{\"to\": \"a\\u0000\"}",
                "to: a text of at most 16 plain characters",
            ),
            ("{\"too\": 7}", "too: there is no such field here"),
            ("{\"speed\": \"1\"}", "speed: a whole number from 1 to 3"),
        ] {
            assert_eq!(
                fault(read(body)),
                format!("invalid_request: {expected}"),
                "{body}"
            );
        }
        let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
        assert!(read(&deep).is_err());
    }
}
