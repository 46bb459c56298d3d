//! What a run amounts to, as a table for people and as one line of JSON for programs.

mod line;
mod table;

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    echo::{Echoed, micros, record},
    outcome::{CallOutcome, CallResult, StreamEnd, StreamOutcome},
    twiml::Said,
};

/// A gateway that fails in ever new words does not fill the report.
const MOST_KINDS: usize = 50;

/// What became of all calls of a run.
#[derive(Debug)]
pub struct Report {
    counts: Counts,
    /// By the carriers' names.
    carriers: BTreeMap<&'static str, Share>,
    said: BTreeMap<Said, u64>,
    failures: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    webhook: Histogram<u32>,
    first_audio_from_webhook: Histogram<u32>,
    first_audio_from_start: Histogram<u32>,
    round_trip: Histogram<u32>,
    interrupted: Histogram<u32>,
    lateness: Histogram<u32>,
    longest_gap: Duration,
    lasted: Duration,
}

/// What became of one carrier's calls.
#[derive(Debug)]
struct Share {
    results: Results,
    first_audio_from_webhook: Histogram<u32>,
}

#[derive(Debug, Default, Clone, Serialize)]
struct Results {
    calls: u64,
    answered: u64,
    busy: u64,
    apology: u64,
    failed: u64,
    unwell: u64,
}

#[derive(Debug, Default, Clone, Serialize)]
struct Counts {
    #[serde(flatten)]
    results: Results,
    most_connected_at_once: u64,
    webhooks: u64,
    failed_webhooks: u64,
    fell_back: u64,
    messages_left: u64,
    transfers: u64,
    streams: u64,
    streams_without_audio: u64,
    streams_closed_by_gateway: u64,
    frames_sent: u64,
    messages_received: u64,
    transcripts: u64,
    sentences: u64,
    answers: u64,
    gaps: u64,
    interruptions_ignored: u64,
    echo_sent: u64,
    echo_lost: u64,
    echo_duplicated: u64,
    echo_reordered: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl Report {
    pub fn new() -> Self {
        Self {
            counts: Counts::default(),
            carriers: BTreeMap::new(),
            said: BTreeMap::new(),
            failures: BTreeMap::new(),
            faults: BTreeMap::new(),
            webhook: micros(),
            first_audio_from_webhook: micros(),
            first_audio_from_start: micros(),
            round_trip: micros(),
            interrupted: micros(),
            lateness: micros(),
            longest_gap: Duration::ZERO,
            lasted: Duration::ZERO,
        }
    }

    /// Adds what became of one call.
    pub fn add(&mut self, call: &CallOutcome) {
        let counts = &mut self.counts;
        counts.results.add(call);
        let share = self.carriers.entry(call.carrier.as_str()).or_default();
        share.add(call);
        if let CallResult::Failed(why) = &call.result {
            count(&mut self.failures, why);
        }
        counts.webhooks += call.webhooks.len() as u64;
        counts.failed_webhooks += u64::from(call.failed_webhooks);
        counts.fell_back += u64::from(call.fell_back);
        counts.messages_left += u64::from(call.left_a_message);
        counts.transfers += call.transfers.len() as u64;
        for took in &call.webhooks {
            record(&mut self.webhook, *took);
        }
        for fault in &call.faults {
            count(&mut self.faults, fault);
        }
        for said in &call.said {
            count(&mut self.said, said);
        }
        for stream in &call.streams {
            self.add_stream(stream);
        }
    }

    /// Says how long the run took and how many callers were connected at once, at most.
    pub fn finish(&mut self, lasted: Duration, most_connected: usize) {
        self.lasted = lasted;
        self.counts.most_connected_at_once = most_connected as u64;
    }

    /// Tells whether every call went as it should, and no echo was lost.
    pub fn all_well(&self) -> bool {
        let counts = &self.counts;
        counts.results.unwell == 0 && counts.results.calls > 0 && counts.echo_lost == 0
    }

    /// Returns "3 answered, 1 busy": what there is, shortly.
    pub fn summary(&self) -> String {
        self.counts.results.summary()
    }

    fn add_stream(&mut self, stream: &StreamOutcome) {
        let counts = &mut self.counts;
        let (heard, closed) = (&stream.heard, &stream.ended);
        counts.streams += 1;
        counts.streams_without_audio += u64::from(heard.first.is_none());
        counts.streams_closed_by_gateway +=
            u64::from(matches!(closed, StreamEnd::GatewayClosed(_)));
        counts.frames_sent += stream.frames_sent;
        counts.messages_received += stream.messages_received;
        counts.transcripts += stream.transcripts;
        counts.sentences += u64::from(stream.sentences);
        counts.answers += u64::from(heard.answers);
        counts.gaps += u64::from(heard.gaps);
        counts.interruptions_ignored += u64::from(stream.ignored_interruptions);
        self.longest_gap = self.longest_gap.max(heard.longest_gap);
        if let Some(first) = heard.first {
            record(&mut self.first_audio_from_start, first);
        }
        if let Some(first) = stream.first_audio_from_webhook {
            record(&mut self.first_audio_from_webhook, first);
        }
        for took in &stream.interrupted {
            record(&mut self.interrupted, *took);
        }
        merge(&mut self.lateness, &stream.lateness);
        if let Some(echo) = &stream.echo {
            self.add_echo(echo);
        }
    }

    fn add_echo(&mut self, echo: &Echoed) {
        self.counts.echo_sent += echo.sent;
        self.counts.echo_lost += echo.lost;
        self.counts.echo_duplicated += echo.duplicated;
        self.counts.echo_reordered += echo.reordered;
        merge(&mut self.round_trip, &echo.round_trip);
    }
}

impl Results {
    fn add(&mut self, call: &CallOutcome) {
        self.calls += 1;
        match &call.result {
            CallResult::Answered => self.answered += 1,
            CallResult::Busy => self.busy += 1,
            CallResult::Apology => self.apology += 1,
            CallResult::Failed(_) => self.failed += 1,
        }
        self.unwell += u64::from(!call.is_well());
    }

