//! Where traces of calls go, by the names that OpenTelemetry has for it.
//!
//! Source: opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables.

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::config::{
    is_free_of_secrets,
    reader::{Environment, Reader, split},
    shown,
};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Where traces of calls go.
#[derive(Debug)]
pub struct TraceSettings {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: a collector that takes OTLP over HTTP; `/v1/traces` is added.
    pub endpoint: Url,
    /// `OTEL_EXPORTER_OTLP_HEADERS`: what it is sent besides, as `name=value` with commas.
    pub headers: Vec<(String, SecretString)>,
    /// `OTEL_SERVICE_NAME`. Default `callgate`.
    pub service: String,
    /// `OTEL_TRACES_SAMPLER_ARG`: the share of calls that are traced, 0 to 1. Default 1.
    pub ratio: f64,
}

impl TraceSettings {
    /// Returns the settings; none where there is no collector.
    pub(super) fn load(read: &Reader<impl Environment>) -> Option<Self> {
        const RULE: &str = "the address of a collector, such as http://127.0.0.1:4318";
        let endpoint: Option<Url> = read.parsed(ENDPOINT, RULE);
        let headers = headers(read);
        let service = read.text("OTEL_SERVICE_NAME");
        let ratio = ratio(read);
        let mut endpoint = endpoint?;
        let web = matches!(endpoint.scheme(), "http" | "https");
        let plain = endpoint.query().is_none() && endpoint.fragment().is_none();
        if !(web && endpoint.has_host() && plain && is_free_of_secrets(&endpoint)) {
            read.mistake(ENDPOINT, shown(&endpoint), RULE);
        }
        let path = format!("{}/v1/traces", endpoint.path().trim_end_matches('/'));
        endpoint.set_path(&path);
        Some(Self {
            endpoint,
            headers,
            service: service.unwrap_or_else(|| "callgate".to_owned()),
            ratio,
        })
    }
}

fn headers(read: &Reader<impl Environment>) -> Vec<(String, SecretString)> {
    let list = read.secret(HEADERS);
    let entries = split(list.as_ref().map_or("", |list| list.expose_secret()));
    let pairs = entries.iter().map(|entry| {
        let (name, value) = entry.split_once('=')?;
        let name = name.trim();
        let fits = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
            && reqwest::header::HeaderValue::from_str(value.trim()).is_ok();
        fits.then(|| (name.to_owned(), SecretString::from(value.trim())))
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    if pairs.is_none() {
        read.mistake(HEADERS, None, "headers as name=value, with commas");
    }
    pairs.unwrap_or_default()
}

fn ratio(read: &Reader<impl Environment>) -> f64 {
    const RULE: &str = "the share of calls that are traced, from 0 to 1";
    let ratio: f64 = read.parsed(RATIO, RULE).unwrap_or(1.0);
    if (0.0..=1.0).contains(&ratio) {
        return ratio;
    }
    read.mistake(RATIO, Some(ratio.to_string()), RULE);
    1.0
}
