use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

fn data() -> Value {
    json!({
        "to": {"kind": "phoneNumber", "rawId": "4:+18005550100", "phoneNumber": {"value": "+18005550100"}},
        "from": {"kind": "phoneNumber", "rawId": "4:+14255550123", "phoneNumber": {"value": "+14255550123"}},
        "serverCallId": "aHR0cHM6", "callerDisplayName": "Dana",
        "customContext": {"sipHeaders": {"User-To-User": "616263"}},
        "incomingCallContext": "eyJ-canary", "onBehalfOfCallee": null,
        "correlationId": "0b1c2d3e-1111-4222-8333-444455556666",
    })
}

fn grid(data: &Value) -> Value {
    json!({
        "id": "3b0e2c39", "topic": "/subscriptions/s", "subject": "/caller/4:+14255550123",
        "eventType": "Microsoft.Communication.IncomingCall",
        "eventTime": "2026-01-06T10:20:30.1234567Z", "dataVersion": "1.0", "metadataVersion": "1",
        "data": data,
    })
}

fn cloud(data: &Value) -> Value {
    json!({
        "specversion": "1.0", "id": "3b0e2c39", "source": "/subscriptions/s",
        "type": "Microsoft.Communication.IncomingCall",
        "time": "2026-01-06T10:20:30.1234567Z", "data": data,
    })
}

fn read_all(body: &Value) -> Vec<Event> {
    read(body.to_string().as_bytes()).unwrap()
}

fn only_call(body: &Value) -> IncomingCall {
    match read_all(body).pop() {
        Some(Event::IncomingCall(call)) => *call,
        other => panic!("a call, not {other:?}: {body}"),
    }
}

#[test]
fn a_call_rings_in_either_schema_alone_or_in_a_batch() {
    for body in [
        grid(&data()),
        cloud(&data()),
        json!([grid(&data())]),
        json!([cloud(&data())]),
    ] {
        let call = only_call(&body);
        assert_eq!(call.event, "3b0e2c39");
        assert_eq!(call.call.as_str(), "0b1c2d3e-1111-4222-8333-444455556666");
        assert_eq!(call.from, CallerId::read("+14255550123"));
        assert_eq!(call.to, CallerId::read("+18005550100"));
        assert_eq!(call.context.expose_secret(), "eyJ-canary");
        let shown = format!("{call:?}");
        for canary in ["canary", "+1425", "Dana"] {
            assert!(!shown.contains(canary), "{shown}");
        }
    }
}

#[test]
fn an_event_is_as_old_as_its_time_says_and_never_younger_than_nothing() {
    let call = only_call(&grid(&data()));
    for (now, age_ms) in [
        ("2026-01-06T10:21:00.1234567Z", 30_000),
        ("2026-01-06T10:20:30.1234567Z", 0),
        ("2026-01-06T10:20:00Z", 0),
    ] {
        let age = call.age(now.parse().unwrap());
        assert_eq!(age, Duration::from_millis(age_ms), "{now}");
    }
}

