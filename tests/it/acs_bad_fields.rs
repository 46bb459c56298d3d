//! Every field of what ACS and Event Grid send, missing, of another type, and ten times too long:
//! what a body needs spoils that event only, and of what it does not need nobody takes notice.

use std::time::Duration;

use callgate::fake_acs::{Deed, FakeAcsOptions, Schema};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::acs::{AcsHouse, answered, event, status};

/// What an event of a call must have, in both of its schemas.
const EVENT_NEEDS: [&str; 9] = [
    "/id",
    "/eventType",
    "/type",
    "/eventTime",
    "/time",
    "/data",
    "/data/to",
    "/data/correlationId",
    "/data/incomingCallContext",
];
/// What a callback must have; the tone, if it tells of one.
const CALLBACK_NEEDS: [&str; 4] = ["/id", "/type", "/data", "/data/tone"];

/// Ten times as long as the longest field that is read, but for the two that may be longer.
const TOO_LONG: usize = 10 * 512;
const TOO_LONG_TICKET: usize = 10 * (64 << 10);
const TOO_LONG_MESSAGE: usize = 10 * (16 << 10);

const MALFORMED: &str = r#"webhooks_events_total{event="acs_malformed"}"#;
const CALLBACKS: &str = r#"webhooks_events_total{event="acs_callback"}"#;
const UNPROVEN: &str = "requests_unauthenticated_total";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    Missing,
    OfAnotherType,
    TooLong,
}

/// A sample with one defect.
struct Bad {
    field: String,
    defect: Defect,
    sample: Value,
    /// Whether the field is one of those that must be there.
    is_spoilt: bool,
}

#[tokio::test]
async fn an_event_lacks_nothing_that_it_does_not_need() {
    events_are_read(Schema::EventGrid, 28).await;
}

#[tokio::test]
async fn an_event_of_the_other_schema_lacks_nothing_that_it_does_not_need() {
    events_are_read(Schema::CloudEvents, 27).await;
}

/// Brings each bad event together with a good one.
async fn events_are_read(schema: Schema, fields: usize) {
    let house = AcsHouse::with(FakeAcsOptions::on_a_free_port(), &[]).await;
    let sample = || {
        let call = house.calling();
        let mut event = call.event(schema, Duration::ZERO);
        event["data"]["customContext"] = json!({
            "sipHeaders": {"User-To-User": "616263"}, "voipHeaders": {"tenant": "t-17"},
        });
        event["data"]["onBehalfOfCallee"] = Value::Null;
        (call, event)
    };
    let count = defects(&sample().1, &EVENT_NEEDS).len();
    assert_eq!(count, 3 * fields);
    for number in 0..count {
        let (call, event) = sample();
        let Bad {
            field,
            defect,
            sample: bad,
            is_spoilt,
        } = defects(&event, &EVENT_NEEDS).swap_remove(number);
        let good = house.calling();
        let body = json!([bad, good.event(schema, Duration::ZERO)]);
        let before = house.gateway.figure(MALFORMED).await;
        let answer = status(house.event_grid().json(&body)).await;
        assert_eq!(answer, 200, "{field} {defect:?}");
        answered(&good).await;
        let counted = house.gateway.figure(MALFORMED).await - before;
        assert_eq!(counted, u64::from(is_spoilt), "{field} {defect:?}");
        let held = house.gateway.active_calls().await;
        if is_spoilt {
            assert_eq!(house.acs.saw(call.correlation()), [], "{field} {defect:?}");
            assert_eq!(held, 1, "{field} {defect:?}");
        } else {
            answered(&call).await;
            assert_eq!(held, 2, "{field} {defect:?}");
            call.leave();
        }
        good.leave();
        house.ended(&good).await;
    }
    assert_eq!(house.gateway.figure("call_panics_total").await, 0);
    house.finish().await;
}

