//! `/dashboard`: whether the phones work, and if not, why. Rendered here, and kept up to date by
//! [`crate::operator::following`].

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::StatusCode, web};
use bytes::Bytes;
use minijinja::{Value, context, value::Serde};
use serde::{Deserialize, Serialize};

use crate::{
    gateway::Gateway,
    operator::{
        outlook::{Costs, Outcome, Spent},
        page::{self, Frame, Visitor, part},
        plot::Plot,
        snapshot::{Cap, Snapshot},
        warning::warnings,
    },
    spending::{Currency, amount},
};

/// The parts of a dashboard, and what each is made of.
const PARTS: [(&str, &str); 9] = [
    ("now", "now.html"),
    ("warnings", "warnings.html"),
    ("hour", "hour.html"),
    ("caps", "caps.html"),
    ("live", "live.html"),
    ("agents", "agents.html"),
    ("replicas", "replicas.html"),
    ("costs", "costs.html"),
    ("events", "events.html"),
];

/// What a dashboard shows, each part as HTML.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture(Vec<(&'static str, String)>);

/// A warning as a page has it.
#[derive(Serialize)]
struct Told {
    urgency: &'static str,
    text: String,
}

/// A bar of a cap.
#[derive(Serialize)]
struct Bar {
    name: String,
    used: u32,
    cap: u32,
    percent: u32,
    is_full: bool,
    /// What is to come, in sentences.
    ahead: Vec<String>,
}

/// What the calls of a day, or of a campaign, cost, as a page has it.
#[derive(Serialize)]
struct Row {
    of: String,
    calls: i64,
    minutes: String,
    cost: String,
    per_call: String,
}

/// What calls cost, as a page has it.
#[derive(Serialize)]
struct Bill {
    currency: Option<Currency>,
    /// The latest day first.
    days: Vec<Row>,
    /// Today's.
    campaigns: Vec<Row>,
    has_costs: bool,
}

/// What has just been done, in the page's address.
#[derive(Deserialize)]
pub struct Asked {
    #[serde(default)]
    done: Option<String>,
}

impl Picture {
    /// Draws a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let told = warnings(snapshot).into_iter().map(|warning| Told {
            urgency: warning.urgency().as_str(),
            text: warning.to_string(),
        });
        let told: Vec<Told> = told.collect();
        let forecast = &snapshot.forecast;
        let outcome = |cap: &Cap| {
            let outcome = forecast.scopes.iter().find(|it| it.scope == cap.scope);
            outcome.map(|outcome| ahead(outcome, forecast.measured_over_s))
        };
        let caps = snapshot.caps.iter().filter(|cap| cap.most > 0);
        let caps = caps.map(|cap| Bar {
            name: cap.scope.replace(':', " "),
            used: cap.used,
            cap: cap.most,
            percent: percent(cap.used, cap.most),
            is_full: cap.used >= cap.most,
            ahead: outcome(cap).unwrap_or_default(),
        });
        let caps: Vec<Bar> = caps.collect();
        let plot = Plot::of(&snapshot.history, snapshot.cap);
        let all = context! {
            s => Value::from(Serde(snapshot)),
            told => Value::from(Serde(told)),
            caps => Value::from(Serde(caps)),
            plot => Value::from(Serde(plot)),
            bill => Value::from(Serde(snapshot.costs.as_ref().map(Bill::of))),
        };
        let drawn = |(id, name)| (id, part(name, all.clone()));
        Self(PARTS.into_iter().map(drawn).collect())
    }

    /// Returns the parts that are not as in the picture `before`, as one event.
    pub fn news(&self, before: Option<&Self>) -> Option<Bytes> {
        let is_new = |part: &&(&'static str, String)| before.is_none_or(|it| !it.0.contains(part));
        let news: BTreeMap<_, _> = self
            .0
            .iter()
            .filter(is_new)
            .map(|(id, text)| (*id, text))
            .collect();
        if news.is_empty() {
            return None;
        }
        let news = serde_json::to_string(&news).expect("texts always serialize");
        Some(Bytes::from(format!("data: {news}\n\n")))
    }

    fn parts(&self) -> Value {
        let parts = self.0.iter();
        let parts = parts.map(|(id, text)| (*id, Value::from_safe_string(text.clone())));
        Value::from_pairs(parts)
    }
}

/// `GET /dashboard`.
pub async fn show(
    Visitor(operator): Visitor,
    asked: web::Query<Asked>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let picture = Picture::of(&gateway.snapshot().await);
    let done = asked.done.as_deref().and_then(super::action::told);
    let main = part(
        "dashboard.html",
        context! { parts => picture.parts(), done },
    );
    let frame = Frame::of(&gateway, &operator, "dashboard", "Dashboard");
    page::page(StatusCode::OK, &frame, &main)
}

