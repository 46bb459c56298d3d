//! Tokens that prove who a request comes from: ACS itself, or Event Grid by Entra.
//!
//! Sources: learn.microsoft.com/azure/communication-services/how-tos/call-automation/secure-webhook-endpoint
//! and learn.microsoft.com/azure/event-grid/secure-webhook-delivery.
//!
//! Invariant: RS256 only, with a key that the issuer's own, configured address names; what a token
//! says of its key counts for nothing but the key's id.
//! Invariant: an issuer is asked once in 10 s at most, by one request at a time.

mod cache;
mod keys;
mod rs256;

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::{Error, ErrorKind},
};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use crate::{
    config::EventGridApplication,
    webhook::acs::token::keys::{KeySet, Lookup},
};

const ACS_ISSUER: &str = "https://acscallautomation.communication.azure.com";
/// Event Grid itself, as Entra knows it in the public cloud.
const EVENT_GRID: &str = "4962773b-9cdb-44cf-a8bf-237846a00ab7";
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 60;
/// ACS's and Entra's have 1,000 to 2,000 bytes.
const LONGEST_TOKEN: usize = 8 << 10;
const LONGEST_KEY_ID: usize = 256;

/// Checks the tokens of one issuer that are made for one audience.
pub struct TokenVerifier {
    keys: KeySet,
    validation: Validation,
    /// Who must have asked for the token, where that matters.
    application: Option<&'static str>,
}

/// What a token that holds says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// When it expires, in Unix seconds.
    pub exp: u64,
    appid: Option<String>,
    azp: Option<String>,
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is refused: {0}")]
    Refused(Flaw),
    /// It may be good: the same request is welcome later.
    #[error("the issuer's keys are not known: it has not answered")]
    Unavailable,
}

/// What is wrong with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("it is no token")]
    Malformed,
    #[error("its algorithm is not RS256")]
    Algorithm,
    #[error("its issuer has no such key")]
    Key,
    #[error("its signature is wrong")]
    Signature,
    #[error("it has expired")]
    Expired,
    #[error("its time has not come")]
    Early,
    #[error("it is for somebody else")]
    Audience,
    #[error("it is from somebody else")]
    Issuer,
    #[error("it is another application's")]
    Application,
}

impl TokenVerifier {
    /// Checks tokens of ACS's for a `resource`; `openid` names the address of their keys.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub fn of_acs(resource: Uuid, openid: &Url) -> Result<Self, reqwest::Error> {
        let audiences = [resource.to_string(), format!("{resource:X}")];
        Self::new(&[ACS_ISSUER.to_owned()], &audiences, openid.clone(), None)
    }

    /// Checks tokens that Entra makes for Event Grid.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub fn of_event_grid(
        application: &EventGridApplication,
        login: &Url,
    ) -> Result<Self, reqwest::Error> {
        let EventGridApplication { tenant, audience } = application;
        let login = login.as_str().trim_end_matches('/');
        let issuers = [
            format!("https://sts.windows.net/{tenant}/"),
            format!("https://login.microsoftonline.com/{tenant}/v2.0"),
            format!("{login}/{tenant}/v2.0"), // In a government's cloud.
        ];
        let audiences = [audience.clone(), format!("api://{audience}")];
        let openid = format!("{login}/{tenant}/v2.0/.well-known/openid-configuration");
        let openid = openid.parse().expect("a GUID goes into a path");
        Self::new(&issuers, &audiences, openid, Some(EVENT_GRID))
    }

    fn new(
        issuers: &[String],
        audiences: &[String],
        openid: Url,
        application: Option<&'static str>,
    ) -> Result<Self, reqwest::Error> {
        rs256::install();
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(issuers);
        validation.set_audience(audiences);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        Ok(Self {
            keys: KeySet::new(openid)?,
            validation,
            application,
        })
    }

    /// Returns what a token says, if it holds. What follows `Bearer ` in the header is the token.
    ///
    /// # Errors
    /// [`TokenError::Refused`] if it does not hold, [`TokenError::Unavailable`] if nobody knows.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let id = key_id(token).map_err(TokenError::Refused)?;
        let key = match self.keys.find(&id).await {
            Lookup::Found(key) => key,
            Lookup::Unknown => return Err(TokenError::Refused(Flaw::Key)),
            Lookup::Unavailable => return Err(TokenError::Unavailable),
        };
        self.check(token, &key).map_err(TokenError::Refused)
    }

    fn check(&self, token: &str, key: &DecodingKey) -> Result<Claims, Flaw> {
        let token = decode::<Claims>(token, key, &self.validation).map_err(|error| flaw(&error))?;
        let claims = token.claims;
        let Some(wanted) = self.application else {
            return Ok(claims);
        };
        // The first version of Entra's tokens has the one, the second the other.
        let named = [claims.appid.as_deref(), claims.azp.as_deref()];
        let named: Vec<&str> = named.into_iter().flatten().collect();
        let is_wanted = |name: &&str| name.eq_ignore_ascii_case(wanted);
        if !named.is_empty() && named.iter().all(is_wanted) {
            Ok(claims)
        } else {
            Err(Flaw::Application)
        }
    }
}

impl TokenError {
    /// Returns the name that metrics have for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "keys_unavailable",
            Self::Refused(flaw) => match flaw {
                Flaw::Malformed => "malformed",
                Flaw::Algorithm => "algorithm",
                Flaw::Key => "unknown_key",
                Flaw::Signature => "signature",
                Flaw::Expired => "expired",
                Flaw::Early => "early",
                Flaw::Audience => "audience",
                Flaw::Issuer => "issuer",
                Flaw::Application => "application",
            },
        }
    }
}

/// Returns the id of the key that a token names, before any key is asked for.
fn key_id(token: &str) -> Result<String, Flaw> {
    if token.len() > LONGEST_TOKEN {
        return Err(Flaw::Malformed);
    }
    let header = decode_header(token).map_err(|error| flaw(&error))?;
    if header.alg != Algorithm::RS256 {
        return Err(Flaw::Algorithm);
    }
    let id = header.kid.filter(|id| id.len() <= LONGEST_KEY_ID);
    id.ok_or(Flaw::Malformed)
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the crate's list of mistakes is an open one"
)]
fn flaw(error: &Error) -> Flaw {
    match error.kind() {
        ErrorKind::InvalidSignature => Flaw::Signature,
        ErrorKind::ExpiredSignature => Flaw::Expired,
        ErrorKind::ImmatureSignature => Flaw::Early,
        ErrorKind::InvalidAudience => Flaw::Audience,
        ErrorKind::InvalidIssuer => Flaw::Issuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Flaw::Audience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Flaw::Issuer,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Flaw::Algorithm,
        _ => Flaw::Malformed,
    }
}

#[cfg(test)]
mod tests;
