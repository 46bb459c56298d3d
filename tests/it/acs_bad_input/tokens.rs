//! Tokens that ACS has not signed as they are.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use callgate::fake_acs::Claims;
use ring::{
    rand::SystemRandom,
    rsa::{KeyPair, PublicKeyComponents},
    signature::RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

/// The directory and the application that Event Grid's tokens are for.
pub const ENTRA_TENANT: &str = "11111111-2222-4333-8444-555555555555";
pub const APPLICATION: &str = "22222222-3333-4444-8555-666666666666";
/// Event Grid, as Entra calls it: learn.microsoft.com/azure/event-grid/secure-webhook-delivery.
const EVENT_GRID: &str = "4962773b-9cdb-44cf-a8bf-237846a00ab7";

/// Returns what Entra says for Event Grid, to be changed and signed.
pub fn of_event_grid() -> Claims {
    Claims {
        issuer: format!("https://sts.windows.net/{ENTRA_TENANT}/"),
        audience: APPLICATION.to_owned(),
        expires_in: 300,
        application: Some(EVENT_GRID.to_owned()),
    }
}

/// A key that is nobody's.
const KEY: &[u8] = include_bytes!("../../keys/two.der");

/// Returns a good token with another signature, of a key of its own.
pub fn with_a_key_of_its_own(good: &str) -> String {
    signed(good.rsplit_once('.').unwrap().0)
}

/// Returns a token that brings the key along that has signed it.
pub fn that_brings_its_key(good: &str) -> String {
    let PublicKeyComponents::<Vec<u8>> { n, e } = key().public().into();
    let (n, e) = (URL_SAFE_NO_PAD.encode(n), URL_SAFE_NO_PAD.encode(e));
    let mut header = header(good);
    header["jwk"] = json!({"kty": "RSA", "alg": "RS256", "kid": header["kid"], "n": n, "e": e});
    header["jku"] = json!("http://127.0.0.1:1/keys");
    signed(&format!("{}.{}", encode(&header), claims(good)))
}

/// Returns a token that says of itself that nobody has signed it.
pub fn unsigned(good: &str) -> String {
    let mut header = header(good);
    header["alg"] = json!("none");
    format!("{}.{}.", encode(&header), claims(good))
}

/// Returns a token whose key nobody knows.
pub fn of_an_unknown_key(good: &str) -> String {
    let mut header = header(good);
    header["kid"] = json!("nobody's");
    signed(&format!("{}.{}", encode(&header), claims(good)))
}

fn signed(message: &str) -> String {
    let key = key();
    let mut signature = vec![0; key.public().modulus_len()];
    let random = SystemRandom::new();
    key.sign(
        &RSA_PKCS1_SHA256,
        &random,
        message.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn key() -> KeyPair {
    KeyPair::from_pkcs8(KEY).unwrap()
}

fn header(token: &str) -> Value {
    let header = token.split('.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

fn claims(token: &str) -> &str {
    token.split('.').nth(1).unwrap()
}

fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}
