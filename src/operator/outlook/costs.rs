//! What calls cost, by day and campaign.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::{api::usage::Used, operator::outlook::shown, spending::Currency};

/// What calls cost, in millionths of the currency that prices are in.
#[derive(Debug, Clone, Serialize)]
pub struct Costs {
    pub measured_at: Timestamp,
    /// What prices are in, if that is set.
    pub currency: Option<Currency>,
    /// Today's and the days before, the first one first.
    pub days: Vec<Spent>,
    /// Today's, by campaign.
    pub campaigns: Vec<Spent>,
}

/// What the calls of one day, or of one campaign today, cost.
#[derive(Debug, Clone, Serialize)]
pub struct Spent {
    /// The day (UTC), or the campaign.
    pub of: String,
    /// Calls that were not refused.
    pub calls: i64,
    pub minutes: f64,
    pub cost_micros: i64,
    /// What one of them cost, on average; `None` if there was none.
    pub per_call_micros: Option<i64>,
}

impl Costs {
    /// Sums up what was used until `now`.
    pub fn of(now: Timestamp, used: Vec<Used>, currency: Option<Currency>) -> Self {
        let today = now.strftime("%F").to_string();
        let mut days: BTreeMap<String, Spent> = BTreeMap::new();
        let mut campaigns = Vec::new();
        for used in used {
            let cost = Spent::new(
                used.campaign,
                used.calls - used.refused,
                used.minutes,
                used.cost_micros,
            );
            let nothing = || Spent::new(used.day.clone(), 0, 0.0, 0);
            let day = days.entry(used.day.clone()).or_insert_with(nothing);
            *day = Spent::new(
                used.day.clone(),
                day.calls + cost.calls,
                day.minutes + cost.minutes,
                day.cost_micros + cost.cost_micros,
            );
            if used.day == today {
                campaigns.push(cost);
            }
        }
        Self {
            measured_at: now,
            currency,
            days: days.into_values().collect(),
            campaigns,
        }
    }
}

impl Spent {
    fn new(of: String, calls: i64, minutes: f64, cost_micros: i64) -> Self {
        Self {
            of,
            calls,
            minutes: shown(minutes),
            cost_micros,
            per_call_micros: (calls > 0).then(|| cost_micros / calls),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_summed_up_by_day_and_told_of_todays_campaigns() {
        let used = |day: &str, campaign: &str, calls, refused, cost_micros| Used {
            day: day.to_owned(),
            campaign: campaign.to_owned(),
            calls,
            refused,
            minutes: 1.5,
            cost_micros,
            ..Used::default()
        };
        let rows = vec![
            used("2026-03-02", "sales", 3, 1, 100),
            used("2026-03-02", "support", 4, 4, 0),
            used("2026-03-01", "sales", 1, 0, 7),
        ];
        let now = "2026-03-02T12:00:00Z".parse().unwrap();
        let costs = Costs::of(now, rows, None);
        let shown = |of: &Spent| (of.of.clone(), of.calls, of.cost_micros, of.per_call_micros);
        let days: Vec<_> = costs.days.iter().map(shown).collect();
        let campaigns: Vec<_> = costs.campaigns.iter().map(shown).collect();
        let row = |of: &str, calls, cost, each| (of.to_owned(), calls, cost, each);
        assert_eq!(
            days,
            [
                row("2026-03-01", 1, 7, Some(7)),
                row("2026-03-02", 2, 100, Some(50))
            ]
        );
        assert_eq!(
            campaigns,
            [row("sales", 2, 100, Some(50)), row("support", 0, 0, None)]
        );
        let minutes: Vec<f64> = costs.days.iter().map(|day| day.minutes).collect();
        assert_eq!(minutes, [1.5, 3.0]);
    }
}
