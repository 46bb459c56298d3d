//! Who may call from a browser.

use crate::config::reader::{Environment, Reader};

/// Who may call from a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSettings {
    /// `WEB_CALLS`: whether browsers may call at all. Default on; off in production, where each
    /// call takes a token beside it.
    pub open: bool,
    /// Whether a call takes a token that an operator has made.
    pub needs_token: bool,
    /// `WEB_CALLS_PER_ADDRESS`: browser calls from one address at once. Default 4.
    pub per_address: usize,
}

impl WebSettings {
    pub(super) fn load(read: &Reader<impl Environment>, production: bool) -> Self {
        let open = read.switch("WEB_CALLS");
        let per_address = read.number("WEB_CALLS_PER_ADDRESS", 4, 1..=10_000);
        Self {
            open: if read.text("WEB_CALLS").is_some() {
                open
            } else {
                !production
            },
            needs_token: production,
            per_address: usize::try_from(per_address).expect("at most 10000"),
        }
    }
}
