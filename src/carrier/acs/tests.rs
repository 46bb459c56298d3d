mod judged;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::{
    request::{Media, Number, RejectReason},
    signature::{Signable, sign},
    *,
};
use crate::{
    admission::redis_server::free_port,
    call::PhoneNumber,
    config::{AcsAudio, AcsCredentials},
    loopback::{Loopback, Reply, Request},
};

const KEY: &[u8] = b"a key of the resource's";
const PROPERTIES: &str = r#"{"callConnectionId":"1b005580-1f2e","correlationId":"0b1c2d3e-1111","callConnectionState":"connecting"}"#;
const CANARIES: [&str; 4] = ["canary", "eyJ", "+1425", "key of"];

fn client(server: &Loopback) -> CallAutomation {
    with(server, AcsCredentials::Key(SecretSlice::from(KEY.to_vec())))
}

fn with(server: &Loopback, credentials: AcsCredentials) -> CallAutomation {
    let url: Url = server.url("").parse().unwrap();
    let api = AcsApi {
        endpoint: url.clone(),
        credentials,
    };
    CallAutomation::new(api, "2026-03-12", &url).unwrap()
}

fn in_time() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// What a call is answered with.
struct Ringing {
    context: SecretString,
    callback: Url,
    socket: Url,
}

impl Ringing {
    fn new() -> Self {
        Self {
            context: "eyJ-canary".into(),
            callback: "https://gw.example.com/acs/callbacks/1?k=canary"
                .parse()
                .unwrap(),
            socket: "wss://gw.example.com/acs/ws/canary".parse().unwrap(),
        }
    }

    fn media(&self) -> Media<'_> {
        Media {
            socket: &self.socket,
            audio: AcsAudio::Pcm24K,
        }
    }

    fn answer(&self) -> Answer<'_> {
        Answer {
            context: &self.context,
            callback: &self.callback,
            operation_context: "incomingCall",
            media: Some(self.media()),
        }
    }
}

async fn answered(acs: &CallAutomation, deadline: Instant) -> Result<Connecting, AcsError> {
    acs.answer(&Ringing::new().answer(), since(30), deadline)
        .await
}

/// The time since which a call rings, by its second.
fn since(second: i8) -> Timestamp {
    let since = format!("2026-01-06T10:20:{second}Z");
    since.parse().unwrap()
}

/// Checks that a request is signed as it came over the wire.
fn assert_signed(request: &Request) {
    let (method, target) = request.line.split_once(' ').unwrap();
    let expected = sign(
        &SecretSlice::from(KEY.to_vec()),
        &Signable {
            method,
            path_and_query: target,
            host: request.header("host").unwrap(),
            date: request.header("x-ms-date").unwrap(),
            body: request.body.as_bytes(),
        },
    );
    for (name, value) in &expected {
        assert_eq!(request.header(name), Some(value.as_str()), "{name}");
    }
}

#[tokio::test]
async fn a_call_is_answered_with_a_socket_in_both_directions() {
    let server = Loopback::start(|_, _| Reply::Answer(200, PROPERTIES.to_owned())).await;
    let answered = answered(&client(&server), in_time()).await;
    let Connecting { connection, call } = answered.unwrap();
    assert_eq!(connection.to_string(), "1b005580-1f2e");
    assert_eq!(call.unwrap().as_str(), "0b1c2d3e-1111");
    let [request] = &server.requests()[..] else {
        panic!("one request")
    };
    assert_signed(request);
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        request.line,
        "POST /calling/callConnections:answer?api-version=2026-03-12"
    );
    assert_eq!(
        request.body,
        r#"{"incomingCallContext":"eyJ-canary","callbackUri":"https://gw.example.com/acs/callbacks/1?k=canary","operationContext":"incomingCall","mediaStreamingOptions":{"transportType":"websocket","audioChannelType":"mixed","transportUrl":"wss://gw.example.com/acs/ws/canary","contentType":"audio","startMediaStreaming":true,"enableBidirectional":true,"audioFormat":"pcm24KMono","enableDtmfTones":true}}"#
    );
}

