//! A carrier for whole clusters: rings, obeys the answers, brings media, and counts for itself
//! which calls are live.
//!
//! Invariant: what is counted here never comes from the gateway's own figures.

mod media;
mod truth;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use media::{Ending, Media, MediaError, Over};
pub use truth::Truth;

use crate::http::{Http, HttpError, Reply};
use crate::message::Reader;
use crate::twilio::{self, Answer, Stream, TwimlError};

/// What carrier and gateway trust each other by. It is no secret: all of it is on loopback.
pub const AUTH_TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const ACCOUNT_SID: &str = "AC00000000000000000000000000000001";
/// What is dialed where it does not matter.
const CALLED: &str = "+15550000000";

/// How long Twilio waits for a webhook: twilio.com/docs/usage/webhooks/webhooks-connection-overrides.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A carrier that brings calls to one cluster.
pub struct Carrier {
    pub http: Http,
    pub truth: Truth,
    /// What the gateway is called by in public: what signatures are made over.
    public_url: String,
    /// Where the public address leads.
    door: SocketAddr,
    /// The number that its callers dial.
    called: String,
    /// Where its media sockets come from, if that is not left to the system.
    source: Option<Ipv4Addr>,
    /// Prepared once for all sockets.
    reader: Arc<Reader>,
}

/// A ringing call's answer, and what it took.
#[derive(Debug, Clone, PartialEq)]
pub struct Rung {
    pub answer: Answer,
    pub took: Duration,
}

/// Why a webhook is of no use to its caller.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the webhook was answered with status {0}")]
    Status(u16),
    #[error(transparent)]
    Twiml(#[from] TwimlError),
}

impl Carrier {
    pub fn new(public_url: String, door: SocketAddr) -> Self {
        Self {
            http: Http::default(),
            truth: Truth::default(),
            public_url,
            door,
            called: CALLED.to_owned(),
            source: None,
            reader: Arc::default(),
        }
    }

    /// Lets its callers dial this number.
    #[must_use]
    pub fn dialing(mut self, called: &str) -> Self {
        called.clone_into(&mut self.called);
        self
    }

    /// Lets its media sockets come from this address, so that they can be told from others.
    #[must_use]
    pub fn sending_from(mut self, source: Ipv4Addr) -> Self {
        self.source = Some(source);
        self
    }

    /// Returns where Twilio itself would send everything.
    pub fn door(&self) -> SocketAddr {
        self.door
    }

    /// Rings at `to`, which is the door or one replica. An admitted call is live from here on.
    ///
    /// # Errors
    /// If the caller gets nothing that Twilio could obey.
    pub async fn ring(&self, to: SocketAddr, sid: &str) -> Result<Rung, WebhookError> {
        let from = caller(sid);
        let more = [("Caller", from.as_str()), ("Called", self.called.as_str())];
        let path = "/webhook/incoming_call";
        let reply = self.webhook(to, path, sid, "ringing", &more).await?;
        let answer = Answer::read(&reply.body)?;
        if matches!(answer, Answer::Connect(_)) {
            self.truth.admitted(sid);
        }
        Ok(Rung {
            answer,
            took: reply.took,
        })
    }

    /// Tells a call's status. A final one is preceded by the call's end: that is why it is told.
    ///
    /// # Errors
    /// If it does not arrive.
    pub async fn status(
        &self,
        to: SocketAddr,
        sid: &str,
        status: &str,
    ) -> Result<(), WebhookError> {
        let is_final = matches!(
            status,
            "completed" | "busy" | "failed" | "no-answer" | "canceled"
        );
        if is_final {
            self.truth.ended(sid);
        }
        self.webhook(to, "/webhook/call_status", sid, status, &[])
            .await?;
        Ok(())
    }

    /// Asks what the caller of an ended stream hears. The stream is over: so is its slot.
    ///
    /// # Errors
    /// If the caller gets nothing that Twilio could obey.
    pub async fn stream_ended(&self, to: SocketAddr, sid: &str) -> Result<Answer, WebhookError> {
        self.truth.ended(sid);
        let path = "/webhook/stream_ended";
        let reply = self.webhook(to, path, sid, "in-progress", &[]).await?;
        Ok(Answer::read(&reply.body)?)
    }

