//! The agent that talks with the caller.

pub mod parrot;
