//! The agents of a campaign file: what one leaves out is as in the environment.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use secrecy::SecretString;
use url::Url;

use crate::{
    campaign::{Budget, Name},
    config::{
        AgentKind, AgentSettings, Detector, VoiceLiveAccess,
        agent::{
            AZURE_URL, DEFAULT_MODEL, LONGEST_TEXT, MOST_SESSIONS, MOST_TOKENS, Transcription,
            TurnDetection, is_fit, openai_url, share,
        },
        file::{
            Inherited, MOST_AGENTS, read as read_file,
            secret::Beside,
            table::{Entry, Table},
        },
        shown,
    },
};

/// The longest name of a model or a voice, path or address, in bytes.
pub(super) const LONGEST_NAME: usize = 1_024;

/// One agent, as far as it has been read.
pub(super) struct Reading<'a, 'b> {
    pub(super) table: &'a Table<'a>,
    environment: &'a AgentSettings,
    pub(super) voice_live: &'a VoiceLiveAccess,
    pub(super) kind: AgentKind,
    pub(super) production: bool,
    beside: &'a mut Beside<'b>,
}

pub fn read(
    root: &Table<'_>,
    inherited: &Inherited,
    beside: &mut Beside<'_>,
) -> BTreeMap<Name, AgentSettings> {
    let mut agents = BTreeMap::new();
    for (name, table) in root.named("agents", MOST_AGENTS) {
        if name == Name::default_name() {
            table.mistake("the environment's agent is called so: choose another name");
        }
        let kind = table.entry("kind").and_then(|kind| {
            let rule = "\"parrot\", \"openai\", \"azure_openai\" or \"voice_live\"";
            let parsed = kind.parsed(rule)?;
            if parsed == AgentKind::Parrot && inherited.production {
                kind.mistake("the parrot is no agent for production");
            }
            Some(parsed)
        });
        let reading = Reading {
            table: &table,
            environment: &inherited.agent,
            voice_live: &inherited.voice_live,
            kind: kind.unwrap_or(inherited.agent.kind),
            production: inherited.production,
            beside,
        };
        agents.insert(name, reading.settings());
        table.finish();
    }
    agents
}

impl Reading<'_, '_> {
    fn settings(mut self) -> AgentSettings {
        let environment = self.environment;
        AgentSettings {
            kind: self.kind,
            url: self.url(),
            model: self.model(),
            key: self.key(),
            voice: self
                .text("voice", LONGEST_NAME)
                .or_else(|| environment.voice.clone().filter(|_| self.has_same_words())),
            instructions: self
                .text("instructions", LONGEST_TEXT)
                .unwrap_or_else(|| environment.instructions.clone()),
            greeting: match self.text("greeting", LONGEST_TEXT).as_deref() {
                Some("none") => None,
                Some(text) => Some(text.to_owned()),
                None => environment.greeting.clone(),
            },
            transcription: match self.text("transcription_model", LONGEST_NAME) {
                Some(model) => Transcription::of(&model),
                None if self.has_same_words() => environment.transcription.clone(),
                None => Transcription::Usual,
            },
            turn_detection: self.turn_detection(),
            extra_ca: self.extra_ca().or_else(|| environment.extra_ca.clone()),
            voice_live: self.voice_live(),
            budget: self.budget(),
        }
    }

    /// Reads what the agent may be asked for. Another kind's budget is not the environment's.
    fn budget(&self) -> Budget {
        let usual = if self.environment.kind == self.kind {
            self.environment.budget
        } else {
            self.kind.budget()
        };
        let limit = |key, most| self.table.entry(key)?.number(1..=most);
        Budget {
            sessions: limit("max_sessions", MOST_SESSIONS).or(usual.sessions),
            dials: limit("connections_per_minute", MOST_SESSIONS).or(usual.dials),
            tokens: limit("tokens_per_minute", MOST_TOKENS).or(usual.tokens),
        }
    }

    /// Tells whether the environment's voice, transcription and turns may be this agent's: what
    /// Voice Live calls them, the others do not know.
    fn has_same_words(&self) -> bool {
        let is_voice_live = |kind| kind == AgentKind::VoiceLive;
        is_voice_live(self.environment.kind) == is_voice_live(self.kind)
            || self.environment.kind == AgentKind::Parrot
    }

    /// Tells whether the environment's address, model and key may serve this agent: those of
    /// OpenAI are not Azure's, and must not be sent there.
    fn has_environments(&self) -> bool {
        self.environment.kind == self.kind || self.environment.kind == AgentKind::Parrot
    }

