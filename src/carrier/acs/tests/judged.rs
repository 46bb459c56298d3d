//! Every request of ours as it comes over the wire, for the vendor's own package to judge, and
//! beside it what was to be asked for.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;
use crate::official::record;

/// What the judge looks at; the rest is the HTTP client's own.
const HEADERS: [&str; 8] = [
    "accept",
    "authorization",
    "content-type",
    "host",
    "repeatability-first-sent",
    "repeatability-request-id",
    "x-ms-content-sha256",
    "x-ms-date",
];

#[tokio::test]
async fn every_request_is_recorded_for_the_vendors_own_package() {
    let server = Loopback::start(|_, _| Reply::Answer(202, PROPERTIES.to_owned())).await;
    let acs = client(&server);
    let asked = [
        answers(&acs).await,
        refusals(&acs).await,
        of_running_calls(&acs).await,
        new_calls(&acs).await,
    ];
    let (asked, requests) = (asked.concat(), server.requests());
    assert_eq!(asked.len(), requests.len());
    let lines = asked
        .into_iter()
        .zip(&requests)
        .map(|((kind, given), request)| {
            json!({
                "type": kind,
                "given": given,
                "endpoint": server.url(""),
                "key": STANDARD.encode(KEY),
                "line": request.line,
                "headers": headers(request),
                "body": request.body,
            })
        });
    record("acs-requests.jsonl", lines);
}

fn headers(request: &Request) -> BTreeMap<&'static str, &str> {
    let found = HEADERS
        .into_iter()
        .map(|name| Some((name, request.header(name)?)));
    found.flatten().collect()
}

/// What was asked for, and its particulars in words of our own.
type Asked = Vec<(&'static str, Value)>;

async fn answers(acs: &CallAutomation) -> Asked {
    let ringing = Ringing::new();
    let mut asked = Vec::new();
    for audio in [None, Some(AcsAudio::Pcm16K), Some(AcsAudio::Pcm24K)] {
        let socket = &ringing.socket;
        let answer = Answer {
            media: audio.map(|audio| Media { socket, audio }),
            ..ringing.answer()
        };
        acs.answer(&answer, since(30), in_time()).await.unwrap();
        let given = json!({
            "context": ringing.context.expose_secret(),
            "callback": ringing.callback.as_str(),
            "operation_context": answer.operation_context,
            "socket": audio.map(|_| socket.as_str()),
            "rate": audio.map(rate),
        });
        asked.push(("answer", given));
    }
    asked
}

async fn refusals(acs: &CallAutomation) -> Asked {
    let (context, to) = (&SecretString::from("eyJ-canary"), number("+14255550199"));
    let reason = RejectReason::Busy;
    let reject = Reject { context, reason };
    acs.reject(&reject, since(30), in_time()).await.unwrap();
    let redirect = Redirect { context, to: &to };
    acs.redirect(&redirect, since(30), in_time()).await.unwrap();
    let context = context.expose_secret();
    vec![
        ("reject", json!({"context": context, "reason": "busy"})),
        ("redirect", json!({"context": context, "to": to.reveal()})),
    ]
}

async fn of_running_calls(acs: &CallAutomation) -> Asked {
    let call = "1b005580-1f2e".parse().unwrap();
    let (from, to) = (number("+14255550123"), number("+14255550199"));
    let file = "https://gw.example.com/busy.wav?k=a%20b".parse().unwrap();
    acs.hang_up(&call, since(30), in_time()).await.unwrap();
    let transfer = Transfer {
        to: &to,
        from: Some(Number::from(&from)),
        operation_context: "שיחה 1",
    };
    acs.transfer(&call, &transfer, since(30), in_time())
        .await
        .unwrap();
    let tones = SendTones {
        keys: "1*",
        to: &to,
        operation_context: "k",
    };
    acs.send_tones(&call, &tones, in_time()).await.unwrap();
    let play = Play {
        file: &file,
        operation_context: "p",
    };
    acs.play(&call, &play, in_time()).await.unwrap();
    let call = call.to_string();
    let transferred = json!({
        "call": call,
        "to": to.reveal(),
        "from": from.reveal(),
        "operation_context": transfer.operation_context,
    });
    let pressed = json!({
        "call": call,
        "tones": ["one", "asterisk"],
        "to": to.reveal(),
        "operation_context": tones.operation_context,
    });
    let played =
        json!({"call": call, "file": file.as_str(), "operation_context": play.operation_context});
    vec![
        ("hang_up", json!({"call": call})),
        ("transfer", transferred),
        ("send_tones", pressed),
        ("play", played),
    ]
}

async fn new_calls(acs: &CallAutomation) -> Asked {
    let ringing = Ringing::new();
    let (from, to) = (number("+14255550123"), number("+14255550199"));
    let mut asked = Vec::new();
    for media in [None, Some(ringing.media())] {
        let call = NewCall {
            to: &to,
            from: &from,
            callback: &ringing.callback,
            operation_context: "o",
            media,
        };
        let name = (
            CallId::of(&"acs-1".to_owned().try_into().unwrap()),
            since(30),
        );
        acs.create_call(name, &call, in_time()).await.unwrap();
        let given = json!({
            "to": to.reveal(),
            "from": from.reveal(),
            "callback": ringing.callback.as_str(),
            "operation_context": call.operation_context,
            "socket": media.map(|media| media.socket.as_str()),
            "rate": media.map(|media| rate(media.audio)),
        });
        asked.push(("create_call", given));
    }
    asked
}

fn number(number: &str) -> PhoneNumber {
    number.parse().unwrap()
}

fn rate(audio: AcsAudio) -> u32 {
    match audio {
        AcsAudio::Pcm16K => 16_000,
        AcsAudio::Pcm24K => 24_000,
    }
}
