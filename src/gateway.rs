//! Wires the parts, starts them, and ends them in order.

mod acs;
mod book;
mod browser;
mod drain;
mod farewells;
mod recordings;
mod refusing;
mod ringing;
mod serve;
mod supervise;
mod transfers;
mod unheard;
mod urls;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{dev::ServerHandle, web};
use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Admission, Ended, Flaw, Readiness, Reason, StoreError, ToFree},
    answer::{PromptError, Prompts, TemplateError, Templates, prompts::Prompt},
    api::Api,
    bridge::call::LostCalls,
    call::{CallerId, CarrierCallId, EndReason, Farewell},
    campaign::{Campaign, Campaigns, Name},
    carrier::Invitations,
    chunk::{Chunk, Encoding},
    config::{
        Config, FileError, Inherited, OperatorSettings, RecordSettings, TwilioSettings, WebSettings,
    },
    connections::ConnectionManager,
    event::{Addressees, Deliveries, Endpoints, Schedule},
    gateway::{
        book::{Draft, DraftError},
        browser::WebSeats,
        recordings::Recordings,
        ringing::RingingCalls,
        serve::serve,
        supervise::{give_slots_back, keep_slots, renew, settle_debts},
        transfers::Transfers,
        unheard::ask_after_calls,
    },
    guard::{GuardRules, GuardedClient},
    language::Language,
    operator::{
        Desk, look_out,
        outlook::{self, Outlook},
    },
    outbound::{self, Outbound},
    record::{DatabaseError, DatabaseKind, Records, Step, Timeline, What},
    seal::Seal,
    telemetry::{Metrics, call_span},
    trace::{Exporter, Traces},
    transcode,
};

