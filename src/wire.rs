//! What JSON texts have in common, whoever they are for.

use std::{borrow::Cow, collections::BTreeMap, ops::Deref};

use serde::Deserialize;
use serde_json::Value;

/// A JSON string that is a part of its message wherever it can be. Plain `Option<Cow<str>>`
/// would be copied: serde borrows a `Cow` only where it is a field by itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Str<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Deref for Str<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Returns a value with all names in the order of their letters. A map of `serde_json` has them so, or
/// as they were put in where any crate of the build wants that, as the browser tests' driver does.
pub fn in_order(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().collect();
            let fields = fields.into_iter();
            let fields = fields.map(|(name, value)| (name.clone(), in_order(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(in_order).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
