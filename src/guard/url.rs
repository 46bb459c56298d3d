//! What a URL has to be before anything is sent to it.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use url::{Host, Url};

use crate::guard::range::is_public;

/// The longest URL, in bytes.
const LONGEST: usize = 2_048;
/// The port of https, which is open to everybody.
const HTTPS: u16 = 443;
/// Ends of names that are of a machine or of a network, and of nobody else. RFC 6761, RFC 6762,
/// RFC 8375; ICANN keeps `internal` for this.
const LOCAL: [&str; 6] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "home.arpa",
    "test",
];

/// Where requests may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuardRules {
    /// Ports beside 443.
    pub ports: Vec<u16>,
    /// What is allowed though it is not public; nothing in production.
    pub exceptions: Vec<Exception>,
    /// What requests go through; it then finds the addresses of names.
    pub proxy: Option<Url>,
}

/// What is allowed though it is not public, by http too where it is written so in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exception {
    /// A host and a port, as they stand in a URL.
    Place(Host, u16),
    /// Every port of these addresses, and every name of them.
    Range(IpNet),
}

/// Why a text is no [`Exception`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnException;

/// A URL that the rules let pass. Formatting it shows its host alone: the rest may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct GuardedUrl(Url); // Made by `GuardRules::url` only.

/// Why nothing is sent to a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("longer than {LONGEST} bytes")]
    TooLong,
    #[error("not an https address")]
    NotHttps,
    #[error("has a user or a password")]
    UserInfo,
    #[error("has a fragment, which would not be sent")]
    Fragment,
    #[error("its port is neither 443 nor one of GUARD_PORTS")]
    Port,
    #[error("its address is not public")]
    Address,
    #[error("its name is of a machine or a network, not public")]
    Name,
}

impl GuardRules {
    /// Returns the URL that a text is, if requests may go there as far as its text says. What
    /// addresses its name has is looked at when it is used.
    ///
    /// # Errors
    /// If the URL breaks a rule.
    pub fn url(&self, text: &str) -> Result<GuardedUrl, UrlError> {
        if text.len() > LONGEST {
            return Err(UrlError::TooLong);
        }
        // The parser would leave them out, and look at another text than people do.
        if text.contains(|char: char| char.is_control() || char.is_whitespace()) {
            return Err(UrlError::NotHttps);
        }
        let url = Url::parse(text).map_err(|_| UrlError::NotHttps)?;
        let is_excepted = self.excepts(&url);
        if url.scheme() != "https" && !(url.scheme() == "http" && is_excepted) {
            return Err(UrlError::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(UrlError::Fragment);
        }
        if is_excepted {
            return Ok(GuardedUrl(url));
        }
        let port = url.port().unwrap_or(HTTPS);
        if port != HTTPS && !self.ports.contains(&port) {
            return Err(UrlError::Port);
        }
        match url.host() {
            Some(Host::Ipv4(address)) if !is_public(address.into()) => Err(UrlError::Address),
            Some(Host::Ipv6(address)) if !is_public(address.into()) => Err(UrlError::Address),
            Some(Host::Domain(name)) if is_local(name) => Err(UrlError::Name),
            Some(Host::Ipv4(_) | Host::Ipv6(_) | Host::Domain(_)) => Ok(GuardedUrl(url)),
            None => Err(UrlError::NotHttps),
        }
    }

    /// Tells whether a request to `name` may be sent to one of its addresses.
    pub fn lets_pass(&self, name: &str, address: IpAddr) -> bool {
        is_public(address)
            || self.exceptions.iter().any(|exception| match exception {
                Exception::Place(Host::Domain(excepted), _) => excepted == name,
                Exception::Place(Host::Ipv4(_) | Host::Ipv6(_), _) => false,
                Exception::Range(range) => range.contains(&address),
            })
    }

    fn excepts(&self, url: &Url) -> bool {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return false;
        };
        let host = host.to_owned();
        let is_within = |range: &IpNet| match host {
            Host::Ipv4(address) => range.contains(&IpAddr::V4(address)),
            Host::Ipv6(address) => range.contains(&IpAddr::V6(address)),
            Host::Domain(_) => false,
        };
        self.exceptions.iter().any(|exception| match exception {
            Exception::Place(excepted, its_port) => *excepted == host && *its_port == port,
            Exception::Range(range) => is_within(range),
        })
    }
}

impl GuardedUrl {
    pub(super) fn reveal(&self) -> &Url {
        &self.0
    }
}

impl fmt::Display for GuardedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.origin().ascii_serialization())
    }
}

impl fmt::Debug for GuardedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Exception {
    type Err = NotAnException;

    fn from_str(text: &str) -> Result<Self, NotAnException> {
        if let Ok(range) = text.parse() {
            return Ok(Self::Range(range));
        }
        let (host, port) = text.rsplit_once(':').ok_or(NotAnException)?;
        let host = Host::parse(host).map_err(|_| NotAnException)?;
        let port = port.parse().map_err(|_| NotAnException)?;
        Ok(Self::Place(host, port))
    }
}

/// Tells whether a name is found in our own network only, if at all.
fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    let is_within = |end: &&str| {
        let before = name.strip_suffix(end);
        before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    !name.contains('.') || LOCAL.iter().any(is_within)
}
