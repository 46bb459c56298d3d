//! What callgate is measured with: the smallest relay of a call's messages (`floor`), a carrier, and
//! whole clusters of real processes.
//!
//! None of callgate's own code is in here: what is measured must not measure itself.

#![expect(
    clippy::must_use_candidate,
    reason = "no outsider calls this, and all of it is worth nothing unused"
)]

pub mod acs;
pub mod carrier;
pub mod cluster;
pub mod floor;
pub mod frame;
pub mod http;
pub mod link;
pub mod machine;
pub mod message;
pub mod twilio;
pub mod upgrade;
