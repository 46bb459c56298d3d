//! A process that is started, signalled and ended by its id.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// How long a process that is asked to end may take, before it is killed.
const GENTLY: Duration = Duration::from_secs(3);
/// How many lines of a log tell why a process ended.
const LAST_WORDS: usize = 5;

/// A program with its arguments, which runs or does not.
pub struct Process {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    directory: PathBuf,
    ends_by: Signal,
    child: Option<Child>,
}

/// What a process is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It can do nothing about it.
    Kill,
    Terminate,
    /// It hangs, with all its sockets open.
    Stop,
    /// It goes on after [`Signal::Stop`].
    Continue,
    /// It reads its configuration again.
    Reload,
}

impl Process {
    /// Describes a program that writes its output to a log in `directory`.
    pub fn new(name: &str, program: impl Into<PathBuf>, directory: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: directory.to_owned(),
            ends_by: Signal::Kill,
            child: None,
        }
    }

    #[must_use]
    pub fn arguments(mut self, arguments: impl IntoIterator<Item: Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets the whole environment, beside the path to programs.
    #[must_use]
    pub fn environment(mut self, environment: Vec<(String, String)>) -> Self {
        self.environment = environment;
        self
    }

    pub fn its_environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Says how it is ended, where killing would leave something behind.
    #[must_use]
    pub fn ends_by(mut self, signal: Signal) -> Self {
        self.ends_by = signal;
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Starts the program. It dies with the thread that calls this.
    ///
    /// # Errors
    /// If it runs already, or cannot be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = self.log();
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        // A helper of util-linux, which replaces itself by the program, so the id stays.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", self.ends_by.name()])
            .arg(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        let child = child.with_context(|| format!("cannot start {} by setpriv", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends a signal to the process, which is not waited for.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_mut();
        let child = child.with_context(|| format!("{} does not run", self.name))?;
        send(child, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Kills the process and waits until it is dead.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let child = self.child.take();
        let mut child = child.with_context(|| format!("{} does not run", self.name))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Tells how the process has ended by itself, if it has. It can be started again then.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            bail!("{} does not run", self.name);
        };
        let status = child.try_wait()?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Returns the end of its log.
    pub fn last_words(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }

    /// Returns where its output goes.
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
            Self::Reload => "HUP",
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if self.ends_by != Signal::Kill && send(&mut child, self.ends_by).is_ok() {
            let pause = Duration::from_millis(10);
            for _ in 0..GENTLY.as_millis() / pause.as_millis() {
                if matches!(child.try_wait(), Ok(Some(_))) {
                    return;
                }
                thread::sleep(pause);
            }
        }
        // Fails only when it is dead already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Signals a child of ours. Until it is waited for, its id is nobody else's.
fn send(child: &mut Child, signal: Signal) -> io::Result<()> {
    if child.try_wait()?.is_some() {
        return Err(io::Error::other("it has ended"));
    }
    if signal == Signal::Kill {
        return child.kill();
    }
    let sent = Command::new("kill")
        .args(["-s", signal.name(), &child.id().to_string()])
        .stdin(Stdio::null())
        .status()?;
    if sent.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("kill: {sent}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_started_stopped_killed_and_started_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::new("sleep", "sleep", directory.path()).arguments(["600"]);
        assert!(process.kill().is_err());
        process.start().unwrap();
        let first = process.pid().unwrap();
        assert!(process.start().is_err());
        process.signal(Signal::Stop).unwrap();
        process.signal(Signal::Continue).unwrap();
        assert_eq!(process.ended().unwrap(), None);
        process.signal(Signal::Stop).unwrap();
        process.kill().unwrap(); // Also while it hangs.
        assert_eq!(process.pid(), None);
        process.start().unwrap();
        let second = process.pid().unwrap();
        assert_ne!(first, second);
        drop(process);
        assert!(!Path::new(&format!("/proc/{second}")).exists());
    }

    #[test]
    fn a_process_that_ends_leaves_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let script = "seq 1 9; echo $WORD >&2; exit 3";
        let mut process = Process::new("sh", "sh", directory.path())
            .arguments(["-c", script])
            .environment(vec![("WORD".to_owned(), "farewell".to_owned())]);
        process.start().unwrap();
        let status = loop {
            if let Some(status) = process.ended().unwrap() {
                break status;
            }
            thread::yield_now();
        };
        assert_eq!(status.code(), Some(3));
        assert_eq!(process.last_words(), "6\n7\n8\n9\nfarewell");
    }
}
