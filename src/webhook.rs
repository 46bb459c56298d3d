//! 1. A call rings: what carriers send, and the proof that it was they who sent it.

pub mod twilio;
