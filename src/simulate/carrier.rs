//! Twilio's side of the network: signed webhooks and signed WebSocket upgrades.

pub mod error;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context;
use reqwest::{Client, header::CONTENT_TYPE};
use rustls::{ClientConfig, RootCertStore};
use secrecy::SecretString;
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{self, client::IntoClientRequest, protocol::WebSocketConfig},
};
use url::Url;

use self::error::{UpgradeError, WebhookError};
use super::script::Script;
use crate::webhook::twilio::signature::sign;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
pub type Fields = Vec<(String, String)>;

/// Twilio's default connect timeout, and its hard limit for a webhook.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest document (error 11750).
const LONGEST_DOCUMENT: usize = 64 * 1024;

/// A simulated phone line sends and reads a few hundred bytes at a time.
const READ_BUFFER: usize = 4 * 1024;
const SIGNATURE: &str = "X-Twilio-Signature";

/// What all calls of a run share: how the gateway is reached, and what requests are signed with.
pub struct Carrier {
    http: Client,
    /// Where the gateway is.
    gateway: String,
    /// What the gateway calls itself in the documents it sends; signatures are over this.
    public: String,
    token: Option<SecretString>,
    /// Made for the first media socket that needs it: reading the roots takes a while.
    tls: OnceLock<Connector>,
    pub account_sid: String,
}

/// A document that was fetched, and the URL that relative ones in it are relative to.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    pub url: String,
    pub body: String,
}

impl Carrier {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(
        gateway: &Url,
        public: Option<&Url>,
        token: Option<SecretString>,
        account_sid: String,
    ) -> anyhow::Result<Self> {
        // Fails if another part of the process installed it already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(WEBHOOK_TIMEOUT)
            .tcp_nodelay(true)
            .user_agent("TwilioProxy/1.1")
            .no_proxy() // Media sockets know no proxy either, and most gateways are on loopback.
            .build()
            .context("cannot set up an HTTP client")?;
        let base = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        Ok(Self {
            http,
            gateway: base(gateway),
            public: base(public.unwrap_or(gateway)),
            token,
            tls: OnceLock::new(),
            account_sid,
        })
    }

    /// Returns the URL, as the gateway is known by, of one of its paths.
    pub fn webhook(&self, path: &str) -> String {
        format!("{}{path}", self.public)
    }

    /// Sends a webhook and expects a document.
    ///
    /// # Errors
    /// If Twilio would go to the fallback URL.
    pub async fn fetch(
        &self,
        url: &str,
        by_get: bool,
        fields: &Fields,
    ) -> Result<Document, WebhookError> {
        let answer = self.send(url, by_get, fields).await?;
        let content_type = answer.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let url = url.to_owned();
        if !matches!(essence, "text/xml" | "application/xml" | "text/html") {
            return Err(WebhookError::ContentType { url, content_type });
        }
        match answer.text().await {
            Ok(body) if body.len() > LONGEST_DOCUMENT => Err(WebhookError::TooLong { url }),
            Ok(body) => Ok(Document { url, body }),
            Err(error) => Err(WebhookError::no_answer(url, &error)),
        }
    }

    /// Sends a webhook whose answer does not matter.
    ///
    /// # Errors
    /// If the gateway did not take it.
    pub async fn notify(&self, url: &str, fields: &Fields) -> Result<(), WebhookError> {
        self.send(url, false, fields).await.map(drop)
    }

    /// Opens a media socket to `url`, the text of a `<Stream url>`.
    ///
    /// # Errors
    /// If the gateway does not take it.
    pub async fn open(&self, url: &str, script: Script) -> Result<Socket, UpgradeError> {
        let opening = self.upgrade(url, script);
        let opened = timeout(CONNECT_TIMEOUT, opening).await;
        opened.map_err(|_| UpgradeError::TooSlow)?
    }

