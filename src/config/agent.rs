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
    },
};

/// The longest instructions, in bytes.
pub const LONGEST_TEXT: usize = 16 << 10;
/// What Azure's addresses look like.
pub const AZURE_URL: &str = "wss://<resource>.openai.azure.com/openai/v1/realtime";
/// OpenAI's model that is asked for unless another is.
pub const DEFAULT_MODEL: &str = "gpt-realtime-2.1";
/// How loud speech must be for [`TurnDetection::Server`], in percent.
pub const THRESHOLD_PERCENT: u32 = 50;
/// How long a silence ends a turn for [`TurnDetection::Server`].
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
    /// `OPENAI_REALTIME_URL`: where the agent listens. Default OpenAI's; required for Azure.
    pub url: Url,
    /// `OPENAI_REALTIME_MODEL`: the model, or Azure's name of the deployment.
    pub model: String,
    /// `OPENAI_API_KEY`: OpenAI's or Azure's key.
    pub key: Option<SecretString>,
    /// `AGENT_VOICE`. Default `marin`.
    pub voice: String,
    /// `AGENT_INSTRUCTIONS`: who the agent is and what it may do.
    pub instructions: String,
    /// `AGENT_GREETING`: what the agent is asked to say first; `none`: it waits for
    /// the caller.
    pub greeting: Option<String>,
    /// `AGENT_TRANSCRIPTION_MODEL`: writes down what callers say; `none`: nobody does. Default
    /// `gpt-transcribe`.
    pub transcription_model: Option<String>,
    /// `AGENT_TURN_DETECTION`: `server_vad` or `semantic_vad`. Default `server_vad`.
    pub turn_detection: TurnDetection,
    /// `AGENT_CA_FILE`: certificates to trust beside the system's, as PEM.
    pub extra_ca: Option<PathBuf>,
    /// `AGENT_MAX_SESSIONS`, `AGENT_CONNECTIONS_PER_MINUTE`, `AGENT_TOKENS_PER_MINUTE`: what all
    /// replicas together may ask of it. Default: nothing bounds it.
    pub budget: Budget,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentKind {
    Parrot,
    OpenAi,
    AzureOpenAi,
}

/// How the agent tells that the caller has finished speaking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TurnDetection {
    /// `AGENT_VAD_THRESHOLD` (percent, default 50) and `AGENT_VAD_SILENCE_MS` (default 500).
    Server {
        threshold: f32,
        silence: Duration,
    },
    Semantic,
}

impl AgentSettings {
    pub(super) fn load(read: &Reader<impl Environment>, production: bool) -> Self {
        let kind = read
            .parsed("AGENT", "parrot, openai or azure_openai")
            .unwrap_or(AgentKind::Parrot);
        let key = read.secret("OPENAI_API_KEY");
        match kind {
            AgentKind::Parrot if production => {
                let rule = "the parrot is no agent for production: openai or azure_openai";
                read.mistake("AGENT", read.text("AGENT"), rule);
            }
            AgentKind::OpenAi | AgentKind::AzureOpenAi if key.is_none() => {
                read.mistake("OPENAI_API_KEY", None, "not set (the agent needs it)");
            }
            AgentKind::Parrot | AgentKind::OpenAi | AgentKind::AzureOpenAi => {}
        }
        Self {
            kind,
            url: agent_url(read, kind, production),
            model: read
                .text("OPENAI_REALTIME_MODEL")
                .unwrap_or_else(|| DEFAULT_MODEL.to_owned()),
            key,
            voice: read
                .text("AGENT_VOICE")
                .unwrap_or_else(|| "marin".to_owned()),
            instructions: short_text(read, "AGENT_INSTRUCTIONS").unwrap_or_else(|| {
                "You answer the phone. Speak the caller's language and keep every reply short."
                    .to_owned()
            }),
            greeting: match short_text(read, "AGENT_GREETING").as_deref() {
                Some("none") => None,
                Some(greeting) => Some(greeting.to_owned()),
                None => Some("Greet the caller in one short sentence.".to_owned()),
            },
            transcription_model: match read.text("AGENT_TRANSCRIPTION_MODEL").as_deref() {
                Some("none") => None,
                Some(model) => Some(model.to_owned()),
                None => Some("gpt-transcribe".to_owned()),
            },
            turn_detection: turn_detection(read),
            extra_ca: read.text("AGENT_CA_FILE").map(PathBuf::from),
            budget: budget(read, kind),
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
            transcription_model,
            turn_detection,
            extra_ca,
            budget,
        } = self;
        let same_key = match (key, &other.key) {
            (Some(key), Some(other)) => key.expose_secret() == other.expose_secret(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_key
            && *kind == other.kind
            && *url == other.url
            && *model == other.model
            && *voice == other.voice
            && *instructions == other.instructions
            && *greeting == other.greeting
            && *transcription_model == other.transcription_model
            && *turn_detection == other.turn_detection
            && *extra_ca == other.extra_ca
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
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Parrot => "parrot",
            Self::OpenAi => "openai",
            Self::AzureOpenAi => "azure_openai",
        }
    }

    /// Returns what an agent of this kind may be asked for unless its settings say otherwise.
    pub fn budget(self) -> Budget {
        match self {
            // What an account of theirs allows, nobody else knows.
            Self::Parrot | Self::OpenAi | Self::AzureOpenAi => Budget::default(),
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

fn turn_detection(read: &Reader<impl Environment>) -> TurnDetection {
    match read.text("AGENT_TURN_DETECTION").as_deref() {
        Some("semantic_vad") => return TurnDetection::Semantic,
        None | Some("server_vad") => {}
        Some(other) => {
            let rule = "server_vad or semantic_vad";
            read.mistake("AGENT_TURN_DETECTION", Some(other.to_owned()), rule);
        }
    }
    let default = u64::from(THRESHOLD_PERCENT);
    let percent = read.number("AGENT_VAD_THRESHOLD", default, 1..=100);
    let default = u64::from(SILENCE_MS);
    TurnDetection::Server {
        threshold: share(u8::try_from(percent).expect("at most 100")),
        silence: Duration::from_millis(read.number("AGENT_VAD_SILENCE_MS", default, 100..=5_000)),
    }
}

/// Returns what so many percent are of one.
pub fn share(percent: u8) -> f32 {
    f32::from(percent) / 100.0
}
