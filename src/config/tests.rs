mod page;

use std::{cell::RefCell, collections::BTreeSet};

use super::*;
use crate::event::{Endpoint, Payload, ToldNumbers};

fn load(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(|name| {
        let setting = settings.iter().find(|(set, _)| *set == name);
        setting.map(|(_, value)| (*value).to_owned())
    })
}

const PRODUCTION: &[(&str, &str)] = &[
    ("PRODUCTION", "1"),
    ("PUBLIC_URL", "https://voice.example.com"),
    ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
    ("AGENT", "openai"),
    ("OPENAI_API_KEY", "sk-very-secret"),
    ("OPS_TOKEN", "an-operators-very-secret-token"),
];

fn production(changed: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let kept = PRODUCTION
        .iter()
        .filter(|(name, _)| changed.iter().all(|(other, _)| name != other));
    load(&kept.chain(changed).copied().collect::<Vec<_>>())
}

#[test]
fn there_are_as_many_replicas_at_least_as_at_most_unless_it_is_said() {
    let set = load(&[("EXPECTED_REPLICAS", "3")]).unwrap();
    assert_eq!(set.store.least_replicas, 3);
    let scaled = load(&[("EXPECTED_REPLICAS", "3"), ("LEAST_REPLICAS", "2")]).unwrap();
    assert_eq!(scaled.store.least_replicas, 2);
    let more = load(&[("EXPECTED_REPLICAS", "2"), ("LEAST_REPLICAS", "3")]).unwrap_err();
    assert_eq!(
        more.rule("LEAST_REPLICAS"),
        Some("at most EXPECTED_REPLICAS")
    );
}

