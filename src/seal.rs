//! Texts of ours that come back to us from outside: signed, so that nobody else can make them, and
//! each good for one purpose.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use sha2::Sha256;

/// The longest sealed text that is looked at.
const LONGEST: usize = 2_048;

/// Seals texts, and opens those that it has sealed.
#[derive(Clone)]
pub struct Seal(Hmac<Sha256>);

impl Seal {
    /// Makes a seal of `secret`, which replicas share, or one that only this process knows.
    pub fn new(secret: Option<&SecretString>) -> Self {
        let random: [u8; 32] = rand::random();
        let secret = secret.map_or(&random[..], |secret| secret.expose_secret().as_bytes());
        Self(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    /// Returns `content` as a text that is fit for a URL and opens for `purpose` only.
    pub fn close(&self, purpose: &str, content: &impl Serialize) -> String {
        let body = serde_json::to_vec(content).expect("texts and numbers always serialize");
        let body = URL_SAFE_NO_PAD.encode(body);
        let seal = self.over(purpose, &body).finalize().into_bytes();
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(seal))
    }

    /// Returns what a text holds; `None` if it was not sealed here for `purpose`.
    pub fn open<T: DeserializeOwned>(&self, purpose: &str, text: &str) -> Option<T> {
        let (body, seal) = text.split_once('.').filter(|_| text.len() <= LONGEST)?;
        let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
        self.over(purpose, body).verify_slice(&seal).ok()?;
        let body = URL_SAFE_NO_PAD.decode(body).ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// Returns a mark of a secret, by which it can be told from another, and from which nobody comes
    /// back to it.
    pub fn mark(&self, purpose: &str, secret: &SecretString) -> String {
        let mark = self.over(purpose, secret.expose_secret()).finalize();
        URL_SAFE_NO_PAD.encode(&mark.into_bytes()[..12])
    }

    fn over(&self, purpose: &str, body: &str) -> Hmac<Sha256> {
        // No purpose has a line break, so that no other pair of texts is the same to the hash.
        self.0.clone().chain_update(format!("{purpose}\n{body}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_for_its_purpose_by_its_own_key() {
        let secret: SecretString = "0123456789abcdef".into();
        let seal = Seal::new(Some(&secret));
        let text = seal.close("call", &("CA1", 7));
        assert_eq!(
            Seal::new(Some(&secret)).open("call", &text),
            Some(("CA1".to_owned(), 7))
        );
        assert_eq!(seal.open::<(String, u32)>("pass", &text), None);
        assert_eq!(Seal::new(None).open::<(String, u32)>("call", &text), None);
        let mut changed = text.clone();
        changed.replace_range(0..1, "X");
        for bad in [changed.as_str(), "", ".", "a.b", &"x".repeat(5_000)] {
            assert_eq!(seal.open::<(String, u32)>("call", bad), None, "{bad}");
        }
    }
}
