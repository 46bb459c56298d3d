//! What a query says, field by field: each is taken once, and what nobody takes is unknown.

use std::{collections::BTreeMap, ops::RangeInclusive, str::FromStr};

use url::form_urlencoded;

use crate::api::{ApiError, Code};

/// How many fields a query may have.
const MOST_FIELDS: usize = 32;
/// The longest query, in bytes.
const LONGEST_QUERY: usize = 4_096;

/// The fields of a query that nobody has taken yet.
#[derive(Debug)]
pub struct Fields(BTreeMap<String, String>);

/// What the fields of a query can be read into.
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
        let mut rest = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).take(MOST_FIELDS + 1) {
            let name = shown(&name);
            if rest.insert(name.clone(), value.into_owned()).is_some() {
                return Err(ApiError::field(name, "given twice"));
            }
        }
        if rest.len() > MOST_FIELDS {
            let message = format!("the query has more than {MOST_FIELDS} fields");
            return Err(ApiError::new(Code::InvalidRequest, message));
        }
        Ok(Self(rest))
    }

    /// Takes what a text means; `rule` says what it has to be.
    ///
    /// # Errors
    /// If it means nothing.
    pub fn parsed<T: FromStr>(
        &mut self,
        name: &'static str,
        rule: &str,
    ) -> Result<Option<T>, ApiError> {
        let parsed = self.0.remove(name).map(|text| text.parse());
        let parsed = parsed.transpose();
        parsed.map_err(|_| ApiError::field(name, rule))
    }

    /// Takes a whole number within `range`.
    ///
    /// # Errors
    /// If it is none.
    pub fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, ApiError> {
        let rule = format!("a whole number from {} to {}", range.start(), range.end());
        match self.parsed(name, &rule)? {
            Some(number) if !range.contains(&number) => Err(ApiError::field(name, rule)),
            number => Ok(number),
        }
    }

    /// # Errors
    /// If there is a field that nobody has taken.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::field(name, "there is no such field here")),
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
        assert_eq!(
            fields.parsed("state", "a text"),
            Ok(Some("ended".to_owned()))
        );
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
}
