//! What endpoints are told of whole calls, checked by the rules' own library.

use reqwest::header::{HeaderMap, HeaderName};
use serde_json::Value;
use standardwebhooks::Webhook;

use crate::{
    carrier::CALLER,
    gateway::{Settings, TestGateway, eventually},
    loopback::{Loopback, Reply, Request},
};

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

async fn gateway(receiver: &Loopback, transcripts: &str) -> TestGateway {
    told_so(receiver, &[("EVENTS_TRANSCRIPTS", transcripts)]).await
}

async fn told_so(receiver: &Loopback, how: Settings<'_>) -> TestGateway {
    let url = receiver.url("/events");
    let settings = [
        ("MAX_ACTIVE_CALLS", "1"),
        ("EVENTS_URL", &url),
        ("EVENTS_SECRET", SECRET),
        ("EVENTS_RETRY_SECONDS", "0,0,0"),
        ("GUARD_ALLOW", "127.0.0.0/8"),
    ];
    TestGateway::with(&[&settings, how].concat()).await
}

/// Returns what an event tells, once its signature is found to be right.
fn told(request: &Request) -> Value {
    let mut headers = HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value = request.header(name).unwrap().parse().unwrap();
        headers.insert(HeaderName::from_static(name), value);
    }
    let webhook = Webhook::new(SECRET).unwrap();
    webhook.verify(request.body.as_bytes(), &headers).unwrap();
    serde_json::from_str(&request.body).unwrap()
}

/// Returns the kinds that a call's endpoint was told of, in alphabetical order.
fn kinds_of(receiver: &Loopback, call: &str) -> Vec<String> {
    let requests = receiver.requests();
    let events = requests.iter().map(told);
    let own = events.filter(|event| event["data"]["carrier_call_id"] == call);
    let mut kinds: Vec<_> = own
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect();
    kinds.sort();
    kinds
}

#[tokio::test]
async fn an_endpoint_is_told_of_answered_and_of_refused_calls() {
    // The first try of everything fails.
    let receiver = Loopback::start(|n, _| match n {
        0..=2 => Reply::Answer(503, String::new()),
        _ => Reply::Answer(204, String::new()),
    })
    .await;
    let gateway = gateway(&receiver, "0").await;
    let answered = gateway.ring().await.connected().await;
    let refused = gateway.ring().await;
    let (first, second) = (answered.sid.clone(), refused.sid.clone());
    answered.hang_up().await;
    eventually(async || {
        let kinds = kinds_of(&receiver, &first);
        kinds.contains(&"call.ended".to_owned()) && kinds.contains(&"call.started".to_owned())
    })
    .await;
    eventually(async || kinds_of(&receiver, &second).contains(&"call.refused".to_owned())).await;
    let ended = receiver.requests();
    let ended = ended.iter().map(told).find(|event| {
        event["type"] == "call.ended" && event["data"]["carrier_call_id"] == first.as_str()
    });
    let data = &ended.unwrap()["data"];
    assert_eq!(data["reason"], "caller_hung_up");
    assert_eq!(data["campaign"], "default");
    assert!(data.get("transcript").is_none());
    for result in ["again", "delivered"] {
        let tries = format!(
            r#"event_tries_total{{tenant="default",endpoint="default",result="{result}"}}"#
        );
        eventually(async || gateway.figure(&tries).await == 3).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_whole_number_is_told_only_where_it_is_asked_for() {
    let masked = "+9*******4567";
    for (how, caller) in [
        (&[][..], masked.into()),
        (&[("EVENTS_NUMBERS", "whole")], CALLER.into()),
        (&[("EVENTS_PAYLOAD", "small")], Value::Null),
        // Where they are kept masked, nobody knows more.
        (
            &[("EVENTS_NUMBERS", "whole"), ("RECORD_NUMBERS", "masked")],
            masked.into(),
        ),
    ] {
        let receiver = Loopback::start(|_, _| Reply::Answer(204, String::new())).await;
        let gateway = told_so(&receiver, how).await;
        let call = gateway.ring().await.connected().await;
        let sid = call.sid.clone();
        call.hang_up().await;
        let ended = "call.ended".to_owned();
        eventually(async || kinds_of(&receiver, &sid).contains(&ended)).await;
        for request in receiver.requests() {
            let event = told(&request);
            assert_eq!(event["data"]["caller"], caller, "{how:?} {event}");
            let is_whole = request.body.contains(&CALLER[1..]);
            assert_eq!(is_whole, caller == CALLER, "{how:?} {event}");
        }
        // What waits there waits for any endpoint.
        let whole = "SELECT COUNT(*) FROM events WHERE body LIKE '%972501234567%'";
        assert_eq!(gateway.database.ask(whole).await, ["0"]);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn what_was_said_is_told_where_it_is_asked_for() {
    let receiver = Loopback::start(|_, _| Reply::Answer(204, String::new())).await;
    let gateway = gateway(&receiver, "1").await;
    let call = gateway.ring().await.connected().await;
    let sid = call.sid.clone();
    eventually(async || {
        let words = "SELECT COUNT(*) FROM words";
        gateway.database.ask(words).await != ["0"]
    })
    .await;
    call.hang_up().await;
    eventually(async || kinds_of(&receiver, &sid).contains(&"call.transcript".to_owned())).await;
    gateway.finish().await;
}
