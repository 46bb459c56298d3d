//! Who may say what: Event Grid by its secret, ACS by its tokens.

use callgate::fake_acs::{Claims, Deed, Schema};
use serde_json::{Value, json};
use std::time::Duration;

use crate::{
    acs::{AcsHouse, answered, event, sent, status},
    gateway::TestGateway,
};

const CODE: &str = "0F1E2D3C-0000-4444-8888-ABCDEF012345";
const ORIGIN: &str = "eventgrid.azure.net";

#[tokio::test]
async fn event_grid_is_let_in_by_both_handshakes() {
    let house = AcsHouse::start().await;
    house.acs.handshake(house.reach()).await.unwrap();
    let echo: Value = sent(house.event_grid().json(&validation()))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(echo, json!({"validationResponse": CODE}));
    house.finish().await;
}

#[tokio::test]
async fn a_stranger_learns_nothing_and_does_nothing() {
    let house = AcsHouse::start().await;
    let call = house.calling();
    let ringing = json!([call.event(Schema::EventGrid, Duration::ZERO)]);
    for query in [
        "",
        "?secret=",
        "?secret=callgate-development2",
        "?secret=x&secret=",
    ] {
        let path = format!("/acs/incomingcall{query}");
        for body in [&validation(), &ringing] {
            let answer = sent(house.gateway.carrier.post(&path).json(body)).await;
            assert!([401, 403].contains(&answer.status().as_u16()), "{query}");
            assert!(!answer.text().await.unwrap().contains(CODE), "{query}");
        }
        let url = format!("http://{}{path}", house.gateway.carrier.address);
        let options = reqwest::Client::new().request(reqwest::Method::OPTIONS, url);
        let answer = sent(options.header("WebHook-Request-Origin", ORIGIN)).await;
        assert!([401, 403].contains(&answer.status().as_u16()), "{query}");
        assert!(answer.headers().get("WebHook-Allowed-Origin").is_none());
    }
    assert_eq!(house.gateway.active_calls().await, 0);
    assert_eq!(house.acs.saw(call.correlation()), []);
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn without_its_settings_event_grid_is_asked_to_come_again() {
    let gateway = TestGateway::start().await;
    let request = gateway.carrier.post("/acs/incomingcall?secret=any");
    assert_eq!(status(request.json(&validation())).await, 503);
    gateway.finish().await;
}

#[tokio::test]
async fn callbacks_of_nobody_and_of_other_calls_have_no_effect() {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    let other = house.connected().await;
    let (mine, its) = (&call.answered, &other.answered.connection);
    let ends = event(&call.call, &mine.connection, "CallDisconnected");
    let good = house.acs.claims();
    let bad = [
        Claims {
            expires_in: -3_600,
            ..good.clone()
        },
        Claims {
            audience: "another".into(),
            ..good.clone()
        },
        Claims {
            issuer: "https://login.example.com".into(),
            ..good.clone()
        },
    ];
    for claims in bad {
        let token = house.acs.token(&claims);
        let request = house.callback(mine).bearer_auth(token).json(&ends);
        assert_eq!(status(request).await, 401, "{claims:?}");
    }
    assert_eq!(status(house.callback(mine).json(&ends)).await, 401);
    let token = house.acs.token(&good);
    let unsigned = format!("{}.x", token.rsplit_once('.').unwrap().0);
    let request = house.callback(mine).bearer_auth(unsigned).json(&ends);
    assert_eq!(status(request).await, 401);

    // A good token, and ids that are not the call's.
    for told in [
        event(&other.call, its, "CallDisconnected"),
        event(&call.call, its, "CallDisconnected"),
    ] {
        let request = house.callback(mine).bearer_auth(&token).json(&told);
        assert_eq!(status(request).await, 403);
    }
    assert_eq!(house.gateway.active_calls().await, 2);

    let request = house.callback(mine).bearer_auth(&token).json(&ends);
    assert_eq!(status(request).await, 200);
    house.gateway.ended(call.call.correlation()).await;
    house.gateway.until_active(1).await;
    other.line.close();
    house.ended(&other.call).await;
    drop((call, other));
    house.finish().await;
}

#[tokio::test]
async fn while_keys_cannot_be_had_callbacks_are_to_come_again() {
    let house = AcsHouse::start().await;
    house.acs.hide_keys(true);
    let call = house.ring().await;
    let mine = answered(&call).await;
    house
        .until(&call, |deed| *deed == Deed::Told("CallConnected", 503))
        .await;
    assert_eq!(house.open(&call, &mine).await.err(), Some(503));
    house.acs.hide_keys(false);
    // Keys are asked for once in a while only.
    let connected = event(&call, &mine.connection, "ParticipantsUpdated");
    crate::gateway::eventually(async || {
        let token = house.acs.token(&house.acs.claims());
        let request = house.callback(&mine).bearer_auth(token).json(&connected);
        status(request).await == 200
    })
    .await;
    call.leave();
    house.gateway.ended(call.correlation()).await;
    drop(call);
    house.finish().await;
}

fn validation() -> Value {
    json!([{
        "id": "5f0c", "topic": "/subscriptions/1", "subject": "",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": "2026-01-06T10:00:00Z", "metadataVersion": "1", "dataVersion": "2",
        "data": {"validationCode": CODE, "validationUrl": "https://invalid.example/"},
    }])
}
