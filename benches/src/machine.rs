//! What figures were measured on.

use std::fs;
use std::io;
use std::process::Command;

use serde::Serialize;

/// A machine, with what disturbs figures on it.
#[derive(Serialize)]
pub struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
    /// Runnable threads in the minute before: others at work disturb the figures.
    load: String,
}

impl Machine {
    /// Describes this machine, of which `cores` are used.
    ///
    /// # Errors
    /// If it is no Linux.
    pub fn of(cores: usize) -> io::Result<Self> {
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        let model = field(&cpu, "model name").unwrap_or("unknown");
        let load = fs::read_to_string("/proc/loadavg")?;
        Ok(Self {
            cores,
            cpu: model.trim_start_matches([':', ' ', '\t']).to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
        })
    }
}

/// Returns the commit that is checked out, marked if anything in it was changed.
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(arguments)
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + "-changed",
    }
}

/// Returns what follows `name` at the beginning of a line.
pub fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name);
    Some(text.lines().find_map(value)?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_kernel_and_a_field_begins_its_line() {
        assert!(!Machine::of(1).unwrap().kernel.is_empty());
        assert_eq!(field("a b: 1\nb: 2", "b:"), Some("2"));
        assert_eq!(field("", "b:"), None);
    }
}
