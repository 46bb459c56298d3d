//! What Linux tells of processes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use callgate_benches::machine::field;

/// The time that the threads of a process have spent so far.
#[derive(Clone, Copy, Default)]
pub struct Times {
    pub running: Duration,
    /// Ready to run, while something else had the core.
    pub waiting: Duration,
}

impl Times {
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let mut times = Self::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread that ends in between takes its times along.
            let Ok(line) = fs::read_to_string(thread?.path().join("schedstat")) else {
                continue;
            };
            let thread = Self::parse(&line)?;
            times.running += thread.running;
            times.waiting += thread.waiting;
        }
        Ok(times)
    }

    pub fn of_this_thread() -> anyhow::Result<Self> {
        Self::parse(&fs::read_to_string("/proc/thread-self/schedstat")?)
    }

    fn parse(schedstat: &str) -> anyhow::Result<Self> {
        let mut fields = schedstat.split_ascii_whitespace().map(str::parse);
        let mut next = || fields.next().context("too few fields in schedstat");
        Ok(Self {
            running: Duration::from_nanos(next()??),
            waiting: Duration::from_nanos(next()??),
        })
    }

    pub fn since(self, earlier: Self) -> Self {
        Self {
            running: self.running.saturating_sub(earlier.running),
            waiting: self.waiting.saturating_sub(earlier.waiting),
        }
    }
}

/// Returns the resident memory of a process, in KiB.
pub fn resident_kib(pid: u32) -> anyhow::Result<u32> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = field(&rollup, "Rss:").context("no Rss in smaps_rollup")?;
    Ok(line.trim_end_matches(" kB").parse()?)
}

/// Returns the cores that this process may use, as the kernel lists them (`0-3,8`).
pub fn allowed_cores() -> anyhow::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let cores = field(&status, "Cpus_allowed_list:").context("no list of cores")?;
    Ok(cores.to_owned())
}

/// Understands a list of cores. It is never empty.
pub fn cores(text: &str) -> anyhow::Result<Vec<u16>> {
    let mut cores = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse()?..=last.parse::<u16>()?);
    }
    ensure!(!cores.is_empty(), "no core in {text}");
    Ok(cores)
}

/// Returns how many files this process may allow itself to open.
pub fn most_open_files() -> anyhow::Result<String> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = field(&limits, "Max open files").context("no limit of open files")?;
    let hard = line.split_ascii_whitespace().nth(1);
    Ok(hard.context("no hard limit of open files")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_listed_as_the_kernel_does_it() {
        assert_eq!(cores("0-2,8").unwrap(), [0, 1, 2, 8]);
        assert_eq!(cores("3").unwrap(), [3]);
        assert!(cores("").is_err());
    }

    #[test]
    fn a_process_has_memory_and_times() {
        let pid = std::process::id();
        assert!(0 < resident_kib(pid).unwrap());
        Times::of(pid).unwrap();
        most_open_files().unwrap();
        cores(&allowed_cores().unwrap()).unwrap();
    }
}
