//! A call rings: what carriers send, and the proof that it was they who sent it.

pub mod acs;
pub mod twilio;

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, dev::Payload, http::StatusCode};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::timeout;

/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(5);

/// Why a webhook is not acted on. The reply says what is wrong and nothing about us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("this carrier is closed here")]
    Closed,
    #[error("the signature is missing or wrong")]
    Unsigned,
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    #[error("the form has more than {} fields", twilio::MOST_FIELDS)]
    TooManyFields,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body broke off")]
    BrokenOff,
    #[error("the field {0} is missing or malformed")]
    BadField(&'static str),
    #[error("the account is not the one this gateway serves")]
    OtherAccount,
}

impl ResponseError for WebhookError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Closed | Self::Unsigned | Self::OtherAccount => StatusCode::FORBIDDEN,
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyFields | Self::BrokenOff | Self::BadField(_) => StatusCode::BAD_REQUEST,
        }
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code())
            .content_type("text/plain")
            .body(self.to_string())
    }
}

/// Reads a whole body, which may be `longest` bytes long.
///
/// # Errors
/// If it is longer, or does not arrive.
pub async fn read_body(mut payload: Payload, longest: usize) -> Result<Bytes, WebhookError> {
    let reading = async {
        let mut body = BytesMut::new();
        while let Some(part) = payload.next().await {
            let part = part.map_err(|_| WebhookError::BrokenOff)?;
            if body.len() + part.len() > longest {
                return Err(WebhookError::TooLong(longest));
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    };
    let read = timeout(BODY_PATIENCE, reading).await;
    read.unwrap_or(Err(WebhookError::TooSlow))
}
