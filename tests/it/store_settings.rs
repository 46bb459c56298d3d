//! Stores that are not fit for slots, and settings that make none: each is told at the start.

use callgate::Config;

use crate::{
    carrier::{PUBLIC_URL, TOKEN},
    gateway::drained,
    process::{Program, command},
    redis::Redis,
};

const PASSWORD: &str = "canary-of-a-password";
const PRODUCTION: &[(&str, &str)] = &[
    ("PRODUCTION", "1"),
    ("OPS_TOKEN", "operators-have-a-token"),
    ("AGENT", "openai"),
    ("OPENAI_API_KEY", "sk-test"),
    ("TICKET_SECRET", "the same on every replica"),
];

#[test]
fn a_mistake_in_the_stores_settings_is_named_and_no_password_is_shown() {
    let with_password = format!("redis://user:{PASSWORD}@redis.example.com:many/0");
    let other_scheme = format!("https://user:{PASSWORD}@redis.example.com");
    let unclosed = format!("redis://user:{PASSWORD}@[::1/0");
    let sound = format!("rediss://user:{PASSWORD}@redis.example.com:6380/1");
    let long = "x".repeat(65);
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("REDIS_URL", vec![("REDIS_URL", "nonsense")]),
        ("REDIS_URL", vec![("REDIS_URL", "localhost:6379")]),
        ("REDIS_URL", vec![("REDIS_URL", "redis://")]),
        ("REDIS_URL", vec![("REDIS_URL", &with_password)]),
        ("REDIS_URL", vec![("REDIS_URL", &other_scheme)]),
        ("REDIS_URL", vec![("REDIS_URL", &unclosed)]),
        (
            "REDIS_KEY_PREFIX",
            vec![("REDIS_URL", &sound), ("REDIS_KEY_PREFIX", "a b")],
        ),
        (
            "REDIS_KEY_PREFIX",
            vec![("REDIS_URL", &sound), ("REDIS_KEY_PREFIX", "a*")],
        ),
        (
            "REDIS_KEY_PREFIX",
            vec![("REDIS_URL", &sound), ("REDIS_KEY_PREFIX", "שלום:")],
        ),
        (
            "REDIS_KEY_PREFIX",
            vec![("REDIS_URL", &sound), ("REDIS_KEY_PREFIX", &long)],
        ),
        (
            "REDIS_KEY_PREFIX",
            vec![("REDIS_URL", &sound), ("REDIS_CLUSTER", "1")],
        ),
        (
            "REDIS_KEY_PREFIX",
            vec![
                ("REDIS_URL", &sound),
                ("REDIS_CLUSTER", "1"),
                ("REDIS_KEY_PREFIX", "gw:"),
            ],
        ),
        // Neither of these is a hash tag: each key would go its own way.
        (
            "REDIS_KEY_PREFIX",
            vec![
                ("REDIS_URL", &sound),
                ("REDIS_CLUSTER", "1"),
                ("REDIS_KEY_PREFIX", "}gw{:"),
            ],
        ),
        (
            "REDIS_KEY_PREFIX",
            vec![
                ("REDIS_URL", &sound),
                ("REDIS_CLUSTER", "1"),
                ("REDIS_KEY_PREFIX", "{}gw:"),
            ],
        ),
        (
            "REDIS_OUTAGE",
            vec![("REDIS_URL", &sound), ("REDIS_OUTAGE", "sometimes")],
        ),
        (
            "REDIS_TIMEOUT_MS",
            vec![("REDIS_URL", &sound), ("REDIS_TIMEOUT_MS", "2000")],
        ),
        (
            "EXPECTED_REPLICAS",
            vec![("REDIS_URL", &sound), ("EXPECTED_REPLICAS", "0")],
        ),
        (
            "EXPECTED_REPLICAS",
            vec![("REDIS_URL", &sound), ("EXPECTED_REPLICAS", "-3")],
        ),
        (
            "EXPECTED_REPLICAS",
            vec![("REDIS_URL", &sound), ("EXPECTED_REPLICAS", "many")],
        ),
        (
            "TICKET_SECRET",
            vec![("REDIS_URL", &sound), ("TICKET_SECRET", "short")],
        ),
    ];
    for (name, settings) in cases {
        let told = told(&settings);
        assert!(
            told.contains(&format!("\n  {name}")),
            "{name} of {settings:?} in {told}"
        );
        assert_eq!(told.matches("\n  ").count(), 1, "{settings:?}: {told}");
        assert!(!told.contains(PASSWORD), "{told}");
    }
    let cluster = [
        ("REDIS_URL", sound.as_str()),
        ("REDIS_CLUSTER", "1"),
        ("REDIS_KEY_PREFIX", "{callgate}:"),
    ];
    assert_eq!(told(&cluster), "");
}

