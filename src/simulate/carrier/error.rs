//! What can go wrong between Twilio and a gateway, and what to do about it.

use reqwest::StatusCode;

/// Why a webhook failed; what Twilio would write into its debugger.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("{url} is not a URL")]
    BadUrl { url: String },
    #[error("{url} cannot be reached ({why}): is a gateway running there?")]
    Unreachable { url: String, why: String },
    #[error("{url} did not answer in time or broke off ({why})")]
    NoAnswer { url: String, why: String },
    #[error("{url} answered {}{}", status.as_u16(), advice(*status))]
    Status { url: String, status: StatusCode },
    #[error("{url} answered with content type {content_type:?}, not text/xml")]
    ContentType { url: String, content_type: String },
    #[error("{url} answered with more than 64 kB")]
    TooLong { url: String },
}

impl WebhookError {
    /// Returns Twilio's number for it.
    pub fn code(&self) -> u32 {
        match self {
            Self::BadUrl { .. } => 11_100,
            Self::Unreachable { .. } => 11_205,
            Self::NoAnswer { .. } => 11_200,
            Self::Status { .. } => 11_217,
            Self::ContentType { .. } => 12_300,
            Self::TooLong { .. } => 11_750,
        }
    }

    /// Says why a request got no answer.
    pub fn no_answer(url: String, error: &reqwest::Error) -> Self {
        // The innermost source says most: "connection refused".
        let mut source: &dyn std::error::Error = error;
        while let Some(inner) = source.source() {
            source = inner;
        }
        let why = source.to_string();
        if error.is_connect() {
            Self::Unreachable { url, why }
        } else if error.is_builder() {
            Self::BadUrl { url }
        } else {
            Self::NoAnswer { url, why }
        }
    }
}

/// Returns what to do about a status.
fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => {
            ": is --auth-token the gateway's TWILIO_AUTH_TOKEN, and --public-url its PUBLIC_URL?"
        }
        404 | 405 => ": is --url the base of the gateway's own URLs?",
        429 | 503 => ": Twilio takes this for a failure, a busy gateway has to answer 200",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_request_says_what_to_do() {
        let error = WebhookError::Status {
            url: "http://a/b".into(),
            status: StatusCode::FORBIDDEN,
        };
        assert!(
            error
                .to_string()
                .contains("403: is --auth-token the gateway's")
        );
        assert_eq!(error.code(), 11_217);
    }
}
