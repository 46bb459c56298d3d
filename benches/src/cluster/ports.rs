//! Ports for programs that cannot be given port 0, because others have to know them.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::Context;

/// Beside the ports that Linux gives to outgoing connections (from 32768 on), so that no connection
/// takes one between its choice and its program's start, nor while the program is being restarted.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// Returns a port of loopback that nobody listens on.
///
/// # Errors
/// If there is none.
pub fn free() -> anyhow::Result<u16> {
    let random = || rand::random_range(PORTS);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let found = std::iter::repeat_with(random).take(200).find(is_free);
    found.with_context(|| format!("no port of {PORTS:?} is free"))
}
