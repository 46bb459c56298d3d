//! A collector of traces, and what it gets of calls.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    carrier::CALLER,
    gateway::{Replicas, TestGateway, eventually},
    loopback::{Loopback, Reply},
};

/// Returns every span that a collector was sent.
fn spans(collector: &Loopback) -> Vec<Value> {
    let requests = collector.requests();
    let mut spans = Vec::new();
    for request in &requests {
        assert_eq!(request.line, "POST /v1/traces");
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert!(!request.body.contains(&CALLER[1..]), "no number is told");
        let body: Value = serde_json::from_str(&request.body).unwrap();
        for resource in body["resourceSpans"].as_array().unwrap() {
            let service = &resource["resource"]["attributes"][0];
            assert_eq!(service["value"]["stringValue"], "callgate-test");
            for scope in resource["scopeSpans"].as_array().unwrap() {
                spans.extend(scope["spans"].as_array().unwrap().iter().cloned());
            }
        }
    }
    spans
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a str> {
    let attributes = span["attributes"].as_array()?;
    let found = attributes
        .iter()
        .find(|attribute| attribute["key"] == key)?;
    found["value"]["stringValue"].as_str()
}

async fn collector() -> Loopback {
    Loopback::start(|_, _| Reply::Answer(200, "{}".to_owned())).await
}

#[tokio::test]
async fn a_call_over_two_replicas_is_one_trace() {
    let collector = collector().await;
    let url = collector.url("");
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc"),
        ("OTEL_SERVICE_NAME", "callgate-test"),
    ];
    let replicas = Replicas::start(2, &settings).await;
    let ringing = replicas[0].ring().await;
    let call = ringing.on(&replicas[1]).connected().await;
    call.agent_speaks().await;
    call.hang_up().await;
    let ids = async || replicas[0].database.ask("SELECT call FROM calls").await;
    eventually(async || ids().await.len() == 1).await;
    let id = ids().await.remove(0);
    replicas.finish().await;
    // Nothing is waited for: what was left was sent before the gateways ended.
    let spans = spans(&collector);
    let names: BTreeSet<_> = spans
        .iter()
        .filter_map(|span| span["name"].as_str())
        .collect();
    for name in [
        "webhook",
        "admission",
        "agent connect",
        "session",
        "call",
        "release",
    ] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    let roots: Vec<_> = spans.iter().filter(|it| it["name"] == "call").collect();
    assert_eq!(roots.len(), 1, "one replica tells of the call itself");
    assert_eq!(roots[0].get("parentSpanId"), None);
    for (key, value) in [
        ("call.id", id.as_str()),
        ("carrier", "twilio"),
        ("campaign.id", "default"),
        ("call.end_reason", "caller_hung_up"),
    ] {
        assert_eq!(attribute(roots[0], key), Some(value));
    }
    for span in &spans {
        assert_eq!(span["traceId"], id.replace('-', ""));
        let hangs_on_it = span.get("parentSpanId") == Some(&roots[0]["spanId"]);
        assert!(hangs_on_it || span["name"] == "call", "{span}");
    }
    let session = spans.iter().find(|it| it["name"] == "session").unwrap();
    let moments = session["events"].as_array().unwrap();
    assert!(moments.iter().any(|moment| moment["name"] == "first_words"));
    let requests = collector.requests();
    assert!(requests.iter().all(|it| it.header("x-key") == Some("abc")));
}

#[tokio::test]
async fn a_collector_that_is_away_or_refuses_costs_spans_and_no_calls() {
    let refusing = Loopback::start(|n, _| match n {
        0 => Reply::Close,
        _ => Reply::Answer(503, String::new()),
    });
    let refusing = refusing.await;
    let url = refusing.url("/otlp");
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str())];
    let gateway = TestGateway::with(&settings).await;
    for _ in 0..2 {
        let call = gateway.ring().await.connected().await;
        call.converses().await;
        call.hang_up().await;
        let lost = gateway.figure("spans_dropped_total").await;
        eventually(async || gateway.figure("spans_dropped_total").await > lost).await;
    }
    assert_eq!(gateway.figure("spans_exported_total").await, 0);
    assert_eq!(refusing.requests()[0].line, "POST /otlp/v1/traces");
    gateway.finish().await;
}

#[tokio::test]
async fn calls_that_are_not_drawn_leave_no_trace() {
    let collector = collector().await;
    let url = collector.url("");
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
    ];
    let gateway = TestGateway::with(&settings).await;
    gateway.ring().await.connected().await.hang_up().await;
    gateway.finish().await;
    assert_eq!(collector.requests().len(), 0);
}
