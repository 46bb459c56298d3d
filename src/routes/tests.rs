use std::collections::BTreeSet;

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::api::tests::{OPS_TOKEN, TestApi, answer, count, over_both, put_call};

/// Everything that whoever likes may see; a route that is added here is thought about.
const PUBLIC: [&str; 11] = [
    "/",
    "/health",
    "/health/live",
    "/health/ready",
    "/login",
    "/operator/operator.css",
    "/operator/operator.js",
    "/prompts/{language}/{name}.wav",
    "/v1/openapi.json",
    "/web/web.css",
    "/web/web.js",
];

/// Every table but those of what replicas do unasked: their beat, and the duties they take.
const TABLES: [&str; 11] = [
    "calls",
    "steps",
    "words",
    "usage",
    "recordings",
    "events",
    "keys",
    "audit",
    "outbound",
    "outbound_days",
    "outbound_turns",
];

const TWILIO_FORM: &str = "CallSid=CA0123456789abcdef0123456789abcdef&From=%2B972501234567&\
    To=%2B972721234567&CallStatus=ringing&RecordingSid=RE0123456789abcdef0123456789abcdef";
const ACS_EVENTS: &str = r#"[{"id": "1", "eventType": "Microsoft.Communication.IncomingCall",
    "subject": "s", "eventTime": "2026-01-01T00:00:00Z", "dataVersion": "1.0", "topic": "t", "data":
    {"correlationId": "0b1c2d3e-1111-4222-8333-444455556666", "incomingCallContext": "c",
    "to": {"rawId": "4:+972721234567"}, "from": {"rawId": "4:+972501234567"}}}]"#;

fn path_of(entry: &Entry) -> String {
    let path = entry
        .path
        .replace("{call}", "00000000-0000-4000-8000-000000000000");
    path.replace("{ticket}", "t")
        .replace("{language}", "he-IL")
        .replace("{name}", "busy")
        .replace("{event}", "evt_0")
}

async fn rows(api: &TestApi) -> Vec<(&'static str, i64)> {
    let mut rows = Vec::new();
    for table in TABLES {
        rows.push((table, count(&api.database, table).await));
    }
    rows
}

#[test]
fn the_public_routes_are_those_that_are_meant_to_be() {
    let all = all();
    let public = all.iter().filter(|entry| entry.door == Door::Public);
    assert_eq!(
        public.map(|entry| entry.path).collect::<BTreeSet<_>>(),
        PUBLIC.into()
    );
}

