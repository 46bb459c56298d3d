//! The campaigns and their agents: read at the start, and again when the campaign file changes.
//!
//! Invariant: campaigns and agents are replaced together, or neither is.
//! Invariant: a call that rings or talks keeps what it has.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{
    sync::{Mutex, watch},
    task::{JoinError, spawn_blocking},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    agent::{
        Agents, Trust,
        parrot::{Parrot, ParrotOptions},
    },
    campaign::{Campaigns, Name},
    config::{AgentKind, AgentSettings, CampaignFile, FileError, Inherited, read_file},
    event::Endpoints,
    telemetry::AgentMetrics,
};

/// How often the file is looked at. A change counts once two looks in a row have seen the same:
/// whoever writes the file may be half way through.
const LOOK: Duration = Duration::from_secs(1);
/// How much of a file is looked at, in bytes; no file may be longer.
const LONGEST: u64 = 1 << 20;

/// The campaigns and agents of one gateway.
pub struct CampaignBook {
    file: Option<PathBuf>,
    inherited: Inherited,
    metrics: AgentMetrics,
    edition: RwLock<Edition>,
    endpoints: watch::Sender<Arc<Endpoints>>,
    upkeep: Mutex<Upkeep>,
}

#[derive(Clone)]
struct Edition {
    campaigns: Arc<Campaigns>,
    agents: Arc<Agents>,
}

/// What a reload needs. Whoever holds it is the only one to reload.
struct Upkeep {
    parrot: Option<Parrot>,
    beside: Vec<PathBuf>,
    print: Print,
}

/// What the campaign file held, and the files that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Print {
    file: [u8; 32],
    beside: [u8; 32],
}

/// An edition that has been read and checked, and is not in force.
pub struct Draft {
    campaigns: Campaigns,
    agents: BTreeMap<Name, AgentSettings>,
    endpoints: Endpoints,
    trust: Trust,
    warnings: Vec<String>,
    beside: Vec<PathBuf>,
    wants_parrot: bool,
    print: Print,
}

