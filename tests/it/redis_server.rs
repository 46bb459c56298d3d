//! A Redis of a test's own, which can be killed, stopped and started again.

use std::{process::Stdio, sync::Mutex, time::Duration};

use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::line::GUARD;

/// Debian's `redis-server`, on loopback, without anything on disk. Dropping it kills it.
pub struct RedisServer {
    port: u16,
    /// `None` while it is dead.
    process: Mutex<Option<Child>>,
    directory: TempDir,
}

impl RedisServer {
    /// Starts an empty one.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        loop {
            // Not among the ports that others are given: it must be free for a restart.
            let port = rand::random_range(10_000..32_000);
            if TcpListener::bind(("127.0.0.1", port)).await.is_err() {
                continue;
            }
            let mut process = spawn(port, &directory);
            if answers(port, &mut process).await {
                let process = Mutex::new(Some(process));
                return Self {
                    port,
                    process,
                    directory,
                };
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it, as a crash of its machine does.
    pub async fn kill(&self) {
        let process = self.process.lock().unwrap().take();
        process.expect("it runs").kill().await.unwrap();
    }

    /// Hangs it: connections stay open, and nothing is answered.
    pub async fn stop(&self) {
        self.signal("-STOP").await;
    }

    /// Lets it go on after a [`Self::stop`], with all that it knew.
    pub async fn cont(&self) {
        self.signal("-CONT").await;
    }

    /// Starts it again on the same port, empty.
    pub async fn restart(&self) {
        if self.process.lock().unwrap().is_some() {
            self.kill().await;
        }
        let mut process = spawn(self.port, &self.directory);
        assert!(answers(self.port, &mut process).await, "Redis is back");
        *self.process.lock().unwrap() = Some(process);
    }

    /// Asks it as an operator does, and returns what `redis-cli` prints.
    pub async fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(arguments);
        let output = timeout(GUARD, command.kill_on_drop(true).output()).await;
        let output = output.expect("Redis answers in time").unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn signal(&self, signal: &str) {
        let id = self.process.lock().unwrap().as_ref().unwrap().id().unwrap();
        let mut kill = Command::new("kill");
        let sent = kill.args([signal, &id.to_string()]).status().await;
        assert!(sent.unwrap().success());
    }
}

fn spawn(port: u16, directory: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .args(["--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("redis-server is installed (Debian: redis-server)")
}

/// Waits until the server answers; false if it has ended instead, as another has its port.
async fn answers(port: u16, process: &mut Child) -> bool {
    let ours = format!("process_id:{}", process.id().expect("it was just started"));
    let answers = async {
        loop {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            let mut info = Command::new("redis-cli");
            info.args(["-p", &port.to_string(), "INFO", "server"]);
            let told = info.kill_on_drop(true).output().await.unwrap().stdout;
            if String::from_utf8_lossy(&told).contains(&ours) {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(GUARD, answers).await.expect("Redis starts in time")
}
