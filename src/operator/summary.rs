//! `/metrics/summary`: how things stand, in a few lines for people.

use std::fmt::Write;

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Serialize;

use crate::{gateway::Gateway, operator::Operator};

/// How things stand at this replica, and in the cluster where it says so.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    version: &'static str,
    replica: String,
    /// Of the cluster.
    replicas: u32,
    age_s: u64,
    draining_for_s: Option<u64>,
    /// Of the cluster.
    calls_active: u32,
    calls_max: u32,
    connections: usize,
    connections_max: usize,
    /// Since the start of this replica.
    calls_started: u64,
    calls_rejected_max_concurrent: u64,
    webhooks: u64,
    requests_unauthenticated: u64,
    agents_resting: Vec<String>,
    degraded: Vec<&'static str>,
    records_waiting: usize,
    records_failing: bool,
    /// Of the cluster.
    events_waiting: u64,
    events_oldest_s: u64,
    events_dead: u64,
}

/// `GET /metrics/summary`: text, or JSON for who accepts that.
pub async fn summary(
    _: Operator,
    request: HttpRequest,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let summary = Summary::of(&gateway);
    if accepts_json(&request) {
        HttpResponse::Ok().json(summary)
    } else {
        HttpResponse::Ok()
            .content_type("text/plain; charset=utf-8")
            .body(summary.text())
    }
}

fn accepts_json(request: &HttpRequest) -> bool {
    let accepted = request.headers().get(header::ACCEPT);
    let accepted = accepted.and_then(|it| it.to_str().ok()).unwrap_or_default();
    let mut kinds = accepted.split([',', ';']).map(str::trim);
    kinds.any(|kind| kind.eq_ignore_ascii_case("application/json"))
}

impl Summary {
    fn of(gateway: &Gateway) -> Self {
        let admission = &gateway.admission;
        let room = admission.occupancy();
        let (started, refused) = gateway.metrics.totals();
        let tally = gateway.metrics.tally();
        let records = gateway.records.standing();
        let events = gateway.deliveries.standing();
        let agents = gateway.campaigns.agents();
        let resting = agents
            .all()
            .filter(|agent| agent.is_resting() || admission.asked_of(agent.name()).rests > 0);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            replica: admission.replica().to_owned(),
            replicas: admission.siblings().replicas.max(1),
            age_s: gateway.age().as_secs(),
            draining_for_s: gateway.drains().0.map(|it| it.as_secs()),
            calls_active: room.active,
            calls_max: room.cap,
            connections: gateway.connections.count(),
            connections_max: gateway.connections.most(),
            calls_started: started,
            calls_rejected_max_concurrent: refused,
            webhooks: tally.signed,
            requests_unauthenticated: tally.unsigned,
            agents_resting: resting.map(|agent| agent.name().to_string()).collect(),
            degraded: admission.trouble().iter().map(|it| it.as_str()).collect(),
            records_waiting: records.waiting,
            records_failing: records.failing.is_some(),
            events_waiting: events.iter().map(|it| it.waiting).sum(),
            events_oldest_s: events
                .iter()
                .map(|it| it.oldest.as_secs())
                .max()
                .unwrap_or(0),
            events_dead: events.iter().map(|it| it.dead).sum(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, what: std::fmt::Arguments<'_>| {
            let _ = writeln!(text, "{name:<12} {what}"); // A string takes everything.
        };
        line(
            "callgate",
            format_args!(
                "{}, replica {} of {}, for {} s",
                self.version, self.replica, self.replicas, self.age_s
            ),
        );
        if let Some(seconds) = self.draining_for_s {
            line("drains", format_args!("for {seconds} s"));
        }
        line(
            "calls",
            format_args!("{} of {} (all replicas)", self.calls_active, self.calls_max),
        );
        line(
            "sockets",
            format_args!(
                "{} of {} (this replica)",
                self.connections, self.connections_max
            ),
        );
        line(
            "since start",
            format_args!(
                "{} calls admitted, {} refused",
                self.calls_started, self.calls_rejected_max_concurrent
            ),
        );
        line(
            "webhooks",
            format_args!(
                "{}, and {} requests without a signature",
                self.webhooks, self.requests_unauthenticated
            ),
        );
        for agent in &self.agents_resting {
            line("agent", format_args!("{agent} fails, and is left alone"));
        }
        for degraded in &self.degraded {
            line("degraded", format_args!("{degraded}"));
        }
        let failing = if self.records_failing {
            ", and the database takes nothing"
        } else {
            ""
        };
        line(
            "records",
            format_args!("{} wait{failing}", self.records_waiting),
        );
        line(
            "events",
            format_args!(
                "{} wait, the oldest for {} s; {} dead (all replicas)",
                self.events_waiting, self.events_oldest_s, self.events_dead
            ),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_fits_on_a_screen() {
        let summary = Summary {
            version: "0.1.0",
            replica: "55817b34".to_owned(),
            replicas: 3,
            age_s: 4_000,
            draining_for_s: Some(12),
            calls_active: 8,
            calls_max: 15,
            connections: 3,
            connections_max: 100,
            calls_started: 120,
            calls_rejected_max_concurrent: 4,
            webhooks: 244,
            requests_unauthenticated: 2,
            agents_resting: vec!["support".to_owned()],
            degraded: vec!["capacity_store"],
            records_waiting: 7,
            records_failing: true,
            events_waiting: 2,
            events_oldest_s: 40,
            events_dead: 1,
        };
        insta::assert_snapshot!(summary.text(), @r"
        callgate     0.1.0, replica 55817b34 of 3, for 4000 s
        drains       for 12 s
        calls        8 of 15 (all replicas)
        sockets      3 of 100 (this replica)
        since start  120 calls admitted, 4 refused
        webhooks     244, and 2 requests without a signature
        agent        support fails, and is left alone
        degraded     capacity_store
        records      7 wait, and the database takes nothing
        events       2 wait, the oldest for 40 s; 1 dead (all replicas)
        ");
    }
}
