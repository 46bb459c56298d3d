use std::task::Waker;

use actix_web::{FromRequest, dev, test::TestRequest, web::Payload};

use super::*;

/// A browser's socket whose other end reads nothing; hold the response, or it is closed.
async fn unread() -> (MediaSocket, actix_web::HttpResponse) {
    let request = TestRequest::get()
        .insert_header(("connection", "upgrade"))
        .insert_header(("upgrade", "websocket"))
        .insert_header(("sec-websocket-version", "13"))
        .insert_header(("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="))
        .to_http_request();
    let body = Payload::from_request(&request, &mut dev::Payload::None);
    let (response, sender, receiver) = actix_ws::handle(&request, body.await.unwrap()).unwrap();
    let dialect = Dialect::Web(web::MediaStream::default());
    (MediaSocket::new(dialect, sender, receiver), response)
}

fn pump(socket: &mut MediaSocket) -> Poll<EndReason> {
    let mut cx = Context::from_waker(Waker::noop());
    socket.poll_outbox(&mut cx, Duration::from_secs(1))
}

#[actix_web::test]
async fn words_that_nobody_reads_end_the_call_before_they_fill_the_memory() {
    for (text, most) in [("", 5_000), (&*"x".repeat(10_000), 150)] {
        let (mut socket, _response) = unread().await;
        let mut said = 0;
        let ended = loop {
            socket.said(Speaker::Agent, text);
            said += 1;
            match pump(&mut socket) {
                Poll::Ready(reason) => break reason,
                Poll::Pending => assert!(said < most, "{said} wait"),
            }
        };
        assert_eq!(ended, EndReason::CarrierBlocked);
        assert!(said > 100, "{said}");
    }
}
