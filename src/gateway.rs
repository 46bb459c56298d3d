//! Wires the parts, starts them, and ends them in order.

mod book;
mod drain;
mod farewells;
mod ringing;
mod serve;
mod supervise;
mod urls;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{dev::ServerHandle, web};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admission::Admission,
    answer::{TemplateError, Templates},
    call::{Carrier, CarrierCallId, EndReason},
    campaign::Campaigns,
    config::{Config, FileError, OperatorSettings, TwilioSettings},
    connections::ConnectionManager,
    gateway::{
        book::{Draft, DraftError},
        ringing::RingingCalls,
        serve::serve,
        supervise::supervise,
    },
    record::{Step, Timeline, What},
    telemetry::Metrics,
};

pub use book::CampaignBook;
pub use farewells::Farewells;
pub use ringing::Ringing;
pub use urls::PublicUrls;

/// One gateway: what every worker shares.
pub struct Gateway {
    pub(crate) public: PublicUrls,
    pub(crate) twilio: TwilioSettings,
    pub(crate) operator: OperatorSettings,
    pub(crate) campaigns: CampaignBook,
    pub(crate) templates: Templates,
    pub(crate) admission: Admission,
    pub(crate) connections: Arc<ConnectionManager>,
    pub(crate) farewells: Farewells,
    pub(crate) timeline: Timeline,
    pub(crate) metrics: Metrics,
    pub(crate) longest_call: Duration,
    pub(crate) listen: SocketAddr,
    ringing: RingingCalls,
    /// Every media socket's task; draining waits for them.
    calls: TaskTracker,
    draining: AtomicBool,
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
    Campaigns(#[from] FileError),
    #[error("no certificates to trust an agent by")]
    Certificates(#[source] io::Error),
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
            Self::Templates(_) | Self::Campaigns(_) | Self::Certificates(_) => 78,
            Self::Listen(..) | Self::Parrot(_) | Self::Server(_) => 71,
        }
    }
}

impl Gateway {
    /// Starts a gateway that serves until [`Running::drain`].
    ///
    /// # Errors
    /// If a template, a certificate or an address is not usable; nothing is left running then.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let templates = Templates::load(config.templates.as_deref())?;
        let inherited = config.inherited();
        let file = config.campaigns;
        let draft = if let Some(file) = &file {
            Draft::read(file, &inherited).await?
        } else {
            let numbers = config.twilio.numbers.clone();
            let only = Campaigns::only(config.language, config.caps.campaign, numbers);
            Draft::without_file(only, &inherited)?
        };
        let Config {
            listen,
            workers,
            drain,
            ..
        } = config;
        let metrics = Metrics::new();
        let listener =
            TcpListener::bind(listen).map_err(|error| StartError::Listen(listen, error))?;
        let address = listener
            .local_addr()
            .map_err(|error| StartError::Listen(listen, error))?;
        let mut parrot = None;
        draft.start_parrot(&mut parrot).await?;
        let agents = metrics.agents.clone();
        let issuer = format!("{:08x}", rand::random::<u32>());
        let secret = config.ticket_secret.as_ref();
        let (admission, freed) = Admission::new(config.caps.clone(), secret, issuer);
        let gateway = web::Data::new(Self {
            public: PublicUrls::new(config.public_url, address),
            campaigns: CampaignBook::new(file, inherited, agents, draft, parrot),
            twilio: config.twilio,
            operator: config.operator,
            templates,
            admission,
            connections: ConnectionManager::new(config.caps.connections),
            farewells: Farewells::new(),
            timeline: Timeline::new(),
            metrics,
            longest_call: config.longest_call,
            listen: address,
            ringing: RingingCalls::default(),
            calls: TaskTracker::new(),
            draining: AtomicBool::new(false),
            warned: AtomicU64::new(0),
            started: Instant::now(),
        });
        for warning in config.warnings {
            tracing::warn!("{warning}");
        }
        gateway.announce();
        let (handle, server) = serve(&gateway, listener, workers)?;
        let supervisor = TaskTracker::new();
        let stop_supervising = CancellationToken::new();
        supervisor.spawn(supervise(gateway.clone(), freed, stop_supervising.clone()));
        supervisor.spawn(watch_campaigns(gateway.clone(), stop_supervising.clone()));
        Ok(Running {
            gateway,
            address,
            handle,
            server: supervisor.spawn(server),
            supervisor,
            stop_supervising,
            drain,
        })
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
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn calls(&self) -> &TaskTracker {
        &self.calls
    }

    /// Tells whether to warn of a stranger: once a second, so that a flood of them does not
    /// become a flood of lines.
    pub(crate) fn may_warn(&self) -> bool {
        let second = self.started.elapsed().as_secs() + 1;
        self.warned.swap(second, Ordering::Relaxed) != second
    }

    /// Notes that a call's stream is over though the call is not. A bridge that has not noticed
    /// yet has lost its socket; where the media never came, it never will.
    pub(crate) fn stream_lost(&self, call: &CarrierCallId) {
        if self.connections.end(call, EndReason::CarrierLost) || self.farewells.of(call).is_some() {
            return;
        }
        self.dismiss_agent(call);
        if self.admission.end(call) {
            self.ended(call, Carrier::Twilio, EndReason::NoMedia);
        }
    }

    /// Takes the carrier's word that a call is over, wherever it stands.
    pub(crate) fn carrier_ended(&self, call: &CarrierCallId) {
        self.dismiss_agent(call);
        let held = self.admission.end(call);
        let bridged = self.connections.end(call, EndReason::CarrierEnded);
        if held && !bridged {
            self.ended(call, Carrier::Twilio, EndReason::CarrierEnded);
        }
    }

    /// Notes how a call ended, before its socket closes and its carrier asks.
    pub(crate) fn ended(&self, call: &CarrierCallId, carrier: Carrier, reason: EndReason) {
        self.farewells.note(call, reason);
        self.metrics
            .ended(carrier.as_str(), reason.as_str(), reason.blame().as_str());
        if reason == EndReason::Panicked {
            self.metrics.panicked();
        }
        self.timeline.step(call, What::Ended(reason));
    }
}

impl Running {
    /// Returns the address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
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

async fn watch_campaigns(gateway: web::Data<Gateway>, stop: CancellationToken) {
    gateway.campaigns.watch(stop).await;
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
