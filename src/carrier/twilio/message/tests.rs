use std::net::SocketAddr;

use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    carrier::twilio::{Patience, Problem},
    config::ApiSettings,
};

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    // What hangs is waited for, and what answers has to be quicker on every machine.
    whole: Duration::from_secs(3),
};

fn api(address: SocketAddr) -> TwilioApi {
    let settings = ApiSettings {
        base: format!("http://{address}").parse().unwrap(),
        account: "AC00000000000000000000000000000001".to_owned(),
        user: "AC00000000000000000000000000000001".to_owned(),
        secret: "a-token".into(),
    };
    TwilioApi::new(settings, PATIENCE).unwrap()
}

/// Serves one request after the other, each as `serve` does once it has been read.
async fn server<F: Future<Output = ()> + Send>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4_096]).await;
            serve(stream).await;
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_and_not_asked_again() {
    let address = server(|stream| async move {
        sleep(Duration::from_secs(60)).await;
        drop(stream);
    });
    let error = api(address.await).send_message(&[]).await.unwrap_err();
    assert!(matches!(error, SendError::TooSlow), "{error:?}");
    assert!(!error.is_passing());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_asked_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = api(address).send_message(&[]).await.unwrap_err();
    assert!(matches!(error, SendError::Unreachable(_)), "{error:?}");
    assert!(error.is_passing());
}

#[tokio::test]
async fn an_answers_status_counts_however_much_follows_it() {
    let address = server(|mut stream| async move {
        let head = "HTTP/1.1 201 Created\r\nContent-Length: 100000000\r\n\r\n";
        let mut whole = stream.write_all(head.as_bytes()).await;
        while whole.is_ok() {
            whole = stream.write_all(&[b'x'; 8_192]).await;
        }
    });
    let sent = api(address.await).send_message(&[]).await;
    assert!(matches!(sent, Ok(None)), "{sent:?}");
}

#[test]
fn a_pause_is_made_if_it_is_short() {
    for (asked, pause) in [
        (None, Some(PAUSE)),
        (Some("0"), Some(Duration::ZERO)),
        (Some(" 10 "), Some(LONGEST_PAUSE)),
        (Some("11"), None),
        (Some("-1"), None),
        (Some("99999999999999999999"), None),
        (Some("Fri, 31 Dec 2027 23:59:59 GMT"), None),
    ] {
        let mut headers = HeaderMap::new();
        if let Some(asked) = asked {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(asked));
        }
        assert_eq!(pause_before_retry(Wait::read(&headers)), pause, "{asked:?}");
    }
}

#[test]
fn both_kinds_of_problems_have_a_code() {
    for body in [
        r#"{"code":63016,"message":"…","more_info":"…","status":400}"#,
        r#"{"type":"…","title":"…","status":400,"code":63016,"detail":"…"}"#,
    ] {
        let said: Problem = serde_json::from_str(body).unwrap();
        assert_eq!(said.code, Some(63016));
    }
}
