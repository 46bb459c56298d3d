//! The smallest relay of a call's messages, and the few hundred lines of WebSocket that it shares
//! with the callers and the agent of the `relay` benchmark.
//!
//! None of callgate's own code is in here: what is measured must not measure itself.

#![expect(
    clippy::must_use_candidate,
    reason = "no outsider calls this, and all of it is worth nothing unused"
)]

pub mod floor;
pub mod frame;
pub mod link;
pub mod message;
pub mod upgrade;