/// Why there is no new edition.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("no certificates to trust an agent by")]
    Certificates(#[source] io::Error),
    #[error("the parrot cannot listen on loopback")]
    Parrot(#[source] io::Error),
    #[error("reading the campaign file panicked: this is a bug")]
    Panicked(#[from] JoinError),
}

impl Draft {
    /// The environment's agent, and `campaigns` that all talk with it.
    ///
    /// # Errors
    /// If the agent's certificates cannot be read.
    pub fn without_file(campaigns: Campaigns, inherited: &Inherited) -> Result<Self, DraftError> {
        let alone = CampaignFile {
            campaigns,
            agents: BTreeMap::new(),
            endpoints: inherited.endpoints.clone(),
            warnings: Vec::new(),
            beside: Vec::new(),
        };
        Self::of(alone, inherited, [0; 32])
    }

    /// Reads the campaign file.
    ///
    /// # Errors
    /// If the file has mistakes, or an agent's certificates cannot be read.
    pub async fn read(file: &Path, inherited: &Inherited) -> Result<Self, DraftError> {
        let (file, inherited) = (file.to_owned(), inherited.clone());
        // A slow disk must not keep the calls of this worker waiting.
        let read = spawn_blocking(move || {
            // Taken first: what changes while it is read is read again.
            let print = digest([&file].into_iter());
            let read = CampaignFile::load(&file, &inherited)?;
            Self::of(read, &inherited, print)
        });
        read.await?
    }

    fn of(read: CampaignFile, inherited: &Inherited, file: [u8; 32]) -> Result<Self, DraftError> {
        let all: Vec<_> = read.agents.values().chain([&inherited.agent]).collect();
        Ok(Self {
            trust: Trust::of(&all).map_err(DraftError::Certificates)?,
            wants_parrot: all.iter().any(|agent| agent.kind == AgentKind::Parrot),
            print: Print {
                file,
                beside: digest(read.beside.iter()),
            },
            campaigns: read.campaigns,
            agents: read.agents,
            endpoints: read.endpoints,
            warnings: read.warnings,
            beside: read.beside,
        })
    }

    /// Starts the parrot, if an agent is one and it does not run yet.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start_parrot(&self, running: &mut Option<Parrot>) -> Result<(), DraftError> {
        if self.wants_parrot && running.is_none() {
            let options = ParrotOptions {
                listen: ([127, 0, 0, 1], 0).into(),
                ..ParrotOptions::default()
            };
            let parrot = Parrot::start(options).await;
            *running = Some(parrot.map_err(DraftError::Parrot)?);
        }
        Ok(())
    }
}

impl CampaignBook {
    /// Puts the first edition in force.
    pub fn new(
        file: Option<PathBuf>,
        inherited: Inherited,
        metrics: AgentMetrics,
        draft: Draft,
        parrot: Option<Parrot>,
    ) -> Self {
        warn_of(&draft);
        let url = parrot.as_ref().map(address);
        let default = inherited.agent.clone();
        let agents = draft.agents;
        let agents = Agents::new(default, agents, &draft.trust, &metrics, url.as_ref(), None);
        let edition = Edition {
            campaigns: Arc::new(draft.campaigns),
            agents: Arc::new(agents),
        };
        let upkeep = Upkeep {
            parrot,
            beside: draft.beside,
            print: draft.print,
        };
        Self {
            file,
            inherited,
            metrics,
            edition: RwLock::new(edition),
            endpoints: watch::Sender::new(Arc::new(draft.endpoints)),
            upkeep: Mutex::new(upkeep),
        }
    }

    /// Returns the campaigns in force.
    pub fn current(&self) -> Arc<Campaigns> {
        self.edition().campaigns
    }

    /// Returns the agents in force.
    pub fn agents(&self) -> Arc<Agents> {
        self.edition().agents
    }

    /// Returns the endpoints in force, and what tells of others.
    pub fn endpoints(&self) -> watch::Receiver<Arc<Endpoints>> {
        self.endpoints.subscribe()
    }

    pub fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the campaign file again, if there is one. With mistakes in it, nothing changes.
    pub async fn reload(&self) {
        let Some(file) = &self.file else {
            tracing::info!("there is no campaign file to read again");
            return;
        };
        let mut upkeep = self.upkeep.lock().await;
        self.take_over(file, &mut upkeep).await;
    }

    /// Reads the campaign file again whenever it has changed, until `stop` is cancelled.
    pub async fn watch(&self, stop: CancellationToken) {
        let Some(file) = &self.file else { return };
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = None;
        while stop.run_until_cancelled(look.tick()).await.is_some() {
            let mut upkeep = self.upkeep.lock().await;
            let Ok(print) = Print::take(file, &upkeep.beside).await else {
                continue; // Looking panicked, which was told: the next look is as good.
            };
            if print == upkeep.print {
                seen = None;
            } else if seen == Some(print) {
                self.take_over(file, &mut upkeep).await;
            } else {
                seen = Some(print);
            }
        }
    }

    /// Ends what the book has started.
    pub async fn close(&self) {
        let parrot = self.upkeep.lock().await.parrot.take();
        if let Some(parrot) = parrot {
            parrot.stop().await;
        }
    }

    async fn take_over(&self, file: &Path, upkeep: &mut Upkeep) {
        let before = Print::take(file, &upkeep.beside).await;
        match self.draft(file, upkeep).await {
            Ok(draft) => self.put_in_force(draft, upkeep),
            Err(error) => {
                if let DraftError::File(error) = &error {
                    upkeep.beside.clone_from(&error.beside);
                }
                // The same mistakes are told once.
                let after = Print::take(file, &upkeep.beside).await;
                if let (Ok(before), Ok(after)) = (before, after) {
                    upkeep.print = Print {
                        file: before.file,
                        ..after
                    };
                }
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the campaign file is not taken over");
            }
        }
    }

    async fn draft(&self, file: &Path, upkeep: &mut Upkeep) -> Result<Draft, DraftError> {
        let draft = Draft::read(file, &self.inherited).await?;
        draft.start_parrot(&mut upkeep.parrot).await?;
        Ok(draft)
    }

    fn put_in_force(&self, draft: Draft, upkeep: &mut Upkeep) {
        warn_of(&draft);
        upkeep.print = draft.print;
        upkeep.beside = draft.beside;
        let before = self.edition();
        let url = upkeep.parrot.as_ref().map(address);
        let agents = Agents::new(
            self.inherited.agent.clone(),
            draft.agents,
            &draft.trust,
            &self.metrics,
            url.as_ref(),
            Some(&before.agents),
        );
        let difference = draft.campaigns.since(&before.campaigns);
        let edition = Edition {
            campaigns: Arc::new(draft.campaigns),
            agents: Arc::new(agents),
        };
        tracing::info!(
            added = difference.added,
            removed = difference.removed,
            changed = difference.changed,
            campaigns = edition.campaigns.all().count(),
            agents = edition.agents.all().count(),
            endpoints = draft.endpoints.values().map(Vec::len).sum::<usize>(),
            "the campaign file is taken over"
        );
        *self.edition.write().unwrap_or_else(PoisonError::into_inner) = edition;
        self.endpoints.send_replace(Arc::new(draft.endpoints));
    }

    fn edition(&self) -> Edition {
        let edition = self.edition.read();
        edition.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Print {
    async fn take(file: &Path, beside: &[PathBuf]) -> Result<Self, JoinError> {
        let (file, beside) = (file.to_owned(), beside.to_vec());
        let taken = spawn_blocking(move || Self {
            file: digest([&file].into_iter()),
            beside: digest(beside.iter()),
        });
        taken.await
    }
}

/// Returns a digest of what files hold; one that cannot be read holds its error.
fn digest(files: impl Iterator<Item = impl AsRef<Path>>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in files {
        match read_file(file.as_ref(), LONGEST) {
            Ok(held) => digest.update(Sha256::digest(held)),
            Err(error) => digest.update(error.to_string()),
        }
    }
    digest.finalize().into()
}

fn warn_of(draft: &Draft) {
    for warning in &draft.warnings {
        tracing::warn!("{warning}");
    }
}

fn address(parrot: &Parrot) -> Url {
    parrot.url().parse().expect("the parrot's own address")
}
