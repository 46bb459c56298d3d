//! What tools count.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

use crate::{
    telemetry::slow,
    tool::{ToolKind, ToolOutcome},
};

/// What the use of tools counts.
#[derive(Debug, Clone)]
pub struct ToolMetrics {
    uses: Family<UseLabels, Counter>,
    http_seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UseLabels {
    tool: &'static str,
    outcome: &'static str,
}

impl ToolMetrics {
    pub(super) fn new() -> Self {
        Self {
            uses: Family::default(),
            http_seconds: slow(),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "tool_uses",
            "Tools that agents have used or wanted to, by what came of it",
            self.uses.clone(),
        );
        r.register(
            "http_tool_seconds",
            "How long HTTP tools took",
            self.http_seconds.clone(),
        );
    }

    pub fn used(&self, tool: ToolKind, outcome: ToolOutcome, lasted: Duration) {
        let labels = UseLabels {
            tool: tool.as_str(),
            outcome: outcome.as_str(),
        };
        self.uses.get_or_create(&labels).inc();
        if tool == ToolKind::Http {
            self.http_seconds.observe(lasted.as_secs_f64());
        }
    }
}