#[tokio::test]
async fn whoever_proves_nothing_is_refused_everywhere_and_changes_nothing() {
    let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", agent.local_addr().unwrap());
    over_both(&[
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", "sk-test"),
        ("OPENAI_REALTIME_URL", &url),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=https://acs.example.com/;accesskey=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        ),
        ("ACS_RESOURCE_ID", "0b1c2d3e-1111-4222-8333-444455556666"),
        ("EVENTGRID_SECRET", "0123456789abcdef"),
        ("WEB_CALLS", "0"),
    ], async |api| {
    let before = rows(&api).await;
    let unknown = crate::api::tests::unknown_key();
    let forged = [
        vec![],
        vec![("x-twilio-signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
        vec![("authorization", "Bearer wrong")],
        vec![("authorization", unknown.as_str())],
        vec![
            ("authorization", "Basic Y2c6Y2c="),
            ("cookie", "token=an-operators-token"),
        ],
    ];
    let mut tried = 0;
    for entry in all() {
        if entry.door == Door::Public {
            continue;
        }
        for headers in &forged {
            let mut request = api.request(entry.method.as_str(), &path_of(&entry));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if entry.method == Method::POST {
                let is_form = entry.path.starts_with("/webhook");
                let (kind, body) = if is_form {
                    ("application/x-www-form-urlencoded", TWILIO_FORM)
                } else {
                    ("application/json", ACS_EVENTS)
                };
                request = request.header("content-type", kind).body(body);
            } else {
                for (name, value) in [
                    ("connection", "Upgrade"),
                    ("upgrade", "websocket"),
                    ("sec-websocket-version", "13"),
                    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ] {
                    request = request.header(name, value);
                }
            }
            let (status, body) = answer(request).await;
            assert!(
                [401, 403, 404, 429].contains(&status),
                "{} {}: {status} {body}",
                entry.method,
                entry.path
            );
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
    assert_eq!(rows(&api).await, before);
    let details = api.ask("GET", "/health/details", Some(OPS_TOKEN)).await.1;
    assert_eq!(
        (&details["active_calls"], &details["records"]["waiting"]),
        (&0.into(), &0.into())
    );
    assert!(
        agent.accept().now_or_never().is_none(),
        "nobody has dialed an agent"
    );
    }).await;
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_and_its_tenant_allow() {
    over_both(&[], async |api| {
        let call = put_call(
            &api.database,
            "CA1",
            "acme",
            crate::record::unix_millis_i64(),
        )
        .await;
        let mut keys = BTreeMap::new();
        for scope in Scope::ALL {
            let others: Vec<Scope> = Scope::ALL.into_iter().filter(|it| *it != scope).collect();
            let right_and_lacking = (
                api.key("acme", &[scope]).await,
                api.key("acme", &others).await,
            );
            keys.insert(scope, right_and_lacking);
        }
        let foreign = api.key("other", &Scope::ALL).await;
        let mut routes = 0;
        for entry in all() {
            let Door::Key(scope) = entry.door else {
                continue;
            };
            routes += 1;
            let mut path = entry.path.replace("{call}", &call);
            let unknown = path_of(&entry);
            if entry.path == "/v1/records" {
                path.push_str("?number=%2B15550001111");
            }
            let method = entry.method.as_str();
            let (right, lacking) = &keys[&scope];
            assert_eq!(api.ask(method, &path, None).await.0, 401, "{method} {path}");
            let (status, body) = api.ask(method, &path, Some(lacking)).await;
            assert_eq!(status, 403, "{method} {path}: {body}");
            assert_eq!(body["error"]["needed_scope"], scope.as_str());
            let (status, body) = api.ask(method, &path, Some(right)).await;
            let expected = match (method, entry.path) {
                ("POST", "/v1/calls") => 415, // It has come as far as its body, and has none.
                ("POST", _) => 404,           // No event is dead.
                ("DELETE", "/v1/calls/{call}") => 202,
                (_, _) => 200,
            };
            assert_eq!(status, expected, "{method} {path}: {body}");
            if method == "POST" {
                continue;
            }
            let (status, mut body) = api.ask(method, &path, Some(&foreign)).await;
            if entry.path.contains("{call}") {
                let (_, mut absent) = api.ask(method, &unknown, Some(right)).await;
                for body in [&mut body, &mut absent] {
                    body["error"]["request_id"] = json!("");
                }
                assert_eq!((status, &body), (404, &absent), "{method} {path}");
            } else {
                assert_eq!(status, 200, "{method} {path}: {body}");
                assert!(!body.to_string().contains(&call), "{method} {path}: {body}");
            }
        }
        assert!(routes >= 10, "{routes}");
        assert_eq!(count(&api.database, "calls").await, 1);
    })
    .await;
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document: Value = serde_json::from_str(&document::text()).unwrap();
    let mut told = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let needed = operation["security"][0]["key"][0].as_str();
            let needed = needed.map(str::to_owned);
            told.insert((method.to_uppercase(), path.clone(), needed));
        }
    }
    let v1 = all()
        .into_iter()
        .filter(|entry| entry.path.starts_with("/v1"));
    let there: BTreeSet<_> = v1
        .map(|entry| {
            let needed = match entry.door {
                Door::Key(scope) => Some(scope.as_str().to_owned()),
                Door::Public | Door::Carrier | Door::Browser | Door::Operator => None,
            };
            (entry.method.to_string(), entry.path.to_owned(), needed)
        })
        .collect();
    assert_eq!(told, there);
}
