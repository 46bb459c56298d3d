//! A gateway with a fake ACS that brings it calls.

use std::{sync::Arc, time::Duration};

use callgate::{
    EndReason, What,
    fake_acs::{Answered, Deed, FakeAcs, FakeAcsOptions, FakeCall, Manner, Reach},
    parrot::ParrotOptions,
};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    client_async,
    tungstenite::{ClientRequestBuilder, Error},
};

use crate::{
    carrier::{CALLED, CALLER, Carrier, PUBLIC_URL, Socket},
    gateway::{Settings, TestGateway},
    line::GUARD,
    pcm::{PcmLine, Tongue},
};

/// A gateway, and a fake ACS whose settings it has.
pub struct AcsHouse {
    pub gateway: TestGateway,
    pub acs: FakeAcs,
    reach: Arc<Reach>,
}

/// A call that is answered and has its media.
pub struct AcsCall {
    pub call: FakeCall,
    pub answered: Answered,
    pub line: PcmLine,
}

impl AcsHouse {
    pub async fn start() -> Self {
        Self::with(FakeAcsOptions::on_a_free_port(), &[]).await
    }

    pub async fn with(options: FakeAcsOptions, settings: Settings<'_>) -> Self {
        let parrot = ParrotOptions {
            answer_after: Duration::from_millis(100),
            ..ParrotOptions::default()
        };
        Self::with_parrot(parrot, options, settings).await
    }

    pub async fn with_parrot(
        parrot: ParrotOptions,
        options: FakeAcsOptions,
        settings: Settings<'_>,
    ) -> Self {
        let acs = FakeAcs::start(options).await.unwrap();
        let environment = acs.environment();
        let mut all = settings.to_vec();
        all.extend(
            environment
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        all.push(("AGENT_VAD_SILENCE_MS", "200"));
        let login = acs.url();
        all.push(("ENTRA_LOGIN_URL", &login));
        let gateway = TestGateway::with_parrot(parrot, &all).await;
        Self {
            reach: way_to(&gateway.carrier),
            gateway,
            acs,
        }
    }

    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Makes a call that the gateway has not heard of yet.
    pub fn calling(&self) -> FakeCall {
        self.acs
            .ring(&self.reach, CALLER, CALLED, Manner::default())
    }

    /// Brings a new call.
    pub async fn ring(&self) -> FakeCall {
        let call = self.calling();
        call.deliver().await.unwrap();
        call
    }

    /// Brings a new call, which is answered, and its media.
    pub async fn connected(&self) -> AcsCall {
        let call = bring(&self.gateway.carrier, self.ring().await).await;
        let connected = |step: &What| (*step == What::Connected).then_some(());
        self.gateway
            .until_steps(call.call.correlation(), connected)
            .await;
        call
    }

    /// Opens a call's media socket as ACS does.
    ///
    /// # Errors
    /// With the status if the upgrade is refused.
    pub async fn open(&self, call: &FakeCall, answered: &Answered) -> Result<Socket, u16> {
        let url = media_url(answered);
        self.upgrade(url, &call.media_headers()).await
    }

    /// # Errors
    /// With the status if the upgrade is refused.
    pub async fn upgrade(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Socket, u16> {
        upgrade(&self.gateway.carrier, url, headers).await
    }

    /// Begins a request to the path of Event Grid's, with its secret.
    pub fn event_grid(&self) -> RequestBuilder {
        event_grid(&self.gateway.carrier, &self.acs)
    }

    /// Begins a callback for an answered call.
    pub fn callback(&self, answered: &Answered) -> RequestBuilder {
        callback(&self.gateway.carrier, answered)
    }

    /// Waits until something is seen of a call.
    pub async fn until(&self, call: &FakeCall, wanted: impl Fn(&Deed) -> bool) {
        until_seen(&self.acs, call, wanted).await;
    }

    /// Waits until a call has ended, and its slot is back.
    pub async fn ended(&self, call: &FakeCall) -> EndReason {
        let reason = self.gateway.ended(call.correlation()).await;
        self.gateway.until_active(0).await;
        reason
    }

    /// Returns how often something was seen of a call.
    pub fn count(&self, call: &FakeCall, deed: &Deed) -> usize {
        let saw = self.acs.saw(call.correlation());
        saw.iter().filter(|seen| *seen == deed).count()
    }

    /// Asserts that nothing is held anywhere.
    pub async fn finish(self) {
        self.gateway.finish().await;
        self.acs.stop().await;
    }
}

/// Brings the media of a call that rings once it is answered.
pub async fn bring(carrier: &Carrier, call: FakeCall) -> AcsCall {
    let answered = answered(&call).await;
    let headers = call.media_headers();
    let opened = upgrade(carrier, media_url(&answered), &headers);
    let socket = opened.await.unwrap();
    call.streams();
    AcsCall {
        line: PcmLine::over(socket, Tongue::Acs),
        call,
        answered,
    }
}

/// Begins a request to a gateway's path of Event Grid's, with its secret.
pub fn event_grid(carrier: &Carrier, acs: &FakeAcs) -> RequestBuilder {
    let [.., (_, secret)] = acs.environment();
    let path = format!("/acs/incomingcall?secret={secret}");
    carrier.post(&path)
}

/// Begins a callback to a gateway for an answered call.
pub fn callback(carrier: &Carrier, answered: &Answered) -> RequestBuilder {
    let path = answered.callback.strip_prefix(PUBLIC_URL).unwrap();
    carrier.post(path)
}

/// Opens a media socket at a gateway.
///
/// # Errors
/// With the status if the upgrade is refused.
pub async fn upgrade(
    carrier: &Carrier,
    url: &str,
    headers: &[(&'static str, String)],
) -> Result<Socket, u16> {
    let uri = url.replace("wss://", "ws://").parse().unwrap();
    let mut request = ClientRequestBuilder::new(uri);
    for (name, value) in headers {
        request = request.with_header(*name, value);
    }
    let tcp = TcpStream::connect(carrier.address).await;
    match client_async(request, tcp.unwrap()).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// Waits until something is seen of a call.
pub async fn until_seen(acs: &FakeAcs, call: &FakeCall, wanted: impl Fn(&Deed) -> bool) {
    let seen = acs.until(call.correlation(), wanted);
    timeout(GUARD, seen).await.expect("it was seen in time");
}

/// Returns the way on which a fake ACS reaches a gateway.
pub fn way_to(carrier: &Carrier) -> Arc<Reach> {
    let here = format!("http://{}", carrier.address);
    let public = PUBLIC_URL.parse().unwrap();
    Arc::new(Reach::new(&here.parse().unwrap(), Some(&public)))
}

/// Waits until a call is answered.
pub async fn answered(call: &FakeCall) -> Answered {
    let answered = timeout(GUARD, call.answered()).await;
    answered.expect("it was answered in time")
}

pub fn media_url(answered: &Answered) -> &str {
    &answered.media.as_ref().expect("it wants media").url
}

/// Returns an event of a call, as Call Automation writes it.
pub fn event(call: &FakeCall, connection: &str, kind: &str) -> Value {
    serde_json::json!([{
        "id": format!("{kind}-{connection}"), "specversion": "1.0",
        "source": format!("calling/callConnections/{connection}"),
        "type": format!("Microsoft.Communication.{kind}"), "time": "2026-01-06T10:20:32Z",
        "data": {"callConnectionId": connection, "correlationId": call.correlation()},
    }])
}

/// Sends a request and returns its status.
pub async fn status(request: RequestBuilder) -> u16 {
    sent(request).await.status().as_u16()
}

pub async fn sent(request: RequestBuilder) -> Response {
    request.send().await.unwrap()
}
