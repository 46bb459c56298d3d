//! A call rings: what carriers send, and the proof that it was they who sent it.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "its routes and media sockets follow")
)]
pub mod acs;
pub mod twilio;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};

/// Why a webhook is not acted on. The reply says what is wrong and nothing about us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("this carrier is closed here")]
    Closed,
    #[error("the signature is missing or wrong")]
    Unsigned,
    #[error("the body is longer than {} bytes", twilio::LONGEST_FORM)]
    TooLong,
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
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
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
