//! Callers without a phone: plays the carriers and the callers against any gateway.
//!
//! Invariant: a caller sends a frame every 20 ms on deadlines that never drift, and reports how
//! late it was itself.
//! Invariant: whatever the gateway does, every call ends, and counts as exactly one result.

pub mod acs;
pub mod caller;
pub mod carrier;
mod carriers;
mod dialect;
mod echo;
mod loudspeaker;
mod message;
mod mix;
pub mod outcome;
mod pace;
pub mod plan;
mod reach;
mod recording;
pub mod report;
mod resample;
pub mod script;
mod stream;
pub mod twilio;
pub mod twiml;
pub mod voice;
mod web;
mod xml;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use secrecy::SecretString;
use tokio::{
    sync::{Mutex, mpsc},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use self::{
    acs::{FakeAcs, FakeAcsOptions, Phones},
    caller::any_number,
    carriers::{Carriers, announce},
    mix::{CarrierChoice, Mix},
    outcome::{CallEvent, CallOutcome},
    plan::CallPlan,
    reach::Reach,
    report::Report,
    script::Script,
    twilio::{Customer, FakeTwilio, FakeTwilioOptions, Talk},
    voice::Voices,
};
use crate::{
    call::Carrier,
    chunk::{Encoding, FRAME},
};

/// How long a caller who repeats waits before it calls again.
const CALLS_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The longest call or run.
const LONGEST: Duration = Duration::from_hours(30 * 24);

/// How often the progress is drawn.
const REDRAW: Duration = Duration::from_millis(200);

/// Callers without a phone, against any gateway.
#[derive(Debug, Clone, clap::Args)]
pub struct SimulateOptions {
    /// The gateway, as the carrier reaches it
    #[arg(long, default_value = "http://127.0.0.1:5050")]
    pub url: Url,

    /// What the gateway calls itself (its `PUBLIC_URL`), if that is not --url; signatures are over it
    #[arg(long)]
    pub public_url: Option<Url>,

    /// The auth token to sign with; the first one, if several are given
    #[arg(long, env = "TWILIO_AUTH_TOKEN", hide_env_values = true, value_parser = first_token)]
    pub auth_token: Option<SecretString>,

    /// The Twilio account that calls
    #[arg(
        long,
        env = "TWILIO_ACCOUNT_SID",
        default_value = "AC00000000000000000000000000000001"
    )]
    pub account_sid: String,

    /// Who brings the calls
    #[arg(long, value_enum, default_value = "twilio")]
    pub carrier: CarrierChoice,

    /// How many calls Twilio, ACS and browsers bring, with --carrier mixed
    #[arg(long, value_name = "TWILIO:ACS:WEB", default_value = "1:1:1")]
    pub mix: Mix,

    #[command(flatten)]
    pub acs: FakeAcsOptions,

    #[command(flatten)]
    pub twilio: FakeTwilioOptions,

    /// The operator's token, which makes one for each browser's call; production wants it
    #[arg(long, env = "OPS_TOKEN", hide_env_values = true)]
    pub ops_token: Option<SecretString>,

    /// The campaign that browsers call
    #[arg(long)]
    pub campaign: Option<String>,

    /// How many callers there are
    #[arg(long, default_value_t = 1)]
    pub calls: usize,

    /// New calls per second
    #[arg(long, default_value = "20", value_parser = rate)]
    pub rate: f64,

    /// How long the run goes on, as in 60s; without it, until every caller made its call
    #[arg(long = "for", value_parser = duration)]
    pub run_for: Option<Duration>,

    /// Callers call again after hanging up
    #[arg(long, requires = "run_for")]
    pub repeat: bool,

    /// How long a call lasts
    #[arg(long, default_value = "20s", value_parser = duration)]
    pub talk_for: Duration,

    /// What callers do
    #[arg(long, value_enum, default_value = "talk")]
    pub script: Script,

    /// The number that is called
    #[arg(long, default_value = "+972721234567")]
    pub to: String,

    /// The number that calls; without it, another one for each caller
    #[arg(long)]
    pub from: Option<String>,

    /// Keys that each caller presses, as in 1234#
    #[arg(long, default_value = "", value_parser = keys)]
    pub press: String,

    /// A WAV file that callers say; without it, Hebrew and English sentences
    #[arg(long, value_name = "FILE.wav")]
    pub say: Option<PathBuf>,

    /// Writes a stereo WAV file of each call into a folder: left what was said, right what was heard
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,

    /// The number's fallback document, obeyed when the gateway fails
    #[arg(long, value_name = "FILE.xml")]
    pub fallback: Option<PathBuf>,

    /// Prints one line of JSON, not a table
    #[arg(long)]
    pub json: bool,

    /// The agent echoes each frame: measures the round trip of each. Callers do not wait for answers
    #[arg(long)]
    pub echo: bool,

    /// Makes the callers' choices the same in each run
    #[arg(long)]
    pub seed: Option<u64>,
}

