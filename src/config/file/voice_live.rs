//! What a campaign file says of an agent of Voice Live beyond what it says of every agent.

use secrecy::SecretString;
use url::Url;

use crate::config::{
    AgentKind, EntraSettings, NOISE_SUPPRESSION,
    agent::openai_url,
    file::{
        agents::{LONGEST_NAME, Reading},
        table::Entry,
    },
    shown,
    voice_live::{
        FoundryAgent, VOICE_LIVE_URL, VoiceLiveAccess, VoiceLiveSettings, is_entra_name,
        is_fit_for_voice_live, url_rule,
    },
};

/// The keys that mean something to Voice Live alone.
const KEYS: [&str; 10] = [
    "api_version",
    "tenant_id",
    "client_id",
    "client_secret",
    "client_secret_file",
    "agent_name",
    "project_name",
    "noise_suppression",
    "echo_cancellation",
    "auto_truncate",
];

impl Reading<'_, '_> {
    /// Returns where the agent listens, as `entry` or the environment says.
    pub(super) fn voice_live_url(&self, entry: Option<&Entry<'_>>) -> Url {
        let Some(entry) = entry else {
            return self.voice_live.url.clone().unwrap_or_else(|| {
                self.table.missing("url", VOICE_LIVE_URL);
                openai_url()
            });
        };
        let rule = url_rule(self.production);
        match entry.text(LONGEST_NAME).map(str::parse::<Url>) {
            Some(Ok(url)) if is_fit_for_voice_live(&url, self.production) => return url,
            Some(Ok(url)) if shown(&url).is_some() => entry.mistake(rule),
            // It may carry a secret.
            Some(_) => entry.remark(rule),
            None => {}
        }
        openai_url()
    }

    /// Returns the environment's key, unless the table has an application's credentials.
    pub(super) fn voice_live_key(&self) -> Option<SecretString> {
        if self.has_credentials() {
            return None;
        }
        let VoiceLiveAccess { key, settings, .. } = self.voice_live;
        if key.is_none() && settings.entra.is_none() {
            let rule = "the agent needs it, or api_key_file, or tenant_id, client_id and \
                        client_secret";
            self.table.missing("api_key", rule);
        }
        key.clone()
    }

    pub(super) fn voice_live(&mut self) -> VoiceLiveSettings {
        let environment = &self.voice_live.settings;
        if self.kind != AgentKind::VoiceLive {
            for entry in KEYS.iter().filter_map(|key| self.table.secret(key)) {
                entry.remark("means something with \"voice_live\" only: leave it out");
            }
            return environment.clone();
        }
        VoiceLiveSettings {
            api_version: self
                .text("api_version", LONGEST_NAME)
                .unwrap_or_else(|| environment.api_version.clone()),
            foundry: self.foundry(),
            noise_suppression: self.noise_suppression(),
            echo_cancellation: self
                .switch("echo_cancellation")
                .unwrap_or(environment.echo_cancellation),
            auto_truncate: self
                .switch("auto_truncate")
                .unwrap_or(environment.auto_truncate),
            entra: self.entra(),
        }
    }

    fn has_credentials(&self) -> bool {
        self.table.entry("tenant_id").is_some()
            || self.table.entry("client_id").is_some()
            || self.has_secret("client_secret", "client_secret_file")
    }

    /// Returns an application's credentials: those that the table lacks are the environment's.
    fn entra(&mut self) -> Option<EntraSettings> {
        let environment = self.voice_live.settings.entra.as_ref();
        let has_key = self.has_secret("api_key", "api_key_file");
        if !self.has_credentials() {
            return environment.filter(|_| !has_key).cloned();
        }
        if has_key {
            let rule = "api_key and an application's credentials: leave one of them out";
            self.table.mistake(rule);
        }
        let tenant = self.entra_name("tenant_id", environment.map(|entra| &entra.tenant));
        let client = self.entra_name("client_id", environment.map(|entra| &entra.client));
        let secret = if self.has_secret("client_secret", "client_secret_file") {
            self.secret("client_secret", "client_secret_file")
        } else {
            let secret = environment.map(|entra| entra.secret.clone());
            if secret.is_none() {
                let rule = "the other two need it, or client_secret_file";
                self.table.missing("client_secret", rule);
            }
            secret
        };
        Some(EntraSettings {
            login: self.voice_live.login.clone(),
            tenant: tenant?,
            client: client?,
            secret: secret?,
        })
    }

    fn entra_name(&self, key: &'static str, environments: Option<&String>) -> Option<String> {
        let Some(entry) = self.table.entry(key) else {
            if environments.is_none() {
                self.table.missing(key, "the other two need it");
            }
            return environments.cloned();
        };
        let name = entry.text(LONGEST_NAME)?;
        if !is_entra_name(name) {
            entry.mistake("the id, as the portal shows it");
        }
        Some(name.to_owned())
    }

    fn foundry(&self) -> Option<FoundryAgent> {
        let environment = self.voice_live.settings.foundry.as_ref();
        let name = self.text("agent_name", LONGEST_NAME);
        let project = self.text("project_name", LONGEST_NAME);
        if name.is_none() && project.is_none() {
            // An agent with a model of its own is not the environment's.
            let has_model = self.table.entry("model").is_some();
            return environment.filter(|_| !has_model).cloned();
        }
        let name = name.or_else(|| environment.map(|agent| agent.name.clone()));
        let project = project.or_else(|| environment.map(|agent| agent.project.clone()));
        if name.is_none() {
            self.table
                .missing("agent_name", "project_name is of no use without");
        }
        if project.is_none() {
            self.table.missing("project_name", "agent_name needs it");
        }
        Some(FoundryAgent {
            name: name?,
            project: project?,
        })
    }

    fn noise_suppression(&self) -> bool {
        let usual = self.voice_live.settings.noise_suppression;
        let Some(entry) = self.table.entry("noise_suppression") else {
            return usual;
        };
        match entry.text(LONGEST_NAME) {
            Some(NOISE_SUPPRESSION) => true,
            Some("none") => false,
            Some(_) => {
                entry.mistake(&format!("\"{NOISE_SUPPRESSION}\" or \"none\""));
                usual
            }
            None => usual,
        }
    }

    fn switch(&self, key: &'static str) -> Option<bool> {
        self.table.entry(key)?.switch()
    }
}
