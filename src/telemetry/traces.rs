//! What becomes of spans, and of the calls that they tell of.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What becomes of spans, and of the calls that they tell of.
#[derive(Debug, Clone, Default)]
pub struct TraceMetrics {
    exported: Counter,
    dropped: Counter,
    cut: Family<CutLabels, Counter>,
}

/// Why the trace of a call has no end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    /// Too many calls were known already.
    Full,
    /// It has had media here, and no end for longer than calls last.
    NoEnd,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CutLabels {
    why: &'static str,
}

impl Cut {
    pub const ALL: [Self; 2] = [Self::Full, Self::NoEnd];

    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoEnd => "no_end",
        }
    }
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
        r.register(
            "traces_cut",
            "Calls whose end was not told to a collector, by why",
            self.cut.clone(),
        );
        for why in Cut::ALL {
            self.cut(why, 0);
        }
    }

    pub fn exported(&self, spans: u64) {
        self.exported.inc_by(spans);
    }

    pub fn dropped(&self, spans: u64) {
        self.dropped.inc_by(spans);
    }

    /// Counts calls whose traces have no end.
    pub fn cut(&self, why: Cut, calls: u64) {
        let labels = CutLabels { why: why.as_str() };
        self.cut.get_or_create(&labels).inc_by(calls);
    }
}
