//! What a request to ACS asks for, what it is answered, and knowing it again.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use actix_web::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::calls::{Media, lock};

/// How many answers are kept for requests that come again.
const MOST_ANSWERS: usize = 10_000;

/// The first version of the API that has media sockets.
const FIRST_VERSION: &str = "2025-05-15";

/// What a request asks for; a call is named by its connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Answer,
    Reject,
    Redirect,
    Show(String),
    HangUp(String),
    Transfer(String),
    Play(String),
    SendTones(String),
}

/// What a request is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Option<Value>,
}

/// What requests were answered, by their id.
#[derive(Default)]
pub struct Answers(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    answers: HashMap<String, Answer>,
    oldest_first: VecDeque<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateBody {
    pub targets: Vec<Phone>,
    pub source_caller_id_number: PhoneValue,
    pub callback_uri: String,
    pub media_streaming_options: Option<MediaOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerBody {
    pub callback_uri: String,
    pub media_streaming_options: Option<MediaOptions>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaOptions {
    pub transport_type: String,
    pub audio_channel_type: String,
    #[serde(default)]
    pub transport_url: String,
    pub audio_format: Option<String>,
    #[serde(default)]
    pub enable_bidirectional: bool,
    #[serde(default)]
    pub start_media_streaming: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejectBody {
    #[serde(default)]
    pub call_reject_reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedirectBody {
    pub target: Phone,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransferBody {
    pub target_participant: Phone,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TonesBody {
    pub tones: Vec<String>,
    #[expect(dead_code, reason = "it has to be there")]
    pub target_participant: Phone,
}

/// An identifier that is a phone number.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Phone {
    pub phone_number: PhoneValue,
}

#[derive(Debug, Deserialize)]
pub struct PhoneValue {
    pub value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlayBody {
    pub play_sources: Vec<PlaySource>,
}

#[derive(Debug, Deserialize)]
pub struct PlaySource {
    pub kind: String,
    pub file: Option<PlayFile>,
}

#[derive(Debug, Deserialize)]
pub struct PlayFile {
    pub uri: String,
}

impl Operation {
    pub fn read(method: &Method, path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/calling/callConnections")?;
        if (method, rest) == (&Method::POST, "") {
            return Some(Self::Create);
        }
        if let Some(action) = rest.strip_prefix(':') {
            return match (method, action) {
                (&Method::POST, "answer") => Some(Self::Answer),
                (&Method::POST, "reject") => Some(Self::Reject),
                (&Method::POST, "redirect") => Some(Self::Redirect),
                _ => None,
            };
        }
        let rest = rest.strip_prefix('/')?;
        let (id, action) = rest.split_once(':').unwrap_or((rest, ""));
        let id = id.to_owned();
        match (method, action) {
            (&Method::GET, "") => Some(Self::Show(id)),
            (&Method::DELETE, "") | (&Method::POST, "terminate") => Some(Self::HangUp(id)),
            (&Method::POST, "transferToParticipant") => Some(Self::Transfer(id)),
            (&Method::POST, "play") => Some(Self::Play(id)),
            (&Method::POST, "sendDtmfTones") => Some(Self::SendTones(id)),
            _ => None,
        }
    }
}

impl Answer {
    pub fn ok(body: Value) -> Self {
        Self {
            status: StatusCode::OK,
            body: Some(body),
        }
    }

    pub fn accepted() -> Self {
        Self {
            status: StatusCode::ACCEPTED,
            body: Some(json!({})),
        }
    }

    pub fn done() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: None,
        }
    }

    pub fn error(status: StatusCode, code: &str, message: &str) -> Self {
        let error = json!({
            "code": code, "message": message, "target": null, "details": [], "innererror": null,
        });
        Self {
            status,
            body: Some(json!({ "error": error })),
        }
    }

    pub fn invalid(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "8523", message)
    }

    pub fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "8522", "Call not found.")
    }
}

impl AnswerBody {
    /// Returns the media that is asked for, of a body without mistakes.
    pub fn media(&self) -> Option<Media> {
        let options = self.media_streaming_options.as_ref()?;
        Some(Media {
            url: options.transport_url.clone(),
            rate: options.rate().expect("a mistake otherwise"),
            bidirectional: options.enable_bidirectional && options.start_media_streaming,
        })
    }

    /// Returns what is wrong with it, if anything is.
    pub fn mistake(&self, version: &str) -> Option<&'static str> {
        let is = |url: &str, schemes: [&str; 2]| {
            let url = url::Url::parse(url);
            url.is_ok_and(|url| schemes.contains(&url.scheme()))
        };
        if !is(&self.callback_uri, ["https", "http"]) {
            return Some("The field CallbackUri is invalid.");
        }
        let media = self.media_streaming_options.as_ref()?;
        if version < FIRST_VERSION {
            Some("mediaStreamingOptions is not known to this api-version.")
        } else if media.transport_type != "websocket" {
            Some("The field TransportType is invalid.")
        } else if !matches!(&*media.audio_channel_type, "mixed" | "unmixed") {
            Some("The field AudioChannelType is invalid.")
        } else if !is(&media.transport_url, ["wss", "ws"]) {
            Some("The field TransportUrl is invalid.")
        } else if media.rate().is_none() {
            Some("The field AudioFormat is invalid.")
        } else {
            None
        }
    }
}

impl MediaOptions {
    /// Returns how many samples a second are asked for.
    pub fn rate(&self) -> Option<u32> {
        match &self.audio_format {
            None => Some(16_000),
            Some(format) if format.eq_ignore_ascii_case("pcm16KMono") => Some(16_000),
            Some(format) if format.eq_ignore_ascii_case("pcm24KMono") => Some(24_000),
            Some(_) => None,
        }
    }
}

impl Answers {
    /// Returns what a request with this id was answered.
    pub fn find(&self, id: &str) -> Option<Answer> {
        lock(&self.0).answers.get(id).cloned()
    }

    pub fn keep(&self, id: &str, answer: &Answer) {
        let mut kept = lock(&self.0);
        if kept.oldest_first.len() == MOST_ANSWERS
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            kept.answers.remove(&oldest);
        }
        kept.oldest_first.push_back(id.to_owned());
        kept.answers.insert(id.to_owned(), answer.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_is_asked_for() {
        let id = || "1b00-5580".to_owned();
        let table = [
            (Method::POST, ":answer", Some(Operation::Answer)),
            (Method::POST, ":redirect", Some(Operation::Redirect)),
            (Method::GET, "/1b00-5580", Some(Operation::Show(id()))),
            (Method::DELETE, "/1b00-5580", Some(Operation::HangUp(id()))),
            (
                Method::POST,
                "/1b00-5580:terminate",
                Some(Operation::HangUp(id())),
            ),
            (Method::POST, "/1b00-5580:play", Some(Operation::Play(id()))),
            (Method::GET, ":answer", None),
            (Method::POST, "/1b00-5580:sing", None),
            (Method::POST, "", Some(Operation::Create)),
            (Method::GET, "", None),
        ];
        for (method, rest, expected) in table {
            let path = format!("/calling/callConnections{rest}");
            assert_eq!(Operation::read(&method, &path), expected, "{path}");
        }
    }

    #[test]
    fn what_acs_would_refuse_is_a_mistake() {
        let body = |callback: &str, url: &str, format: &str| AnswerBody {
            callback_uri: callback.into(),
            media_streaming_options: Some(MediaOptions {
                transport_type: "websocket".into(),
                audio_channel_type: "mixed".into(),
                transport_url: url.into(),
                audio_format: Some(format.into()),
                enable_bidirectional: true,
                start_media_streaming: true,
            }),
        };
        let table = [
            ("https://a/b", "wss://a/b", "Pcm24KMono", "2026-03-12", true),
            ("/b", "wss://a/b", "pcm24KMono", "2026-03-12", false),
            (
                "https://a/b",
                "https://a/b",
                "pcm24KMono",
                "2026-03-12",
                false,
            ),
            ("https://a/b", "wss://a/b", "pcm8KMono", "2026-03-12", false),
            (
                "https://a/b",
                "wss://a/b",
                "pcm16KMono",
                "2024-09-15",
                false,
            ),
        ];
        for (callback, url, format, version, is_good) in table {
            let mistake = body(callback, url, format).mistake(version);
            assert_eq!(mistake.is_none(), is_good, "{mistake:?}");
        }
    }

    #[test]
    fn a_request_that_comes_again_is_known() {
        let answers = Answers::default();
        answers.keep("one", &Answer::done());
        assert_eq!(answers.find("one"), Some(Answer::done()));
        for id in 0..MOST_ANSWERS {
            answers.keep(&id.to_string(), &Answer::not_found());
        }
        assert_eq!(answers.find("one"), None);
    }
}
