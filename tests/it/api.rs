//! What a program learns of whole calls, with a key that an operator has made.

use std::process::Stdio;

use serde_json::Value;

use crate::{
    carrier::{CALLER, Reply, call_sid, ringing},
    gateway::{TestGateway, drained, eventually},
    process::command,
    redis::Redis,
};

/// Runs a command over the gateway's database; returns whether it succeeded, and what it printed.
async fn run(gateway: &TestGateway, arguments: &[&str]) -> (bool, String) {
    run_with(gateway, &[], arguments).await
}

async fn run_with(
    gateway: &TestGateway,
    settings: &[(&str, &str)],
    arguments: &[&str],
) -> (bool, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings.to_vec();
    settings.push(("DATABASE_URL", gateway.database.url()));
    let mut run = command(&settings, &directory);
    run.args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = drained(run.output()).await.unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(told).unwrap())
}

async fn ask(gateway: &TestGateway, path: &str, key: &str) -> (u16, Value) {
    let reply = Reply::to(gateway.carrier.get(path).bearer_auth(key)).await;
    (
        reply.status,
        serde_json::from_str(&reply.body).unwrap_or_default(),
    )
}

#[tokio::test]
async fn a_call_is_found_by_a_key_until_it_is_deleted() {
    let gateway = TestGateway::start().await;
    let call = gateway.ring().await.connected().await;
    call.agent_speaks().await;
    let sid = call.sid.clone();
    call.hang_up().await;
    let scopes = "calls:read,numbers:read,transcripts:read,usage:read";
    let create = [
        "keys", "create", "--tenant", "default", "--name", "crm", "--scopes", scopes,
    ];
    let (made, told) = run(&gateway, &create).await;
    let key = told.lines().next().unwrap().to_owned();
    assert!(made && key.starts_with("cg_"), "{told}");
    let (_, listed) = run(&gateway, &["keys", "list"]).await;
    assert!(
        listed.contains(&key[3..11]) && !listed.contains(&key[12..]),
        "{listed}"
    );

    eventually(async || {
        let (status, page) = ask(&gateway, "/v1/calls?state=ended", &key).await;
        status == 200 && page["calls"][0]["carrier_call_id"] == sid.as_str()
    })
    .await;
    let number = CALLER.replace('+', "%2B");
    let (_, page) = ask(&gateway, &format!("/v1/calls?number={number}"), &key).await;
    let call = page["calls"][0]["call_id"].as_str().unwrap().to_owned();
    let (_, timeline) = ask(&gateway, &format!("/v1/calls/{call}/timeline"), &key).await;
    let moments = timeline["timeline"].as_array().unwrap();
    let names: Vec<&str> = moments
        .iter()
        .filter_map(|it| it["what"].as_str())
        .collect();
    assert_eq!(
        (names.first(), names.last()),
        (Some(&"admitted"), Some(&"ended")),
        "{names:?}"
    );
    let (_, usage) = ask(&gateway, "/v1/usage", &key).await;
    assert_eq!(usage["usage"][0]["calls"], 1, "{usage}");

    let (_, deleted) = run(
        &gateway,
        &["records", "delete", "--number", CALLER, "--json"],
    )
    .await;
    assert_eq!(deleted.trim(), r#"{"calls":1,"open":0,"is_complete":true}"#);
    assert_eq!(
        ask(&gateway, &format!("/v1/calls/{call}"), &key).await.0,
        404
    );
    assert_eq!(
        gateway.database.ask("SELECT COUNT(*) FROM steps").await,
        ["0"]
    );
    let (revoked, told) = run(&gateway, &["keys", "revoke", &key[3..11]]).await;
    assert!(revoked, "{told}");
    let audit = "SELECT actor, action, target FROM audit ORDER BY entry";
    let id = &key[3..11];
    let expected = [
        format!("operator keys.create {id}"),
        "operator records.delete number +9*******4567".to_owned(),
        format!("operator keys.revoke {id}"),
    ];
    assert_eq!(gateway.database.ask(audit).await, expected);
    gateway.finish().await;
}

/// Whoever has written its end may have died before the slot store heard so.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_call_does_not_come_back_as_one_that_is_lost() {
    let redis = Redis::start().await;
    let url = redis.url();
    let patient = ("REDIS_TIMEOUT_MS", "1000");
    let gateway = TestGateway::with(&[("REDIS_URL", &url), patient]).await;
    let scopes = ["--scopes", "records:delete"];
    let create = ["keys", "create", "--tenant", "default", "--name", "crm"];
    let (_, told) = run(&gateway, &[&create[..], &scopes[..]].concat()).await;
    let key = told.lines().next().unwrap().to_owned();
    let number = CALLER.replace('+', "%2B");
    let path = format!("/v1/records?number={number}");
    for by_command in [false, true] {
        let call = gateway.ring().await.connected().await;
        let sid = call.sid.clone();
        call.hang_up().await;
        let unwritten = ["ZRANGE", "calls:unwritten", "0", "-1"];
        eventually(async || redis.cli(&unwritten).await.is_empty()).await;
        redis.cli(&["ZADD", "calls:unwritten", "9e15", &sid]).await;
        if by_command {
            let delete = ["records", "delete", "--number", CALLER];
            let settings = [("REDIS_URL", url.as_str())];
            let (is_done, told) = run_with(&gateway, &settings, &delete).await;
            assert!(is_done, "{told}");
        } else {
            let delete = gateway.carrier.delete(&path).bearer_auth(&key);
            assert_eq!(Reply::to(delete).await.status, 200);
        }
        assert_eq!(redis.cli(&unwritten).await, "", "{by_command}");
        assert_eq!(
            gateway.database.ask("SELECT call FROM calls").await,
            [""; 0]
        );
    }
    gateway.finish().await;
}