#[test]
fn nothing_set_is_a_gateway_to_try() {
    let config = load(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:5050");
    assert_eq!(config.agent.kind, AgentKind::Parrot);
    assert_eq!(config.caps.global, 50);
    assert_eq!(config.caps.lease, Duration::from_secs(30));
    assert_eq!(config.drain, Duration::from_secs(300));
    assert!(!config.twilio.is_open());
    assert_eq!(config.warnings, [""; 0]);
}

#[test]
fn one_failed_start_names_every_bad_setting() {
    let error = load(&[
        ("LISTEN", "everywhere"),
        ("PUBLIC_URL", "voice.example.com"),
        ("MAX_ACTIVE_CALLS", "many"),
        ("MAX_CONNECTIONS", "2000000"),
        ("DRAIN_SECONDS", "-3"),
        ("AGENT", "robot"),
        ("AGENT_TURN_DETECTION", "guess"),
        ("LOG_FORMAT", "xml"),
        ("DEFAULT_LANGUAGE", "Hebrew, please"),
        ("CALLS_CAPACITY_LOG_LEVEL", "LOUD"),
        ("CALLS_OVER_CAPACITY_BEHAVIOR", "hang up"),
        ("VOICEMAIL_MAX_SECONDS", "4"),
        ("OPS_TOKEN", "short"),
        ("TWILIO_ACCOUNT_SID", "12"),
        ("TWILIO_SHARED_KEYS", "secret-without-id"),
        ("EVENTS_URL", "https://user:secret@hooks.example.com/"),
        ("EVENTS_SECRET", "whsec_c2VjcmV0"),
        ("EVENTS_RETRY_SECONDS", "5, soon"),
        ("GUARD_PORTS", "8443,0"),
        ("GUARD_ALLOW", "localhost"),
        ("EGRESS_PROXY", "proxy:3128"),
        ("OPENAI_API_KEY_FILE", "/nonexistent/key"),
        ("REDIS_URL", "redis://operator:secret@not an address"),
        ("REDIS_KEY_PREFIX", "two words"),
        ("REDIS_OUTAGE", "perhaps"),
        ("EXPECTED_REPLICAS", "0"),
        ("PRODUCTION", "perhaps"),
    ])
    .unwrap_err()
    .to_string();
    insta::assert_snapshot!(error, @r#"
    27 settings are wrong:
      PRODUCTION="perhaps": 1 or 0
      LISTEN="everywhere": an address and a port, such as 127.0.0.1:5050
      REDIS_KEY_PREFIX="two words": at most 64 letters, digits and { } : _ - .
      REDIS_URL: the address of a Redis: redis://host:6379/0, or rediss://… with TLS
      REDIS_OUTAGE="perhaps": bounded, open or closed
      EXPECTED_REPLICAS="0": a whole number from 1 to 1000
      TWILIO_SHARED_KEYS: pairs of a key's id and its secret: webhooks_sharedkey_…=secret
      TWILIO_ACCOUNT_SID="12": AC and 32 hexadecimal digits, as the console shows it
      GUARD_PORTS="0": ports, with commas
      GUARD_ALLOW="localhost": hosts with a port, or ranges of addresses, with commas: localhost:9000,127.0.0.0/8
      EGRESS_PROXY="proxy:3128": an http address of nothing but a host and a port, such as http://proxy:3128
      PUBLIC_URL="voice.example.com": the https address that carriers reach us at, without a query
      DEFAULT_LANGUAGE="Hebrew, please": a language tag, such as he-IL
      DRAIN_SECONDS="-3": a whole number from 0 to 86400
      LOG_FORMAT="xml": text or json
      AGENT="robot": parrot, openai, azure_openai or voice_live
      OPENAI_API_KEY_FILE="/nonexistent/key": a readable file: No such file or directory (os error 2)
      AGENT_TURN_DETECTION="guess": server_vad, semantic_vad or azure_semantic_vad
      MAX_ACTIVE_CALLS="many": a whole number, at most 1000000
      MAX_CONNECTIONS="2000000": a whole number, at most 1000000
      CALLS_CAPACITY_LOG_LEVEL="LOUD": DEBUG, INFO, WARNING or ERROR
      CALLS_OVER_CAPACITY_BEHAVIOR="hang up": reject, voicemail or whatsapp
      VOICEMAIL_MAX_SECONDS="4": a whole number from 5 to 3600
      EVENTS_SECRET: whsec_ and the base64 of 24 to 64 bytes: whsec_$(openssl rand -base64 32)
      EVENTS_URL: has a user or a password: it takes https://, a public host, and port 443
      EVENTS_RETRY_SECONDS="5, soon": at most 50 pauses between tries, in whole seconds up to 604800, with commas
      OPS_TOKEN: too short: at least 16 characters, best from a generator
    "#);
    assert!(!error.contains("short\"") && !error.contains("secret-without-id"));
}

#[test]
fn the_numbers_are_in_the_campaign_file_where_there_is_one() {
    let numbers = ("TWILIO_NUMBERS", "+97221234567");
    assert!(load(&[numbers]).is_ok());
    let error = load(&[numbers, ("CALLGATE_CONFIG", "callgate.toml")]).unwrap_err();
    insta::assert_snapshot!(error, @r"
    1 setting is wrong:
      TWILIO_NUMBERS: not beside CALLGATE_CONFIG: put the numbers into that file
    ");
}

#[test]
fn production_refuses_what_is_insecure() {
    assert!(production(&[]).is_ok());
    for (changed, complaint) in [
        (("TWILIO_AUTH_TOKEN", ""), "TWILIO_AUTH_TOKEN: not set"),
        (("PUBLIC_URL", ""), "PUBLIC_URL: not set"),
        (
            ("PUBLIC_URL", "http://voice.example.com"),
            "PUBLIC_URL=\"http:",
        ),
        (("AGENT", "parrot"), "the parrot is no agent"),
        (("AGENT", ""), "the parrot is no agent"),
        (("OPS_TOKEN", ""), "OPS_TOKEN: not set"),
        (("OPENAI_API_KEY", ""), "OPENAI_API_KEY: not set"),
        (
            ("OPENAI_REALTIME_URL", "ws://agent.example.com/"),
            "a wss:// address",
        ),
    ] {
        let error = production(&[changed]).unwrap_err().to_string();
        assert!(error.contains(complaint), "{changed:?}: {error}");
    }
}

const WHATSAPP: &[(&str, &str)] = &[
    ("CALLS_OVER_CAPACITY_BEHAVIOR", "whatsapp"),
    ("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000001"),
    ("WHATSAPP_FROM", "whatsapp:+972721234567"),
    (
        "WHATSAPP_TEMPLATE_SID",
        "HX00000000000000000000000000000001",
    ),
];

#[test]
fn whoever_wants_to_write_to_callers_is_told_everything_that_is_missing() {
    let error = load(&[("CALLS_OVER_CAPACITY_BEHAVIOR", "whatsapp")]).unwrap_err();
    insta::assert_snapshot!(error, @"
    4 settings are wrong:
      TWILIO_ACCOUNT_SID: not set (CALLS_OVER_CAPACITY_BEHAVIOR=whatsapp needs it)
      TWILIO_AUTH_TOKEN: not set (CALLS_OVER_CAPACITY_BEHAVIOR=whatsapp needs it, or TWILIO_API_KEY_SID and TWILIO_API_KEY_SECRET)
      WHATSAPP_FROM: not set (CALLS_OVER_CAPACITY_BEHAVIOR=whatsapp needs it, or WHATSAPP_MESSAGING_SERVICE_SID)
      WHATSAPP_TEMPLATE_SID: not set (CALLS_OVER_CAPACITY_BEHAVIOR=whatsapp needs it)
    ");
    // Nobody else needs them.
    for behavior in ["reject", "voicemail"] {
        let config = load(&[("CALLS_OVER_CAPACITY_BEHAVIOR", behavior)]).unwrap();
        assert!(config.refusal.whatsapp.is_err());
    }
    assert!(production(WHATSAPP).unwrap().refusal.whatsapp.is_ok());
}

#[test]
fn what_cannot_write_to_callers_is_refused() {
    const KEY: &str = "SK00000000000000000000000000000001";
    const SERVICE: &str = "MG00000000000000000000000000000001";
    for (name, value, complaint) in [
        (
            "TWILIO_API_BASE",
            "http://api.twilio.com",
            "an https address of twilio.com",
        ),
        (
            "TWILIO_API_BASE",
            "https://twilio.com.example.com",
            "an https address of twilio.com",
        ),
        (
            "TWILIO_API_BASE",
            "https://nottwilio.com",
            "an https address of twilio.com",
        ),
        (
            "TWILIO_API_BASE",
            "https://a:canary@api.twilio.com",
            "without user",
        ),
        ("TWILIO_API_KEY_SID", KEY, "TWILIO_API_KEY_SECRET: not set"),
        (
            "TWILIO_API_KEY_SECRET",
            "canary",
            "TWILIO_API_KEY_SID: not set",
        ),
        ("WHATSAPP_FROM", "0721234567", "a number in E.164"),
        (
            "WHATSAPP_MESSAGING_SERVICE_SID",
            SERVICE,
            "only one of them can send",
        ),
        (
            "WHATSAPP_TEMPLATE_SID",
            "hello_world",
            "HX and 32 hexadecimal digits",
        ),
        ("WHATSAPP_TEMPLATE_VARIABLES", "[1]", "a JSON object"),
        ("WHATSAPP_TEMPLATE_VARIABLES", "{}", "a JSON object"),
        (
            "WHATSAPP_TEMPLATE_VARIABLES",
            r#"{"1":""}"#,
            "a JSON object",
        ),
        (
            "WHATSAPP_TEMPLATE_VARIABLES",
            r#"{"1":"a\nb"}"#,
            "a JSON object",
        ),
        (
            "WHATSAPP_TEMPLATE_VARIABLES",
            r#"{"1":"a     b"}"#,
            "a JSON object",
        ),
        (
            "WHATSAPP_TEMPLATE_VARIABLES",
            r#"{"a b":"c"}"#,
            "a JSON object",
        ),
    ] {
        let mut settings: Vec<_> = WHATSAPP
            .iter()
            .filter(|(set, _)| *set != name)
            .copied()
            .collect();
        settings.push((name, value));
        let error = production(&settings).unwrap_err().to_string();
        assert!(error.contains(complaint), "{name}={value}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
    for base in [
        "https://api.twilio.com/",
        "https://api.dublin.ie1.twilio.com",
    ] {
        let settings = [WHATSAPP, &[("TWILIO_API_BASE", base)]].concat();
        assert!(production(&settings).is_ok(), "{base}");
    }
}

#[test]
fn voice_live_needs_an_address_and_one_kind_of_credentials() {
    const URL: (&str, &str) = (
        "VOICE_LIVE_URL",
        "wss://acme.cognitiveservices.azure.com/voice-live/realtime",
    );
    const KEY: (&str, &str) = ("VOICE_LIVE_API_KEY", "canary");
    const SECRET: (&str, &str) = ("VOICE_LIVE_CLIENT_SECRET", "canary");
    let agent = |settings: &[(&str, &str)]| {
        let mut settings = settings.to_vec();
        settings.push(("AGENT", "voice_live"));
        production(&settings)
    };
    let config = agent(&[URL, KEY, ("OPENAI_API_KEY", "")]).unwrap();
    assert_eq!(config.agent.url.as_str(), URL.1);
    assert_eq!(config.agent.model, "gpt-realtime");
    assert_eq!(config.agent.kind.title(), "Voice Live API");
    let applications = [
        URL,
        SECRET,
        ("VOICE_LIVE_TENANT_ID", "contoso.example.com"),
        ("VOICE_LIVE_CLIENT_ID", "an-id"),
    ];
    let config = agent(&applications).unwrap();
    assert!(config.agent.key.is_none());
    assert!(!format!("{config:?}").contains("canary"));
    let entra = config.agent.voice_live.entra.unwrap();
    assert_eq!(entra.login.as_str(), "https://login.microsoftonline.com/");

    let wrong: [&[(&str, &str)]; 7] = [
        &[],
        &[URL, ("VOICE_LIVE_TENANT_ID", "a/b")],
        &[&applications[..], &[KEY]].concat(),
        &[KEY, ("VOICE_LIVE_URL", "wss://a.example.com/?model=canary")],
        &[KEY, ("VOICE_LIVE_URL", "ws://a.example.com/")],
        &[
            URL,
            KEY,
            ("VOICE_LIVE_AGENT_NAME", "clinic"),
            ("VOICE_LIVE_NOISE_SUPPRESSION", "loud"),
            ("VOICE_LIVE_ECHO_CANCELLATION", "perhaps"),
            ("ENTRA_LOGIN_URL", "http://login.example.com"),
        ],
        &[URL, KEY, ("VOICE_LIVE_PROJECT_NAME", "acme")],
    ];
    let told: String = wrong
        .iter()
        .map(|settings| agent(settings).unwrap_err().to_string() + "\n")
        .collect();
    assert!(!told.contains("canary"), "{told}");
    insta::assert_snapshot!(told, @r#"
    2 settings are wrong:
      VOICE_LIVE_URL: not set (wss://<resource>.services.ai.azure.com/voice-live/realtime)
      VOICE_LIVE_API_KEY: not set (the agent needs it, or VOICE_LIVE_TENANT_ID, VOICE_LIVE_CLIENT_ID and VOICE_LIVE_CLIENT_SECRET)
    4 settings are wrong:
      VOICE_LIVE_TENANT_ID="a/b": the id, as the portal shows it
      VOICE_LIVE_CLIENT_ID: not set (the other two need it)
      VOICE_LIVE_CLIENT_SECRET: not set (the other two need it)
      VOICE_LIVE_API_KEY: not set (the agent needs it, or VOICE_LIVE_TENANT_ID, VOICE_LIVE_CLIENT_ID and VOICE_LIVE_CLIENT_SECRET)
    1 setting is wrong:
      VOICE_LIVE_API_KEY: there are an application's credentials too: leave one of them out
    1 setting is wrong:
      VOICE_LIVE_URL: a wss:// address, without user, password or query
    1 setting is wrong:
      VOICE_LIVE_URL="ws://a.example.com/": a wss:// address, without user, password or query
    4 settings are wrong:
      ENTRA_LOGIN_URL="http://login.example.com/": an https address of microsoftonline.com or microsoftonline.us, without user, password or query
      VOICE_LIVE_PROJECT_NAME: not set (VOICE_LIVE_AGENT_NAME needs it)
      VOICE_LIVE_NOISE_SUPPRESSION="loud": azure_deep_noise_suppression or none
      VOICE_LIVE_ECHO_CANCELLATION="perhaps": 1 or 0
    1 setting is wrong:
      VOICE_LIVE_AGENT_NAME: not set (VOICE_LIVE_PROJECT_NAME is of no use without)
    "#);
    let turns = [("AGENT_TURN_DETECTION", "azure_semantic_vad")];
    let error = production(&turns).unwrap_err().to_string();
    assert!(error.ends_with("known to voice_live only"), "{error}");
}

#[test]
fn zero_and_negative_caps_mean_the_default_and_are_warned_of() {
    for value in ["0", "-5"] {
        let config = load(&[("MAX_ACTIVE_CALLS", value)]).unwrap();
        assert_eq!(config.caps.global, 50);
        assert!(config.warnings[0].contains("no \"unlimited\""));
    }
}

#[test]
fn the_smaller_of_two_names_for_the_global_cap_counts() {
    let both = [
        ("MAX_ACTIVE_CALLS", "40"),
        ("TELEPHONY_GLOBAL_MAX_CONCURRENCY", "30"),
    ];
    let config = load(&both).unwrap();
    assert_eq!(config.caps.global, 30);
    assert!(config.warnings[0].ends_with("TELEPHONY_GLOBAL_MAX_CONCURRENCY counts"));
    assert_eq!(
        load(&[("MAX_CONCURRENT_CALLS", "7")]).unwrap().caps.global,
        7
    );
    let beside = [("MAX_CONCURRENT_CALLS", "7"), ("MAX_ACTIVE_CALLS", "40")];
    assert_eq!(load(&beside).unwrap().caps.global, 40);
    assert_eq!(production(&[]).unwrap().caps.global, 15);
}

#[test]
fn a_cap_that_cannot_be_reached_is_warned_of() {
    let settings = [
        ("MAX_ACTIVE_CALLS", "200"),
        ("MAX_CALLS_PER_TENANT", "300"),
        ("MAX_CONNECTIONS", "150"),
    ];
    let config = load(&settings).unwrap();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    let config = load(&settings[..1]).unwrap();
    assert_eq!(
        config.caps.connections, 200,
        "unset, it is no narrower than the calls"
    );
}

#[test]
fn a_lease_lasts_half_a_minute_at_most() {
    for (bound, seconds) in [("3600", 30), ("20", 20), ("3", 15), ("0", 15)] {
        let config = load(&[("TELEPHONY_SEMAPHORE_TTL_SEC", bound)]).unwrap();
        assert_eq!(config.caps.lease, Duration::from_secs(seconds));
    }
}

#[test]
fn secrets_come_from_files_too_and_never_show() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "token-one-of-two, token-two-of-two\n").unwrap();
    let path = file.path().to_str().unwrap();
    let config = production(&[("TWILIO_AUTH_TOKEN", ""), ("TWILIO_AUTH_TOKEN_FILE", path)]);
    let config = config.unwrap();
    assert_eq!(config.twilio.auth_tokens.len(), 2);
    let shown = format!("{config:?}");
    for secret in ["token-one", "sk-very-secret", "an-operators"] {
        assert!(!shown.contains(secret));
    }
}

#[test]
fn without_a_file_the_default_tenant_may_have_one_endpoint() {
    const SECRETS: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, \
                           whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let endpoint = [
        ("EVENTS_URL", "https://hooks.example.com/a?token=hidden"),
        ("EVENTS_SECRET", SECRETS),
    ];
    let config = production(&endpoint).unwrap();
    let shown = format!("{config:?}");
    assert!(!shown.contains("hidden") && !shown.contains("MfKQ"));
    let endpoints = config.inherited().endpoints;
    let own = &endpoints[&crate::campaign::Name::default_name()];
    assert_eq!(own.len(), 1);
    assert!(own[0].kinds.iter().all(|kind| !kind.is_transcript()));
    assert_eq!(own[0].kinds.len(), 5);
    let told_all = [&endpoint[..], &[("EVENTS_TRANSCRIPTS", "1")]].concat();
    let told_all = load(&told_all).unwrap().events.endpoint.unwrap();
    assert_eq!(told_all.kinds.len(), 6);
    let told = |endpoint: &Endpoint| (endpoint.numbers, endpoint.payload);
    assert_eq!(told(&own[0]), (ToldNumbers::Masked, Payload::Full));
    let little = [("EVENTS_NUMBERS", "whole"), ("EVENTS_PAYLOAD", "small")];
    let little = load(&[&endpoint[..], &little].concat()).unwrap();
    let little = little.events.endpoint.unwrap();
    assert_eq!(told(&little), (ToldNumbers::Whole, Payload::Small));
    assert!(load(&[]).unwrap().inherited().endpoints.is_empty());
    for (settings, told) in [
        (&endpoint[..1], "EVENTS_SECRET: not set"),
        (&endpoint[1..], "EVENTS_URL: not set"),
        (
            &[endpoint[0], endpoint[1], ("CALLGATE_CONFIG", "a.toml")],
            "EVENTS_URL: not beside CALLGATE_CONFIG",
        ),
        (
            &[("EVENTS_URL", "http://10.0.0.1/"), endpoint[1]],
            "EVENTS_URL=\"http://10.0.0.1/\": not an https address",
        ),
        (
            &[endpoint[0], endpoint[1], ("EVENTS_NUMBERS", "all")],
            "EVENTS_NUMBERS=\"all\": masked or whole",
        ),
        (
            &[endpoint[0], endpoint[1], ("EVENTS_PAYLOAD", "tiny")],
            "EVENTS_PAYLOAD=\"tiny\": full or small",
        ),
    ] {
        let error = load(settings).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn no_event_is_deleted_before_it_was_tried_for_the_last_time() {
    let endpoint = [
        ("EVENTS_URL", "https://hooks.example.com/"),
        ("EVENTS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    let a_day = ("RECORD_DAYS", "1");
    let soon = ("EVENTS_RETRY_SECONDS", "60,60");
    let after_a_week = ("EVENTS_RETRY_SECONDS", "604800");
    for (settings, told) in [
        (&[a_day][..], None),
        (&[a_day, soon], None),
        (&[("RECORD_DAYS", "2")], None),
        (&[("RECORD_DAYS", "7"), after_a_week], Some("189 hours")),
        (&[a_day], Some("31 hours")),
    ] {
        let settings = match told {
            None if settings == [a_day] => settings.to_vec(), // Nobody is told of anything.
            _ => [&endpoint[..], settings].concat(),
        };
        let error = load(&settings).err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert_eq!(error.contains("RECORD_DAYS"), told.is_some(), "{error}");
        let told = told.unwrap_or_default();
        assert!(error.contains(told) && error.contains("EVENTS_RETRY_SECONDS") || told.is_empty());
    }
}

#[test]
fn our_own_network_is_for_tests_alone() {
    let settings = [
        ("GUARD_ALLOW", "localhost:9000,127.0.0.0/8"),
        ("EVENTS_URL", "http://localhost:9000/events"),
        ("EVENTS_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ];
    assert!(load(&settings).unwrap().events.endpoint.is_some());
    let error = production(&settings).unwrap_err().to_string();
    assert!(error.contains("GUARD_ALLOW=\"localhost:9000,127.0.0.0/8\": not in production"));
}

#[test]
fn masked_numbers_are_counted_by_what_replicas_share() {
    let secret = |settings: &[(&str, &str)]| {
        let settings = [&[("RECORD_NUMBERS", "masked")], settings].concat();
        let config = load(&settings).unwrap();
        let secret = config.records.secret;
        let secret = secret.map(|secret| secret.expose_secret().to_owned());
        (secret, config.warnings.len())
    };
    let (ticket, record) = ("0123456789abcdef", "fedcba9876543210");
    let made = secret(&[("TICKET_SECRET", ticket)]);
    assert_eq!(made, secret(&[("TICKET_SECRET", ticket)]));
    let (made, warnings) = made;
    assert_eq!(warnings, 0);
    assert!(made.is_some_and(|made| made.len() >= 16 && made != ticket));
    let own = [("TICKET_SECRET", ticket), ("RECORD_SECRET", record)];
    assert_eq!(secret(&own), (Some(record.to_owned()), 0));
    assert_eq!(secret(&[]), (None, 1));
    // Of whole numbers the codes are what is left when a record is deleted.
    let whole = load(&[("TICKET_SECRET", ticket)]).unwrap();
    assert!(whole.records.secret.is_some() && whole.warnings.is_empty());
    let whole = load(&[]).unwrap();
    assert!(whole.records.secret.is_none() && whole.warnings.is_empty());
    let calls_out = ("OUTBOUND_COUNTRIES", "IL");
    let warnings = |settings: &[_]| production(settings).unwrap().warnings;
    let [before, with] = [warnings(&[]), warnings(&[calls_out])];
    let warned = with.into_iter().filter(|warning| !before.contains(warning));
    let warned: Vec<_> = warned.collect();
    assert!(
        warned.len() == 1 && warned[0].starts_with("neither RECORD_SECRET"),
        "{warned:?}"
    );
    for set in [("TICKET_SECRET", ticket), ("RECORD_SECRET", record)] {
        assert_eq!(warnings(&[calls_out, set]), before, "{set:?}");
    }
}

/// Is read where logging starts, not by [`Config`].
const READ_ELSEWHERE: &str = "RUST_LOG";
const EXAMPLE: &str = include_str!("../../.env.example");

#[test]
fn the_example_names_every_setting_and_no_other() {
    assert_eq!(names(&example()), settings_asked_for());
}

#[test]
fn the_example_with_nothing_changed_is_the_default() {
    let example = example();
    let from_example = Config::load(|name| {
        let setting = example.iter().find(|(set, _)| set == name);
        setting.map(|(_, value)| value.clone())
    });
    let from_example = from_example.unwrap();
    assert_eq!(from_example.warnings, [""; 0]);
    assert_eq!(
        format!("{from_example:#?}"),
        format!("{:#?}", load(&[]).unwrap())
    );
}

/// Returns the settings of the example, as if every one was uncommented.
fn example() -> Vec<(String, String)> {
    let uncommented = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(setting)
            if setting
                .split_once('=')
                .is_some_and(|(name, _)| is_name(name)) =>
        {
            setting
        }
        Some(_) | None => line,
    });
    let file = uncommented.collect::<Vec<_>>().join("\n");
    dotenvy::from_read_iter(file.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap()
}

fn names(settings: &[(String, String)]) -> BTreeSet<String> {
    let names: BTreeSet<_> = settings.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), settings.len(), "one of them is there twice");
    names
}

/// Returns the names that loading asks for, less the files that secrets may come from. Nothing is
/// set meanwhile, so that no name is passed over for another.
fn settings_asked_for() -> BTreeSet<String> {
    let asked = RefCell::new(BTreeSet::from([READ_ELSEWHERE.to_owned()]));
    let loaded = Config::load(|name| {
        asked.borrow_mut().insert(name.to_owned());
        None
    });
    loaded.unwrap();
    let mut asked = asked.into_inner();
    let all = asked.clone();
    asked.retain(|name| {
        let secret = name.strip_suffix("_FILE");
        secret.is_none_or(|secret| !all.contains(secret))
    });
    asked
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.starts_with(|first: char| first.is_ascii_uppercase()) && text.bytes().all(plain)
}
