//! Where requests may go whose addresses tenants choose.

use url::Url;

use crate::{
    config::{
        is_free_of_secrets,
        reader::{Environment, Reader},
        shown,
    },
    guard::GuardRules,
};

/// Reads `GUARD_PORTS`, `GUARD_ALLOW` and `EGRESS_PROXY`.
pub fn load(read: &Reader<impl Environment>, production: bool) -> GuardRules {
    const ALLOW: &str = "GUARD_ALLOW";
    let ports = read.list("GUARD_PORTS").into_iter();
    let exceptions = read.list(ALLOW);
    if production && !exceptions.is_empty() {
        let rule = "not in production: requests to our own network are for tests";
        read.mistake(ALLOW, read.text(ALLOW), rule);
    }
    let exceptions = exceptions.into_iter();
    GuardRules {
        ports: ports
            .filter_map(|text| {
                let port = text.parse().ok().filter(|port| *port != 0);
                entry(read, "GUARD_PORTS", text, port, "ports, with commas")
            })
            .collect(),
        exceptions: exceptions
            .filter_map(|text| {
                let rule = "hosts with a port, or ranges of addresses, with commas: \
                            localhost:9000,127.0.0.0/8";
                let exception = text.parse().ok();
                entry(read, ALLOW, text, exception, rule)
            })
            .collect(),
        proxy: proxy(read),
    }
}

fn entry<T>(
    read: &Reader<impl Environment>,
    name: &str,
    text: String,
    value: Option<T>,
    rule: &str,
) -> Option<T> {
    if value.is_none() {
        read.mistake(name, Some(text), rule);
    }
    value
}

fn proxy(read: &Reader<impl Environment>) -> Option<Url> {
    const NAME: &str = "EGRESS_PROXY";
    const RULE: &str =
        "an http address of nothing but a host and a port, such as http://proxy:3128";
    let url: Url = read.parsed(NAME, RULE)?;
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_fit = matches!(url.scheme(), "http" | "https") && plain && is_free_of_secrets(&url);
    if !is_fit {
        read.mistake(NAME, shown(&url), RULE);
    }
    is_fit.then_some(url)
}
