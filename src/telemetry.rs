//! Logs and metrics.

mod calls;
mod capacity;
mod events;
mod metrics;
mod offers;
mod panics;
mod process;
mod records;
mod tools;
mod traces;

#[cfg(test)]
mod tests;

use std::io::IsTerminal;

use prometheus_client::metrics::histogram::Histogram;

use crate::{
    call::{CallId, CarrierCallId},
    config::LogFormat,
};

pub use calls::{AgentMetrics, CallMetrics, Counted, Direction};
pub use capacity::{CapacityMetrics, Condition, StoreOperation};
pub use events::EventMetrics;
pub use metrics::{Metrics, Tally};
pub use offers::OfferMetrics;
pub use process::ProcessMetrics;
pub use records::RecordMetrics;
pub use tools::ToolMetrics;
pub use traces::{Cut, TraceMetrics};

/// Sends logs to standard error, filtered as `RUST_LOG` says, panics among them.
pub fn log_to_stderr(filter: Option<&str>, format: LogFormat) {
    // These would write down keys and conversations, however much is asked for.
    const NEVER: &str = "tungstenite=info,tokio_tungstenite=info,hyper_util=info";
    // Panics, which Rust would print whatever is asked for, and the spans of their calls.
    const ALWAYS: &str = "callgate::telemetry=error";
    let asked = filter.unwrap_or("info,actix_server=warn");
    let filter = tracing_subscriber::EnvFilter::new(format!("{asked},{NEVER},{ALWAYS}"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // That a line cannot be written would be told where nothing can be written, by a panic.
        .log_internal_errors(false);
    // Fails only where a subscriber is set already, as by a test.
    let _ = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().try_init(),
    };
    panics::log();
}

/// Returns the span that everything of a call is logged in, however little is: it has the level of
/// errors.
pub fn call_span(call: CallId, name: &CarrierCallId) -> tracing::Span {
    tracing::error_span!(
        "call",
        call.id = %call,
        carrier_call.id = %name,
        carrier = name.carrier().as_str(),
        campaign.id = tracing::field::Empty,
        trace_id = call.trace_id(),
    )
}

/// Returns a histogram for what a caller waits for, in seconds.
fn slow() -> Histogram {
    Histogram::new([0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0])
}

/// Returns a histogram for what nobody should notice, in seconds.
fn instant() -> Histogram {
    Histogram::new([
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.5,
    ])
}
