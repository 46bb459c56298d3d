//! What stands before a server in production: TLS, with a certificate that nobody knows.

use std::{io::Write, net::SocketAddr, sync::Arc};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tempfile::NamedTempFile;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// A server with TLS that passes on what it hears.
pub struct Https {
    pub address: SocketAddr,
    /// Its certificate, for whoever is to believe it.
    pub certificate: NamedTempFile,
    _stop: DropGuard,
}

impl Https {
    /// Answers to `name`, and passes on to `behind`.
    pub async fn before(behind: SocketAddr, name: &str) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.to_owned()]).unwrap();
        let mut certificate = NamedTempFile::new().unwrap();
        certificate.write_all(cert.pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let connections = tasks.clone();
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    // Either side may break off.
                    let mut near = acceptor.accept(tcp).await.ok()?;
                    let mut far = TcpStream::connect(behind).await.ok()?;
                    copy_bidirectional(&mut near, &mut far).await.ok()
                });
            }
        }));
        Self {
            address,
            certificate,
            _stop: stop.drop_guard(),
        }
    }
}
