//! A fake of Azure Communication Services and of Event Grid: plays their part for a gateway on
//! this machine.
//!
//! Invariant: what the gateway asks for is checked as ACS checks it, and done once.
//! Invariant: a call that nobody is interested in anymore is forgotten.

mod callback;
mod caller;
mod calls;
mod event;
pub(super) mod message;
mod options;
mod placed;
mod play;
mod request;
mod rest;
mod seen;
mod signature;
mod tokens;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App, HttpServer, dev::ServerHandle, web};
use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Client;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, watch},
};
use tokio_util::task::TaskTracker;

use self::{
    callback::{Callback, tell_all},
    calls::{Call, Calls, MOST_CALLBACKS, lock},
    event::EventGrid,
    placed::Placing,
    request::Answers,
    seen::Seen,
    tokens::{SOCKET_LIFETIME, Tokens},
};
use super::reach::CONNECT_TIMEOUT;

pub use self::{
    caller::AcsCarrier,
    calls::{Answered, Ender, Habit, Manner, Media, Status, Turned},
    event::{EventError, Schema},
    options::{FakeAcsOptions, Fault},
    placed::{AskedFor, Phones},
    seen::{Deed, Sight},
    tokens::Claims,
};
pub use super::reach::Reach;

/// How long a request to the gateway may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest request that is read.
const LONGEST_REQUEST: usize = 256 << 10;

/// A fake ACS that serves, until it is stopped.
pub struct FakeAcs {
    service: Arc<Service>,
    options: FakeAcsOptions,
    server: ServerHandle,
}

/// A call that the fake has brought to ring. Dropping it is the end of it, without a word.
pub struct FakeCall {
    service: Arc<Service>,
    call: Arc<Call>,
}

/// What the server and the calls share.
struct Service {
    address: SocketAddr,
    key: Vec<u8>,
    slow: Duration,
    faults: Mutex<HashSet<Fault>>,
    tokens: Tokens,
    http: Client,
    event_grid: EventGrid,
    calls: Calls,
    answers: Answers,
    placing: Placing,
    seen: watch::Sender<Seen>,
    /// Where what takes time goes on: the server's workers end with the server.
    runtime: Handle,
    tasks: TaskTracker,
}

impl FakeAcs {
    /// Starts a fake on the runtime that calls.
    ///
    /// # Errors
    /// If its address cannot be used.
    pub async fn start(options: FakeAcsOptions) -> anyhow::Result<Self> {
        let resource = options.resource()?;
        let listener = TcpListener::bind(resource.listen).await;
        let listener = listener
            .with_context(|| format!("the fake ACS cannot listen on {}", resource.listen))?;
        let address = listener.local_addr()?;
        let http = http()?;
        let service = Arc::new(Service {
            address,
            key: resource.key,
            slow: options.slow,
            faults: Mutex::new(options.faults.iter().copied().collect()),
            tokens: Tokens::new(options.resource_id.clone()),
            event_grid: EventGrid::new(http.clone(), options.secret().to_owned()),
            http,
            calls: Calls::default(),
            answers: Answers::default(),
            placing: Placing::default(),
            seen: watch::Sender::default(),
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
        });
        let shared = web::Data::from(Arc::clone(&service));
        let app = move || {
            App::new()
                .app_data(web::Data::clone(&shared))
                .app_data(web::PayloadConfig::new(LONGEST_REQUEST))
                .default_service(web::to(rest::serve))
        };
        let server = HttpServer::new(app)
            .workers(1)
            .disable_signals()
            .shutdown_timeout(1)
            .listen(listener.into_std()?)?
            .run();
        let handle = server.handle();
        service.tasks.spawn(server);
        Ok(Self {
            service,
            options,
            server: handle,
        })
    }

    /// Returns its address, as ACS's endpoint.
    pub fn url(&self) -> String {
        self.service.base()
    }

