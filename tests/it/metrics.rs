//! What is exposed, documented, alarmed of and plotted is the same.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    carrier::Reply,
    gateway::{TestGateway, eventually},
};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");
const RUNBOOK: &str = include_str!("../../docs/runbook.md");
const ALARMS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const ALARMS_TESTED: [&str; 2] = [
    include_str!("../../deploy/prometheus/tests.yml"),
    include_str!("../../deploy/prometheus/tests-week.yml"),
];
const DASHBOARD: &str = include_str!("../../deploy/grafana/callgate.json");

/// A metric as the document has it.
struct Documented {
    kind: &'static str,
    labels: BTreeSet<&'static str>,
    alarms: BTreeSet<String>,
}

/// One alarm: what it asks, and the rest of what is written of it.
struct Alarm {
    name: &'static str,
    asks: &'static str,
    rest: &'static str,
}

/// Reads the document's tables: `metric`, type, labels, unit, whose, meaning, alarms.
fn documented() -> BTreeMap<&'static str, Documented> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect());
    let rows = rows.filter(|cells: &Vec<&str>| cells.len() == 7);
    rows.map(|cells| {
        let parts = |cell: &'static str| cell.split(", ").filter(|part| !part.is_empty());
        let alarms = parts(cells[6]).map(|alarm| {
            let name = alarm.split(['[', ']']).nth(1).unwrap();
            let link = format!("[{name}](runbook.md#{})", name.to_lowercase());
            assert_eq!(alarm, link);
            name.to_owned()
        });
        let metric = Documented {
            kind: cells[1],
            labels: parts(cells[2])
                .map(|label| label.trim_matches('`'))
                .collect(),
            alarms: alarms.collect(),
        };
        (cells[0].trim_matches('`'), metric)
    })
    .collect()
}

fn alarms() -> Vec<Alarm> {
    let blocks = ALARMS.split("- alert: ").skip(1);
    blocks
        .map(|block| {
            let (name, block) = block.split_once('\n').unwrap();
            let (asks, rest) = block.split_once("        for: ").unwrap();
            let asks = asks.split_once("expr: ").unwrap().1;
            Alarm { name, asks, rest }
        })
        .collect()
}

/// Returns the metrics of a query, each of which says whose they are in braces; of a histogram's
/// series the histogram.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let documented = documented();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let named = query.match_indices('{').map(|(at, _)| {
        let before = &query[..at];
        let start = before.rfind(|letter| !plain(letter)).map_or(0, |at| at + 1);
        let name = &before[start..];
        let parts = ["_bucket", "_sum", "_count"].into_iter();
        let mut bases = parts.filter_map(|part| name.strip_suffix(part));
        let histogram = bases.find(|base| {
            let metric = documented.get(base);
            metric.is_some_and(|metric| metric.kind == "histogram")
        });
        histogram.unwrap_or(name).to_owned()
    });
    named
        .filter(|name| name != "up" && name != "ALERTS")
        .collect()
}

