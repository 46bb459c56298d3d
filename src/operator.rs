//! What operators see, and who is one.

pub mod action;
pub mod calls;
pub mod dashboard;
mod desk;
mod ended;
pub mod following;
pub mod health;
mod history;
pub mod login;
pub mod metrics;
mod noting;
pub mod outlook;
pub mod page;
mod plot;
mod question;
mod snapshot;
pub mod stats;
pub mod summary;
mod view;
mod warning;

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, ResponseError,
    dev::Payload,
    http::{StatusCode, header},
    web,
};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::{
    config::OperatorSettings,
    gateway::Gateway,
    operator::login::{Login, LoginId},
};

pub use desk::{Desk, look_out};
pub use noting::note_or_log;

/// Whoever may look at operators' pages; there is no other way to get one.
pub struct Operator {
    may_change: bool,
    by: By,
}

/// How an operator has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// With a token in the request.
    Bearer,
    /// With a token in the login form, some time before.
    Login(LoginId),
    /// From this machine, where no token is set.
    Loopback,
}

/// The request is nobody's who may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("send the operators' token: Authorization: Bearer …")]
    NoToken,
    #[error("without OPS_TOKEN this page answers on loopback only")]
    NotLoopback,
    #[error("OPS_READ_TOKEN may look, and change nothing: use OPS_TOKEN")]
    ReadOnly,
    #[error("too many wrong tokens: try again in {again_in_s} s")]
    TooMany { again_in_s: u64 },
}

impl Operator {
    /// Tells whether they may act, and not only look.
    pub fn may_change(&self) -> bool {
        self.may_change
    }

    /// Returns how they have come in.
    pub fn by(&self) -> &By {
        &self.by
    }
}

impl By {
    /// Returns who that is, as `audit` has it.
    pub fn actor(&self) -> String {
        match self {
            Self::Bearer => "operator:bearer".to_owned(),
            Self::Login(id) => format!("operator:login:{id}"),
            Self::Loopback => "operator:loopback".to_owned(),
        }
    }
}

impl FromRequest for Operator {
    type Error = Denied;
    type Future = Ready<Result<Self, Denied>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let gateway = request.app_data::<web::Data<Gateway>>();
        let gateway = gateway.expect("every route is given the gateway");
        let tokens = &gateway.operator;
        if tokens.token.is_none() && tokens.read_token.is_none() {
            let loopback = gateway.listen.ip().is_loopback() && is_direct(request);
            let here = Self {
                may_change: true,
                by: By::Loopback,
            };
            return ready(loopback.then_some(here).ok_or(Denied::NotLoopback));
        }
        let sent = bearer(request);
        let by_bearer = sent.and_then(|sent| may_change(tokens, sent));
        let operator = by_bearer.map(|may_change| Self {
            may_change,
            by: By::Bearer,
        });
        let operator = operator.or_else(|| {
            let login = Login::of(request, gateway)?;
            Some(Self {
                may_change: login.may_change,
                by: By::Login(login.id),
            })
        });
        ready(
            operator.ok_or_else(|| match sent.map(|_| gateway.wrong_token(request)) {
                Some(Err(wait)) => Denied::TooMany {
                    again_in_s: wait.as_secs() + 1,
                },
                Some(Ok(())) | None => Denied::NoToken,
            }),
        )
    }
}

/// Tells what a token is good for: whether whoever has it may act, and not only look; `None` if it
/// is nobody's.
pub fn may_change(tokens: &OperatorSettings, sent: &str) -> Option<bool> {
    let is = |token: &Option<SecretString>| token.as_ref().is_some_and(|token| same(sent, token));
    let (operator, reader) = (is(&tokens.token), is(&tokens.read_token));
    (operator || reader).then_some(operator)
}

impl ResponseError for Denied {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::NotLoopback | Self::ReadOnly => StatusCode::FORBIDDEN,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        match self {
            Self::NoToken => {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            Self::TooMany { again_in_s } => {
                response.insert_header((header::RETRY_AFTER, *again_in_s));
            }
            Self::NotLoopback | Self::ReadOnly => {}
        }
        response
            .content_type("text/plain; charset=utf-8")
            .body(self.to_string())
    }
}

/// Tells whether a request was made on this machine, to this machine, by nobody in between.
fn is_direct(request: &HttpRequest) -> bool {
    const FORWARDING: [&str; 5] = [
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
    ];
    let headers = request.headers();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let here = host.is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"));
    let peer = request
        .peer_addr()
        .is_some_and(|peer| peer.ip().is_loopback());
    here && peer && !FORWARDING.iter().any(|name| headers.contains_key(*name))
}

pub fn bearer(request: &HttpRequest) -> Option<&str> {
    let header = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    header.strip_prefix("Bearer ")
}

/// Compares in the same time wherever the first difference is, by codes under a passing key.
pub fn same(sent: &str, token: &SecretString) -> bool {
    let key: [u8; 32] = rand::random();
    let code = |text: &str| {
        let mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
        mac.chain_update(text)
    };
    let sent = code(sent).finalize().into_bytes();
    code(token.expose_secret()).verify(&sent).is_ok()
}
