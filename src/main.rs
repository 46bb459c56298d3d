//! The commands.

use std::{
    future::Future,
    io::{IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use callgate::{
    ApiCommandError, Config, EventsError, EventsOptions, Finding, Gateway, KeysOptions, Level,
    RecordsOptions, Running, SimulateOptions, SlotsError, SlotsOptions, demo,
    parrot::{Parrot, ParrotOptions},
};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// It gives back to the system what a burst has taken; glibc's keeps pages of which a little is used, and
/// a gateway that runs for weeks grows by them. It allocates for SQLite as well, and gives back by threads
/// of its own what seldom working threads have kept.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A voice gateway between phone carriers and AI agents that speak.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve calls until SIGTERM; settings come from the environment and `.env`
    Serve,
    /// Try the settings and what they name, without a call
    Check(CheckOptions),
    /// Tell by the exit code whether the gateway with these settings is alive, for container health checks
    Health,
    /// Serve with all defaults, while a few simulated callers talk
    Demo,
    /// Call a gateway without a phone
    Simulate(Box<SimulateOptions>),
    /// Look at the slots that replicas share, and take one back
    Slots(SlotsOptions),
    /// Make, list and revoke the keys of /v1
    Keys(KeysOptions),
    /// Delete what is known of calls
    Records(RecordsOptions),
    /// Print the OpenAPI document of /v1
    Openapi,
    /// Look at events that endpoints were not told, and send them again
    Events(EventsOptions),
    /// Serve the built-in agent, which says back what it hears, as OpenAI's agents speak, or as
    /// Azure Voice Live's do to a client that asks for /voice-live/realtime
    Parrot(ParrotOptions),
}

#[derive(clap::Args)]
struct CheckOptions {
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    /// How long whoever stops the gateway waits before it kills, in seconds; in place of
    /// `TERMINATION_GRACE_SECONDS`
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32))]
    grace: Option<u32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command.unwrap_or(Command::Serve)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("callgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    let done = local.block_on(&runtime, async {
        match command {
            Command::Serve => Box::pin(serve()).await,
            Command::Check(options) => check(&options).await,
            Command::Health => health(),
            Command::Demo => Box::pin(try_out()).await,
            Command::Simulate(options) => simulate(*options).await,
            Command::Slots(options) => slots(options).await,
            Command::Keys(options) => {
                read_dotenv()?;
                told(callgate::keys(options, setting).await)
            }
            Command::Records(options) => {
                read_dotenv()?;
                told(callgate::erase_records(options, setting).await)
            }
            Command::Openapi => told(Ok(callgate::openapi())),
            Command::Events(options) => events(options).await,
            Command::Parrot(options) => parrot(options).await,
        }
    });
    // A name that is still looked up, for nobody, must not hold up the end.
    runtime.shutdown_background();
    done
}

async fn slots(options: SlotsOptions) -> anyhow::Result<ExitCode> {
    read_dotenv()?;
    match callgate::slots(options, setting).await {
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}"); // Whoever reads it may have left.
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ (SlotsError::Config(_) | SlotsError::Campaigns(_) | SlotsError::InMemory)) => {
            eprintln!("callgate: {error}");
            Ok(ExitCode::from(78)) // EX_CONFIG of sysexits.h.
        }
        Err(error) => Err(error.into()),
    }
}

/// Prints what a command came to.
fn told(done: Result<String, ApiCommandError>) -> anyhow::Result<ExitCode> {
    match done {
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}"); // Whoever reads it may have left.
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ ApiCommandError::Config(_)) => {
            eprintln!("callgate: {error}");
            Ok(ExitCode::from(78)) // EX_CONFIG of sysexits.h.
        }
        Err(error) => Err(error.into()),
    }
}

async fn events(options: EventsOptions) -> anyhow::Result<ExitCode> {
    read_dotenv()?;
    match callgate::events(options, setting).await {
        Ok(text) => {
            let _ = writeln!(std::io::stdout(), "{text}"); // Whoever reads it may have left.
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ EventsError::Config(_)) => {
            eprintln!("callgate: {error}");
            Ok(ExitCode::from(78)) // EX_CONFIG of sysexits.h.
        }
        Err(error) => Err(error.into()),
    }
}

