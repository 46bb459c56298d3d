//! The signature of requests to ACS, checked as ACS does.
//!
//! Source: learn.microsoft.com/azure/communication-services/tutorials/hmac-header-tutorial.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use sha2::{Digest, Sha256};

/// How far a request's date may be from the clock; ACS does not say how far.
const MOST_SKEW: Duration = Duration::from_mins(5);

/// What of a request is signed, as it was on the wire.
pub struct Signed<'a> {
    pub method: &'a str,
    pub path_and_query: &'a str,
    pub host: &'a str,
    pub body: &'a [u8],
    /// The headers `x-ms-date`, `x-ms-content-sha256` and `authorization`.
    pub date: &'a str,
    pub hash: &'a str,
    pub authorization: &'a str,
}

impl Signed<'_> {
    /// Tells whether a request was signed with `key` a short while ago.
    pub fn is_valid(&self, key: &[u8], now: Timestamp) -> bool {
        self.is_timely(now) && self.hash == STANDARD.encode(Sha256::digest(self.body)) && {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key");
            mac.update(
                format!(
                    "{}\n{}\n{};{};{}",
                    self.method, self.path_and_query, self.date, self.host, self.hash
                )
                .as_bytes(),
            );
            let expected = STANDARD.encode(mac.finalize().into_bytes());
            let headers = "x-ms-date;host;x-ms-content-sha256";
            self.authorization
                == format!("HMAC-SHA256 SignedHeaders={headers}&Signature={expected}")
        }
    }

    fn is_timely(&self, now: Timestamp) -> bool {
        let most = SignedDuration::try_from(MOST_SKEW).expect("minutes fit");
        rfc2822::parse(self.date)
            .is_ok_and(|date| date.timestamp().duration_since(now).abs() <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // What Microsoft's own Python package signs, with the clock fixed.
    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const REQUEST: Signed<'_> = Signed {
        method: "POST",
        path_and_query: "/calling/callConnections:answer?api-version=2025-05-15",
        host: "contoso-voice.unitedstates.communication.azure.com",
        body: br#"{"incomingCallContext":"ctx-1","callbackUri":"https://gw.example.com/acs/callbacks/c1"}"#,
        date: "Tue, 06 Jan 2026 10:20:30 GMT",
        hash: "XrA0GRenpIsheHTOV5NKXDb5l4JcMzGzqOOfPGOR54o=",
        authorization: "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&\
                        Signature=B3D9eE/2PXJIOwGlAGgHHna+rC1cTzbuWHruhFa6/hw=",
    };

    #[test]
    fn what_a_vendors_package_signs_is_valid_and_nothing_else() {
        let key = STANDARD.decode(KEY).unwrap();
        let now = "2026-01-06T10:21:00Z".parse().unwrap();
        assert!(REQUEST.is_valid(&key, now));
        assert!(!REQUEST.is_valid(b"another key", now));
        let later = "2026-01-06T10:30:00Z".parse().unwrap();
        assert!(!REQUEST.is_valid(&key, later));
        let others = [
            Signed {
                method: "PUT",
                ..REQUEST
            },
            Signed {
                path_and_query: "/calling/callConnections:answer",
                ..REQUEST
            },
            Signed {
                host: "contoso-voice",
                ..REQUEST
            },
            Signed {
                body: b"{}",
                ..REQUEST
            },
            Signed {
                date: "Tue, 06 Jan 2026 10:20:31 GMT",
                ..REQUEST
            },
            Signed {
                authorization: "",
                ..REQUEST
            },
        ];
        for other in others {
            assert!(!other.is_valid(&key, now), "{}", other.path_and_query);
        }
    }
}