    /// Opens the media socket of an admitted call, by the door.
    ///
    /// # Errors
    /// If it is refused, or nobody takes it.
    pub async fn open(&self, sid: &str, stream: &Stream) -> Result<Media, MediaError> {
        let signature = twilio::sign(AUTH_TOKEN, &stream.url, &[]);
        let reader = Arc::clone(&self.reader);
        Media::open(self.source, self.door, sid, stream, &signature, reader).await
    }

    /// Posts what Twilio says of a call with every webhook, and `more`.
    async fn webhook(
        &self,
        to: SocketAddr,
        path: &str,
        sid: &str,
        status: &str,
        more: &[(&str, &str)],
    ) -> Result<Reply, WebhookError> {
        let from = caller(sid);
        let common = [
            ("CallSid", sid),
            ("AccountSid", ACCOUNT_SID),
            ("From", &from),
            ("To", &self.called),
            ("CallStatus", status),
            ("ApiVersion", "2010-04-01"),
            ("Direction", "inbound"),
        ];
        let fields = [&common, more].concat();
        let request = twilio::webhook(AUTH_TOKEN, &self.public_url, path, &fields);
        let reply = self.http.exchange(to, &request, PATIENCE).await?;
        match reply.status {
            200 | 204 => Ok(reply),
            status => Err(WebhookError::Status(status)),
        }
    }
}

