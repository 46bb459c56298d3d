//! What callers are offered for whom there is no room.

use std::{collections::BTreeMap, fmt, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::{
    call::{PhoneNumber, is_sid},
    campaign::{AcsRefusal, WhenFull},
    config::{
        TwilioSettings,
        reader::{Environment, Reader},
        vendor,
    },
};

/// The most variables of a template, and the most characters of one value.
const MOST_VARIABLES: usize = 20;
const LONGEST_VARIABLE: usize = 100;

/// What callers are offered for whom there is no room.
#[derive(Debug)]
pub struct RefusalSettings {
    /// `CALLS_OVER_CAPACITY_BEHAVIOR`: `reject`, `voicemail` or `whatsapp`. Default `reject`.
    pub when_full: WhenFull,
    /// `ACS_WHEN_FULL`: how ACS is told so: `prompt`, `reject` or a number that rings instead.
    /// Default `prompt`.
    pub acs_when_full: AcsRefusal,
    /// `VOICEMAIL_MAX_SECONDS`: the longest message that a caller may leave. Default 120.
    pub longest_message: Duration,
    /// How to write to callers, or what has to be set before that is possible.
    pub whatsapp: Result<WhatsappSettings, Unset>,
}

/// How to write to callers on WhatsApp.
#[derive(Debug)]
pub struct WhatsappSettings {
    pub api: ApiSettings,
    pub sender: Sender,
    /// `WHATSAPP_TEMPLATE_SID`: the approved template, `HX` and 32 hexadecimal digits.
    pub template: String,
    /// `WHATSAPP_TEMPLATE_VARIABLES`: a JSON object from a variable's name to its text, in which
    /// `{campaign}` and `{tenant}` stand for the call's. Default: none.
    pub variables: BTreeMap<String, String>,
}

/// How to reach Twilio's REST API.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// `TWILIO_API_BASE`. Default `https://api.twilio.com`.
    pub base: Url,
    /// `TWILIO_ACCOUNT_SID`.
    pub account: String,
    /// `TWILIO_API_KEY_SID`, or the account.
    pub user: String,
    /// `TWILIO_API_KEY_SECRET`, or the first `TWILIO_AUTH_TOKEN`.
    pub secret: SecretString,
}

/// Who writes to callers.
#[derive(Debug)]
pub enum Sender {
    /// `WHATSAPP_FROM`.
    Number(PhoneNumber),
    /// `WHATSAPP_MESSAGING_SERVICE_SID`.
    Service(String),
}

/// The settings that are not there, each with what it is needed for or could be replaced by.
#[derive(Debug, Clone)]
pub struct Unset(Vec<(&'static str, &'static str)>);

impl RefusalSettings {
    pub(super) fn load(read: &Reader<impl Environment>, api: &Result<ApiSettings, Unset>) -> Self {
        const BEHAVIOR: &str = "CALLS_OVER_CAPACITY_BEHAVIOR";
        let when_full = read
            .parsed(BEHAVIOR, "reject, voicemail or whatsapp")
            .unwrap_or_default();
        let whatsapp = WhatsappSettings::load(read, api);
        if let (WhenFull::Whatsapp, Err(Unset(unset))) = (when_full, &whatsapp) {
            for (name, alternative) in unset {
                let rule = format!("not set ({BEHAVIOR}=whatsapp needs it{alternative})");
                read.mistake(name, None, &rule);
            }
        }
        Self {
            when_full,
            acs_when_full: read
                .parsed(
                    "ACS_WHEN_FULL",
                    "prompt, reject or a number that rings instead",
                )
                .unwrap_or_default(),
            longest_message: read.seconds("VOICEMAIL_MAX_SECONDS", 120, 5..=3_600),
            whatsapp,
        }
    }
}

impl WhatsappSettings {
    fn load(
        read: &Reader<impl Environment>,
        api: &Result<ApiSettings, Unset>,
    ) -> Result<Self, Unset> {
        let mut unset = match api {
            Ok(_) => Vec::new(),
            Err(Unset(unset)) => unset.clone(),
        };
        let api = api.as_ref().ok().cloned();
        let sender = sender(read);
        if sender.is_none() {
            unset.push(("WHATSAPP_FROM", ", or WHATSAPP_MESSAGING_SERVICE_SID"));
        }
        let template = sid(read, "WHATSAPP_TEMPLATE_SID", "HX");
        if template.is_none() {
            unset.push(("WHATSAPP_TEMPLATE_SID", ""));
        }
        let variables = variables(read);
        match (api, sender, template) {
            (Some(api), Some(sender), Some(template)) => Ok(Self {
                api,
                sender,
                template,
                variables,
            }),
            _ => Err(Unset(unset)),
        }
    }
}

