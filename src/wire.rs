//! What the message formats of carriers and agents share.

use std::{borrow::Cow, ops::Deref};

use serde::Deserialize;

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
