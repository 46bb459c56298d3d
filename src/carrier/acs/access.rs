//! Proves requests to ACS: signed with the access key, or with a token of Entra's.

use jiff::Timestamp;
use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use secrecy::{ExposeSecret, SecretSlice};
use url::{Position, Url};

use crate::{
    carrier::acs::{
        AcsError,
        signature::{Signable, sign},
    },
    config::{AcsCredentials, EntraSettings},
    entra::{self, Entra},
};

/// The right that a token is asked for. The vendor's own SDK asks with both slashes.
const SCOPE: &str = "https://communication.azure.com//.default";
/// Makes the headers that prove a request.
pub enum Access {
    Key(SecretSlice<u8>),
    Entra(Box<Entra>),
}

impl Access {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(credentials: AcsCredentials, login: &Url) -> Result<Self, reqwest::Error> {
        Ok(match credentials {
            AcsCredentials::Key(key) => Self::Key(key),
            AcsCredentials::Entra {
                tenant,
                client,
                secret,
            } => {
                let settings = EntraSettings {
                    login: login.clone(),
                    tenant: tenant.to_string(),
                    client: client.to_string(),
                    secret,
                };
                Self::Entra(Box::new(Entra::new(settings, SCOPE, entra::http_client()?)))
            }
        })
    }

    /// Returns the headers that prove a request to `url`, made now.
    ///
    /// # Errors
    /// If it takes a token and there is none.
    pub async fn prove(
        &self,
        method: &Method,
        url: &Url,
        body: &[u8],
    ) -> Result<HeaderMap, AcsError> {
        let mut headers = HeaderMap::new();
        match self {
            Self::Key(key) => {
                let request = Signable {
                    method: method.as_str(),
                    path_and_query: &url[Position::BeforePath..Position::AfterQuery],
                    host: &url[Position::BeforeHost..Position::AfterPort],
                    date: &http_date(Timestamp::now()),
                    body,
                };
                for (name, value) in sign(key, &request) {
                    headers.insert(HeaderName::from_static(name), sensitive(&value));
                }
            }
            Self::Entra(tokens) => {
                let token = tokens.token().await.map_err(AcsError::NoToken)?;
                let bearer = format!("Bearer {}", token.expose_secret());
                headers.insert(reqwest::header::AUTHORIZATION, sensitive(&bearer));
            }
        }
        Ok(headers)
    }

    /// Forgets a token that ACS does not take.
    pub async fn was_refused(&self) {
        match self {
            Self::Key(_) => {}
            Self::Entra(tokens) => tokens.was_refused().await,
        }
    }
}

/// Returns a time as HTTP writes it.
pub fn http_date(time: Timestamp) -> String {
    jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&time)
        .expect("these years have four digits")
}

fn sensitive(value: &str) -> HeaderValue {
    // A token with a line break in it is none, and is refused as an empty one is.
    let mut value =
        HeaderValue::from_str(value).unwrap_or_else(|_| HeaderValue::from_static("Bearer"));
    value.set_sensitive(true);
    value
}