#[test]
fn a_subscription_is_validated_by_its_code() {
    let kind = "Microsoft.EventGrid.SubscriptionValidationEvent";
    let body = json!([{
        "id": "5f0c", "eventType": kind, "data": {"validationCode": "0F1E\"", "validationUrl": "x"},
    }]);
    let Some(Event::Validation { code }) = read_all(&body).pop() else {
        panic!("a validation")
    };
    assert_eq!(consent(&code), r#"{"validationResponse":"0F1E\""}"#);
    for data in [
        json!({}),
        json!({"validationCode": 7}),
        json!({"validationCode": ""}),
        json!(7),
    ] {
        let read = read_all(&json!([{"eventType": kind, "data": data}]));
        assert!(
            matches!(
                read[..],
                [Event::Malformed {
                    what: "validationCode"
                }]
            ),
            "{read:?}"
        );
    }
}

#[test]
fn only_event_grid_shakes_hands() {
    for origin in [
        "eventgrid.azure.net",
        "rp-eastus2.eventgrid.azure.net",
        "eventgrid.azure.us",
    ] {
        assert_eq!(
            handshake(Some(origin)),
            Some([
                ("allow", "POST, OPTIONS"),
                ("webhook-allowed-origin", origin),
                ("webhook-allowed-rate", "*"),
            ])
        );
    }
    for origin in [
        "",
        "azure.net",
        "noteventgrid.azure.net",
        "eventgrid.azure.net.example.org",
        "example.org/.eventgrid.azure.net",
        "example.org\r\nX: .eventgrid.azure.net",
        &format!("{}.eventgrid.azure.net", "a".repeat(1_000)),
    ] {
        assert_eq!(handshake(Some(origin)), None, "{origin}");
    }
    assert_eq!(handshake(None), None);
}

#[test]
fn what_is_missing_or_wrong_is_named_and_spoils_no_other() {
    let long = json!("x".repeat(100_000));
    let wrong = || {
        [
            Value::Null,
            json!(7),
            json!(true),
            json!([]),
            json!({}),
            long.clone(),
        ]
    };
    for (field, what) in [
        ("id", "id"),
        ("eventType", "type"),
        ("eventTime", "time"),
        ("data", ""),
    ] {
        for value in wrong() {
            let mut event = grid(&data());
            event[field] = value;
            let read = read_all(&json!([event, grid(&data())]));
            let [Event::Malformed { what: found }, Event::IncomingCall(_)] = read[..] else {
                panic!("{field}: {read:?}")
            };
            assert!(what.is_empty() || found == what, "{field}: {found}");
        }
    }
    for field in ["correlationId", "incomingCallContext", "to"] {
        for value in wrong() {
            let mut data = data();
            data[field] = value;
            let read = read_all(&grid(&data));
            let [Event::Malformed { what }] = read[..] else {
                panic!("{field}: {read:?}")
            };
            assert_eq!(what, field);
        }
    }
    // Whoever rings is let in without them.
    for field in ["from", "serverCallId", "callerDisplayName", "customContext"] {
        for value in wrong() {
            let mut data = data();
            data[field] = value;
            only_call(&grid(&data));
        }
    }
    let read = read_all(&json!([7, null, "x", [], {}, {"type": "Microsoft.Communication.Other"}]));
    assert!(matches!(
        &read[..],
        [.., Event::Malformed { what: "type" }, Event::Other { kind }]
            if kind == "Microsoft.Communication.Other" && read.len() == 6
    ));
}

#[test]
fn a_body_has_its_bounds() {
    for (body, error) in [
        (String::new(), BodyError::NoJson),
        ("[".repeat(100_000), BodyError::NoJson),
        ("7".to_owned(), BodyError::NoEvents),
        ("null".to_owned(), BodyError::NoEvents),
        (" ".repeat((1 << 20) + 1), BodyError::TooLong),
        (format!("[{}7]", "7,".repeat(5_000)), BodyError::TooMany),
    ] {
        assert_eq!(read(body.as_bytes()).unwrap_err(), error);
    }
    let most = format!("[{}7]", "7,".repeat(4_999));
    assert_eq!(read(most.as_bytes()).unwrap().len(), 5_000);
    assert!(read(b"[]").unwrap().is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_events_or_an_error(body in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&body);
    }

    #[test]
    fn any_text_in_any_place_is_one_event(field in 0..13_usize, text in any::<String>()) {
        let places = [
            "/id", "/eventType", "/eventTime", "/data", "/data/to", "/data/from",
            "/data/to/phoneNumber", "/data/to/phoneNumber/value", "/data/to/rawId",
            "/data/correlationId", "/data/incomingCallContext", "/data/serverCallId",
            "/data/callerDisplayName",
        ];
        let mut event = grid(&data());
        *event.pointer_mut(places[field]).unwrap() = json!(text);
        prop_assert_eq!(read_all(&event).len(), 1);
        prop_assert!(handshake(Some(&text)).is_none());
    }
}
