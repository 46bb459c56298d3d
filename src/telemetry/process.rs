//! What the process itself uses, and how it stands.

use std::{
    fs,
    sync::atomic::AtomicU64,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

use crate::telemetry::instant;

/// The kernel counts a process's time in hundredths of a second, whatever it ticks at. Linux,
/// proc(5), `sysconf(_SC_CLK_TCK)`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Figures of the process, by the names that Prometheus' client libraries give them. What Linux does
/// not tell stays 0.
#[derive(Debug, Clone)]
pub struct ProcessMetrics {
    cpu_seconds: Counter<f64, AtomicU64>,
    resident: Gauge,
    open_fds: Gauge,
    most_fds: Gauge,
    threads: Gauge,
    started: Gauge<f64, AtomicU64>,
    tasks: Family<TaskLabels, Gauge>,
    lag: Histogram,
    draining: Gauge,
    draining_seconds: Gauge<f64, AtomicU64>,
    drain_seconds: Gauge<f64, AtomicU64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TaskLabels {
    kind: &'static str,
}

/// What the kernel says of this process.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Used {
    cpu_seconds: f64,
    resident: i64,
    open_fds: i64,
    most_fds: i64,
    threads: i64,
}

impl ProcessMetrics {
    pub(super) fn new() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let started = Gauge::default();
        started.set(since.unwrap_or_default().as_secs_f64());
        Self {
            cpu_seconds: Counter::default(),
            resident: Gauge::default(),
            open_fds: Gauge::default(),
            most_fds: Gauge::default(),
            threads: Gauge::default(),
            started,
            tasks: Family::default(),
            lag: instant(),
            draining: Gauge::default(),
            draining_seconds: Gauge::default(),
            drain_seconds: Gauge::default(),
        }
    }

    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "callgate",
            "Which version runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        r.register(
            "process_cpu_seconds",
            "Processor time used",
            self.cpu_seconds.clone(),
        );
        r.register(
            "process_resident_memory_bytes",
            "Memory held",
            self.resident.clone(),
        );
        r.register(
            "process_open_fds",
            "File descriptors open",
            self.open_fds.clone(),
        );
        r.register(
            "process_max_fds",
            "File descriptors that may be open",
            self.most_fds.clone(),
        );
        r.register("process_threads", "Threads", self.threads.clone());
        r.register(
            "process_start_time_seconds",
            "When the process began, in Unix time",
            self.started.clone(),
        );
        r.register(
            "tasks",
            "Tasks that are under way, by what they are for",
            self.tasks.clone(),
        );
        r.register(
            "worker_lag_seconds",
            "How late a worker came to what was due, twice a second",
            self.lag.clone(),
        );
        r.register(
            "draining",
            "1 while this replica drains",
            self.draining.clone(),
        );
        r.register(
            "draining_seconds",
            "For how long this replica has drained",
            self.draining_seconds.clone(),
        );
        r.register(
            "drain_limit_seconds",
            "How long draining may take (DRAIN_SECONDS)",
            self.drain_seconds.clone(),
        );
    }

    /// Asks the kernel, before metrics are read.
    pub fn look(&self) {
        let used = Used::read();
        let before = self.cpu_seconds.get();
        self.cpu_seconds
            .inc_by((used.cpu_seconds - before).max(0.0));
        self.resident.set(used.resident);
        self.open_fds.set(used.open_fds);
        self.most_fds.set(used.most_fds);
        self.threads.set(used.threads);
    }

    /// Shows how many tasks of a kind there are.
    pub fn tasks(&self, kind: &'static str, number: usize) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.tasks.get_or_create(&TaskLabels { kind }).set(number);
    }

    /// Shows for how long the replica has drained, if it does, and how long it may.
    pub fn drains(&self, since: Option<Duration>, may: Duration) {
        self.draining.set(since.is_some().into());
        self.draining_seconds
            .set(since.unwrap_or_default().as_secs_f64());
        self.drain_seconds.set(may.as_secs_f64());
    }

    /// Notes how late a worker came to what was due.
    pub fn lagged(&self, late: Duration) {
        self.lag.observe(late.as_secs_f64());
    }
}

impl Used {
    /// Reads what the kernel says; nothing where there is no `/proc`.
    fn read() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}"));
        let fds = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self {
            // Looking takes one, too.
            open_fds: i64::try_from(fds.saturating_sub(1)).unwrap_or(i64::MAX),
            most_fds: most_fds(&read("limits").unwrap_or_default()).unwrap_or_default(),
            cpu_seconds: cpu_seconds(&read("stat").unwrap_or_default()).unwrap_or_default(),
            ..Self::of_status(&read("status").unwrap_or_default())
        }
    }

    /// Reads the lines of `/proc/self/status` that matter. proc(5): `VmRSS` is in kibibytes.
    fn of_status(status: &str) -> Self {
        let field = |name: &str| -> Option<i64> {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Self {
            resident: field("VmRSS").unwrap_or_default() << 10,
            threads: field("Threads").unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// Reads user's and system's time of `/proc/self/stat`. proc(5): fields 14 and 15, the second in
/// parentheses, which the program's name may have, too.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// Reads the soft limit of `/proc/self/limits`.
fn most_fds(limits: &str) -> Option<i64> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_read_as_it_writes() {
        let status = "Name:\tcallgate\nVmPeak:\t  90000 kB\nVmRSS:\t   20480 kB\nThreads:\t5\n";
        let used = Used::of_status(status);
        assert_eq!((used.resident, used.threads), (20_480 << 10, 5));
        let stat = "4242 (call) gate)) S 1 4242 4242 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 5 0 99";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(most_fds(limits), Some(1_024));
        assert_eq!((cpu_seconds(""), most_fds("")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something_of_everything() {
        let used = Used::read();
        assert!(used.resident > 1 << 20 && used.threads >= 1, "{used:?}");
        assert!((1..used.most_fds).contains(&used.open_fds), "{used:?}");
    }
}
