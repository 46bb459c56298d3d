//! Why ACS did not do what it was asked for.

use std::time::Duration;

use crate::{
    carrier::{Fate, acs::Problem},
    entra::EntraError,
};

#[derive(Debug, thiserror::Error)]
pub enum AcsError {
    #[error("ACS cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("ACS did not answer in time")]
    TooSlow,
    #[error("ACS's answer broke off")]
    BrokenOff(#[source] reqwest::Error),
    #[error("ACS's answer of status {status} makes no sense")]
    Garbled { status: u16 },
    #[error("ACS takes no more requests for a while")]
    Throttled(#[source] Problem),
    #[error("ACS does not know the credentials, or does not let them")]
    Unauthorized(#[source] Problem),
    #[error("ACS refused")]
    Refused(#[source] Problem),
    #[error("ACS failed")]
    Failed(#[source] Problem),
    #[error("there is no token to prove the request by")]
    NoToken(#[source] EntraError),
}

impl AcsError {
    /// Sorts what ACS said of a request that it did not do.
    pub(super) fn from(problem: Problem) -> Self {
        match problem.status {
            401 | 403 => Self::Unauthorized(problem),
            429 => Self::Throttled(problem),
            500.. => Self::Failed(problem),
            _ => Self::Refused(problem),
        }
    }

    /// Returns the name that metrics have for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::TooSlow => "too_slow",
            Self::BrokenOff(_) => "broken_off",
            Self::Garbled { .. } => "garbled",
            Self::Throttled(_) => "throttled",
            Self::Unauthorized(_) => "unauthorized",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
            Self::NoToken(_) => "no_token",
        }
    }

    /// Returns what ACS said, where it said anything.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Throttled(problem)
            | Self::Unauthorized(problem)
            | Self::Refused(problem)
            | Self::Failed(problem) => Some(problem),
            Self::Unreachable(_)
            | Self::TooSlow
            | Self::BrokenOff(_)
            | Self::Garbled { .. }
            | Self::NoToken(_) => None,
        }
    }

    /// Tells what has become of a request that was made a single time, and when it may be made
    /// again as another one.
    pub(super) fn fate(&self, retry_after: Option<Duration>) -> Fate {
        match self {
            Self::Unreachable(_) | Self::Throttled(_) => Fate::NotDone { wait: retry_after },
            Self::NoToken(_) if self.may_repeat(false) => Fate::NotDone { wait: None },
            Self::NoToken(_) | Self::Unauthorized(_) => Fate::Refused,
            // A request of the same id may be under way, or ACS may not know any more whether.
            Self::Refused(problem) if matches!(problem.status, 408 | 409 | 412) => Fate::Unknown,
            Self::Refused(_) => Fate::Refused,
            Self::Failed(_) | Self::TooSlow | Self::BrokenOff(_) | Self::Garbled { .. } => {
                Fate::Unknown
            }
        }
    }

    /// Tells whether the same request may be made again. What ACS may have done already is asked
    /// for again only where it knows `repeatable` requests by their id.
    pub(super) fn may_repeat(&self, repeatable: bool) -> bool {
        match self {
            Self::Unreachable(_) | Self::Throttled(_) => true,
            Self::NoToken(EntraError::Refused { status, .. }) => {
                matches!(status, 429 | 500..=504)
            }
            Self::NoToken(EntraError::Unreachable(_) | EntraError::Garbled) => true,
            Self::Refused(problem) => problem.status == 408,
            Self::Failed(problem) if problem.status == 503 => true,
            Self::Failed(problem) => repeatable && problem.status <= 504,
            Self::TooSlow | Self::BrokenOff(_) => repeatable,
            Self::Garbled { .. } | Self::Unauthorized(_) => false,
        }
    }
}
