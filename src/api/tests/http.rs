//! What requests are answered.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;

use super::*;
use crate::{
    api::usage::used_by_all,
    forecast::Measured,
    record::{CampaignTraffic, traffic, unix_millis_i64},
};

#[tokio::test]
async fn calls_are_listed_by_pages_and_filters() {
    over_both(&[], async |api| {
        let now = unix_millis_i64();
        let mut ours = Vec::new();
        for number in 0..7 {
            // Two at a time ring in the same millisecond.
            let at = now - 10_000 + number / 2;
            ours.push(put_call(&api.database, &format!("CA{number}"), "acme", at).await);
        }
        put_call(&api.database, "CAother", "other", now).await;
        let key = api.key("acme", &[Scope::CallsRead]).await;
        let whole = api
            .key("acme", &[Scope::CallsRead, Scope::NumbersRead])
            .await;
        let mut seen = Vec::new();
        let mut path = "/v1/calls?limit=3".to_owned();
        loop {
            let (status, page) = api.ask("GET", &path, Some(&key)).await;
            assert_eq!(status, 200, "{page}");
            let calls = page["calls"].as_array().unwrap();
            seen.extend(
                calls
                    .iter()
                    .map(|call| call["call_id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next_cursor"].as_str() else {
                break;
            };
            path = format!("/v1/calls?limit=3&cursor={next}");
        }
        assert_eq!(seen.len(), 7);
        ours.sort();
        let mut sorted = seen.clone();
        sorted.sort();
        assert_eq!(sorted, ours, "each once, and nobody else's");
        for (query, expected) in [
            ("number=%2B972501234567", 7),
            ("number=%2B97221111111&direction=inbound", 7),
            ("number=%2B97221111111&campaign=support", 0),
            ("number=%2B15550001111", 0),
            ("campaign=sales&state=ended&reason=caller_hung_up", 7),
            ("campaign=support", 0),
            ("direction=outbound", 0),
            ("to=2020-01-01T00:00:00Z", 0),
            ("from=2020-01-01T00:00:00%2B02:00", 7),
        ] {
            let (status, page) = api
                .ask("GET", &format!("/v1/calls?{query}"), Some(&whole))
                .await;
            let found = page["calls"].as_array().map(Vec::len);
            assert_eq!((status, found), (200, Some(expected)), "{query}: {page}");
        }
        // Whose calls these are is nothing that can be found out by trying numbers.
        let path = "/v1/calls?number=%2B972501234567";
        let (status, refused) = api.ask("GET", path, Some(&key)).await;
        let needed = &refused["error"]["needed_scope"];
        assert_eq!((status, needed), (403, &"numbers:read".into()), "{refused}");
        let (_, call) = api
            .ask("GET", &format!("/v1/calls/{}", seen[0]), Some(&key))
            .await;
        let masked = "+9*******4567";
        assert_eq!(
            (&call["caller"], &call["talked_ms"]),
            (&masked.into(), &90_000.into())
        );
        for (key, caller) in [(&key, masked), (&whole, "+972501234567")] {
            let path = format!("/v1/calls/{}", seen[0]);
            let (_, call) = api.ask("GET", &path, Some(key)).await;
            assert_eq!(call["caller"], caller);
            let (_, page) = api.ask("GET", "/v1/calls?limit=1", Some(key)).await;
            assert_eq!(page["calls"][0]["caller"], caller);
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_call_shows_what_its_caller_was_offered() {
    over_both(&[], async |api| {
        let call = put_call(&api.database, "CA1", "acme", unix_millis_i64()).await;
        let refuse = api.database.write(|writing| {
            let sql =
                Sql::new("UPDATE calls SET state = 'rejected_capacity', offered = 'voicemail'");
            Box::pin(async move { sql.execute(writing).await })
        });
        refuse.await.unwrap();
        let key = api.key("acme", &[Scope::CallsRead]).await;
        for path in [format!("/v1/calls/{call}"), "/v1/calls".to_owned()] {
            let (_, answer) = api.ask("GET", &path, Some(&key)).await;
            let shown = answer["calls"].get(0).unwrap_or(&answer);
            assert_eq!(shown["offered"], "voicemail", "{path}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_timeline_has_what_was_said_for_whom_may_read_it() {
    over_both(&[], async |api| {
        let call = put_call(&api.database, "CA1", "acme", unix_millis_i64()).await;
        let reader = api
            .key("acme", &[Scope::CallsRead, Scope::TranscriptsRead])
            .await;
        let viewer = api.key("acme", &[Scope::CallsRead]).await;
        let path = format!("/v1/calls/{call}/timeline");
        let whats = |timeline: &Value| -> Vec<Value> {
            let moments = timeline["timeline"].as_array().unwrap();
            moments
                .iter()
                .map(|moment| moment["what"].clone())
                .collect()
        };
        let (_, all) = api.ask("GET", &path, Some(&reader)).await;
        assert_eq!(whats(&all), ["admitted", "said"], "{all}");
        let (_, some) = api.ask("GET", &path, Some(&viewer)).await;
        assert_eq!(
            (whats(&some), &some["has_words"]),
            (vec!["admitted".into()], &false.into())
        );
        let path = format!("/v1/calls/{call}/transcript");
        let (_, transcript) = api.ask("GET", &path, Some(&reader)).await;
        assert_eq!(transcript["transcript"][0]["text"], "shalom");
    })
    .await;
}

#[tokio::test]
async fn another_tenants_call_is_as_unknown_as_one_that_never_was() {
    over_both(&[], async |api| {
        let theirs = put_call(&api.database, "CA1", "acme", unix_millis_i64()).await;
        let never = "00000000-0000-4000-8000-000000000000";
        let everything = [Scope::CallsRead, Scope::CallsWrite, Scope::TranscriptsRead];
        let key = api.key("other", &everything).await;
        let owner = api.key("acme", &everything).await;
        for (method, rest) in [
            ("GET", ""),
            ("GET", "/timeline"),
            ("GET", "/transcript"),
            ("DELETE", ""),
        ] {
            let path = |call: &str| format!("/v1/calls/{call}{rest}");
            let (status, mut told) = api.ask(method, &path(&theirs), Some(&key)).await;
            let (unknown, mut said) = api.ask(method, &path(never), Some(&key)).await;
            assert_eq!((status, unknown), (404, 404), "{method} {rest}: {told}");
            for answer in [&mut told, &mut said] {
                answer["error"]["request_id"].take();
            }
            assert_eq!(told, said, "{method} {rest}");
            let (known, _) = api.ask(method, &path(&theirs), Some(&owner)).await;
            assert_ne!(known, 404, "{method} {rest}");
        }
    })
    .await;
}

#[tokio::test]
async fn usage_is_summed_up_by_day_and_campaign() {
    over_both(&[("RECORD_DAYS", "3650")], async |api| {
        let day: jiff::Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
        for (name, after) in [("a", 0), ("b", 86_399_999), ("c", 86_400_000)] {
            put_call(&api.database, name, "acme", day.as_millisecond() + after).await;
        }
        let key = api.key("acme", &[Scope::UsageRead]).await;
        let path = "/v1/usage?from=2026-03-01T00:00:00Z&to=2026-03-05T00:00:00Z";
        let (status, usage) = api.ask("GET", path, Some(&key)).await;
        assert_eq!(status, 200, "{usage}");
        let shown =
            |row: &Value| json!([row["day"], row["calls"], row["minutes"], row["cost_micros"]]);
        let rows: Vec<Value> = usage["usage"]
            .as_array()
            .unwrap()
            .iter()
            .map(shown)
            .collect();
        let expected = [
            json!(["2026-03-01", 2, 3.0, 14]),
            json!(["2026-03-02", 1, 1.5, 7]),
        ];
        assert_eq!(rows, expected);
        assert_eq!(usage["usage"][0]["tokens"]["text_in"], 2);
    })
    .await;
}

#[tokio::test]
async fn operators_have_all_tenants_calls_summed_up() {
    over_both(&[], async |api| {
        let now = unix_millis_i64();
        let day_ms = 86_400_000;
        for (name, tenant, at) in [
            ("a", "acme", now),
            ("b", "other", now),
            ("c", "other", now - day_ms),
            ("d", "acme", now - 9 * day_ms),
        ] {
            put_call(&api.database, name, tenant, at).await;
        }
        let used = used_by_all(&api.database, 6).await.unwrap();
        let shown: Vec<_> = used
            .iter()
            .map(|it| (it.campaign.as_str(), it.calls, it.cost_micros))
            .collect();
        assert_eq!(shown, [("sales", 1, 7), ("sales", 2, 14)]);
        let (hour, day) = (Duration::from_secs(3_600), Duration::from_secs(86_400));
        let mut measured = traffic(&api.database, hour, day).await.unwrap();
        measured.sort_by(|one, other| one.tenant.cmp(&other.tenant));
        // What rang and ended a day ago is not of the last hour.
        let of_hour = Measured {
            arrivals: 1,
            refused: 0,
            ended: 1,
            held: Duration::from_secs(90),
        };
        let expected =
            [("acme", now), ("other", now - day_ms)].map(|(tenant, first_at)| CampaignTraffic {
                tenant: tenant.to_owned(),
                campaign: "sales".to_owned(),
                measured: of_hour,
                first_at,
            });
        assert_eq!(measured, expected);
    })
    .await;
}

/// Requests by a good key: method, path, status, code, and field at fault.
const WRONG: [(&str, &str, u16, &str, Option<&str>); 22] = [
    (
        "GET",
        "/v1/calls?limit=201",
        400,
        "invalid_request",
        Some("limit"),
    ),
    (
        "GET",
        "/v1/calls?state=gone",
        400,
        "invalid_request",
        Some("state"),
    ),
    (
        "GET",
        "/v1/calls?number=0501234567",
        400,
        "invalid_request",
        Some("number"),
    ),
    (
        "GET",
        "/v1/calls?number=%2B1%00",
        400,
        "invalid_request",
        Some("number"),
    ),
    (
        "GET",
        "/v1/calls?from=yesterday",
        400,
        "invalid_request",
        Some("from"),
    ),
    (
        "GET",
        "/v1/calls?cursor=AAAA",
        400,
        "invalid_request",
        Some("cursor"),
    ),
    (
        "GET",
        "/v1/events?cursor=1.%00.a",
        400,
        "invalid_request",
        Some("cursor"),
    ),
    (
        "GET",
        "/v1/events?cursor=1.evt_a%00.crm",
        400,
        "invalid_request",
        Some("cursor"),
    ),
    (
        "GET",
        "/v1/events?cursor=1.evt_a.%00",
        400,
        "invalid_request",
        Some("cursor"),
    ),
    (
        "GET",
        "/v1/events?cursor=1.evt_a.a%27b",
        400,
        "invalid_request",
        Some("cursor"),
    ),
    (
        "GET",
        "/v1/calls?reason=%D7%A9",
        400,
        "invalid_request",
        Some("reason"),
    ),
    (
        "GET",
        "/v1/calls?limit=1&limit=2",
        400,
        "invalid_request",
        Some("limit"),
    ),
    (
        "GET",
        "/v1/calls?colour=red",
        400,
        "invalid_request",
        Some("colour"),
    ),
    (
        "GET",
        "/v1/usage?from=2020-01-01T00:00:00Z",
        400,
        "invalid_request",
        Some("from"),
    ),
    ("GET", "/v1/openapi.json/x", 404, "not_found", None),
    ("GET", "/v1/calls/7", 404, "not_found", None),
    ("GET", "/v1/nothing", 404, "not_found", None),
    ("GET", "/v1/calls/", 404, "not_found", None),
    ("PUT", "/v1/calls", 405, "method_not_allowed", None),
    ("HEAD", "/v1/calls", 405, "", None),
    (
        "DELETE",
        "/v1/records",
        400,
        "invalid_request",
        Some("number"),
    ),
    (
        "DELETE",
        "/v1/records?number=%2B972501234567&before=2020-01-01T00:00:00Z",
        400,
        "invalid_request",
        Some("before"),
    ),
];

#[tokio::test]
async fn what_is_wrong_is_told_with_its_code_its_field_and_a_sentence() {
    over_both(&[], async |api| {
        let key = api.key("acme", &Scope::ALL).await;
        for (method, path, status, code, field) in WRONG {
            let (answered, body) = api.ask(method, path, Some(&key)).await;
            assert_eq!(answered, status, "{method} {path}: {body}");
            if method == "HEAD" {
                continue;
            }
            let error = &body["error"];
            assert_eq!(error["code"], code, "{method} {path}: {body}");
            assert_eq!(error["field"].as_str(), field, "{method} {path}: {body}");
            assert!(error["message"].as_str().unwrap().len() > 10, "{body}");
            assert!(
                error["request_id"].as_str().unwrap().starts_with("req_"),
                "{body}"
            );
        }
        let long = format!("/v1/calls?reason={}", "a".repeat(5_000));
        assert_eq!(api.ask("GET", &long, Some(&key)).await.0, 400);
        let response = api
            .request("PUT", "/v1/calls")
            .bearer_auth(&key)
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["allow"], "GET, POST");
    })
    .await;
}

/// Writes three events of the tenant `acme` that are dead for its endpoint `crm`.
async fn put_three_dead(database: &Database) -> [String; 3] {
    let events = [1, 2, 3].map(|number| format!("evt_{number:032}"));
    for (event, at) in events.iter().zip(unix_millis_i64()..) {
        put_dead(database, event, "acme", at).await;
    }
    events
}

#[tokio::test]
async fn dead_events_are_listed_by_pages_of_which_the_last_says_that_it_is() {
    over_both(&[], async |api| {
        let events = put_three_dead(&api.database).await;
        let key = api.key("acme", &[Scope::EventsRead]).await;
        for limit in [1_usize, 2, 3, 4] {
            let mut seen = Vec::new();
            let mut path = format!("/v1/events?limit={limit}");
            loop {
                let (status, page) = api.ask("GET", &path, Some(&key)).await;
                assert_eq!(status, 200, "{page}");
                let ids = page["events"].as_array().unwrap().iter();
                let ids: Vec<_> = ids.map(|event| event["event_id"].clone()).collect();
                assert!((1..=limit).contains(&ids.len()), "{limit}: {page}");
                seen.extend(ids);
                let Some(next) = page["next_cursor"].as_str() else {
                    break;
                };
                path = format!("/v1/events?limit={limit}&cursor={next}");
            }
            seen.reverse();
            assert_eq!(seen, events, "{limit}: the latest first, each once");
        }
    })
    .await;
}

#[tokio::test]
async fn an_event_is_not_sent_again_to_an_endpoint_that_is_not_in_force() {
    over_both(&[], async |api| {
        let [event, ..] = put_three_dead(&api.database).await;
        let key = api
            .key("acme", &[Scope::EventsRead, Scope::EventsWrite])
            .await;
        for query in ["", "?endpoint=crm"] {
            let path = format!("/v1/events/{event}/resend{query}");
            let (status, refused) = api.ask("POST", &path, Some(&key)).await;
            let error = &refused["error"];
            assert_eq!((status, &error["code"]), (400, &"invalid_request".into()));
            assert_eq!(error["field"], "endpoint");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("crm is not in force"), "{message}");
        }
        let path = format!("/v1/events/{event}/resend?endpoint=none");
        let (status, _) = api.ask("POST", &path, Some(&key)).await;
        assert_eq!(status, 404);
        let (_, page) = api.ask("GET", "/v1/events", Some(&key)).await;
        assert_eq!(page["events"].as_array().unwrap().len(), 3, "{page}");
    })
    .await;
}

#[tokio::test]
async fn every_answer_has_the_requests_id() {
    over_both(&[], async |api| {
        for (sent, is_kept) in [
            ("order-7_a.b", true),
            ("a b", false),
            (&"x".repeat(65), false),
        ] {
            for path in ["/v1/openapi.json", "/v1/calls", "/v1/nothing"] {
                let request = api.request("GET", path).header("x-request-id", sent);
                let response = request.send().await.unwrap();
                let id = response.headers()["x-request-id"]
                    .to_str()
                    .unwrap()
                    .to_owned();
                assert_eq!(id == sent, is_kept, "{path} {id}");
                let body: Value = response.json().await.unwrap();
                let told = body["error"]["request_id"].as_str();
                assert!(told.is_none_or(|told| told == id), "{body}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn deleting_leaves_one_row_that_names_the_key_and_hides_the_number() {
    over_both(&[], async |api| {
        put_call(&api.database, "CA1", "acme", unix_millis_i64() - 1_000).await;
        let key = api.key("acme", &[Scope::RecordsDelete]).await;
        let path = "/v1/records?number=%2B972501234567";
        let request = api.request("DELETE", path).bearer_auth(&key);
        let (status, deleted) = answer(request.header("x-request-id", "r-1")).await;
        assert_eq!(
            (status, deleted),
            (200, json!({"calls": 1, "open": 0, "is_complete": true}))
        );
        let rows = api.database.read(|pool| async move {
        let sql = "SELECT actor || ' ' || tenant || ' ' || target || ' ' || request_id || ' ' || \
                   became FROM audit WHERE action = 'records.delete'";
        Sql::new(sql).read(&pool).await
    });
        let rows: Vec<String> = rows
            .await
            .unwrap()
            .iter()
            .map(|row| sqlx::Row::get(row, 0))
            .collect();
        let expected = format!(
            "key:{} acme number +9*******4567 r-1 {{\"calls\":1}}",
            &key[3..11]
        );
        assert_eq!(rows, [expected]);
    })
    .await;
}

#[tokio::test]
async fn wrong_keys_are_throttled_and_a_good_one_is_not() {
    over_both(&[], async |api| {
        let key = api.key("acme", &[Scope::CallsRead]).await;
        assert_eq!(api.ask("GET", "/v1/calls", Some(&key)).await.0, 200);
        let wrong = stream::iter(0..10_000).map(|_| {
            let wrong = NewKey::make();
            let request = api
                .request("GET", "/v1/calls")
                .bearer_auth(wrong.text.expose_secret());
            async move {
                let response = request.send().await.unwrap();
                (
                    response.status().as_u16(),
                    response.headers().contains_key("retry-after"),
                )
            }
        });
        let answers: Vec<_> = wrong.buffer_unordered(16).collect().await;
        let refused = answers
            .iter()
            .filter(|answer| **answer == (401, false))
            .count();
        let throttled = answers
            .iter()
            .filter(|answer| **answer == (429, true))
            .count();
        assert_eq!(refused + throttled, 10_000, "{answers:?}");
        assert!(throttled > 9_900, "{throttled}");
        assert_eq!(
            api.ask("GET", "/v1/calls", Some(&key)).await.0,
            200,
            "it is good all the time"
        );
        let (status, _) = api.ask("GET", "/v1/calls", None).await;
        assert_eq!(status, 429);
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_refused_within_ten_seconds() {
    over_both(&[], async |api| {
        let key = api.key("acme", &[Scope::CallsRead]).await;
        assert_eq!(api.ask("GET", "/v1/calls", Some(&key)).await.0, 200);
        keys::revoke(&api.database, &key[3..11].parse().unwrap())
            .await
            .unwrap();
        let revoked = tokio::time::Instant::now();
        while api.ask("GET", "/v1/calls", Some(&key)).await.0 == 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(revoked.elapsed() < Duration::from_secs(10));
    })
    .await;
}
