//! Addresses of vendors, which only tests may replace.

use url::Url;

use crate::config::{
    is_free_of_secrets,
    reader::{Environment, Reader},
    shown,
};

/// Reads an address that in production must be https and of one of the vendor's `domains`.
pub fn url(
    read: &Reader<impl Environment>,
    name: &str,
    default: &str,
    domains: &[&str],
    production: bool,
) -> Url {
    let rule = if production {
        format!(
            "an https address of {}, without user, password or query",
            domains.join(" or ")
        )
    } else {
        "an https or http address, without user, password or query".to_owned()
    };
    let Some(url) = read.parsed::<Url>(name, &rule) else {
        return Url::parse(default).expect("a literal URL");
    };
    let is_allowed = match url.scheme() {
        "https" => !production || is_within(&url, domains),
        "http" => !production,
        _ => false,
    };
    let plain = url.query().is_none() && url.fragment().is_none() && is_free_of_secrets(&url);
    if !(is_allowed && plain && url.has_host()) {
        read.mistake(name, shown(&url), &rule);
    }
    url
}

/// Tells whether the host is one of `domains`, or within one.
pub fn is_within(url: &Url, domains: &[&str]) -> bool {
    let host = url.host_str().unwrap_or_default();
    domains.iter().any(|domain| {
        let before = host.strip_suffix(domain);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    })
}
