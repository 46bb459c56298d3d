//! Which agent talks with callers.

use std::{path::PathBuf, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::{
    campaign::Budget,
    config::{
        is_free_of_secrets,
        reader::{Environment, Reader},
        shown,
        voice_live::{VoiceLiveAccess, VoiceLiveSettings},
    },
    language::Language,
    spending::{NotPrices, Prices},
};

/// The longest instructions, in bytes.
pub const LONGEST_TEXT: usize = 16 << 10;
/// What Azure's addresses look like.
pub const AZURE_URL: &str = "wss://<resource>.openai.azure.com/openai/v1/realtime";
/// OpenAI's model that is asked for unless another is.
pub const DEFAULT_MODEL: &str = "gpt-realtime-2.1";
/// How loud speech must be, in percent, unless a setting says otherwise.
pub const THRESHOLD_PERCENT: u32 = 50;
/// How long a silence ends a turn, unless a setting says otherwise.
pub const SILENCE_MS: u32 = 500;

/// The largest number of calls that an agent may have, and for which it may be dialed in a minute.
pub const MOST_SESSIONS: u32 = 1_000_000;
/// The largest number of tokens that it may use up in a minute.
pub const MOST_TOKENS: u32 = 1_000_000_000;

/// Which agent talks with callers, and how it is addressed.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// `AGENT`. Default: the parrot, which is refused in production.
    pub kind: AgentKind,
    /// `OPENAI_REALTIME_URL`: where the agent listens. Default OpenAI's; required for Azure. Of
    /// Voice Live `VOICE_LIVE_URL`.
    pub url: Url,
    /// `OPENAI_REALTIME_MODEL`: the model, or Azure's name of the deployment. Of Voice Live
    /// `VOICE_LIVE_MODEL`.
    pub model: String,
    /// `OPENAI_API_KEY`: OpenAI's or Azure's key. Of Voice Live `VOICE_LIVE_API_KEY`.
    pub key: Option<SecretString>,
    /// `AGENT_VOICE`; see [`AgentSettings::voice`].
    pub voice: Option<String>,
    /// `AGENT_INSTRUCTIONS`: who the agent is and what it may do.
    pub instructions: String,
    /// `AGENT_GREETING`: what the agent is asked to say first; `none`: it waits for
    /// the caller.
    pub greeting: Option<String>,
    /// `AGENT_TRANSCRIPTION_MODEL`; see [`AgentSettings::transcription_model`].
    pub transcription: Transcription,
    pub turn_detection: TurnDetection,
    /// `AGENT_CA_FILE`: certificates to trust beside the system's, as PEM.
    pub extra_ca: Option<PathBuf>,
    /// For [`AgentKind::VoiceLive`] only.
    pub voice_live: VoiceLiveSettings,
    /// `AGENT_MAX_SESSIONS`, `AGENT_CONNECTIONS_PER_MINUTE`, `AGENT_TOKENS_PER_MINUTE`: what all
    /// replicas together may ask of it. Default: [`AgentKind::budget`].
    pub budget: Budget,
    /// `AGENT_PRICES`: what its tokens and minutes cost. Default: nothing.
    pub prices: Prices,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentKind {
    Parrot,
    OpenAi,
    AzureOpenAi,
    VoiceLive,
}

/// Who writes down what callers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transcription {
    /// Whoever does so usually for the agent's kind.
    Usual,
    Nobody,
    By(String),
}

/// How the agent tells that the caller has finished speaking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TurnDetection {
    /// `AGENT_TURN_DETECTION`: `server_vad`, `semantic_vad`, or Voice Live's
    /// `azure_semantic_vad`; see [`AgentSettings::detector`].
    pub detector: Option<Detector>,
    /// `AGENT_VAD_THRESHOLD`, in percent. Default 50.
    pub threshold: f32,
    /// `AGENT_VAD_SILENCE_MS`. Default 500.
    pub silence: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detector {
    /// By loudness.
    Server,
    /// By what was said; knows neither threshold nor silence.
    Semantic,
    /// Voice Live's own, by both.
    AzureSemantic,
}