#[test]
fn replicas_in_production_must_share_what_signs_their_tickets() {
    let mut settings = PRODUCTION.to_vec();
    settings.retain(|(name, _)| *name != "TICKET_SECRET");
    assert_eq!(told(&settings), "", "one alone makes its own");
    settings.push(("REDIS_URL", "redis://127.0.0.1:6379/0"));
    let told = told(&settings);
    assert!(told.contains("\n  TICKET_SECRET: not set"), "{told}");
}

/// Returns what is said about settings; nothing if there is nothing to say.
fn told(settings: &[(&str, &str)]) -> String {
    let defaults = [("PUBLIC_URL", PUBLIC_URL), ("TWILIO_AUTH_TOKEN", TOKEN)];
    let config = Config::load(|name| {
        let mut set = settings.iter().chain(&defaults);
        let found = set.find(|(key, _)| *key == name);
        found.map(|(_, value)| (*value).to_owned())
    });
    config
        .err()
        .map_or(String::new(), |error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_evicts_keys_stops_a_start_in_production() {
    let redis = Redis::start().await;
    redis
        .cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    let url = redis.url();
    let directory = tempfile::tempdir().unwrap();
    let mut settings = PRODUCTION.to_vec();
    settings.push(("REDIS_URL", &url));
    // Nobody is there, which holds up no start.
    settings.push(("DATABASE_URL", "postgres://127.0.0.1:9/records"));
    let output = drained(command(&settings, &directory).output())
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    let told = String::from_utf8(output.stderr).unwrap();
    // Not always the last line: whoever connects to the database may still say something.
    let line = told.lines().find(|line| line.contains("allkeys-lru"));
    for word in ["REDIS_URL", "noeviction"] {
        assert!(line.is_some_and(|line| line.contains(word)), "{told}");
    }
    // Outside production it is somebody's own Redis: they are told, and served.
    let mut program = Program::start(&[("REDIS_URL", &url)]).await;
    let log = program.log();
    let line = log.lines().find(|line| line.contains("allkeys-lru"));
    assert!(
        line.is_some_and(|line| line.contains("noeviction")),
        "{log}"
    );
    assert!(log.contains("TICKET_SECRET is not set"), "{log}");
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_used_yet_is_told_of_and_waited_for() {
    let redis = Redis::start().await;
    redis.cli(&["CONFIG", "SET", "requirepass", PASSWORD]).await;
    let wrong = format!("redis://:{PASSWORD}-no@127.0.0.1:{}/0", redis.port());
    // The wrong password, none at all, and a server that only listens.
    let hollow = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("redis://:{PASSWORD}@{}/0", hollow.local_addr().unwrap());
    for url in [wrong, redis.url(), silent] {
        let mut program = Program::start(&[("REDIS_URL", &url)]).await;
        let log = program.log();
        assert!(
            log.contains("cannot look at the slot store (REDIS_URL)"),
            "{log}"
        );
        program.terminate();
        assert_eq!(program.ended().await.code(), Some(0));
        assert!(!program.log().contains(PASSWORD), "{}", program.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_a_replica_is_told_of() {
    let redis = Redis::start().await;
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let mut program = Program::start(&[("REDIS_URL", &redis.url())]).await;
    let log = program.log();
    assert!(log.contains("read-only replica"), "{log}");
    program.terminate();
    assert_eq!(program.ended().await.code(), Some(0));
}
