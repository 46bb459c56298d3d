//! Events come at least once, in any number, and sometimes late.

use std::time::Duration;

use callgate::fake_acs::{Deed, Schema};
use futures_util::future::join_all;
use serde_json::json;

use crate::acs::{AcsHouse, answered, status};

#[tokio::test]
async fn an_event_that_comes_again_is_answered_once() {
    let house = AcsHouse::start().await;
    let call = house.calling();
    let event = call.event(Schema::EventGrid, Duration::ZERO);
    let same = || status(house.event_grid().json(&json!([event])));
    let several: Vec<_> = std::iter::repeat_with(same).take(5).collect();
    assert_eq!(join_all(several).await, [200; 5]);
    // A redirect brings a call back under another id of the event.
    let another = call.event(Schema::CloudEvents, Duration::ZERO);
    assert_eq!(status(house.event_grid().json(&another)).await, 200);
    answered(&call).await;
    assert_eq!(house.gateway.active_calls().await, 1);
    call.leave();
    house.ended(&call).await;
    assert_eq!(house.count(&call, &Deed::Answered), 1);
    assert_eq!(house.count(&call, &Deed::AnsweredTwice), 0);
    drop(call);
    house.finish().await;
}

#[tokio::test]
async fn events_in_one_body_are_each_answered() {
    let house = AcsHouse::start().await;
    let calls = [house.calling(), house.calling(), house.calling()];
    let [first, rest @ ..] = calls
        .each_ref()
        .map(|it| it.event(Schema::EventGrid, Duration::ZERO));
    let [second, third] = rest;
    let unknown =
        json!({"id": "1", "eventType": "Microsoft.Communication.SMSReceived", "data": {}});
    let body = json!([first, unknown, second, first, third]);
    assert_eq!(status(house.event_grid().json(&body)).await, 200);
    for call in &calls {
        answered(call).await;
    }
    assert_eq!(house.gateway.active_calls().await, 3);
    for call in &calls {
        call.leave();
        house.gateway.ended(call.correlation()).await;
        assert_eq!(house.count(call, &Deed::Answered), 1);
    }
    drop(calls);
    house.finish().await;
}

#[tokio::test]
async fn a_call_that_rings_no_more_is_not_answered() {
    let house = AcsHouse::start().await;
    let late = house.calling();
    let event = late.event(Schema::EventGrid, Duration::from_secs(31));
    assert_eq!(status(house.event_grid().json(&json!([event]))).await, 200);
    // One that comes after it is answered, and that one is not.
    let call = house.connected().await;
    assert_eq!(house.acs.saw(late.correlation()), []);
    assert_eq!(house.gateway.active_calls().await, 1);
    call.line.close();
    house.ended(&call.call).await;
    drop((late, call));
    house.finish().await;
}
