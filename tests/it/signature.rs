//! Only what the carrier has signed is acted on.

use std::future::pending;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    carrier::{PUBLIC_URL, Reply, TOKEN, call_sid, form, ringing, sign, sign_with_shared_key},
    gateway::{TestGateway, drained},
};

const ROUTES: [&str; 3] = [
    "/webhook/incoming_call",
    "/webhook/call_status",
    "/webhook/stream_ended",
];
const MEDIA_URL: &str = "wss://voice.example.com/twilio/media";
const OTHER_TOKEN: &str = "fedcba9876543210fedcba9876543210";

#[tokio::test]
async fn a_request_without_a_valid_signature_gets_403_and_changes_nothing() {
    let gateway = TestGateway::start().await;
    let live = gateway.ring().await.connected().await;
    for route in ROUTES {
        // Were one of these believed, the live call would end or another one would begin.
        for sid in [call_sid(), live.sid.clone()] {
            let mut fields = ringing(&sid);
            fields.retain(|(name, _)| *name != "CallStatus");
            fields.push(("CallStatus", "completed"));
            let url = format!("{PUBLIC_URL}{route}");
            let mut others = fields.clone();
            others[2].1 = "+972501234568";
            let good = sign(TOKEN, &url, &fields);
            let signatures = [
                None,
                Some(String::new()),
                Some("not base64".to_owned()),
                Some(good[..26].to_owned()),
                Some(format!("{good}{good}")),
                Some(sign(OTHER_TOKEN, &url, &fields)),
                Some(sign("", &url, &fields)),
                Some(sign(TOKEN, &url, &others)),
                Some(sign(TOKEN, &url, &fields[1..])),
                Some(sign(TOKEN, &url, &[])),
                Some(sign(TOKEN, &format!("{url}/"), &fields)),
                Some(sign(
                    TOKEN,
                    &format!("http://voice.example.com{route}"),
                    &fields,
                )),
                Some(sign(
                    TOKEN,
                    &format!("https://other.example.com{route}"),
                    &fields,
                )),
                Some(sign(TOKEN, &format!("{PUBLIC_URL}/webhook/other"), &fields)),
            ];
            for signature in signatures {
                let mut request = gateway.carrier.post(route).form(&fields);
                if let Some(signature) = &signature {
                    request = request.header("X-Twilio-Signature", signature);
                }
                let reply = Reply::to(request).await;
                assert_eq!(reply.status, 403, "{route} with {signature:?}");
            }
        }
    }
    assert_eq!(gateway.active_calls().await, 1);
    assert_eq!(gateway.parrot.as_ref().unwrap().sessions(), 1);
    assert_eq!(gateway.figure("calls_started_total").await, 1);
    for event in ["incoming_call", "call_status", "stream_ended"] {
        let signed = format!("webhooks_events_total{{event=\"{event}\"}}");
        let expected = u64::from(event == "incoming_call");
        assert_eq!(gateway.figure(&signed).await, expected, "{event}");
    }
    assert!(live.line.is_open());
    live.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn no_header_makes_a_bad_signature_valid() {
    let gateway = TestGateway::start().await;
    let sid = call_sid();
    let fields = ringing(&sid);
    let path = "/webhook/incoming_call";
    for (scheme, host) in [
        ("https", "evil.example.com"),
        ("http", "evil.example.com"),
        ("https", "voice.example.com:444"),
    ] {
        let signature = sign(TOKEN, &format!("{scheme}://{host}{path}"), &fields);
        let request = gateway.carrier.post(path).form(&fields);
        let request = request
            .header("Host", host)
            .header("X-Forwarded-Host", host)
            .header("X-Forwarded-Proto", scheme)
            .header("Forwarded", format!("host={host};proto={scheme}"))
            .header("X-Original-URL", format!("{scheme}://{host}{path}"))
            .header("X-Twilio-Signature", signature);
        assert_eq!(Reply::to(request).await.status, 403, "{scheme} {host}");
    }
    // And none makes a good one invalid.
    let signature = sign(TOKEN, &format!("{PUBLIC_URL}{path}"), &fields);
    let request = gateway.carrier.post(path).form(&fields);
    let request = request
        .header("Host", "evil.example.com")
        .header("X-Forwarded-Proto", "http")
        .header("X-Twilio-Signature", signature);
    Reply::to(request).await.twiml().child("Connect");
    gateway.status(&sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn while_tokens_are_rotated_both_are_good_and_no_third_is() {
    let both = format!("{TOKEN},{OTHER_TOKEN}");
    let mut gateway = TestGateway::with(&[("TWILIO_AUTH_TOKEN", &both)]).await;
    gateway.ring().await.connected().await.hang_up().await;
    gateway.carrier.token = OTHER_TOKEN;
    gateway.ring().await.connected().await.hang_up().await;
    gateway.carrier.token = "00000000000000000000000000000000";
    let fields = ringing("CA1");
    let reply = gateway.carrier.webhook("/webhook/incoming_call", &fields);
    assert_eq!(reply.await.status, 403);
    gateway.finish().await;
}

#[tokio::test]
async fn the_query_of_a_webhook_is_signed_as_it_was_sent() {
    let gateway = TestGateway::start().await;
    let sid = call_sid();
    let path = "/webhook/incoming_call?tenant=acme&note=a%20b";
    let reply = gateway.carrier.webhook(path, &ringing(&sid)).await;
    reply.twiml().child("Connect");
    gateway.status(&sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn forms_have_bounds_even_when_they_are_signed() {
    let gateway = TestGateway::start().await;
    let sid = call_sid();
    let long = "x".repeat(64 << 10);
    let names: Vec<String> = (0..300).map(|number| format!("Extra{number}")).collect();
    let mut too_long = ringing(&sid);
    too_long.push(("Extra", &long));
    let mut too_many = ringing(&sid);
    too_many.extend(names.iter().map(|name| (name.as_str(), "")));
    let without = |missing: &str| {
        let mut fields = ringing(&sid);
        fields.retain(|(name, _)| *name != missing);
        fields
    };
    let with = |name: &'static str, value: &'static str| {
        let mut fields = without(name);
        fields.push((name, value));
        fields
    };
    for (what, fields, status) in [
        ("a long body", too_long, 413),
        ("many fields", too_many, 400),
        ("no CallSid", without("CallSid"), 400),
        ("an empty CallSid", with("CallSid", ""), 400),
        ("a strange CallSid", with("CallSid", "CA*\r\n:1"), 400),
        ("no To", without("To"), 400),
    ] {
        let reply = gateway.carrier.webhook("/webhook/incoming_call", &fields);
        let reply = reply.await;
        assert_eq!(reply.status, status, "{what}");
        assert!(!reply.body.is_empty(), "{what} is named");
        assert!(reply.body.len() < 200, "{what}");
    }
    let no_status = without("CallStatus");
    let reply = gateway.carrier.webhook("/webhook/call_status", &no_status);
    assert_eq!(reply.await.status, 400);
    assert_eq!(gateway.active_calls().await, 0);
    assert_eq!(gateway.parrot.as_ref().unwrap().sessions(), 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_form_at_its_bounds_is_read() {
    let gateway = TestGateway::start().await;
    let sid = call_sid();
    let names: Vec<String> = (0..246).map(|number| format!("Extra{number}")).collect();
    let mut fields = ringing(&sid);
    fields.extend(names.iter().map(|name| (name.as_str(), "")));
    let left = (64 << 10) - form(&fields).len() - "&Long=".len();
    let long = "x".repeat(left);
    fields.push(("Long", &long));
    assert_eq!((fields.len(), form(&fields).len()), (256, 64 << 10));
    let reply = gateway.carrier.webhook("/webhook/incoming_call", &fields);
    reply.await.twiml().child("Connect");
    gateway.status(&sid, "completed").await;
    gateway.finish().await;
}

#[tokio::test]
async fn an_upgrade_is_signed_over_the_streams_public_url() {
    let gateway = TestGateway::start().await;
    let good = sign(TOKEN, MEDIA_URL, &[]);
    for signature in [
        None,
        Some(sign(OTHER_TOKEN, MEDIA_URL, &[])),
        Some(sign(TOKEN, "https://voice.example.com/twilio/media", &[])),
        Some(sign(TOKEN, "wss://evil.example.com/twilio/media", &[])),
        Some(sign(
            TOKEN,
            &format!("wss://{}/twilio/media", gateway.carrier.address),
            &[],
        )),
    ] {
        let upgraded = gateway.carrier.upgrade(MEDIA_URL, signature.as_deref());
        assert_eq!(upgraded.await.err(), Some(403), "{signature:?}");
    }
    let elsewhere = gateway
        .carrier
        .upgrade("wss://evil.example.com/twilio/media", Some(&good));
    assert!(elsewhere.await.is_ok(), "the Host header does not matter");
    for url in [
        MEDIA_URL.to_owned(),
        format!("{MEDIA_URL}/"),
        "wss://voice.example.com:443/twilio/media".to_owned(),
    ] {
        let signature = sign(TOKEN, &url, &[]);
        let upgraded = gateway.carrier.upgrade(MEDIA_URL, Some(&signature));
        assert!(upgraded.await.is_ok(), "Twilio may sign {url}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_carrier_without_a_token_is_closed() {
    let gateway = TestGateway::with(&[("TWILIO_AUTH_TOKEN", "")]).await;
    for route in ROUTES {
        let reply = gateway.carrier.webhook(route, &ringing("CA1")).await;
        assert_eq!(reply.status, 403, "{route}");
    }
    assert_eq!(gateway.carrier.open(MEDIA_URL).await.err(), Some(403));
    assert_eq!(gateway.detail("twilio").await, "closed");
    gateway.finish().await;
}

#[tokio::test]
async fn another_account_is_not_served() {
    let ours = "AC00000000000000000000000000000002";
    let gateway = TestGateway::with(&[("TWILIO_ACCOUNT_SID", ours)]).await;
    let fields = ringing("CA1");
    let reply = gateway.carrier.webhook("/webhook/incoming_call", &fields);
    assert_eq!(reply.await.status, 403);
    assert_eq!(gateway.active_calls().await, 0);
    gateway.finish().await;
}

#[tokio::test]
async fn a_webhook_key_is_good_in_place_of_the_auth_token() {
    let keys = "webhooks_sharedkey_1=a-secret-of-ours,webhooks_sharedkey_2=another";
    let settings = [("TWILIO_AUTH_TOKEN", ""), ("TWILIO_SHARED_KEYS", keys)];
    let gateway = TestGateway::with(&settings).await;
    let path = "/webhook/incoming_call";
    let url = format!("{PUBLIC_URL}{path}");
    let sid = call_sid();
    let fields = ringing(&sid);
    let good = sign_with_shared_key("a-secret-of-ours", &url, &fields);
    let by_token = sign("a-secret-of-ours", &url, &fields);
    for (named, signature, status) in [
        ("key=webhooks_sharedkey_1,algorithm=HMAC_SHA256", &good, 200),
        ("key=webhooks_sharedkey_2,algorithm=HMAC_SHA256", &good, 403),
        ("key=webhooks_sharedkey_3,algorithm=HMAC_SHA256", &good, 403),
        ("key=webhooks_sharedkey_1,algorithm=none", &good, 403),
        ("key=webhooks_sharedkey_1,algorithm=HMAC_MD5", &good, 403),
        ("key=webhooks_sharedkey_1", &by_token, 403),
        ("", &by_token, 403),
    ] {
        let request = gateway.carrier.post(path).form(&fields);
        let request = request
            .header("X-Twilio-Signature", signature)
            .header("X-Twilio-Webhooks-Signature-Settings", named);
        assert_eq!(Reply::to(request).await.status, status, "{named}");
    }
    // What this carrier cannot sign, it cannot end either: the slot would lapse by itself.
    assert_eq!(gateway.active_calls().await, 1);
    gateway.drain(pending()).await;
    gateway.is_gone().await;
}

#[tokio::test]
async fn a_body_is_not_waited_for_without_a_signature() {
    let gateway = TestGateway::start().await;
    let reply = begun(&gateway, "").await;
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    gateway.finish().await;
}

#[tokio::test]
async fn slow_a_form_that_does_not_arrive_is_not_waited_for_long() {
    let gateway = TestGateway::start().await;
    let reply = begun(&gateway, "X-Twilio-Signature: of-something\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
    assert_eq!(gateway.active_calls().await, 0);
    gateway.finish().await;
}

/// Begins to send a form, and returns how the reply to that begins.
async fn begun(gateway: &TestGateway, signature: &str) -> String {
    let mut tcp = TcpStream::connect(gateway.carrier.address).await.unwrap();
    let head = format!(
        "POST /webhook/incoming_call HTTP/1.1\r\nHost: voice.example.com\r\n{signature}\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\nCallSid=CA1"
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut reply = [0; 64];
    let length = drained(tcp.read(&mut reply)).await.unwrap();
    String::from_utf8_lossy(&reply[..length]).into_owned()
}