/// What the callers of a run share.
struct Run {
    options: SimulateOptions,
    carriers: Carriers,
    voices: Arc<Voices>,
    fallback: Option<Arc<str>>,
    seed: u64,
    /// Lets one new call through at a time.
    gate: Mutex<Interval>,
    /// How many callers are connected, and how many were at most.
    connected: AtomicUsize,
    most_connected: AtomicUsize,
    /// Cancelled when callers are to hang up.
    over: CancellationToken,
    ended: mpsc::Sender<CallOutcome>,
}

/// Lets the callers call, until all are done, the time is up or `stop` is cancelled; then they
/// hang up as callers do. Shows progress on a terminal.
///
/// # Errors
/// If a file that the options name cannot be used, or the gateway wants no fake ACS.
pub async fn run(options: SimulateOptions, stop: CancellationToken) -> anyhow::Result<Report> {
    if options.twilio.listen.is_some() {
        return answer(options, stop).await;
    }
    let (ended, mut outcomes) = mpsc::channel(64);
    let began = Instant::now();
    let deadline = options.run_for.map(|long| began + long);
    let (callers, repeat) = (options.calls, options.repeat);
    let over = stop.child_token();
    let run = Arc::new(Run::prepare(options, over.clone(), ended).await?);
    let tasks = TaskTracker::new();
    for number in 0..callers {
        tasks.spawn(run.clone().caller(number));
    }
    tasks.close();

    let mut report = Report::new();
    let progress = progress((!repeat).then_some(callers as u64));
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut done = std::pin::pin!(tasks.wait());
    loop {
        let connected = run.connected.load(Ordering::Relaxed);
        tokio::select! {
            Some(outcome) = outcomes.recv() => {
                report.add(&outcome);
                progress.inc(1);
            }
            () = &mut done => break,
            () = sleep_until(deadline.unwrap_or(began)), if deadline.is_some() && !over.is_cancelled() => {
                over.cancel();
            }
            _ = redraw.tick() => {
                progress.set_message(format!("{connected} connected  {}", report.summary()));
            }
        }
    }
    while let Ok(outcome) = outcomes.try_recv() {
        report.add(&outcome);
    }
    progress.finish_and_clear();
    report.finish(began.elapsed(), run.most_connected.load(Ordering::Relaxed));
    if let Some(run) = Arc::into_inner(run) {
        run.carriers.stop().await;
    }
    Ok(report)
}

/// Answers the calls that a gateway places, until the time is up or `stop` is cancelled.
///
/// # Errors
/// If a file that the options name cannot be used, or the address.
async fn answer(options: SimulateOptions, stop: CancellationToken) -> anyhow::Result<Report> {
    let (ended, mut outcomes) = mpsc::channel(64);
    let run_for = options.run_for.unwrap_or(LONGEST);
    let answering = Answering::start(options, ended).await?;
    let began = Instant::now();
    let mut report = Report::new();
    let mut time_is_up = std::pin::pin!(sleep(run_for));
    loop {
        tokio::select! {
            Some(outcome) = outcomes.recv() => report.add(&outcome),
            () = &mut time_is_up => break,
            () = stop.cancelled() => break,
        }
    }
    match answering {
        Answering::Twilio(twilio) => twilio.stop().await,
        Answering::Acs(acs) => acs.stop().await,
    }
    while let Ok(outcome) = outcomes.try_recv() {
        report.add(&outcome);
    }
    report.finish(began.elapsed(), 0);
    Ok(report)
}

/// Who takes the calls that a gateway places.
enum Answering {
    Twilio(FakeTwilio),
    Acs(FakeAcs),
}

impl Answering {
    async fn start(
        options: SimulateOptions,
        ended: mpsc::Sender<CallOutcome>,
    ) -> anyhow::Result<Self> {
        let voices = voices(&options, options.seed.unwrap_or_else(rand::random))?;
        let talk = Talk {
            script: options.script,
            talk_for: options.talk_for,
            voices: Arc::new(voices),
        };
        if options.carrier == CarrierChoice::Acs {
            let acs = FakeAcsOptions {
                listen: options.twilio.listen,
                ..options.acs
            };
            let acs = FakeAcs::start(acs).await?;
            announce(&acs);
            acs.connect(Phones {
                gateway: Arc::new(Reach::new(&options.url, options.public_url.as_ref())),
                callee: options.twilio.callee,
                faults: options.twilio.call_faults,
                talk,
                ended: Some(ended),
            });
            return Ok(Self::Acs(acs));
        }
        let customer = Customer {
            gateway: options.url,
            public: options.public_url,
            auth_token: options.auth_token,
            account_sid: options.account_sid,
        };
        let twilio = FakeTwilio::start(options.twilio, customer, talk, Some(ended)).await?;
        eprintln!(
            "A fake Twilio is at {}. The gateway needs TWILIO_API_BASE={}, and these credentials.",
            twilio.url(),
            twilio.url()
        );
        Ok(Self::Twilio(twilio))
    }
}

