use secrecy::ExposeSecret;

use super::*;
use crate::config::{Config, ConfigError};

const CONNECTION: (&str, &str) = (
    "ACS_CONNECTION_STRING",
    "endpoint=https://contoso-voice.unitedstates.communication.azure.com/;\
     accesskey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
);
const RESOURCE: (&str, &str) = ("ACS_RESOURCE_ID", "8f2c1f2e-1111-4222-8333-444455556666");
const GRID: (&str, &str) = ("EVENTGRID_SECRET", "sixteen-or-longer, the-next-of-them");
const APPLICATION: [(&str, &str); 4] = [
    (
        "ACS_ENDPOINT",
        "https://contoso.europe.communication.azure.com",
    ),
    ("ACS_TENANT_ID", "11111111-1111-4222-8333-444455556666"),
    ("ACS_CLIENT_ID", "22222222-1111-4222-8333-444455556666"),
    ("ACS_CLIENT_SECRET", "canary-of-the-client"),
];

fn load(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::load(|name| {
        // The last one of a name counts, so that tables can change one setting.
        let setting = settings.iter().rfind(|(set, _)| *set == name);
        setting.map(|(_, value)| (*value).to_owned())
    })
}

fn production(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let others = [
        ("PRODUCTION", "1"),
        ("PUBLIC_URL", "https://voice.example.com"),
        ("TWILIO_AUTH_TOKEN", "0123456789abcdef0123456789abcdef"),
        ("AGENT", "openai"),
        ("OPENAI_API_KEY", "sk-very-secret"),
        ("OPS_TOKEN", "an-operators-very-secret-token"),
        ("TICKET_SECRET", "the same after a restart"),
    ];
    load(&[&others, settings].concat())
}

#[test]
fn nothing_set_is_closed_without_a_word() {
    for config in [load(&[]).unwrap(), production(&[]).unwrap()] {
        assert!(!config.acs.is_open());
        assert_eq!(config.acs.api_version, "2026-03-12");
        assert_eq!(config.acs.audio, AcsAudio::Pcm24K);
        assert_eq!(config.warnings, [""; 0]);
    }
    assert_eq!(load(&[]).unwrap().acs.socket_token, SocketToken::IfPresent);
    let required = production(&[]).unwrap().acs.socket_token;
    assert_eq!(required, SocketToken::Required);
}

#[test]
fn a_connection_string_and_a_secret_open_it() {
    let config = production(&[CONNECTION, RESOURCE, GRID]).unwrap();
    assert!(config.acs.is_open());
    assert_eq!(config.acs.event_grid.secrets.len(), 2);
    let api = config.acs.api.as_ref().unwrap();
    assert_eq!(
        api.endpoint.as_str(),
        "https://contoso-voice.unitedstates.communication.azure.com/"
    );
    let AcsCredentials::Key(key) = &api.credentials else {
        panic!("a key, not {:?}", api.credentials)
    };
    assert_eq!(key.expose_secret(), (0..32).collect::<Vec<u8>>());
    let shown = format!("{config:?}");
    for secret in ["AAECAw", "sixteen-or", "the-next"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn an_application_of_entras_opens_it_too() {
    let grid = [
        (
            "EVENTGRID_TENANT_ID",
            "33333333-1111-4222-8333-444455556666",
        ),
        (
            "EVENTGRID_AUDIENCE",
            "api://44444444-1111-4222-8333-444455556666",
        ),
    ];
    let config = production(&[&APPLICATION, &grid[..], &[RESOURCE]].concat()).unwrap();
    assert!(config.acs.is_open());
    let entra = config.acs.event_grid.entra.as_ref().unwrap();
    assert_eq!(entra.audience, "44444444-1111-4222-8333-444455556666");
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn production_wants_all_of_it_or_nothing() {
    for (settings, complaint) in [
        (vec![CONNECTION, RESOURCE], "EVENTGRID_SECRET: not set"),
        (vec![CONNECTION, GRID], "ACS_RESOURCE_ID: not set"),
        (vec![RESOURCE, GRID], "ACS_CONNECTION_STRING: not set"),
    ] {
        let error = production(&settings).unwrap_err().to_string();
        assert!(error.contains(complaint), "{error}");
        assert!(error.starts_with("1 setting"), "{error}");
        let config = load(&settings).unwrap();
        assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    }
    assert!(load(&[CONNECTION, GRID]).unwrap().acs.is_open());
    let required = load(&[CONNECTION, GRID, ("ACS_WS_JWT", "required")]);
    let error = required.unwrap_err().to_string();
    assert!(error.contains("ACS_WS_JWT=required needs it"), "{error}");
}

#[test]
fn production_needs_one_carrier_and_a_secret_that_outlives_the_process() {
    let both = [CONNECTION, RESOURCE, GRID];
    let without = |names: &[&str]| {
        let none = names.iter().map(|name| (*name, ""));
        production(&both.into_iter().chain(none).collect::<Vec<_>>())
    };
    let config = without(&["TWILIO_AUTH_TOKEN"]).unwrap();
    assert!(config.acs.is_open() && !config.twilio.is_open());
    let error = without(&["TICKET_SECRET"]).unwrap_err().to_string();
    assert!(error.contains("TICKET_SECRET: not set"), "{error}");
}

/// Checks that each of these settings is refused for its reason.
fn assert_refused(table: &[(&str, &str, &str)]) {
    for &(name, value, complaint) in table {
        let settings = [CONNECTION, RESOURCE, GRID, (name, value)];
        let error = production(&settings).unwrap_err().to_string();
        assert!(error.contains(complaint), "{name}={value}: {error}");
        assert!(!error.contains("canary"), "{error}");
    }
}

#[test]
fn what_is_wrong_with_a_connection_string_is_told_without_it() {
    const HOST: &str = "endpoint=https://a.communication.azure.com";
    assert_refused(&[
        (
            "ACS_CONNECTION_STRING",
            "canary",
            "has a part that is not name=value",
        ),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=;accesskey=canary",
            "has no endpoint=",
        ),
        ("ACS_CONNECTION_STRING", HOST, "has no accesskey="),
        (
            "ACS_CONNECTION_STRING",
            "accesskey=canary",
            "has no endpoint=",
        ),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=https://a.communication.azure.com;accesskey=canary",
            "is not whole base64",
        ),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=https://a.communication.azure.com;accesskey=AAEC",
            "its accesskey= is too short",
        ),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=https://a.communication.azure.com;accesskey=canary;accesskey=canary",
            "has a part twice",
        ),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=https://a.communication.azure.com;sharedkey=canary",
            "a part other than",
        ),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=https://communication.azure.com.example.org/;\
             accesskey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "no https address of communication.azure.com",
        ),
        (
            "ACS_CONNECTION_STRING",
            "endpoint=http://a.communication.azure.com/;\
             accesskey=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "no https address of nothing but a host",
        ),
    ]);
}

