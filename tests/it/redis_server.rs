//! A real redis-server: a port and a directory of its own, and nothing that outlives it.

#![allow(
    dead_code,
    reason = "whoever includes this file needs a part of it, and each another one"
)]

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard},
    thread,
};

use redis::{Client, Cmd, Connection, FromRedisValue};
use tempfile::TempDir;

/// How often another port is tried, should somebody take one between our look and the server's.
const TRIES: usize = 10;

pub struct RedisServer {
    process: Mutex<Child>,
    port: u16,
    arguments: Vec<String>,
    directory: TempDir,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments, as on its command line.
    pub fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory for redis-server");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut log = String::new();
        for _ in 0..TRIES {
            let port = free_port();
            match launch(port, &arguments, directory.path()) {
                Ok(process) => {
                    return Self {
                        process: Mutex::new(process),
                        port,
                        arguments,
                        directory,
                    };
                }
                Err(said) => log = said,
            }
        }
        panic!("redis-server {arguments:?} does not start:\n{log}");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns a directory that goes with the server.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}/", self.port)
    }

    /// Returns a connection for an operator's commands, which wait as long as it takes.
    pub fn connection(&self) -> Connection {
        let client = Client::open(self.url()).expect("a good address");
        client.get_connection().expect("redis-server listens")
    }

    /// Sends one command as an operator would type it.
    pub fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.try_ask(command)
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub fn try_ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut sent = Cmd::new();
        for word in command.split_whitespace() {
            sent.arg(word);
        }
        sent.query(&mut self.connection())
    }

    /// Sends a command whose answer nobody waits for; it goes on until the socket is dropped.
    pub fn send(&self, command: &Cmd) -> TcpStream {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it listens");
        let sent = socket.write_all(&command.get_packed_command());
        sent.expect("it reads");
        socket
    }

    /// Loses everything that is stored.
    pub fn flush(&self) {
        self.ask::<()>("FLUSHALL");
    }

    /// Ends it without a word, as `kill -9` does.
    pub fn kill(&self) {
        let mut process = self.process();
        process.kill().expect("it is ours");
        process.wait().expect("it is ours");
    }

    /// Starts it anew on the same port, empty, whether it was killed before or not.
    pub fn restart(&self) {
        self.kill();
        let said = launch(self.port, &self.arguments, self.directory.path());
        *self.process() = said.unwrap_or_else(|log| panic!("no redis-server again:\n{log}"));
    }

    /// Asks it as an operator does; returns what `redis-cli` prints.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let asked = Command::new("redis-cli")
            .args(["-p", &port])
            .args(arguments)
            .output();
        let output = asked.expect("there is a redis-cli");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout)
            .expect("text")
            .trim()
            .to_owned()
    }

    /// Lets it hang.
    pub fn pause(&self) {
        self.signal("-STOP");
        // Signals are not waited for by those who send them.
        let process = format!("/proc/{}/stat", self.process().id());
        while !fs::read_to_string(&process)
            .expect("it is there")
            .contains(") T ")
        {
            thread::yield_now();
        }
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn process(&self) -> MutexGuard<'_, Child> {
        self.process.lock().expect("nobody panics with it")
    }

    fn signal(&self, signal: &str) {
        let process = self.process().id().to_string();
        let kill = Command::new("kill").args([signal, &process]).status();
        assert!(kill.expect("there is a kill").success(), "kill {signal}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may be gone already.
        let mut process = self.process();
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// Returns a port that nobody has, and that nobody is given who asks for any: a server that was
/// killed must find it free. A cluster's second port is 10,000 above it.
pub fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..22_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Returns a server that accepts connections, or what it has said instead.
fn launch(port: u16, arguments: &[String], directory: &Path) -> Result<Child, String> {
    let started = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut process = match started {
        Ok(process) => process,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("redis-server is not installed: these tests take a real one (apt install redis)")
        }
        Err(error) => panic!("redis-server cannot be started: {error}"),
    };
    let mut log = String::new();
    let output = process.stdout.take().expect("it is piped");
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if line.contains("Ready to accept connections") {
            return Ok(process);
        }
        log += &line;
        log.push('\n');
    }
    let _ = process.kill();
    let _ = process.wait();
    Err(log)
}
