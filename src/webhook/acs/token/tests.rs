use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::get_current_timestamp;
use ring::{
    rand::SystemRandom,
    rsa::{KeyPair, PublicKeyComponents},
    signature::RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

use super::*;
use crate::loopback::{Loopback, Reply};

const RESOURCE: Uuid = Uuid::from_u128(7);

/// Two keys for tests, made once: `openssl genrsa 2048`, as PKCS #8.
struct Pair(KeyPair);

impl Pair {
    fn one() -> Self {
        Self(KeyPair::from_pkcs8(include_bytes!("../../../../tests/keys/one.der")).unwrap())
    }

    fn two() -> Self {
        Self(KeyPair::from_pkcs8(include_bytes!("../../../../tests/keys/two.der")).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        let PublicKeyComponents::<Vec<u8>> { n, e } = self.0.public().into();
        json!({"kty": "RSA", "use": "sig", "kid": id, "n": encode(n), "e": encode(e), "x5c": []})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message.as_bytes(),
                &mut signature,
            )
            .unwrap();
        format!("{message}.{}", encode(signature))
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn message(header: &Value, claims: &Value) -> String {
    format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    )
}

fn header(id: &str) -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": id})
}

fn claims() -> Value {
    let now = get_current_timestamp();
    json!({
        "iss": ACS_ISSUER, "aud": RESOURCE.to_string(), "exp": now + 300, "nbf": now, "iat": now,
    })
}

/// Returns `claims` with one of them changed; null takes it out.
fn with(claims: Value, name: &str, value: Value) -> Value {
    let mut claims = claims;
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

/// An issuer whose documents can be changed.
struct Issuer {
    server: Loopback,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    /// Answers the n-th request for keys, from 0 on, with `keys(n)`.
    async fn start(mut keys: impl FnMut(usize) -> Reply + Send + 'static) -> Self {
        let fetches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&fetches);
        let server = Loopback::start(move |_, request| {
            if request.line == "GET /keys" {
                return keys(counted.fetch_add(1, Ordering::SeqCst));
            }
            let host = request.header("host").unwrap();
            Reply::Answer(
                200,
                json!({"jwks_uri": format!("http://{host}/keys")}).to_string(),
            )
        });
        Self {
            server: server.await,
            fetches,
        }
    }

    async fn with_key_one() -> Self {
        Self::start(|_| keys(&[Pair::one().jwk("one")])).await
    }

    fn verifier(&self) -> TokenVerifier {
        let openid = self.server.url("/openid").parse().unwrap();
        TokenVerifier::of_acs(RESOURCE, &openid).unwrap()
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

fn keys(keys: &[Value]) -> Reply {
    Reply::Answer(200, json!({ "keys": keys }).to_string())
}

fn refused(flaw: Flaw) -> Result<u64, TokenError> {
    Err(TokenError::Refused(flaw))
}

async fn verify(verifier: &TokenVerifier, token: &str) -> Result<u64, TokenError> {
    verifier.verify(token).await.map(|claims| claims.exp)
}

async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_good_token_holds_and_any_flaw_is_named() {
    let issuer = Issuer::with_key_one().await;
    let verifier = issuer.verifier();
    let pair = Pair::one();
    let good = pair.sign(&header("one"), &claims());
    assert!(verify(&verifier, &good).await.is_ok());
    let now = get_current_timestamp();
    for (name, value, flaw) in [
        ("exp", json!(now - 61), Flaw::Expired),
        ("exp", json!("tomorrow"), Flaw::Malformed),
        ("exp", Value::Null, Flaw::Malformed),
        ("nbf", json!(now + 120), Flaw::Early),
        ("nbf", json!("soon"), Flaw::Malformed),
        ("aud", json!(Uuid::nil()), Flaw::Audience),
        ("aud", json!([Uuid::nil()]), Flaw::Audience),
        ("aud", json!({"id": RESOURCE}), Flaw::Audience),
        ("aud", Value::Null, Flaw::Audience),
        (
            "iss",
            json!("https://acscallautomation.communication.azure.com.example.org"),
            Flaw::Issuer,
        ),
        ("iss", json!(7), Flaw::Issuer),
        ("iss", Value::Null, Flaw::Issuer),
    ] {
        let token = pair.sign(&header("one"), &with(claims(), name, value.clone()));
        assert_eq!(
            verify(&verifier, &token).await,
            refused(flaw),
            "{name} {value}"
        );
    }
    for (name, value) in [
        ("exp", json!(now - 30)),
        ("nbf", json!(now + 30)),
        ("nbf", Value::Null),
        ("aud", json!([Uuid::nil(), RESOURCE])),
    ] {
        let token = pair.sign(&header("one"), &with(claims(), name, value.clone()));
        assert!(verify(&verifier, &token).await.is_ok(), "{name} {value}");
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_token_cannot_choose_how_it_is_checked() {
    let issuer = Issuer::with_key_one().await;
    let verifier = issuer.verifier();
    let (one, two) = (Pair::one(), Pair::two());
    let none = message(&json!({"alg": "none", "kid": "one"}), &claims()) + ".";
    assert_eq!(verify(&verifier, &none).await, refused(Flaw::Malformed));
    // HS256 with the public key as its secret, as PKCS #1 has it.
    let confused = message(&json!({"alg": "HS256", "kid": "one"}), &claims());
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, one.0.public().as_ref());
    let tag = ring::hmac::sign(&secret, confused.as_bytes());
    let confused = format!("{confused}.{}", encode(tag));
    assert_eq!(verify(&verifier, &confused).await, refused(Flaw::Algorithm));
    let other = one.sign(&json!({"alg": "RS512", "kid": "one"}), &claims());
    assert_eq!(verify(&verifier, &other).await, refused(Flaw::Algorithm));
    // Brings its own key, and says where to find it.
    for (name, value) in [
        ("jwk", two.jwk("one")),
        ("jku", json!("https://example.org/keys")),
        ("x5u", json!("https://example.org/certificate")),
        ("x5c", json!(["MIIB"])),
    ] {
        let token = two.sign(&with(header("one"), name, value.clone()), &claims());
        assert_eq!(
            verify(&verifier, &token).await,
            refused(Flaw::Signature),
            "{name}"
        );
        let token = one.sign(&with(header("one"), name, value), &claims());
        assert!(verify(&verifier, &token).await.is_ok(), "{name} is ignored");
    }
    let no_id = one.sign(&json!({"alg": "RS256"}), &claims());
    assert_eq!(verify(&verifier, &no_id).await, refused(Flaw::Malformed));
    let good = one.sign(&header("one"), &claims());
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    assert_eq!(
        verify(&verifier, &format!("{unsigned}.")).await,
        refused(Flaw::Signature)
    );
    for nonsense in [
        "",
        ".",
        "..",
        "a.b.c",
        "\u{0}",
        &"x".repeat(100_000),
        unsigned,
    ] {
        assert_eq!(verify(&verifier, nonsense).await, refused(Flaw::Malformed));
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn unknown_keys_are_asked_for_once_in_ten_seconds() {
    let issuer = Issuer::with_key_one().await;
    let verifier = issuer.verifier();
    let payload = encode(claims().to_string());
    let random = |n: usize| {
        format!(
            "{}.{payload}.c2ln",
            encode(header(&n.to_string()).to_string())
        )
    };
    let tokens: Vec<_> = (0..10_000).map(random).collect();
    let all = tokens.iter().map(|token| verify(&verifier, token));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer, refused(Flaw::Key));
    }
    assert_eq!(issuer.fetches(), 1);
    pass(Duration::from_secs(10)).await;
    for n in 10_000..10_100 {
        assert_eq!(verify(&verifier, &random(n)).await, refused(Flaw::Key));
    }
    assert_eq!(issuer.fetches(), 2);
    let good = Pair::one().sign(&header("one"), &claims());
    assert!(verify(&verifier, &good).await.is_ok());
}

#[tokio::test]
async fn a_rotated_key_is_found_and_the_old_one_is_no_more() {
    let issuer = Issuer::start(|n| match n {
        0 => keys(&[
            json!("odd"),
            json!({"kty": "EC", "kid": "two"}),
            Pair::one().jwk("one"),
        ]),
        _ => keys(&[Pair::two().jwk("two")]),
    });
    let issuer = issuer.await;
    let verifier = issuer.verifier();
    let old = Pair::one().sign(&header("one"), &claims());
    let new = Pair::two().sign(&header("two"), &claims());
    assert!(verify(&verifier, &old).await.is_ok());
    pass(Duration::from_secs(10)).await;
    assert!(verify(&verifier, &new).await.is_ok());
    assert_eq!(verify(&verifier, &old).await, refused(Flaw::Key));
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn known_keys_serve_while_their_issuer_is_away() {
    let issuer = Issuer::start(|n| match n {
        0 => keys(&[Pair::one().jwk("one")]),
        1 => Reply::Close,
        _ => Reply::Answer(500, String::new()),
    });
    let issuer = issuer.await;
    let verifier = issuer.verifier();
    let good = Pair::one().sign(&header("one"), &claims());
    let new = Pair::two().sign(&header("two"), &claims());
    assert!(verify(&verifier, &good).await.is_ok());
    pass(Duration::from_secs(3_600)).await;
    assert!(verify(&verifier, &good).await.is_ok());
    assert_eq!(issuer.fetches(), 2);
    assert_eq!(verify(&verifier, &new).await, Err(TokenError::Unavailable));
    pass(Duration::from_secs(23 * 3_600)).await;
    assert_eq!(verify(&verifier, &good).await, Err(TokenError::Unavailable));
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test]
async fn documents_that_are_no_keys_make_nothing_known() {
    let weak = json!({"kty": "RSA", "kid": "one", "alg": "RS512", "n": "AQAB", "e": "AQAB"});
    let good = json!({ "keys": [Pair::one().jwk("one")] }).to_string();
    for reply in [
        Reply::Answer(200, " ".repeat(2 << 20) + &good),
        Reply::Answer(200, "{}".to_owned()),
        Reply::Answer(200, "<html>".to_owned()),
        keys(&[]),
        keys(&[weak]),
        Reply::With(302, "Location: /others", String::new()),
        Reply::Answer(404, good.clone()),
    ] {
        let mut reply = Some(reply);
        let issuer = Issuer::start(move |_| reply.take().unwrap_or(Reply::Close)).await;
        let verifier = issuer.verifier();
        let token = Pair::one().sign(&header("one"), &claims());
        assert_eq!(
            verify(&verifier, &token).await,
            Err(TokenError::Unavailable)
        );
        // And is left alone for a while.
        assert_eq!(
            verify(&verifier, &token).await,
            Err(TokenError::Unavailable)
        );
        assert_eq!(issuer.fetches(), 1);
    }
    let elsewhere = Loopback::start(|_, _| {
        Reply::Answer(
            200,
            json!({"jwks_uri": "http://127.0.0.1:1/keys"}).to_string(),
        )
    });
    let elsewhere = elsewhere.await;
    let openid = elsewhere.url("/openid").parse().unwrap();
    let verifier = TokenVerifier::of_acs(RESOURCE, &openid).unwrap();
    let token = Pair::one().sign(&header("one"), &claims());
    let error = verifier.verify(&token).await.unwrap_err();
    assert_eq!(error.as_str(), "keys_unavailable");
    assert_eq!(elsewhere.requests().len(), 1);
}

#[tokio::test]
async fn an_issuer_that_hangs_is_waited_for_by_nobody_who_has_its_keys() {
    let issuer = Issuer::start(|n| match n {
        0 => keys(&[Pair::one().jwk("one")]),
        _ => Reply::Hang,
    });
    let issuer = issuer.await;
    let verifier = issuer.verifier();
    let good = Pair::one().sign(&header("one"), &claims());
    assert!(verify(&verifier, &good).await.is_ok());
    pass(Duration::from_secs(3_600)).await;
    tokio::select! {
        biased;
        _ = verify(&verifier, &good) => panic!("it asks, and is the first to be polled"),
        answer = verify(&verifier, &good) => assert!(answer.is_ok()),
    }
}

#[tokio::test]
async fn event_grid_is_known_by_its_tenant_its_audience_and_its_application() {
    let tenant = Uuid::from_u128(9);
    let server = Loopback::start(move |_, request| {
        let openid = format!("GET /{tenant}/v2.0/.well-known/openid-configuration");
        if request.line == openid {
            let host = request.header("host").unwrap();
            let keys = format!("http://{host}/{tenant}/discovery/v2.0/keys");
            return Reply::Answer(200, json!({ "jwks_uri": keys }).to_string());
        }
        keys(&[Pair::one().jwk("one")])
    });
    let server = server.await;
    let application = EventGridApplication {
        tenant,
        audience: "callgate".to_owned(),
    };
    let login = server.url("").parse().unwrap();
    let verifier = TokenVerifier::of_event_grid(&application, &login).unwrap();
    let first = format!("https://sts.windows.net/{tenant}/");
    let second = format!("https://login.microsoftonline.com/{tenant}/v2.0");
    let other = Uuid::nil().to_string();
    let good = Ok(());
    let bad = |flaw| Err(TokenError::Refused(flaw));
    for (issuer, audience, appid, azp, expected) in [
        (&first, "callgate", Some(EVENT_GRID), None, good),
        (&first, "api://callgate", Some(EVENT_GRID), None, good),
        (&second, "callgate", None, Some(EVENT_GRID), good),
        (
            &second,
            "callgate",
            Some(EVENT_GRID),
            Some(EVENT_GRID),
            good,
        ),
        (&second, "callgate", None, None, bad(Flaw::Application)),
        (
            &second,
            "callgate",
            None,
            Some(&*other),
            bad(Flaw::Application),
        ),
        (
            &second,
            "callgate",
            Some(EVENT_GRID),
            Some(&*other),
            bad(Flaw::Application),
        ),
        (
            &second,
            "api://other",
            None,
            Some(EVENT_GRID),
            bad(Flaw::Audience),
        ),
        (
            &other,
            "callgate",
            Some(EVENT_GRID),
            None,
            bad(Flaw::Issuer),
        ),
    ] {
        let exp = get_current_timestamp() + 300;
        let claims = json!({
            "iss": issuer, "aud": audience, "exp": exp, "appid": appid, "azp": azp,
        });
        let token = Pair::one().sign(&header("one"), &claims);
        let answer = verifier.verify(&token).await.map(drop);
        assert_eq!(answer, expected, "{claims}");
    }
}
