//! How Twilio proves itself.

use secrecy::{ExposeSecret, SecretString};

use crate::{
    call::{CallerId, is_sid},
    config::reader::{Environment, Reader, split},
};

/// How Twilio proves itself, and which of its numbers are ours.
#[derive(Debug, Default)]
pub struct TwilioSettings {
    /// `TWILIO_AUTH_TOKEN`: signs webhooks; several while one is rotated. Without any, and
    /// without a shared key, Twilio's routes answer 403.
    pub auth_tokens: Vec<SecretString>,
    /// `TWILIO_SHARED_KEYS`: `id=secret` pairs of webhook keys, in place of the auth token.
    pub shared_keys: Vec<(String, SecretString)>,
    /// `TWILIO_ACCOUNT_SID`: the one account whose calls are ours. Default: any that signs.
    pub account: Option<String>,
    /// `TWILIO_NUMBERS`: the numbers that are in service. Default: every number.
    pub numbers: Vec<CallerId>,
}

impl TwilioSettings {
    pub(super) fn load(read: &Reader<impl Environment>, production: bool) -> Self {
        let tokens = read.secret("TWILIO_AUTH_TOKEN");
        let keys = read.secret("TWILIO_SHARED_KEYS");
        let settings = Self {
            auth_tokens: entries(tokens.as_ref()).map(SecretString::from).collect(),
            shared_keys: entries(keys.as_ref())
                .filter_map(|entry| shared_key(read, &entry))
                .collect(),
            account: read.text("TWILIO_ACCOUNT_SID"),
            numbers: read
                .list("TWILIO_NUMBERS")
                .iter()
                .map(|number| CallerId::read(number))
                .collect(),
        };
        if let Some(account) = &settings.account
            && !is_sid("AC", account)
        {
            let rule = "AC and 32 hexadecimal digits, as the console shows it";
            read.mistake("TWILIO_ACCOUNT_SID", Some(account.clone()), rule);
        }
        if production && !settings.is_open() {
            let rule = "not set (in production webhooks must be signed)";
            read.mistake("TWILIO_AUTH_TOKEN", None, rule);
        }
        settings
    }

    /// Tells whether anything signed could be accepted.
    pub fn is_open(&self) -> bool {
        !(self.auth_tokens.is_empty() && self.shared_keys.is_empty())
    }
}

fn shared_key(read: &Reader<impl Environment>, entry: &str) -> Option<(String, SecretString)> {
    let pair = entry.split_once('=');
    if pair.is_none() {
        let rule = "pairs of a key's id and its secret: webhooks_sharedkey_…=secret";
        read.mistake("TWILIO_SHARED_KEYS", None, rule);
    }
    pair.map(|(id, secret)| (id.to_owned(), secret.into()))
}

fn entries(list: Option<&SecretString>) -> impl Iterator<Item = String> {
    split(list.map_or("", |list| list.expose_secret())).into_iter()
}
