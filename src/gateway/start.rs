//! Starting a gateway: its parts are made, wired and looked at, and its tasks begin.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64},
    },
};

use actix_web::web;
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::{Admission, Flaw, StoreError, ToFree},
    answer::{PromptError, Prompts, TemplateError, Templates},
    api::Api,
    bridge::call::LostCalls,
    call::CallerId,
    campaign::{Campaigns, Name},
    carrier::Invitations,
    config::{Config, FileError, Inherited, RecordSettings},
    connections::ConnectionManager,
    event::{Addressees, Deliveries, Endpoints, Schedule},
    gateway::{
        Acs, CampaignBook, Farewells, Gateway, PublicUrls, Running,
        book::{Draft, DraftError},
        browser::WebSeats,
        recordings::Recordings,
        ringing::RingingCalls,
        serve::serve,
        supervise::{give_slots_back, keep_slots, renew, settle_debts},
        transfers::Transfers,
        unheard::{ask_after_calls, close_lost_calls},
        unwritten::tell_written,
    },
    guard::{GuardRules, GuardedClient},
    operator::{
        Desk, look_out,
        outlook::{self, Outlook},
    },
    outbound::{self, Outbound},
    record::{DatabaseError, DatabaseKind, Records},
    seal::Seal,
    telemetry::Metrics,
    trace::{Exporter, Traces},
};

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
        let invitations = whatsapp.map(|settings| Invitations::new(settings, offers));
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
            admission.replica(),
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
}

/// Opens the records of `replica`, and begins to tell endpoints of them.
async fn keep_records(
    settings: &RecordSettings,
    (rules, schedule): (&GuardRules, Schedule),
    endpoints: watch::Receiver<Arc<Endpoints>>,
    metrics: &Metrics,
    replica: &str,
) -> Result<(Records, Deliveries), StartError> {
    let told = Addressees::new(endpoints.clone(), DatabaseKind::of(settings));
    let records = Records::open(settings, Arc::new(told), replica).await;
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
    supervisor.spawn(close_lost_calls(gateway.clone(), stop.clone()));
    supervisor.spawn(outlook::look_out(gateway.clone(), stop.clone()));
    supervisor.spawn(tell_written(gateway.clone(), stop.clone()));
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
