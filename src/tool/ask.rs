//! A tool that is a server of the tenant's: it is sent the arguments, and what it answers is told
//! to the agent. Its words are as little trusted as the agent's.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::{
    call::CallId,
    campaign::Name,
    guard::{Answer, GuardError, GuardedClient, GuardedUrl, Limits},
    tool::{Refusal, ToolOutcome},
};

/// How much of an answer is read, in bytes.
const LONGEST_ANSWER: usize = 16 << 10;

/// What a server is asked.
#[derive(Debug)]
pub struct Question<'a> {
    pub url: &'a GuardedUrl,
    pub timeout: Duration,
    pub tool: &'a Name,
    pub arguments: Value,
    pub call: CallId,
    pub campaign: &'a Name,
}

impl Question<'_> {
    /// Asks, and returns what the agent is told.
    ///
    /// # Errors
    /// If there is no answer in time, or none that could be told.
    pub async fn ask(self, client: &GuardedClient) -> Result<String, Refusal> {
        let body = json!({
            "tool": self.tool.as_str(),
            "arguments": self.arguments,
            "call_id": self.call,
            "campaign": self.campaign.as_str(),
        });
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/*"));
        let limits = Limits {
            patience: self.timeout,
            longest_answer: LONGEST_ANSWER,
        };
        let body = Bytes::from(body.to_string());
        match client.post(self.url, headers, body, limits).await {
            Ok(answer) => told(&answer),
            Err(error) => {
                let reason = error.as_str();
                tracing::warn!(tool = self.tool.as_str(), reason, "a tool's server failed");
                Err(failed(&error))
            }
        }
    }
}

fn failed(error: &GuardError) -> Refusal {
    match error {
        GuardError::TooSlow => Refusal {
            outcome: ToolOutcome::TimedOut,
            advice: "the tool did not answer in time".to_owned(),
        },
        GuardError::Blocked | GuardError::Unreachable(_) | GuardError::BrokenOff(_) => {
            failure("the tool cannot be reached".to_owned())
        }
    }
}

fn failure(advice: String) -> Refusal {
    Refusal {
        outcome: ToolOutcome::Failed,
        advice,
    }
}

/// Returns what the agent is told of an answer: all of it, or why not.
fn told(answer: &Answer) -> Result<String, Refusal> {
    let status = answer.status;
    if !status.is_success() {
        let status = status.as_u16();
        return Err(failure(format!("the tool answered with status {status}")));
    }
    if !answer.is_whole {
        let kib = LONGEST_ANSWER >> 10;
        let advice = format!("the tool's answer is longer than {kib} KiB, or broke off");
        return Err(failure(advice));
    }
    let kind = answer.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let is_json = kind == "application/json" || kind.ends_with("+json");
    let text = std::str::from_utf8(&answer.body).ok();
    let text = text.filter(|_| is_json || kind.starts_with("text/"));
    let Some(text) = text else {
        let advice = "the tool's answer is neither JSON nor text".to_owned();
        return Err(failure(advice));
    };
    if is_json && serde_json::from_str::<Value>(text).is_err() {
        return Err(failure("the tool's answer is broken JSON".to_owned()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn an_agent_is_told_json_or_text_and_why_there_is_neither() {
        for (status, kind, body, whole, told_of) in [
            (200, "application/json", r#"{"slot":"10:00"}"#, true, None),
            (
                201,
                "application/problem+json; charset=utf-8",
                "[]",
                true,
                None,
            ),
            (200, "Text/Plain", "at ten", true, None),
            (204, "text/plain", "", true, None),
            (200, "application/json", "{", true, Some("broken JSON")),
            (200, "image/png", "png", true, Some("neither JSON nor text")),
            (200, "", "at ten", true, Some("neither JSON nor text")),
            (200, "text/plain", "at", false, Some("longer than 16 KiB")),
            (404, "text/plain", "no", true, Some("status 404")),
            (307, "text/plain", "there", true, Some("status 307")),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let told = told(&Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: Bytes::from_static(body.as_bytes()),
                is_whole: whole,
            });
            match told_of {
                None => assert_eq!(told.as_deref(), Ok(body)),
                Some(why) => {
                    let refusal = told.unwrap_err();
                    assert!(refusal.advice.contains(why), "{}", refusal.advice);
                    assert_eq!(refusal.outcome, ToolOutcome::Failed);
                }
            }
        }
        let latin = Answer {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("text/plain"))]),
            body: Bytes::from_static(&[0xE9]),
            is_whole: true,
        };
        assert!(told(&latin).is_err());
    }
}