    /// Returns "3 answered, 1 busy": what there is, shortly.
    fn summary(&self) -> String {
        let kinds = [
            (self.answered, "answered"),
            (self.busy, "busy"),
            (self.apology, "apologised to"),
            (self.failed, "failed"),
        ];
        let some = kinds.iter().filter(|(count, _)| *count > 0);
        let some = some.map(|(count, kind)| format!("{count} {kind}"));
        some.collect::<Vec<_>>().join(", ")
    }
}

impl Share {
    fn add(&mut self, call: &CallOutcome) {
        self.results.add(call);
        let first = call
            .streams
            .iter()
            .filter_map(|stream| stream.first_audio_from_webhook);
        first.for_each(|first| record(&mut self.first_audio_from_webhook, first));
    }
}

impl Default for Share {
    fn default() -> Self {
        Self {
            results: Results::default(),
            first_audio_from_webhook: micros(),
        }
    }
}

fn merge(into: &mut Histogram<u32>, other: &Histogram<u32>) {
    into.add(other).expect("all have the same bounds");
}

fn count<K: Ord + Clone>(counts: &mut BTreeMap<K, u64>, kind: &K) {
    if let Some(count) = counts.get_mut(kind) {
        *count += 1;
    } else if counts.len() < MOST_KINDS {
        counts.insert(kind.clone(), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::Carrier,
        simulate::{loudspeaker::Heard, script::Script},
    };

    fn outcome(result: CallResult) -> CallOutcome {
        CallOutcome {
            carrier: Carrier::Twilio,
            carrier_call: "CA1".into(),
            from: "+972501234567".into(),
            script: Script::Talk,
            result,
            said: Vec::new(),
            faults: Vec::new(),
            webhooks: vec![Duration::from_millis(4)],
            failed_webhooks: 0,
            fell_back: false,
            left_a_message: false,
            transfers: Vec::new(),
            streams: Vec::new(),
        }
    }

    fn report() -> Report {
        let mut report = Report::new();
        let mut stream = StreamOutcome::new();
        stream.frames_sent = 100;
        stream.sentences = 2;
        stream.heard = Heard {
            first: Some(Duration::from_millis(250)),
            answers: 2,
            gaps: 1,
            longest_gap: Duration::from_millis(60),
            overflowed: false,
        };
        stream.first_audio_from_webhook = Some(Duration::from_millis(300));
        record(&mut stream.lateness, Duration::from_micros(400));
        let mut answered = outcome(CallResult::Answered);
        answered.streams.push(stream);
        report.add(&answered);
        let mut busy = outcome(CallResult::Busy);
        busy.said.push(Said {
            text: "All lines are busy.".into(),
            language: Some("en-US".into()),
            voice: None,
        });
        report.add(&busy);
        report.finish(Duration::from_millis(2_500), 1);
        report
    }

    #[test]
    fn people_read_a_table() {
        insta::assert_snapshot!(report().table(), @"
        2 calls in 2.5 s: 1 answered, 1 busy; 1 connected at once at most
        ┌───────────────────────────────┬───────┬───────┬───────┬───────┬───────┐
        │ milliseconds                  ┆ count ┆   p50 ┆   p90 ┆   p99 ┆   max │
        ╞═══════════════════════════════╪═══════╪═══════╪═══════╪═══════╪═══════╡
        │ webhook answered              ┆     2 ┆   4.0 ┆   4.0 ┆   4.0 ┆   4.0 │
        │ first audio after ringing     ┆     1 ┆ 301.1 ┆ 301.1 ┆ 301.1 ┆ 301.1 │
        │ first audio after media start ┆     1 ┆ 250.9 ┆ 250.9 ┆ 250.9 ┆ 250.9 │
        │ simulator's own lateness      ┆     1 ┆   0.4 ┆   0.4 ┆   0.4 ┆   0.4 │
        └───────────────────────────────┴───────┴───────┴───────┴───────┴───────┘
        2 sentences said, 2 answers heard; 1 gaps (longest 60 ms); 0 streams without audio
        said 1x (en-US): All lines are busy.
        ");
    }

    #[test]
    fn programs_read_one_line() {
        let line = report().json();
        assert!(!line.contains('\n'));
        // Wrapped, so that a name that changes is seen.
        insta::assert_snapshot!(line.replace(",\"", ",\n\""), @r#"
        {"all_well":true,
        "seconds":2.5,
        "calls":2,
        "answered":1,
        "busy":1,
        "apology":0,
        "failed":0,
        "unwell":0,
        "most_connected_at_once":1,
        "webhooks":2,
        "failed_webhooks":0,
        "fell_back":0,
        "messages_left":0,
        "transfers":0,
        "streams":1,
        "streams_without_audio":0,
        "streams_closed_by_gateway":0,
        "frames_sent":100,
        "messages_received":0,
        "transcripts":0,
        "sentences":2,
        "answers":2,
        "gaps":1,
        "interruptions_ignored":0,
        "echo_sent":0,
        "echo_lost":0,
        "echo_duplicated":0,
        "echo_reordered":0,
        "carriers":{"twilio":{"calls":2,
        "answered":1,
        "busy":1,
        "apology":0,
        "failed":0,
        "unwell":0,
        "first_audio_from_webhook_ms":{"count":1,
        "p50":301.055,
        "p90":301.055,
        "p99":301.055,
        "max":301.055}}},
        "longest_gap_ms":60.0,
        "webhook_ms":{"count":2,
        "p50":4.015,
        "p90":4.015,
        "p99":4.015,
        "max":4.015},
        "first_audio_from_webhook_ms":{"count":1,
        "p50":301.055,
        "p90":301.055,
        "p99":301.055,
        "max":301.055},
        "first_audio_from_start_ms":{"count":1,
        "p50":250.879,
        "p90":250.879,
        "p99":250.879,
        "max":250.879},
        "round_trip_ms":{"count":0,
        "p50":0.0,
        "p90":0.0,
        "p99":0.0,
        "max":0.0},
        "interrupted_ms":{"count":0,
        "p50":0.0,
        "p90":0.0,
        "p99":0.0,
        "max":0.0},
        "lateness_ms":{"count":1,
        "p50":0.401,
        "p90":0.401,
        "p99":0.401,
        "max":0.401},
        "said":[{"text":"All lines are busy.",
        "language":"en-US",
        "voice":null,
        "count":1}],
        "failures":{},
        "faults":{}}
        "#);
    }

    #[test]
    fn a_refusal_is_well_and_a_failure_or_a_fault_is_not() {
        assert!(report().all_well());
        let mut failed = report();
        failed.add(&outcome(CallResult::Failed("403".into())));
        assert!(!failed.all_well());
        let mut faulty = report();
        faulty.add(&CallOutcome {
            faults: vec!["a binary message (31950)".into()],
            ..outcome(CallResult::Answered)
        });
        assert!(!faulty.all_well());
        assert!(!Report::new().all_well());
    }

    #[test]
    fn carriers_are_told_apart() {
        let mut report = report();
        report.add(&CallOutcome {
            carrier: Carrier::Acs,
            ..outcome(CallResult::Apology)
        });
        let table = report.table();
        assert!(table.contains("acs: 1 calls: 1 apologised to\n"), "{table}");
        let first = "twilio: 2 calls: 1 answered, 1 busy; first audio after 301.1 ms (p50), \
                     301.1 ms (p99)\n";
        assert!(table.contains(first), "{table}");
        let line: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(line["carriers"]["acs"]["apology"], 1);
        assert_eq!(line["carriers"]["twilio"]["calls"], 2);
    }

    #[test]
    fn ever_new_failures_do_not_fill_the_report() {
        let mut report = Report::new();
        for number in 0..1_000 {
            report.add(&outcome(CallResult::Failed(number.to_string())));
        }
        assert_eq!(report.failures.len(), MOST_KINDS);
        assert_eq!(report.counts.results.failed, 1_000);
    }
}