impl AgentSettings {
    pub(super) fn load(
        read: &Reader<impl Environment>,
        production: bool,
        voice_live: &VoiceLiveAccess,
    ) -> Self {
        let kind = read
            .parsed("AGENT", "parrot, openai, azure_openai or voice_live")
            .unwrap_or(AgentKind::Parrot);
        let key = read.secret("OPENAI_API_KEY");
        match kind {
            AgentKind::Parrot if production => {
                let rule =
                    "the parrot is no agent for production: openai, azure_openai or voice_live";
                read.mistake("AGENT", read.text("AGENT"), rule);
            }
            AgentKind::OpenAi | AgentKind::AzureOpenAi if key.is_none() => {
                read.mistake("OPENAI_API_KEY", None, "not set (the agent needs it)");
            }
            AgentKind::VoiceLive => voice_live.require(read),
            AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi => {}
        }
        let url = agent_url(read, kind, production);
        let model = read
            .text("OPENAI_REALTIME_MODEL")
            .unwrap_or_else(|| DEFAULT_MODEL.to_owned());
        let (url, model, key) = match kind {
            AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi => (url, model, key),
            AgentKind::VoiceLive => (
                voice_live.url.clone().unwrap_or(url), // One that is missing stops the start.
                voice_live.model.clone(),
                voice_live.key.clone(),
            ),
        };
        Self {
            kind,
            url,
            model,
            key,
            voice: read.text("AGENT_VOICE"),
            instructions: short_text(read, "AGENT_INSTRUCTIONS").unwrap_or_else(|| {
                "You answer the phone. Speak the caller's language and keep every reply short."
                    .to_owned()
            }),
            greeting: match short_text(read, "AGENT_GREETING").as_deref() {
                Some("none") => None,
                Some(greeting) => Some(greeting.to_owned()),
                None => Some("Greet the caller in one short sentence.".to_owned()),
            },
            transcription: read
                .text("AGENT_TRANSCRIPTION_MODEL")
                .map_or(Transcription::Usual, |model| Transcription::of(&model)),
            turn_detection: turn_detection(read, kind),
            extra_ca: read.text("AGENT_CA_FILE").map(PathBuf::from),
            voice_live: voice_live.settings.clone(),
            budget: budget(read, kind),
            prices: read
                .parsed("AGENT_PRICES", &NotPrices.to_string())
                .unwrap_or_default(),
        }
    }

    /// Returns the voice that callers in `language` hear.
    pub fn voice(&self, language: &Language) -> &str {
        let usual = match self.kind {
            AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi => "marin",
            AgentKind::VoiceLive if language.primary() == "he" => "he-IL-HilaNeural",
            AgentKind::VoiceLive => "en-US-AvaNeural",
        };
        self.voice.as_deref().unwrap_or(usual)
    }

    /// Returns the model that writes down what callers say, if anybody does.
    pub fn transcription_model(&self) -> Option<&str> {
        match (&self.transcription, self.kind) {
            (Transcription::By(model), _) => Some(model),
            (Transcription::Nobody, _) => None,
            (
                Transcription::Usual,
                AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi,
            ) => Some("gpt-transcribe"),
            // Text models and agents that were made in Foundry take Azure's recogniser alone,
            // models that hear take OpenAI's alone.
            (Transcription::Usual, AgentKind::VoiceLive) => {
                let hears =
                    self.voice_live.foundry.is_none() && self.model.starts_with("gpt-realtime");
                Some(if hears {
                    "gpt-4o-transcribe"
                } else {
                    "azure-speech"
                })
            }
        }
    }

    /// Returns how the agent tells that the caller has finished.
    pub fn detector(&self) -> Detector {
        let detector = self.turn_detection.detector;
        detector.unwrap_or_else(|| Detector::usual(self.kind))
    }
}

impl Detector {
    pub(super) fn usual(kind: AgentKind) -> Self {
        match kind {
            AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi => Self::Server,
            AgentKind::VoiceLive => Self::AzureSemantic,
        }
    }
}

impl Transcription {
    /// Returns what a setting means.
    pub(super) fn of(text: &str) -> Self {
        match text {
            "none" => Self::Nobody,
            model => Self::By(model.to_owned()),
        }
    }
}

/// Written out, as keys do not compare by themselves; a field more has to be placed here.
impl PartialEq for AgentSettings {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            kind,
            url,
            model,
            key,
            voice,
            instructions,
            greeting,
            transcription,
            turn_detection,
            extra_ca,
            voice_live,
            budget,
            prices,
        } = self;
        let same_key = match (key, &other.key) {
            (Some(key), Some(other)) => key.expose_secret() == other.expose_secret(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_key
            && *prices == other.prices
            && *kind == other.kind
            && *url == other.url
            && *model == other.model
            && *voice == other.voice
            && *instructions == other.instructions
            && *greeting == other.greeting
            && *transcription == other.transcription
            && *turn_detection == other.turn_detection
            && *extra_ca == other.extra_ca
            && *voice_live == other.voice_live
            && *budget == other.budget
    }
}

impl std::str::FromStr for AgentKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "parrot" => Ok(Self::Parrot),
            "openai" => Ok(Self::OpenAi),
            "azure_openai" => Ok(Self::AzureOpenAi),
            "voice_live" => Ok(Self::VoiceLive),
            _ => Err(()),
        }
    }
}

impl std::str::FromStr for Detector {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "server_vad" => Ok(Self::Server),
            "semantic_vad" => Ok(Self::Semantic),
            "azure_semantic_vad" => Ok(Self::AzureSemantic),
            _ => Err(()),
        }
    }
}

