//! A collector of traces, and what it gets of calls.

use std::{cmp::Reverse, collections::BTreeSet};

use callgate::fake_acs::{Deed, FakeAcsOptions};
use serde_json::Value;

use crate::{
    acs::AcsHouse,
    audio::FRAME,
    carrier::{CALLER, call_sid},
    gateway::{Replicas, TestGateway, eventually},
    line::stop,
    loopback::{Loopback, Reply},
    process::{Program, until},
    web_calls,
};

/// Returns what makes a gateway tell a collector.
pub fn told(url: &str) -> [(&str, &str); 3] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=abc"),
        ("OTEL_SERVICE_NAME", "callgate-test"),
    ]
}

/// Returns every span that a collector was sent.
pub fn spans(collector: &Loopback) -> Vec<Value> {
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

pub async fn collector() -> Loopback {
    Loopback::start(|_, _| Reply::Answer(200, "{}".to_owned())).await
}

/// Asserts that spans are of one call, and hang on its only root.
pub fn assert_one_trace(spans: &[Value], call: &str) {
    let roots: Vec<_> = spans.iter().filter(|it| it["name"] == "call").collect();
    assert_eq!(roots.len(), 1, "{spans:?}");
    for span in spans {
        assert_eq!(span["traceId"], call.replace('-', ""), "{span}");
        let hangs_on_it = span.get("parentSpanId") == Some(&roots[0]["spanId"]);
        assert!(hangs_on_it || span["name"] == "call", "{span}");
    }
}

/// Returns the names of spans in the order in which they begin; of those that begin together the
/// root is first, and then the one that lasts longer.
pub fn story(spans: &[Value]) -> Vec<&str> {
    let nanos = |span: &Value, key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    let mut spans: Vec<_> = spans.iter().collect();
    spans.sort_by_key(|span| {
        let ends = nanos(span, "endTimeUnixNano");
        let is_part = span.get("parentSpanId").is_some();
        (nanos(span, "startTimeUnixNano"), is_part, Reverse(ends))
    });
    spans
        .iter()
        .map(|span| span["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_call_over_two_replicas_is_one_trace() {
    let collector = collector().await;
    let replicas = Replicas::start(2, &told(&collector.url(""))).await;
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
    assert_one_trace(&spans, &id);
    let session = spans.iter().find(|it| it["name"] == "session").unwrap();
    let moments = session["events"].as_array().unwrap();
    assert!(moments.iter().any(|moment| moment["name"] == "first_words"));
    let requests = collector.requests();
    assert!(requests.iter().all(|it| it.header("x-key") == Some("abc")));
}

#[tokio::test]
async fn a_call_by_acs_begins_with_its_event() {
    let collector = collector().await;
    let options = FakeAcsOptions::on_a_free_port();
    let house = AcsHouse::with(options, &told(&collector.url(""))).await;
    let call = house.connected().await;
    call.line.close();
    house.ended(&call.call).await;
    house.until(&call.call, |deed| *deed == Deed::HungUp).await;
    drop(call);
    let calls = "SELECT call FROM calls";
    let database = &house.gateway.database;
    eventually(async || !database.ask(calls).await.is_empty()).await;
    let id = house.gateway.database.ask(calls).await.remove(0);
    house.finish().await;
    let spans = spans(&collector);
    assert_one_trace(&spans, &id);
    assert_eq!(story(&spans)[..3], ["call", "event", "admission"]);
}

#[tokio::test]
async fn a_browsers_call_begins_with_its_upgrade_also_where_there_is_no_room() {
    let collector = collector().await;
    let url = collector.url("");
    let settings = [&told(&url)[..], &[("MAX_ACTIVE_CALLS", "1")]].concat();
    let gateway = web_calls::start(&settings).await;
    let line = web_calls::call(&gateway).await;
    line.told(|told| told["State"] == "connected").await;
    let refused = web_calls::call(&gateway).await;
    refused.told(|told| told["State"] == "busy").await;
    refused.closed().await;
    line.close();
    gateway.until_active(0).await;
    let calls = "SELECT call FROM calls";
    let ids = async || gateway.database.ask(calls).await;
    eventually(async || ids().await.len() == 2).await;
    let ids = ids().await;
    gateway.finish().await;
    let spans = spans(&collector);
    for id in &ids {
        let trace = id.replace('-', "");
        let own = spans.iter().filter(|span| span["traceId"] == trace);
        let own: Vec<_> = own.cloned().collect();
        assert_one_trace(&own, id);
        assert_eq!(story(&own)[..3], ["call", "upgrade", "admission"]);
    }
}

#[tokio::test]
async fn logs_spans_events_and_the_page_of_a_call_have_one_id() {
    let (collector, receiver) = (collector().await, collector().await);
    let (url, events) = (collector.url(""), receiver.url("/events"));
    let settings = [
        &told(&url)[..],
        &[
            ("LOG_FORMAT", "json"),
            ("OPS_TOKEN", "a-token-of-operators"),
            ("EVENTS_URL", &events),
            (
                "EVENTS_SECRET",
                "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
            ),
            ("GUARD_ALLOW", "127.0.0.0/8"),
        ],
    ];
    let mut program = Program::start(&settings.concat()).await;
    let sid = call_sid();
    let line = program.call(&sid).await;
    line.until_played(FRAME).await;
    line.send(stop(&sid));
    line.closed().await;
    let event = async || {
        let events = receiver.requests();
        let events = events.iter().map(|event| serde_json::from_str(&event.body));
        let mut events = events.map(Result::<Value, _>::unwrap);
        events.find(|event| event["type"] == "call.ended")
    };
    eventually(async || event().await.is_some()).await;
    let data = event().await.unwrap()["data"].clone();
    let (call, trace) = (data["call_id"].as_str(), data["trace_id"].as_str());
    let (call, trace) = (call.unwrap(), trace.unwrap());
    assert_eq!(trace, call.replace('-', ""));
    let page = program.carrier.get(&format!("/calls/{call}"));
    let page = page
        .bearer_auth("a-token-of-operators")
        .send()
        .await
        .unwrap();
    assert!(
        page.text()
            .await
            .unwrap()
            .contains(&format!("trace {trace}<"))
    );
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0));
    until(&program.log, "stopped").await;
    assert_one_trace(&spans(&collector), call);
    let log = program.log();
    let about_it = log.lines().filter(|line| line.contains(&sid));
    let about_it: Vec<Value> = about_it
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    for milestone in [
        "] ACQUIRED ",
        "] RELEASED ",
        "call ended",
        "Connection registered",
    ] {
        let says = |line: &&Value| line["fields"]["message"].to_string().contains(milestone);
        assert!(about_it.iter().any(|line| says(&line)), "{milestone}");
    }
    for line in about_it {
        assert_eq!(line["span"]["trace_id"], trace, "{line}");
    }
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
        let lost = gateway.figure("spans_dropped_total").await;
        call.hang_up().await;
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
