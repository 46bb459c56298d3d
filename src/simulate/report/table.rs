//! The report that people read.

use std::{fmt, fmt::Write, time::Duration};

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

use super::{
    Report, Share,
    line::{Percentiles, ms},
};

/// A simulator that is this late measures itself.
const TOO_LATE: Duration = Duration::from_millis(10);

impl Report {
    /// Returns the report for people.
    pub fn table(&self) -> String {
        let counts = &self.counts;
        let mut text = format!(
            "{} calls in {:.1} s: {}; {} connected at once at most\n",
            counts.results.calls,
            self.lasted.as_secs_f64(),
            self.summary(),
            counts.most_connected_at_once
        );
        text += &self.shares();
        text += &self.times();
        self.write_lines(&mut text)
            .expect("a string grows as it needs to");
        text
    }

    /// Tells the carriers apart, where there are several.
    fn shares(&self) -> String {
        if self.carriers.len() < 2 {
            return String::new();
        }
        let share = |(carrier, share): (&&str, &Share)| {
            let first = Percentiles::of(&share.first_audio_from_webhook);
            let first = match first.count {
                0 => String::new(),
                _ => format!(
                    "; first audio after {:.1} ms (p50), {:.1} ms (p99)",
                    first.p50, first.p99
                ),
            };
            let (calls, summary) = (share.results.calls, share.results.summary());
            format!("{carrier}: {calls} calls: {summary}{first}\n")
        };
        self.carriers.iter().map(share).collect()
    }

    fn times(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["milliseconds", "count", "p50", "p90", "p99", "max"]);
        for (name, histogram) in [
            ("webhook answered", &self.webhook),
            ("first audio after ringing", &self.first_audio_from_webhook),
            (
                "first audio after media start",
                &self.first_audio_from_start,
            ),
            ("a frame's round trip", &self.round_trip),
            ("agent stopped when interrupted", &self.interrupted),
            ("simulator's own lateness", &self.lateness),
        ] {
            if !histogram.is_empty() {
                let times = Percentiles::of(histogram);
                let shown = [times.p50, times.p90, times.p99, times.max];
                let mut row = vec![name.to_owned(), times.count.to_string()];
                row.extend(shown.map(|time| format!("{time:.1}")));
                table.add_row(row);
            }
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if table.is_empty() {
            return String::new();
        }
        format!("{table}\n")
    }

    fn write_lines(&self, text: &mut String) -> fmt::Result {
        let counts = &self.counts;
        if counts.streams > 0 {
            writeln!(
                text,
                "{} sentences said, {} answers heard; {} gaps{}; {} streams without audio",
                counts.sentences,
                counts.answers,
                counts.gaps,
                match counts.gaps {
                    0 => String::new(),
                    _ => format!(" (longest {:.0} ms)", ms(self.longest_gap)),
                },
                counts.streams_without_audio,
            )?;
        }
        if counts.echo_sent > 0 {
            writeln!(
                text,
                "{} frames to be echoed: {} lost, {} duplicated, {} reordered",
                counts.echo_sent, counts.echo_lost, counts.echo_duplicated, counts.echo_reordered,
            )?;
        }
        for (count, what) in [
            (counts.interruptions_ignored, "interruptions ignored"),
            (counts.failed_webhooks, "webhooks failed"),
            (counts.fell_back, "calls went to the fallback document"),
            (counts.messages_left, "messages left"),
            (counts.transfers, "transfers"),
        ] {
            if count > 0 {
                writeln!(text, "{count} {what}")?;
            }
        }
        for (said, count) in &self.said {
            let language = said.language.as_deref().unwrap_or("no language given");
            writeln!(text, "said {count}x ({language}): {}", said.text)?;
        }
        for (why, count) in &self.failures {
            writeln!(text, "failed {count}x: {why}")?;
        }
        for (fault, count) in &self.faults {
            writeln!(text, "fault {count}x: {fault}")?;
        }
        let late = Duration::from_micros(self.lateness.value_at_quantile(0.99));
        if TOO_LATE <= late {
            let late = ms(late);
            writeln!(
                text,
                "This machine is too slow for so many callers: one frame in a hundred was sent \
                 {late:.0} ms late, so the times above are not the gateway's alone."
            )?;
        }
        Ok(())
    }
}
