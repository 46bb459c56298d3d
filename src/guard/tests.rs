use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::{
    url::{Exception, NotAnException, UrlError},
    *,
};
use crate::loopback::{Loopback, Reply};

/// URLs, each with what becomes of it. `PORT` stands for that of the listener that counts.
const CORPUS: &str = include_str!("corpus.txt");
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
const LIMITS: Limits = Limits {
    patience: Duration::from_secs(5),
    longest_answer: 16 << 10,
};

/// A listener on both loopback addresses that counts who connects.
struct Counter {
    port: u16,
    connects: Arc<AtomicUsize>,
}

impl Counter {
    async fn start() -> Self {
        let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        let v6 = TcpListener::bind(("::1", port)).await.ok(); // Not every machine has it.
        let connects = Arc::new(AtomicUsize::new(0));
        let tasks = TaskTracker::new();
        for listener in [Some(v4), v6].into_iter().flatten() {
            let connects = Arc::clone(&connects);
            tasks.spawn(async move {
                while listener.accept().await.is_ok() {
                    connects.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        Self { port, connects }
    }

    fn connects(&self) -> usize {
        self.connects.load(Ordering::SeqCst)
    }

    fn rules(&self, exceptions: &[&str]) -> GuardRules {
        GuardRules {
            ports: vec![self.port],
            exceptions: exceptions.iter().map(|it| it.parse().unwrap()).collect(),
            proxy: None,
        }
    }
}

/// A server with TLS, which answers 204 to whoever believes its certificate.
struct Tls {
    port: u16,
    certificate: reqwest::Certificate,
    /// How many connections there were, and how many bytes came once their handshakes were over.
    connects: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
}

impl Tls {
    async fn start(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            );
        let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            certificate: reqwest::Certificate::from_der(certificate.der()).unwrap(),
            connects: Arc::default(),
            heard: Arc::default(),
        };
        let (connects, heard) = (Arc::clone(&server.connects), Arc::clone(&server.heard));
        TaskTracker::new().spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                connects.fetch_add(1, Ordering::SeqCst);
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    continue;
                };
                let mut request = Vec::new();
                while !request.ends_with(b"{}") && tls.read_buf(&mut request).await.unwrap_or(0) > 0
                {
                }
                heard.fetch_add(request.len(), Ordering::SeqCst);
                let answer = b"HTTP/1.1 204 Heard\r\nConnection: close\r\n\r\n";
                let _ = tls.write_all(answer).await;
                let _ = tls.shutdown().await;
            }
        });
        server
    }
}

/// Returns a client for which every name has these addresses.
fn client(rules: &GuardRules, addresses: Vec<IpAddr>) -> GuardedClient {
    GuardedClient::looking_up(rules, move |_| Ok(addresses.clone())).unwrap()
}

async fn post(client: &GuardedClient, url: &GuardedUrl) -> Result<Answer, GuardError> {
    let body = Bytes::from_static(b"{}");
    client.post(url, HeaderMap::new(), body, LIMITS).await
}

/// Returns the rules for a server of a test's own.
fn open_to(server: &Loopback) -> GuardRules {
    GuardRules {
        exceptions: vec![server.address.to_string().parse().unwrap()],
        ..GuardRules::default()
    }
}