#[tokio::test]
async fn a_callback_lacks_nothing_that_it_does_not_need() {
    let house = AcsHouse::start().await;
    let call = house.connected().await;
    // Whatever ACS tells of its own accord is told by then.
    for kind in [
        "CallConnected",
        "ParticipantsUpdated",
        "MediaStreamingStarted",
    ] {
        let is_told = |deed: &Deed| *deed == Deed::Told(kind, 200);
        house.until(&call.call, is_told).await;
    }
    let token = house.acs.token(&house.acs.claims());
    let told = |body: &Value| {
        let request = house.callback(&call.answered).bearer_auth(&token);
        status(request.json(body))
    };
    // Both are harmless to a call whose media is here.
    let mut stopped = sample(
        &call.call,
        &call.answered.connection,
        "MediaStreamingStopped",
    );
    stopped["data"]["mediaStreamingUpdate"] = json!({
        "contentType": "Audio", "mediaStreamingStatus": "mediaStreamingStopped",
        "mediaStreamingStatusDetails": "subscriptionStopped",
    });
    let pressed = "ContinuousDtmfRecognitionToneReceived";
    let mut pressed = sample(&call.call, &call.answered.connection, pressed);
    pressed["data"]["tone"] = json!("five");
    pressed["data"]["sequenceId"] = json!(1);
    let bad = [&stopped, &pressed].map(|sample| defects(sample, &CALLBACK_NEEDS));
    assert_eq!(bad.each_ref().map(Vec::len), [3 * 20, 3 * 18]);
    for bad in bad.into_iter().flatten() {
        let (field, defect) = (bad.field, bad.defect);
        let figures = async || {
            [
                house.gateway.figure(MALFORMED).await,
                house.gateway.figure(CALLBACKS).await,
                house.gateway.figure(UNPROVEN).await,
            ]
        };
        let mut good = stopped.clone();
        let mut bad_event = bad.sample;
        for event in [&mut good, &mut bad_event] {
            // An event that was told already is not looked at again.
            if field != "/id" || event["id"] == stopped["id"] {
                event["id"] = json!(Uuid::new_v4());
            }
        }
        let before = figures().await;
        let answer = told(&json!([bad_event, good])).await;
        assert_eq!(answer, 200, "{field} {defect:?}");
        let after = figures().await;
        let spoilt = u64::from(bad.is_spoilt);
        let expected = [before[0] + spoilt, before[1] + 2 - spoilt, before[2]];
        assert_eq!(after, expected, "{field} {defect:?}");
        assert!(call.line.is_open(), "{field} {defect:?}");
    }
    assert_eq!(house.gateway.active_calls().await, 1);
    assert_eq!(house.gateway.figure("call_panics_total").await, 0);
    let ends = event(&call.call, &call.answered.connection, "CallDisconnected");
    assert_eq!(told(&ends).await, 200);
    house.ended(&call.call).await;
    drop(call);
    house.finish().await;
}

/// Returns an event of a call with every field that Call Automation writes.
fn sample(call: &callgate::fake_acs::FakeCall, connection: &str, kind: &str) -> Value {
    let mut event = event(call, connection, kind)[0].take();
    event["subject"] = event["source"].clone();
    event["datacontenttype"] = json!("application/json");
    event["data"]["serverCallId"] = json!("aHR0cHM6");
    event["data"]["operationContext"] = json!("incomingCall");
    event["data"]["resultInformation"] = json!({"code": 200, "subCode": 0, "message": "well"});
    event
}

/// Returns a sample with each defect in each of its fields, the nested ones too.
fn defects(sample: &Value, needed: &[&str]) -> Vec<Bad> {
    let mut fields = Vec::new();
    list(sample, "", &mut fields);
    let all = [Defect::Missing, Defect::OfAnotherType, Defect::TooLong];
    let each = fields
        .into_iter()
        .flat_map(|field| all.map(|defect| (field.clone(), defect)));
    let bad = each.map(|(field, defect)| {
        let (parent, name) = field.rsplit_once('/').unwrap();
        let value = sample.pointer(&field).unwrap();
        // Members that an object has too many of are not looked at.
        let is_harmless = value.is_object() && defect == Defect::TooLong;
        let mut sample = sample.clone();
        let parent = sample.pointer_mut(parent).unwrap();
        match defect {
            Defect::Missing => drop(parent.as_object_mut().unwrap().remove(name)),
            Defect::OfAnotherType => parent[name] = of_another_type(value),
            Defect::TooLong => parent[name] = too_long(name, value),
        }
        Bad {
            is_spoilt: needed.contains(&field.as_str()) && !is_harmless,
            field,
            defect,
            sample,
        }
    });
    bad.collect()
}

fn list(value: &Value, path: &str, fields: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        fields.push(path.clone());
        list(value, &path, fields);
    }
}

fn of_another_type(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => json!("text"),
        Value::String(_) => json!(7),
        Value::Array(_) | Value::Object(_) => json!(["another"]),
    }
}

fn too_long(name: &str, value: &Value) -> Value {
    let length = match name {
        "incomingCallContext" => TOO_LONG_TICKET,
        "message" => TOO_LONG_MESSAGE,
        _ => TOO_LONG,
    };
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => {
            json!("7".repeat(length))
        }
        Value::Number(_) => json!(1e300),
        Value::Object(members) => {
            let mut members = members.clone();
            members.extend((0..length).map(|member| (format!("x{member}"), json!(member))));
            Value::Object(members)
        }
    }
}
