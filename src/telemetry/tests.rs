use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    admission::Reason,
    call::EndReason,
    event::{Cause, Fate},
    record::Standing,
    telemetry::{Condition, Direction, Metrics, StoreOperation},
    tool::{ToolKind, ToolOutcome},
};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// What is said of a metric: its type, and its labels in order.
type Facts = (String, Vec<String>);

/// Gives every family a series.
fn one_of_each() -> Metrics {
    let metrics = Metrics::new();
    let second = Duration::from_secs(1);
    metrics.request("GET", "/health".to_owned(), 200);
    metrics.webhook("incoming_call");
    metrics.api_refused("not_found");
    metrics.refused("global", "full");
    metrics.ended("twilio", EndReason::CallerHungUp);
    metrics.agent_ready("default", second);
    metrics.agent_failed("default", "agent_refused");
    drop(metrics.calls.live("twilio", "default"));
    metrics.calls.delayed(Direction::ToAgent, second);
    metrics.agents.requests_remaining(1);
    metrics.agents.rest([("default", true)].into_iter());
    metrics.capacity.slots("global", "", 1, 2);
    metrics.capacity.budget("default", "sessions", 1, 2);
    metrics.capacity.took(StoreOperation::Acquire, second);
    metrics.capacity.store_failed(StoreOperation::Acquire, "io");
    metrics.capacity.stands(Condition {
        replicas: 1,
        expected: 1,
        gated: false,
        degraded: false,
        degraded_for: second,
        clock_skew: 0.0,
    });
    metrics.offers.whatsapp("sent");
    metrics.records.stands(&Standing {
        waiting: 0,
        dropped: 0,
        refused: 0,
        failing: None,
        failing_for: None,
    });
    let dead = Fate::Dead(Cause::Gone);
    metrics.events.tried("default", "crm", dead);
    let place = (("default", "crm"), 1, second, 1);
    metrics.events.stand([place].into_iter());
    let (tool, done) = (ToolKind::Http, ToolOutcome::Done);
    metrics.tools.used(tool, done, second);
    metrics.process.tasks("calls", 1);
    metrics
}

/// Reads what an exposition says of each metric, by the name that queries use; of a histogram that
/// is the one without `_bucket`, `_sum` and `_count`.
fn exposed(text: &str) -> BTreeMap<String, Facts> {
    let mut kinds = BTreeMap::new();
    let mut found: BTreeMap<String, Facts> = BTreeMap::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, kind) = told.split_once(' ').unwrap();
            kinds.insert(name.to_owned(), kind.to_owned());
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = kinds.keys().filter(|base| name.starts_with(base.as_str()));
        let base = base.max_by_key(|base| base.len()).unwrap();
        let kind = &kinds[base];
        let name = if kind == "histogram" { base } else { name };
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
            let (name, _) = label.split_once('=')?;
            (name != "le").then(|| name.to_owned())
        });
        let labels = labels.collect();
        found.insert(name.to_owned(), (kind.clone(), labels));
    }
    found
}

/// Reads the document's tables: a metric in each row, with its type and labels.
fn documented() -> BTreeMap<String, Facts> {
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    let rows = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect());
    // Other tables have other columns.
    let rows = rows.filter(|cells: &Vec<&str>| cells.len() == 7);
    rows.map(|cells| {
        let labels = cells[2]
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        let name = cells[0].trim_matches('`').to_owned();
        (name, (cells[1].to_owned(), labels.collect()))
    })
    .collect()
}

#[test]
fn the_document_and_what_is_exposed_say_the_same() {
    let metrics = one_of_each();
    let text = metrics.text(|_| {});
    let (exposed, documented) = (exposed(&text), documented());
    for (name, facts) in &exposed {
        assert_eq!(documented.get(name), Some(facts), "{name} in the document");
    }
    for name in documented.keys() {
        assert!(exposed.contains_key(name), "{name} is documented alone");
    }
}

/// A family without a series is not exposed: the test above would not miss it.
#[test]
fn every_registered_metric_is_looked_at() {
    let metrics = one_of_each();
    let text = metrics.text(|_| {});
    let exposed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    let registered = metrics.registered();
    assert!(registered.len() > 50, "{registered:?}");
    let missed: Vec<_> = registered
        .iter()
        .filter(|name| !exposed.contains(name.as_str()))
        .collect();
    assert!(missed.is_empty(), "{missed:?} need a series here");
}

#[test]
fn what_alarms_add_up_begins_at_zero() {
    let text = Metrics::new().text(|_| {});
    let reads_zero = |metric: &str, label: &str| {
        let mut lines = text.lines().filter(|line| line.starts_with(metric));
        lines.any(|line| line.contains(label) && line.ends_with("} 0"))
    };
    for reason in EndReason::ALL {
        let label = format!("reason=\"{}\"", reason.as_str());
        assert!(reads_zero("calls_ended_total{", &label), "{label}");
    }
    assert!(reads_zero(
        "webhooks_events_total{",
        "event=\"incoming_call\""
    ));
    for reason in Reason::ALL {
        let label = format!("reason=\"{}\"", reason.as_str());
        assert!(reads_zero("calls_refused_total{", &label), "{label}");
    }
}

#[test]
fn who_reads_twice_finds_counters_grown_and_gauges_set() {
    let metrics = Metrics::new();
    metrics.process.look();
    metrics.process.look();
    let session = metrics.agents.session("default");
    let call = metrics.calls.live("twilio", "default");
    let text = metrics.text(|metrics| metrics.active(7));
    for line in [
        "calls_active 7",
        "agent_sessions{agent=\"default\"} 1",
        "calls_live{carrier=\"twilio\",campaign=\"default\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    drop((session, call));
    let text = metrics.text(|_| {});
    assert!(text.contains("agent_sessions{agent=\"default\"} 0"));
    assert!(text.contains("calls_live{carrier=\"twilio\",campaign=\"default\"} 0"));
}
