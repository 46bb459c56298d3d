//! Twilio's side: signed webhooks and signed upgrades, by its documentation.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use sha1::Sha1;
use sha2::Sha256;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{ClientRequestBuilder, Error},
};
use url::form_urlencoded;

use crate::twiml::Element;

pub type Socket = WebSocketStream<TcpStream>;

/// What webhooks are signed with.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// What the gateways of these tests are called by their carrier; nobody listens there.
pub const PUBLIC_URL: &str = "https://voice.example.com";
pub const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub const CALLER: &str = "+972501234567";
pub const CALLED: &str = "+972721234567";

pub type Fields<'a> = Vec<(&'a str, &'a str)>;

/// A carrier that brings calls to one gateway.
#[derive(Clone)]
pub struct Carrier {
    http: Client,
    pub address: SocketAddr,
    pub token: &'static str,
}

/// What a webhook was answered with.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub kind: String,
    pub body: String,
}

impl Carrier {
    pub fn new(address: SocketAddr) -> Self {
        // Only the first of all tests sets the one of the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A connection that is kept may be closed by the gateway just when it is used again.
        let http = Client::builder()
            .timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(0);
        Self {
            http: http.build().unwrap(),
            address,
            token: TOKEN,
        }
    }

    /// Begins a request that carries no signature.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("http://{}{path}", self.address))
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("http://{}{path}", self.address))
    }

    pub fn request(&self, method: &Method, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.address);
        self.http.request(method.clone(), url)
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.http.delete(format!("http://{}{path}", self.address))
    }

    /// Posts a form as Twilio does.
    pub async fn webhook(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let signature = sign(self.token, &format!("{PUBLIC_URL}{path}"), fields);
        let request = self.post(path).header("X-Twilio-Signature", signature);
        Reply::to(request.form(fields)).await
    }

    /// Returns a figure of `/metrics`, by its name and labels; 0 if it is not there yet.
    pub async fn figure(&self, name: &str) -> u64 {
        let text = Reply::to(self.get("/metrics")).await.body;
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Reads a page's JSON.
    pub async fn page(&self, path: &str) -> Value {
        let response = self.get(path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    /// Opens a media socket at the URL that the TwiML named.
    ///
    /// # Errors
    /// With the status if the upgrade is refused.
    pub async fn open(&self, stream_url: &str) -> Result<Socket, u16> {
        let signature = sign(self.token, stream_url, &[]);
        self.upgrade(stream_url, Some(&signature)).await
    }

    /// # Errors
    /// With the status if the upgrade is refused.
    pub async fn upgrade(&self, stream_url: &str, signature: Option<&str>) -> Result<Socket, u16> {
        let uri = stream_url.replace("wss://", "ws://").parse().unwrap();
        let mut request = ClientRequestBuilder::new(uri);
        if let Some(signature) = signature {
            request = request.with_header("X-Twilio-Signature", signature);
        }
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        match client_async(request, tcp).await {
            Ok((socket, _)) => Ok(socket),
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }
}

impl Reply {
    pub async fn to(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let kind = response.headers().get("content-type");
        Self {
            status: response.status().as_u16(),
            kind: kind.map_or("", |kind| kind.to_str().unwrap()).to_owned(),
            body: response.text().await.unwrap(),
        }
    }

    pub fn twiml(&self) -> Element {
        assert_eq!(self.status, 200, "{}", self.body);
        assert_eq!(self.kind, "text/xml; charset=utf-8");
        Element::parse(&self.body)
    }
}

/// Returns `X-Twilio-Signature`: twilio.com/docs/usage/webhooks/webhooks-security.
pub fn sign(token: &str, url: &str, fields: &[(&str, &str)]) -> String {
    let sorted: BTreeMap<_, _> = fields.iter().copied().collect();
    let mut mac = Hmac::<Sha1>::new_from_slice(token.as_bytes()).unwrap();
    mac.update(url.as_bytes());
    for (name, value) in sorted {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Returns the signature with a webhook key, by the name that the header gives it.
pub fn sign_with_shared_key(secret: &str, url: &str, fields: &[(&str, &str)]) -> String {
    let sorted: BTreeMap<_, _> = fields.iter().copied().collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(url.as_bytes());
    for (name, value) in sorted {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    STANDARD.encode(mac.finalize().into_bytes())
}

/// Returns a name for a call that no other test has.
pub fn call_sid() -> String {
    format!("CA{}", uuid::Uuid::new_v4().simple())
}

/// Returns what Twilio says of a call that rings.
pub fn ringing(sid: &str) -> Fields<'_> {
    vec![
        ("CallSid", sid),
        ("AccountSid", ACCOUNT),
        ("From", CALLER),
        ("To", CALLED),
        ("CallStatus", "ringing"),
        ("ApiVersion", "2010-04-01"),
        ("Direction", "inbound"),
        ("CallerName", ""),
        ("FromCity", "TEL AVIV"),
    ]
}

/// Returns the form of `fields` as it is sent.
pub fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

#[test]
fn signatures_are_those_of_the_documentation() {
    let mut fields = ringing("CA00000000000000000000000000000001");
    let url = "https://voice.example.com/twilio/voice?tenant=acme";
    assert_eq!(sign(TOKEN, url, &fields), "23KWQiRfonZvSwqMmJglfz51m/s=");
    fields.reverse();
    assert_eq!(sign(TOKEN, url, &fields), "23KWQiRfonZvSwqMmJglfz51m/s=");
    assert_eq!(
        sign_with_shared_key(TOKEN, url, &fields),
        "51jq/txF081NWa+1KGeWstqP37hWhb9bBD4rdGiqhTk="
    );
    let media = "wss://voice.example.com/twilio/media";
    assert_eq!(sign(TOKEN, media, &[]), "3Wv0T80qzAY3OCARW9y1gnUJZtE=");
}
