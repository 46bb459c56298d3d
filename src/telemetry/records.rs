//! Figures of what is written down.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

use crate::record::Standing;

/// How the writing of records stands; set before metrics are read.
#[derive(Debug, Clone, Default)]
pub struct RecordMetrics {
    waiting: Gauge,
    failing: Gauge,
    dropped: Counter,
    refused: Counter,
}

impl RecordMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "records_waiting",
            "Facts that wait to be written",
            self.waiting.clone(),
        );
        registry.register(
            "records_failing",
            "Whether the database takes nothing",
            self.failing.clone(),
        );
        registry.register(
            "records_dropped",
            "Facts lost because too many waited",
            self.dropped.clone(),
        );
        registry.register(
            "records_refused",
            "Facts that the database does not take",
            self.refused.clone(),
        );
    }

    pub fn stands(&self, standing: &Standing) {
        self.waiting
            .set(i64::try_from(standing.waiting).unwrap_or(i64::MAX));
        self.failing.set(i64::from(standing.failing.is_some()));
        let grown = |counter: &Counter, now: u64| counter.inc_by(now.saturating_sub(counter.get()));
        grown(&self.dropped, standing.dropped);
        grown(&self.refused, standing.refused);
    }
}
