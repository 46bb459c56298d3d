use proptest::prelude::*;
use serde_json::json;

use super::*;

fn event(kind: &str, data: &Value) -> Value {
    json!({
        "id": "6f1d0f3e-2a8f", "source": "calling/callConnections/1b005580-1f2e",
        "type": format!("Microsoft.Communication.{kind}"), "specversion": "1.0", "data": data,
    })
}

fn data() -> Value {
    json!({
        "callConnectionId": "1b005580-1f2e", "correlationId": "0b1c2d3e-1111",
        "serverCallId": "aHR0cHM6", "operationContext": "incomingCall",
        "resultInformation": {"code": 200, "subCode": 0, "message": ""},
    })
}

fn read_all(body: &Value) -> Callbacks {
    read(body.to_string().as_bytes()).unwrap()
}

fn only(body: &Value) -> Callback {
    let mut read = read_all(body);
    assert_eq!(
        (read.callbacks.len(), read.malformed.len()),
        (1, 0),
        "{body}"
    );
    read.callbacks.remove(0)
}

#[test]
fn a_connected_call_is_told_apart_from_the_rest() {
    let connected = event("CallConnected", &data());
    for body in [connected.clone(), json!([connected])] {
        let callback = only(&body);
        assert_eq!(callback.id, "6f1d0f3e-2a8f");
        assert_eq!(callback.kind, Kind::Connected);
        assert_eq!(callback.connection.unwrap().to_string(), "1b005580-1f2e");
        assert_eq!(callback.call.unwrap().as_str(), "0b1c2d3e-1111");
        assert_eq!(callback.operation_context.as_deref(), Some("incomingCall"));
        assert_eq!(
            (callback.outcome.code, callback.outcome.subcode),
            (Some(200), Some(0))
        );
    }
}

#[test]
fn every_kind_is_known_however_it_is_spelt() {
    for (name, kind) in [
        ("CallConnected", Kind::Connected),
        ("CallDisconnected", Kind::Disconnected),
        ("AnswerFailed", Kind::AnswerFailed),
        ("CreateCallFailed", Kind::CreateCallFailed),
        (
            "MediaStreamingStarted",
            Kind::MediaStreamingStarted(StreamDetail::Unspecified),
        ),
        (
            "MediaStreamingStopped",
            Kind::MediaStreamingStopped(StreamDetail::Unspecified),
        ),
        (
            "MediaStreamingFailed",
            Kind::MediaStreamingFailed(StreamDetail::Unspecified),
        ),
        ("PlayStarted", Kind::PlayStarted),
        ("PlayCompleted", Kind::PlayCompleted),
        ("PlayFailed", Kind::PlayFailed),
        ("PlayCanceled", Kind::PlayCanceled),
        ("CallTransferAccepted", Kind::TransferAccepted),
        ("CallTransferFailed", Kind::TransferFailed),
        ("RecordingStateChanged", Kind::RecordingStateChanged),
    ] {
        assert_eq!(only(&event(name, &data())).kind, kind);
        assert_eq!(only(&event(&name.to_uppercase(), &data())).kind, kind);
    }
    let other = only(&event("ParticipantsUpdated", &data())).kind;
    assert_eq!(other, Kind::Other("ParticipantsUpdated".to_owned()));
    for (name, tone) in [("pound", '#'), ("Five", '5'), ("a", 'A')] {
        let event = event(
            "ContinuousDtmfRecognitionToneReceived",
            &json!({"tone": name}),
        );
        assert_eq!(only(&event).kind, Kind::DtmfTone(tone));
    }
    let unknown = event(
        "ContinuousDtmfRecognitionToneReceived",
        &json!({"tone": "flash"}),
    );
    assert_eq!(read_all(&unknown).malformed, ["tone"]);
}

#[test]
fn a_socket_that_fails_says_why_and_shows_nothing() {
    for (name, detail) in StreamDetail::ALL {
        let mut data = data();
        data["mediaStreamingUpdate"] = json!({"mediaStreamingStatusDetails": name.to_uppercase()});
        data["resultInformation"] = json!({
            "code": 400, "subCode": 8581, "message": "url wss://gw.example.com/acs/ws/canary is bad",
        });
        let callback = only(&event("MediaStreamingFailed", &data));
        assert_eq!(callback.kind, Kind::MediaStreamingFailed(detail));
        assert_eq!(detail.as_str(), name);
        assert_eq!(callback.outcome.subcode, Some(8581));
        assert_eq!(callback.outcome.message, "url … is bad");
    }
}

#[test]
fn what_is_missing_or_wrong_is_named_or_left_out() {
    let long = json!("x".repeat(100_000));
    for (field, what) in [("id", "id"), ("type", "type"), ("data", "data")] {
        for value in [Value::Null, json!(7), json!([]), long.clone()] {
            let mut event = event("CallConnected", &data());
            event[field] = value;
            let good = self::event("CallDisconnected", &data());
            let read = read_all(&json!([event, good]));
            assert_eq!(read.malformed, [what], "{field}");
            assert_eq!(read.callbacks[0].kind, Kind::Disconnected);
        }
    }
    for field in [
        "callConnectionId",
        "correlationId",
        "operationContext",
        "resultInformation",
        "serverCallId",
    ] {
        for value in [Value::Null, json!(-7.5), json!({"code": "x"}), long.clone()] {
            let mut data = data();
            data[field] = value;
            assert_eq!(only(&event("CallConnected", &data)).kind, Kind::Connected);
        }
    }
    let mut strange = data();
    strange["callConnectionId"] = json!("../../participants");
    strange["resultInformation"] = json!({"code": 70_000, "subCode": -1, "message": [1]});
    let callback = only(&event("CallConnected", &strange));
    assert_eq!(callback.connection, None);
    assert_eq!(callback.outcome, Outcome::default());
}

proptest! {
    #[test]
    fn any_bytes_are_events_or_an_error(body in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = read(&body);
    }

    #[test]
    fn any_text_in_any_place_is_read(field in 0..9_usize, text in any::<String>()) {
        let mut data = data();
        let fields = [
            "callConnectionId", "correlationId", "operationContext", "resultInformation",
            "mediaStreamingUpdate", "tone",
        ];
        if let Some(name) = fields.get(field) {
            data[*name] = json!(text);
        }
        let mut event = event("ContinuousDtmfRecognitionToneReceived", &data);
        if let Some(name) = ["id", "type", "data"].get(field.wrapping_sub(fields.len())) {
            event[*name] = json!(text);
        }
        let read = read(event.to_string().as_bytes()).unwrap();
        prop_assert_eq!(read.callbacks.len() + read.malformed.len(), 1);
    }
}
