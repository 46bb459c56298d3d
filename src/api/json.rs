//! JSON in which no name is given twice: what one reader takes from such a body is not what another
//! does, and RFC 8259, 4, leaves it open.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Reads a body of JSON.
///
/// # Errors
/// If it is none, or a name is given twice in one object; the latter counts as an error of its data.
pub fn read(body: &[u8]) -> Result<Value, serde_json::Error> {
    let Unambiguous(value) = serde_json::from_slice(body)?;
    Ok(value)
}

struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            read.push(item);
        }
        Ok(Value::Array(read))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        while let Some((name, Unambiguous(value))) = fields.next_entry::<String, _>()? {
            if read.insert(name, value).is_some() {
                return Err(A::Error::custom("a name is given twice"));
            }
        }
        Ok(Value::Object(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_others_read_unless_a_name_is_given_twice() {
        for text in [
            "null",
            "true",
            "-7",
            "7",
            "0.5",
            r#""text""#,
            r#"[1,[{}],{"a":{"b":[null]}}]"#,
            r#"{"a":{"b":1},"c":{"b":2}}"#,
        ] {
            let others: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text.as_bytes()).unwrap(), others, "{text}");
        }
        for text in [
            r#"{"to":"+1","to":"+2"}"#,
            r#"{"metadata":{"a":1,"\u0061":2}}"#,
            r#"[{"a":1,"a":1}]"#,
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.is_data(), "{text}: {error}");
        }
        for text in ["", "{", "{'a':1}", "[1] 2"] {
            assert!(!read(text.as_bytes()).unwrap_err().is_data(), "{text}");
        }
    }
}
