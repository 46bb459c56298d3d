use std::{collections::BTreeSet, time::Duration};

use futures_util::FutureExt;
use serde_json::{Value, json};
use sqlx::Row;
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::*;
use crate::{
    admission::redis_server::RedisServer,
    api::tests::{OPS_TOKEN, TestApi, answer, at_both, count, over_both, put_call, put_dead},
    record::{Sql, unix_millis_i64},
};

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
const TABLES: [&str; 12] = [
    "calls",
    "steps",
    "words",
    "usage",
    "recordings",
    "events",
    "deliveries",
    "keys",
    "audit",
    "outbound",
    "outbound_days",
    "outbound_turns",
];

/// What replicas tell of themselves in Redis each second, whatever they are asked.
const BEATS: [&str; 2] = ["calls:instances", "calls:places"];

const NO_CALL: &str = "00000000-0000-4000-8000-000000000000";
/// How a socket is closed to which a browser has brought no token: `NO_PASS`, as RFC 6455, 5.5.1,
/// has it on the wire, before the reason.
const NO_PASS: [u8; 2] = 4_401_u16.to_be_bytes();

const TWILIO_FORM: &str = "CallSid=CA0123456789abcdef0123456789abcdef&From=%2B972501234567&\
    To=%2B972721234567&CallStatus=ringing&RecordingSid=RE0123456789abcdef0123456789abcdef";
const ACS_EVENTS: &str = r#"[{"id": "1", "eventType": "Microsoft.Communication.IncomingCall",
    "subject": "s", "eventTime": "2026-01-01T00:00:00Z", "dataVersion": "1.0", "topic": "t", "data":
    {"correlationId": "0b1c2d3e-1111-4222-8333-444455556666", "incomingCallContext": "c",
    "to": {"rawId": "4:+972721234567"}, "from": {"rawId": "4:+972501234567"}}}]"#;

/// An address that somebody could be asked at, and where nobody answers.
struct Silent(TcpListener);

impl Silent {
    async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.0.local_addr().unwrap())
    }

    fn was_asked(&self) -> bool {
        self.0.accept().now_or_never().is_some()
    }
}

fn path_of(entry: &Entry, call: &str) -> String {
    let path = entry.path.replace("{call}", call);
    path.replace("{ticket}", "t")
        .replace("{action}", "stop-intake")
        .replace("{language}", "he-IL")
        .replace("{name}", "busy")
        .replace("{event}", "evt_0")
}

/// Returns every row of every table, as text.
async fn rows(api: &TestApi) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for table in TABLES {
        let mut sql = Sql::new("SELECT * FROM ");
        sql.push(table);
        let read = api
            .database
            .read(|pool| async move { sql.read(&pool).await });
        for row in read.await.unwrap() {
            let columns = (0..row.len()).map(|at| match row.try_get::<Option<String>, _>(at) {
                Ok(text) => text.unwrap_or_else(|| "-".to_owned()),
                Err(_) => row.get::<i64, _>(at).to_string(),
            });
            all.push((table, columns.collect::<Vec<_>>().join(" ")));
        }
    }
    all.sort();
    all
}

/// Returns them without what is noted of requests that were heeded.
async fn rows_but_audit(api: &TestApi) -> Vec<(&'static str, String)> {
    let mut rows = rows(api).await;
    rows.retain(|(table, _)| *table != "audit");
    rows
}

/// Returns all that Redis holds, but for the time until it expires and what is in the beats.
fn kept(redis: &RedisServer) -> BTreeMap<String, Vec<u8>> {
    let names: Vec<String> = redis.ask("KEYS *");
    let with_content = names.into_iter().map(|name| {
        let is_beat = BEATS.contains(&name.as_str());
        let content = (!is_beat).then(|| redis.ask(&format!("DUMP {name}")));
        (name, content.unwrap_or_default())
    });
    with_content.collect()
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
    at_both(async |url| nobody_gets_in(url).await).await;
}

