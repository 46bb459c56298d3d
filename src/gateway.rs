//! What all parts share: wired at the start, and ended in order.

mod acs;
mod book;
mod browser;
mod drain;
mod ends;
mod farewells;
mod recordings;
mod refusing;
mod ringing;
mod serve;
mod start;
mod supervise;
mod transfers;
mod unheard;
mod unwritten;
mod urls;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{dev::ServerHandle, web};
use bytes::Bytes;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Admission, Readiness, Reason},
    answer::{Prompts, Templates, prompts::Prompt},
    api::Api,
    bridge::call::LostCalls,
    call::CarrierCallId,
    campaign::Campaign,
    carrier::Invitations,
    chunk::{Chunk, Encoding},
    config::{OperatorSettings, TwilioSettings, WebSettings},
    connections::ConnectionManager,
    event::Deliveries,
    gateway::{
        browser::WebSeats, recordings::Recordings, ringing::RingingCalls, transfers::Transfers,
    },
    guard::GuardedClient,
    language::Language,
    operator::{Desk, outlook::Outlook},
    outbound::Outbound,
    record::{Records, Step, Timeline},
    seal::Seal,
    telemetry::{Metrics, call_span},
    transcode,
};

pub use acs::{Acs, CallbackPath, Errand, Settled};
pub use book::CampaignBook;
pub use browser::{NoPass, WebPass, address_of, make_token};
pub use farewells::Farewells;
pub use ringing::Ringing;
pub use start::StartError;
pub use transfers::HANDED_OVER_WITHIN;
pub use urls::PublicUrls;

/// One gateway: what every worker shares.
pub struct Gateway {
    pub(crate) public: PublicUrls,
    pub(crate) twilio: TwilioSettings,
    pub(crate) operator: OperatorSettings,
    pub(crate) desk: Desk,
    pub(crate) campaigns: CampaignBook,
    /// `None` where ACS is closed.
    pub(crate) acs: Option<Acs>,
    prompts: Prompts,
    pub(crate) web: WebSettings,
    web_seats: WebSeats,
    pub(crate) seal: Seal,
    pub(crate) templates: Templates,
    pub(crate) admission: Admission,
    pub(crate) connections: Arc<ConnectionManager>,
    pub(crate) lost: LostCalls,
    pub(crate) farewells: Farewells,
    transfers: Transfers,
    /// Asks the servers of tenants, and nobody else.
    pub(crate) guarded: GuardedClient,
    pub(crate) timeline: Timeline,
    pub(crate) records: Records,
    pub(crate) api: Api,
    pub(crate) outbound: Box<Outbound>,
    pub(crate) deliveries: Deliveries,
    pub(crate) metrics: Metrics,
    pub(crate) longest_call: Duration,
    /// How long a message may be that a refused caller leaves.
    longest_message: Duration,
    recordings: Recordings,
    /// `None` where the settings to write to callers are not there.
    invitations: Option<Invitations>,
    pub(crate) listen: SocketAddr,
    ringing: RingingCalls,
    /// Every media socket's task; draining waits for them.
    calls: TaskTracker,
    /// Tasks that nobody waits for.
    chores: TaskTracker,
    draining: AtomicBool,
    draining_since: OnceLock<Instant>,
    /// How long draining may take.
    drain: Duration,
    pub(crate) outlook: Outlook,
    /// Is cancelled when the process is about to end: whoever speaks or waits hangs up then.
    pub(crate) stopping: CancellationToken,
    /// What is wrong with the slot store's server.
    store_flaws: Mutex<Vec<String>>,
    /// The second of this process in which strangers were last warned of.
    warned: AtomicU64,
    started: Instant,
}

/// A gateway that serves.
pub struct Running {
    gateway: web::Data<Gateway>,
    address: SocketAddr,
    handle: ServerHandle,
    server: JoinHandle<io::Result<()>>,
    supervisor: TaskTracker,
    stop_supervising: CancellationToken,
    drain: Duration,
}

impl Gateway {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns for how long this replica has drained, if it does, and how long it may.
    pub(crate) fn drains(&self) -> (Option<Duration>, Duration) {
        let since = self.draining_since.get();
        (since.map(Instant::elapsed), self.drain)
    }

    pub(crate) fn calls(&self) -> &TaskTracker {
        &self.calls
    }

    /// Returns the tasks that nobody waits for.
    pub(crate) fn chores(&self) -> &TaskTracker {
        &self.chores
    }

    /// Returns how many tasks there are, by what they are for.
    pub(crate) fn tasks(&self) -> [(&'static str, usize); 2] {
        [("calls", self.calls.len()), ("chores", self.chores.len())]
    }

    /// Returns for how long this replica has been there.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells whether to warn of a stranger: once a second, so that a flood of them does not
    /// become a flood of lines.
    pub(crate) fn may_warn(&self) -> bool {
        let second = self.started.elapsed().as_secs() + 1;
        self.warned.swap(second, Ordering::Relaxed) != second
    }

    /// Returns how many more media sockets this replica takes; `None` while it drains.
    pub(crate) fn free_places(&self) -> Option<u32> {
        (!self.is_draining()).then(|| self.connections.free())
    }

    /// Returns what this replica can do for a campaign's call at this moment.
    pub(crate) fn readiness(&self, campaign: &Campaign) -> Readiness {
        let agents = self.campaigns.agents();
        let resting = campaign
            .agents()
            .filter(|agent| agents.of(agent).is_resting());
        Readiness {
            closed: self.closed(),
            // It would take the media socket as well.
            dials: self.free_places().is_some_and(|places| places > 0),
            resting: resting.cloned().collect(),
        }
    }

    /// Returns why no call may come in, if that is so: an operator wants it, or nobody would take
    /// its media, neither this replica nor one that shares its store.
    pub(crate) fn closed(&self) -> Option<Reason> {
        if self.desk.stops_intake() {
            return Some(Reason::IntakeStopped);
        }
        let siblings = self.admission.siblings();
        match self.free_places() {
            None => (siblings.open == 0).then_some(Reason::Draining),
            Some(0) => (siblings.places == 0).then_some(Reason::Connections),
            Some(_) => None,
        }
    }

    /// Returns a sentence of ours as a carrier can play it.
    pub(crate) fn prompt(&self, prompt: Prompt, language: &Language, encoding: Encoding) -> Chunk {
        transcode::encode_at(
            self.prompts.samples(prompt, language),
            Prompts::RATE,
            encoding,
        )
    }

    /// Returns a sentence of ours as a WAV file.
    pub(crate) fn prompt_file(&self, prompt: Prompt, language: &Language) -> Bytes {
        self.prompts.wav(prompt, language).clone()
    }

    /// Returns the span that everything of a call is logged in.
    pub(crate) fn span_of(&self, call: &CarrierCallId) -> tracing::Span {
        call_span(self.timeline.id_of(call), call)
    }
}

impl Running {
    /// Returns the gateway, for tests of what no route offers.
    #[cfg(test)]
    pub(crate) fn gateway(&self) -> &web::Data<Gateway> {
        &self.gateway
    }

    /// Returns the address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Completes when an operator wants this replica to drain.
    pub async fn drain_wanted(&self) {
        self.gateway.desk.drains.cancelled().await;
    }

    /// Reads the campaign file again: what it says applies to new calls, unless it has mistakes.
    pub async fn reload_campaigns(&self) {
        self.gateway.campaigns.reload().await;
    }

    /// Watches the steps of all calls from here on.
    pub fn watch(&self) -> tokio::sync::broadcast::Receiver<Step> {
        self.gateway.timeline.watch()
    }
}

#[cfg(test)]
mod tests;
