//! Which figures there are, which of them can be measured at once, and how long each may take.

use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::lab::{Lab, Verdict};
use crate::{
    canary, dataloss, dials, duplicates, events, failover, halfopen, leaks, outage, overadmission,
    overload, reclaim, rollover, webhooks,
};

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    All,
    /// R1: slots left over after calls, kills and restarts
    Leaks,
    /// R2: calls admitted beyond a cap, at once
    Overadmission,
    /// R4: how long the slots of a killed replica stay taken
    Reclaim,
    /// R5: calls beyond the cap after Redis has lost everything
    Dataloss,
    /// R6: calls beyond the cap, and calls turned away for nothing, while Redis is away
    Outage,
    /// F7: calls that Redis forgets, or keeps too long, when its copy takes over
    Failover,
    /// How long webhooks take: over Redis, with Redis hung, and without it
    Webhooks,
    /// R11: slots, answers and ends of calls whose webhooks come more than once
    Duplicates,
    /// R19: how long the slots of calls stay taken whose carrier or agent has vanished
    Halfopen,
    /// R12: events lost or told twice while their receiver fails and replicas are killed
    Events,
    /// R21: secrets, whole numbers and words of callers where they do not belong
    Canary,
    /// R9: calls that are cut and webhooks that fail while replicas are replaced one after the other
    Rollover,
    /// R14, R15: what callers get, and how good their audio is, when up to ten times as many ring as
    /// there is room for
    Overload,
    /// R20: numbers called twice, and calls and slots that nobody looks after, while the carrier fails
    /// and replicas are killed
    Dials,
}

impl Choice {
    /// All figures, in turn. Those of a line are measured beside each other in a short run: what
    /// they wait for is time, and none of them has to be exact to the millisecond. Where Redis has to
    /// answer in time, or calls are admitted without it, a figure has the machine to itself.
    const FIGURES: [&[Self]; 9] = [
        &[Self::Overadmission],
        &[Self::Webhooks],
        &[Self::Overload],
        &[Self::Duplicates],
        &[Self::Dataloss],
        &[Self::Outage],
        &[Self::Failover],
        &[Self::Leaks, Self::Reclaim, Self::Halfopen],
        &[Self::Rollover, Self::Events, Self::Dials, Self::Canary],
    ];

    /// Returns the figures that this stands for, those together that are measured at once.
    pub fn figures(self, short: bool) -> Vec<Vec<Self>> {
        if self != Self::All {
            return vec![vec![self]];
        }
        if short {
            return Self::FIGURES.map(<[Self]>::to_vec).into();
        }
        let figures = Self::FIGURES.concat().into_iter();
        figures.map(|figure| vec![figure]).collect()
    }

    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Tells whether a replica alone, without Redis, can show anything.
    pub fn works_in_memory(self) -> bool {
        match self {
            Self::All | Self::Overadmission | Self::Webhooks => true,
            Self::Leaks
            | Self::Reclaim
            | Self::Dataloss
            | Self::Outage
            | Self::Failover
            | Self::Duplicates
            | Self::Halfopen
            | Self::Events
            | Self::Dials
            | Self::Rollover
            | Self::Overload
            | Self::Canary => false,
        }
    }

    /// How long it may take at most.
    fn bound(self, short: bool) -> Duration {
        let minutes = match self {
            _ if short => 4,
            Self::Overadmission
            | Self::Webhooks
            | Self::Dataloss
            | Self::Failover
            | Self::Halfopen
            | Self::Events
            | Self::Dials
            | Self::Overload
            | Self::Canary => 20,
            Self::All | Self::Leaks | Self::Reclaim | Self::Outage | Self::Duplicates => 40,
            Self::Rollover => 60,
        };
        Duration::from_secs(minutes * 60)
    }

    /// Measures it within its bound; says how long that took, too.
    pub async fn verdict(self, lab: &Lab) -> (Verdict, Duration) {
        let began = Instant::now();
        let bound = self.bound(lab.short);
        let measured = timeout(bound, self.measure(lab)).await;
        let measured = measured
            .with_context(|| format!("it is not over after {bound:?}"))
            .and_then(|measured| measured);
        (
            measured.unwrap_or_else(|error| failed(&error)),
            began.elapsed(),
        )
    }

    async fn measure(self, lab: &Lab) -> anyhow::Result<Verdict> {
        match self {
            Self::Leaks => leaks::run(lab).await,
            Self::Overadmission => overadmission::run(lab).await,
            Self::Reclaim => reclaim::run(lab).await,
            Self::Dataloss => dataloss::run(lab).await,
            Self::Outage => outage::run(lab).await,
            Self::Failover => failover::run(lab).await,
            Self::Webhooks => webhooks::run(lab).await,
            Self::Duplicates => duplicates::run(lab).await,
            Self::Halfopen => halfopen::run(lab).await,
            Self::Events => events::run(lab).await,
            Self::Dials => dials::run(lab).await,
            Self::Rollover => rollover::run(lab).await,
            Self::Overload => overload::run(lab).await,
            Self::Canary => canary::run(lab).await,
            Self::All => unreachable!("it stands for the others"),
        }
    }
}

/// What is said of a figure that could not be measured to its end.
fn failed(error: &anyhow::Error) -> Verdict {
    Verdict {
        passed: false,
        line: format!("{error:#}"),
        parameters: Value::Null,
        result: json!({"error": format!("{error:#}")}),
        samples: Value::Null,
        logs: None,
    }
}
