//! What callers hear where no carrier reads texts out to them: one WAV file for each text and
//! language, which says what the TwiML template of that name says.
//!
//! `TEMPLATES_DIR/prompts/he-IL/busy.wav` replaces the embedded `templates/prompts/he-IL/busy.wav`,
//! and a directory named like another language adds that language.
//!
//! The embedded ones are rendered by `scripts/render-prompts`.

mod sound;

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use bytes::Bytes;

use self::sound::{LARGEST, PROMPT_RATE, Sound};
use serde::{Deserialize, Serialize};

use crate::{call::Farewell, language::Language};

/// A prompt, its language, and its file as of the build.
macro_rules! embedded {
    ($language:literal, $prompt:expr, $name:literal) => {
        (
            $language,
            $prompt,
            include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/templates/prompts/",
                $language,
                "/",
                $name,
                ".wav"
            )),
        )
    };
}

const EMBEDDED: [(&str, Prompt, &[u8]); 14] = [
    embedded!("en-US", Prompt::Apology, "apology"),
    embedded!("en-US", Prompt::Busy, "busy"),
    embedded!("en-US", Prompt::Goodbye, "goodbye"),
    embedded!("en-US", Prompt::NotInService, "not_in_service"),
    embedded!("en-US", Prompt::Voicemail, "voicemail"),
    embedded!("en-US", Prompt::VoicemailThanks, "voicemail_thanks"),
    embedded!("en-US", Prompt::Whatsapp, "whatsapp"),
    embedded!("he-IL", Prompt::Apology, "apology"),
    embedded!("he-IL", Prompt::Busy, "busy"),
    embedded!("he-IL", Prompt::Goodbye, "goodbye"),
    embedded!("he-IL", Prompt::NotInService, "not_in_service"),
    embedded!("he-IL", Prompt::Voicemail, "voicemail"),
    embedded!("he-IL", Prompt::VoicemailThanks, "voicemail_thanks"),
    embedded!("he-IL", Prompt::Whatsapp, "whatsapp"),
];

/// The prompts, one of each for every language.
///
/// Invariant: there is one of each in English, and each is a WAV file of 16-bit PCM, mono, 16 kHz,
/// with something in it and at most a minute long.
pub struct Prompts {
    sounds: BTreeMap<(Prompt, Language), Sound>,
}

/// What a caller is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prompt {
    Busy,
    Voicemail,
    VoicemailThanks,
    Whatsapp,
    NotInService,
    Apology,
    Goodbye,
}

/// Why the prompts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}", list(flaws))]
    Flawed { flaws: Vec<PromptFlaw> },
}

/// What is wrong with one file. Displays as `file: what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptFlaw {
    pub file: PathBuf,
    pub what: String,
}

impl Prompts {
    /// Samples a second of every prompt.
    pub const RATE: u32 = PROMPT_RATE;

    /// Reads the prompts, those in `dir` in place of the embedded ones.
    ///
    /// # Errors
    /// If `dir` cannot be read, or holds a WAV file of no known name or that a carrier would not
    /// play; then all such files are named.
    pub fn load(dir: Option<&Path>) -> Result<Self, PromptError> {
        // Once a process: tests start a gateway each.
        static AS_BUILT: LazyLock<BTreeMap<(Prompt, Language), Sound>> = LazyLock::new(as_built);
        let mut sounds = AS_BUILT.clone();
        let mut flaws = Vec::new();
        let dir = dir.map(|dir| dir.join("prompts"));
        for file in dir.as_deref().map_or_else(|| Ok(Vec::new()), files_below)? {
            let bytes = read(&file).map_err(|source| unreadable(&file, source))?;
            let within = file.strip_prefix(dir.as_deref().unwrap_or(Path::new("")));
            match place_of(within.unwrap_or(&file)) {
                None => flaws.push(misplaced(file)),
                Some(place) => match Sound::read(bytes) {
                    Ok(sound) => {
                        sounds.insert(place, sound);
                    }
                    Err(unfit) => flaws.push(PromptFlaw {
                        file,
                        what: unfit.to_string(),
                    }),
                },
            }
        }
        if flaws.is_empty() {
            Ok(Self { sounds })
        } else {
            Err(PromptError::Flawed { flaws })
        }
    }

    /// Returns the file of `prompt` in `language`, or in the nearest one there is: the same
    /// language of another region, then English.
    pub fn wav(&self, prompt: Prompt, language: &Language) -> &Bytes {
        &self.nearest(prompt, language).wav
    }

