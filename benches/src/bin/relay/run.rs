//! One run: calls come in, talk, are measured, and hang up.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::audio::{FRAMES_PER_SECOND, now};
use crate::callers::Door;
use crate::candidate::{Around, Candidate, Placement, Running};
use crate::exchange::{Exchange, Heard, histogram};
use crate::line::Line;
use crate::pacer::{self, Mouth};
use crate::process::{self, Times};
use crate::rest::Rest;

/// How long the calls may take until each has an agent.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the callers talk on after what is measured, in frames.
const TAIL: u32 = 10;
/// How long a frame may take at the end of a run. One that takes longer is lost.
const GRACE: Duration = Duration::from_secs(1);
/// How long an idle process settles before its memory is read.
const SETTLING: Duration = Duration::from_millis(500);

/// How often ACS announces a call whose answer is timed, and how many are. Further calls come as
/// fast as they are answered: none of them may be silent for so long that it is given up.
const EVENT_EVERY: Duration = Duration::from_millis(50);
const TIMED_EVENTS: u16 = 100;

/// How many calls there are on each line.
#[derive(Clone, Copy)]
pub struct Crowd {
    pub line: Line,
    pub calls: u16,
}

/// How long the calls talk, in seconds.
#[derive(Clone, Copy)]
pub struct Load {
    pub warm_up: u16,
    pub seconds: u16,
}

/// What one run came to.
#[derive(Clone, Copy, Serialize)]
pub struct Measured {
    pub candidate: Candidate,
    pub calls: u16,
    pub cpu_ms_per_call_second: f64,
    /// How long the candidate waited for a core that something else had, in percent of the time.
    pub waited_percent: f64,
    pub idle_kib: u32,
    pub memory_per_call_kib: f64,
    /// From an event of ACS's to the request that answers its call, with the way there.
    pub answer_ms: Option<Answers>,
    /// How long callers and agent were at work, in percent of the time.
    pub generator_busy_percent: f64,
    pub generator_late_p99_ms: f64,
    pub generator_late_max_ms: f64,
}

#[derive(Clone, Copy, Serialize)]
pub struct Answers {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// What became of the frames of one line.
#[derive(Serialize)]
pub struct Became {
    pub round_trip_p50_ms: f64,
    pub round_trip_p99_ms: f64,
    pub round_trip_max_ms: f64,
    pub frames_sent: u32,
    pub frames_lost: u32,
    pub frames_duplicated: u32,
    pub frames_reordered: u32,
    pub frames_strange: u32,
    pub calls_dropped: u32,
}

/// Lets the calls of all lines talk, and returns what became of the frames of each. `meanwhile` is
/// done once all calls talk.
pub fn run(
    candidate: Candidate,
    placement: &Placement,
    rest: &Rest,
    crowds: &[Crowd],
    load: Load,
    meanwhile: impl FnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<(Measured, Vec<Became>)> {
    let Load { warm_up, seconds } = load;
    let calls = crowds.iter().map(|crowd| crowd.calls).sum();
    let lines: Vec<Line> = crowds.iter().map(|crowd| crowd.line).collect();
    let frames = |seconds: u16| u32::from(seconds) * FRAMES_PER_SECOND;
    let counted = frames(warm_up)..frames(warm_up) + frames(seconds);
    let (exchange, replies) = Exchange::start(counted.clone(), &lines)?;
    let around = Around {
        agent: exchange.agent,
        rest: rest.address,
        lines: &lines,
    };
    let running = Running::start(candidate, placement, &around, calls)?;
    let pid = running.pid();
    thread::sleep(SETTLING);
    let idle_kib = process::resident_kib(pid)?;

    let door = Door {
        candidate,
        address: running.address,
        rest,
    };
    let (mouths, answered) = come_in(&door, crowds, &exchange)?;
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
    meanwhile(running.address)?;
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
    let measured = Measured {
        candidate,
        calls,
        cpu_ms_per_call_second: spent.running.div_duration_f64(window) * 1e3 / f64::from(calls),
        waited_percent: spent.waiting.div_duration_f64(window) * 1e2,
        idle_kib,
        memory_per_call_kib: (f64::from(busy_kib) - f64::from(idle_kib)) / f64::from(calls),
        answer_ms: (!answered.is_empty()).then(|| Answers {
            p50: milliseconds(answered.value_at_quantile(0.5)),
            p99: milliseconds(answered.value_at_quantile(0.99)),
            max: milliseconds(answered.max()),
        }),
        generator_busy_percent: (talking_share + listening.div_duration_f64(window)) * 1e2,
        generator_late_p99_ms: milliseconds(late.value_at_quantile(0.99)),
        generator_late_max_ms: milliseconds(late.max()),
    };
    let became = crowds.iter().zip(&heard);
    let became =
        became.map(|(crowd, heard)| Became::of(heard, u32::from(crowd.calls) * frames(seconds)));
    Ok((measured, became.collect::<anyhow::Result<_>>()?))
}

/// Brings all calls in, one after the other, and returns how long ACS's took to be answered.
fn come_in(
    door: &Door<'_>,
    crowds: &[Crowd],
    exchange: &Exchange,
) -> anyhow::Result<(Vec<Mouth>, Histogram<u64>)> {
    let (mut mouths, mut answered) = (Vec::new(), histogram());
    for (at, &Crowd { line, calls }) in crowds.iter().enumerate() {
        let began = now();
        for nth in 0..calls {
            let index = u16::try_from(mouths.len())?;
            let is_timed = matches!(line, Line::Acs { .. })
                && door.candidate == Candidate::Gateway
                && nth < TIMED_EVENTS;
            if is_timed {
                let due = EVENT_EVERY * u32::from(nth);
                thread::sleep(due.saturating_sub(began.elapsed()));
            }
            let caller = door.call(line, index);
            let caller = caller.with_context(|| format!("call {index} did not come in"))?;
            if let Some(after) = caller.answered_after.filter(|_| is_timed) {
                answered.saturating_record(u64::try_from(after.as_nanos())?);
            }
            let mouth = caller.stream.try_clone()?;
            exchange.listen_to(index, at, caller.stream, caller.early)?;
            mouths.push(Mouth::new(caller.voice, line.audio(), mouth));
        }
    }
    Ok((mouths, answered))
}

impl Became {
    fn of(heard: &Heard, sent: u32) -> anyhow::Result<Self> {
        let trip = |quantile| milliseconds(heard.round_trips.value_at_quantile(quantile));
        Ok(Self {
            round_trip_p50_ms: trip(0.5),
            round_trip_p99_ms: trip(0.99),
            round_trip_max_ms: milliseconds(heard.round_trips.max()),
            frames_sent: sent,
            frames_lost: sent - u32::try_from(heard.round_trips.len())?,
            frames_duplicated: heard.duplicated,
            frames_reordered: heard.reordered,
            frames_strange: heard.strange,
            calls_dropped: heard.calls_dropped,
        })
    }

    /// Tells whether all frames came back as they should.
    pub fn is_whole(&self) -> bool {
        let Self {
            frames_lost: lost,
            frames_duplicated: duplicated,
            frames_reordered: reordered,
            frames_strange: strange,
            calls_dropped: dropped,
            ..
        } = self;
        [lost, duplicated, reordered, strange, dropped]
            .iter()
            .all(|count| **count == 0)
    }
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}
