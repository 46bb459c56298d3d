//! One run: calls come in, talk, are measured, and hang up.

use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use serde::Serialize;

use crate::audio::{FRAMES_PER_SECOND, now};
use crate::callers::Caller;
use crate::candidate::{Candidate, Placement, Running};
use crate::exchange::Exchange;
use crate::pacer::{self, Mouth};
use crate::process::{self, Times};

/// How long the calls may take until each has an agent.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the callers talk on after what is measured, in frames.
const TAIL: u32 = 10;
/// How long a frame may take at the end of a run. One that takes longer is lost.
const GRACE: Duration = Duration::from_secs(1);
/// How long an idle process settles before its memory is read.
const SETTLING: Duration = Duration::from_millis(500);

/// How many calls there are and how long they talk, in seconds.
#[derive(Clone, Copy)]
pub struct Load {
    pub calls: u16,
    pub warm_up: u16,
    pub seconds: u16,
}

/// What one run came to.
#[derive(Serialize)]
pub struct Measured {
    pub candidate: Candidate,
    pub calls: u16,
    pub cpu_ms_per_call_second: f64,
    /// How long the candidate waited for a core that something else had, in percent of the time.
    pub waited_percent: f64,
    pub idle_kib: u32,
    pub memory_per_call_kib: f64,
    pub round_trip_p50_ms: f64,
    pub round_trip_p99_ms: f64,
    pub round_trip_max_ms: f64,
    pub frames_sent: u32,
    pub frames_lost: u32,
    pub frames_duplicated: u32,
    pub frames_reordered: u32,
    pub frames_strange: u32,
    pub calls_dropped: u32,
    /// How long callers and agent were at work, in percent of the time.
    pub generator_busy_percent: f64,
    pub generator_late_p99_ms: f64,
    pub generator_late_max_ms: f64,
}

pub fn run(candidate: Candidate, placement: &Placement, load: Load) -> anyhow::Result<Measured> {
    let Load {
        calls,
        warm_up,
        seconds,
    } = load;
    let frames = |seconds: u16| u32::from(seconds) * FRAMES_PER_SECOND;
    let counted = frames(warm_up)..frames(warm_up) + frames(seconds);
    let (exchange, replies) = Exchange::start(counted.clone())?;
    let running = Running::start(candidate, placement, exchange.agent, calls)?;
    let pid = running.pid();
    thread::sleep(SETTLING);
    let idle_kib = process::resident_kib(pid)?;

    let mut mouths = Vec::new();
    for index in 0..calls {
        let caller = Caller::call(candidate, running.address, index)
            .with_context(|| format!("call {index} did not come in"))?;
        let mouth = caller.stream.try_clone()?;
        exchange.listen_to(index, caller.stream, caller.early)?;
        mouths.push(Mouth::new(caller.side, mouth));
    }
    let began = now();
    while exchange.agents() < usize::from(calls) {
        let agents = exchange.agents();
        ensure!(began.elapsed() < PATIENCE, "{agents} of {calls} agents");
        thread::sleep(Duration::from_millis(20));
    }

    let began = now();
    let talking = thread::spawn({
        let counted = counted.clone();
        let frames = counted.end + TAIL;
        move || pacer::talk(mouths, &replies, began, frames, &counted)
    });
    thread::sleep(Duration::from_secs(warm_up.into()).saturating_sub(began.elapsed()));
    let (before, busy_before, at) = (Times::of(pid)?, exchange.busy(), now());
    let end = Duration::from_secs((warm_up + seconds).into());
    thread::sleep(end.saturating_sub(began.elapsed()));
    let (after, busy_after) = (Times::of(pid)?, exchange.busy());
    let window = at.elapsed();
    let busy_kib = process::resident_kib(pid)?;

    let talked = talking.join();
    let talked = talked.map_err(|_| anyhow!("the callers panicked"))??;
    let talking_share = talked.running.div_duration_f64(end);
    let late = talked.late;
    thread::sleep(GRACE);
    let heard = exchange.finish()?;
    pacer::hang_up(talked.mouths);

    let spent = after.since(before);
    let listening = busy_after.saturating_sub(busy_before);
    let frames_sent = u32::from(calls) * frames(seconds);
    let frames_heard = u32::try_from(heard.round_trips.len())?;
    let trip = |quantile| milliseconds(heard.round_trips.value_at_quantile(quantile));
    Ok(Measured {
        candidate,
        calls,
        cpu_ms_per_call_second: spent.running.div_duration_f64(window) * 1e3 / f64::from(calls),
        waited_percent: spent.waiting.div_duration_f64(window) * 1e2,
        idle_kib,
        memory_per_call_kib: (f64::from(busy_kib) - f64::from(idle_kib)) / f64::from(calls),
        round_trip_p50_ms: trip(0.5),
        round_trip_p99_ms: trip(0.99),
        round_trip_max_ms: milliseconds(heard.round_trips.max()),
        frames_sent,
        frames_lost: frames_sent - frames_heard,
        frames_duplicated: heard.duplicated,
        frames_reordered: heard.reordered,
        frames_strange: heard.strange,
        calls_dropped: heard.calls_dropped,
        generator_busy_percent: (talking_share + listening.div_duration_f64(window)) * 1e2,
        generator_late_p99_ms: milliseconds(late.value_at_quantile(0.99)),
        generator_late_max_ms: milliseconds(late.max()),
    })
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}
