//! Twilio's webhooks.

pub mod signature;
