//! What tenants are told of their calls: events, signed and sent to the endpoints of each.
//!
//! Invariant: an event that was committed is delivered, or is listed as dead; nothing is lost.
//! Invariant: a secret that signs is shown nowhere, and a whole number to nobody who is not set to
//! get it.

mod command;
mod delivery;
mod endpoint;
mod outbox;
mod payload;
mod schedule;
mod signature;

#[cfg(test)]
mod tests;

pub use command::{EventsError, EventsOptions, run};
pub use delivery::Deliveries;
pub use endpoint::{Endpoint, Endpoints, EventKind, KINDS, names};
pub use outbox::{Addressees, Cursor, DeadLetter, Outbox, Resent, Standing, is_event};
pub use payload::{Payload, ToldNumbers};
pub use schedule::{Cause, Fate, Outcome, Schedule, pause_asked_for};
pub use signature::{NotASecret, SigningSecrets};