#[test]
fn each_mistake_is_named_and_no_secret_shown() {
    assert_refused(&[
        (
            "ACS_RESOURCE_ID",
            "/subscriptions/1",
            "immutable id, a GUID",
        ),
        ("ACS_API_VERSION", "latest", "a date, such as 2026-03-12"),
        (
            "ACS_API_VERSION",
            "2025-13-01",
            "a date, such as 2026-03-12",
        ),
        (
            "ACS_API_VERSION",
            "2024-09-15",
            "too old: calls have media sockets from",
        ),
        ("ACS_AUDIO_FORMAT", "mulaw", "pcm24KMono or pcm16KMono"),
        ("ACS_WS_JWT", "no", "required or if_present"),
        ("ACS_NOT_IN_SERVICE", "reject", "ignore or say"),
        (
            "ACS_OPENID_URL",
            "https://example.com/keys",
            "an https address of communication",
        ),
        (
            "ENTRA_LOGIN_URL",
            "http://login.microsoftonline.com",
            "an https address of micro",
        ),
        (
            "ENTRA_LOGIN_URL",
            "https://notmicrosoftonline.com",
            "an https address of micro",
        ),
        (
            "EVENTGRID_SECRET",
            "long-enough-for-it,canary",
            "too short: at least 16",
        ),
        (
            "EVENTGRID_TENANT_ID",
            "contoso.onmicrosoft.com",
            "a GUID, as Entra shows it",
        ),
        (
            "EVENTGRID_TENANT_ID",
            "33333333-1111-4222-8333-444455556666",
            "EVENTGRID_AUDIENCE: not set",
        ),
        (
            "EVENTGRID_AUDIENCE",
            "callgate",
            "EVENTGRID_TENANT_ID: not set",
        ),
        ("ACS_CLIENT_ID", "callgate", "only one of them can count"),
    ]);
}

#[test]
fn an_application_lacks_nothing() {
    for left_out in APPLICATION {
        let mut settings = vec![RESOURCE, GRID, (left_out.0, "")];
        settings.splice(0..0, APPLICATION);
        let error = load(&settings).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{}: not set (", left_out.0)),
            "{error}"
        );
    }
}

#[test]
fn what_is_like_the_default_is_understood() {
    for (name, value) in [
        ("ACS_API_VERSION", "2025-05-15"),
        ("ACS_API_VERSION", "2026-09-01-preview"),
        ("ACS_AUDIO_FORMAT", "Pcm16KMono"),
        ("ACS_WS_JWT", "if_present"),
        ("ENTRA_LOGIN_URL", "https://login.microsoftonline.us"),
        ("EVENTGRID_SUBSCRIPTIONS", "INCOMING-CALL-WEBHOOK"),
    ] {
        let config = production(&[CONNECTION, RESOURCE, GRID, (name, value)]);
        assert!(config.is_ok(), "{name}={value}: {config:?}");
    }
}