    fn url(&self) -> Url {
        let rule = if self.production {
            "a wss:// address, without user, password or api-key"
        } else {
            "a wss:// or ws:// address, without user, password or api-key"
        };
        let environments = &self.environment.url;
        let Some(entry) = self.table.entry("url") else {
            return match self.kind {
                AgentKind::VoiceLive => self.voice_live_url(None),
                AgentKind::Parrot => environments.clone(),
                AgentKind::OpenAi if !self.has_environments() => openai_url(),
                AgentKind::AzureOpenAi
                    if !self.has_environments() || *environments == openai_url() =>
                {
                    self.table.missing("url", AZURE_URL);
                    openai_url()
                }
                AgentKind::OpenAi | AgentKind::AzureOpenAi => environments.clone(),
            };
        };
        if self.kind == AgentKind::VoiceLive {
            return self.voice_live_url(Some(&entry));
        }
        self.refuse_for_a_parrot(&entry);
        let url: Option<Url> = entry.text(LONGEST_NAME).and_then(|text| text.parse().ok());
        match url {
            Some(url) if is_fit(&url, self.production) => return url,
            Some(url) if shown(&url).is_some() => entry.mistake(rule),
            // It may carry a secret.
            Some(_) | None => entry.remark(rule),
        }
        openai_url()
    }

    fn model(&self) -> String {
        let environments = &self.environment.model;
        let model = self.text("model", LONGEST_NAME);
        model.unwrap_or_else(|| match self.kind {
            AgentKind::OpenAi if !self.has_environments() => DEFAULT_MODEL.to_owned(),
            AgentKind::AzureOpenAi
                if !self.has_environments()
                    || (self.environment.kind == AgentKind::Parrot
                        && environments == DEFAULT_MODEL) =>
            {
                let rule = "Azure's name of the deployment";
                self.table.missing("model", rule);
                DEFAULT_MODEL.to_owned()
            }
            AgentKind::VoiceLive => self.voice_live.model.clone(),
            AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi => environments.clone(),
        })
    }

    fn key(&mut self) -> Option<SecretString> {
        if self.has_secret("api_key", "api_key_file") {
            self.secret("api_key", "api_key_file")
        } else {
            self.environments_key()
        }
    }

    pub(super) fn has_secret(&self, key: &'static str, file_key: &'static str) -> bool {
        self.table.secret(key).is_some() || self.table.secret(file_key).is_some()
    }

    /// Reads a secret that stands in the table, or in a file that the table names.
    pub(super) fn secret(
        &mut self,
        key: &'static str,
        file_key: &'static str,
    ) -> Option<SecretString> {
        let inline = self.table.secret(key);
        let file = self.table.secret(file_key);
        for entry in inline.iter().chain(&file) {
            self.refuse_for_a_parrot(entry);
        }
        let (entry, text) = self.beside.secret(self.table, key, file_key)?;
        checked(&entry, &text)
    }

    fn environments_key(&self) -> Option<SecretString> {
        if self.kind == AgentKind::VoiceLive {
            return self.voice_live_key();
        }
        let key = self.environment.key.clone();
        let key = key.filter(|_| self.has_environments());
        if key.is_none() && self.kind != AgentKind::Parrot {
            let rule = "the agent needs it, or api_key_file";
            self.table.missing("api_key", rule);
        }
        key
    }

    fn extra_ca(&mut self) -> Option<PathBuf> {
        let entry = self.table.entry("ca_file")?;
        let path = self.beside.folder.join(entry.text(LONGEST_NAME)?);
        if let Err(error) = read_file(&path, 1 << 20) {
            entry.mistake(&format!("a readable file: {error}"));
        }
        self.beside.files.push(path.clone());
        Some(path)
    }

    fn turn_detection(&self) -> TurnDetection {
        let environment = self.environment.turn_detection;
        let detector = match self.table.entry("turn_detection") {
            None => environment.detector.filter(|_| self.has_same_words()),
            Some(entry) => {
                let rule = "\"server_vad\", \"semantic_vad\" or \"azure_semantic_vad\"";
                let detector = entry.parsed(rule);
                if detector == Some(Detector::AzureSemantic) && self.kind != AgentKind::VoiceLive {
                    entry.mistake("known to \"voice_live\" only");
                }
                detector
            }
        };
        let threshold = self.table.entry("vad_threshold");
        let silence = self.table.entry("vad_silence_ms");
        if detector.unwrap_or_else(|| Detector::usual(self.kind)) == Detector::Semantic {
            for entry in threshold.iter().chain(&silence) {
                entry.mistake("means nothing with \"semantic_vad\": leave it out");
            }
        }
        let threshold = threshold.and_then(|entry| entry.number(1..=100));
        let silence = silence.and_then(|entry| entry.number(100..=5_000));
        TurnDetection {
            detector,
            threshold: threshold.map_or(environment.threshold, of_percent),
            silence: silence.map_or(environment.silence, |ms| Duration::from_millis(ms.into())),
        }
    }

    pub(super) fn text(&self, key: &'static str, longest: usize) -> Option<String> {
        let entry = self.table.entry(key)?;
        entry.text(longest).map(str::to_owned)
    }

    fn refuse_for_a_parrot(&self, entry: &Entry<'_>) {
        if self.kind == AgentKind::Parrot {
            entry.remark("the parrot is within callgate and needs none: leave it out");
        }
    }
}

/// Returns a key that can be sent in a header.
fn checked(entry: &Entry<'_>, key: &str) -> Option<SecretString> {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        entry.remark("a key, without spaces or control characters");
        return None;
    }
    Some(key.into())
}

fn of_percent(percent: u32) -> f32 {
    share(u8::try_from(percent).unwrap_or(100))
}
