//! The other way for a call to begin: we place it.

pub mod number;
mod pace;
