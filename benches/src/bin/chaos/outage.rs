//! R6: calls beyond the cap, and calls that are turned away for nothing, while Redis is away.
//!
//! With the house at 40 %, three times as many calls ring as there is room for, and Redis goes: it
//! is killed, it hangs, it hangs for longer than a lease, it is not there when the replicas start,
//! or one replica alone does not reach it. Calls come in by nginx, so that the replica that admits
//! one is rarely the one that gets its media.

mod acting;
mod judging;

use std::time::Duration;

use callgate_benches::cluster::{Cluster, Proxied};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use crate::lab::{Lab, REPLICAS, Verdict, conclude};

/// How full the house is when Redis goes.
const OCCUPANCY: f64 = 0.4;
/// How much more rings then than there is room for.
const OVERLOAD: f64 = 3.0;
/// Shares are whole calls: of a small house they leave much of the room unused. That the replicas do
/// not divide it shows what a cold start rounds up.
const CAP: usize = 61;

/// What is done.
#[derive(Debug, Clone, Copy)]
struct Case {
    fault: Fault,
    length: Duration,
    /// Whether the media of a fifth of the callers never comes.
    with_silent_callers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Hung,
    /// The replicas start while Redis is away.
    ColdStart,
    /// One replica alone does not reach Redis: what it sends is lost on the way.
    CutOff,
    /// The same, and nobody takes its connections.
    CutOffRefused,
}

impl Case {
    fn of(fault: Fault, seconds: u64) -> Self {
        Self {
            fault,
            length: Duration::from_secs(seconds),
            with_silent_callers: false,
        }
    }

    fn all(lab: &Lab) -> Vec<Self> {
        let with_silent_callers = Self {
            with_silent_callers: true,
            ..Self::of(Fault::Killed, 60)
        };
        lab.or_short(
            vec![
                Self::of(Fault::Killed, 60),
                Self::of(Fault::Hung, 60),
                // Every lease lapses, and what Redis knew else is there again.
                Self::of(Fault::Hung, 38),
                with_silent_callers,
                Self::of(Fault::ColdStart, 30),
                // Shorter than a lease, and longer.
                Self::of(Fault::CutOff, 20),
                Self::of(Fault::CutOff, 45),
                Self::of(Fault::CutOffRefused, 20),
                Self::of(Fault::CutOffRefused, 45),
            ],
            vec![
                Self::of(Fault::Killed, 8),
                Self::of(Fault::Hung, 8),
                Self::of(Fault::ColdStart, 6),
            ],
        )
    }

    fn name(&self) -> String {
        let callers = if self.with_silent_callers {
            " with silent callers"
        } else {
            ""
        };
        format!("{:?} for {:?}{callers}", self.fault, self.length)
    }

    fn proxied(&self) -> Proxied {
        match self.fault {
            Fault::Killed | Fault::Hung | Fault::ColdStart => Proxied::Nobody,
            Fault::CutOff | Fault::CutOffRefused => Proxied::One,
        }
    }
}

pub async fn run(lab: &Lab) -> anyhow::Result<Verdict> {
    let cases = Case::all(lab);
    let bar = lab.bar(cases.len() as u64, "outage");
    let measure_one = async |(index, case): (usize, &Case)| {
        let options = lab.options().set("MAX_ACTIVE_CALLS", CAP);
        let mut cluster = Cluster::start(&options.by_proxy(case.proxied())).await?;
        let random = lab.random(&format!("outage {index}"));
        let measured = acting::measure(lab, &mut cluster, case, random).await;
        let judged = measured.map(|observed| judging::judge(case, &observed));
        let one = conclude(&mut cluster, judged)?;
        bar.inc(1);
        anyhow::Ok((case.name(), one))
    };
    // Beside each other where none of them has to be exact to the millisecond.
    let at_once = lab.or_short(1, cases.len());
    let parts: Vec<_> = stream::iter(cases.iter().enumerate())
        .map(measure_one)
        .buffered(at_once)
        .try_collect()
        .await?;
    bar.finish_and_clear();
    let parameters = json!({
        "cap": CAP, "occupancy": OCCUPANCY, "overload": OVERLOAD,
        "mean_call_seconds": mean(lab).as_secs_f64(), "replicas": REPLICAS,
        "silent_callers": acting::SILENT_CALLERS,
    });
    Ok(Verdict::of(parts, parameters))
}

fn mean(lab: &Lab) -> Duration {
    Duration::from_secs(lab.or_short(6, 4))
}
