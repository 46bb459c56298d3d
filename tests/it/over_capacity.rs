//! Who is refused hears something good: leaves a message, or is written to.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use callgate::What;
use futures_util::future::join_all;
use serde_json::json;

use crate::{
    carrier::{ACCOUNT, CALLER, Fields, PUBLIC_URL, Reply, TOKEN, call_sid, ringing, sign},
    gateway::{BUSY, TestGateway, drained, eventually},
    rest::{Act, RestServer},
    twiml::Element,
};

const WRITES: &str = "המערכת עמוסה כרגע. מיד נשלח לכם הודעה בוואטסאפ";
const TEMPLATE: &str = "HX00000000000000000000000000000001";
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
    let [
        What::Refused,
        What::Offered(_),
        What::LeftMessage(recording),
    ] = steps.as_slice()
    else {
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

#[tokio::test]
async fn a_refused_caller_is_written_to_once() {
    let rest = RestServer::start(&[]).await;
    let settings = [
        ("WORKERS", "2"),
        ("WHATSAPP_FROM", "+972721234567"),
        (
            "WHATSAPP_TEMPLATE_VARIABLES",
            r#"{"1":"Dana's \"bakery\" & co","2":"{campaign}"}"#,
        ),
    ];
    let gateway = writing(&rest, &settings).await;
    let first = gateway.ring().await;
    let sid = call_sid();
    let calls = join_all((0..20).map(|_| gateway.ring_as(&sid))).await;
    for call in &calls {
        assert!(call.answer.last_words().starts_with(WRITES), "{}", call.sid);
    }
    let request = rest.requests(1).await.remove(0);
    assert_eq!(
        request.line,
        format!("POST /2010-04-01/Accounts/{ACCOUNT}/Messages.json HTTP/1.1")
    );
    let credentials = STANDARD.encode(format!("{ACCOUNT}:{TOKEN}"));
    assert_eq!(request.authorization, format!("Basic {credentials}"));
    let field = |name: &str| request.field(name).unwrap().to_owned();
    assert_eq!(field("To"), format!("whatsapp:{CALLER}"));
    assert_eq!(field("From"), "whatsapp:+972721234567");
    assert_eq!(field("ContentSid"), TEMPLATE);
    let variables: serde_json::Value = serde_json::from_str(&field("ContentVariables")).unwrap();
    assert_eq!(
        variables,
        json!({"1": "Dana's \"bakery\" & co", "2": "default"})
    );
    let status_url = format!("{PUBLIC_URL}/webhook/message_status/{sid}");
    assert_eq!(field("StatusCallback"), status_url);
    assert_eq!(request.fields.len(), 5);

    // The same caller again, within a day: the plain text, which asks to write to us.
    assert_eq!(gateway.ring().await.answer.last_words(), BUSY);
    became(&gateway, "sent", 1).await;
    became(&gateway, "written_to", 1).await;
    assert!(
        gateway
            .ring_as(&sid)
            .await
            .answer
            .last_words()
            .starts_with(WRITES)
    );
    assert_eq!(rest.count(), 1);
    gateway.status(&first.sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_messaging_service_and_a_key_send_as_well() {
    const KEY: &str = "SK00000000000000000000000000000001";
    const SERVICE: &str = "MG00000000000000000000000000000001";
    let rest = RestServer::start(&[]).await;
    let settings = [
        ("TWILIO_API_KEY_SID", KEY),
        ("TWILIO_API_KEY_SECRET", "the-keys-secret"),
        ("WHATSAPP_MESSAGING_SERVICE_SID", SERVICE),
        ("DEFAULT_LANGUAGE", "en-US"),
    ];
    let gateway = writing(&rest, &settings).await;
    let first = gateway.ring().await;
    let refused = gateway.ring().await;
    let words = "The system is currently busy. We will write to you on WhatsApp";
    assert!(refused.answer.last_words().starts_with(words));
    let request = rest.requests(1).await.remove(0);
    let credentials = STANDARD.encode(format!("{KEY}:the-keys-secret"));
    assert_eq!(request.authorization, format!("Basic {credentials}"));
    assert!(request.line.contains(ACCOUNT));
    assert_eq!(request.field("MessagingServiceSid"), Some(SERVICE));
    assert_eq!(request.field("From"), None);
    assert_eq!(request.field("ContentVariables"), None);
    gateway.status(&first.sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn who_cannot_be_written_to_hears_the_plain_text() {
    let rest = RestServer::start(&[]).await;
    let gateway = writing(&rest, &[("WHATSAPP_FROM", "+972721234567")]).await;
    let first = gateway.ring().await;
    let callers = [
        "anonymous",
        "",
        "client:dana",
        "sip:+972501234567@example.com",
        "0501234567",
    ];
    for caller in callers {
        let refused = ring_from(&gateway, caller).await;
        assert_eq!(refused.last_words(), BUSY, "{caller}");
    }
    became(&gateway, "no_number", callers.len() as u64).await;
    assert_eq!(rest.count(), 0);
    gateway.status(&first.sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn what_went_wrong_is_counted_and_only_what_was_not_done_is_done_again() {
    const REFUSED: &str = r#"{"code":63016,"message":"no template","status":400}"#;
    const BUSY_THERE: &str = r#"{"code":20429,"message":"too many","status":429}"#;
    for (acts, result, requests) in [
        (vec![Act::Answer(400, "", REFUSED)], "refused", 1),
        (
            vec![Act::Answer(401, "", r#"{"code":20003}"#)],
            "unauthorized",
            1,
        ),
        (
            vec![Act::Answer(429, "Retry-After: 0\r\n", BUSY_THERE)],
            "sent",
            2,
        ),
        (
            vec![Act::Answer(429, "Retry-After: 0\r\n", BUSY_THERE); 2],
            "throttled",
            2,
        ),
        (
            vec![Act::Answer(429, "Retry-After: 60\r\n", BUSY_THERE)],
            "throttled",
            1,
        ),
        (
            vec![Act::Answer(500, "", "<html>not JSON</html>")],
            "failed",
            1,
        ),
        (
            vec![Act::Answer(307, "Location: /elsewhere\r\n", "")],
            "failed",
            1,
        ),
        (vec![Act::Cut], "broken_off", 1),
    ] {
        let rest = RestServer::start(&acts).await;
        let gateway = writing(&rest, &[("WHATSAPP_FROM", "+972721234567")]).await;
        let first = gateway.ring().await;
        let refused = gateway.ring().await;
        assert!(refused.answer.last_words().starts_with(WRITES));
        became(&gateway, result, 1).await;
        assert_eq!(rest.count(), requests, "{acts:?}");
        gateway.status(&first.sid, "completed").await;
        gateway.finish().await;
    }
}

#[tokio::test]
async fn what_becomes_of_a_message_later_is_counted_once() {
    let rest = RestServer::start(&[]).await;
    let gateway = writing(&rest, &[("WHATSAPP_FROM", "+972721234567")]).await;
    let call = format!("/webhook/message_status/{}", call_sid());
    for (message, status, delivered, undelivered) in [
        (1, "queued", 0, 0),
        (1, "sent", 0, 0),
        (1, "delivered", 1, 0),
        (1, "delivered", 1, 0),
        (1, "read", 1, 0),
        (2, "undelivered", 1, 1),
        (2, "failed", 1, 1),
        (3, "failed", 1, 2),
    ] {
        let sid = format!("SM{message:032}");
        let fields = [("MessageSid", sid.as_str()), ("MessageStatus", status)];
        let reply = word(&gateway, &call, &fields).await;
        assert_eq!(reply.status, 204);
        became(&gateway, "delivered", delivered).await;
        became(&gateway, "undelivered", undelivered).await;
    }
    for (bad, says) in [
        (("MessageSid", "SM1"), "MessageSid"),
        (
            ("MessageSid", "SM00000000000000000000000000000001"),
            "MessageStatus",
        ),
    ] {
        let reply = word(&gateway, &call, &[bad]).await;
        assert_eq!(reply.status, 400);
        assert!(reply.body.contains(says), "{}", reply.body);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn any_replica_notes_what_became_of_a_message_and_it_is_one_event() {
    let rest = RestServer::start(&[]).await;
    let from = ("WHATSAPP_FROM", "+972721234567");
    let sender = writing(&rest, &[from]).await;
    let records = sender.database.url().to_owned();
    let other = writing(&rest, &[from, ("DATABASE_URL", &records)]).await;
    let first = sender.ring().await;
    let refused = sender.ring().await;
    let request = rest.requests(1).await.remove(0);
    let url = request.field("StatusCallback").unwrap();
    let path = url.strip_prefix(PUBLIC_URL).unwrap();
    became(&sender, "sent", 1).await;
    for (replica, status) in [(&other, "delivered"), (&sender, "read")] {
        let sid = "SM00000000000000000000000000000001";
        let fields = [("MessageSid", sid), ("MessageStatus", status)];
        assert_eq!(word(replica, path, &fields).await.status, 204);
        let noted = |step: &What| {
            if let What::Invited { message, result } = step
                && *result == "delivered"
            {
                message.clone()
            } else {
                None
            }
        };
        let message = replica.until_steps(&refused.sid, noted).await;
        assert_eq!(message.as_str(), sid);
    }
    let steps = "SELECT COUNT(*) FROM steps WHERE what = 'invited'";
    eventually(async || sender.database.ask(steps).await == ["3"]).await;
    let calls = "SELECT COUNT(*) FROM calls WHERE state = 'rejected_capacity'";
    assert_eq!(sender.database.ask(calls).await, ["1"]);
    let events = "SELECT COUNT(*) FROM events WHERE kind = 'whatsapp.status'";
    // That it was sent, and that it was delivered.
    assert_eq!(sender.database.ask(events).await, ["2"]);
    let astray = format!("{path}*");
    let fields = [
        ("MessageSid", "SM00000000000000000000000000000002"),
        ("MessageStatus", "delivered"),
    ];
    assert_eq!(word(&other, &astray, &fields).await.status, 400);
    sender.status(&first.sid, "completed").await;
    other.finish().await;
    sender.finish().await;
}

#[tokio::test]
async fn who_was_not_reached_for_a_passing_reason_may_be_written_to_at_the_next_call() {
    const BUSY_THERE: Act = Act::Answer(429, "Retry-After: 60\r\n", "{}");
    let rest = RestServer::start(&[BUSY_THERE]).await;
    let gateway = writing(&rest, &[("WHATSAPP_FROM", "+972721234567")]).await;
    let first = gateway.ring().await;
    gateway.ring().await;
    became(&gateway, "throttled", 1).await;
    let again = gateway.ring().await;
    assert!(again.answer.last_words().starts_with(WRITES));
    became(&gateway, "sent", 1).await;
    gateway.status(&first.sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn no_caller_waits_for_a_carrier_that_hangs_and_no_more_than_a_few_hundred_messages_do() {
    const MOST_AT_ONCE: usize = 16;
    const MOST: usize = MOST_AT_ONCE + 256;
    let rest = RestServer::start(&[]).await;
    rest.then(&Act::Hold, MOST);
    let settings = [("WHATSAPP_FROM", "+972721234567"), ("DRAIN_SECONDS", "1")];
    let mut gateway = writing(&rest, &settings).await;
    let first = gateway.ring().await;
    // All of them before the first one is given up.
    let callers: Vec<_> = (0..MOST)
        .map(|number| format!("+9725{number:08}"))
        .collect();
    for some in callers.chunks(MOST_AT_ONCE) {
        let rings = some.iter().map(|caller| ring_from(&gateway, caller));
        for answer in join_all(rings).await {
            assert!(answer.last_words().starts_with(WRITES));
        }
    }
    let one_too_many = ring_from(&gateway, "+972599999999").await;
    assert_eq!(one_too_many.last_words(), BUSY);
    became(&gateway, "dropped", 1).await;
    rest.requests(MOST_AT_ONCE).await;
    assert_eq!(rest.count(), MOST_AT_ONCE);
    gateway.status(&first.sid, "completed").await;
    // Draining does not wait for them longer than for anything else.
    drained(gateway.drain(std::future::pending())).await;
    gateway.is_gone().await;
    gateway.parrot.take().unwrap().stop().await;
}

#[tokio::test]
async fn draining_waits_for_a_message_that_is_being_sent() {
    let rest = RestServer::start(&[Act::Hold]).await;
    let mut gateway = writing(&rest, &[("WHATSAPP_FROM", "+972721234567")]).await;
    let first = gateway.ring().await;
    let refused = gateway.ring().await;
    assert!(refused.answer.last_words().starts_with(WRITES));
    gateway.status(&first.sid, "completed").await;
    rest.requests(1).await;
    let told = async {
        eventually(async || {
            let ready = gateway.carrier.get("/health/ready");
            Reply::to(ready).await.status == 503
        })
        .await;
        became(&gateway, "sent", 0).await;
        // Nobody else is written to: a message left on it would find nobody here any more.
        assert_eq!(
            ring_from(&gateway, "+972507654321").await.last_words(),
            BUSY
        );
        rest.let_go();
    };
    drained(async { tokio::join!(gateway.drain(std::future::pending()), told) }).await;
    assert_eq!(rest.count(), 1);
    drop((first, refused));
    gateway.is_gone().await;
    gateway.parrot.take().unwrap().stop().await;
}

/// Starts a gateway with one slot that writes to refused callers by way of `rest`.
async fn writing(rest: &RestServer, settings: &[(&str, &str)]) -> TestGateway {
    let common = [
        ("MAX_ACTIVE_CALLS", "1"),
        ("CALLS_OVER_CAPACITY_BEHAVIOR", "whatsapp"),
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_API_BASE", &rest.url),
        ("WHATSAPP_TEMPLATE_SID", TEMPLATE),
    ];
    let all: Vec<_> = settings.iter().chain(&common).copied().collect();
    TestGateway::with(&all).await
}

async fn ring_from(gateway: &TestGateway, caller: &str) -> Element {
    let sid = call_sid();
    let fields = with(&ringing(&sid), "From", caller);
    let reply = gateway.carrier.webhook("/webhook/incoming_call", &fields);
    reply.await.twiml()
}

/// Waits until so many messages have become of `result`.
async fn became(gateway: &TestGateway, result: &str, count: u64) {
    let name = format!("whatsapp_messages_total{{result=\"{result}\"}}");
    eventually(async || gateway.figure(&name).await == count).await;
}

/// Reports by its status URL's path what became of a message.
async fn word(gateway: &TestGateway, path: &str, fields: &[(&str, &str)]) -> Reply {
    let fields = [&[("AccountSid", ACCOUNT), ("ErrorCode", "63016")], fields].concat();
    gateway.carrier.webhook(path, &fields).await
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
