//! Calls that bad input is about, and how it is brought.

use callgate::fake_acs::{Answered, Deed, FakeAcs, FakeCall, Manner};
use reqwest::RequestBuilder;

use super::{
    rows::{CODE, Row},
    tokens,
};
use crate::{
    acs::{AcsCall, answered, bring, sent, upgrade, way_to},
    carrier::{CALLED, CALLER, Carrier},
    gateway::eventually,
    pcm::{FRAME, PcmLine, Tongue},
};

/// What a gateway is given beside the fake's own settings.
pub const SETTINGS: [(&str, &str); 5] = [
    ("MAX_ACTIVE_CALLS", "2"),
    (
        "EVENTGRID_SUBSCRIPTIONS",
        "another-of-ours, callgate-simulator",
    ),
    ("ACS_WS_JWT", "required"),
    ("EVENTGRID_TENANT_ID", tokens::ENTRA_TENANT),
    ("EVENTGRID_AUDIENCE", tokens::APPLICATION),
];

/// A full house: two calls are live, one was refused, one is over, and one is still to ring.
pub struct Scene<'a> {
    pub carrier: &'a Carrier,
    pub acs: &'a FakeAcs,
    pub live: AcsCall,
    pub other: AcsCall,
    pub refused: (FakeCall, Answered),
    pub over: (FakeCall, Answered),
    /// One that nobody has heard of, and nobody is to.
    pub unheard: FakeCall,
}

/// What is brought to the gateway.
pub enum Input {
    Request(Box<RequestBuilder>),
    /// A media socket, with an address and headers.
    Socket(String, Vec<(&'static str, String)>),
}

/// How it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Status(u16),
    /// The socket is opened, and closed with a code.
    Close(u16),
}

impl<'a> Scene<'a> {
    pub async fn set(carrier: &'a Carrier, acs: &'a FakeAcs) -> Self {
        let over = call(carrier, acs).await;
        over.line.close();
        let active = async || carrier.page("/health/details").await["active_calls"].clone();
        eventually(async || active().await == 0).await;
        let (live, other) = (call(carrier, acs).await, call(carrier, acs).await);
        live.line.until_played(FRAME).await;
        other.line.until_played(FRAME).await;
        let refused = rings(carrier, acs);
        refused.deliver().await.unwrap();
        let answer = answered(&refused).await;
        assert_eq!(answer.media, None);
        Self {
            carrier,
            acs,
            live,
            other,
            refused: (refused, answer),
            over: (over.call, over.answered),
            unheard: rings(carrier, acs),
        }
    }

    /// Brings a row's input and returns how it is answered, which is with nothing of ours.
    pub async fn meets(&self, row: &Row) -> Seen {
        match (row.sent)(self) {
            Input::Request(request) => {
                let answer = sent(*request).await;
                let status = answer.status().as_u16();
                assert!(answer.headers().get("WebHook-Allowed-Origin").is_none());
                let body = answer.text().await.unwrap();
                assert!(!body.contains(CODE), "{}: {body}", row.input);
                Seen::Status(status)
            }
            Input::Socket(url, headers) => match upgrade(self.carrier, &url, &headers).await {
                Err(status) => Seen::Status(status),
                Ok(socket) => {
                    let line = PcmLine::over(socket, Tongue::Acs);
                    let code = line.closed().await;
                    assert_eq!(line.played(0).len(), 0, "{}", row.input);
                    Seen::Close(code)
                }
            },
        }
    }

    pub async fn active_calls(&self) -> u64 {
        let details = self.carrier.page("/health/details").await;
        details["active_calls"].as_u64().unwrap()
    }

    /// Tells whether both live calls go on, and no other has begun.
    pub fn is_unharmed(&self) -> bool {
        let lives = |it: &AcsCall| {
            let seen = self.acs.saw(it.call.correlation());
            it.line.is_open() && !seen.contains(&Deed::HungUp)
        };
        let unheard = self.acs.saw(self.unheard.correlation());
        lives(&self.live) && lives(&self.other) && unheard.is_empty()
    }

    /// Ends it all.
    pub async fn leave(self) {
        self.live.line.close();
        self.other.line.close();
        eventually(async || self.active_calls().await == 0).await;
    }
}

fn rings(carrier: &Carrier, acs: &FakeAcs) -> FakeCall {
    acs.ring(&way_to(carrier), CALLER, CALLED, Manner::default())
}

async fn call(carrier: &Carrier, acs: &FakeAcs) -> AcsCall {
    let call = rings(carrier, acs);
    call.deliver().await.unwrap();
    bring(carrier, call).await
}
