use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::TaskTracker;

use super::*;
use crate::{carrier::twilio::Patience, config::ApiSettings};

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    // What hangs is waited for, and what answers has to be quicker on every machine.
    whole: Duration::from_secs(3),
};
const SID: &str = "CA00000000000000000000000000000001";

fn api(address: SocketAddr) -> TwilioApi {
    let settings = ApiSettings {
        base: format!("http://{address}").parse().unwrap(),
        account: "AC00000000000000000000000000000001".to_owned(),
        user: "AC00000000000000000000000000000001".to_owned(),
        secret: "a-token".into(),
    };
    TwilioApi::new(settings, PATIENCE).unwrap()
}

/// Serves one request after the other with the same answer; an empty one is a closed connection.
async fn server(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn answer(status: u16, header: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\n{header}Content-Length: {length}\r\n\r\n{body}")
}

fn a_call() -> NewCall<'static> {
    NewCall {
        to: "+972501234567",
        from: "+972721234567",
        answer_url: "https://voice.example.com/answer",
        status_url: "https://voice.example.com/status",
        ring_for: Duration::from_secs(30),
        longest: Duration::from_secs(600),
        detection: Detection::Off,
    }
}

#[tokio::test]
async fn only_what_cannot_have_been_done_may_be_asked_for_again() {
    let not_done = |wait| Some(Fate::NotDone { wait });
    let ten = Duration::from_secs(10);
    let sid = format!(r#"{{"sid":"{SID}","status":"queued"}}"#);
    for (answer, fate) in [
        (answer(201, "", &sid), None),
        (answer(201, "", "{}"), Some(Fate::Unknown)),
        (answer(201, "", "<html>"), Some(Fate::Unknown)),
        (answer(301, "Location: /\r\n", ""), Some(Fate::Unknown)),
        (answer(400, "", r#"{"code":21211}"#), Some(Fate::Refused)),
        (answer(400, "", r#"{"code":10004}"#), not_done(None)),
        (answer(401, "", r#"{"code":20003}"#), Some(Fate::Refused)),
        (answer(408, "", "<html>"), Some(Fate::Unknown)),
        (answer(409, "", ""), Some(Fate::Unknown)),
        (answer(429, "", r#"{"code":20429}"#), not_done(None)),
        (answer(429, "Retry-After: 10\r\n", ""), not_done(Some(ten))),
        (answer(500, "", ""), Some(Fate::Unknown)),
        (answer(503, "Retry-After: 1\r\n", ""), Some(Fate::Unknown)),
        (String::new(), Some(Fate::Unknown)),
        (
            "HTTP/1.1 201 x\r\nContent-Le".to_owned(),
            Some(Fate::Unknown),
        ),
    ] {
        let placed = api(server(answer.clone()).await).place(&a_call()).await;
        assert_eq!(
            placed.err().map(|error| error.fate()),
            fate,
            "after {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_has_placed_nothing_and_one_that_hangs_may_have() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hangs = api(address).place(&a_call()).await.unwrap_err();
    assert_eq!(hangs.fate(), Fate::Unknown, "{hangs:?}");
    drop(listener);
    let absent = api(address).place(&a_call()).await.unwrap_err();
    assert_eq!(absent.fate(), Fate::NotDone { wait: None }, "{absent:?}");
}

#[tokio::test]
async fn a_call_that_is_over_has_been_ended() {
    for (status, body, ended) in [
        (200, "{}", true),
        (404, r#"{"code":20404}"#, true),
        (400, r#"{"code":21220}"#, true),
        (400, r#"{"code":21205}"#, false),
        (500, "", false),
    ] {
        let call = CarrierCallId::try_from(SID.to_owned()).unwrap();
        let result = api(server(answer(status, "", body)).await).end(&call).await;
        assert_eq!(result.is_ok(), ended, "{status} {body}");
    }
}

#[tokio::test]
async fn listed_calls_are_read_with_the_time_at_which_they_were_asked_for() {
    let body = format!(
        r#"{{"calls":[
            {{"sid":"{SID}","status":"in-progress","date_created":"Tue, 13 Oct 2026 08:15:02 +0000"}},
            {{"sid":"CA2","status":"queued","date_created":null}},
            {{"status":"queued"}}]}}"#
    );
    let api = api(server(answer(200, "", &body)).await);
    let calls = api.list("+972501234567", "+972721234567").await.unwrap();
    let seen: Vec<_> = calls
        .iter()
        .map(|it| (it.call.as_str(), it.status.as_str(), it.created_at))
        .collect();
    let first = (SID, "in-progress", Some(1_791_879_302_000));
    assert_eq!(seen, [first, ("CA2", "queued", None)]);
}

#[tokio::test]
async fn only_who_knows_us_can_say_that_there_is_no_such_call() {
    let call = CarrierCallId::try_from(SID.to_owned()).unwrap();
    for (status, body, gone) in [
        (404, r#"{"code":20404}"#, true),
        (401, r#"{"code":20003}"#, false),
        (403, "", false),
        (400, r#"{"code":21205}"#, false),
        (500, "", false),
    ] {
        let api = api(server(answer(status, "", body)).await);
        let error = api.fetch(&call).await.unwrap_err();
        assert_eq!(error.knows_no_call(), gone, "{status}");
    }
}
