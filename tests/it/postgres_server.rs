//! A real PostgreSQL: a port and a directory of its own, run by nobody in particular, and nothing
//! that outlives it.

#![allow(
    dead_code,
    reason = "whoever includes this file needs a part of it, and each another one"
)]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard},
    thread,
};

use tempfile::TempDir;

/// How often another port is tried, should somebody take one between our look and the server's.
const TRIES: usize = 10;
/// PostgreSQL refuses to be root's; this user owns nothing else.
const NOBODY: u32 = 65_534;

pub struct PostgresServer {
    process: Mutex<Child>,
    port: u16,
    directory: TempDir,
}

impl PostgresServer {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory for postgres");
        let data = directory.path().join("data");
        if is_root() {
            chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("root may give away");
        }
        let mut make = command("initdb");
        make.arg("-D")
            .arg(&data)
            .args(["-U", "callgate", "-A", "trust", "-N"]);
        make.args(["-E", "UTF8", "--locale", "C"]);
        let made = make.output().expect("initdb runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut log = String::new();
        for _ in 0..TRIES {
            let port = free_port();
            match launch(port, &data) {
                Ok(process) => {
                    let process = Mutex::new(process);
                    return Self {
                        process,
                        port,
                        directory,
                    };
                }
                Err(said) => log = said,
            }
        }
        panic!("postgres does not start:\n{log}");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address of a database that is made for it.
    pub fn database(&self, name: &str) -> String {
        let mut make = command("createdb");
        let port = self.port.to_string();
        make.args(["-h", "127.0.0.1", "-p", &port, "-U", "callgate", name]);
        let made = make.output().expect("createdb runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        format!("postgres://callgate@127.0.0.1:{port}/{name}")
    }

    /// Says something to a database, as its owner.
    pub fn run(&self, database: &str, sql: &str) {
        let mut say = command("psql");
        let port = self.port.to_string();
        say.args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "callgate",
            "-d",
            database,
        ]);
        let said = say.args(["-q", "-c", sql]).output().expect("psql runs");
        assert!(
            said.status.success(),
            "{}",
            String::from_utf8_lossy(&said.stderr)
        );
    }

    /// Ends it without a word, as `kill -9` of all its processes does.
    pub fn kill(&self) {
        signal("-QUIT", &self.process());
        let _ = self.process().wait();
    }

    /// Starts it again over what it kept.
    pub fn restart(&self) {
        let data = self.directory.path().join("data");
        *self.process() = launch(self.port, &data).expect("it has run on this port before");
    }

    /// Holds it up, connections included, until [`Self::resume`].
    pub fn pause(&self) {
        signal_all("-STOP", &self.process());
    }

    pub fn resume(&self) {
        signal_all("-CONT", &self.process());
    }

    fn process(&self) -> MutexGuard<'_, Child> {
        self.process.lock().expect("nobody panics with it")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let mut process = self.process();
        signal_all("-CONT", &process);
        signal("-QUIT", &process); // At once, without waiting for clients.
        let _ = process.wait();
    }
}

fn launch(port: u16, data: &Path) -> Result<Child, String> {
    let mut start = command("postgres");
    start.arg("-D").arg(data).arg("-k").arg(data);
    start.args(["-h", "127.0.0.1", "-p", &port.to_string()]);
    start.args([
        "-c",
        "fsync=off",
        "-c",
        "max_connections=200",
        "-c",
        "shared_buffers=64MB",
    ]);
    let mut child = start
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("postgres runs");
    let said = child.stderr.take().expect("it is piped");
    let mut log = String::new();
    let mut lines = BufReader::new(said).lines();
    for line in lines.by_ref().map_while(Result::ok) {
        log.push_str(&line);
        log.push('\n');
        if line.contains("ready to accept connections") {
            // Somebody has to read what it says, or it stops.
            thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
            return Ok(child);
        }
    }
    let _ = child.wait();
    Err(log)
}

/// Returns a command of PostgreSQL's, to be run by somebody without privileges.
fn command(name: &str) -> Command {
    let program = find(name);
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let nobody = NOBODY.to_string();
    command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
    command.arg(program).current_dir("/");
    command
}

/// Finds a program where Debian puts it, which is not on the path.
fn find(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<PathBuf> = versions
        .map(|version| version.path().join("bin").join(name))
        .filter(|program| program.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(name))
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn signal(signal: &str, process: &Child) {
    let _ = Command::new("kill")
        .args([signal, &process.id().to_string()])
        .status();
}

/// Signals a server and its children, which serve its clients.
fn signal_all(which: &str, process: &Child) {
    let id = process.id().to_string();
    let _ = Command::new("pkill").args([which, "-P", &id]).status();
    signal(which, process);
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}
