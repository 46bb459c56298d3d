//! Our verdicts on signatures, for Twilio's own validator to judge.

use serde_json::json;

use super::*;
use crate::official::record;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER_TOKEN: &str = "fedcba9876543210fedcba9876543210";
const VOICE: &str = "https://voice.example.com/twilio/voice?tenant=acme&From=%2B972501234567&b";
const WITH_PORT: &str =
    "https://voice.example.com:443/twilio/voice?tenant=acme&From=%2B972501234567&b";
const EVENTS: &str = "https://voice.example.com/twilio/events?bodySHA256=d1b4a5b25283d431757665ba0daa1b8f8ab7b451b1f2d874bf1d60258b50d159";
const EVENTS_WITH_PORT: &str = "https://voice.example.com:443/twilio/events?bodySHA256=d1b4a5b25283d431757665ba0daa1b8f8ab7b451b1f2d874bf1d60258b50d159";
const EVENT: &str = r#"{"CallSid":"CA00000000000000000000000000000001","Status":"ok"}"#;

/// A request, and how else Twilio may spell its URL.
struct Case {
    url: &'static str,
    other: &'static str,
    form: &'static [(&'static str, &'static str)],
    body: Option<&'static str>,
}

#[test]
fn our_verdicts_are_recorded_for_twilios_own_validator() {
    let form = |url, other, form| Case {
        url,
        other,
        form,
        body: None,
    };
    let event = |body| Case {
        url: EVENTS,
        other: EVENTS_WITH_PORT,
        form: &[],
        body: Some(body),
    };
    let cases = [
        form(VOICE, WITH_PORT, &[]),
        form(
            VOICE,
            WITH_PORT,
            &[("To", "+1"), ("CallerName", ""), ("Body", "שלום & <")],
        ),
        form(
            VOICE,
            WITH_PORT,
            &[("Digits", "2"), ("Digits", "1"), ("Digits", "2")],
        ),
        form(
            "https://voice.example.com:8443/twilio/voice",
            "https://voice.example.com/twilio/voice",
            &[
                ("CallSid", "CA00000000000000000000000000000001"),
                ("Digits", "1234#"),
            ],
        ),
        form(
            "http://127.0.0.1:5050/voice",
            "http://127.0.0.1/voice",
            &[("b", "1"), ("B", "2")],
        ),
        form(
            "wss://voice.example.com/twilio/media",
            "wss://voice.example.com/twilio/media/",
            &[],
        ),
        event(EVENT),
        event("{}"),
    ];
    record("twilio-signatures.jsonl", cases.iter().flat_map(verdicts));
}

/// Returns what we accept and what we refuse, once for each algorithm.
fn verdicts(case: &Case) -> [serde_json::Value; 2] {
    let Case {
        url, form, body, ..
    } = case;
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let fields: Vec<_> = form.iter().map(owned).collect();
    let (token, parsed) = (SecretString::from(TOKEN), Url::parse(url).unwrap());
    let sha1 = (Key::AuthToken(&token), signatures(case, &fields, sign));
    let sha256 = (
        Key::Shared(&token),
        signatures(case, &fields, sign_with_sha256),
    );
    [("HMAC_SHA1", sha1), ("HMAC_SHA256", sha256)].map(|(algorithm, (key, signatures))| {
        let (accepted, refused): (Vec<_>, Vec<_>) = signatures.into_iter().partition(|signature| {
            is_valid(&key, &parsed, &fields, signature)
                && body.is_none_or(|body| covers_body(&parsed, body.as_bytes()))
        });
        json!({
            "type": algorithm, "token": TOKEN, "url": url, "fields": fields, "body": body,
            "accepted": accepted, "refused": refused,
        })
    })
}

/// Returns Twilio's signatures of a request, and others.
fn signatures(
    case: &Case,
    fields: &[(String, String)],
    sign: impl Fn(&SecretString, &str, &[(String, String)]) -> String,
) -> Vec<String> {
    let Case { url, other, .. } = case;
    let token = SecretString::from(TOKEN);
    let more = [fields, &[("Digits".to_owned(), "0".to_owned())]].concat();
    let good = sign(&token, url, fields);
    vec![
        sign(&token, other, fields),
        sign(&OTHER_TOKEN.into(), url, fields),
        sign(&token, url, &more),
        sign(&token, &format!("{url}x"), fields),
        sign(&token, &url.replacen('s', "", 1), fields),
        sign(&token, &url.replacen("//", "//other.", 1), fields),
        good[1..].to_owned(),
        String::new(),
        good,
    ]
}

fn sign_with_sha256(key: &SecretString, url: &str, fields: &[(String, String)]) -> String {
    let mac: Hmac<Sha256> = mac(key, url, fields);
    STANDARD.encode(mac.finalize().into_bytes())
}
