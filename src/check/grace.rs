//! Whether whoever stops the process waits for as long as draining takes.

use std::time::Duration;

use crate::{check::finding::Finding, config::Config};

/// What draining takes beyond `DRAIN_SECONDS` at most: goodbyes and farewells 15 s, the server and what
/// is told of events and traces 8 s, what is written last to a database that hangs 12 s.
pub const AFTER_DRAIN: Duration = Duration::from_secs(35);

/// Compares the time there is, `grace`, with what draining takes. In production somebody has to know it.
pub fn compare(config: &Config, grace: Option<Duration>) -> Option<Finding> {
    let Some(grace) = grace.or(config.grace) else {
        return config.production.then_some(Finding::GraceUnknown);
    };
    let drain = config.drain;
    Some(if grace < drain + AFTER_DRAIN {
        Finding::GraceShort { grace, drain }
    } else {
        Finding::GraceFits(grace)
    })
}