impl AgentKind {
    /// Returns the name that people know the agent by.
    pub fn title(self) -> &'static str {
        match self {
            Self::Parrot => "the parrot",
            Self::OpenAi => "OpenAI Realtime API",
            Self::AzureOpenAi => "Azure OpenAI Realtime API",
            Self::VoiceLive => "Voice Live API",
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parrot => "parrot",
            Self::OpenAi => "openai",
            Self::AzureOpenAi => "azure_openai",
            Self::VoiceLive => "voice_live",
        }
    }

    /// Returns what an agent of this kind may be asked for unless its settings say otherwise.
    pub fn budget(self) -> Budget {
        match self {
            // What an account of theirs allows, nobody else knows.
            Self::Parrot | Self::OpenAi | Self::AzureOpenAi => Budget::default(),
            // A resource of the standard tier: learn.microsoft.com/azure/ai-services/
            // speech-service/speech-services-quotas-and-limits.
            Self::VoiceLive => Budget {
                sessions: None,
                dials: Some(30),
                tokens: Some(120_000),
            },
        }
    }
}

fn budget(read: &Reader<impl Environment>, kind: AgentKind) -> Budget {
    let usual = kind.budget();
    Budget {
        sessions: limit(read, "AGENT_MAX_SESSIONS", MOST_SESSIONS).or(usual.sessions),
        dials: limit(read, "AGENT_CONNECTIONS_PER_MINUTE", MOST_SESSIONS).or(usual.dials),
        tokens: limit(read, "AGENT_TOKENS_PER_MINUTE", MOST_TOKENS).or(usual.tokens),
    }
}

/// Reads a number from one to `most` that need not be set.
fn limit(read: &Reader<impl Environment>, name: &str, most: u32) -> Option<u32> {
    read.text(name)?;
    let number = read.number(name, u64::from(most), 1..=u64::from(most));
    u32::try_from(number).ok()
}

/// Reads a text that goes to the agent in one message.
fn short_text(read: &Reader<impl Environment>, name: &str) -> Option<String> {
    let text = read.text(name)?;
    if text.len() > LONGEST_TEXT {
        let rule = format!("{} bytes: at most {LONGEST_TEXT}", text.len());
        read.mistake(name, None, &rule);
    }
    Some(text)
}

fn agent_url(read: &Reader<impl Environment>, kind: AgentKind, production: bool) -> Url {
    let rule = if production {
        "a wss:// address"
    } else {
        "a wss:// or ws:// address"
    };
    let Some(url) = read.parsed::<Url>("OPENAI_REALTIME_URL", rule) else {
        if kind == AgentKind::AzureOpenAi && read.text("OPENAI_REALTIME_URL").is_none() {
            let rule = format!("not set ({AZURE_URL})");
            read.mistake("OPENAI_REALTIME_URL", None, &rule);
        }
        return openai_url();
    };
    if !is_fit(&url, production) {
        let rule = format!("{rule}, without user, password or api-key");
        read.mistake("OPENAI_REALTIME_URL", shown(&url), &rule);
    }
    url
}

/// Where OpenAI's agents listen.
pub fn openai_url() -> Url {
    Url::parse("wss://api.openai.com/v1/realtime").expect("a literal URL")
}

/// Tells whether an agent may be reached at `url`.
pub fn is_fit(url: &Url, production: bool) -> bool {
    let scheme = url.scheme() == "wss" || (!production && url.scheme() == "ws");
    let has_key = url.query_pairs().any(|(name, _)| name == "api-key");
    scheme && url.has_host() && is_free_of_secrets(url) && !has_key
}

fn turn_detection(read: &Reader<impl Environment>, kind: AgentKind) -> TurnDetection {
    let rule = "server_vad, semantic_vad or azure_semantic_vad";
    let detector = read.parsed("AGENT_TURN_DETECTION", rule);
    if detector == Some(Detector::AzureSemantic) && kind != AgentKind::VoiceLive {
        let rule = "known to voice_live only";
        let value = read.text("AGENT_TURN_DETECTION");
        read.mistake("AGENT_TURN_DETECTION", value, rule);
    }
    let default = u64::from(THRESHOLD_PERCENT);
    let percent = read.number("AGENT_VAD_THRESHOLD", default, 1..=100);
    let default = u64::from(SILENCE_MS);
    TurnDetection {
        detector,
        threshold: share(u8::try_from(percent).expect("at most 100")),
        silence: Duration::from_millis(read.number("AGENT_VAD_SILENCE_MS", default, 100..=5_000)),
    }
}

/// Returns what so many percent are of one.
pub fn share(percent: u8) -> f32 {
    f32::from(percent) / 100.0
}
