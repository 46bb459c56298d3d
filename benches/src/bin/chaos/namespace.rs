//! A network of a figure's own, in which packets can be dropped without harm to anybody else.
//!
//! Invariant: rules are made by a [`Network`] alone, and there is none outside of a namespace that
//! this program has made.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::parent_id;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::lab::{Lab, Verdict, output_of};

/// What has to work in a network of its own.
const TRIED: &str = "ip link set lo up && iptables --wait -I INPUT -s 127.0.0.2 -j DROP";

/// The network that this process is in, apart from the machine's.
pub struct Network(());

impl Network {
    /// Brings up the loopback of the namespace that this process was started in by [`repeat`].
    ///
    /// # Errors
    /// If it is the one that is named, which is the network outside.
    pub fn enter(outside: &str) -> anyhow::Result<Self> {
        let name = name_of("self")?;
        // Whoever only says that this is another network is not believed, as far as the parent's
        // can be read: not from a user namespace, but nothing outside of it can be changed there.
        let parent = name_of(&parent_id().to_string()).ok();
        ensure!(
            name != outside && parent.is_none_or(|parent| parent != name),
            "{name} is no network of this figure's own: nothing is dropped there"
        );
        run("ip", ["link", "set", "lo", "up"])?;
        Ok(Self(()))
    }

    /// Drops every packet from and to an address: no end hears of it.
    ///
    /// # Errors
    /// If the rules cannot be made.
    #[expect(
        clippy::unused_self,
        reason = "who has one is in a network of their own"
    )]
    pub fn cut(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        let address = address.to_string();
        for end in ["-s", "-d"] {
            let rule = ["--wait", "-I", "INPUT", end, &address, "-j", "DROP"];
            run("iptables", rule)?;
        }
        Ok(())
    }
}

/// Measures a figure by this program once more, in a network of its own.
///
/// The figure is bounded there as it is here.
///
/// # Errors
/// If there can be no such network.
pub async fn repeat(lab: &Lab, figure: &str) -> anyhow::Result<Verdict> {
    if let Some(complaint) = missing()? {
        bail!(complaint);
    }
    let mut program = unshared()?;
    program
        // Within, because a new user namespace takes back what was asked of the kernel before.
        .args(["setpriv", "--pdeathsig", "KILL"])
        .arg(std::env::current_exe()?)
        .args([figure, "--seed", &lab.seed.to_string()])
        .args(["--outside", &name_of("self")?, "--gateway"])
        .arg(&lab.gateway)
        .stderr(Stdio::inherit());
    if lab.short {
        program.arg("--short");
    }
    // It lives as long as the thread that starts it, which waits.
    let output = output_of(program).await?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{figure} in a network of its own ended: {}", output.status))
}

/// Says what stands in the way of a network of its own, if something does.
///
/// # Errors
/// If that cannot be told.
pub fn missing() -> anyhow::Result<Option<String>> {
    let tried = unshared()?.args(["sh", "-c", TRIED]).output();
    let tried = tried.context("cannot run unshare of util-linux")?;
    let complaint = String::from_utf8_lossy(&tried.stderr);
    let complaint = complaint.trim().replace('\n', "; ");
    Ok((!tried.status.success()).then(|| {
        format!(
            "it needs a network namespace, with ip (iproute2) and iptables allowed there: {complaint}"
        )
    }))
}

/// Returns what runs a program in a network namespace of its own. Root needs nothing else for it;
/// others need a user namespace, in which they stay who they are.
fn unshared() -> anyhow::Result<Command> {
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    if fs::metadata("/proc/self")?.uid() != 0 {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
        // Where iptables is the old one, its lock is root's own.
        unshare.env("XTABLES_LOCKFILE", "/dev/null");
    }
    Ok(unshare)
}

/// Names the network that a process is in.
fn name_of(process: &str) -> anyhow::Result<String> {
    let name = fs::read_link(format!("/proc/{process}/ns/net"));
    let name = name.with_context(|| format!("the network of process {process} has no name"))?;
    Ok(name.to_string_lossy().into_owned())
}

fn run(
    program: &str,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} ended: {}: {complaint}",
        output.status
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_dropped_in_the_network_that_a_figure_was_started_from() {
        let outside = name_of("self").unwrap();
        assert!(Network::enter(&outside).is_err());
    }
}
