//! What Azure Communication Services and Event Grid send, and the proof that it was they.

pub mod callback;
pub mod event;
mod identifier;
mod json;
pub mod token;
