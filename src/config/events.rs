//! Who is told of the calls of the default tenant, and how often it is tried.

use std::time::Duration;

use secrecy::ExposeSecret;
use url::Url;

use crate::{
    campaign::Name,
    config::{
        reader::{Environment, Reader, split},
        shown,
    },
    event::{
        Endpoint, Endpoints, KINDS, NotASecret, Payload, Schedule, SigningSecrets, ToldNumbers,
    },
    guard::{GuardRules, GuardedUrl},
};

const URL: &str = "EVENTS_URL";
const SECRET: &str = "EVENTS_SECRET";
/// The most tries after the first one, and the longest pause before one.
const MOST_PAUSES: usize = 50;
const LONGEST_PAUSE: u64 = 7 * 86_400;

/// What an endpoint may be told, wherever it is set.
pub const NUMBERS_RULE: &str = "masked or whole";
pub const PAYLOAD_RULE: &str = "full or small";

/// Who is told of calls where no campaign file says so, and how often it is tried.
#[derive(Debug, Default)]
pub struct EventSettings {
    /// `EVENTS_URL`, `EVENTS_SECRET` and `EVENTS_TRANSCRIPTS`: the default tenant's one endpoint.
    /// `EVENTS_NUMBERS` (`masked` or `whole`, default `masked`) and `EVENTS_PAYLOAD` (`full` or
    /// `small`, default `full`) say what it is told.
    pub endpoint: Option<Endpoint>,
    /// `EVENTS_RETRY_SECONDS`: the pauses between tries. Default: ten, a day in all.
    pub schedule: Schedule,
}

impl EventSettings {
    pub(super) fn load(read: &Reader<impl Environment>, rules: &GuardRules) -> Self {
        Self {
            endpoint: endpoint(read, rules),
            schedule: schedule(read).unwrap_or_default(),
        }
    }

    /// Notes a mistake if an event may be deleted before it was tried for the last time: it would
    /// be neither delivered nor dead. `file` says that there is a campaign file, which may hold
    /// endpoints; without any, nothing is tried.
    pub(super) fn check(
        &self,
        read: &Reader<impl Environment>,
        file: bool,
        kept: Duration,
        longest_call: Duration,
    ) {
        let longest = longest_call + self.schedule.longest();
        if longest > kept && (file || self.endpoint.is_some()) {
            let rule = format!(
                "too few: an event may be tried until {} hours after its call rang \
                 (MAX_CALL_SECONDS, EVENTS_RETRY_SECONDS), and goes with its call",
                longest.as_secs().div_ceil(3_600)
            );
            read.mistake("RECORD_DAYS", read.text("RECORD_DAYS"), &rule);
        }
    }

    /// Returns the endpoints that there are without a campaign file.
    pub fn endpoints(&self) -> Endpoints {
        let own = self.endpoint.iter();
        own.map(|endpoint| (Name::default_name(), vec![endpoint.clone()]))
            .collect()
    }
}

fn endpoint(read: &Reader<impl Environment>, rules: &GuardRules) -> Option<Endpoint> {
    let transcripts = read.switch("EVENTS_TRANSCRIPTS");
    let numbers: Option<ToldNumbers> = read.parsed("EVENTS_NUMBERS", NUMBERS_RULE);
    let payload: Option<Payload> = read.parsed("EVENTS_PAYLOAD", PAYLOAD_RULE);
    let (url, secrets) = (read.text(URL), read.secret(SECRET));
    let (url, secrets) = match (url, secrets) {
        (None, None) => return None,
        (Some(url), Some(secrets)) => (url, secrets),
        (Some(_), None) => {
            read.mistake(SECRET, None, &format!("not set ({URL} needs it)"));
            return None;
        }
        (None, Some(_)) => {
            read.mistake(URL, None, &format!("not set ({SECRET} is for it)"));
            return None;
        }
    };
    let secrets = secrets_of(secrets.expose_secret());
    if let Err(error) = secrets {
        read.mistake(SECRET, None, &error.to_string());
    }
    let url = guarded(&url, rules).map_err(|(shown, rule)| read.mistake(URL, shown, &rule));
    Some(Endpoint {
        name: Name::default_name(),
        url: url.ok()?,
        secrets: secrets.ok()?,
        kinds: KINDS
            .into_iter()
            .filter(|kind| transcripts || !kind.is_transcript())
            .collect(),
        numbers: numbers.unwrap_or_default(),
        payload: payload.unwrap_or_default(),
    })
}

/// Returns the URL that a text is; or what of it may be shown, and what is wrong with it.
pub fn guarded(text: &str, rules: &GuardRules) -> Result<GuardedUrl, (Option<String>, String)> {
    rules.url(text).map_err(|error| {
        let url = text.parse::<Url>().ok();
        let rule = format!("{error}: it takes https://, a public host, and port 443");
        (url.as_ref().and_then(shown), rule)
    })
}

/// Reads secrets with commas.
pub fn secrets_of(text: &str) -> Result<SigningSecrets, NotASecret> {
    SigningSecrets::read(split(text).iter().map(String::as_str))
}

fn schedule(read: &Reader<impl Environment>) -> Option<Schedule> {
    const NAME: &str = "EVENTS_RETRY_SECONDS";
    let pauses = read.list(NAME);
    let parsed = pauses.iter().map(|pause| pause.parse().ok());
    let parsed: Option<Vec<u64>> = parsed.collect();
    let fit = parsed.filter(|pauses| {
        pauses.len() <= MOST_PAUSES && pauses.iter().all(|pause| *pause <= LONGEST_PAUSE)
    });
    if fit.is_none() {
        let rule = "at most 50 pauses between tries, in whole seconds up to 604800, with commas";
        read.mistake(NAME, read.text(NAME), rule);
    }
    let pauses = fit.filter(|pauses| !pauses.is_empty())?;
    let pauses = pauses.into_iter().map(Duration::from_secs);
    Some(Schedule::new(pauses.collect()))
}