pub use acs::{Acs, CallbackPath, Errand, Settled};
pub use book::CampaignBook;
pub use browser::{NoPass, WebPass, address_of, make_token};
pub use farewells::Farewells;
pub use ringing::Ringing;
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

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Templates(#[from] TemplateError),
    #[error(transparent)]
    Prompts(#[from] PromptError),
    #[error("the slot store cannot be used (REDIS_URL)")]
    Store(#[source] StoreError),
    #[error("{0} (REDIS_URL)")]
    StoreUnfit(String),
    #[error("records cannot be kept (DATABASE_URL)")]
    Records(#[source] DatabaseError),
    #[error(transparent)]
    Campaigns(#[from] FileError),
    #[error("no certificates to trust an agent by")]
    Certificates(#[source] io::Error),
    #[error("no certificates to trust the carrier by")]
    Carrier(#[source] reqwest::Error),
    #[error("no certificates to trust tenants' endpoints by")]
    Events(#[source] reqwest::Error),
    #[error("no certificates to trust the collector of traces by")]
    Traces(#[source] reqwest::Error),
    #[error("cannot listen on {0} (LISTEN)")]
    Listen(SocketAddr, #[source] io::Error),
    #[error("the parrot cannot listen on loopback")]
    Parrot(#[source] io::Error),
    #[error("the server cannot start")]
    Server(#[source] io::Error),
}

impl StartError {
    /// Tells whether the settings are at fault, as `sysexits.h` numbers it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Templates(_)
            | Self::Prompts(_)
            | Self::Campaigns(_)
            | Self::Certificates(_)
            | Self::Carrier(_)
            | Self::Events(_)
            | Self::Traces(_)
            | Self::Store(_)
            | Self::Records(_)
            | Self::StoreUnfit(_) => 78,
            Self::Listen(..) | Self::Parrot(_) | Self::Server(_) => 71,
        }
    }
}

impl Gateway {
    /// Starts a gateway that serves until [`Running::drain`].
    ///
    /// # Errors
    /// If a template, a prompt, a certificate or an address is not usable; nothing is left running then.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        // What a start holds is a lot for the stack of whoever awaits it.
        Box::pin(Self::wire(config)).await
    }

    async fn wire(config: Config) -> Result<Running, StartError> {
        let templates = Templates::load(config.templates.as_deref())?;
        let prompts = Prompts::load(config.templates.as_deref())?;
        let inherited = config.inherited();
        let draft = first_draft(&config, &inherited).await?;
        let file = config.campaigns;
        let (listen, workers, drain) = (config.listen, config.workers, config.drain);
        let metrics = Metrics::new();
        let bound = TcpListener::bind(listen).and_then(|it| Ok((it.local_addr()?, it)));
        let (address, listener) = bound.map_err(|error| StartError::Listen(listen, error))?;
        let public = PublicUrls::new(config.public_url, address);
        let offers = metrics.offers.clone();
        let whatsapp = config.refusal.whatsapp.ok();
        let invitations =
            whatsapp.map(|settings| Invitations::new(settings, &public.message_status, offers));
        let invitations = invitations.transpose().map_err(StartError::Carrier)?;
        let outbound = Outbound::new(config.outbound).map_err(StartError::Carrier)?;
        let acs = Acs::open(config.acs).map_err(StartError::Carrier)?;
        let guarded = GuardedClient::new(&inherited.guard).map_err(StartError::Carrier)?;
        let mut parrot = None;
        draft.start_parrot(&mut parrot).await?;
        let (admission, to_free) = Admission::new(
            config.caps.clone(),
            &config.store,
            config.ticket_secret.as_ref(),
            metrics.capacity.clone(),
        )
        .map_err(StartError::Store)?;
        let campaigns = CampaignBook::new(file, inherited, metrics.agents.clone(), draft, parrot);
        let keeping = keep_records(
            &config.records,
            (&config.guard, config.events.schedule),
            campaigns.endpoints(),
            &metrics,
            (admission.replica(), config.caps.lease),
        );
        let (records, deliveries) = keeping.await?;
        let traces = Traces::new(
            config.traces,
            admission.replica(),
            config.longest_call,
            &metrics.traces,
        );
        let (traces, exporter) = traces.map_err(StartError::Traces)?;
        let gateway = web::Data::new(Self {
            public,
            campaigns,
            twilio: config.twilio,
            acs,
            prompts,
            web: config.web,
            web_seats: WebSeats::default(),
            seal: Seal::new(config.ticket_secret.as_ref()),
            operator: config.operator,
            desk: Desk::new(),
            templates,
            admission,
            connections: ConnectionManager::new(config.caps.connections),
            lost: LostCalls::default(),
            farewells: Farewells::new(),
            transfers: Transfers::new(),
            guarded,
            timeline: records.timeline().traced(traces),
            api: Api::new(records.database.clone()),
            outbound,
            records,
            deliveries,
            metrics,
            longest_call: config.longest_call,
            longest_message: config.refusal.longest_message,
            recordings: Recordings::new(),
            invitations,
            listen: address,
            ringing: RingingCalls::default(),
            calls: TaskTracker::new(),
            chores: TaskTracker::new(),
            draining: AtomicBool::new(false),
            draining_since: OnceLock::new(),
            drain,
            outlook: Outlook::default(),
            stopping: CancellationToken::new(),
            store_flaws: Mutex::default(),
            warned: AtomicU64::new(0),
            started: Instant::now(),
        });
        warn_of(&config.warnings);
        gateway.meet_store(config.production).await?;
        gateway.announce();
        let (handle, server) = serve(&gateway, listener, workers)?;
        let (supervisor, stop) = supervise(&gateway, to_free, exporter);
        Ok(Running {
            gateway,
            address,
            handle,
            server: supervisor.spawn(server),
            supervisor,
            stop_supervising: stop,
            drain,
        })
    }

    /// Looks whether the store is fit for slots, and counts what it holds before the first call.
    /// One that is away may come back: then calls are admitted by our share until it does.
    async fn meet_store(&self, production: bool) -> Result<(), StartError> {
        let flaws = self.look_at_store().await;
        if let Some(fatal) = flaws.iter().find(|flaw| flaw.is_fatal(production)) {
            return Err(StartError::StoreUnfit(fatal.to_string()));
        }
        if self.admission.trouble().is_none() {
            renew(self, true).await;
        }
        Ok(())
    }

    /// Looks what kind of server the store is, and tells what is wrong with it.
    pub(crate) async fn look_at_store(&self) -> Vec<Flaw> {
        let flaws = match self.admission.inspect().await {
            Ok(None) => Vec::new(),
            Ok(Some(server)) => {
                tracing::info!(server = server.server, "slots are in a store");
                server.flaws()
            }
            Err(error) => {
                tracing::error!(%error, "cannot look at the slot store (REDIS_URL)");
                Vec::new()
            }
        };
        for flaw in &flaws {
            tracing::error!("{flaw} (REDIS_URL)");
        }
        let told = flaws.iter().map(ToString::to_string).collect();
        *self
            .store_flaws
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = told;
        flaws
    }

    /// Returns what is wrong with the store's server, for operators.
    pub(crate) fn store_flaws(&self) -> Vec<String> {
        let flaws = self.store_flaws.lock();
        flaws.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn announce(&self) {
        let agents = self.campaigns.agents();
        let agent = agents.default_agent().kind().as_str();
        tracing::info!(address = %self.listen, public_url = %self.public.base, agent, "listening");
        if self.campaigns.has_file() {
            let campaigns = self.campaigns.current().all().count();
            let agents = agents.all().count();
            tracing::info!(campaigns, agents, "the campaign file is in force");
        }
        if self.twilio.is_open() {
            tracing::info!("twilio is open");
        } else {
            tracing::warn!("twilio is closed: set TWILIO_AUTH_TOKEN to open it");
        }
        if self.acs.is_some() {
            tracing::info!("acs is open");
        } else {
            tracing::info!(
                "acs is closed: set ACS_CONNECTION_STRING and EVENTGRID_SECRET to open it"
            );
        }
        if self.web.open {
            tracing::info!(page = %self.public.base, "browsers may call");
        }
    }

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

    /// Notes that a call's stream is over though the call is not. A bridge that has not noticed
    /// yet has lost its socket; where the media never came, it never will. Returns what the caller
    /// is still to hear.
    pub(crate) async fn stream_lost(&self, call: &CarrierCallId) -> Farewell {
        if !self.connections.end(call, EndReason::CarrierLost)
            && self.farewells.of(call).is_none()
            && let Some(reason) = self.admission.ended_elsewhere(call).await
        {
            return reason.farewell();
        }
        if self.farewells.of(call).is_none() && !self.connections.has(call) {
            self.dismiss_agent(call);
            let lost = Ended {
                live: EndReason::CarrierLost,
                waiting: EndReason::NoMedia,
                unanswered: false,
            };
            if self.admission.end(call, lost).await {
                self.ended_waiting(call, EndReason::NoMedia).await;
            }
        }
        self.farewells.of(call).unwrap_or(Farewell::Apology)
    }

    /// Takes the carrier's word that a call is over, wherever it stands; and that it was never
    /// answered, if it says so. Tells whether its end is noted by that: where it was still to come
    /// to its media.
    pub(crate) async fn carrier_ended(&self, call: &CarrierCallId, unanswered: bool) -> bool {
        self.dismiss_agent(call);
        let ended = Ended {
            live: EndReason::CarrierEnded,
            waiting: EndReason::CarrierEnded,
            unanswered,
        };
        // A live call's end is counted by the bridge that carries it, here or elsewhere.
        self.connections.end(call, EndReason::CarrierEnded);
        let waited = self.admission.end(call, ended).await;
        if waited {
            self.ended_waiting(call, EndReason::CarrierEnded).await;
        }
        waited
    }

    /// Notes how a call ended that was waiting for its media. If we placed it, whoever did knows by
    /// which id, and the store.
    pub(crate) async fn ended_waiting(&self, call: &CarrierCallId, reason: EndReason) {
        if self.timeline.is_traced()
            && let Some(id) = self.admission.id_noted(call).await
        {
            self.timeline.named(call, id);
        }
        self.ended(call, reason);
    }

    /// Returns the span that everything of a call is logged in.
    pub(crate) fn span_of(&self, call: &CarrierCallId) -> tracing::Span {
        call_span(self.timeline.id_of(call), call)
    }

    /// Notes how a call ended, before its socket closes and its carrier asks.
    pub(crate) fn ended(&self, call: &CarrierCallId, reason: EndReason) {
        self.farewells.note(call, reason);
        let carrier = call.carrier().as_str();
        self.metrics
            .ended(carrier, reason.as_str(), reason.blame().as_str());
        if reason == EndReason::Panicked {
            self.metrics.panicked();
        }
        self.timeline.step(call, What::Ended(reason));
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

/// Opens the records of `replica`, and begins to tell endpoints of them.
async fn keep_records(
    settings: &RecordSettings,
    (rules, schedule): (&GuardRules, Schedule),
    endpoints: watch::Receiver<Arc<Endpoints>>,
    metrics: &Metrics,
    (replica, lease): (&str, Duration),
) -> Result<(Records, Deliveries), StartError> {
    let told = Addressees::new(endpoints.clone(), DatabaseKind::of(settings));
    let records = Records::open(settings, Arc::new(told), replica, lease).await;
    let records = records.map_err(StartError::Records)?;
    let metrics = metrics.events.clone();
    let deliveries = Deliveries::start(&records.database, endpoints, rules, schedule, metrics);
    Ok((records, deliveries.map_err(StartError::Events)?))
}

fn warn_of(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Starts the tasks that look after the gateway until they are told to stop.
fn supervise(
    gateway: &web::Data<Gateway>,
    to_free: ToFree,
    exporter: Option<Exporter>,
) -> (TaskTracker, CancellationToken) {
    let (supervisor, stop) = (TaskTracker::new(), CancellationToken::new());
    supervisor.spawn(give_slots_back(gateway.clone(), to_free, stop.clone()));
    supervisor.spawn(keep_slots(gateway.clone(), stop.clone()));
    supervisor.spawn(settle_debts(gateway.clone(), stop.clone()));
    supervisor.spawn(watch_campaigns(gateway.clone(), stop.clone()));
    supervisor.spawn(note_uses(gateway.clone(), stop.clone()));
    supervisor.spawn(look_out(gateway.clone(), stop.clone()));
    supervisor.spawn(outbound::look_after(gateway.clone(), stop.clone()));
    supervisor.spawn(ask_after_calls(gateway.clone(), stop.clone()));
    supervisor.spawn(outlook::look_out(gateway.clone(), stop.clone()));
    if let Some(exporter) = exporter {
        supervisor.spawn(exporter.run(stop.clone()));
    }
    (supervisor, stop)
}

/// Returns the campaigns and agents to begin with: the file's, or else the one campaign that the
/// environment makes.
async fn first_draft(config: &Config, inherited: &Inherited) -> Result<Draft, DraftError> {
    if let Some(file) = &config.campaigns {
        return Draft::read(file, inherited).await;
    }
    let numbers = config.twilio.numbers.clone();
    Draft::without_file(only_campaign(inherited, numbers), inherited)
}

/// Returns the campaign that there is without a file.
fn only_campaign(inherited: &Inherited, numbers: Vec<CallerId>) -> Campaigns {
    Campaigns::only(inherited.language.clone(), inherited.caps.campaign, numbers)
        .offering(inherited.when_full, &inherited.acs_when_full)
        .using(&inherited.tools.with(Vec::new()))
        .with_budgets([(Name::default_name(), inherited.agent.budget)])
}

async fn watch_campaigns(gateway: web::Data<Gateway>, stop: CancellationToken) {
    gateway.campaigns.watch(stop).await;
}

async fn note_uses(gateway: web::Data<Gateway>, stop: CancellationToken) {
    gateway.api.note_uses(stop).await;
}

impl From<DraftError> for StartError {
    fn from(error: DraftError) -> Self {
        match error {
            DraftError::File(error) => Self::Campaigns(error),
            DraftError::Certificates(error) => Self::Certificates(error),
            DraftError::Parrot(error) => Self::Parrot(error),
            DraftError::Panicked(error) => Self::Server(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
