//! What tenants are told of their calls: events, signed and sent to the endpoints of each.
//!
//! Invariant: a secret that signs is shown nowhere.

mod endpoint;
mod schedule;
mod signature;

pub use endpoint::{Endpoint, Endpoints, EventKind, KINDS};
pub use schedule::Schedule;
pub use signature::{NotASecret, SigningSecrets};