impl ApiSettings {
    pub(super) fn load(
        read: &Reader<impl Environment>,
        production: bool,
        twilio: &TwilioSettings,
    ) -> Result<Self, Unset> {
        const KEY: (&str, &str) = ("TWILIO_API_KEY_SID", "TWILIO_API_KEY_SECRET");
        let base = vendor::url(
            read,
            "TWILIO_API_BASE",
            "https://api.twilio.com",
            &["twilio.com"],
            production,
        );
        let key = (sid(read, KEY.0, "SK"), read.secret(KEY.1));
        let account = twilio.account.clone();
        let mut unset = Vec::new();
        if account.is_none() {
            unset.push(("TWILIO_ACCOUNT_SID", ""));
        }
        let credentials = match key {
            (Some(key), Some(secret)) => Some((key, secret)),
            (None, None) => account.clone().zip(twilio.auth_tokens.first().cloned()),
            (Some(_), None) => {
                read.mistake(KEY.1, None, "not set (TWILIO_API_KEY_SID goes with it)");
                None
            }
            (None, Some(_)) => {
                read.mistake(KEY.0, None, "not set (TWILIO_API_KEY_SECRET goes with it)");
                None
            }
        };
        if credentials.is_none() && twilio.auth_tokens.is_empty() {
            let alternative = ", or TWILIO_API_KEY_SID and TWILIO_API_KEY_SECRET";
            unset.push(("TWILIO_AUTH_TOKEN", alternative));
        }
        match (account, credentials) {
            (Some(account), Some((user, secret))) => Ok(Self {
                base,
                account,
                user,
                secret,
            }),
            _ => Err(Unset(unset)),
        }
    }
}

impl fmt::Display for Unset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(|(name, _)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

fn sender(read: &Reader<impl Environment>) -> Option<Sender> {
    const FROM: &str = "WHATSAPP_FROM";
    let service = sid(read, "WHATSAPP_MESSAGING_SERVICE_SID", "MG");
    let from = read.text(FROM);
    let number = from.as_ref().and_then(|from| {
        let number = from.strip_prefix("whatsapp:").unwrap_or(from).parse();
        if number.is_err() {
            let rule = "a number in E.164, such as +972721234567";
            read.mistake(FROM, Some(from.clone()), rule);
        }
        number.ok()
    });
    match (number, service) {
        (Some(_), Some(service)) => {
            let rule = "WHATSAPP_MESSAGING_SERVICE_SID is set too: only one of them can send";
            read.mistake(FROM, None, rule);
            Some(Sender::Service(service))
        }
        (Some(number), None) => Some(Sender::Number(number)),
        (None, Some(service)) => Some(Sender::Service(service)),
        (None, None) => None,
    }
}

/// Reads one of Twilio's names for its things.
fn sid(read: &Reader<impl Environment>, name: &str, prefix: &str) -> Option<String> {
    let text = read.text(name)?;
    if !is_sid(prefix, &text) {
        let rule = format!("{prefix} and 32 hexadecimal digits, as the console shows it");
        read.mistake(name, Some(text.clone()), &rule);
    }
    Some(text)
}

fn variables(read: &Reader<impl Environment>) -> BTreeMap<String, String> {
    const NAME: &str = "WHATSAPP_TEMPLATE_VARIABLES";
    let Some(text) = read.text(NAME) else {
        return BTreeMap::new();
    };
    let variables: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    let is_good = |(name, value): (&String, &String)| is_name(name) && is_value(value);
    let fit = (1..=MOST_VARIABLES).contains(&variables.len());
    if !(fit && variables.iter().all(is_good)) {
        let rule = format!(
            "a JSON object such as {{\"1\":\"Dana's bakery\"}}: 1 to {MOST_VARIABLES} texts of 1 \
             to {LONGEST_VARIABLE} characters, on one line and without more than 4 blanks in a row"
        );
        read.mistake(NAME, Some(text), &rule);
    }
    variables
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=32).contains(&name.len()) && name.bytes().all(plain)
}

/// Tells whether Twilio takes a value for a template's variable. Twilio error 63013.
fn is_value(value: &str) -> bool {
    let length = value.chars().count();
    (1..=LONGEST_VARIABLE).contains(&length)
        && !value.trim().is_empty()
        && !value.contains("     ")
        && !value.chars().any(char::is_control)
}
