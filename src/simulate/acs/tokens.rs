//! The tokens that ACS proves itself by, and the keys to check them with.
//!
//! The keys are fixed and public (`first.pk8`, `second.pk8`): they sign nothing but what a fake
//! says on this machine. Making RSA keys would take a crate of its own and seconds of each start.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use ring::{
    rand::SystemRandom,
    rsa::{KeyPair, PublicKeyComponents},
    signature,
};
use serde_json::{Value, json};

const ISSUER: &str = "https://acscallautomation.communication.azure.com";

/// How long tokens are good: of callbacks 5 minutes, of media sockets a day.
pub const CALLBACK_LIFETIME: Duration = Duration::from_mins(5);
pub const SOCKET_LIFETIME: Duration = Duration::from_hours(24);

/// How long a token is used again: signing takes a millisecond, and callers would be late by it.
const USED_AGAIN: Duration = Duration::from_secs(30);

/// What a token says.
#[derive(Debug, Clone)]
pub struct Claims {
    pub issuer: String,
    pub audience: String,
    /// Seconds from now; negative ones are over.
    pub expires_in: i64,
    /// The application that has asked for it, in tokens as Entra makes them.
    pub application: Option<String>,
}

/// The keys of a fake, and what it has signed.
pub struct Tokens {
    audience: String,
    random: SystemRandom,
    state: Mutex<State>,
}

struct State {
    generation: usize,
    keys: [KeyPair; 2],
    hidden: bool,
    /// By lifetime: a token and when it was signed.
    signed: HashMap<Duration, (Timestamp, String)>,
}

impl Tokens {
    /// Keys of a resource that is called `audience`.
    pub fn new(audience: String) -> Self {
        let keys = [
            &include_bytes!("first.pk8")[..],
            include_bytes!("second.pk8"),
        ];
        Self {
            audience,
            random: SystemRandom::new(),
            state: Mutex::new(State {
                generation: 0,
                keys: keys.map(|key| KeyPair::from_pkcs8(key).expect("the tests read both")),
                hidden: false,
                signed: HashMap::new(),
            }),
        }
    }

    /// Returns what a token of this resource says.
    pub fn claims(&self) -> Claims {
        Claims {
            issuer: ISSUER.to_owned(),
            audience: self.audience.clone(),
            expires_in: CALLBACK_LIFETIME.as_secs().cast_signed(),
            application: None,
        }
    }

    /// Returns a token that is good for about `lifetime`.
    pub fn good_for(&self, lifetime: Duration) -> String {
        let now = Timestamp::now();
        let mut state = self.state();
        if let Some((signed, token)) = state.signed.get(&lifetime)
            && now < *signed + USED_AGAIN
        {
            return token.clone();
        }
        let claims = Claims {
            expires_in: lifetime.as_secs().cast_signed(),
            ..self.claims()
        };
        let token = self.sign(&state, &claims);
        state.signed.insert(lifetime, (now, token.clone()));
        token
    }

    /// Returns a token that says what is wanted.
    pub fn saying(&self, claims: &Claims) -> String {
        self.sign(&self.state(), claims)
    }

    /// Signs with another key from now on. The one before it stays published.
    pub fn rotate(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.signed.clear();
    }

    /// Publishes the keys, or does not.
    pub fn hide(&self, hidden: bool) {
        self.state().hidden = hidden;
    }

    /// Returns what the server of keys answers; `None` while it is down.
    pub fn published(&self) -> Option<Value> {
        let state = self.state();
        let first = state.generation.saturating_sub(1);
        let keys = (first..=state.generation).map(|generation| {
            let public = state.key(generation).public();
            let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(public);
            json!({
                "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid(generation),
                "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e),
            })
        });
        let keys = json!({ "keys": keys.collect::<Vec<_>>() });
        (!state.hidden).then_some(keys)
    }

    /// Returns the document that names the keys' address; `None` while its server is down.
    pub fn configuration(&self, base: &str) -> Option<Value> {
        let document = json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{base}/calling/keys"),
            "id_token_signing_alg_values_supported": ["RS256"],
        });
        (!self.state().hidden).then_some(document)
    }

    fn sign(&self, state: &State, claims: &Claims) -> String {
        let now = Timestamp::now().as_second();
        let header = json!({"alg": "RS256", "typ": "JWT", "kid": kid(state.generation)});
        let mut said = json!({
            "iss": claims.issuer, "aud": claims.audience, "iat": now, "nbf": now,
            "exp": now + claims.expires_in,
        });
        if let Some(application) = &claims.application {
            said["appid"] = json!(application);
        }
        let part = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(header), part(said));
        let key = state.key(state.generation);
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(
            &signature::RSA_PKCS1_SHA256,
            &self.random,
            signed.as_bytes(),
            &mut signature,
        )
        .expect("a key of 2048 bits signs whatever it is given");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn key(&self, generation: usize) -> &KeyPair {
        &self.keys[generation % self.keys.len()]
    }
}

fn kid(generation: usize) -> String {
    format!("callgate-development-{generation}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::RSA_PKCS1_2048_8192_SHA256;

    /// Tells whether a published key has signed a token.
    fn is_signed(token: &str, keys: &Value) -> bool {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let header = signed.split('.').next().unwrap();
        let header: Value = serde_json::from_slice(&decode(header)).unwrap();
        let keys = keys["keys"].as_array().unwrap();
        let key = keys.iter().find(|key| key["kid"] == header["kid"]);
        key.is_some_and(|key| {
            let part = |name: &str| decode(key[name].as_str().unwrap());
            let key = PublicKeyComponents {
                n: part("n"),
                e: part("e"),
            };
            let signature = decode(signature);
            key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &signature)
                .is_ok()
        })
    }

    #[test]
    fn a_token_is_signed_by_a_key_that_is_published() {
        let tokens = Tokens::new("resource".into());
        let before = tokens.good_for(CALLBACK_LIFETIME);
        assert_eq!(tokens.good_for(CALLBACK_LIFETIME), before);
        assert_ne!(tokens.good_for(SOCKET_LIFETIME), before);
        let old_keys = tokens.published().unwrap();
        tokens.rotate();
        let after = tokens.good_for(CALLBACK_LIFETIME);
        let keys = tokens.published().unwrap();
        assert!(is_signed(&before, &old_keys));
        assert!(is_signed(&before, &keys));
        assert!(is_signed(&after, &keys));
        assert!(!is_signed(&after, &old_keys));
        tokens.hide(true);
        assert_eq!(tokens.published(), None);
        assert_eq!(tokens.configuration("http://a"), None);
    }
}
