#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for one thing and lets the rest pass"
)]

use std::{net::SocketAddr, sync::mpsc, task::Poll, thread, time::Duration};

use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    agent::parrot::{Fault, Parrot, ParrotOptions},
    chunk::{Chunk, Encoding},
    config::Config,
    language::Language,
    official::recording,
};

fn settings(url: &str, ca: Option<&str>) -> AgentSettings {
    let config = Config::load(|name| match name {
        "AGENT" => Some("openai".to_owned()),
        "OPENAI_API_KEY" => Some("sk-test".to_owned()),
        "OPENAI_REALTIME_URL" => Some(url.to_owned()),
        "AGENT_CA_FILE" => ca.map(str::to_owned),
        _ => None,
    });
    config.unwrap().agent
}

fn agents(
    default: AgentSettings,
    others: &[(&str, &AgentSettings)],
    before: Option<&Agents>,
) -> Agents {
    let metrics = crate::telemetry::Metrics::new().agents;
    let others: BTreeMap<Name, _> = others
        .iter()
        .map(|(name, settings)| (name.parse().unwrap(), (*settings).clone()))
        .collect();
    let all: Vec<_> = others.values().chain([&default]).collect();
    let trust = Trust::of(&all).unwrap();
    Agents::new(default, others, &trust, &metrics, None, before)
}

fn agent(url: &str, ca: Option<&str>) -> Arc<Agent> {
    Arc::clone(agents(settings(url, ca), &[], None).default_agent())
}

async fn parrot(options: ParrotOptions) -> Parrot {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Parrot::start(ParrotOptions { listen, ..options })
        .await
        .unwrap()
}

fn worker() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Lets the agent hear a frame and returns how many of the same come back.
async fn echoes(agent: &mut AgentSocket, frames: usize) -> usize {
    let chunk = Chunk::encode(&[0x31; 160], Encoding::Mulaw);
    echoes_of(&chunk, agent, frames).await
}

async fn echoes_of(chunk: &Chunk, agent: &mut AgentSocket, frames: usize) -> usize {
    let mut heard = 0;
    for _ in 0..frames {
        agent.hear(chunk);
    }
    let at = Duration::ZERO;
    while heard < frames {
        let input = std::future::poll_fn(|cx| {
            if let Poll::Ready(reason) = agent.poll_outbox(cx, at) {
                return Poll::Ready(Input::End(reason));
            }
            agent.poll_next(cx)
        });
        match timeout(Duration::from_secs(10), input).await.unwrap() {
            Input::AgentAudio { chunk: echo, .. } if echo == *chunk => heard += 1,
            Input::AgentAnswering | Input::AgentAlive => {}
            other => panic!("an echo expected, not {other:?}"),
        }
    }
    heard
}

/// Connects on one worker, ends that worker, and goes on on another.
fn move_between_workers(agent: Arc<Agent>) {
    let (hand_over, take_over) = mpsc::channel();
    let first = thread::spawn(move || {
        let worker = worker();
        let mut agent = worker
            .block_on(agent.connect(&Campaign::plain(Language::default(), None), Encoding::Mulaw))
            .unwrap();
        // Some of the echoes are left in the buffers of the layers above the stream.
        worker.block_on(echoes(&mut agent, 3));
        hand_over.send(agent).unwrap();
    });
    let mut agent = take_over.recv().unwrap();
    first.join().unwrap(); // Its reactor is gone: only a stream that moved can go on.
    let worker = worker();
    worker.block_on(async {
        assert!(agent.come_here().unwrap(), "it was at home elsewhere");
        assert!(!agent.come_here().unwrap(), "it is at home here");
        assert_eq!(echoes(&mut agent, 50).await, 50);
        agent.close().await;
    });
}

#[test]
fn a_connected_agent_moves_to_the_worker_that_uses_it() {
    let server = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let echo = ParrotOptions {
        echo: true,
        ..ParrotOptions::default()
    };
    let parrot = server.block_on(parrot(echo));
    move_between_workers(agent(&parrot.url(), None));
    server.block_on(parrot.stop());
}

