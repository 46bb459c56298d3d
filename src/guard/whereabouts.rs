//! Where requests to a URL would go, for whoever asks before one is sent.

use std::time::Duration;

use ::url::Host;
use tokio::{task::spawn_blocking, time::timeout};

use crate::guard::{GuardRules, GuardedUrl, system_look_up};

/// How long a name may be looked up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where requests to a URL would go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whereabouts {
    /// To an address that they may go to.
    Fit,
    /// The proxy would find an address.
    Proxied,
    /// Nowhere: no address of its name is public.
    Blocked,
    /// Nowhere: its name has no address, or none that was found in time.
    Unknown,
}

impl GuardRules {
    /// Looks up where requests to a URL would go at this moment; none is sent.
    pub async fn look_up(&self, url: &GuardedUrl) -> Whereabouts {
        if self.proxy.is_some() {
            return Whereabouts::Proxied;
        }
        let Some(Host::Domain(name)) = url.reveal().host() else {
            return Whereabouts::Fit; // An address was looked at when the URL was read.
        };
        let asked = name.to_owned();
        let looked = spawn_blocking(move || system_look_up(&asked));
        let Ok(Ok(Ok(found))) = timeout(PATIENCE, looked).await else {
            return Whereabouts::Unknown;
        };
        let mut found = found.into_iter().peekable();
        if found.peek().is_none() {
            Whereabouts::Unknown
        } else if found.any(|address| self.lets_pass(name, address)) {
            Whereabouts::Fit
        } else {
            Whereabouts::Blocked
        }
    }
}
