use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::*;

const SCOPE: &str = "https://cognitiveservices.azure.com/.default";
const GOOD: &str = r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":"eyJ0.e30.c2ln"}"#;

/// A login host that answers every request alike. Dropping it stops it.
struct Login {
    entra: Entra,
    asked: Arc<AtomicUsize>,
    last: Arc<std::sync::Mutex<String>>,
    tasks: JoinSet<()>,
}

async fn login(status: u16, body: &'static str) -> Login {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let last = Arc::new(std::sync::Mutex::new(String::new()));
    let (count, note) = (Arc::clone(&asked), Arc::clone(&last));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            // The form is the last line, and holds the scope.
            while !String::from_utf8_lossy(&request).contains("scope=") {
                let read = stream.read_buf(&mut request).await.unwrap();
                assert!(read > 0, "the request is whole");
            }
            count.fetch_add(1, Ordering::Relaxed);
            *note.lock().unwrap() = String::from_utf8(request).unwrap();
            let length = body.len();
            let answer =
                format!("HTTP/1.1 {status} As-Told\r\nContent-Length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let settings = EntraSettings {
        login: url.parse().unwrap(),
        tenant: "contoso.example.com".to_owned(),
        client: "11111111-2222-3333-4444-555555555555".to_owned(),
        secret: "a secret & more".into(),
    };
    Login {
        entra: Entra::new(settings, SCOPE, http_client().unwrap()),
        asked,
        last,
        tasks,
    }
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_token() {
    let login = login(200, GOOD).await;
    let tokens = join_all((0..20).map(|_| login.entra.token())).await;
    for token in tokens {
        assert_eq!(token.unwrap().expose_secret(), "eyJ0.e30.c2ln");
    }
    login.entra.token().await.unwrap();
    assert_eq!(login.asked.load(Ordering::Relaxed), 1);
    let request = login.last.lock().unwrap().clone();
    assert!(request.starts_with("POST /contoso.example.com/oauth2/v2.0/token HTTP/1.1\r\n"));
    let (_, form) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        form,
        "grant_type=client_credentials&client_id=11111111-2222-3333-4444-555555555555\
         &client_secret=a+secret+%26+more&scope=https%3A%2F%2Fcognitiveservices.azure.com%2F.default"
    );
}

#[tokio::test]
async fn a_token_is_renewed_in_the_last_tenth_of_its_time_and_when_it_was_refused() {
    let body = r#"{"expires_in":300,"access_token":"short"}"#;
    let login = login(200, body).await;
    let asked = async || {
        login.entra.token().await.unwrap();
        login.asked.load(Ordering::Relaxed)
    };
    assert_eq!([asked().await, asked().await], [1, 1]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(271)).await;
    tokio::time::resume();
    assert_eq!([asked().await, asked().await], [2, 2]);
    login.entra.was_refused().await;
    assert_eq!([asked().await, asked().await], [3, 3]);
}

#[tokio::test]
async fn what_goes_wrong_is_told_apart_and_shows_no_secret() {
    let refusal = r#"{"error":"invalid_client","error_description":"AADSTS7000215"}"#;
    for (status, body, expected) in [
        (
            401,
            refusal,
            r#"Refused { status: 401, code: "invalid_client" }"#,
        ),
        (503, "busy", r#"Refused { status: 503, code: "" }"#),
        (302, "", r#"Refused { status: 302, code: "" }"#),
        (200, "{}", "Garbled"),
        (200, "[1]", "Garbled"),
        (
            200,
            r#"{"expires_in":3599,"access_token":"a\nb"}"#,
            "Garbled",
        ),
    ] {
        let login = login(status, body).await;
        let error = login.entra.token().await.err().unwrap();
        assert_eq!(format!("{error:?}"), expected);
    }
    let mut login = login(200, GOOD).await;
    login.tasks.shutdown().await;
    let error = login.entra.token().await.err().unwrap();
    assert!(matches!(error, EntraError::Unreachable(_)), "{error:?}");
    assert!(!format!("{error:?} {:?}", login.entra.settings).contains("secret &"));
}
