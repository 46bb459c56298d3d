//! What callers are offered for whom there is no room.

use std::time::Duration;

use crate::{
    campaign::WhenFull,
    config::reader::{Environment, Reader},
};

/// What callers are offered for whom there is no room.
#[derive(Debug)]
pub struct RefusalSettings {
    /// `CALLS_OVER_CAPACITY_BEHAVIOR`: `reject` or `voicemail`. Default `reject`.
    pub when_full: WhenFull,
    /// `VOICEMAIL_MAX_SECONDS`: the longest message that a caller may leave. Default 120.
    pub longest_message: Duration,
}

impl RefusalSettings {
    pub(super) fn load(read: &Reader<impl Environment>) -> Self {
        const BEHAVIOR: &str = "CALLS_OVER_CAPACITY_BEHAVIOR";
        const RULE: &str = "reject or voicemail";
        let when_full = read.parsed(BEHAVIOR, RULE).unwrap_or_default();
        if when_full == WhenFull::Whatsapp {
            read.mistake(BEHAVIOR, read.text(BEHAVIOR), RULE);
        }
        Self {
            when_full,
            longest_message: read.seconds("VOICEMAIL_MAX_SECONDS", 120, 5..=3_600),
        }
    }
}