fn voices(options: &SimulateOptions, seed: u64) -> anyhow::Result<Voices> {
    match &options.say {
        Some(file) => {
            Voices::from_file(file, seed).with_context(|| format!("cannot say {}", file.display()))
        }
        None => Ok(Voices::shipped(seed)),
    }
}

impl Run {
    async fn prepare(
        options: SimulateOptions,
        over: CancellationToken,
        ended: mpsc::Sender<CallOutcome>,
    ) -> anyhow::Result<Self> {
        let seed = options.seed.unwrap_or_else(rand::random);
        let mut rng = StdRng::seed_from_u64(seed);
        let voices = voices(&options, seed)?;
        let read = |file: &PathBuf| {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
        };
        let fallback = options.fallback.as_ref().map(read).transpose()?;
        if let Some(folder) = &options.record {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot record into {}", folder.display()))?;
        }
        let carriers = Carriers::prepare(&options, &mut rng).await?;
        // The first callers would be late otherwise.
        for (carrier, encoding) in [
            (Carrier::Twilio, Encoding::Mulaw),
            (Carrier::Acs, Encoding::Pcm24k),
            (Carrier::Web, Encoding::Pcm24k),
        ] {
            if Mix::of(options.carrier, options.mix).has(carrier) {
                voices.encoded(encoding);
            }
        }
        let mut gate = interval(Duration::from_secs_f64(options.rate.recip()));
        gate.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            options,
            carriers,
            voices: Arc::new(voices),
            fallback: fallback.map(Arc::from),
            seed,
            gate: Mutex::new(gate),
            connected: AtomicUsize::new(0),
            most_connected: AtomicUsize::new(0),
            over,
            ended,
        })
    }

    /// One caller: calls, and calls again if it is to.
    async fn caller(self: Arc<Self>, number: usize) {
        let mut rng = StdRng::seed_from_u64(self.seed.wrapping_add(number as u64));
        let from = self.options.from.clone();
        let from = from.unwrap_or_else(|| any_number(&mut rng));
        loop {
            let phase = FRAME.mul_f64(rng.random());
            let turn = async {
                self.gate.lock().await.tick().await;
                // Else callers that begin a multiple of 20 ms apart would all speak at once.
                sleep(phase).await;
            };
            if self.over.run_until_cancelled(turn).await.is_none() {
                return;
            }
            let plan = self.plan(&from, &mut rng);
            let mut watch = |event: CallEvent| self.count(&event);
            let outcome = self.carriers.call(plan, &mut watch, &self.over).await;
            if self.ended.send(outcome).await.is_err() || !self.options.repeat {
                return;
            }
            let pause = sleep(CALLS_AGAIN_AFTER);
            if self.over.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    fn plan(&self, from: &str, rng: &mut StdRng) -> CallPlan {
        CallPlan {
            from: from.to_owned(),
            to: self.options.to.clone(),
            script: self.options.script.of_a_call(rng),
            talk_for: self.options.talk_for,
            echo: self.options.echo,
            keys: self.options.press.clone(),
            record: self.options.record.clone(),
            fallback: self.fallback.clone(),
            voices: Arc::clone(&self.voices),
            seed: rng.random(),
        }
    }

    fn count(&self, event: &CallEvent) {
        if *event == CallEvent::Connected {
            let connected = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_connected.fetch_max(connected, Ordering::Relaxed);
        } else if let CallEvent::StreamEnded(_) = event {
            self.connected.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Returns a bar, or without a known number of calls a line, which is hidden where there is no
/// terminal.
fn progress(calls: Option<u64>) -> ProgressBar {
    let progress = ProgressBar::with_draw_target(calls, ProgressDrawTarget::stderr());
    let template = match calls {
        Some(_) => "{elapsed_precise} {bar:30} {pos}/{len} calls ended  {msg}",
        None => "{elapsed_precise} {pos} calls ended  {msg}",
    };
    progress.set_style(ProgressStyle::with_template(template).expect("the tests parse both"));
    progress
}

/// Reads a duration such as 90s, 2m or 1h30m; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let duration: jiff::SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
        Duration::try_from(duration).map_err(|_| "a duration is not negative".to_owned())?
    };
    if duration > LONGEST {
        return Err("at most 30 days".into());
    }
    Ok(duration)
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("from 0.001 to 10000 calls per second".into()),
    }
}

fn keys(text: &str) -> Result<String, String> {
    let known = |key: char| key.is_ascii_digit() || matches!(key, '*' | '#');
    if text.chars().all(known) {
        Ok(text.to_owned())
    } else {
        Err("keys are 0 to 9, * and #".into())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the signature that clap asks for")]
fn first_token(text: &str) -> Result<SecretString, String> {
    Ok(text.split(',').next().unwrap_or_default().trim().into())
}
