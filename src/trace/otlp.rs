//! Spans as OTLP has them in JSON.
//!
//! Source: opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding": ids in hexadecimal, 64-bit
//! numbers as texts, enums as numbers.

use serde_json::{Value, json};

use crate::trace::gatherer::Span;

/// `SPAN_KIND_INTERNAL`.
const INTERNAL: u8 = 1;
/// `STATUS_CODE_ERROR`.
const ERROR: u8 = 2;

/// Returns the body of a request that brings `spans` of a replica of this service.
pub fn request(service: &str, replica: &str, spans: &[Span]) -> Value {
    let resource = [
        ("service.name", service.to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", replica.to_owned()),
    ];
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&resource)},
        "scopeSpans": [{
            "scope": {"name": "callgate", "version": env!("CARGO_PKG_VERSION")},
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
}

fn span(span: &Span) -> Value {
    let events = span.moments.iter();
    let events: Vec<_> = events
        .map(|(at, name)| json!({"timeUnixNano": at.to_string(), "name": name}))
        .collect();
    let mut shown = json!({
        "traceId": hex(&span.trace),
        "spanId": hex(&span.id),
        "name": span.name,
        "kind": INTERNAL,
        "startTimeUnixNano": span.began.to_string(),
        "endTimeUnixNano": span.ended.to_string(),
        "attributes": attributes(&span.attributes),
        "events": events,
        "status": if span.failed { json!({"code": ERROR}) } else { json!({}) },
    });
    if let Some(parent) = &span.parent {
        shown["parentSpanId"] = hex(parent).into();
    }
    shown
}

fn attributes(attributes: &[(&str, String)]) -> Vec<Value> {
    let shown = attributes.iter();
    shown
        .map(|(key, value)| json!({"key": key, "value": {"stringValue": value}}))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