/// Returns every query of a dashboard.
fn queries(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(fields) => {
            let query = fields.get("expr").and_then(Value::as_str);
            found.extend(query.map(str::to_owned));
            fields.values().for_each(|value| queries(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn a_running_gateway_exposes_what_the_document_says() {
    let gateway = TestGateway::with_slots(1).await;
    let call = gateway.ring().await.connected().await;
    gateway.ring().await.refused_as_busy();
    call.agent_speaks().await;
    let keyless = Reply::to(gateway.carrier.get("/v1/calls")).await;
    assert_eq!(keyless.status, 401);
    let sid = call.sid.clone();
    call.hang_up().await;
    gateway.ended(&sid).await;
    // A worker is timed twice a second.
    eventually(async || gateway.figure("worker_lag_seconds_count").await > 0).await;
    let text = Reply::to(gateway.carrier.get("/metrics")).await.body;
    let documented = documented();
    let mut exposed = BTreeSet::new();
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            let (base, kind) = told.split_once(' ').unwrap();
            kinds.insert(base, kind);
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut bases = kinds.iter().filter(|(base, _)| name.starts_with(**base));
        let (base, kind) = bases.clone().max_by_key(|(base, _)| base.len()).unwrap();
        assert!(bases.next().is_some());
        let name = if *kind == "histogram" { base } else { name };
        let metric = documented.get(name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is in no table"));
        assert_eq!(metric.kind, *kind, "{name}");
        let labels = labels
            .split("\",")
            .filter_map(|label| Some(label.split_once('=')?.0));
        let labels: BTreeSet<&str> = labels.filter(|label| *label != "le").collect();
        let labels: BTreeSet<&str> = labels.iter().map(|it| it.trim_matches('}')).collect();
        assert_eq!(labels, metric.labels, "{name}");
        exposed.insert(name.to_owned());
    }
    for (name, metric) in &documented {
        let is_there = exposed.contains(*name) || !metric.labels.is_empty();
        assert!(is_there, "{name} is documented, and not exposed");
    }
    for name in [
        "http_requests_total",
        "webhooks_events_total",
        "calls_active",
        "calls_started_total",
        "calls_rejected_max_concurrent_total",
    ] {
        assert!(exposed.contains(name), "{name}");
    }
    gateway.finish().await;
}

#[test]
fn the_document_names_each_metrics_alarms() {
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for alarm in alarms() {
        for metric in metrics_in(alarm.asks) {
            used.entry(metric)
                .or_default()
                .insert(alarm.name.to_owned());
        }
    }
    let documented = documented();
    for (metric, alarms) in &used {
        let said = documented.get(metric.as_str());
        let said = said.unwrap_or_else(|| panic!("{metric} is no metric: {alarms:?}"));
        assert_eq!(said.alarms, *alarms, "{metric}");
    }
    for (name, metric) in &documented {
        assert!(
            metric.alarms.is_empty() || used.contains_key(*name),
            "{name}"
        );
    }
}

#[test]
fn every_alarm_has_a_page_and_a_case() {
    let alarms = alarms();
    assert!(alarms.len() > 25);
    for Alarm { name, rest, .. } in &alarms {
        let link = format!("runbook_url: docs/runbook.md#{}\n", name.to_lowercase());
        assert!(rest.contains(&link), "{name}");
        assert!(rest.contains("summary: "), "{name}");
        let severities = ["{severity: critical}", "{severity: warning}"];
        let severity = severities.iter().find(|it| rest.contains(**it));
        let severity = severity.unwrap_or_else(|| panic!("{name} has no severity"));
        let severity = severity
            .trim_matches(['{', '}'])
            .trim_start_matches("severity: ");
        let page = RUNBOOK.split_once(&format!("### {name}\n\n*{severity}.* "));
        let (_, page) = page.unwrap_or_else(|| panic!("{name} has no page"));
        let page = page.split("\n#").next().unwrap();
        assert!(
            page.contains("- Look") && page.contains("o: "),
            "{name}: {page}"
        );
        let fires = format!("alertname=\"{name}\"");
        assert!(
            ALARMS_TESTED.iter().any(|file| file.contains(&fires)),
            "{name}"
        );
    }
    for page in RUNBOOK.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(alarms.iter().any(|alarm| alarm.name == page), "{page}");
    }
}

#[test]
fn the_dashboard_plots_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut all = Vec::new();
    queries(&dashboard, &mut all);
    assert!(all.len() > 50, "{}", all.len());
    let documented = documented();
    let mut plotted = BTreeSet::new();
    for query in &all {
        let metrics = metrics_in(query);
        for metric in &metrics {
            assert!(
                documented.contains_key(metric.as_str()),
                "{metric} in {query}"
            );
        }
        plotted.extend(metrics);
    }
    for metric in [
        "calls_live",
        "slots_used",
        "calls_refused_total",
        "agent_sessions",
        "first_audio_seconds",
        "events_waiting",
        "records_waiting",
        "process_resident_memory_bytes",
    ] {
        assert!(plotted.contains(metric), "{metric}");
    }
}