async fn serve() -> anyhow::Result<ExitCode> {
    read_dotenv()?;
    let config = match Config::load(setting) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("callgate: {error}");
            return Ok(ExitCode::from(78)); // EX_CONFIG of sysexits.h.
        }
    };
    callgate::log_to_stderr(setting("RUST_LOG").as_deref(), config.log_format);
    let (first, second) = stop_signals()?;
    // A service is told to reload, with or without a file to read again. Who has started it by hand
    // closes the terminal, and wants it to end.
    let mut reload = if config.campaigns.is_some() || !std::io::stdin().is_terminal() {
        Some(signal(SignalKind::hangup())?)
    } else {
        None
    };
    let running = match Gateway::start(config).await {
        Ok(running) => running,
        Err(error) => {
            let code = error.exit_code();
            eprintln!("callgate: {:#}", anyhow::Error::from(error));
            return Ok(ExitCode::from(code));
        }
    };
    tokio::select! {
        () = first => {}
        () = running.drain_wanted() => {}
        () = reload_at(reload.as_mut(), &running) => {}
    }
    running.drain(second).await;
    Ok(ExitCode::SUCCESS)
}

/// Reads the campaign file again at each signal; never completes.
async fn reload_at(signal: Option<&mut Signal>, running: &Running) {
    if let Some(signal) = signal {
        while let Some(()) = signal.recv().await {
            running.reload_campaigns().await;
        }
    }
    std::future::pending::<()>().await;
}

async fn check(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    read_dotenv()?;
    let grace = options
        .grace
        .map(|seconds| Duration::from_secs(seconds.into()));
    let findings = callgate::check(setting, grace).await;
    let mut levels = findings.iter().map(Finding::level);
    let wrong = levels.any(|level| level == Level::Error);
    let text = if options.json {
        serde_json::json!({"ok": !wrong, "findings": findings}).to_string()
    } else {
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    // Whoever reads it may have left; what was found decides how we end.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(if wrong {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// An image without a shell has nothing else to ask with.
fn health() -> anyhow::Result<ExitCode> {
    read_dotenv()?;
    match Config::load(setting) {
        Ok(config) if callgate::is_alive(config.listen) => Ok(ExitCode::SUCCESS),
        Ok(config) => {
            eprintln!("callgate: no gateway answers at {}", config.listen);
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            eprintln!("callgate: {error}");
            Ok(ExitCode::from(78)) // EX_CONFIG of sysexits.h.
        }
    }
}

/// Takes the settings of `.env` in, where the environment has none.
fn read_dotenv() -> anyhow::Result<()> {
    match dotenvy::from_path(".env") {
        // A file that is not there is no mistake; one that cannot be read is.
        Err(error) if !error.not_found() => Err(error).context("cannot read .env"),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn try_out() -> anyhow::Result<ExitCode> {
    let quiet = setting("RUST_LOG").unwrap_or_else(|| "warn".to_owned());
    callgate::log_to_stderr(Some(&quiet), callgate::LogFormat::Text);
    Box::pin(demo::run(stop_token()?)).await?;
    Ok(ExitCode::SUCCESS)
}

async fn simulate(options: SimulateOptions) -> anyhow::Result<ExitCode> {
    let json = options.json;
    let report = callgate::simulate(options, stop_token()?).await?;
    let text = if json { report.json() } else { report.table() };
    // Whoever reads it may have left; what the callers met decides how we end.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(if report.all_well() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn parrot(options: ParrotOptions) -> anyhow::Result<ExitCode> {
    callgate::log_to_stderr(setting("RUST_LOG").as_deref(), callgate::LogFormat::Text);
    let (first, _) = stop_signals()?;
    let listen = options.listen;
    let parrot = Parrot::start(options).await;
    let parrot = parrot.with_context(|| format!("cannot listen on {listen} (--listen)"))?;
    println!("the parrot listens on {}", parrot.url());
    println!("and, as Voice Live, on {}", parrot.voice_live_url());
    first.await;
    parrot.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Is cancelled by the first SIGTERM or SIGINT.
fn stop_token() -> anyhow::Result<CancellationToken> {
    let (first, _) = stop_signals()?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    TaskTracker::new().spawn(async move {
        first.await;
        stopped.cancel();
    });
    Ok(stop)
}

/// Completes at the first, and then at the second, SIGTERM or SIGINT.
fn stop_signals() -> anyhow::Result<(impl Future<Output = ()>, impl Future<Output = ()>)> {
    let (told, mut first) = tokio::sync::watch::channel(0_u32);
    let mut second = first.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listening = TaskTracker::new();
    listening.spawn(async move {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => {}
                Some(()) = interrupt.recv() => {}
                else => return,
            }
            told.send_modify(|times| *times += 1);
        }
    });
    let at_first = async move {
        let _ = first.wait_for(|times| *times >= 1).await;
    };
    let at_second = async move {
        let _ = second.wait_for(|times| *times >= 2).await;
    };
    Ok((at_first, at_second))
}

/// Returns what a setting is set to.
#[expect(
    clippy::disallowed_methods,
    reason = "this is where `Config` gets its settings from"
)]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
