//! What `callgate check` finds of others: the way in, carriers, stores, clocks, and whom we tell.

use std::{fs, path::Path, process::Stdio};

use callgate::{
    Script,
    fake_acs::{FakeAcs, FakeAcsOptions},
    fake_twilio::{Customer, FakeTwilio, FakeTwilioOptions, Talk},
    parrot::{Fault, Parrot, ParrotOptions},
};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    task::spawn_blocking,
};

use crate::{
    audio::voices,
    carrier::{ACCOUNT, TOKEN},
    check::{SECRET, check, line},
    gateway::{TestGateway, eventually, free_address},
    line::GUARD,
    postgres_server::PostgresServer,
    redis_server::RedisServer,
    rest::{Act, RestServer},
};

/// nginx as the sample configures it before one replica, without the lines that have `less` in them.
struct Nginx(Child);

impl Nginx {
    async fn start(folder: &Path, listen: &str, replica: &str, less: Option<&str>) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/nginx-conf");
        let mut made = Command::new(script);
        let made = made.arg(folder).args([listen, replica]);
        let made = made.output().await.unwrap();
        assert!(made.status.success(), "{made:?}");
        let sample = String::from_utf8(made.stdout).unwrap();
        let kept = sample
            .lines()
            .filter(|line| less.is_none_or(|less| !line.contains(less)));
        let file = folder.join("nginx.conf");
        fs::write(&file, kept.collect::<Vec<_>>().join("\n")).unwrap();
        let mut nginx = Command::new("nginx");
        nginx
            .arg("-c")
            .arg(&file)
            .arg("-e")
            .arg(folder.join("nginx-error.log"));
        nginx.args(["-g", "daemon off; master_process off;"]);
        let child = nginx
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        eventually(async || TcpStream::connect(listen).await.is_ok()).await;
        Self(child)
    }

    async fn stop(mut self) {
        self.0.kill().await.unwrap();
    }
}

#[tokio::test]
async fn the_way_in_is_tried_with_what_a_carrier_would_sign() {
    let listen = free_address();
    let url = format!("http://{listen}");
    let settings = [("LISTEN", listen.as_str()), ("PUBLIC_URL", url.as_str())];
    let gateway = TestGateway::with(&settings).await;
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "ok       way of webhooks: a request that is signed");
    line(&told, "ok       way of media: a WebSocket comes through");
    line(&told, "ok       clock of 127.0.0.1: ");
    for (wrong, found) in [
        (
            [("TWILIO_AUTH_TOKEN", "another-token-than-the-gateways")].as_slice(),
            "error    way of webhooks: a request that is signed for PUBLIC_URL is refused",
        ),
        (
            &[("PUBLIC_URL", &format!("{url}/voice"))],
            "error    way in: whoever answers at PUBLIC_URL is no gateway (status 404",
        ),
        (
            &[("TWILIO_AUTH_TOKEN", "")],
            "ok       way in: a gateway answers at PUBLIC_URL",
        ),
        (
            &[
                ("TWILIO_AUTH_TOKEN", ""),
                (
                    "TWILIO_SHARED_KEYS",
                    "webhooks_sharedkey_1=a-secret-of-ours",
                ),
            ],
            "warning  way of webhooks: not tried, nor is the way of media",
        ),
    ] {
        let (code, told) = check(&[settings.as_slice(), wrong].concat(), &[]).await;
        assert_eq!(code, Some(i32::from(found.starts_with("error"))), "{told}");
        line(&told, found);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_proxy_that_strips_upgrades_is_told_from_one_that_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (door, listen) = (free_address(), free_address());
    let url = format!("http://{door}");
    let settings = [("LISTEN", listen.as_str()), ("PUBLIC_URL", url.as_str())];
    let gateway = TestGateway::with(&settings).await;
    let nginx = Nginx::start(folder.path(), &door, &listen, None).await;
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "ok       way of webhooks: ");
    line(&told, "ok       way of media: ");
    nginx.stop().await;
    let less = Some("proxy_set_header Upgrade");
    let nginx = Nginx::start(folder.path(), &door, &listen, less).await;
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    line(&told, "ok       way of webhooks: ");
    line(
        &told,
        "error    way of media: a WebSocket arrives as a plain request",
    );
    nginx.stop().await;
    gateway.finish().await;
}

