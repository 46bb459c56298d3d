//! The campaign file: tenants, campaigns, groups, numbers and agents, as TOML.
//!
//! Invariant: whatever the file holds, reading it ends in campaigns or in a list of its mistakes.
//! Invariant: no mistake shows a secret, nor a whole phone number.

mod agents;
mod campaigns;
mod endpoints;
mod secret;
mod table;
mod tools;
mod voice_live;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use crate::{
    campaign::{AcsRefusal, Campaigns, Name, WhenFull},
    config::{
        AgentSettings, Caps, ToolSettings, VoiceLiveAccess,
        file::{
            secret::Beside,
            table::{Notes, Table},
        },
    },
    event::Endpoints,
    guard::GuardRules,
    language::Language,
    outbound::number::Countries,
};

/// The longest file, in bytes.
const LONGEST_FILE: u64 = 1 << 20;
const MOST_TENANTS: usize = 1_000;
const MOST_CAMPAIGNS: usize = 1_000;
const MOST_GROUPS: usize = 1_000;
const MOST_AGENTS: usize = 100;
/// How many scopes may have a reserve: each is counted for every call of the others.
const MOST_RESERVES: u32 = 50;
/// How many numbers one campaign may have.
const MOST_NUMBERS: usize = 100;
/// How many mistakes are told at once.
const MOST_MISTAKES: usize = 100;

/// What a campaign file says.
#[derive(Debug)]
pub struct CampaignFile {
    pub campaigns: Campaigns,
    /// The agents beside the environment's.
    pub agents: BTreeMap<Name, AgentSettings>,
    /// Who is told of the calls of each tenant.
    pub endpoints: Endpoints,
    /// What is odd about it, for the log.
    pub warnings: Vec<String>,
    /// The files that it names: what they hold counts as its own.
    pub beside: Vec<PathBuf>,
}

/// What the environment says where a campaign file says nothing.
#[derive(Debug, Clone)]
pub struct Inherited {
    pub production: bool,
    pub language: Language,
    pub when_full: WhenFull,
    pub acs_when_full: AcsRefusal,
    /// The settings that writing to callers lacks; empty if it lacks none.
    pub whatsapp_lacks: String,
    pub caps: Caps,
    /// Which countries may be called.
    pub countries: Countries,
    pub agent: AgentSettings,
    pub voice_live: VoiceLiveAccess,
    pub tools: ToolSettings,
    pub guard: GuardRules,
    /// Who is told of calls where there is no campaign file.
    pub endpoints: Endpoints,
}

/// Why a campaign file cannot be used: everything that is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub struct FileError {
    mistakes: Vec<String>,
    /// How many more there are.
    untold: usize,
    /// The files that it names: a mistake may be gone once they are as they should be.
    pub beside: Vec<PathBuf>,
}

impl CampaignFile {
    /// Reads and checks the file at `path`; paths in it are relative to its folder.
    ///
    /// # Errors
    /// With every mistake, its line and its column.
    pub fn load(path: &Path, inherited: &Inherited) -> Result<Self, FileError> {
        let alone = |mistake: String| FileError {
            mistakes: vec![mistake],
            untold: 0,
            beside: Vec::new(),
        };
        let bytes = read(path, LONGEST_FILE).map_err(|error| {
            let path = path.display();
            alone(format!("{path}: cannot be read: {error} (CALLGATE_CONFIG)"))
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
            alone(told(path, &before, valid, "not UTF-8"))
        })?;
        Self::parse(&text, path, inherited)
    }

    fn parse(text: &str, path: &Path, inherited: &Inherited) -> Result<Self, FileError> {
        let notes = Notes::of(text);
        let (document, flaws) = DeTable::parse_recoverable(text);
        for flaw in &flaws {
            let at = flaw.span().map_or(0, |span| span.start);
            notes.mistake(at, flaw.message().to_owned());
        }
        if !flaws.is_empty() {
            // What can be made of such a file would be said to have mistakes that it has not.
            return Err(error(notes, text, path, Vec::new()));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let root = Table::root(&notes, document.get_ref());
        let mut files = Vec::new();
        let mut beside = Beside {
            folder,
            files: &mut files,
        };
        let agents = agents::read(&root, inherited, &mut beside);
        let (campaigns, endpoints) = campaigns::read(&root, inherited, &agents, &mut beside);
        root.finish();
        if !notes.mistakes.borrow().is_empty() {
            return Err(error(notes, text, path, files));
        }
        let mut warnings = notes.warnings.take();
        warnings.sort();
        let warnings = warnings.into_iter();
        Ok(Self {
            campaigns,
            agents,
            endpoints,
            warnings: warnings
                .map(|(at, what)| told(path, text, at, &what))
                .collect(),
            beside: files,
        })
    }
}

/// Reads a file of at most `longest` bytes. What is no file, such as a pipe, could keep its reader
/// waiting for ever.
///
/// # Errors
/// If it cannot be read, is longer, or is no file.
pub fn read(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(longest + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > longest {
        return Err(io::Error::other(format!("longer than {longest} bytes")));
    }
    Ok(bytes)
}

fn error(notes: Notes, text: &str, path: &Path, beside: Vec<PathBuf>) -> FileError {
    let mut mistakes = notes.mistakes.into_inner();
    mistakes.sort();
    let untold = mistakes.len().saturating_sub(MOST_MISTAKES);
    mistakes.truncate(MOST_MISTAKES);
    let mistakes = mistakes.into_iter();
    FileError {
        mistakes: mistakes
            .map(|(at, what)| told(path, text, at, &what))
            .collect(),
        untold,
        beside,
    }
}

/// Says where something is, in the form that editors jump to.
fn told(path: &Path, text: &str, at: usize, what: &str) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default();
    let column = column.chars().count() + 1;
    format!("{}:{line}:{column}: {what}", path.display())
}

impl FileError {
    /// Returns each mistake as it is printed.
    pub fn mistakes(&self) -> impl Iterator<Item = String> {
        let more = (self.untold > 0).then(|| format!("and {} more", self.untold));
        self.mistakes.iter().cloned().chain(more)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mistakes.len() + self.untold {
            1 => f.write_str("the campaign file has 1 mistake:")?,
            many => write!(f, "the campaign file has {many} mistakes:")?,
        }
        self.mistakes()
            .try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for FileError {}

#[cfg(test)]
mod tests;
