//! Sends spans to a collector, in batches and apart from every call.

use std::time::Duration;

use reqwest::{
    Client,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use secrecy::ExposeSecret;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    config::TraceSettings,
    telemetry::TraceMetrics,
    trace::{
        Sighting,
        gatherer::{Gatherer, Span},
        otlp, unix_nanos,
    },
};

/// How long spans wait for others at most, and how many are sent at once.
const EVERY: Duration = Duration::from_secs(2);
const BATCH: usize = 512;
/// How long a collector may take for a batch, the connection included.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long what is left may take when the gateway ends.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// Makes spans of what is seen of calls, and sends them.
#[derive(Debug)]
pub struct Exporter {
    http: Client,
    endpoint: Url,
    service: String,
    replica: String,
    sightings: mpsc::Receiver<Sighting>,
    gatherer: Gatherer,
    spans: Vec<Span>,
    metrics: TraceMetrics,
    /// Whether the last batch was lost: that is said once.
    is_away: bool,
}

impl Exporter {
    pub(super) fn new(
        settings: TraceSettings,
        replica: &str,
        sightings: mpsc::Receiver<Sighting>,
        gatherer: Gatherer,
        metrics: TraceMetrics,
    ) -> Result<Self, reqwest::Error> {
        // Fails if another part of the process installed it already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .timeout(PATIENCE)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy() // Agents' sockets know no proxy either.
            .default_headers(headers(&settings))
            .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            endpoint: settings.endpoint,
            service: settings.service,
            replica: replica.to_owned(),
            sightings,
            gatherer,
            spans: Vec::new(),
            metrics,
            is_away: false,
        })
    }

    /// Sends spans until `stop` is cancelled, and then what is left, within a deadline.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                sighting = self.sightings.recv() => match sighting {
                    Some(sighting) => {
                        self.spans.extend(self.gatherer.see(sighting));
                        self.spans.len() >= BATCH
                    }
                    None => break,
                },
                _ = tick.tick() => true,
            };
            if due {
                self.gatherer.forget_due(unix_nanos());
                for (why, calls) in self.gatherer.take_cut() {
                    self.metrics.cut(why, calls);
                }
                // While a collector is waited for, sightings wait in their queue.
                self.send().await;
            }
        }
        while let Ok(sighting) = self.sightings.try_recv() {
            self.spans.extend(self.gatherer.see(sighting));
        }
        let left = u64::try_from(self.spans.len()).unwrap_or(u64::MAX);
        let metrics = self.metrics.clone();
        if timeout(LAST_PATIENCE, self.send()).await.is_err() {
            metrics.dropped(left);
        }
    }

    /// Sends what has come together; what a collector does not take is lost.
    async fn send(&mut self) {
        if self.spans.is_empty() {
            return;
        }
        let body = otlp::request(&self.service, &self.replica, &self.spans);
        let request = self.http.post(self.endpoint.clone());
        let request = request.header(CONTENT_TYPE, "application/json");
        let sent = request.body(body.to_string()).send().await;
        let taken = sent.and_then(reqwest::Response::error_for_status);
        let spans = u64::try_from(self.spans.len()).unwrap_or(u64::MAX);
        self.spans.clear();
        match taken {
            Ok(_) => {
                self.is_away = false;
                self.metrics.exported(spans);
            }
            Err(error) => {
                self.metrics.dropped(spans);
                if !std::mem::replace(&mut self.is_away, true) {
                    let error = error.without_url();
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "the collector takes no spans");
                }
            }
        }
    }
}

fn headers(settings: &TraceSettings) -> HeaderMap {
    let headers = settings.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let mut value = HeaderValue::from_str(value.expose_secret()).ok()?;
        value.set_sensitive(true);
        Some((name, value))
    });
    headers.collect()
}