#[tokio::test]
async fn whoever_rang_from_an_address_is_found_by_it_and_deleted() {
    let gateway = TestGateway::start().await;
    let create = ["keys", "create", "--tenant", "default", "--name", "crm"];
    let scopes = ["--scopes", "calls:read,numbers:read"];
    let (_, told) = run(&gateway, &[&create[..], &scopes[..]].concat()).await;
    let key = told.lines().next().unwrap().to_owned();
    let sid = call_sid();
    let mut fields = ringing(&sid);
    fields.retain(|(name, _)| *name != "From");
    fields.push(("From", "sip:+972501234567@example.com"));
    let rings = gateway.carrier.webhook("/webhook/incoming_call", &fields);
    rings.await.twiml();
    gateway.status(&sid, "canceled").await;
    let path = "/v1/calls?state=ended&number=sip:%2B972501234567@example.com";
    eventually(async || {
        let (status, page) = ask(&gateway, path, &key).await;
        status == 200 && page["calls"][0]["carrier_call_id"] == sid.as_str()
    })
    .await;
    for (number, calls) in [("sip:dana@example.com", 0), (fields.last().unwrap().1, 1)] {
        let delete = ["records", "delete", "--json", "--number", number];
        let (_, deleted) = run(&gateway, &delete).await;
        let expected = format!(r#"{{"calls":{calls},"open":0,"is_complete":true}}"#);
        assert_eq!(deleted.trim(), expected, "{number}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn commands_say_what_is_wrong() {
    let gateway = TestGateway::start().await;
    for (arguments, expected) in [
        (
            &["keys", "revoke", "aaaaaaaa"][..],
            "there is no key aaaaaaaa",
        ),
        (
            &["keys", "revoke", "x"],
            "a key's id is the 8 letters and digits",
        ),
        (
            &[
                "keys", "create", "--tenant", "a", "--name", "b", "--scopes", "all",
            ],
            "a scope is one of: calls:read",
        ),
        (&["records", "delete"], "--number"),
        (
            &["records", "delete", "--number", "0501234567"],
            "its plus sign",
        ),
    ] {
        let (succeeded, told) = run(&gateway, arguments).await;
        assert!(
            !succeeded && told.contains(expected),
            "{arguments:?}: {told}"
        );
    }
    gateway.finish().await;
}
