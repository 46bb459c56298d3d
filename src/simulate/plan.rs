//! What a call is going to be.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{script::Script, voice::Voices};

/// What one caller is going to do.
#[derive(Clone)]
pub struct CallPlan {
    pub from: String,
    pub to: String,
    pub script: Script,
    pub talk_for: Duration,
    pub echo: bool,
    /// Keys the caller presses while it talks.
    pub keys: String,
    /// The folder that a recording goes to.
    pub record: Option<PathBuf>,
    /// The number's fallback document, for when the gateway fails.
    pub fallback: Option<Arc<str>>,
    pub voices: Arc<Voices>,
    /// What the caller's choices are drawn from.
    pub seed: u64,
}
