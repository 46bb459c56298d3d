//! What Azure Voice Live needs beyond what every agent does.

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::config::{
    agent::is_fit,
    reader::{Environment, Reader},
    shown,
};

/// What Voice Live's addresses look like.
pub const VOICE_LIVE_URL: &str = "wss://<resource>.services.ai.azure.com/voice-live/realtime";
/// Which credentials there are.
pub const CREDENTIALS: &str =
    "or VOICE_LIVE_TENANT_ID, VOICE_LIVE_CLIENT_ID and VOICE_LIVE_CLIENT_SECRET";
/// What noise suppression is called; the other word is `none`.
pub const NOISE_SUPPRESSION: &str = "azure_deep_noise_suppression";

/// How agents of Voice Live are reached, unless the campaign file says otherwise.
#[derive(Debug, Clone)]
pub struct VoiceLiveAccess {
    /// `VOICE_LIVE_URL`: where the agent listens. Required.
    pub url: Option<Url>,
    /// `VOICE_LIVE_MODEL`. Default `gpt-realtime`.
    pub model: String,
    /// `VOICE_LIVE_API_KEY`: the resource's key.
    pub key: Option<SecretString>,
    /// `ENTRA_LOGIN_URL`: where tokens come from. Default `https://login.microsoftonline.com`.
    pub login: Url,
    pub settings: VoiceLiveSettings,
}

/// What Azure Voice Live needs beyond what every agent does.
#[derive(Debug, Clone, PartialEq)]
pub struct VoiceLiveSettings {
    /// `VOICE_LIVE_API_VERSION`. Default `2026-07-15`.
    pub api_version: String,
    /// In place of a key.
    pub entra: Option<EntraSettings>,
    /// Who talks in place of a model.
    pub foundry: Option<FoundryAgent>,
    /// `VOICE_LIVE_NOISE_SUPPRESSION`: `azure_deep_noise_suppression`, which is the default, or
    /// `none`.
    pub noise_suppression: bool,
    /// `VOICE_LIVE_ECHO_CANCELLATION`. Default on.
    pub echo_cancellation: bool,
    /// `VOICE_LIVE_AUTO_TRUNCATE`: the service cuts an interrupted answer by itself. Default off.
    pub auto_truncate: bool,
}

/// An agent that was made in Foundry, with its own model and instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundryAgent {
    /// `VOICE_LIVE_AGENT_NAME`.
    pub name: String,
    /// `VOICE_LIVE_PROJECT_NAME`.
    pub project: String,
}

/// An application's credentials at Microsoft Entra.
#[derive(Debug, Clone)]
pub struct EntraSettings {
    pub login: Url,
    /// `VOICE_LIVE_TENANT_ID`.
    pub tenant: String,
    /// `VOICE_LIVE_CLIENT_ID`.
    pub client: String,
    /// `VOICE_LIVE_CLIENT_SECRET`.
    pub secret: SecretString,
}

impl VoiceLiveAccess {
    /// Reads the settings; `login` is where tokens come from.
    pub(super) fn load(read: &Reader<impl Environment>, production: bool, login: &Url) -> Self {
        let key = read.secret("VOICE_LIVE_API_KEY");
        let entra = entra(read, login);
        if key.is_some() && entra.is_some() {
            let rule = "there are an application's credentials too: leave one of them out";
            read.mistake("VOICE_LIVE_API_KEY", None, rule);
        }
        Self {
            url: url(read, production),
            model: read
                .text("VOICE_LIVE_MODEL")
                .unwrap_or_else(|| "gpt-realtime".to_owned()),
            key,
            login: login.clone(),
            settings: VoiceLiveSettings {
                api_version: read
                    .text("VOICE_LIVE_API_VERSION")
                    .unwrap_or_else(|| "2026-07-15".to_owned()),
                entra,
                foundry: foundry(read),
                noise_suppression: noise_suppression(read),
                echo_cancellation: read.text("VOICE_LIVE_ECHO_CANCELLATION").is_none()
                    || read.switch("VOICE_LIVE_ECHO_CANCELLATION"),
                auto_truncate: read.switch("VOICE_LIVE_AUTO_TRUNCATE"),
            },
        }
    }