#[tokio::test]
async fn nothing_of_the_corpus_reaches_what_is_not_public() {
    let counter = Counter::start().await;
    let rules = counter.rules(&[]);
    let mut seen = 0;
    for line in CORPUS.lines().filter(|line| !line.starts_with('#')) {
        let line = line.replace("PORT", &counter.port.to_string());
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let Some(fate) = words.next() else { continue };
        // A space or a line break within a URL cannot stand in the list.
        let text = words
            .next()
            .unwrap()
            .replace("%SP", " ")
            .replace("%NL", "\n");
        let addresses: Vec<IpAddr> = words.map(|word| word.parse().unwrap()).collect();
        seen += 1;
        let url = rules.url(&text);
        match fate {
            "door" => assert!(url.is_err(), "{line}"),
            "resolver" => {
                let client = client(&rules, addresses);
                let error = post(&client, &url.unwrap()).await.unwrap_err();
                assert!(matches!(error, GuardError::Blocked), "{line}: {error:?}");
            }
            // Not sent: it would leave this machine.
            "fine" => {
                let host = url.unwrap_or_else(|error| panic!("{line}: {error}"));
                let name = host.reveal().domain().unwrap_or_default();
                assert!(
                    addresses.iter().all(|it| rules.lets_pass(name, *it)),
                    "{line}"
                );
            }
            _ => panic!("{line}"),
        }
    }
    assert!(seen >= 200, "{seen}");
    assert_eq!(counter.connects(), 0);
}

#[tokio::test]
async fn a_name_that_was_public_a_moment_ago_leads_nowhere() {
    let counter = Counter::start().await;
    let url = format!("https://rebinding.example.com:{}/", counter.port);
    for exceptions in [&[][..], &["127.0.0.0/8"]] {
        let asked = Arc::new(Mutex::new(0));
        let times = Arc::clone(&asked);
        let lookup = move |_: &str| {
            let mut times = times.lock().unwrap();
            *times += 1;
            let address = if *times == 1 { PUBLIC } else { LOOPBACK };
            Ok(vec![address])
        };
        let rules = counter.rules(exceptions);
        let url = rules.url(&url).unwrap();
        // Who looks first and connects later sees this, and would be content.
        let first = lookup("rebinding.example.com").unwrap();
        assert!(first.iter().all(|address| rules.lets_pass("", *address)));
        let client = GuardedClient::looking_up(&rules, lookup).unwrap();
        let error = post(&client, &url).await.unwrap_err();
        assert_eq!(*asked.lock().unwrap(), 2);
        // Where loopback is allowed it is reached, so that this could fail.
        let is_open = !exceptions.is_empty();
        assert_eq!(matches!(error, GuardError::Blocked), !is_open, "{error:?}");
        assert_eq!(counter.connects() > 0, is_open);
    }
}

#[tokio::test]
async fn of_several_addresses_only_public_ones_are_tried() {
    let filter = Filter {
        rules: GuardRules::default(),
        places: Arc::default(),
        look_up: |_: &str| Ok(vec![LOOPBACK, PUBLIC, "::1".parse().unwrap()]),
    };
    let passed = filter.resolve("a.example.com".parse().unwrap()).await;
    let passed: Vec<_> = passed.unwrap().map(|address| address.ip()).collect();
    assert_eq!(passed, [PUBLIC]);
}

#[tokio::test]
async fn the_systems_own_lookup_is_filtered_too() {
    let rules = GuardRules {
        exceptions: vec![Exception::Range("192.0.2.0/24".parse().unwrap())],
        ..GuardRules::default()
    };
    let url = GuardRules {
        exceptions: vec!["localhost:9".parse().unwrap()],
        ..GuardRules::default()
    };
    let url = url.url("http://localhost:9/").unwrap();
    let client = GuardedClient::new(&rules).unwrap();
    let error = post(&client, &url).await.unwrap_err();
    assert!(matches!(error, GuardError::Blocked), "{error:?}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let server =
        Loopback::start(|_, _| Reply::With(307, "Location: /elsewhere", "over there".to_owned()))
            .await;
    let rules = open_to(&server);
    let url = rules.url(&server.url("/here?token=secret")).unwrap();
    assert!(!format!("{url} {url:?}").contains("secret"));
    let client = GuardedClient::new(&rules).unwrap();
    let answer = post(&client, &url).await.unwrap();
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(
        (&answer.body[..], answer.is_whole),
        (&b"over there"[..], true)
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].line, "POST /here?token=secret");
    assert_eq!(answer.headers["location"], "/elsewhere");
}

