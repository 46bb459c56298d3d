//! What operators and their tools see, and who else does.

use futures_util::SinkExt;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    carrier::{CALLER, Reply, TOKEN, sign},
    gateway::{TestGateway, eventually},
};

const OPS_TOKEN: &str = "an-operators-token";
const READ_TOKEN: &str = "a-readers-own-token";
const PAGES: [&str; 5] = [
    "/health/details",
    "/stats",
    "/metrics",
    "/metrics.json",
    "/metrics/summary",
];
const PUBLIC: [&str; 6] = [
    "/health",
    "/health/live",
    "/health/ready",
    "/v1/openapi.json",
    "/operator/operator.css",
    "/operator/operator.js",
];

#[tokio::test]
async fn health_has_the_shape_that_its_readers_know() {
    let gateway = TestGateway::with(&[("MAX_ACTIVE_CALLS", "2")]).await;
    let carrier = &gateway.carrier;
    let summary = |active: u32| json!({"status": "healthy", "active_connections": active, "max_connections": 100});
    assert_eq!(carrier.page("/health").await, summary(0));
    assert_eq!(carrier.page("/health/live").await["status"], "alive");
    assert_eq!(carrier.page("/health/ready").await["status"], "ready");
    let calls = [
        gateway.ring().await.connected().await,
        gateway.ring().await.connected().await,
    ];
    assert_eq!(carrier.page("/health").await, summary(2));
    let details = carrier.page("/health/details").await;
    for (name, value) in [
        ("status", json!("ok")),
        ("active_calls", json!(2)),
        ("max_calls", json!(2)),
        ("capacity_available", json!(0)),
        ("at_capacity", json!(true)),
    ] {
        assert_eq!(details[name], value, "{name}");
    }
    for call in calls {
        call.hang_up().await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn stats_list_every_connection_with_its_caller_masked() {
    let gateway = TestGateway::start().await;
    let empty = gateway.carrier.page("/stats").await;
    assert_eq!(empty["connections"], json!([]));
    let call = gateway.ring().await.connected().await;
    let stats = gateway.carrier.page("/stats").await;
    assert_eq!(stats["status"], "healthy");
    assert_eq!(stats["active_connections"], 1);
    assert_eq!(stats["max_connections"], 100);
    assert_eq!(stats["connection_types"], json!({"twilio": 1}));
    let connection = &stats["connections"][0];
    assert_eq!(connection["caller_id"], "+9*******4567");
    assert_eq!(connection["type"], "twilio");
    assert_eq!(connection["status"], "connected");
    let text = |name: &str| connection[name].as_str().unwrap().to_owned();
    text("connection_id").parse::<uuid::Uuid>().unwrap();
    text("connected_at").parse::<jiff::Timestamp>().unwrap();
    assert!(!stats.to_string().contains(&CALLER[3..10]));
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn whole_numbers_are_shown_to_who_may_act_and_leave_a_row() {
    let settings = [("OPS_TOKEN", OPS_TOKEN), ("OPS_READ_TOKEN", READ_TOKEN)];
    let gateway = TestGateway::with(&settings).await;
    let call = gateway.ring().await.connected().await;
    let ask = async |path: &str, token: &str| {
        Reply::to(gateway.carrier.get(path).bearer_auth(token)).await
    };
    let audit = "SELECT actor, action, target FROM audit";
    for (path, token, status, whole) in [
        ("/stats", OPS_TOKEN, 200, false),
        ("/stats?numbers=masked", OPS_TOKEN, 200, false),
        ("/stats?numbers=all", OPS_TOKEN, 400, false),
        ("/stats?numbers=whole", READ_TOKEN, 403, false),
        ("/stats?numbers=whole", "nobody's", 401, false),
    ] {
        let reply = ask(path, token).await;
        assert_eq!(reply.status, status, "{path}: {}", reply.body);
        assert_eq!(reply.body.contains(CALLER), whole, "{path}: {}", reply.body);
    }
    assert_eq!(gateway.database.ask(audit).await, Vec::<String>::new());
    let reply = ask("/stats?numbers=whole", OPS_TOKEN).await;
    let stats: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(stats["connections"][0]["caller_id"], CALLER);
    let rows = gateway.database.ask(audit).await;
    assert_eq!(rows, ["operator:bearer numbers.show 1 live callers"]);
    call.hang_up().await;
    gateway.drain(std::future::pending()).await;
    gateway.is_gone().await;
}

#[tokio::test]
async fn stats_tell_what_calls_need_and_cost() {
    let gateway = TestGateway::with_slots(1).await;
    let call = gateway.ring().await.connected().await;
    gateway.ring().await.refused_as_busy();
    call.hang_up().await;
    let written =
        "SELECT state, COUNT(*) FROM calls WHERE rank >= 90 GROUP BY state ORDER BY state";
    eventually(async || gateway.database.ask(written).await == ["ended 1", "rejected_capacity 1"])
        .await;
    // Of a few moments nothing would be said.
    let ages = "UPDATE calls SET rang_at = rang_at - 1200000, ended_at = ended_at - 1200000";
    gateway.database.ask(ages).await;
    let stats = gateway.carrier.page("/stats").await;
    let over = stats["forecast"]["measured_over_s"].as_u64().unwrap();
    assert!((1_200..1_300).contains(&over), "{over}");
    let scopes = stats["forecast"]["scopes"].as_array().unwrap();
    for (name, arrives) in [("global", true), ("tenant:default", true), ("setup", false)] {
        let scope = scopes.iter().find(|it| it["scope"] == name).unwrap();
        let need = &scope["need"];
        assert_eq!(need.is_object(), arrives, "{scope}");
        if arrives {
            assert_eq!(
                (&need["arrivals"], &need["refused"]),
                (&json!(2), &json!(1))
            );
            assert!(need["cap_needed"].as_u64() >= Some(1), "{need}");
        }
        assert_eq!(scope["slope_per_minute"], Value::Null, "{scope}");
    }
    let days = stats["cost"]["days"].as_array().unwrap();
    let calls = days.iter().map(|day| day["calls"].as_u64().unwrap());
    assert_eq!(calls.sum::<u64>(), 1, "one was refused");
    gateway.finish().await;
}

#[tokio::test]
async fn the_summary_is_text_for_people_and_json_for_programs() {
    let gateway = TestGateway::with_slots(1).await;
    let call = gateway.ring().await.connected().await;
    let text = Reply::to(gateway.carrier.get("/metrics/summary")).await;
    assert!(text.kind.starts_with("text/plain"), "{}", text.kind);
    assert!(text.body.contains("1 of 1 (all replicas)"), "{}", text.body);
    let request = gateway.carrier.get("/metrics/summary");
    let json = Reply::to(request.header("Accept", "application/json;q=0.9, */*")).await;
    let summary: Value = serde_json::from_str(&json.body).unwrap();
    for (name, value) in [("calls_active", 1), ("calls_started", 1), ("replicas", 1)] {
        assert_eq!(summary[name], value, "{name}");
    }
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn metrics_have_the_names_that_alerts_are_made_of() {
    let gateway = TestGateway::with_slots(1).await;
    let call = gateway.ring().await.connected().await;
    gateway.ring().await.refused_as_busy();
    call.agent_speaks().await;
    // Their series have the labels of those that begin at zero.
    for (path, status) in [("/v1/calls/nobody", 401), ("/twilio/media", 403)] {
        let reply = Reply::to(gateway.carrier.get(path)).await;
        assert_eq!(reply.status, status, "{path}");
    }
    let text = Reply::to(gateway.carrier.get("/metrics")).await.body;
    for line in [
        "http_requests_total{service=\"callgate\",method=\"GET\",path=\"/v1/calls/{call}\",status=\"401\"} 1",
        "http_requests_total{service=\"callgate\",method=\"GET\",path=\"/twilio/media\",status=\"403\"} 1",
        "http_requests_total{service=\"callgate\",method=\"POST\",path=\"/webhook/incoming_call\",status=\"200\"} 2",
        "http_requests_total{service=\"callgate\",method=\"POST\",path=\"/webhook/incoming_call\",status=\"500\"} 0",
        "http_requests_total{service=\"callgate\",method=\"GET\",path=\"/twilio/media\",status=\"503\"} 0",
        "http_requests_total{service=\"callgate\",method=\"GET\",path=\"/v1/calls/{call}\",status=\"429\"} 0",
        "webhooks_events_total{event=\"incoming_call\"} 2",
        "calls_active 1",
        "calls_started_total 1",
        "calls_rejected_max_concurrent_total 1",
        "calls_refused_total{scope=\"global\",reason=\"full\"} 1",
        "connections_active 1",
        "webhook_duration_seconds_count 2",
        "agent_connect_seconds_count{agent=\"default\"} 1",
        "agent_sessions{agent=\"default\"} 1",
        "calls_live{carrier=\"twilio\",campaign=\"default\"} 1",
        "admission_seconds_count 2",
        "first_words_seconds_count 1",
        "first_audio_seconds_count 1",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert!(!text.contains(&call.sid), "the number of series is known");
    let figures = gateway.carrier.page("/metrics.json").await;
    let expected: Value =
        json!({"calls_active": 1, "calls_started": 1, "calls_rejected_max_concurrent": 1});
    assert_eq!(figures, expected);
    call.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn requests_for_made_up_paths_share_one_series() {
    let gateway = TestGateway::start().await;
    for path in ["/made/up", "/webhook/incoming_call/", "/.env", "/%00"] {
        assert_eq!(
            Reply::to(gateway.carrier.get(path)).await.status,
            404,
            "{path}"
        );
    }
    let unmatched = "http_requests_total{service=\"callgate\",method=\"GET\",path=\"unmatched\",status=\"404\"}";
    assert_eq!(gateway.figure(unmatched).await, 4);
    gateway.finish().await;
}

#[tokio::test]
async fn operators_pages_open_to_their_token_only() {
    let settings = [("OPS_TOKEN", OPS_TOKEN), ("OPS_READ_TOKEN", READ_TOKEN)];
    let gateway = TestGateway::with(&settings).await;
    for page in PAGES {
        let with = |name: &str, value: &str| gateway.carrier.get(page).header(name, value);
        for (what, request, status) in [
            ("no token", gateway.carrier.get(page), 401),
            ("a wrong one", with("Authorization", "Bearer wrong"), 401),
            ("an empty one", with("Authorization", "Bearer "), 401),
            (
                "half of it",
                with("Authorization", "Bearer an-operators"),
                401,
            ),
            (
                "another scheme",
                with("Authorization", &format!("Basic {OPS_TOKEN}")),
                401,
            ),
            (
                "in the query",
                gateway.carrier.get(&format!("{page}?token={OPS_TOKEN}")),
                401,
            ),
            (
                "the token",
                with("Authorization", &format!("Bearer {OPS_TOKEN}")),
                200,
            ),
            (
                "the reader's",
                with("Authorization", &format!("Bearer {READ_TOKEN}")),
                200,
            ),
            (
                "the token, forwarded",
                with("Authorization", &format!("Bearer {OPS_TOKEN}"))
                    .header("Host", "ops.example.com"),
                200,
            ),
        ] {
            assert_eq!(
                Reply::to(request).await.status,
                status,
                "{page} with {what}"
            );
        }
    }
    gateway.drain(std::future::pending()).await;
    gateway.is_gone().await;
}

#[tokio::test]
async fn without_a_token_operators_pages_answer_to_this_machine_only() {
    let gateway = TestGateway::start().await;
    for page in PAGES {
        let with = |name: &str, value: &str| gateway.carrier.get(page).header(name, value);
        for (what, request) in [
            ("X-Forwarded-For", with("X-Forwarded-For", "127.0.0.1")),
            ("X-Forwarded-Host", with("X-Forwarded-Host", "localhost")),
            ("X-Real-IP", with("X-Real-IP", "127.0.0.1")),
            ("Forwarded", with("Forwarded", "for=127.0.0.1")),
            ("Via", with("Via", "1.1 proxy")),
            ("a foreign Host", with("Host", "voice.example.com")),
            (
                "a Host that only begins well",
                with("Host", "localhost.example.com"),
            ),
            (
                "a Host that only ends well",
                with("Host", "example.com@127.0.0.1"),
            ),
        ] {
            let reply = Reply::to(request).await;
            assert!(
                [400, 403].contains(&reply.status),
                "{page} with {what}: {}",
                reply.status
            );
            assert!(!reply.body.contains("calls_active"));
        }
        assert_eq!(
            Reply::to(gateway.carrier.get(page)).await.status,
            200,
            "{page}"
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn every_route_is_public_by_name_or_refuses_strangers() {
    let gateway = TestGateway::with(&[("OPS_TOKEN", OPS_TOKEN), ("WEB_CALLS", "0")]).await;
    let routes: Vec<(String, Method)> = include_str!("../../src/routes.rs")
        .lines()
        .filter_map(|line| line.trim().split_once("(\"/"))
        .filter(|(method, _)| ["get", "post", "delete", "options"].contains(method))
        .map(|(method, route)| {
            let (path, _) = route.split_once('"').unwrap();
            let method = method.to_uppercase().parse().unwrap();
            (format!("/{path}"), method)
        })
        .collect();
    assert!(routes.len() >= PUBLIC.len() + PAGES.len() + 4, "{routes:?}");
    for (path, method) in &routes {
        if *method == Method::OPTIONS {
            continue; // A handshake, which has tests of its own.
        }
        let request: RequestBuilder = gateway.carrier.request(method, path);
        let status = Reply::to(request).await.status;
        if PUBLIC.contains(&path.as_str()) {
            assert_eq!(status, 200, "{path}");
        } else if path == "/login" {
            assert!(
                [200, 400, 415].contains(&status),
                "{method} {path}: {status}"
            );
        } else if path.starts_with("/acs/") && path != "/acs/ws/{ticket}" {
            assert_eq!(
                status, 503,
                "{path}: what comes again is not lost while it is closed"
            );
        } else if path.starts_with("/prompts") || path == "/" || path.starts_with("/web/web.") {
            assert_eq!(
                status, 404,
                "{path}: no such sentence, and no page while it is closed"
            );
        } else if path == "/web/tokens" {
            assert_eq!(status, 404, "there is nothing to have a token for");
        } else {
            assert!(
                [401, 403].contains(&status),
                "{path} answers {status} to anybody"
            );
        }
    }
    gateway.drain(std::future::pending()).await;
    gateway.is_gone().await;
}

#[tokio::test]
async fn a_replica_takes_as_many_media_sockets_as_it_may() {
    let gateway = TestGateway::with(&[("MAX_CONNECTIONS", "1")]).await;
    let (first, second) = (gateway.ring().await, gateway.ring().await);
    let first = first.connected().await;
    let url = second.admitted().0;
    assert_eq!(gateway.carrier.open(url).await.err(), Some(503));
    // Nobody else could take it, so the next caller hears so at once.
    gateway.ring().await.refused_as_busy();
    // Even one that has not said whose it is counts.
    first.hang_up().await;
    gateway.until_active(1).await;
    eventually(async || gateway.carrier.page("/health").await["active_connections"] == 0).await;
    let mut unknown = second.socket().await;
    assert_eq!(gateway.carrier.open(url).await.err(), Some(503));
    unknown.send(Message::Close(None)).await.unwrap();
    eventually(async || gateway.carrier.page("/health").await["active_connections"] == 0).await;
    second.connected().await.hang_up().await;
    gateway.finish().await;
}

#[tokio::test]
async fn unsigned_requests_are_counted() {
    let gateway = TestGateway::start().await;
    let url = "https://voice.example.com/webhook/other";
    let request = gateway.carrier.post("/webhook/incoming_call");
    let request = request.header("X-Twilio-Signature", sign(TOKEN, url, &[]));
    assert_eq!(Reply::to(request).await.status, 403);
    let url = "wss://voice.example.com/twilio/media";
    let upgrade = gateway.carrier.upgrade(url, Some("no"));
    assert_eq!(upgrade.await.err(), Some(403));
    assert_eq!(gateway.figure("requests_unauthenticated_total").await, 2);
    gateway.finish().await;
}
