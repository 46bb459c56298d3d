//! What operators are told of what is to come, and of what calls cost: slots are looked at every ten
//! seconds, and the database is asked when somebody wants to know.
//!
//! Invariant: however many want to know, a replica asks the database once at a time, and again after
//! a hundred times of what that took at the earliest.

mod costs;

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::web;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::Scope,
    api::usage::{Used, used_by_all},
    campaign::Campaigns,
    forecast::{MEASURED_OVER, Measured, Need, Trend, measured_over},
    gateway::Gateway,
    record::{CampaignTraffic, DatabaseError, traffic},
};

pub use costs::{Costs, Spent};

/// How often it is looked how many slots are held, and over which time their slope is told.
const LOOK: Duration = Duration::from_secs(10);
const SLOPE_OVER: Duration = Duration::from_secs(300);
/// For how many days before today it is told what calls cost.
const DAYS: i64 = 6;
/// How old an answer of the database may be, and how many times longer than it took.
const FRESH: Duration = Duration::from_secs(10);
const FRESH_TIMES: u32 = 100;
const OLDEST: Duration = Duration::from_secs(600);
/// How long whoever wants to know waits for the database.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen lately.
#[derive(Debug, Default)]
pub struct Outlook {
    seen: Mutex<Seen>,
    /// Held by whoever asks the database; others take what is there.
    asking: tokio::sync::Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Seen {
    /// What each scope held, since the start of the process, the latest last.
    held: VecDeque<(Duration, Vec<(Scope, u32)>)>,
    traffic: Option<(Timestamp, Vec<CampaignTraffic>)>,
    costs: Option<Costs>,
}

/// When the database was last asked.
#[derive(Debug, Default)]
struct Asked {
    at: Option<Instant>,
    took: Duration,
}

/// What is to come, for each scope that has a cap.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Forecast {
    /// When arrivals were measured, if the database has told, and over how long a time; `None` while
    /// that is too short to say anything.
    pub measured_at: Option<Timestamp>,
    pub measured_over_s: Option<u64>,
    pub scopes: Vec<Outcome>,
}

/// What is to come in one scope.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub scope: String,
    pub used: u32,
    pub cap: u32,
    /// How fast calls get more, a minute; `None` before a minute was seen.
    pub slope_per_minute: Option<f64>,
    /// When the cap is full if they go on so; `None` if never, or not within a day.
    pub full_in_s: Option<u64>,
    /// `None` where arrivals are not measured by this scope, or nothing has come and ended.
    pub need: Option<ShownNeed>,
}

/// What measured calls need of a scope.
#[derive(Debug, Clone, Serialize)]
pub struct ShownNeed {
    pub arrivals: u64,
    pub refused: u64,
    pub arrivals_per_s: f64,
    pub mean_length_s: f64,
    /// Erlangs.
    pub offered: f64,
    /// The part of calls that the cap refuses, by Erlang B.
    pub refused_share: f64,
    /// The smallest cap that refuses one call in a hundred.
    pub cap_needed: u32,
}

/// Looks at slots until `stop`.
pub async fn look_out(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let usage = gateway.admission.usage(&gateway.campaigns.current());
        let held = usage.into_iter().map(|(scope, used, _)| (scope, used));
        gateway.outlook.see(gateway.age(), held.collect());
    }
}

impl Gateway {
    /// Returns what is to come, and what calls cost, as far as it is known.
    pub(crate) async fn outlook(&self) -> (Forecast, Option<Costs>) {
        self.ask_database().await;
        let campaigns = self.campaigns.current();
        let usage = self.admission.usage(&campaigns);
        let seen = self.outlook.lock();
        let (measured_at, traffic) = match &seen.traffic {
            Some((at, traffic)) => (Some(*at), traffic.as_slice()),
            None => (None, [].as_slice()),
        };
        let over = measured_at.and_then(|at| window(at, traffic));
        let outcomes = usage.into_iter().map(|(scope, used, cap)| {
            let trend = Trend::of(&seen.history(&scope), cap);
            let measured = measured_in(&scope, &campaigns, traffic);
            let need = over.and_then(|over| measured.need(over, cap));
            Outcome {
                scope: scope.to_string(),
                used,
                cap,
                slope_per_minute: trend.map(|trend| shown(trend.per_minute)),
                full_in_s: trend.and_then(|it| it.full_in).map(|it| it.as_secs()),
                need: need.map(|need| ShownNeed::of(measured, need)),
            }
        });
        let forecast = Forecast {
            measured_at,
            measured_over_s: over.map(|over| over.as_secs()),
            scopes: outcomes.collect(),
        };
        (forecast, seen.costs.clone())
    }

