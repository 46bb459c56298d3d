//! The way to a gateway: where it is, what it calls itself, and opening sockets to it.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore};
use socket2::SockRef;
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::timeout,
};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest,
        http::{HeaderValue, StatusCode},
        protocol::WebSocketConfig,
    },
};
use url::Url;

use super::script::Script;

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a carrier takes to connect before it gives up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A simulated phone line sends and reads a few thousand bytes at a time.
const READ_BUFFER: usize = 4 * 1024;

/// Where a gateway is, and what it calls itself.
pub struct Reach {
    gateway: String,
    public: String,
    /// Made for the first media socket that needs it: reading the roots takes a while.
    tls: OnceLock<Connector>,
}

/// Why a media socket was not opened.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("{0} is not a ws or wss URL")]
    BadUrl(String),
    #[error("the media socket cannot connect to {0}")]
    Unreachable(String),
    #[error("the media socket was answered {}{}", .0.as_u16(), advice(*.0))]
    Status(StatusCode),
    #[error("the media socket's handshake failed: {0}")]
    Handshake(tungstenite::Error),
    #[error("the media socket's handshake took longer than {CONNECT_TIMEOUT:?}")]
    TooSlow,
}

impl Reach {
    /// A gateway that is at `gateway` and calls itself `public`.
    pub fn new(gateway: &Url, public: Option<&Url>) -> Self {
        let base = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        Self {
            gateway: base(gateway),
            public: base(public.unwrap_or(gateway)),
            tls: OnceLock::new(),
        }
    }

    /// Returns the URL, as the gateway is known by, of one of its paths.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.public)
    }

    /// Returns the same for a path that takes a WebSocket.
    pub fn socket_url(&self, path: &str) -> String {
        as_socket(&self.url(path))
    }

    /// Returns where to reach what the gateway calls `url`.
    pub fn reached(&self, url: &str) -> String {
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

    /// Opens a media socket to what the gateway calls `url`.
    ///
    /// # Errors
    /// If the gateway does not take it.
    pub async fn open(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        script: Script,
    ) -> Result<Socket, UpgradeError> {
        let opened = timeout(CONNECT_TIMEOUT, self.upgrade(url, headers, script)).await;
        opened.map_err(|_| UpgradeError::TooSlow)?
    }

    async fn upgrade(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        script: Script,
    ) -> Result<Socket, UpgradeError> {
        let bad = || UpgradeError::BadUrl(url.to_owned());
        let reached = Url::parse(&self.reached(url)).map_err(|_| bad())?;
        let (Some(host), Some(port)) = (reached.host_str(), reached.port_or_known_default()) else {
            return Err(bad());
        };
        if !matches!(reached.scheme(), "ws" | "wss") {
            return Err(bad());
        }
        let mut request = reached.as_str().into_client_request().map_err(|_| bad())?;
        for (name, value) in headers {
            let value = HeaderValue::try_from(value).map_err(|_| bad())?;
            request.headers_mut().insert(*name, value);
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
}

/// Connects for one call, as its script needs it.
async fn connect(host: &str, port: u16, script: Script) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
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

/// Returns what to do about a status.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => ": are the simulator's keys the gateway's, and --public-url its PUBLIC_URL?",
        404 | 405 => ": is --url the base of the gateway's own URLs?",
        429 | 503 => ": the gateway has no room for more sockets",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::redis_server::free_port;

    fn reach(gateway: &str, public: Option<&str>) -> Reach {
        let url = |url: &str| Url::parse(url).unwrap();
        Reach::new(&url(gateway), public.map(url).as_ref())
    }

    #[test]
    fn what_the_gateway_calls_by_its_public_name_is_reached_at_its_address() {
        let public = Some("https://voice.example.com/gw");
        let reach = reach("http://127.0.0.1:5050/", public);
        assert_eq!(reach.url("/a"), "https://voice.example.com/gw/a");
        assert_eq!(reach.socket_url("/a"), "wss://voice.example.com/gw/a");
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
            assert_eq!(reach.reached(public), reached);
        }
    }

    #[test]
    fn without_a_public_name_every_url_is_taken_as_it_is() {
        let reach = reach("http://127.0.0.1:5050", None);
        assert_eq!(reach.reached("wss://a.example/b"), "wss://a.example/b");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_not_opened() {
        let reach = reach(&format!("http://127.0.0.1:{}", free_port()), None);
        let gone = reach.open(&reach.socket_url("/a"), &[], Script::Talk).await;
        assert!(matches!(gone, Err(UpgradeError::Unreachable(_))));
        for url in ["", "http://a", "ws:///", "ftp://a/b"] {
            let socket = reach.open(url, &[], Script::Talk).await;
            assert!(matches!(socket, Err(UpgradeError::BadUrl(_))), "{url}");
        }
    }
}
