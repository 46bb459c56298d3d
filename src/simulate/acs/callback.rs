//! What Call Automation tells of a call, and telling it.
//!
//! Source: learn.microsoft.com/azure/communication-services/concepts/call-automation.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use rand::seq::SliceRandom;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use uuid::Uuid;

use super::{
    Service,
    calls::{Call, Habit, phone},
    seen::Deed,
    tokens::CALLBACK_LIFETIME,
};

/// How often a callback is sent that is not taken, and how long it waits in between. ACS does not
/// say what it does.
const MOST_TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// How long others are waited for, where callbacks come in any order.
const MIXES_WITHIN: Duration = Duration::from_millis(60);

/// One event of a call.
#[derive(Debug, Clone)]
pub struct Callback {
    kind: &'static str,
    /// Code, subcode and message of its result.
    result: (u16, u16, &'static str),
    /// What it says beside that.
    more: Value,
}

impl Callback {
    pub fn connected() -> Self {
        Self::well("CallConnected")
    }

    pub fn participants(call: &Call) -> Self {
        let participant = json!({
            "identifier": phone(&call.from), "isMuted": false, "isOnHold": false,
        });
        Self {
            more: json!({"participants": [participant], "sequenceNumber": 1}),
            ..Self::well("ParticipantsUpdated")
        }
    }

    pub fn answer_failed() -> Self {
        Self {
            result: (500, 8_587, "The call was not answered in time."),
            ..Self::well("AnswerFailed")
        }
    }

    pub fn create_failed(code: u16, subcode: u16, message: &'static str) -> Self {
        Self {
            result: (code, subcode, message),
            ..Self::well("CreateCallFailed")
        }
    }

    pub fn streaming_started() -> Self {
        Self::streaming("MediaStreamingStarted", "subscriptionStarted")
    }

    pub fn streaming_stopped() -> Self {
        Self::streaming("MediaStreamingStopped", "subscriptionStopped")
    }

    pub fn streaming_failed() -> Self {
        let message = "Action failed, Transport url is not valid or web socket server is not \
                       operational.";
        Self {
            result: (400, 8_581, message),
            ..Self::streaming("MediaStreamingFailed", "initialWebSocketConnectionFailed")
        }
    }

    pub fn play_started() -> Self {
        Self::well("PlayStarted")
    }

    pub fn play_completed() -> Self {
        Self::well("PlayCompleted")
    }

    pub fn play_failed(subcode: u16, message: &'static str) -> Self {
        Self {
            result: (400, subcode, message),
            more: json!({"failedPlaySourceIndex": 0}),
            ..Self::well("PlayFailed")
        }
    }

    pub fn transfer_accepted(to: &str) -> Self {
        Self {
            more: json!({"transferTarget": phone(to)}),
            ..Self::well("CallTransferAccepted")
        }
    }

    pub fn transfer_failed() -> Self {
        Self {
            result: (408, 5_000, "Nobody took the call."),
            ..Self::well("CallTransferFailed")
        }
    }

    pub fn disconnected() -> Self {
        Self::well("CallDisconnected")
    }

    fn streaming(kind: &'static str, details: &str) -> Self {
        let status = format!("m{}", &kind[1..]);
        Self {
            more: json!({"mediaStreamingUpdate": {
                "contentType": "Audio",
                "mediaStreamingStatus": status,
                "mediaStreamingStatusDetails": details,
            }}),
            ..Self::well(kind)
        }
    }

    fn well(kind: &'static str) -> Self {
        Self {
            kind,
            result: (200, 0, ""),
            more: json!({}),
        }
    }

    /// Tells whether nothing follows it.
    fn is_last(&self) -> bool {
        matches!(
            self.kind,
            "CallDisconnected" | "AnswerFailed" | "CreateCallFailed"
        )
    }

    /// Returns the event as it is sent.
    fn event(&self, call: &Call) -> Value {
        let (code, subcode, message) = self.result;
        let subject = format!("calling/callConnections/{}", call.name.connection);
        let mut data = json!({
            "callConnectionId": call.name.connection,
            "serverCallId": call.name.server_call,
            "correlationId": call.name.correlation,
            "resultInformation": {"code": code, "subCode": subcode, "message": message},
        });
        if let (Value::Object(data), Value::Object(more)) = (&mut data, &self.more) {
            data.extend(more.clone());
        }
        json!({
            "id": Uuid::new_v4(), "source": subject, "subject": subject,
            "type": format!("Microsoft.Communication.{}", self.kind),
            "time": Timestamp::now().to_string(), "specversion": "1.0",
            "datacontenttype": "application/json", "data": data,
        })
    }
}

/// Tells the gateway of a call, one callback after the other, until the last.
pub async fn tell_all(service: Arc<Service>, call: Arc<Call>, mut told: mpsc::Receiver<Callback>) {
    let telling = async {
        while let Some(callback) = told.recv().await {
            let mut callbacks = vec![callback];
            if call.manner.has(Habit::Shuffled) {
                mix(&mut callbacks, &mut told).await;
            }
            for callback in callbacks {
                tell(&service, &call, &callback).await;
                if callback.is_last() {
                    return;
                }
            }
        }
    };
    call.over.run_until_cancelled(telling).await;
    call.status.send_modify(|status| status.is_told = true);
}

/// Brings callbacks that come at about the same time into any order. The last stays the last.
async fn mix(callbacks: &mut Vec<Callback>, told: &mut mpsc::Receiver<Callback>) {
    while !callbacks.iter().any(Callback::is_last)
        && let Ok(Some(callback)) = timeout(MIXES_WITHIN, told.recv()).await
    {
        callbacks.push(callback);
    }
    callbacks.shuffle(&mut rand::rng());
    callbacks.sort_by_key(Callback::is_last);
}

async fn tell(service: &Service, call: &Call, callback: &Callback) {
    let Some(answered) = call.status.borrow().answered.clone() else {
        return; // Nobody has said whom to tell.
    };
    let url = call.gateway.reached(&answered.callback);
    let body = json!([callback.event(call)]);
    let times = if call.manner.has(Habit::Repeated) {
        2
    } else {
        1
    };
    for _ in 0..times {
        let status = post(service, &url, &body).await;
        let deed = Deed::Told(callback.kind, status.map_or(0, |status| status.as_u16()));
        service.note(&call.name.correlation, deed);
        let fault = match status {
            Some(status) if status.is_success() => continue,
            Some(status) => format!("a callback was answered {}", status.as_u16()),
            None => "a callback was not answered".to_owned(),
        };
        call.status.send_modify(|status| status.faults.push(fault));
    }
}

/// Sends a callback until it is taken. Returns the last status, if there was one.
async fn post(service: &Service, url: &str, body: &Value) -> Option<StatusCode> {
    let mut tries = 0;
    loop {
        tries += 1;
        let token = service.tokens.good_for(CALLBACK_LIFETIME);
        let sent = service.http.post(url).bearer_auth(token).json(body).send();
        let status = sent.await.ok().map(|answer| answer.status());
        let is_taken = status.is_some_and(|status| !status.is_server_error());
        if is_taken || tries == MOST_TRIES {
            return status;
        }
        sleep(PAUSE * tries).await;
    }
}