    /// Has the database tell, unless it has a moment ago or is being asked already.
    async fn ask_database(&self) {
        let Ok(mut asked) = self.outlook.asking.try_lock() else {
            return;
        };
        let fresh = (asked.took * FRESH_TIMES).clamp(FRESH, OLDEST);
        if asked.at.is_some_and(|at| at.elapsed() < fresh) {
            return;
        }
        let began = Instant::now();
        match timeout(PATIENCE, self.measure()).await {
            Ok(Ok((traffic, used))) => {
                let now = Timestamp::now();
                let mut seen = self.outlook.lock();
                seen.traffic = Some((now, traffic));
                let currency = self.operator.currency.clone();
                seen.costs = Some(Costs::of(now, used, currency));
            }
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "nobody could tell what calls need and cost");
            }
            Err(_) => tracing::debug!("the database is slow to tell what calls need and cost"),
        }
        *asked = Asked {
            at: Some(Instant::now()),
            took: began.elapsed(),
        };
    }

    async fn measure(&self) -> Result<(Vec<CampaignTraffic>, Vec<Used>), DatabaseError> {
        // As a tenant's questions: what calls and events need does not wait for it.
        let database = self.records.database.for_a_question(());
        let traffic = traffic(&database, MEASURED_OVER, self.longest_call).await?;
        Ok((traffic, used_by_all(&database, DAYS).await?))
    }
}

impl Outlook {
    fn see(&self, at: Duration, held: Vec<(Scope, u32)>) {
        let mut seen = self.lock();
        seen.held.push_back((at, held));
        let oldest = at.saturating_sub(SLOPE_OVER);
        while seen.held.front().is_some_and(|(at, _)| *at < oldest) {
            seen.held.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn history(&self, scope: &Scope) -> Vec<(Duration, u32)> {
        let looks = self.held.iter();
        let of_scope = looks.filter_map(|(at, held)| {
            let (_, used) = held.iter().find(|(seen, _)| seen == scope)?;
            Some((*at, *used))
        });
        of_scope.collect()
    }
}

/// Returns over how long a time calls were measured `at` that time; `None` while that says nothing.
fn window(at: Timestamp, traffic: &[CampaignTraffic]) -> Option<Duration> {
    let first_at = traffic.iter().map(|it| it.first_at).min()?;
    let since_first = u64::try_from(at.as_millisecond() - first_at).unwrap_or(0);
    measured_over(Duration::from_millis(since_first))
}

/// Returns what was measured of the calls that count in a scope; nothing where that is not known.
fn measured_in(scope: &Scope, campaigns: &Campaigns, traffic: &[CampaignTraffic]) -> Measured {
    let counts = |it: &CampaignTraffic| match scope {
        Scope::Global => true,
        Scope::Tenant(tenant) => it.tenant == tenant.as_str(),
        Scope::Campaign(campaign) => it.campaign == campaign.as_str(),
        Scope::Group(group) => campaigns.all().any(|campaign| {
            let of_group = campaign.group.as_ref().is_some_and(|it| it.id == *group);
            of_group && it.campaign == campaign.id.as_str()
        }),
        // Who waits for media holds a slot for seconds; the others are counted by more than their
        // campaigns.
        Scope::Setup | Scope::Agent(_) | Scope::Outbound => false,
    };
    let measured = traffic.iter().filter(|it| counts(it));
    measured.fold(Measured::default(), |sum, it| sum.and(it.measured))
}

impl ShownNeed {
    fn of(measured: Measured, need: Need) -> Self {
        Self {
            arrivals: measured.arrivals,
            refused: measured.refused,
            arrivals_per_s: shown(need.arrivals_per_second),
            mean_length_s: shown(need.mean_length.as_secs_f64()),
            offered: shown(need.offered),
            refused_share: shown(need.refused_share),
            cap_needed: need.cap_needed,
        }
    }
}

/// Returns a number to the ten-thousandth, which is enough for people.
fn shown(number: f64) -> f64 {
    (number * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_remembered_for_five_minutes() {
        let outlook = Outlook::default();
        for look in 0..100 {
            let held = vec![(Scope::Global, look)];
            outlook.see(LOOK * look, held);
        }
        let history = outlook.lock().history(&Scope::Global);
        assert_eq!(history.len(), 31);
        assert_eq!(history.last(), Some(&(LOOK * 99, 99)));
        assert_eq!(outlook.lock().history(&Scope::Setup), []);
    }
}
