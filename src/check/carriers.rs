//! Whether carriers take our credentials: one cheap question each.

use secrecy::SecretString;
use tokio::time::Instant;

use crate::{
    carrier::{
        acs::{AcsError, CallAutomation},
        twilio::{Patience, TwilioApi},
    },
    check::{
        PATIENCE,
        finding::{Credentials, Finding},
    },
    config::{ApiSettings, Config},
};

/// A connection of ACS's that there is not.
const NO_CONNECTION: &str = "00000000-0000-0000-0000-000000000000";

pub async fn probe(config: &Config) -> Vec<Finding> {
    let (twilio, acs) = futures_util::join!(twilio(config), acs(config));
    twilio.into_iter().chain(acs).collect()
}

async fn twilio(config: &Config) -> Vec<Finding> {
    let token = config.twilio.auth_tokens.first();
    let Ok(api) = &config.outbound.twilio else {
        return token.map(|_| Finding::TwilioUntried).into_iter().collect();
    };
    let mut findings = vec![ask_twilio(Credentials::TwilioApi, api.clone()).await];
    let has_key = api.user != api.account;
    if let Some(token) = token.filter(|_| has_key) {
        let beside = by_token(api, token);
        findings.push(ask_twilio(Credentials::TwilioToken, beside).await);
    }
    findings
}

async fn ask_twilio(credentials: Credentials, api: ApiSettings) -> Finding {
    let patience = Patience {
        connect: PATIENCE,
        whole: PATIENCE,
    };
    let twilio = match TwilioApi::new(api, patience) {
        Ok(twilio) => twilio,
        Err(error) => return Finding::Certificates(std::io::Error::other(error)),
    };
    match twilio.try_out().await {
        Ok(()) => Finding::CredentialsFit(credentials),
        Err(error) => Finding::TwilioWrong(credentials, error),
    }
}

/// Returns the same account, as its auth token opens it.
fn by_token(api: &ApiSettings, token: &SecretString) -> ApiSettings {
    ApiSettings {
        user: api.account.clone(),
        secret: token.clone(),
        ..api.clone()
    }
}

/// Asks after a connection that there is not: who may not ask is told so first.
async fn acs(config: &Config) -> Option<Finding> {
    let api = config.acs.api.clone()?;
    let client = CallAutomation::new(api, &config.acs.api_version, &config.acs.login);
    let client = match client {
        Ok(client) => client,
        Err(error) => return Some(Finding::Certificates(std::io::Error::other(error))),
    };
    let connection = NO_CONNECTION.parse().expect("letters, digits and hyphens");
    let until = Instant::now() + PATIENCE * 2;
    Some(match client.is_over(&connection, until).await {
        Ok(_) | Err(AcsError::Refused(_)) => Finding::CredentialsFit(Credentials::Acs),
        Err(error) => Finding::AcsWrong(error),
    })
}
