//! The floor that gateways are measured against, as a program of its own.

use callgate_benches::floor;
use clap::Parser;

/// Relays calls between a carrier and an agent with as little as it takes
#[derive(Parser)]
struct Command {
    #[command(flatten)]
    floor: floor::Options,
}

fn main() -> anyhow::Result<()> {
    floor::run(&Command::parse().floor)?;
    Ok(())
}
