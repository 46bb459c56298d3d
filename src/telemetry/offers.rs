//! What becomes of what refused callers are offered.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

/// What becomes of what refused callers are offered.
#[derive(Debug, Clone, Default)]
pub struct OfferMetrics {
    voicemails: Counter,
}

impl OfferMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "voicemails_received",
            "Messages that refused callers have left",
            self.voicemails.clone(),
        );
    }

    pub fn voicemail_received(&self) {
        self.voicemails.inc();
    }
}
