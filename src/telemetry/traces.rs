//! What becomes of spans.

use prometheus_client::{metrics::counter::Counter, registry::Registry};

/// What becomes of spans.
#[derive(Debug, Clone, Default)]
pub struct TraceMetrics {
    exported: Counter,
    dropped: Counter,
}

impl TraceMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "spans_exported",
            "Spans that a collector has taken",
            self.exported.clone(),
        );
        r.register(
            "spans_dropped",
            "Spans lost because the collector took none, or too much waited for it",
            self.dropped.clone(),
        );
    }

    pub fn exported(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    pub fn dropped(&self, spans: u64) {
        self.dropped.inc_by(spans);
    }
}
