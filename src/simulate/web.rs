//! Calls by a browser's socket, without a browser.

pub(super) mod message;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use futures_util::StreamExt;
use rand::{SeedableRng, rngs::StdRng};
use reqwest::Client;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use self::message::{ENCODING, State, Writer};
use super::{
    dialect::Dialect,
    outcome::{CallEvent, CallOutcome, CallResult, StreamEnd, Watch},
    plan::CallPlan,
    reach::{CONNECT_TIMEOUT, Reach, Socket},
    script::{Mouth, Script},
    stream::{StreamPlan, converse},
};
use crate::call::Carrier;

/// The code of a close that says that there is no room.
const NO_ROOM: u16 = 4429;

/// How long a page waits to hear that its call has begun.
const STATE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a caller listens to why there is no room.
const BUSY_PATIENCE: Duration = Duration::from_secs(60);

/// Pages in browsers, and the gateway that they are of.
pub struct WebCarrier {
    http: Client,
    gateway: Arc<Reach>,
    /// What pages say that they are from.
    origin: String,
    /// The operator's token, where each call takes a token of its own.
    operator: Option<SecretString>,
    campaign: Option<String>,
}

/// Why a call did not come about.
enum NoCall {
    /// There was no room, and the caller was told so.
    Busy,
    Failed(String),
}

impl WebCarrier {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(
        gateway: Arc<Reach>,
        operator: Option<SecretString>,
        campaign: Option<String>,
    ) -> anyhow::Result<Self> {
        // Fails if another part of the process installed it already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(STATE_PATIENCE)
            .no_proxy()
            .build()
            .context("cannot set up an HTTP client")?;
        let origin = Url::parse(&gateway.url("/")).context("--url is not a URL")?;
        Ok(Self {
            http,
            origin: origin.origin().ascii_serialization(),
            gateway,
            operator,
            campaign,
        })
    }

    /// Makes one call and returns what became of it. A caller who is stopped hangs up politely.
    pub async fn call(
        &self,
        plan: CallPlan,
        watch: &mut Watch<'_>,
        stop: &CancellationToken,
    ) -> CallOutcome {
        let rang = Instant::now();
        // The gateway names the call, and tells nobody.
        let name = format!("web-{}", Uuid::new_v4());
        let mut outcome = CallOutcome::new(Carrier::Web, name, &plan);
        watch(CallEvent::Rings {
            carrier_call: outcome.carrier_call.clone(),
            from: plan.from.clone(),
        });
        outcome.result = match self.open(plan.script).await {
            Ok(socket) => {
                outcome.webhooks.push(rang.elapsed());
                watch(CallEvent::Connected);
                talk(&plan, rang, socket, &mut outcome, watch, stop).await
            }
            Err(NoCall::Busy) => {
                outcome.webhooks.push(rang.elapsed());
                watch(CallEvent::Rejected);
                CallResult::Busy
            }
            Err(NoCall::Failed(why)) => {
                outcome.failed_webhooks += 1;
                watch(CallEvent::WebhookFailed(why.clone()));
                CallResult::Failed(why)
            }
        };
        watch(CallEvent::Ended(outcome.result.clone()));
        outcome
    }

    /// Opens the page's socket, and waits until the call has begun.
    async fn open(&self, script: Script) -> Result<Socket, NoCall> {
        let mut url = Url::parse(&self.gateway.socket_url("/web/ws"))
            .map_err(|error| NoCall::Failed(error.to_string()))?;
        if let Some(token) = self.token().await? {
            url.query_pairs_mut().append_pair("token", &token);
        } else if let Some(campaign) = &self.campaign {
            url.query_pairs_mut().append_pair("campaign", campaign);
        }
        let headers = [("origin", self.origin.clone())];
        let socket = self.gateway.open(url.as_str(), &headers, script).await;
        let mut socket = socket.map_err(|error| NoCall::Failed(error.to_string()))?;
        match timeout(STATE_PATIENCE, state(&mut socket)).await {
            Ok(Ok(State::Connected)) => Ok(socket),
            Ok(Ok(State::Busy)) => {
                let refused = timeout(BUSY_PATIENCE, closed(&mut socket)).await;
                Err(match refused {
                    Ok(Some(NO_ROOM)) => NoCall::Busy,
                    Ok(code) => NoCall::Failed(format!("a busy line was closed with {code:?}")),
                    Err(_) => NoCall::Failed("a busy line was not closed".to_owned()),
                })
            }
            Ok(Ok(State::Ended(reason))) => Err(NoCall::Failed(format!("it ended: {reason}"))),
            Ok(Err(code)) => Err(NoCall::Failed(format!(
                "the socket was closed with {code:?}"
            ))),
            Err(_) => Err(NoCall::Failed("the call did not begin in time".to_owned())),
        }
    }

    /// Has the operator make a token for one call, where there is one.
    async fn token(&self) -> Result<Option<String>, NoCall> {
        let Some(operator) = &self.operator else {
            return Ok(None);
        };
        let failed = |why: String| NoCall::Failed(format!("the gateway made no token: {why}"));
        let url = self.gateway.reached(&self.gateway.url("/web/tokens"));
        let order = match &self.campaign {
            Some(campaign) => json!({ "campaign": campaign }),
            None => json!({}),
        };
        let request = self.http.post(url).bearer_auth(operator.expose_secret());
        let answer = request.json(&order).send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status);
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let made: Value = answer
            .json()
            .await
            .map_err(|error| failed(error.to_string()))?;
        let token = made["token"].as_str().map(str::to_owned);
        token
            .map(Some)
            .ok_or_else(|| failed("its answer has none".to_owned()))
    }
}

async fn talk(
    plan: &CallPlan,
    rang: Instant,
    socket: Socket,
    outcome: &mut CallOutcome,
    watch: &mut Watch<'_>,
    stop: &CancellationToken,
) -> CallResult {
    let choices = StdRng::seed_from_u64(plan.seed);
    let mouth = Mouth::new(plan.script, plan.voices.encoded(ENCODING), choices);
    let dialect = Dialect::Web(Writer::new(outcome.carrier_call.clone()));
    let stream = StreamPlan {
        script: plan.script,
        talk_for: plan.talk_for,
        echo: plan.echo,
        keys: "",
        record: plan.record.as_deref(),
        rang,
        hung_up: CancellationToken::new(),
        left: CancellationToken::new(),
    };
    let (stream, faults) = converse(stream, mouth, socket, dialect, watch, stop).await;
    let (ended, was_over) = (stream.ended.clone(), stream.was_over);
    outcome.faults.extend(faults);
    outcome.streams.push(stream);
    let result = match ended {
        StreamEnd::CallerHungUp if !was_over => CallResult::Answered,
        StreamEnd::Cut => CallResult::Answered,
        // It had been said why, in what was played.
        StreamEnd::CallerHungUp
        | StreamEnd::GatewayHungUp
        | StreamEnd::GatewayClosed(_)
        | StreamEnd::Lost(_) => CallResult::Apology,
    };
    watch(CallEvent::StreamEnded(ended));
    result
}

/// Waits for the first word of how the call stands; the code, if the socket is closed before.
async fn state(socket: &mut Socket) -> Result<State, Option<u16>> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                if let Some(state) = State::read(&text) {
                    return Ok(state);
                }
            }
            Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(None),
        }
    }
}

/// Waits until the gateway closes the socket, and returns its code.
async fn closed(socket: &mut Socket) -> Option<u16> {
    loop {
        match state(socket).await {
            Ok(_) => {}
            Err(code) => return code,
        }
    }
}