#[tokio::test]
async fn an_answer_costs_no_more_than_is_allowed() {
    let server = Loopback::start(|n, _| match n {
        0 => Reply::Answer(200, "x".repeat(16 << 10)),
        1 => Reply::Answer(200, "x".repeat(1 << 20)),
        2 => Reply::Close,
        _ => Reply::Hang,
    })
    .await;
    let rules = open_to(&server);
    let url = rules.url(&server.url("/")).unwrap();
    let client = GuardedClient::new(&rules).unwrap();
    let whole = post(&client, &url).await.unwrap();
    assert_eq!((whole.body.len(), whole.is_whole), (16 << 10, true));
    let cut = post(&client, &url).await.unwrap();
    assert_eq!((cut.body.len(), cut.is_whole), (16 << 10, false));
    let error = post(&client, &url).await.unwrap_err();
    assert_eq!(error.as_str(), "broken_off");
    let hasty = Limits {
        patience: Duration::from_millis(50),
        ..LIMITS
    };
    let body = Bytes::new();
    let hasty = client.post(&url, HeaderMap::new(), body, hasty);
    let error = hasty.await.unwrap_err();
    assert_eq!(error.as_str(), "too_slow");
}

#[tokio::test]
async fn a_request_goes_to_nobody_who_does_not_prove_to_be_the_host() {
    const HOST: &str = "hooks.example.com";
    let expired = |certificate: &mut CertificateParams| {
        certificate.not_before = rcgen::date_time_ymd(2001, 1, 1);
        certificate.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    // Each with whether whoever has issued its certificate is believed.
    for (server, is_believed, passes) in [
        (Tls::start(HOST, |_| {}).await, true, true),
        (Tls::start(HOST, |_| {}).await, false, false),
        (Tls::start("other.example.com", |_| {}).await, true, false),
        (Tls::start(HOST, expired).await, true, false),
    ] {
        let rules = GuardRules {
            ports: vec![server.port],
            exceptions: vec!["127.0.0.0/8".parse().unwrap()],
            proxy: None,
        };
        let builder = GuardedClient::builder(&rules, |_| Ok(vec![LOOPBACK])).unwrap();
        let believed = is_believed.then(|| server.certificate.clone());
        let client = GuardedClient {
            client: builder.tls_certs_merge(believed).build().unwrap(),
            asker: None,
        };
        let url = rules.url(&format!("https://{HOST}:{}/", server.port));
        let answer = post(&client, &url.unwrap()).await;
        let heard = server.heard.load(Ordering::SeqCst);
        assert_eq!(server.connects.load(Ordering::SeqCst), 1, "it was reached");
        match answer {
            Ok(answer) => {
                assert!(passes, "{answer:?}");
                assert_eq!(answer.status, StatusCode::NO_CONTENT);
                assert!(heard > 0);
            }
            Err(error) => {
                assert!(!passes, "{error:?}");
                assert_eq!((error.as_str(), heard), ("unreachable", 0), "{error:?}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_goes_past_a_proxy() {
    let counter = Counter::start().await;
    let proxy = Loopback::start(|_, _| Reply::Answer(403, String::new())).await;
    let rules = GuardRules {
        proxy: Some(proxy.url("/").parse().unwrap()),
        ..counter.rules(&[])
    };
    let url = format!("https://hooks.example.com:{}/", counter.port);
    let url = rules.url(&url).unwrap();
    let error = post(&client(&rules, vec![LOOPBACK]), &url)
        .await
        .unwrap_err();
    assert_eq!(error.as_str(), "unreachable");
    let asked = format!("CONNECT hooks.example.com:{}", counter.port);
    assert_eq!(proxy.requests()[0].line, asked);
    assert_eq!(counter.connects(), 0);
}

#[test]
fn what_is_wrong_with_a_url_is_said_without_showing_it() {
    let rules = GuardRules::default();
    for (text, error) in [
        ("https://user@hooks.example.com/", UrlError::UserInfo),
        ("https://:secret@hooks.example.com/", UrlError::UserInfo),
        ("https://hooks.example.com/#part", UrlError::Fragment),
        ("https://hooks.example.com:8443/", UrlError::Port),
        ("http://hooks.example.com/", UrlError::NotHttps),
        ("https://0x7f.1/", UrlError::Address),
        ("https://metadata.google.internal/", UrlError::Name),
        (
            &format!("https://hooks.example.com/{}", "x".repeat(2_048)),
            UrlError::TooLong,
        ),
    ] {
        assert_eq!(rules.url(text), Err(error), "{text}");
    }
}

#[test]
fn an_exception_is_for_its_place_or_its_range_alone() {
    let rules = |exceptions: &[&str]| GuardRules {
        exceptions: exceptions.iter().map(|it| it.parse().unwrap()).collect(),
        ..GuardRules::default()
    };
    for (exception, text, passes) in [
        ("127.0.0.1:9000", "http://127.0.0.1:9000/a", true),
        ("127.0.0.1:9000", "https://127.0.0.1:9000/a", true),
        ("127.0.0.1:9000", "http://127.1:9000/a", true), // The same place.
        ("127.0.0.1:9000", "http://127.0.0.1:9001/a", false),
        ("127.0.0.1:9000", "http://127.0.0.2:9000/a", false),
        ("127.0.0.1:9000", "ftp://127.0.0.1:9000/a", false),
        ("127.0.0.1:9000", "http://user@127.0.0.1:9000/a", false),
        ("127.0.0.0/8", "http://127.3.2.1:77/a", true),
        ("127.0.0.0/8", "http://128.0.0.1:77/a", false),
        ("[::1]:9000", "http://[::1]:9000/", true),
        ("::1/128", "http://[::1]:9/", true),
        ("LocalHost:80", "http://localhost/", true),
        ("localhost:80", "http://localhost.:80/", false),
    ] {
        assert_eq!(
            rules(&[exception]).url(text).is_ok(),
            passes,
            "{exception} {text}"
        );
    }
    for bad in [
        "",
        "127.0.0.1",
        "localhost",
        "127.0.0.0/33",
        "a b:1",
        "host:70000",
    ] {
        assert_eq!(bad.parse::<Exception>(), Err(NotAnException), "{bad}");
    }
}

#[tokio::test]
async fn a_tenants_slow_name_servers_delay_no_other_tenant() {
    let server = Loopback::start(|_, _| Reply::Answer(204, String::new())).await;
    let port = server.address.port();
    let rules = GuardRules {
        exceptions: vec!["127.0.0.0/8".parse().unwrap()],
        ports: vec![port],
        ..GuardRules::default()
    };
    // A name server that says nothing of any name below slow.example.com, until the test is over.
    let (over, until_over) = std::sync::mpsc::channel::<()>();
    let until_over = Arc::new(Mutex::new(until_over));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let client = GuardedClient::looking_up(&rules, move |name| {
        if name.ends_with("slow.example.com") {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = until_over.lock().unwrap().recv();
        }
        Ok(vec![LOOPBACK])
    })
    .unwrap();
    let [slow, quick] = ["acme", "other"].map(|name| client.of(&name.parse().unwrap()));
    let tasks = TaskTracker::new();
    for number in 0..64 {
        let url = format!("https://{number}.slow.example.com:{port}/");
        let (slow, url) = (slow.clone(), rules.url(&url).unwrap());
        tasks.spawn(async move { post(&slow, &url).await.map(drop) });
    }
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let url = rules
        .url(&format!("https://quick.example.com:{port}/"))
        .unwrap();
    let hasty = Limits {
        patience: Duration::from_secs(2),
        ..LIMITS
    };
    let error = quick
        .post(&url, HeaderMap::new(), Bytes::new(), hasty)
        .await;
    // It speaks no TLS; that it was reached is all that is asked here.
    assert_eq!(error.unwrap_err().as_str(), "unreachable");
    assert!(
        asked.load(Ordering::SeqCst) <= 4,
        "a tenant has its share of threads"
    );
    drop(over);
    tasks.close();
    tasks.wait().await;
}