    /// Returns the settings that make it a gateway's ACS.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let key = STANDARD.encode(&self.service.key);
        let base = self.url();
        [
            (
                "ACS_CONNECTION_STRING",
                format!("endpoint={base}/;accesskey={key}"),
            ),
            ("ACS_RESOURCE_ID", self.options.resource_id.clone()),
            (
                "ACS_OPENID_URL",
                format!("{base}/calling/.well-known/acsopenidconfiguration"),
            ),
            ("EVENTGRID_SECRET", self.options.secret().to_owned()),
        ]
    }

    /// Tells whether its key is the one that the documentation has.
    pub(super) fn has_public_key(&self) -> bool {
        self.options.has_public_key()
    }

    /// Sets up Event Grid's subscription at a gateway, in both schemas.
    ///
    /// # Errors
    /// If the gateway does not consent.
    pub async fn handshake(&self, gateway: &Reach) -> Result<(), EventError> {
        self.service.event_grid.handshake(gateway).await
    }

    /// Has a call ring at a gateway; whoever calls this delivers its event.
    pub fn ring(&self, gateway: &Arc<Reach>, from: &str, to: &str, manner: Manner) -> FakeCall {
        let (callbacks, told) = mpsc::channel(MOST_CALLBACKS);
        let call = Call::new(Arc::clone(gateway), from, to, manner, callbacks);
        let call = Arc::new(call);
        self.service.calls.add(&call);
        self.service
            .spawn(tell_all(Arc::clone(&self.service), Arc::clone(&call), told));
        FakeCall {
            service: Arc::clone(&self.service),
            call,
        }
    }

    /// Returns what was seen of a call so far; of none, with an empty name.
    pub fn saw(&self, call: &str) -> Vec<Deed> {
        let seen = self.service.seen.borrow();
        let of_call = seen.all().filter(|sight| sight.call == call);
        of_call.map(|sight| sight.deed.clone()).collect()
    }

    /// Waits until something is seen of a call.
    pub async fn until(&self, call: &str, wanted: impl Fn(&Deed) -> bool) {
        let mut seen = self.service.seen.subscribe();
        let is_there = |seen: &Seen| {
            let mut all = seen.all();
            all.any(|sight| sight.call == call && wanted(&sight.deed))
        };
        // The sender is ours.
        let _ = seen.wait_for(is_there).await;
    }

    /// Returns what a good token says, to be changed and signed.
    pub fn claims(&self) -> Claims {
        self.service.tokens.claims()
    }

    /// Returns a token that says what is wanted.
    pub fn token(&self, claims: &Claims) -> String {
        self.service.tokens.saying(claims)
    }

    /// Signs with another key from now on.
    pub fn rotate_keys(&self) {
        self.service.tokens.rotate();
    }

    /// Has the server of keys be down, or well again.
    pub fn hide_keys(&self, hidden: bool) {
        self.service.tokens.hide(hidden);
    }

    /// Stops to serve. Calls are forgotten.
    pub async fn stop(self) {
        self.service.placing.stop.cancel();
        self.server.stop(false).await;
        self.service.tasks.close();
    }
}

impl FakeCall {
    /// Returns what the call is called in all that is told of it.
    pub fn correlation(&self) -> &str {
        &self.call.name.correlation
    }

    /// Returns the event that it rings, as of some time ago.
    pub fn event(&self, schema: Schema, age: Duration) -> Value {
        self.call.event(schema, age)
    }

    /// Delivers the event that it rings, as Event Grid does.
    ///
    /// # Errors
    /// If the gateway does not take it.
    pub async fn deliver(&self) -> Result<(), EventError> {
        let events = [self.event(Schema::EventGrid, Duration::ZERO)];
        let event_grid = &self.service.event_grid;
        let delivering = event_grid.deliver(&self.call.gateway, Schema::EventGrid, &events);
        delivering.await.map(drop)
    }

    /// Follows what becomes of it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.call.status.subscribe()
    }

    /// Waits until something has become of it, and returns what.
    pub async fn until<T>(&self, wanted: impl Fn(&Status) -> Option<T>) -> T {
        let mut status = self.status();
        let status = status.wait_for(|status| wanted(status).is_some()).await;
        let status = status.expect("the call is ours");
        wanted(&status).expect("it was there just now")
    }

    /// Waits until it is answered.
    pub async fn answered(&self) -> Answered {
        self.until(|status| status.answered.clone()).await
    }

    /// Returns the headers that ACS opens its media socket with.
    pub fn media_headers(&self) -> Vec<(&'static str, String)> {
        let token = self.service.tokens.good_for(SOCKET_LIFETIME);
        let name = &self.call.name;
        vec![
            ("authorization", format!("Bearer {token}")),
            ("x-ms-call-connection-id", name.connection.clone()),
            ("x-ms-call-correlation-id", name.correlation.clone()),
        ]
    }

    /// Tells the gateway that the media socket is open.
    pub fn streams(&self) {
        let status = &self.call.status;
        status.send_modify(|status| status.is_streaming = true);
        self.call.tell(Callback::streaming_started());
    }

    /// Tells the gateway that the media socket could not be opened.
    pub fn does_not_stream(&self) {
        self.call.tell(Callback::streaming_failed());
    }

    /// The caller hangs up. The gateway is told.
    pub fn leave(&self) {
        let was_live = self.call.status.send_if_modified(|status| {
            let was_live = !status.is_over();
            status.ended_by.get_or_insert(Ender::Caller);
            was_live
        });
        if was_live {
            self.call.tell_the_end();
        }
    }
}

impl Drop for FakeCall {
    fn drop(&mut self) {
        self.service.calls.remove(&self.call);
        self.call.over.cancel();
    }
}

impl Service {
    fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    fn fails(&self, fault: Fault) -> bool {
        lock(&self.faults).contains(&fault)
    }

    fn note(&self, call: &str, deed: Deed) {
        let call = call.to_owned();
        self.seen.send_modify(|seen| seen.add(Sight { call, deed }));
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}

fn http() -> anyhow::Result<Client> {
    // Fails if another part of the process installed it already, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .tcp_nodelay(true)
        .no_proxy() // The gateway is on this machine, mostly.
        .build();
    http.context("cannot set up an HTTP client")
}