#[tokio::test]
async fn the_way_of_media_is_tried_as_acs_takes_it_where_acs_alone_is_open() {
    let acs = FakeAcs::start(FakeAcsOptions::on_a_free_port())
        .await
        .unwrap();
    let environment = acs.environment();
    let folder = tempfile::tempdir().unwrap();
    let (door, listen) = (free_address(), free_address());
    let url = format!("http://{door}");
    let own = [
        ("LISTEN", listen.as_str()),
        ("PUBLIC_URL", url.as_str()),
        ("TWILIO_AUTH_TOKEN", ""),
    ];
    let of_acs = environment.iter();
    let of_acs = of_acs.map(|(name, value)| (*name, value.as_str()));
    let settings: Vec<_> = of_acs
        .filter(|(name, _)| *name != "PUBLIC_URL")
        .chain(own)
        .collect();
    let gateway = TestGateway::with(&settings).await;
    let nginx = Nginx::start(folder.path(), &door, &listen, None).await;
    let (_, told) = check(&settings, &[]).await;
    line(&told, "ok       way of media: a WebSocket comes through");
    nginx.stop().await;
    let less = Some("proxy_set_header Upgrade");
    let nginx = Nginx::start(folder.path(), &door, &listen, less).await;
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    line(
        &told,
        "error    way of media: a WebSocket arrives as a plain request (status 426)",
    );
    nginx.stop().await;
    // One that forbids it is not taken for the gateway.
    let server = RestServer::start(&[]).await;
    // Its clock is looked at, too.
    server.then(&Act::Answer(200, "", r#"{"status":"alive"}"#), 2);
    server.then(&Act::Answer(403, "", ""), 4);
    let forbids = settings.iter().filter(|(name, _)| *name != "PUBLIC_URL");
    let forbids: Vec<_> = forbids
        .copied()
        .chain([("PUBLIC_URL", server.url.as_str())])
        .collect();
    let (code, told) = check(&forbids, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    line(&told, "error    way of media: a WebSocket gets status 403");
    gateway.finish().await;
    acs.stop().await;
}

#[tokio::test]
async fn who_answers_in_a_gateways_place_is_found_out() {
    let elsewhere = Act::Answer(301, "Location: https://voice.example.com/x\r\n", "");
    let long_ago = Act::Answer(200, "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n", "{}");
    for (act, found) in [
        (
            elsewhere,
            "error    way in: PUBLIC_URL redirects to https://voice.example.com (status 301)",
        ),
        (
            long_ago.clone(),
            "error    way in: whoever answers at PUBLIC_URL is no gateway (status 200",
        ),
        (long_ago, "error    clock of 127.0.0.1: it is "),
    ] {
        let server = RestServer::start(&[]).await;
        server.then(&act, 4);
        let (code, told) = check(&[("PUBLIC_URL", &server.url)], &[]).await;
        assert_eq!(code, Some(1), "{told}");
        line(&told, found);
    }
    let nobody = format!("http://{}", free_address());
    let (code, told) = check(&[("PUBLIC_URL", &nobody)], &[]).await;
    assert_eq!(
        code,
        Some(0),
        "before the first start nobody answers: {told}"
    );
    line(&told, "warning  way in: nobody answers at PUBLIC_URL");
    let proxy = RestServer::start(&[]).await;
    proxy.then(&Act::Answer(502, "", ""), 4);
    let (code, told) = check(&[("PUBLIC_URL", &proxy.url)], &[]).await;
    assert_eq!(code, Some(0), "nor behind a proxy: {told}");
    line(
        &told,
        "warning  way in: a proxy answers at PUBLIC_URL (status 502)",
    );
}

#[tokio::test]
async fn twilio_is_asked_for_a_list_that_credentials_open_or_do_not() {
    let customer = Customer {
        gateway: "http://127.0.0.1:1".parse().unwrap(),
        public: None,
        auth_token: Some(TOKEN.into()),
        account_sid: ACCOUNT.to_owned(),
    };
    let talk = Talk {
        script: Script::Talk,
        talk_for: GUARD,
        voices: voices(),
    };
    let twilio = FakeTwilio::start(FakeTwilioOptions::default(), customer, talk, None);
    let twilio = twilio.await.unwrap();
    let url = twilio.url();
    let settings = [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_API_BASE", url.as_str()),
    ];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "ok       twilio's API: ");
    line(&told, "ok       clock of 127.0.0.1: ");
    let key = [
        ("TWILIO_API_KEY_SID", "SK00000000000000000000000000000001"),
        ("TWILIO_API_KEY_SECRET", SECRET),
    ];
    let (code, told) = check(&[settings.as_slice(), &key].concat(), &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(line(&told, "error    twilio's API: ").contains("(20003: are TWILIO_ACCOUNT_SID"));
    line(&told, "ok       twilio's auth token: ");
    assert_eq!(twilio.calls().len(), 0, "nobody is called");
    twilio.stop().await;
}

#[tokio::test]
async fn acs_is_asked_after_a_call_that_there_is_not() {
    let acs = FakeAcs::start(FakeAcsOptions::on_a_free_port())
        .await
        .unwrap();
    let environment = acs.environment();
    let settings: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "ok       acs: it takes our credentials");
    let other = format!(
        "endpoint={}/;accesskey=c2stY2FuYXJ5LW9mLXRoZS1jaGVjaw==",
        acs.url()
    );
    let other = [settings.as_slice(), &[("ACS_CONNECTION_STRING", &other)]].concat();
    let (code, told) = check(&other, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    line(&told, "error    acs: ACS does not know the credentials");
    acs.stop().await;
}

#[tokio::test]
async fn an_agent_that_does_not_take_the_key_is_told_from_one_that_is_away() {
    for (fault, found) in [
        (Fault::Unauthorized, "does not take our credentials"),
        (Fault::WrongFormat, "is not ready to talk"),
        (
            Fault::HangSession,
            "cannot be reached: the agent was not ready",
        ),
    ] {
        let options = ParrotOptions {
            listen: ([127, 0, 0, 1], 0).into(),
            fault: Some(fault),
            ..ParrotOptions::default()
        };
        let agent = Parrot::start(options).await.unwrap();
        let url = agent.url();
        let settings = [
            ("AGENT", "openai"),
            ("OPENAI_API_KEY", SECRET),
            ("OPENAI_REALTIME_URL", url.as_str()),
        ];
        let (code, told) = check(&settings, &[]).await;
        assert_eq!(code, Some(1), "{told}");
        assert!(
            line(&told, "error    agent default: ").contains(found),
            "{told}"
        );
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_redis_user_without_a_right_is_found_before_a_call_finds_it() {
    let redis = spawn_blocking(|| {
        let redis = RedisServer::start();
        redis.ask::<()>("ACL SETUSER callgate on >secret ~calls:* -@all +info +time +zcount");
        redis
    });
    let redis = redis.await.unwrap();
    let url = redis.url_as("callgate", "secret");
    // What a call waits for the store is no time for a machine that does much else.
    let patient = ("REDIS_TIMEOUT_MS", "1000");
    let (code, told) = check(&[("REDIS_URL", &url), patient], &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(line(&told, "error    slots: ").contains("the ACL rule that it takes"));
    let (code, told) = check(&[("REDIS_URL", &redis.url()), patient], &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "ok       slots: redis ");
    line(&told, "ok       clock of Redis: ");
    line(&told, "ok       EXPECTED_REPLICAS: 0 replicas live");
}

#[tokio::test]
async fn more_replicas_than_are_expected_are_counted() {
    let redis = spawn_blocking(RedisServer::start).await.unwrap();
    let url = redis.url();
    let settings = [
        ("REDIS_URL", url.as_str()),
        ("TICKET_SECRET", "the same on every replica"),
        ("REDIS_TIMEOUT_MS", "1000"),
    ];
    let (one, two) = (
        TestGateway::with(&settings).await,
        TestGateway::with(&settings).await,
    );
    eventually(async || two.detail("replicas").await == 2).await;
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(
        &told,
        "warning  EXPECTED_REPLICAS: 2 replicas live, and it is 1",
    );
    one.finish().await;
    two.finish().await;
}

#[tokio::test]
async fn a_database_says_whether_it_is_up_to_date_and_takes_rows() {
    let gateway = TestGateway::start().await;
    let settings = [("DATABASE_URL", gateway.database.url())];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "ok       database: it is up to date, and takes rows");
    line(&told, "ok       clock of the database: ");
    let forget = "DELETE FROM _sqlx_migrations WHERE version = 5";
    gateway.database.ask(forget).await;
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "warning  database: 1 migrations are pending");
    let spoil = "UPDATE _sqlx_migrations SET success = FALSE WHERE version = 4";
    gateway.database.ask(spoil).await;
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    line(&told, "error    database: its migrations [4] are not ours");
    gateway.finish().await;
}

#[tokio::test]
async fn a_postgres_that_is_new_read_only_or_away_is_told_apart() {
    let started = spawn_blocking(|| {
        let postgres = PostgresServer::start();
        let url = postgres.database("checked");
        (postgres, url)
    });
    let (postgres, url) = started.await.unwrap();
    let settings = [("DATABASE_URL", url.as_str())];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(line(&told, "warning  database: ").contains(" migrations are pending"));
    line(&told, "ok       clock of the database: ");
    let postgres = spawn_blocking(move || {
        postgres.run(
            "checked",
            "ALTER DATABASE checked SET default_transaction_read_only = on",
        );
        postgres
    });
    let postgres = postgres.await.unwrap();
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(line(&told, "error    database: it does not let us write").contains("read-only"));
    spawn_blocking(move || postgres.kill()).await.unwrap();
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(1), "{told}");
    line(&told, "error    database: the database cannot be used");
}

#[tokio::test]
async fn a_database_file_that_is_not_there_is_not_made_by_looking() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new.db");
    let url = format!("sqlite://{}", file.display());
    let (code, told) = check(&[("DATABASE_URL", &url)], &[]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(line(&told, "ok       database: ").ends_with("is made by the first start"));
    assert!(!file.exists());
    let (code, told) = check(&[("DATABASE_URL", "sqlite:///nowhere/new.db")], &[]).await;
    assert_eq!(code, Some(1), "{told}");
    line(&told, "error    database: /nowhere/new.db cannot be made");
}

#[tokio::test]
async fn the_grace_there_is_has_to_hold_the_drain() {
    let (code, told) = check(&[], &["--grace", "60"]).await;
    assert_eq!(code, Some(1), "{told}");
    line(
        &told,
        "error    DRAIN_SECONDS: 300 s, and the platform kills after 60 s: give it 335 s, or set \
         DRAIN_SECONDS to 25 at most",
    );
    let settings = [("TERMINATION_GRACE_SECONDS", "335")];
    let (code, told) = check(&settings, &[]).await;
    assert_eq!(code, Some(0), "{told}");
    line(&told, "ok       DRAIN_SECONDS: 335 s of grace are enough");
    assert_eq!(check(&settings, &["--grace", "334"]).await.0, Some(1));
    let production = [
        ("PRODUCTION", "1"),
        ("OPS_TOKEN", SECRET),
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", SECRET),
        ("OPENAI_REALTIME_URL", "wss://127.0.0.1:1/"),
    ];
    let (_, told) = check(&production, &[]).await;
    line(
        &told,
        "warning  DRAIN_SECONDS: not compared: set TERMINATION_GRACE_SECONDS",
    );
}

#[tokio::test]
async fn where_tenants_are_told_has_to_be_found_and_allowed() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (url, found) in [
        (
            "https://localhost:9000/h",
            "ok       events of default: https://localhost:9000 may",
        ),
        (
            "https://nobody.invalid/h",
            "error    events of default: https://nobody.invalid has no address",
        ),
    ] {
        let settings = [
            ("EVENTS_URL", url),
            ("EVENTS_SECRET", secret),
            ("GUARD_ALLOW", "localhost:9000"),
        ];
        let (code, told) = check(&settings, &[]).await;
        assert_eq!(code, Some(i32::from(found.starts_with("error"))), "{told}");
        line(&told, found);
        assert!(!told.contains("/h"), "the path may be a secret: {told}");
    }
}
