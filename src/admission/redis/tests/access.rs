//! Users, passwords and TLS.

use std::process::Command;

use rcgen::{CertifiedKey, generate_simple_self_signed};

use super::*;
use crate::admission::redis_server::free_port;

/// What a Redis user of the gateway's must be allowed, and all that it need be. `docs/replicas.md`
/// tells operators.
pub const RIGHTS: &str = "~calls:* -@all +evalsha +script|load +info +time +get +set +mget +del \
    +exists +pexpire +pexpireat +pttl +sadd +srem +zadd +zrem +zscore +zcount +zrange +zrangebyscore \
    +zremrangebyscore +hset +hdel +hgetall";

/// Returns a server with a user `gateway` that has these rights.
fn server_with(rights: &str) -> RedisServer {
    let server = RedisServer::start();
    server.ask::<()>(&format!("ACL SETUSER gateway on >sesame {rights}"));
    server
}

#[tokio::test]
async fn a_user_needs_no_more_rights_than_the_docs_say() {
    let page = include_str!("../../../../docs/replicas.md");
    assert!(page.contains(RIGHTS), "the page says: {RIGHTS}");
    let server = server_with(RIGHTS);
    let store = connected(&server.url_as("gateway", "sesame"), "", "r1").await;
    try_everything(&server, &store).await.unwrap();
    let said = server.ask::<Vec<Value>>("ACL LOG");
    assert_eq!(said, [], "nothing was denied");
}

#[tokio::test]
async fn a_user_needs_each_of_the_rights_that_the_readme_says() {
    let server = server_with(RIGHTS);
    let rights = RIGHTS
        .split_whitespace()
        .filter(|right| right.starts_with('+'));
    for right in rights {
        server.flush();
        server.ask::<()>("SCRIPT FLUSH");
        server.ask::<()>("ACL LOG RESET");
        server.ask::<()>(&format!("ACL SETUSER gateway {}", right.replace('+', "-")));
        let store = patient(&settings(&server.url_as("gateway", "sesame"), ""), "r1");
        let failed = try_everything(&server, &store).await;
        let error = failed.expect_err(right);
        assert_eq!(error.class(), "noperm", "{right}: {error:?}");
        server.ask::<()>(&format!("ACL SETUSER gateway {right}"));
    }
}

/// Inspects the server, and does everything, behind the gate and without one.
async fn try_everything(server: &RedisServer, store: &RedisStore) -> Result<(), StoreError> {
    renew(store, &[]).await?;
    store.inspect().await?;
    server.ask::<()>("DEL calls:gen:recover");
    everything(store).await
}

#[tokio::test]
async fn a_user_without_the_right_to_our_keys_changes_nothing() {
    let server = server_with(&RIGHTS.replace("~calls:*", "~others:*"));
    let store = connected(&server.url_as("gateway", "sesame"), "", "r1").await;
    let denied = renew(&store, &[]).await.unwrap_err();
    assert_eq!(denied.class(), "noperm");
    assert_eq!(server.ask::<u32>("DBSIZE"), 0);
}

#[tokio::test]
async fn a_wrong_password_is_told_from_a_server_that_is_down() {
    let server = server_with(RIGHTS);
    let no_password = RedisServer::start_with(&["--requirepass", "sesame"]);
    for url in [server.url_as("gateway", "wrong"), no_password.url()] {
        let store = patient(&settings(&url, ""), "r1");
        let refused = renew(&store, &[]).await.unwrap_err();
        assert_eq!(refused.class(), "noauth", "{refused:?}");
    }
}

/// Which certificates are trusted is read once a process, so this one runs itself again.
#[tokio::test]
async fn slots_are_kept_over_tls_by_a_server_that_shows_a_trusted_certificate() {
    const TEST: &str = "admission::redis::tests::access::\
        slots_are_kept_over_tls_by_a_server_that_shows_a_trusted_certificate";
    if let Some(url) = std::env::var_os("CALLGATE_TLS_TEST_URL") {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = connected(url.to_str().unwrap(), "", "r1").await;
        everything(&store).await.unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file("cert.pem"), cert.pem()).unwrap();
    std::fs::write(file("key.pem"), signing_key.serialize_pem()).unwrap();
    let port = free_port().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let server = RedisServer::start_with(&[
        "--tls-port",
        &port,
        "--tls-auth-clients",
        "no",
        "--tls-ca-cert-file",
        &cert,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
    ]);
    let play = |trusted: &str| {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again
            .args(["--exact", TEST])
            .env(
                "CALLGATE_TLS_TEST_URL",
                format!("rediss://localhost:{port}/"),
            )
            .env("SSL_CERT_FILE", trusted);
        again.output().unwrap()
    };
    let trusted = play(&cert);
    assert!(trusted.status.success(), "{trusted:?}");
    let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(file("other.pem"), other.cert.pem()).unwrap();
    assert!(
        !play(&file("other.pem")).status.success(),
        "it is not trusted"
    );
    assert_eq!(
        server.ask::<String>("GET calls:ended:CA1"),
        "caller_hung_up"
    );
}