/// Says what is to come in a scope, by calls that were measured for so long.
fn ahead(outcome: &Outcome, measured_over_s: Option<u64>) -> Vec<String> {
    let average = match measured_over_s.map(|seconds| seconds / 60) {
        Some(minutes) if minutes < 60 => format!("the average of the last {minutes} min"),
        Some(_) | None => "the last hour's average".to_owned(),
    };
    let is_ahead = |left: &u64| *left > 0 && outcome.used < outcome.cap;
    let full = outcome.full_in_s.filter(is_ahead);
    let full = full.map(|left| {
        let minutes = left.div_ceil(60);
        format!("Full in about {minutes} min if calls go on getting more.")
    });
    let need = outcome.need.as_ref().map(|need| {
        let needed = need.cap_needed;
        if needed > outcome.cap {
            let share = (need.refused_share * 100.0).round().max(1.0);
            format!(
                "Too small for {average}: {share} % of calls would be refused. With a cap of \
                 {needed}, 1 % would."
            )
        } else {
            format!("On {average}, 1 % would be refused with a cap of {needed}.")
        }
    });
    full.into_iter().chain(need).collect()
}

impl Bill {
    fn of(costs: &Costs) -> Self {
        let row = |spent: &Spent| Row {
            of: spent.of.clone(),
            calls: spent.calls,
            minutes: format!("{:.1}", spent.minutes),
            cost: amount(spent.cost_micros, None),
            per_call: spent
                .per_call_micros
                .map_or_else(|| "–".to_owned(), |micros| amount(micros, None)),
        };
        Self {
            currency: costs.currency.clone(),
            days: costs.days.iter().rev().map(row).collect(),
            campaigns: costs.campaigns.iter().map(row).collect(),
            has_costs: costs.days.iter().any(|day| day.cost_micros > 0),
        }
    }
}

fn percent(used: u32, cap: u32) -> u32 {
    let percent = u64::from(used) * 100 / u64::from(cap.max(1));
    u32::try_from(percent).unwrap_or(100).min(100)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::operator::outlook::{Forecast, ShownNeed};

    #[test]
    fn caps_say_what_is_to_come_and_days_what_they_cost() {
        let spent = |of: &str, calls, per_call_micros| Spent {
            of: of.to_owned(),
            calls,
            minutes: 3.25,
            cost_micros: 1_230_000,
            per_call_micros,
        };
        let picture = Picture::of(&Snapshot {
            caps: vec![Cap {
                scope: "global".to_owned(),
                used: 9,
                most: 15,
            }],
            forecast: Forecast {
                measured_at: None,
                measured_over_s: Some(1_200),
                scopes: vec![Outcome {
                    scope: "global".to_owned(),
                    used: 9,
                    cap: 15,
                    slope_per_minute: Some(1.0),
                    full_in_s: Some(361),
                    need: Some(ShownNeed {
                        arrivals: 600,
                        refused: 3,
                        arrivals_per_s: 0.17,
                        mean_length_s: 60.0,
                        offered: 10.0,
                        refused_share: 0.036,
                        cap_needed: 18,
                    }),
                }],
            },
            costs: Some(Costs {
                measured_at: Timestamp::UNIX_EPOCH,
                currency: "EUR".parse().ok(),
                days: vec![spent("2026-01-31", 4, Some(308_000))],
                campaigns: vec![spent("support", 0, None)],
            }),
            ..Snapshot::default()
        });
        let text = |id| &picture.0.iter().find(|(part, _)| *part == id).unwrap().1;
        for said in [
            "Full in about 7 min if calls",
            "Too small for the average of the last 20 min: 4 % of calls would be refused. With a cap of 18, 1 % would.",
        ] {
            assert!(text("caps").contains(said), "{}", text("caps"));
        }
        for said in [
            "cost, in EUR",
            "2026-01-31",
            "support",
            ">1.23<",
            ">0.31<",
            "–",
            r#"aria-label="Costs by day""#,
        ] {
            assert!(text("costs").contains(said), "{}", text("costs"));
        }
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let picture = |live| {
            Picture::of(&Snapshot {
                live,
                cap: 15,
                ..Snapshot::default()
            })
        };
        let (before, after) = (picture(1), picture(2));
        assert_eq!(before.news(Some(&picture(1))), None);
        let news = after.news(Some(&before)).unwrap();
        let news = std::str::from_utf8(&news).unwrap();
        let news = news
            .strip_prefix("data: ")
            .unwrap()
            .strip_suffix("\n\n")
            .unwrap();
        let news: BTreeMap<String, String> = serde_json::from_str(news).unwrap();
        assert_eq!(news.keys().collect::<Vec<_>>(), ["now"]);
        let page = part(
            "dashboard.html",
            context! { parts => after.parts(), done => () },
        );
        assert!(
            page.contains("<b>2</b> <span>of 15 calls live</span>"),
            "{page}"
        );
    }
}
