//! The one client for requests to addresses that tenants choose: receivers of events, and tools.
//!
//! Invariant: no connection is opened to an address that is not public, whatever a name led to a
//! moment before: the filter sits in the resolver that connecting uses.
//! Invariant: no tenant's name servers delay another tenant's requests.
//! Invariant: an answer costs no more than its asker allows, in time and in bytes.

mod places;
mod range;
mod url;
mod whereabouts;

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Client, ClientBuilder, Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header::HeaderMap,
    redirect,
};
use tokio::task_local;

use crate::{
    campaign,
    guard::places::{Asker, Places},
};

pub use self::url::{GuardRules, GuardedUrl};
pub use whereabouts::Whereabouts;

/// How long connecting may take, within what the whole request may.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a connection without a request is kept, and how many to one host.
const IDLE: Duration = Duration::from_secs(15);
const MOST_IDLE: usize = 4;

task_local! {
    /// For whom the request is made that a name is looked up for: a resolver is told the name alone.
    static ASKER: Asker;
}

/// Sends requests to URLs that the rules let pass. It follows no redirects. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GuardedClient {
    client: Client,
    asker: Asker,
}

/// What one request may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first look at the name to the last byte of the answer.
    pub patience: Duration,
    /// How much of an answer's body is read, in bytes.
    pub longest_answer: usize,
}

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body, as far as it was read.
    pub body: Bytes,
    /// Whether that is all of it: not if it was longer than allowed, came too slowly or broke off.
    pub is_whole: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("the host has no address that is public")]
    Blocked,
    #[error("the host cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("no answer came in time")]
    TooSlow,
    #[error("the connection broke off before an answer")]
    BrokenOff(#[source] reqwest::Error),
}

/// Finds the addresses of names, and keeps back those that nothing may be sent to.
struct Filter<L> {
    rules: GuardRules,
    places: Arc<Places>,
    look_up: L,
}

/// That a name has addresses, and none that is public.
#[derive(Debug, thiserror::Error)]
#[error("every address is blocked")]
struct EveryAddressIsBlocked;

impl GuardedClient {
    /// # Errors
    /// If there is no TLS to be had, or the proxy is none.
    pub fn new(rules: &GuardRules) -> Result<Self, reqwest::Error> {
        Self::looking_up(rules, system_look_up)
    }

    fn looking_up(
        rules: &GuardRules,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Clone + Send + Sync + 'static,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: Self::builder(rules, look_up)?.build()?,
            asker: None,
        })
    }

    /// Returns all that a client is made with.
    fn builder(
        rules: &GuardRules,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Clone + Send + Sync + 'static,
    ) -> Result<ClientBuilder, reqwest::Error> {
        // Fails if another part of the process installed it already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .connect_timeout(CONNECT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .https_only(rules.exceptions.is_empty())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")));
        Ok(match &rules.proxy {
            // The proxy finds the addresses, and is itself mostly one of our own network.
            Some(proxy) => client.proxy(reqwest::Proxy::all(proxy.clone())?),
            None => client.no_proxy().dns_resolver(Filter {
                rules: rules.clone(),
                places: Arc::default(),
                look_up,
            }),
        })
    }

    /// Returns the same client for the requests of one tenant.
    pub fn of(&self, tenant: &campaign::Name) -> Self {
        Self {
            client: self.client.clone(),
            asker: Some(tenant.clone()),
        }
    }

    /// Cancel-safe as far as anything sent can be: the receiver may have read it.
    ///
    /// # Errors
    /// If there is no answer, not even the beginning of one.
    pub async fn post(
        &self,
        url: &GuardedUrl,
        headers: HeaderMap,
        body: Bytes,
        limits: Limits,
    ) -> Result<Answer, GuardError> {
        let request = self.client.post(url.reveal().clone());
        let request = request.headers(headers).timeout(limits.patience).body(body);
        let sent = ASKER.scope(self.asker.clone(), request.send());
        let mut response = sent.await.map_err(GuardError::of)?;
        let (body, is_whole) = read(&mut response, limits.longest_answer).await;
        Ok(Answer {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body,
            is_whole,
        })
    }
}

impl GuardError {
    fn of(error: reqwest::Error) -> Self {
        let error = error.without_url(); // Its path may be a secret.
        if is_blocked(&error) {
            Self::Blocked
        } else if error.is_timeout() {
            Self::TooSlow
        } else if error.is_connect() {
            Self::Unreachable(error)
        } else {
            Self::BrokenOff(error)
        }
    }

    /// Returns the name that metrics and rows have for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Unreachable(_) => "unreachable",
            Self::TooSlow => "too_slow",
            Self::BrokenOff(_) => "broken_off",
        }
    }
}

impl<L> Resolve for Filter<L>
where
    L: Fn(&str) -> io::Result<Vec<IpAddr>> + Clone + Send + Sync + 'static,
{
    fn resolve(&self, name: Name) -> Resolving {
        // Read here and not below: the request itself asks for the name, and another may wait for
        // what comes of it. Where nobody says who asks, all who do so count as one.
        let asker = ASKER.try_with(Asker::clone).unwrap_or_default();
        let (rules, places) = (self.rules.clone(), Arc::clone(&self.places));
        let look_up = self.look_up.clone();
        Box::pin(async move {
            let name = name.as_str();
            let asked = name.to_owned();
            let found = places.look_up(&asker, move || look_up(&asked)).await?;
            let had_any = !found.is_empty();
            let passed: Vec<_> = found
                .into_iter()
                .filter(|address| rules.lets_pass(name, *address))
                .map(|address| SocketAddr::new(address, 0)) // The URL's port takes its place.
                .collect();
            if had_any && passed.is_empty() {
                return Err(EveryAddressIsBlocked.into());
            }
            Ok(Box::new(passed.into_iter()) as Addrs)
        })
    }
}

fn system_look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = (name, 0).to_socket_addrs()?;
    Ok(found.map(|address| address.ip()).collect())
}

fn is_blocked(error: &reqwest::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<EveryAddressIsBlocked>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Reads a body as far as it may be read, and tells whether that was all of it.
async fn read(response: &mut Response, longest: usize) -> (Bytes, bool) {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(part)) => {
                let room = longest - body.len();
                body.extend_from_slice(&part[..part.len().min(room)]);
                if part.len() > room {
                    return (body.freeze(), false);
                }
            }
            Ok(None) => return (body.freeze(), true),
            Err(_) => return (body.freeze(), false),
        }
    }
}

#[cfg(test)]
mod tests;