#[tokio::test]
async fn everything_else_is_asked_for_in_the_vendors_words() {
    let server = Loopback::start(|_, _| Reply::Answer(202, PROPERTIES.to_owned())).await;
    let (acs, ringing) = (client(&server), Ringing::new());
    let (from, to) = (
        "+14255550123".parse().unwrap(),
        "+14255550199".parse().unwrap(),
    );
    let context = &ringing.context;
    let call = "1b005580-1f2e".parse().unwrap();
    let reason = RejectReason::Busy;
    acs.reject(&Reject { context, reason }, since(30), in_time())
        .await
        .unwrap();
    let redirect = Redirect { context, to: &to };
    acs.redirect(&redirect, since(30), in_time()).await.unwrap();
    acs.hang_up(&call, since(30), in_time()).await.unwrap();
    let transfer = Transfer {
        to: &to,
        from: Some(Number::from(&from)),
        operation_context: "t",
    };
    acs.transfer(&call, &transfer, since(30), in_time())
        .await
        .unwrap();
    let tones = SendTones {
        keys: "50*#",
        to: &to,
        operation_context: "k",
    };
    acs.send_tones(&call, &tones, in_time()).await.unwrap();
    let file = "https://gw.example.com/busy.wav".parse().unwrap();
    let play = Play {
        file: &file,
        operation_context: "p",
    };
    acs.play(&call, &play, in_time()).await.unwrap();
    let new_call = NewCall {
        to: &to,
        from: &from,
        callback: &ringing.callback,
        operation_context: "o",
        media: None,
    };
    let name = (
        CallId::of(&"acs-1".to_owned().try_into().unwrap()),
        since(30),
    );
    acs.create_call(name, &new_call, in_time()).await.unwrap();
    let mut said = Vec::new();
    for request in server.requests() {
        assert_signed(&request);
        let once = request.header("repeatability-request-id").is_some();
        let once = if once { "once" } else { "whenever" };
        said.push(format!("{} {once}\n{}", request.line, request.body));
    }
    insta::assert_snapshot!(said.join("\n"), @r#"
    POST /calling/callConnections:reject?api-version=2026-03-12 once
    {"incomingCallContext":"eyJ-canary","callRejectReason":"busy"}
    POST /calling/callConnections:redirect?api-version=2026-03-12 once
    {"incomingCallContext":"eyJ-canary","target":{"rawId":"4:+14255550199","phoneNumber":{"value":"+14255550199"}}}
    POST /calling/callConnections/1b005580-1f2e:terminate?api-version=2026-03-12 once

    POST /calling/callConnections/1b005580-1f2e:transferToParticipant?api-version=2026-03-12 once
    {"targetParticipant":{"rawId":"4:+14255550199","phoneNumber":{"value":"+14255550199"}},"sourceCallerIdNumber":{"value":"+14255550123"},"operationContext":"t"}
    POST /calling/callConnections/1b005580-1f2e:sendDtmfTones?api-version=2026-03-12 once
    {"tones":["five","zero","asterisk","pound"],"targetParticipant":{"rawId":"4:+14255550199","phoneNumber":{"value":"+14255550199"}},"operationContext":"k"}
    POST /calling/callConnections/1b005580-1f2e:play?api-version=2026-03-12 whenever
    {"playSources":[{"kind":"file","file":{"uri":"https://gw.example.com/busy.wav"}}],"operationContext":"p"}
    POST /calling/callConnections?api-version=2026-03-12 once
    {"targets":[{"rawId":"4:+14255550199","phoneNumber":{"value":"+14255550199"}}],"sourceCallerIdNumber":{"value":"+14255550123"},"callbackUri":"https://gw.example.com/acs/callbacks/1?k=canary","operationContext":"o"}
    "#);
    assert!("../participants".parse::<CallConnectionId>().is_err());
}

#[tokio::test]
async fn what_acs_knows_again_is_asked_for_again_under_the_same_id() {
    let server = Loopback::start(|n, _| match n {
        0 => Reply::With(429, "Retry-After: 0", String::new()),
        1 => Reply::Close,
        2 => Reply::Answer(500, String::new()),
        _ => Reply::Answer(200, PROPERTIES.to_owned()),
    });
    let server = server.await;
    assert!(answered(&client(&server), in_time()).await.is_ok());
    let requests = server.requests();
    assert_eq!(requests.len(), 4);
    let known_by = |request: &Request| {
        let names = ["repeatability-request-id", "repeatability-first-sent"];
        names.map(|name| request.header(name).unwrap().to_owned())
    };
    for request in &requests {
        assert_signed(request);
        assert_eq!(known_by(request), known_by(&requests[0]));
    }
    assert!(known_by(&requests[0])[1].ends_with(" GMT"));
}

#[tokio::test]
async fn whoever_answers_the_same_call_the_same_way_is_known_by_the_same_id() {
    let server = Loopback::start(|_, _| Reply::Answer(200, PROPERTIES.to_owned())).await;
    let ringing = Ringing::new();
    let other_ticket = "wss://gw.example.com/acs/ws/another".parse().unwrap();
    let other = Answer {
        media: Some(Media {
            socket: &other_ticket,
            ..ringing.media()
        }),
        ..ringing.answer()
    };
    let answers = [
        (ringing.answer(), 30),
        (ringing.answer(), 30),
        (ringing.answer(), 31),
        (other, 30),
    ];
    for (answer, second) in answers {
        let replica = client(&server);
        let answered = replica.answer(&answer, since(second), in_time());
        answered.await.unwrap();
    }
    let id = |request: &Request| {
        let id = request.header("repeatability-request-id");
        id.unwrap().to_owned()
    };
    let requests = server.requests();
    let ids: Vec<_> = requests.iter().map(id).collect();
    let [one, again, later, another] = &ids[..] else {
        panic!("four requests: {ids:?}")
    };
    assert_eq!(one, again);
    assert!(
        one != later && one != another && later != another,
        "{ids:?}"
    );
    let first_sent = requests[0].header("repeatability-first-sent");
    assert_eq!(first_sent, Some("Tue, 06 Jan 2026 10:20:30 GMT"));
}

#[tokio::test]
async fn what_may_have_been_done_is_not_asked_for_again() {
    let file = "https://gw.example.com/busy.wav".parse().unwrap();
    let play = Play {
        file: &file,
        operation_context: "p",
    };
    let call = "1b005580-1f2e".parse().unwrap();
    for (status, tries) in [(503, 2), (429, 2), (408, 2), (500, 1), (400, 1), (401, 1)] {
        let server = Loopback::start(move |n, _| match n {
            0 => Reply::With(status, "Retry-After: 0", String::new()),
            _ => Reply::Answer(202, String::new()),
        });
        let server = server.await;
        let played = client(&server).play(&call, &play, in_time()).await;
        assert_eq!(played.is_ok(), tries == 2, "{status}: {played:?}");
        assert_eq!(server.requests().len(), tries, "{status}");
    }
}

#[tokio::test]
async fn a_call_is_asked_for_a_single_time_and_its_fate_is_told() {
    let ringing = Ringing::new();
    let number = "+14255550123".parse().unwrap();
    let call = NewCall {
        to: &number,
        from: &number,
        callback: &ringing.callback,
        operation_context: "o",
        media: Some(ringing.media()),
    };
    let name = (
        CallId::of(&"acs-1".to_owned().try_into().unwrap()),
        since(30),
    );
    let wait = Some(Duration::from_secs(7));
    for (reply, fate) in [
        (
            Reply::With(429, "Retry-After: 7", String::new()),
            Fate::NotDone { wait },
        ),
        (Reply::Close, Fate::Unknown),
        (Reply::Answer(500, String::new()), Fate::Unknown),
        (Reply::Answer(503, String::new()), Fate::Unknown),
        (Reply::Answer(408, String::new()), Fate::Unknown),
        (Reply::Answer(409, String::new()), Fate::Unknown),
        (Reply::Answer(201, "{}".to_owned()), Fate::Unknown),
        (Reply::Answer(400, String::new()), Fate::Refused),
        (Reply::Answer(401, String::new()), Fate::Refused),
    ] {
        let mut reply = Some(reply);
        let server = Loopback::start(move |_, _| reply.take().unwrap_or(Reply::Hang)).await;
        let unplaced = client(&server).create_call(name, &call, in_time()).await;
        assert_eq!(unplaced.unwrap_err().fate, fate);
        let requests = server.requests();
        assert_eq!(requests.len(), 1);
        let known_by = requests[0].header("repeatability-request-id");
        assert_eq!(known_by, Some(&*name.0.to_string()));
    }
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let nowhere: Url = nowhere.parse().unwrap();
    let api = AcsApi {
        endpoint: nowhere.clone(),
        credentials: AcsCredentials::Key(SecretSlice::from(KEY.to_vec())),
    };
    let gone = CallAutomation::new(api, "2026-03-12", &nowhere).unwrap();
    let unplaced = gone.create_call(name, &call, in_time()).await.unwrap_err();
    assert_eq!(unplaced.fate, Fate::NotDone { wait: None });
}

#[tokio::test]
async fn a_call_goes_on_as_far_as_acs_knows_it() {
    let state =
        |state: &str| format!(r#"{{"callConnectionId":"1b0","callConnectionState":"{state}"}}"#);
    let gone = r#"{"error":{"code":"8522","message":""}}"#.to_owned();
    for (status, body, goes_on) in [
        (200, state("connected"), Some(true)),
        (200, state("disconnected"), Some(false)),
        (404, gone, Some(false)),
        (401, String::new(), None),
    ] {
        let server = Loopback::start(move |_, _| Reply::Answer(status, body.clone())).await;
        let call = "1b005580".parse().unwrap();
        assert_eq!(
            client(&server).goes_on(&call, in_time()).await.ok(),
            goes_on
        );
        let request = &server.requests()[0];
        assert_signed(request);
        let line = "GET /calling/callConnections/1b005580?api-version=2026-03-12";
        assert_eq!(request.line, line);
    }
}

#[tokio::test]
async fn a_call_that_is_gone_has_been_hung_up() {
    for (status, code, is_hung_up) in [
        (404, "8522", true),
        (400, "8501", false),
        (400, "8528", true),
        (412, "8585", true),
        (404, "1", false),
        (400, "8522", false),
        (403, "7504", false),
    ] {
        let body = format!(r#"{{"error":{{"code":"{code}","message":"of +14255550123"}}}}"#);
        let server = Loopback::start(move |_, _| Reply::Answer(status, body.clone())).await;
        let (acs, call) = (client(&server), "1b005580".parse().unwrap());
        let hung_up = acs.hang_up(&call, since(30), in_time()).await;
        assert_eq!(hung_up.is_ok(), is_hung_up, "{status} {code}");
        if let Err(error) = hung_up {
            assert_eq!(error.problem().unwrap().subcode, code.parse().ok());
        }
    }
}

#[tokio::test]
async fn every_failure_has_a_name_and_shows_nothing() {
    let too_long = "x".repeat(300 << 10);
    let refused =
        r#"{"error":{"code":"8523","message":"bad https://gw/canary of eyJ+14255550123"}}"#;
    let table = [
        (Reply::Hang, "too_slow"),
        (
            Reply::With(429, "Retry-After: 60", String::new()),
            "throttled",
        ),
        (Reply::Answer(401, String::new()), "unauthorized"),
        (Reply::Answer(400, refused.to_owned()), "refused"),
        (Reply::Answer(505, "<html>".to_owned()), "failed"),
        (Reply::Answer(302, String::new()), "refused"),
        (Reply::Answer(200, too_long), "garbled"),
        (
            Reply::Answer(200, r#"{"callConnectionId":"../.."}"#.to_owned()),
            "garbled",
        ),
    ];
    for (reply, name) in table {
        let mut reply = Some(reply);
        let server = Loopback::start(move |_, _| reply.take().unwrap_or(Reply::Hang)).await;
        let patience = if name == "too_slow" { 2 } else { 30 };
        let deadline = Instant::now() + Duration::from_secs(patience);
        let error = answered(&client(&server), deadline).await.unwrap_err();
        assert_eq!(error.as_str(), name);
        let shown = format!("{error} {error:?} {:?}", error.problem());
        for canary in CANARIES {
            assert!(!shown.contains(canary), "{shown}");
        }
        assert_eq!(server.requests().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn nobody_there_is_told_without_an_address() {
    let server = Loopback::start(|_, _| Reply::Close).await;
    let closing = client(&server);
    let mut away = client(&server);
    away.endpoint = format!("http://127.0.0.1:{}", free_port());
    let (closed, unreachable) =
        tokio::join!(answered(&closing, in_time()), answered(&away, in_time()));
    let errors = [closed.unwrap_err(), unreachable.unwrap_err()];
    assert_eq!(
        errors.each_ref().map(AcsError::as_str),
        ["broken_off", "unreachable"]
    );
    assert_eq!(server.requests().len(), 4);
    assert!(
        !format!("{errors:?}").contains("callConnections"),
        "{errors:?}"
    );
}

fn application() -> AcsCredentials {
    AcsCredentials::Entra {
        tenant: Uuid::nil(),
        client: Uuid::max(),
        secret: "canary-secret".into(),
    }
}

fn is_for_token(request: &Request) -> bool {
    request.line.ends_with("/oauth2/v2.0/token")
}

#[tokio::test]
async fn an_applications_token_is_fetched_once_and_renewed_in_time() {
    let server = Loopback::start(|n, request| {
        if is_for_token(request) {
            let body = format!(r#"{{"access_token":"token-{n}","expires_in":3600}}"#);
            return Reply::Answer(200, body);
        }
        Reply::Answer(200, PROPERTIES.to_owned())
    });
    let server = server.await;
    let acs = with(&server, application());
    let (one, other) = tokio::join!(answered(&acs, in_time()), answered(&acs, in_time()));
    assert!(one.is_ok() && other.is_ok());
    let requests = server.requests();
    assert_eq!(
        requests
            .iter()
            .filter(|request| is_for_token(request))
            .count(),
        1
    );
    assert_eq!(
        requests[0].line,
        format!("POST /{}/oauth2/v2.0/token", Uuid::nil())
    );
    insta::assert_snapshot!(requests[0].body, @"grant_type=client_credentials&client_id=ffffffff-ffff-ffff-ffff-ffffffffffff&client_secret=canary-secret&scope=https%3A%2F%2Fcommunication.azure.com%2F%2F.default");
    for request in &requests[1..] {
        assert_eq!(request.header("authorization"), Some("Bearer token-0"));
        assert_eq!(request.header("x-ms-date"), None);
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_301)).await;
    tokio::time::resume();
    answered(&acs, in_time()).await.unwrap();
    let last = server.requests().pop().unwrap();
    assert_eq!(last.header("authorization"), Some("Bearer token-3"));
}

#[tokio::test]
async fn a_token_serves_to_its_end_while_entra_is_away_and_is_forgotten_when_refused() {
    let server = Loopback::start(|n, request| match (n, is_for_token(request)) {
        (0, _) => {
            let token = r#"{"access_token":"token-0","expires_in":3600}"#;
            Reply::Answer(200, token.to_owned())
        }
        (_, true) => Reply::Answer(401, r#"{"error":"invalid_client"}"#.to_owned()),
        (1 | 3, false) => Reply::Answer(200, PROPERTIES.to_owned()),
        (_, false) => Reply::Answer(401, String::new()),
    });
    let server = server.await;
    let acs = with(&server, application());
    answered(&acs, in_time()).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_301)).await;
    tokio::time::resume();
    answered(&acs, in_time()).await.unwrap();
    let refused = answered(&acs, in_time()).await.unwrap_err();
    assert_eq!(refused.as_str(), "unauthorized");
    let error = answered(&acs, in_time()).await.unwrap_err();
    assert_eq!(error.as_str(), "no_token");
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "Entra refused with status 401 and \"invalid_client\""
    );
    assert!(server.requests().last().is_some_and(is_for_token));
}

#[tokio::test]
async fn a_call_is_over_once_acs_knows_of_none() {
    let gone = r#"{"error":{"code":"8522","message":"Call not found."}}"#;
    let server = Loopback::start(move |n, _| match n {
        0 => Reply::Answer(200, PROPERTIES.to_owned()),
        1 => Reply::Answer(404, gone.to_owned()),
        _ => Reply::Answer(403, String::new()),
    })
    .await;
    let (acs, call) = (client(&server), "1b005580-1f2e".parse().unwrap());
    assert!(!acs.is_over(&call, in_time()).await.unwrap());
    assert!(acs.is_over(&call, in_time()).await.unwrap());
    assert!(acs.is_over(&call, in_time()).await.is_err(), "nobody knows");
    let line = &server.requests()[0].line;
    assert!(
        line.starts_with("GET /calling/callConnections/1b005580-1f2e?"),
        "{line}"
    );
}
