//! The floor or the gateway, as a process that ends with its run.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::audio::now;
use crate::callers;
use crate::line::Line;

/// What the gateway of a run trusts its carrier by. It is no secret: the run is on loopback.
pub const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const ACCOUNT_SID: &str = "AC00000000000000000000000000000001";
pub const EVENT_SECRET: &str = "0123456789abcdef";
const ACCESS_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// How long a gateway may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Candidate {
    Floor,
    Gateway,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Floor => "floor",
            Self::Gateway => "gateway",
        })
    }
}

/// Where candidates run, and which gateway it is.
pub struct Placement {
    /// The core of a candidate with one worker.
    pub own: u16,
    /// All cores, the callers' included.
    pub all: Vec<u16>,
    pub gateway: PathBuf,
    pub workers: u16,
}

/// Who calls, and whom the candidate may need for that.
pub struct Around<'a> {
    pub agent: SocketAddr,
    /// ACS's REST.
    pub rest: SocketAddr,
    pub lines: &'a [Line],
}

/// A candidate that takes calls. Dropping it kills it.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    directory: PathBuf,
}

impl Running {
    /// Starts the candidate with room for `calls`, and waits until it is ready.
    pub fn start(
        candidate: Candidate,
        placement: &Placement,
        around: &Around<'_>,
        calls: u16,
    ) -> anyhow::Result<Self> {
        match candidate {
            Candidate::Floor => Self::floor(placement, around),
            Candidate::Gateway => Self::gateway(placement, around, calls),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id() // The helpers replace themselves by the program, so the id stays.
    }

    fn floor(placement: &Placement, around: &Around<'_>) -> anyhow::Result<Self> {
        let [line @ (Line::Twilio | Line::Acs { .. })] = around.lines else {
            bail!("the floor relays one carrier's messages");
        };
        let mut command = command(&[placement.own]);
        command
            .arg(std::env::current_exe()?)
            .args(["floor", "--agent", &around.agent.to_string()])
            .args(["--carrier", line.name()])
            .stdout(Stdio::piped());
        let mut running = Self::spawn(&mut command)?;
        let out = running.child.stdout.take().context("the floor is mute")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ");
        running.address = address.context("the floor did not start")?.parse()?;
        Ok(running)
    }

    fn gateway(placement: &Placement, around: &Around<'_>, calls: u16) -> anyhow::Result<Self> {
        let Around { agent, rest, lines } = around;
        let own = [placement.own];
        let cores = match placement.workers {
            1 => &own[..],
            _ => &placement.all,
        };
        // Free a moment ago, and nobody else here looks for one.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let room = (calls + 10).to_string();
        let mut command = command(cores);
        command
            .arg(&placement.gateway)
            .arg("serve")
            .env_clear()
            .env("LISTEN", address.to_string())
            .env("TWILIO_AUTH_TOKEN", AUTH_TOKEN)
            .env("TWILIO_ACCOUNT_SID", ACCOUNT_SID)
            .env("AGENT", "openai")
            .env("OPENAI_API_KEY", "sk-bench")
            .env("OPENAI_REALTIME_URL", format!("ws://{agent}/v1/realtime"))
            .env("AGENT_GREETING", "")
            .env("MAX_ACTIVE_CALLS", &room)
            .env("MAX_SETUP_CALLS", &room)
            .env("MAX_CONNECTIONS", &room)
            .env("WORKERS", placement.workers.to_string())
            .env("RUST_LOG", "warn")
            .stdout(io::stderr());
        for line in *lines {
            match line {
                Line::Twilio => {}
                Line::Acs { format, .. } => {
                    let way = format!("endpoint=http://{rest}/;accesskey={ACCESS_KEY}");
                    command
                        .env("ACS_CONNECTION_STRING", way)
                        .env("ACS_AUDIO_FORMAT", format.name())
                        .env("EVENTGRID_SECRET", EVENT_SECRET);
                }
                Line::Web => {
                    command.env("WEB_CALLS_PER_ADDRESS", &room);
                }
            }
        }
        let mut running = Self::spawn(&mut command)?;
        running.address = address;
        running.wait_until_ready()?;
        Ok(running)
    }

    fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let name = format!("callgate-bench-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory)?;
        let child = command
            .current_dir(&directory)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start setpriv and taskset of util-linux")?;
        Ok(Self {
            child,
            address: (Ipv4Addr::UNSPECIFIED, 0).into(),
            directory,
        })
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let began = now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the gateway ended before it was ready: {status}");
            }
            let answer = callers::get(self.address, "/health/ready");
            match answer {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) if PATIENCE < began.elapsed() => {
                    bail!("the gateway stays unready: {}", answer.body)
                }
                Err(error) if PATIENCE < began.elapsed() => return Err(error),
                Ok(_) | Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Returns a command that runs a program on some cores, and kills it when this process dies in a
/// way that leaves no time for `drop`.
fn command(cores: &[u16]) -> Command {
    let cores: Vec<String> = cores.iter().map(u16::to_string).collect();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "--cpu-list"]);
    command.arg(cores.join(","));
    command
}
