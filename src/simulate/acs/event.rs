//! What Event Grid tells: calls that ring.
//!
//! Source: learn.microsoft.com/azure/event-grid/communication-services-voice-video-events, and
//! azure/event-grid/delivery-and-retry.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use url::Url;
use uuid::Uuid;

use super::calls::{Call, phone};
use crate::simulate::reach::Reach;

const SUBSCRIPTION: &str = "callgate-simulator";
const TOPIC: &str = "/subscriptions/0/resourcegroups/callgate/providers/microsoft.communication/\
                     communicationservices/callgate-simulator";
const PATH: &str = "/acs/incomingcall";
const ORIGIN: &str = "eventgrid.azure.net";

/// How often an event is sent: the vendor's advice for calls is twice.
const MOST_TRIES: u32 = 3;
/// How long Event Grid waits before it sends again, a fiftieth of the real times: a call rings for
/// 30 s, and nobody wants to wait for it.
const AFTER_503: Duration = Duration::from_millis(600);
const AFTER_OTHERS: Duration = Duration::from_millis(200);

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    EventGrid,
    CloudEvents,
}

/// Event Grid's side of the network.
pub struct EventGrid {
    http: Client,
    secret: String,
}

/// An event that the gateway has taken.
pub struct Delivered {
    /// How long the try took that succeeded.
    pub took: Duration,
    /// Tries that failed.
    pub failed: u32,
}

/// An event that the gateway has not taken.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("{0} cannot be reached: is a gateway running there?")]
    Unreachable(String),
    #[error("the gateway answered an event {}{}", .0.as_u16(), advice(*.0))]
    Status(StatusCode),
    #[error("the gateway did not echo the code of Event Grid's handshake")]
    NoEcho,
    #[error("the gateway did not consent to CloudEvents")]
    NoConsent,
}

impl Call {
    /// Returns the event that the call rings, as of some time ago.
    pub fn event(&self, schema: Schema, age: Duration) -> Value {
        let data = json!({
            "to": phone(&self.to),
            "from": phone(&self.from),
            "serverCallId": self.name.server_call,
            "callerDisplayName": "",
            "incomingCallContext": self.name.context,
            "correlationId": self.name.correlation,
        });
        let subject = format!("/caller/4:{}/recipient/4:{}", self.from, self.to);
        let time = Timestamp::now() - age;
        event(
            schema,
            "Microsoft.Communication.IncomingCall",
            &subject,
            time,
            &data,
        )
    }
}

impl EventGrid {
    pub fn new(http: Client, secret: String) -> Self {
        Self { http, secret }
    }

    /// Sets up the subscription in both schemas, as Event Grid does before its first event.
    ///
    /// # Errors
    /// If the gateway does not consent.
    pub async fn handshake(&self, gateway: &Reach) -> Result<(), EventError> {
        let code = Uuid::new_v4().to_string();
        let data = json!({"validationCode": code, "validationUrl": "https://invalid.example/"});
        let kind = "Microsoft.EventGrid.SubscriptionValidationEvent";
        let event = event(Schema::EventGrid, kind, "", Timestamp::now(), &data);
        let request = self.post(gateway, Schema::EventGrid, "SubscriptionValidation");
        let answer = send(request.json(&[event])).await?;
        let echo: Value = answer.json().await.unwrap_or_default();
        if echo["validationResponse"] != code {
            return Err(EventError::NoEcho);
        }
        let request = self.request(Method::OPTIONS, gateway);
        let answer = send(request.header("WebHook-Request-Origin", ORIGIN)).await?;
        let header = |name| answer.headers().get(name).and_then(|it| it.to_str().ok());
        let origin = header("WebHook-Allowed-Origin");
        if !matches!(origin, Some("*" | ORIGIN)) || header("WebHook-Allowed-Rate").is_none() {
            return Err(EventError::NoConsent);
        }
        Ok(())
    }

    /// Sends events in one body until they are taken, or Event Grid would give up.
    ///
    /// # Errors
    /// If they are not taken.
    pub async fn deliver(
        &self,
        gateway: &Reach,
        schema: Schema,
        events: &[Value],
    ) -> Result<Delivered, EventError> {
        let mut failed = 0;
        loop {
            let mut request = self.post(gateway, schema, "Notification");
            request = request.header("aeg-delivery-count", failed.to_string());
            let body = match (schema, events) {
                (Schema::CloudEvents, [event]) => event.to_string(),
                _ => json!(events).to_string(),
            };
            let began = Instant::now();
            let Err(error) = send(request.body(body)).await else {
                let took = began.elapsed();
                return Ok(Delivered { took, failed });
            };
            failed += 1;
            let pause = match &error {
                EventError::Status(status) => match status.as_u16() {
                    400 | 401 | 403 | 413 => return Err(error), // It is never sent again.
                    503 => AFTER_503,
                    _ => AFTER_OTHERS,
                },
                EventError::Unreachable(_) | EventError::NoEcho | EventError::NoConsent => {
                    AFTER_OTHERS
                }
            };
            if failed == MOST_TRIES {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    fn post(&self, gateway: &Reach, schema: Schema, kind: &str) -> RequestBuilder {
        let content_type = match schema {
            Schema::EventGrid => "application/json; charset=utf-8",
            Schema::CloudEvents => "application/cloudevents+json; charset=utf-8",
        };
        let request = self.request(Method::POST, gateway);
        request
            .header("content-type", content_type)
            .header("aeg-event-type", kind)
            .header("aeg-subscription-name", SUBSCRIPTION)
    }

    fn request(&self, method: Method, gateway: &Reach) -> RequestBuilder {
        let url = gateway.reached(&gateway.url(PATH));
        let url = Url::parse_with_params(&url, [("secret", &self.secret)]);
        self.http
            .request(method, url.map(String::from).unwrap_or_default())
    }
}

/// Returns an event that is no call's.
pub fn unrelated() -> Value {
    let kind = "Microsoft.Communication.RecordingFileStatusUpdated";
    event(
        Schema::EventGrid,
        kind,
        "/recording/1",
        Timestamp::now(),
        &json!({}),
    )
}

fn event(schema: Schema, kind: &str, subject: &str, time: Timestamp, data: &Value) -> Value {
    let (id, time) = (Uuid::new_v4(), time.to_string());
    match schema {
        Schema::EventGrid => json!({
            "id": id, "topic": TOPIC, "subject": subject, "eventType": kind, "eventTime": time,
            "dataVersion": "1.0", "metadataVersion": "1", "data": data,
        }),
        Schema::CloudEvents => json!({
            "specversion": "1.0", "id": id, "source": TOPIC, "type": kind, "subject": subject,
            "time": time, "data": data,
        }),
    }
}

async fn send(request: RequestBuilder) -> Result<reqwest::Response, EventError> {
    match request.send().await {
        // Only these count: learn.microsoft.com/azure/event-grid/delivery-and-retry.
        Ok(answer) if (200..=204).contains(&answer.status().as_u16()) => Ok(answer),
        Ok(answer) => Err(EventError::Status(answer.status())),
        Err(error) => {
            // The address holds the secret.
            Err(EventError::Unreachable(error.without_url().to_string()))
        }
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => ": is its EVENTGRID_SECRET the simulator's?",
        404 | 405 => ": is --url the base of the gateway's own URLs?",
        503 => ": are its ACS_CONNECTION_STRING and EVENTGRID_SECRET set?",
        _ => "",
    }
}