/// Returns who rings: one number for each call.
pub fn caller(sid: &str) -> String {
    let digits = sid.bytes().rev().take(7).map(|byte| byte % 10);
    digits.fold("+1555".to_owned(), |number, digit| {
        number + &digit.to_string()
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::frame::{self, Frames, Opcode};
    use crate::message::{self, FromCarrier};
    use crate::{http, upgrade};

    const SID: &str = "CA00000000000000000000000000000001";

    #[tokio::test]
    async fn an_admitted_call_is_live_from_its_answer_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = listener.local_addr().unwrap();
        let carrier = Carrier::new(format!("http://{door}"), door);
        let connect = format!(
            r#"<Response><Connect><Stream url="ws://{door}/media"><Parameter name="ticket" value="t"/></Stream></Connect></Response>"#
        );
        let gateway = async {
            let (mut kept, _) = listener.accept().await.unwrap();
            let busy = "<Response><Say>Busy.</Say><Hangup/></Response>";
            for (status, body) in [
                ("200 OK", connect.as_str()),
                ("200 OK", busy),
                ("503 No", ""),
            ] {
                answer(&mut kept, status, body).await;
            }
            answer(&mut kept, "200 OK", "").await;
        };
        let told = async {
            let rung = carrier.ring(door, SID).await.unwrap();
            assert!(matches!(rung.answer, Answer::Connect(_)));
            assert_eq!(carrier.truth.live(), 1);
            let rung = carrier.ring(door, "CA2").await.unwrap();
            assert_eq!(rung.answer, Answer::Told("Busy.".to_owned()));
            let failed = carrier.ring(door, "CA3").await;
            assert!(matches!(failed, Err(WebhookError::Status(503))));
            assert_eq!(carrier.truth.live(), 1);
            carrier.status(door, SID, "completed").await.unwrap();
            assert_eq!(carrier.truth.live(), 0);
        };
        tokio::join!(gateway, told);
    }

    #[tokio::test]
    async fn a_media_socket_says_its_ticket_echoes_marks_and_hangs_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = listener.local_addr().unwrap();
        let carrier = Carrier::new(format!("http://{door}"), door);
        let stream = Stream {
            url: format!("ws://{door}/media"),
            parameters: serde_json::Map::from_iter([("ticket".to_owned(), "t".into())]),
        };
        let gateway = async {
            let (mut refused, _) = listener.accept().await.unwrap();
            answer(&mut refused, "503 No", "").await;
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            let length = http::read_head(&mut socket, &mut read).await.unwrap();
            let granted = upgrade::response(upgrade::head(&read).unwrap()).unwrap();
            read.drain(..length);
            let mut out = granted.into_bytes();
            let mark = br#"{"event":"mark","streamSid":"MZ","mark":{"name":"m1"}}"#;
            frame::append(&mut out, Opcode::Text, None, &[mark]);
            socket.write_all(&out).await.unwrap();
            while socket.read_buf(&mut read).await.unwrap() != 0 {}
            let mut frames = Frames::new(&mut read);
            let mut texts = Vec::new();
            while let Some(frame) = frames.next().unwrap() {
                if frame.opcode == Opcode::Text {
                    texts.push(String::from_utf8(frame.payload.to_vec()).unwrap());
                }
            }
            texts
        };
        let said = async {
            let refused = carrier.open(SID, &stream).await;
            assert!(matches!(refused, Err(MediaError::Refused(503))));
            let media = carrier.open(SID, &stream).await.unwrap();
            carrier.truth.admitted(SID);
            let time = Duration::from_millis(500);
            let over = media.talk(time, Ending::HangsUp, &carrier.truth).await;
            assert_eq!((over, carrier.truth.live()), (Over::Left, 0));
        };
        let (texts, ()) = tokio::join!(gateway, said);
        let events = ["connected", "start", "media", "mark", "stop"];
        for event in events {
            let event = format!(r#""event":"{event}""#);
            assert!(
                texts.iter().any(|text| text.contains(&event)),
                "{event} in {texts:?}"
            );
        }
        assert!(texts[1].contains(r#""ticket":"t""#), "{}", texts[1]);
    }

    #[tokio::test]
    async fn a_caller_from_an_address_says_something_and_hears_the_agent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = listener.local_addr().unwrap();
        let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
        let carrier = Carrier::new(format!("http://{door}"), door).sending_from(elsewhere);
        let stream = Stream {
            url: format!("ws://{door}/media"),
            ..Stream::default()
        };
        let gateway = async {
            let (mut socket, from) = listener.accept().await.unwrap();
            let mut read = Vec::new();
            let length = http::read_head(&mut socket, &mut read).await.unwrap();
            let granted = upgrade::response(upgrade::head(&read).unwrap()).unwrap();
            read.drain(..length);
            socket.write_all(granted.as_bytes()).await.unwrap();
            let mut said = Vec::new();
            while said.is_empty() {
                assert_ne!(socket.read_buf(&mut read).await.unwrap(), 0);
                let mut frames = Frames::new(&mut read);
                while let Some(frame) = frames.next().unwrap() {
                    let text = frame.payload.to_vec();
                    if let Some(FromCarrier::Media(audio)) = carrier.reader.carrier(&text) {
                        said.push(audio.to_owned());
                    }
                }
                let rest = frames.rest().len();
                read.drain(..read.len() - rest);
            }
            let audio = message::media_prefix("MZ") + &said[0] + message::MEDIA_SUFFIX;
            let mut out = Vec::new();
            frame::append(&mut out, Opcode::Text, None, &[audio.as_bytes()]);
            socket.write_all(&out).await.unwrap();
            (from.ip(), said.swap_remove(0))
        };
        let said = async {
            let mut media = carrier.open(SID, &stream).await.unwrap();
            media.converse(PATIENCE).await
        };
        let ((from, said), conversed) = tokio::join!(gateway, said);
        conversed.unwrap();
        assert_eq!(from, elsewhere);
        // Base64 of silence.
        assert!(!said.starts_with("////"), "{said}");
    }

    async fn answer(stream: &mut TcpStream, status: &str, body: &str) {
        let mut request = Vec::new();
        let head = http::read_head(stream, &mut request).await.unwrap();
        let length = upgrade::header(upgrade::head(&request).unwrap(), "Content-Length");
        let length = length.map_or(0, |length| length.parse().unwrap());
        while request.len() < head + length {
            stream.read_buf(&mut request).await.unwrap();
        }
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}
