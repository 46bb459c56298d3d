//! How a receiver knows that an event is ours: signatures by the Standard Webhooks rules.
//!
//! Source: github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md.

use std::str::FromStr;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

const PREFIX: &str = "whsec_";
/// How long a secret is, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;
/// How many secrets sign at once: the one before and the one after, while they are changed.
const MOST_SECRETS: usize = 2;

/// What signatures are made with; shows as `[REDACTED]`.
#[derive(Debug, Clone)]
pub struct SigningSecret(SecretSlice<u8>); // Invariant: 24 to 64 bytes.

/// An endpoint's secrets: two while one takes the place of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningSecrets(Vec<SigningSecret>); // Invariant: one or two, that differ.

/// Why a text is no [`SigningSecret`], or several are no [`SigningSecrets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotASecret {
    #[error("{PREFIX} and the base64 of 24 to 64 bytes: {PREFIX}$(openssl rand -base64 32)")]
    Form,
    #[error("one secret, or two that differ while one is rotated")]
    Number,
}

impl SigningSecrets {
    /// Reads secrets separated by commas.
    ///
    /// # Errors
    /// If one of them is none, or there are too few or too many.
    pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, NotASecret> {
        let secrets: Vec<SigningSecret> = texts
            .into_iter()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        match &secrets[..] {
            [_] => {}
            [one, other] if one != other => {}
            _ => return Err(NotASecret::Number),
        }
        debug_assert!(secrets.len() <= MOST_SECRETS);
        Ok(Self(secrets))
    }

    /// Returns the headers that prove a message: its `id`, the same for every try, when it is sent,
    /// in Unix seconds, and a signature by each secret.
    pub fn headers(&self, id: &str, sent_at: u64, body: &[u8]) -> HeaderMap {
        let signatures: Vec<_> = self
            .0
            .iter()
            .map(|secret| secret.sign(id, sent_at, body))
            .collect();
        let id = HeaderValue::from_str(id).expect("our ids are plain ASCII");
        let signatures = HeaderValue::from_str(&signatures.join(" "));
        HeaderMap::from_iter([
            (ID, id),
            (TIMESTAMP, HeaderValue::from(sent_at)),
            (SIGNATURE, signatures.expect("base64 is plain ASCII")),
        ])
    }
}

impl SigningSecret {
    fn sign(&self, id: &str, sent_at: u64, body: &[u8]) -> String {
        let hmac: Hmac<Sha256> =
            Hmac::new_from_slice(self.0.expose_secret()).expect("HMAC takes a key of any length");
        let signed = hmac
            .chain_update(format!("{id}.{sent_at}."))
            .chain_update(body);
        format!("v1,{}", STANDARD.encode(signed.finalize().into_bytes()))
    }
}

impl FromStr for SigningSecret {
    type Err = NotASecret;

    fn from_str(text: &str) -> Result<Self, NotASecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(NotASecret::Form)?;
        let secret = STANDARD.decode(encoded).map_err(|_| NotASecret::Form)?;
        if !LENGTHS.contains(&secret.len()) {
            return Err(NotASecret::Form);
        }
        Ok(Self(SecretSlice::from(secret)))
    }
}

/// Of settings, to tell whether they have changed: neither side comes from outside.
impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl Eq for SigningSecret {}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use proptest::prelude::*;
    use standardwebhooks::Webhook;

    use super::*;

    const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NEW: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    /// The library takes timestamps of the last five minutes only, by the machine's clock.
    fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap().as_secs()
    }

    fn is_verified(secret: &str, body: &str, headers: &HeaderMap) -> bool {
        let webhook = Webhook::new(secret).unwrap();
        webhook.verify(body.as_bytes(), headers).is_ok()
    }

    #[test]
    fn the_specifications_own_example_is_signed_as_there() {
        // The example of the specification's reference libraries.
        let secret: SigningSecret = OLD.parse().unwrap();
        let signature = secret.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_secret_is_rotated_either_one_verifies() {
        let body = r#"{"type":"call.ended","data":{"words":"שלום"}}"#;
        let both = SigningSecrets::read([NEW, OLD]).unwrap();
        let headers = both.headers("evt_1", now(), body.as_bytes());
        assert!(is_verified(OLD, body, &headers));
        assert!(is_verified(NEW, body, &headers));
        let one = SigningSecrets::read([NEW]).unwrap();
        let headers = one.headers("evt_1", now(), body.as_bytes());
        assert!(is_verified(NEW, body, &headers));
        assert!(!is_verified(OLD, body, &headers));
    }

    #[test]
    fn a_change_to_anything_signed_is_noticed() {
        let secrets = SigningSecrets::read([NEW]).unwrap();
        let headers = secrets.headers("evt_1", now(), b"{}");
        assert!(is_verified(NEW, "{}", &headers));
        assert!(!is_verified(NEW, "{ }", &headers));
        for (name, value) in [(ID, "evt_2"), (TIMESTAMP, &(now() - 1).to_string())] {
            let mut changed = headers.clone();
            changed.insert(name, HeaderValue::from_str(value).unwrap());
            assert!(!is_verified(NEW, "{}", &changed), "{value}");
        }
    }

    #[test]
    fn a_secret_is_long_enough_marked_and_never_shown() {
        let of = |bytes: usize| format!("{PREFIX}{}", STANDARD.encode(vec![b'k'; bytes]));
        for good in [24, 32, 64] {
            let secret: SigningSecret = of(good).parse().unwrap();
            let shown = format!("{secret:?}");
            assert!(!shown.contains("107") && !shown.contains("kk"), "{shown}");
        }
        let unmarked = STANDARD.encode([b'k'; 32]);
        for bad in [
            &of(23),
            &of(65),
            &unmarked,
            "whsec_",
            "whsec_%%%",
            "",
            "WHSEC_aaaa",
        ] {
            assert_eq!(bad.parse::<SigningSecret>(), Err(NotASecret::Form), "{bad}");
        }
        let third = of(32);
        for bad in [&[][..], &[OLD, OLD], &[OLD, NEW, &third]] {
            let read = SigningSecrets::read(bad.iter().copied());
            assert_eq!(read, Err(NotASecret::Number), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_independent_library_verifies_whatever_is_signed(
            key in proptest::collection::vec(any::<u8>(), LENGTHS),
            id in "[a-z0-9_-]{1,40}",
            body in ".{0,200}",
        ) {
            let secret = format!("{PREFIX}{}", STANDARD.encode(key));
            let secrets = SigningSecrets::read([secret.as_str()]).unwrap();
            let headers = secrets.headers(&id, now(), body.as_bytes());
            prop_assert!(is_verified(&secret, &body, &headers));
        }
    }
}
