//! What becomes of what refused callers are offered.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What becomes of what refused callers are offered.
#[derive(Debug, Clone, Default)]
pub struct OfferMetrics {
    voicemails: Counter,
    whatsapp: Family<ResultLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

impl OfferMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "voicemails_received",
            "Messages that refused callers have left",
            self.voicemails.clone(),
        );
        r.register(
            "whatsapp_messages",
            "WhatsApp messages to refused callers, by what became of them",
            self.whatsapp.clone(),
        );
    }

    pub fn voicemail_received(&self) {
        self.voicemails.inc();
    }

    pub fn whatsapp(&self, result: &'static str) {
        self.whatsapp.get_or_create(&ResultLabels { result }).inc();
    }
}
