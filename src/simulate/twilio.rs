//! A fake of Twilio's REST API: places the calls that a gateway asks for, and plays those whom it
//! calls.
//!
//! Invariant: every call that was taken is on the list, whatever its asker was told.

mod callee;
mod options;
mod rest;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
    time::Duration,
};

use actix_web::{App, HttpServer, dev::ServerHandle, web};
use anyhow::Context;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use super::{carrier::Carrier, outcome::CallOutcome, script::Script, voice::Voices};

pub use self::options::{Act, CallFaults, Callee, FakeTwilioOptions};
pub(super) use self::rest::cut;

/// The longest request that is read.
const LONGEST_REQUEST: usize = 64 << 10;

/// A fake Twilio that serves, until it is stopped.
pub struct FakeTwilio {
    service: Arc<Service>,
    server: ServerHandle,
}

/// The gateway that a fake Twilio serves, and what they know each other by.
pub struct Customer {
    pub gateway: Url,
    /// What the gateway calls itself, if that is not how it is reached.
    pub public: Option<Url>,
    pub auth_token: Option<SecretString>,
    pub account_sid: String,
}

/// How those talk who pick up.
#[derive(Clone)]
pub struct Talk {
    pub script: Script,
    pub talk_for: Duration,
    pub voices: Arc<Voices>,
}

/// A call that a gateway has asked for.
#[derive(Debug, Clone)]
pub struct Placed {
    pub sid: String,
    pub to: String,
    pub from: String,
    pub answer_url: String,
    pub status_url: Option<String>,
    /// What Twilio listens for before anybody talks: `Enable` or `DetectMessageEnd`.
    pub detection: Option<String>,
    pub ring_for: Duration,
    /// How long it may last, if that was said.
    pub longest: Option<Duration>,
    pub created_at: Timestamp,
    pub status: &'static str,
    /// How long somebody has talked, once it is over.
    pub talked: Option<Duration>,
    /// Ends the call.
    end: CancellationToken,
}

/// What the server and the calls share.
struct Service {
    address: SocketAddr,
    carrier: Carrier,
    secret: Option<SecretString>,
    callee: Mutex<Callee>,
    faults: CallFaults,
    /// Of 100.
    lost_callbacks: AtomicU8,
    /// How many of the next requests to end a call fail.
    failing_ends: AtomicU32,
    plan: Mutex<VecDeque<Act>>,
    talk: Talk,
    calls: watch::Sender<Vec<Placed>>,
    ended: Option<mpsc::Sender<CallOutcome>>,
    /// Where calls go on: the server's workers end with the server.
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl FakeTwilio {
    /// Starts a fake on the runtime that calls; tells what became of each call if somebody wants to
    /// know.
    ///
    /// # Errors
    /// If its address cannot be used.
    pub async fn start(
        options: FakeTwilioOptions,
        customer: Customer,
        talk: Talk,
        ended: Option<mpsc::Sender<CallOutcome>>,
    ) -> anyhow::Result<Self> {
        let listen = options.listen;
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let listener = TcpListener::bind(listen).await;
        let listener =
            listener.with_context(|| format!("the fake Twilio cannot listen on {listen}"))?;
        let service = Arc::new(Service {
            address: listener.local_addr()?,
            carrier: Carrier::new(
                &customer.gateway,
                customer.public.as_ref(),
                customer.auth_token.clone(),
                customer.account_sid,
            )?,
            secret: customer.auth_token,
            callee: Mutex::new(options.callee),
            faults: options.call_faults,
            lost_callbacks: AtomicU8::new(options.lost_callbacks),
            failing_ends: AtomicU32::new(0),
            plan: Mutex::default(),
            talk,
            calls: watch::Sender::default(),
            ended,
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
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
            server: handle,
        })
    }

    /// Returns its address, as `TWILIO_API_BASE`.
    pub fn url(&self) -> String {
        format!("http://{}", self.service.address)
    }

    /// Does this with the next requests for a call.
    pub fn then(&self, acts: &[Act]) {
        lock(&self.service.plan).extend(acts);
    }

    /// Has those who are called from here on do this.
    pub fn callees(&self, callee: Callee) {
        *lock(&self.service.callee) = callee;
    }

    /// Loses so many of 100 callbacks from here on.
    pub fn lose_callbacks(&self, of_100: u8) {
        self.service.lost_callbacks.store(of_100, Ordering::Relaxed);
    }

    /// Ends no call for the next so many requests to.
    pub fn fail_ends(&self, requests: u32) {
        self.service.failing_ends.store(requests, Ordering::Relaxed);
    }

    /// Returns every call that was taken so far.
    pub fn calls(&self) -> Vec<Placed> {
        self.service.calls.borrow().clone()
    }

    /// Waits until something is true of the calls, and returns them.
    pub async fn until(&self, wanted: impl FnMut(&Vec<Placed>) -> bool) -> Vec<Placed> {
        let mut calls = self.service.calls.subscribe();
        let calls = calls.wait_for(wanted).await;
        calls.expect("the sender is ours").clone()
    }

    /// Stops to serve. Those who talk hang up.
    pub async fn stop(self) {
        self.service.stop.cancel();
        self.server.stop(false).await;
        self.service.tasks.close();
        self.service.tasks.wait().await;
    }
}

impl Placed {
    pub fn is_over(&self) -> bool {
        !matches!(self.status, "queued" | "ringing" | "in-progress")
    }
}

impl Service {
    /// Notes how a call stands; a status that is final stays.
    fn note(&self, sid: &str, status: &'static str) {
        self.calls.send_modify(|calls| {
            let call = calls.iter_mut().find(|call| call.sid == sid);
            if let Some(call) = call.filter(|call| !call.is_over()) {
                call.status = status;
            }
        });
    }

    /// Notes how long somebody has talked.
    fn note_talked(&self, sid: &str, talked: Duration) {
        self.calls.send_modify(|calls| {
            if let Some(call) = calls.iter_mut().find(|call| call.sid == sid) {
                call.talked = Some(talked);
            }
        });
    }

    fn find(&self, sid: &str) -> Option<Placed> {
        let calls = self.calls.borrow();
        calls.iter().find(|call| call.sid == sid).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