#[test]
fn an_agent_behind_tls_moves_too() {
    let server = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let echo = ParrotOptions {
        echo: true,
        ..ParrotOptions::default()
    };
    let parrot = server.block_on(parrot(echo));
    let certified = certificate(|_| {});
    let (url, _front) = server.block_on(tls_before(parrot.address(), &certified));
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), certified.0.pem()).unwrap();
    move_between_workers(agent(&url, ca.path().to_str()));
    server.block_on(parrot.stop());
}

#[tokio::test]
async fn an_agent_is_not_believed_without_a_good_certificate() {
    let parrot = parrot(ParrotOptions::default()).await;
    let good = certificate(|_| {});
    let expired = certificate(|certificate| {
        certificate.not_before = rcgen::date_time_ymd(2001, 1, 1);
        certificate.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    let ca = tempfile::NamedTempFile::new().unwrap();
    let pems = [good.0.pem(), expired.0.pem()].concat();
    std::fs::write(ca.path(), pems).unwrap();
    let campaign = Campaign::plain(Language::default(), None);
    for (certified, ca) in [(&expired, ca.path().to_str()), (&good, None)] {
        let (url, _front) = tls_before(parrot.address(), certified).await;
        let connected = agent(&url, ca).connect(&campaign, Encoding::Mulaw).await;
        assert!(matches!(connected, Err(AgentError::Unreachable(_))));
    }
    parrot.stop().await;
}

#[tokio::test]
async fn what_keeps_an_agent_from_being_ready_is_told_apart() {
    for (fault, expected) in [
        (Fault::Refuse, EndReason::AgentUnreachable),
        (Fault::Unauthorized, EndReason::AgentRefused),
        (Fault::RateLimit, EndReason::AgentRefused),
        (Fault::Unavailable, EndReason::AgentRefused),
        (Fault::WrongFormat, EndReason::AgentWrongFormat),
    ] {
        let options = ParrotOptions {
            fault: Some(fault),
            ..ParrotOptions::default()
        };
        let parrot = parrot(options).await;
        let agent = agent(&parrot.url(), None);
        let error = agent
            .connect(&Campaign::plain(Language::default(), None), Encoding::Mulaw)
            .await
            .err()
            .unwrap();
        assert_eq!(error.end_reason(), expected, "{fault:?}: {error}");
        parrot.stop().await;
    }
}

#[tokio::test]
async fn a_hanging_agent_costs_no_more_than_the_budget() {
    for fault in [Fault::HangTcp, Fault::HangUpgrade, Fault::HangSession] {
        let options = ParrotOptions {
            fault: Some(fault),
            ..ParrotOptions::default()
        };
        let parrot = parrot(options).await;
        let agent = agent(&parrot.url(), None);
        let campaign = Campaign::plain(Language::default(), None);
        let connected = agent.connect(&campaign, Encoding::Mulaw);
        let connected = timeout(BUDGET + Duration::from_secs(5), connected).await;
        assert!(
            matches!(connected, Ok(Err(AgentError::TooSlow))),
            "{fault:?}"
        );
        drop(parrot); // It would wait for the sockets that it hangs on to.
    }
}

#[tokio::test]
async fn each_agent_rests_for_itself_and_a_reload_does_not_wake_it() {
    let gone = settings("ws://127.0.0.1:1/", None);
    let mut other = gone.clone();
    other.voice = Some("other".to_owned());
    let both = [("gone", &gone), ("other", &other)];
    let before = agents(other.clone(), &both, None);
    let named = |agent: &str| agent.parse::<Name>().unwrap();
    let agent = before.of(&named("gone"));
    let campaign = Campaign::plain(Language::default(), None);
    while !agent.is_resting() {
        agent
            .connect(&campaign, Encoding::Mulaw)
            .await
            .err()
            .unwrap();
    }
    assert!(!before.of(&named("other")).is_resting());
    assert!(!before.default_agent().is_resting());
    let same = agents(other.clone(), &both, Some(&before));
    assert!(same.of(&named("gone")).is_resting());
    let changed = agents(other.clone(), &[("gone", &other)], Some(&before));
    assert!(!changed.of(&named("gone")).is_resting());
    // A call may have found its campaign just before its agent was taken away.
    assert_eq!(changed.of(&named("other")).name().as_str(), "other");
    assert_eq!(changed.all().count(), 2);
    let later = agents(other, &[], Some(&changed));
    assert_eq!(later.of(&named("other")).name().as_str(), "default");
}

#[tokio::test]
async fn a_session_in_pcm_is_agreed_on_and_what_is_said_comes_back() {
    for (kind, name, encodings) in [
        (
            "openai",
            "agent-client-events-pcm.jsonl",
            &[Encoding::Pcm24k][..],
        ),
        (
            "voice_live",
            "voice-live-client-events-pcm.jsonl",
            &[Encoding::Pcm16k, Encoding::Pcm24k],
        ),
    ] {
        let parrot = parrot(ParrotOptions {
            echo: true,
            record: Some(recording(name)),
            ..ParrotOptions::default()
        })
        .await;
        let config = Config::load(|name| {
            let value = match name {
                "AGENT" => kind.to_owned(),
                "OPENAI_API_KEY" | "VOICE_LIVE_API_KEY" => "a-key".to_owned(),
                "OPENAI_REALTIME_URL" => parrot.url(),
                "VOICE_LIVE_URL" => parrot.voice_live_url(),
                _ => return None,
            };
            Some(value)
        });
        let agents = agents(config.unwrap().agent, &[], None);
        let agent = agents.default_agent();
        for &encoding in encodings {
            assert_eq!(agent.encoding_for(encoding), encoding);
            let connected = agent
                .connect(&Campaign::plain(Language::default(), None), encoding)
                .await;
            let mut socket = connected.unwrap();
            assert_eq!(socket.encoding(), encoding);
            let frame = Chunk::encode(&vec![0x31; encoding.rate() as usize / 25], encoding);
            assert_eq!(echoes_of(&frame, &mut socket, 5).await, 5);
            socket.close().await;
        }
        parrot.stop().await;
    }
}

#[tokio::test]
async fn an_agent_whose_token_cannot_be_had_is_unreachable() {
    let config = Config::load(|name| {
        let value = match name {
            "AGENT" => "voice_live",
            "VOICE_LIVE_URL" => "ws://127.0.0.1:1/voice-live/realtime",
            "VOICE_LIVE_TENANT_ID" | "VOICE_LIVE_CLIENT_ID" => "an-id",
            "VOICE_LIVE_CLIENT_SECRET" => "a-secret",
            "ENTRA_LOGIN_URL" => "http://127.0.0.1:1",
            _ => return None,
        };
        Some(value.to_owned())
    });
    let agents = agents(config.unwrap().agent, &[], None);
    let campaign = Campaign::plain(Language::default(), None);
    let connected = agents.default_agent().connect(&campaign, Encoding::Mulaw);
    let error = connected.await.err().unwrap();
    assert!(matches!(
        error,
        AgentError::NoToken(EntraError::Unreachable(_))
    ));
    assert_eq!(error.end_reason(), EndReason::AgentUnreachable);
}

#[test]
fn an_agent_is_asked_for_what_it_can_speak() {
    let openai = agent("ws://127.0.0.1:1/", None);
    assert_eq!(openai.encoding_for(Encoding::Mulaw), Encoding::Mulaw);
    assert_eq!(openai.encoding_for(Encoding::Pcm16k), Encoding::Pcm24k);
}

type Certified = (rcgen::Certificate, KeyPair);

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Certified {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut params);
    (params.self_signed(&key).unwrap(), key)
}

/// Listens with TLS and passes on to `behind`; the returned tasks end when they are dropped.
async fn tls_before(
    behind: SocketAddr,
    (certificate, key): &Certified,
) -> (String, tokio::task::JoinSet<()>) {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let connections = TaskTracker::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                if let Ok(mut tls) = acceptor.accept(tcp).await {
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ = copy_bidirectional(&mut tls, &mut plain).await;
                }
            });
        }
    });
    (format!("wss://localhost:{port}/v1/realtime"), tasks)
}

#[test]
fn the_first_words_of_a_caller_fit_into_the_outbox() {
    for encoding in [Encoding::Mulaw, Encoding::Pcm16k, Encoding::Pcm24k] {
        let frame = Chunk::encode(
            &vec![0; encoding.rate() as usize / 50 * encoding.width()],
            encoding,
        );
        let mut messages = bytes::BytesMut::new();
        for _ in 0..250 {
            openai::append(&frame, &mut messages);
        }
        let (held, headers) = (messages.len(), 250 * 8);
        assert!(
            held + headers < longest_outbox(encoding),
            "{encoding:?}: {held}"
        );
    }
}