    /// Returns the samples of what [`Prompts::wav`] returns, [`Prompts::RATE`] of them a second.
    pub fn samples(&self, prompt: Prompt, language: &Language) -> &[i16] {
        &self.nearest(prompt, language).samples
    }

    fn nearest(&self, prompt: Prompt, wanted: &Language) -> &Sound {
        static ENGLISH: LazyLock<Language> = LazyLock::new(Language::english);
        if let Some(sound) = self.sounds.get(&(prompt, wanted.clone())) {
            return sound;
        }
        self.sounds
            .iter()
            .filter(|((known, _), _)| *known == prompt)
            .find(|((_, language), _)| language.primary() == wanted.primary())
            .map_or_else(
                || &self.sounds[&(prompt, ENGLISH.clone())],
                |(_, sound)| sound,
            )
    }
}

impl Prompt {
    const ALL: [Self; 7] = [
        Self::Busy,
        Self::Voicemail,
        Self::VoicemailThanks,
        Self::Whatsapp,
        Self::NotInService,
        Self::Apology,
        Self::Goodbye,
    ];

    /// Returns the prompt that has `name`, as files and URLs have it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|prompt| prompt.name() == name)
    }

    /// Returns what is said where a carrier cannot be asked to say it; nothing before hanging up.
    pub fn of(farewell: Farewell) -> Option<Self> {
        match farewell {
            Farewell::HangUp | Farewell::Transfer => None,
            Farewell::Goodbye => Some(Self::Goodbye),
            Farewell::Apology => Some(Self::Apology),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Voicemail => "voicemail",
            Self::VoicemailThanks => "voicemail_thanks",
            Self::Whatsapp => "whatsapp",
            Self::NotInService => "not_in_service",
            Self::Apology => "apology",
            Self::Goodbye => "goodbye",
        }
    }
}

impl fmt::Display for PromptFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)
    }
}

fn as_built() -> BTreeMap<(Prompt, Language), Sound> {
    let read = |(tag, prompt, wav): (&str, Prompt, &'static [u8])| {
        let language = Language::try_from(tag.to_owned()).expect("embedded tags are tags");
        let sound = Sound::read(Bytes::from_static(wav));
        let sound = sound.expect("the tests read all embedded prompts");
        ((prompt, language), sound)
    };
    EMBEDDED.into_iter().map(read).collect()
}

/// Returns what the file at `within`, a path such as `he-IL/busy.wav`, is the prompt of.
fn place_of(within: &Path) -> Option<(Prompt, Language)> {
    let (tag, file) = within.to_str()?.split_once('/')?;
    let prompt = Prompt::named(file.strip_suffix(".wav")?)?;
    Some((prompt, Language::try_from(tag.to_owned()).ok()?))
}

/// Returns the WAV files of `dir`, which need not be there, and of the folders in it, in a fixed
/// order. Leaves out hidden ones, which is where a mounted Kubernetes volume keeps its versions.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>, PromptError> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        let entries = match fs::read_dir(&next) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && next == dir => break,
            entries => entries.map_err(|source| unreadable(&next, source))?,
        };
        for entry in entries {
            let path = entry.map_err(|source| unreadable(&next, source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let kind = fs::metadata(&path).map_err(|source| unreadable(&path, source))?;
            if kind.is_dir() && next == dir {
                dirs.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|suffix| suffix == "wav") {
                files.push(path);
            } else {
                tracing::warn!(file = %path.display(), "a file is no prompt and is not used");
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads as much of `file` as tells whether it is too large.
fn read(file: &Path) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    File::open(file)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    Ok(Bytes::from(bytes))
}

fn unreadable(path: &Path, source: io::Error) -> PromptError {
    PromptError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

fn misplaced(file: PathBuf) -> PromptFlaw {
    let names = Prompt::ALL.map(|prompt| format!("{}.wav", prompt.name()));
    let names = names.join(", ");
    PromptFlaw {
        file,
        what: format!("no prompt has this name: they are prompts/<language>/ and one of {names}"),
    }
}

fn list(flaws: &[PromptFlaw]) -> String {
    let first = match flaws {
        [_] => "1 prompt is wrong:".to_owned(),
        _ => format!("{} prompts are wrong:", flaws.len()),
    };
    let lines = flaws.iter().map(|flaw| format!("\n  {flaw}"));
    first + &lines.collect::<String>()
}

#[cfg(test)]
mod tests;