    /// Notes what an agent cannot be reached without.
    pub(super) fn require(&self, read: &Reader<impl Environment>) {
        if self.url.is_none() && read.text("VOICE_LIVE_URL").is_none() {
            let rule = format!("not set ({VOICE_LIVE_URL})");
            read.mistake("VOICE_LIVE_URL", None, &rule);
        }
        if self.key.is_none() && self.settings.entra.is_none() {
            let rule = format!("not set (the agent needs it, {CREDENTIALS})");
            read.mistake("VOICE_LIVE_API_KEY", None, &rule);
        }
    }
}

/// Written out, as secrets do not compare by themselves; a field more has to be placed here.
impl PartialEq for EntraSettings {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            login,
            tenant,
            client,
            secret,
        } = self;
        *login == other.login
            && *tenant == other.tenant
            && *client == other.client
            && secret.expose_secret() == other.secret.expose_secret()
    }
}

/// Tells whether Voice Live may be reached at `url`, whose query is ours.
pub fn is_fit_for_voice_live(url: &Url, production: bool) -> bool {
    is_fit(url, production) && url.query().is_none()
}

/// Says what an address of Voice Live has to be.
pub fn url_rule(production: bool) -> &'static str {
    if production {
        "a wss:// address, without user, password or query"
    } else {
        "a wss:// or ws:// address, without user, password or query"
    }
}

/// Tells whether a tenant or an application may be called so: it becomes a part of an address.
pub fn is_entra_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    (1..=255).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.')
}

fn url(read: &Reader<impl Environment>, production: bool) -> Option<Url> {
    let rule = url_rule(production);
    let url = read.parsed::<Url>("VOICE_LIVE_URL", rule)?;
    if !is_fit_for_voice_live(&url, production) {
        read.mistake("VOICE_LIVE_URL", shown(&url), rule);
        return None;
    }
    Some(url)
}

/// Reads an application's credentials: all of them, or none.
fn entra(read: &Reader<impl Environment>, login: &Url) -> Option<EntraSettings> {
    const NAMES: [&str; 3] = [
        "VOICE_LIVE_TENANT_ID",
        "VOICE_LIVE_CLIENT_ID",
        "VOICE_LIVE_CLIENT_SECRET",
    ];
    let [tenant, client] = [NAMES[0], NAMES[1]].map(|name| {
        let text = read.text(name)?;
        if !is_entra_name(&text) {
            let rule = "the id, as the portal shows it";
            read.mistake(name, Some(text.clone()), rule);
        }
        Some(text)
    });
    let secret = read.secret(NAMES[2]);
    let set = [tenant.is_some(), client.is_some(), secret.is_some()];
    if set.contains(&true) {
        for (name, _) in NAMES.iter().zip(set).filter(|(_, set)| !set) {
            read.mistake(name, None, "not set (the other two need it)");
        }
    }
    Some(EntraSettings {
        login: login.clone(),
        tenant: tenant?,
        client: client?,
        secret: secret?,
    })
}

fn foundry(read: &Reader<impl Environment>) -> Option<FoundryAgent> {
    let name = read.text("VOICE_LIVE_AGENT_NAME");
    let project = read.text("VOICE_LIVE_PROJECT_NAME");
    match (&name, &project) {
        (Some(_), None) => {
            let rule = "not set (VOICE_LIVE_AGENT_NAME needs it)";
            read.mistake("VOICE_LIVE_PROJECT_NAME", None, rule);
        }
        (None, Some(_)) => {
            let rule = "not set (VOICE_LIVE_PROJECT_NAME is of no use without)";
            read.mistake("VOICE_LIVE_AGENT_NAME", None, rule);
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    Some(FoundryAgent {
        name: name?,
        project: project?,
    })
}

fn noise_suppression(read: &Reader<impl Environment>) -> bool {
    const NAME: &str = "VOICE_LIVE_NOISE_SUPPRESSION";
    match read.text(NAME).as_deref() {
        None | Some(NOISE_SUPPRESSION) => true,
        Some("none") => false,
        Some(other) => {
            let rule = format!("{NOISE_SUPPRESSION} or none");
            read.mistake(NAME, Some(other.to_owned()), &rule);
            true
        }
    }
}
