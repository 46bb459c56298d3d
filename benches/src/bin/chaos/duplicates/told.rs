//! What is written down of calls whose webhooks came more than once, and what a tenant is told.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

use super::Faults;
use crate::records::{CallRow, Records};
use crate::sink::{Log, Sink};

/// How long it may take until every row is final and every event taken: a slot without media lapses
/// after 20 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a call came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Admitted,
    Refused,
    /// The carrier said that it is over before it said that it rings.
    EndedFirst,
}

impl Entry {
    pub fn name(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Refused => "refused",
            Self::EndedFirst => "ended_first",
        }
    }

    /// Returns how often a tenant is told that such a call began, and that it is over.
    fn events(self) -> (usize, usize) {
        match self {
            Self::Admitted => (1, 1),
            Self::Refused => (0, 1),
            // Whose call it was to be is not known.
            Self::EndedFirst => (0, 0),
        }
    }
}

/// Waits until no row is open and no event waits; returns what the sink has taken by then.
pub async fn until_told(records: &mut Records, sink: &Sink) -> anyhow::Result<Log> {
    let began = Instant::now();
    loop {
        let mut open: BTreeMap<String, u64> = BTreeMap::new();
        for row in records.open_calls().await? {
            *open.entry(row.stands).or_default() += 1;
        }
        let waiting = "SELECT COUNT(*) FROM deliveries WHERE state <> 'delivered'";
        let waiting = records.count(waiting).await?;
        if open.is_empty() && waiting == 0 {
            return Ok(sink.log());
        }
        ensure!(
            began.elapsed() < PATIENCE,
            "rows stay open: {open:?}; {waiting} events wait"
        );
        sleep(Duration::from_millis(100)).await;
    }
}

/// Counts the calls that have not exactly one row, or not exactly the events that they should have.
pub fn judge(known: &BTreeMap<String, Entry>, rows: &[CallRow], told: &Log, faults: &mut Faults) {
    let mut count = |what, is_so: bool| {
        if is_so {
            *faults.entry(what).or_default() += 1;
        }
    };
    let mut rows_of: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        *rows_of.entry(&row.carrier_call).or_default() += 1;
        count("rows_of_no_call", !known.contains_key(&row.carrier_call));
    }
    let (mut started, mut over): (HashMap<&str, usize>, HashMap<&str, usize>) = Default::default();
    for event in told.bodies.values() {
        let call = event["data"]["carrier_call_id"]
            .as_str()
            .unwrap_or_default();
        count("events_of_no_call", !known.contains_key(call));
        let kinds = match event["type"].as_str().unwrap_or_default() {
            "call.started" => &mut started,
            "call.ended" | "call.refused" => &mut over,
            _ => continue, // A transcript, which says nothing of how the call went.
        };
        *kinds.entry(call).or_default() += 1;
    }
    count(
        "events_told_twice",
        told.answers.values().any(|(taken, _)| *taken != 1),
    );
    count("events_forged", told.forged > 0);
    for (sid, entry) in known {
        let of = |counts: &HashMap<&str, usize>| counts.get(sid.as_str()).copied().unwrap_or(0);
        // One that was over before it rang was never a call of ours: it need not leave a row.
        let least = usize::from(entry.events() != (0, 0));
        let has_its_row = (least..=1).contains(&of(&rows_of));
        count("calls_without_exactly_one_row", !has_its_row);
        count("calls_not_begun_once", of(&started) != entry.events().0);
        count("calls_not_over_once", of(&over) != entry.events().1);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_has_one_row_and_is_told_of_once() {
        let known = BTreeMap::from([
            ("CA1".to_owned(), Entry::Admitted),
            ("CA2".to_owned(), Entry::Refused),
        ]);
        let row = |sid: &str| CallRow {
            call: format!("call of {sid}"),
            carrier_call: sid.to_owned(),
            is_final: true,
            stands: "ended".to_owned(),
        };
        let log = |events: &[(&str, &str)]| {
            let mut log = Log::default();
            for (number, (call, kind)) in events.iter().enumerate() {
                let event = json!({"type": kind, "data": {"carrier_call_id": call}});
                log.bodies.insert(number.to_string(), event);
                log.answers.insert(number.to_string(), (1, 0));
            }
            log
        };
        let good = [
            ("CA1", "call.started"),
            ("CA1", "call.ended"),
            ("CA2", "call.refused"),
        ];
        let mut faults = Faults::new();
        judge(&known, &[row("CA1"), row("CA2")], &log(&good), &mut faults);
        assert_eq!(faults, Faults::new());
        let bad = [
            ("CA1", "call.started"),
            ("CA1", "call.started"),
            ("CA3", "call.ended"),
        ];
        judge(&known, &[row("CA1"), row("CA1")], &log(&bad), &mut faults);
        let expected = [
            ("calls_not_begun_once", 1),
            ("calls_not_over_once", 2),
            ("calls_without_exactly_one_row", 2),
            ("events_of_no_call", 1),
        ];
        assert_eq!(faults, Faults::from(expected));
    }
}