    async fn upgrade(&self, url: &str, script: Script) -> Result<Socket, UpgradeError> {
        let bad = || UpgradeError::BadUrl(url.to_owned());
        let reached = Url::parse(&self.reached(url)).map_err(|_| bad())?;
        let (Some(host), Some(port)) = (reached.host_str(), reached.port_or_known_default()) else {
            return Err(bad());
        };
        if !matches!(reached.scheme(), "ws" | "wss") {
            return Err(bad());
        }
        let mut request = reached.as_str().into_client_request().map_err(|_| bad())?;
        if let Some(token) = &self.token {
            let signature = sign(token, url, &[]).parse().map_err(|_| bad())?;
            request.headers_mut().insert(SIGNATURE, signature);
        }
        let host = host.trim_matches(['[', ']']);
        let unreachable = |error| UpgradeError::Unreachable(format!("{host}:{port}: {error}"));
        let tcp = connect(host, port, script).await.map_err(unreachable)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0);
        let tls = (reached.scheme() == "wss").then(|| self.tls.get_or_init(connector).clone());
        match client_async_tls_with_config(request, tcp, Some(config), tls).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(answer)) => Err(UpgradeError::Status(answer.status())),
            Err(error) => Err(UpgradeError::Handshake(error)),
        }
    }

    async fn send(
        &self,
        url: &str,
        by_get: bool,
        fields: &Fields,
    ) -> Result<reqwest::Response, WebhookError> {
        let bad = || WebhookError::BadUrl {
            url: url.to_owned(),
        };
        // What follows a # are connection overrides, neither sent nor signed.
        let signed = url.split('#').next().unwrap_or_default();
        let mut public = Url::parse(signed).map_err(|_| bad())?;
        let signed = if by_get {
            public.query_pairs_mut().extend_pairs(fields);
            public.to_string()
        } else {
            signed.to_owned()
        };
        let reached = self.reached(&signed);
        let mut request = if by_get {
            self.http.get(&reached)
        } else {
            self.http.post(&reached).form(fields)
        };
        if let Some(token) = &self.token {
            let signed_fields = if by_get { &[][..] } else { fields };
            request = request.header(SIGNATURE, sign(token, &signed, signed_fields));
        }
        let token = uuid::Uuid::new_v4().to_string();
        let request = request.header("I-Twilio-Idempotency-Token", token);
        let again = request.try_clone();
        let answer = match (request.send().await, again) {
            // Twilio tries once more, and only where no connection came about.
            (Err(error), Some(again)) if error.is_connect() => again.send().await,
            (answer, _) => answer,
        };
        let answer = answer.map_err(|error| WebhookError::no_answer(reached, &error))?;
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(WebhookError::Status {
                url: url.to_owned(),
                status: answer.status(),
            })
        }
    }

    /// Returns where to reach what the gateway calls `url`.
    fn reached(&self, url: &str) -> String {
        if self.public == self.gateway {
            return url.to_owned();
        }
        for (public, gateway) in [
            (self.public.clone(), self.gateway.clone()),
            (as_socket(&self.public), as_socket(&self.gateway)),
        ] {
            if let Some(rest) = url.strip_prefix(&public)
                && (rest.is_empty() || rest.starts_with(['/', '?']))
            {
                return gateway + rest;
            }
        }
        url.to_owned()
    }
}

/// Connects for one call, as its script needs it.
async fn connect(host: &str, port: u16, script: Script) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in lookup_host((host, port)).await? {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if script == Script::SlowReader {
            socket.set_recv_buffer_size(4 * 1024)?; // So that the gateway notices soon.
        }
        match socket.connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                if script == Script::Drop {
                    // Closing it sends a reset, as when a cable is cut, and nothing else.
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                }
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connector() -> Connector {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(roots);
    Connector::Rustls(Arc::new(config.with_no_client_auth()))
}

fn as_socket(base: &str) -> String {
    base.replacen("http", "ws", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carrier(gateway: &str, public: Option<&str>) -> Carrier {
        let url = |url: &str| Url::parse(url).unwrap();
        let public = public.map(url);
        Carrier::new(&url(gateway), public.as_ref(), None, "AC1".into()).unwrap()
    }

    #[test]
    fn what_the_gateway_calls_by_its_public_name_is_reached_at_its_address() {
        let carrier = carrier(
            "http://127.0.0.1:5050/",
            Some("https://voice.example.com/gw"),
        );
        assert_eq!(
            carrier.webhook("/webhook/incoming_call"),
            "https://voice.example.com/gw/webhook/incoming_call"
        );
        let table = [
            (
                "https://voice.example.com/gw/a?b=c",
                "http://127.0.0.1:5050/a?b=c",
            ),
            (
                "wss://voice.example.com/gw/media",
                "ws://127.0.0.1:5050/media",
            ),
            (
                "https://voice.example.com/gwen",
                "https://voice.example.com/gwen",
            ),
            (
                "https://other.example.com/gw/a",
                "https://other.example.com/gw/a",
            ),
        ];
        for (public, reached) in table {
            assert_eq!(carrier.reached(public), reached);
        }
    }

    #[test]
    fn without_a_public_name_every_url_is_taken_as_it_is() {
        let carrier = carrier("http://127.0.0.1:5050", None);
        assert_eq!(carrier.reached("wss://a.example/b"), "wss://a.example/b");
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_there_is_unreachable() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let carrier = carrier(&url, None);
        let error = carrier.fetch(&carrier.webhook("/a"), false, &vec![]).await;
        assert!(
            matches!(error, Err(WebhookError::Unreachable { .. })),
            "{error:?}"
        );
        let socket = carrier.open(&as_socket(&url), Script::Talk).await;
        assert!(matches!(socket, Err(UpgradeError::Unreachable(_))));
        for url in ["", "http://a", "ws:///", "ftp://a/b"] {
            let socket = carrier.open(url, Script::Talk).await;
            assert!(socket.is_err(), "{url}");
        }
    }
}
