//! How events get to tenants' endpoints.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::event::Fate;

/// How events get to tenants' endpoints. Labels are names of the configuration's.
#[derive(Debug, Clone, Default)]
pub struct EventMetrics {
    tries: Family<TryLabels, Counter>,
    waiting: Family<PlaceLabels, Gauge>,
    oldest: Family<PlaceLabels, Gauge>,
    dead: Family<PlaceLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PlaceLabels {
    tenant: String,
    endpoint: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TryLabels {
    tenant: String,
    endpoint: String,
    result: &'static str,
}

impl EventMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "event_tries",
            "Tries to deliver an event, by what came of them",
            self.tries.clone(),
        );
        r.register(
            "events_waiting",
            "Deliveries that wait or are under way, of all replicas",
            self.waiting.clone(),
        );
        r.register(
            "events_oldest_seconds",
            "Age of the oldest delivery that waits",
            self.oldest.clone(),
        );
        r.register(
            "events_dead",
            "Deliveries that are not tried again",
            self.dead.clone(),
        );
    }

    /// Counts a try.
    pub fn tried(&self, tenant: &str, endpoint: &str, fate: Fate) {
        let labels = TryLabels {
            tenant: tenant.to_owned(),
            endpoint: endpoint.to_owned(),
            result: fate.as_str(),
        };
        self.tries.get_or_create(&labels).inc();
    }

    /// Shows how deliveries stand: of each endpoint what waits, since when, and what is dead.
    pub fn stand<'a>(
        &self,
        places: impl Iterator<Item = ((&'a str, &'a str), u64, Duration, u64)>,
    ) {
        // What is delivered meanwhile, or in force no more, is not in the list.
        for gauges in [&self.waiting, &self.oldest, &self.dead] {
            gauges.clear();
        }
        let shown = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for ((tenant, endpoint), waiting, oldest, dead) in places {
            let labels = PlaceLabels {
                tenant: tenant.to_owned(),
                endpoint: endpoint.to_owned(),
            };
            self.waiting.get_or_create(&labels).set(shown(waiting));
            self.oldest
                .get_or_create(&labels)
                .set(shown(oldest.as_secs()));
            self.dead.get_or_create(&labels).set(shown(dead));
        }
    }
}