async fn nobody_gets_in(url: &str) {
    let (agent, twilio, acs) = (
        Silent::start().await,
        Silent::start().await,
        Silent::start().await,
    );
    let redis = RedisServer::start();
    let acs_access = format!(
        "endpoint={};accesskey=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        acs.url("http")
    );
    let settings = [
        ("REDIS_URL", &*redis.url()),
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", "sk-test"),
        ("OPENAI_REALTIME_URL", &*agent.url("ws")),
        ("TWILIO_ACCOUNT_SID", "AC0123456789abcdef0123456789abcdef"),
        ("TWILIO_API_BASE", &*twilio.url("http")),
        ("OUTBOUND_COUNTRIES", "IL"),
        ("OUTBOUND_FROM", "+972722234567"),
        ("ACS_CONNECTION_STRING", &*acs_access),
        ("ACS_RESOURCE_ID", "0b1c2d3e-1111-4222-8333-444455556666"),
        ("ACS_OPENID_URL", &*acs.url("http")),
        ("ACS_WS_JWT", "required"),
        ("EVENTGRID_SECRET", "0123456789abcdef"),
        ("WEB_CALLS", "1"),
    ];
    // Production has no carrier on loopback, so what it demands besides is set by hand.
    let mut config = TestApi::config(url, &settings);
    config.web.needs_token = true;
    let api = TestApi::run(config).await;
    let call = put_call(&api.database, "CA1", "default", unix_millis_i64()).await;
    put_dead(&api.database, "evt_0", "default", unix_millis_i64()).await;
    until_settled(&redis).await;
    let before = (rows(&api).await, kept(&redis));

    let unknown = crate::api::tests::unknown_key();
    let forged = [
        vec![],
        vec![("x-twilio-signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
        vec![("x-callgate-secret", "fedcba9876543210")],
        vec![("authorization", "Bearer wrong")],
        // A token that says that it is not signed.
        vec![("authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")],
        vec![("authorization", unknown.as_str())],
        vec![
            ("authorization", "Basic Y2c6Y2c="),
            ("cookie", "callgate-login=an-operators-token"),
        ],
    ];
    let mut tried = 0;
    for entry in all() {
        if entry.door == Door::Public {
            continue;
        }
        let mut path = path_of(&entry, &call);
        if entry.door == Door::Browser {
            path.push_str("?token=forged");
        }
        for headers in &forged {
            let mut request = api.request(entry.method.as_str(), &path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let shown = format!("{} {path} {headers:?}", entry.method);
            let response = whole(request, &entry).send().await.unwrap();
            let status = response.status().as_u16();
            if entry.door == Door::Browser {
                // A page never sees the status of a refused upgrade.
                assert_eq!(status, 101, "{shown}");
                let mut said = Vec::new();
                let mut socket = response.upgrade().await.unwrap();
                socket.read_to_end(&mut said).await.unwrap();
                assert_eq!(said.get(2..4), Some(&NO_PASS[..]), "{shown}: {said:?}");
            } else {
                let body = response.text().await.unwrap();
                // A path that nobody has sealed is looked at before any token.
                let is_nowhere = entry.path == "/acs/callbacks/{call}" && status == 404;
                assert!(
                    is_nowhere || [401, 403, 429].contains(&status),
                    "{shown}: {status} {body}"
                );
            }
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried}");
    assert_eq!((rows(&api).await, kept(&redis)), before);
    let (_, metrics) = api.ask("GET", "/metrics", Some(OPS_TOKEN)).await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains(r#"path="/acs/callbacks/{call}",status="404""#));
    assert!(!metrics.contains(r#"path="unmatched""#), "{metrics}");
    let details = api.ask("GET", "/health/details", Some(OPS_TOKEN)).await.1;
    assert_eq!(
        (&details["active_calls"], &details["records"]["waiting"]),
        (&0.into(), &0.into())
    );
    api.end().await;
    for (name, silent) in [("agent", agent), ("Twilio", twilio), ("ACS", acs)] {
        assert!(!silent.was_asked(), "the {name} was asked for something");
    }
}

/// Waits until a replica has put up what it always does. A store that was empty is filled behind a
/// gate, whose key goes with it.
async fn until_settled(redis: &RedisServer) {
    while redis.ask::<u32>("EXISTS calls:gen calls:places") < 2
        || redis.ask::<u32>("EXISTS calls:gen:recover") == 1
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Adds to a request what its route would act on.
fn whole(request: reqwest::RequestBuilder, entry: &Entry) -> reqwest::RequestBuilder {
    if entry.method == Method::POST {
        let (kind, body) = match entry.path {
            "/acs/incomingcall" | "/acs/callbacks/{call}" => ("application/json", ACS_EVENTS),
            "/web/tokens" => ("application/json", "{}"),
            "/v1/calls" => ("application/json", r#"{"to": "+972502345678"}"#),
            path if path.starts_with("/webhook") => {
                ("application/x-www-form-urlencoded", TWILIO_FORM)
            }
            _ => ("application/x-www-form-urlencoded", "to=r1&key=k"),
        };
        return request
            .header("content-type", kind)
            .header("idempotency-key", "one")
            .body(body);
    }
    request
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_and_its_tenant_allow() {
    over_both(&[], async |api| {
        let call = put_call(&api.database, "CA1", "acme", unix_millis_i64()).await;
        let mut keys = BTreeMap::new();
        for scope in Scope::ALL {
            let others: Vec<Scope> = Scope::ALL.into_iter().filter(|it| *it != scope).collect();
            let right_and_lacking = (
                api.key("acme", &[scope]).await,
                api.key("acme", &others).await,
            );
            keys.insert(scope, right_and_lacking);
        }
        put_dead(&api.database, "evt_0", "acme", unix_millis_i64()).await;
        let foreign = api.key("other", &Scope::ALL).await;
        let mut routes = 0;
        for entry in all() {
            let Door::Key(scope) = entry.door else {
                continue;
            };
            routes += 1;
            let mut path = path_of(&entry, &call);
            if entry.path == "/v1/records" {
                path.push_str("?number=%2B972501234567");
            }
            let method = entry.method.as_str();
            let (right, lacking) = &keys[&scope];
            assert_eq!(api.ask(method, &path, None).await.0, 401, "{method} {path}");
            let (status, body) = api.ask(method, &path, Some(lacking)).await;
            assert_eq!(status, 403, "{method} {path}: {body}");
            assert_eq!(body["error"]["needed_scope"], scope.as_str());

            // Before the tenant's own: what was done once may not be done again.
            let before = rows_but_audit(api).await;
            let (status, mut body) = api.ask(method, &path, Some(&foreign)).await;
            if entry.path.contains('{') {
                let absent = entry.path.replace("{call}", NO_CALL);
                let absent = absent.replace("{event}", "evt_1");
                let (_, mut absent) = api.ask(method, &absent, Some(right)).await;
                for body in [&mut body, &mut absent] {
                    body["error"]["request_id"] = json!("");
                }
                assert_eq!((status, &body), (404, &absent), "{method} {path}");
            } else {
                let expected = if method == "POST" { 415 } else { 200 };
                assert_eq!(status, expected, "{method} {path}: {body}");
                let body = body.to_string();
                let shows = body.contains(&call) || body.contains("evt_0");
                assert!(!shows, "{method} {path}: {body}");
            }
            assert_eq!(rows_but_audit(api).await, before, "{method} {path}");

            let (status, body) = api.ask(method, &path, Some(right)).await;
            let expected = match (method, entry.path) {
                ("POST", "/v1/calls") => 415, // It has come as far as its body, and has none.
                ("DELETE", "/v1/calls/{call}") => 202,
                // It has come as far as its endpoint, which is not in force here.
                ("POST", "/v1/events/{event}/resend") => 400,
                (_, _) => 200,
            };
            assert_eq!(status, expected, "{method} {path}: {body}");
        }
        assert!(routes >= 10, "{routes}");
        assert_eq!(count(&api.database, "calls").await, 0, "deleted last");
    })
    .await;
}

#[tokio::test]
async fn no_key_places_a_call_of_another_tenants_campaign() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let campaigns = "[tenants.acme]\n[tenants.other]\n\
        [campaigns.sales]\ntenant = 'acme'\nnumbers = ['+97221111111']\n\
        [campaigns.support]\ntenant = 'other'\nnumbers = ['+97222222222']\n";
    std::fs::write(file.path(), campaigns).unwrap();
    let twilio = Silent::start().await;
    let settings = [
        ("CALLGATE_CONFIG", file.path().to_str().unwrap()),
        ("TWILIO_ACCOUNT_SID", "AC0123456789abcdef0123456789abcdef"),
        ("TWILIO_API_BASE", &*twilio.url("http")),
        ("OUTBOUND_COUNTRIES", "IL"),
    ];
    over_both(&settings, async |api| {
        let own = api.key("acme", &[Scope::CallsWrite]).await;
        let foreign = api.key("other", &[Scope::CallsWrite]).await;
        let field = async |key: &str, body: Value| {
            let request = api.request("POST", "/v1/calls").bearer_auth(key);
            let request = request.header("idempotency-key", "one").json(&body);
            let (status, body) = answer(request).await;
            assert_eq!(status, 400, "{body}");
            body["error"]["field"].as_str().unwrap().to_owned()
        };
        let of = |campaign: &str, from: &str| json!({"to": "+972502345678", "campaign": campaign, "from": from});
        // Its own tenant comes as far as who calls, where a number of another's is as good as none.
        assert_eq!(field(&own, of("sales", "+97222222222")).await, "from");
        assert_eq!(field(&foreign, of("sales", "+97221111111")).await, "campaign");
        assert_eq!(field(&foreign, of("none", "+97221111111")).await, "campaign");
        assert_eq!(field(&foreign, of("support", "+97221111111")).await, "from");
        assert_eq!(count(&api.database, "outbound").await, 0);
    })
    .await;
    assert!(!twilio.was_asked());
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
