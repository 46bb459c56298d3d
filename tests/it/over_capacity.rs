//! Who is refused hears something good, and may leave a message.

use std::time::Duration;

use callgate::What;

use crate::{
    carrier::{ACCOUNT, Fields, PUBLIC_URL, Reply, call_sid, ringing, sign},
    gateway::TestGateway,
    twiml::Element,
};

const RECORDING: &str = "RE00000000000000000000000000000001";
const RECORDING_URL: &str = "https://api.twilio.com/2010-04-01/Accounts/AC00000000000000000000000000000001/Recordings/RE00000000000000000000000000000001";
const RECEIVED: &str = "voicemails_received_total";

#[tokio::test]
async fn a_refused_caller_leaves_a_message_and_is_thanked() {
    let settings = [
        ("MAX_ACTIVE_CALLS", "1"),
        ("CALLS_OVER_CAPACITY_BEHAVIOR", "voicemail"),
        ("VOICEMAIL_MAX_SECONDS", "90"),
    ];
    let gateway = TestGateway::with(&settings).await;
    let first = gateway.ring().await;
    let refused = gateway.ring().await;
    assert_eq!(refused.answer.verbs(), ["Say", "Record", "Say", "Hangup"]);
    assert_eq!(refused.answer.child("Say").attribute("language"), "he-IL");
    let record = refused.answer.child("Record");
    for (name, value) in [
        ("action", "https://voice.example.com/webhook/voicemail"),
        ("method", "POST"),
        ("maxLength", "90"),
        ("timeout", "5"),
        ("finishOnKey", "#"),
        ("playBeep", "true"),
        (
            "recordingStatusCallback",
            "https://voice.example.com/webhook/recording_status",
        ),
        ("recordingStatusCallbackEvent", "completed absent"),
    ] {
        assert_eq!(record.attribute(name), value);
    }
    assert_eq!(gateway.ring_as(&refused.sid).await.answer, refused.answer);
    assert_eq!(gateway.active_calls().await, 1);

    // In any order, and any number of times.
    for _ in 0..2 {
        assert_eq!(tell(&gateway, &recorded(&refused.sid)).await.status, 204);
        let thanks = thank(&gateway, &refused.sid).await;
        assert!(thanks.last_words().starts_with("תודה על ההודעה"));
    }
    assert_eq!(gateway.figure(RECEIVED).await, 1);
    let steps = gateway.steps(&refused.sid);
    let [What::Refused, What::LeftMessage(recording)] = steps.as_slice() else {
        panic!("{steps:?}");
    };
    assert_eq!(recording.id.as_str(), RECORDING);
    assert_eq!(recording.url.as_str(), RECORDING_URL);
    assert_eq!(recording.duration, Duration::from_secs(7));
    gateway.status(&refused.sid, "completed").await;
    gateway.status(&first.sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn only_what_is_signed_and_makes_sense_is_a_message() {
    let gateway = TestGateway::start().await;
    let sid = call_sid();
    let path = "/webhook/recording_status";
    let fields = recorded(&sid);
    let forged = sign("another-token", &format!("{PUBLIC_URL}{path}"), &fields);
    for path in [path, "/webhook/voicemail"] {
        let request = gateway.carrier.post(path).form(&fields);
        assert_eq!(Reply::to(request).await.status, 403, "{path} unsigned");
        let request = gateway.carrier.post(path).form(&fields);
        let request = request.header("X-Twilio-Signature", &forged);
        assert_eq!(Reply::to(request).await.status, 403, "{path} forged");
    }
    for (field, value) in [
        ("CallSid", "CA*"),
        ("RecordingSid", "RE1"),
        ("RecordingUrl", "ftp://api.twilio.com/"),
        ("RecordingDuration", "long"),
        ("RecordingStatus", ""),
    ] {
        let reply = tell(&gateway, &with(&fields, field, value)).await;
        assert_eq!(reply.status, 400);
        let says = format!("the field {field} is missing or malformed");
        assert_eq!(reply.body, says);
    }
    for status in ["failed", "absent", "in-progress"] {
        let reply = tell(&gateway, &with(&fields, "RecordingStatus", status)).await;
        assert_eq!(reply.status, 204, "{status}");
    }
    assert_eq!(gateway.figure(RECEIVED).await, 0);
    assert_eq!(tell(&gateway, &fields).await.status, 204);
    assert_eq!(gateway.figure(RECEIVED).await, 1);
    gateway.finish().await;
}

/// Reports what became of a recording.
async fn tell(gateway: &TestGateway, fields: &[(&str, &str)]) -> Reply {
    let path = "/webhook/recording_status";
    gateway.carrier.webhook(path, fields).await
}

/// Asks how the call goes on after the message.
async fn thank(gateway: &TestGateway, sid: &str) -> Element {
    let mut fields = with(&ringing(sid), "CallStatus", "in-progress");
    fields.extend([
        ("RecordingUrl", RECORDING_URL),
        ("RecordingSid", RECORDING),
        ("RecordingDuration", "7"),
        ("Digits", "#"),
    ]);
    let reply = gateway.carrier.webhook("/webhook/voicemail", &fields);
    reply.await.twiml()
}

fn recorded(sid: &str) -> Fields<'_> {
    vec![
        ("AccountSid", ACCOUNT),
        ("CallSid", sid),
        ("RecordingSid", RECORDING),
        ("RecordingUrl", RECORDING_URL),
        ("RecordingStatus", "completed"),
        ("RecordingDuration", "7"),
        ("RecordingChannels", "1"),
        ("RecordingSource", "RecordVerb"),
    ]
}

/// Returns the fields with one of them changed.
fn with<'a>(fields: &Fields<'a>, changed: &str, to: &'a str) -> Fields<'a> {
    let change =
        |&(name, value): &(&'a str, &'a str)| (name, if name == changed { to } else { value });
    fields.iter().map(change).collect()
}
