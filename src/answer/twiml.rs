//! Twilio's answers: documents from templates, which an operator may replace one by one.
//!
//! `TEMPLATES_DIR/twiml/he-IL/busy.xml` replaces the embedded `templates/twiml/he-IL/busy.xml`, and
//! a directory named like another language adds that language. Every value is escaped, and no
//! filter turns that off.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    fs, io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

use super::{Answer, CallDetails, escape::escape, trial, xml};
use crate::{call::PhoneNumber, language::Language};

/// The longest value that comes from outside, in characters: long enough to be heard, and short
/// enough that no caller's name makes a document larger than Twilio reads.
pub const LONGEST_VALUE: usize = 100;

/// A template's name, and its text as of the build.
macro_rules! embedded {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/templates/twiml/",
                $name
            )),
        )
    };
}

/// The embedded templates, named as in `templates/twiml`.
const EMBEDDED: [(&str, &str); 20] = [
    embedded!("en-US/apology.xml"),
    embedded!("en-US/busy.xml"),
    embedded!("en-US/connect.xml"),
    embedded!("en-US/goodbye.xml"),
    embedded!("en-US/hang-up.xml"),
    embedded!("en-US/not-in-service.xml"),
    embedded!("en-US/transfer.xml"),
    embedded!("en-US/voicemail-thanks.xml"),
    embedded!("en-US/voicemail.xml"),
    embedded!("en-US/whatsapp.xml"),
    embedded!("he-IL/apology.xml"),
    embedded!("he-IL/busy.xml"),
    embedded!("he-IL/connect.xml"),
    embedded!("he-IL/goodbye.xml"),
    embedded!("he-IL/hang-up.xml"),
    embedded!("he-IL/not-in-service.xml"),
    embedded!("he-IL/transfer.xml"),
    embedded!("he-IL/voicemail-thanks.xml"),
    embedded!("he-IL/voicemail.xml"),
    embedded!("he-IL/whatsapp.xml"),
];

/// The documents that answer a carrier, one of each for every language.
///
/// Invariant: there is one of each in English, and each has been rendered and found good.
pub struct Templates {
    /// Names its templates `he-IL/busy.xml`.
    environment: Environment<'static>,
    known: BTreeSet<(Document, Language)>,
}

/// Why the templates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}", list(flaws))]
    Flawed { flaws: Vec<TemplateFlaw> },
}

/// What is wrong in one template. Displays as `file:line:column: what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFlaw {
    pub file: PathBuf,
    /// Line and column, from one; a column is not known of what the template engine rejects.
    pub line: Option<usize>,
    pub column: Option<usize>,
    pub what: String,
}

/// A kind of document; the name of its file is in [`Document::file`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Document {
    Connect,
    Busy,
    Voicemail,
    VoicemailThanks,
    Transfer,
    Whatsapp,
    NotInService,
    Apology,
    Goodbye,
    HangUp,
}

impl Templates {
    /// Reads the templates, those in `dir` in place of the embedded ones, and tries each of them
    /// with plain values, with hostile ones, with the longest and with none.
    ///
    /// # Errors
    /// If `dir` cannot be read, holds an XML file of no known name, or if a template does not
    /// give TwiML whatever the values are; then all such templates are named.
    pub fn load(dir: Option<&Path>) -> Result<Self, TemplateError> {
        let overriding = dir.map_or_else(|| Ok(Vec::new()), files_below)?;
        let mut sources = Vec::new();
        for file in overriding {
            let text = fs::read_to_string(&file).map_err(|source| unreadable(&file, source))?;
            sources.push((file, text));
        }
        Self::from_sources(dir.unwrap_or(Path::new("")), sources)
    }

    fn from_sources(dir: &Path, overriding: Vec<(PathBuf, String)>) -> Result<Self, TemplateError> {
        let mut texts = BTreeMap::new();
        let mut flaws = Vec::new();
        for (name, text) in EMBEDDED {
            let place = place_of(Path::new(name)).expect("embedded files have known names");
            let file = Path::new("templates/twiml").join(name);
            texts.insert(place, (file, text.to_owned()));
        }
        for (file, text) in overriding {
            let within = file.strip_prefix(dir.join("twiml")).unwrap_or(&file);
            match place_of(within) {
                Some(place) => {
                    texts.insert(place, (file, text));
                }
                None => flaws.push(TemplateFlaw {
                    file,
                    line: None,
                    column: None,
                    what: misplaced(),
                }),
            }
        }

        let mut templates = Self {
            environment: environment(),
            known: BTreeSet::new(),
        };
        for ((document, language), (file, text)) in texts {
            let name = document.name(&language);
            match trial::pass(&templates.environment, document, &name, &text) {
                Ok(()) => {
                    templates
                        .environment
                        .add_template_owned(name, text)
                        .expect("it has passed");
                    templates.known.insert((document, language));
                }
                Err(reason) => flaws.push(reason.locate(&text, file)),
            }
        }
        if flaws.is_empty() {
            Ok(templates)
        } else {
            Err(TemplateError::Flawed { flaws })
        }
    }

    /// Writes the answer to a call in `language`, or the nearest one there is: the same language
    /// of another region, then English.
    ///
    /// A document that fails in a way that no sample value has shown is logged, and a wordless
    /// one takes its place: the carrier always gets an answer.
    pub fn render(&self, answer: &Answer, language: &Language, call: &CallDetails<'_>) -> String {
        let document = Document::of(answer);
        let name = document.name(self.nearest(document, language));
        let values = values(answer, call);
        let rendered = self.environment.get_template(&name);
        let what = match rendered.and_then(|template| template.render(values)) {
            Ok(text) => match xml::read(&text) {
                Ok(_) => return text,
                Err(flaw) => flaw.what,
            },
            Err(error) => trial::explained(&error),
        };
        tracing::error!(
            template = name,
            error = what,
            "a template failed, the caller gets a wordless answer"
        );
        wordless(answer)
    }

    fn nearest<'a>(&'a self, document: Document, wanted: &'a Language) -> &'a Language {
        static ENGLISH: LazyLock<Language> = LazyLock::new(Language::english);
        if self.known.contains(&(document, wanted.clone())) {
            return wanted;
        }
        self.known
            .iter()
            .filter(|(known, _)| *known == document)
            .map(|(_, language)| language)
            .find(|language| language.primary() == wanted.primary())
            .unwrap_or(&ENGLISH)
    }
}

impl Document {
    const ALL: [Self; 10] = [
        Self::Connect,
        Self::Busy,
        Self::Voicemail,
        Self::VoicemailThanks,
        Self::Transfer,
        Self::Whatsapp,
        Self::NotInService,
        Self::Apology,
        Self::Goodbye,
        Self::HangUp,
    ];

    fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Connect { .. } => Self::Connect,
            Answer::Refuse => Self::Busy,
            Answer::Voicemail { .. } => Self::Voicemail,
            Answer::VoicemailThanks => Self::VoicemailThanks,
            Answer::Transfer { .. } => Self::Transfer,
            Answer::Whatsapp => Self::Whatsapp,
            Answer::NotInService => Self::NotInService,
            Answer::Apology => Self::Apology,
            Answer::Goodbye => Self::Goodbye,
            Answer::HangUp => Self::HangUp,
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Connect => "connect.xml",
            Self::Busy => "busy.xml",
            Self::Voicemail => "voicemail.xml",
            Self::VoicemailThanks => "voicemail-thanks.xml",
            Self::Transfer => "transfer.xml",
            Self::Whatsapp => "whatsapp.xml",
            Self::NotInService => "not-in-service.xml",
            Self::Apology => "apology.xml",
            Self::Goodbye => "goodbye.xml",
            Self::HangUp => "hang-up.xml",
        }
    }

    fn name(self, language: &Language) -> String {
        format!("{language}/{}", self.file())
    }
}

impl fmt::Display for TemplateFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, "{number}:")?;
        }
        write!(f, " {}", self.what)
    }
}

/// Returns an engine that escapes every value, whatever a template says.
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // A misspelt name has to stop the start, not to make a hole in what callers hear.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // The formatter escapes, so nothing else has to; nor may anything claim to be escaped.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    for filter in ["safe", "escape", "e"] {
        environment.remove_filter(filter);
    }
    environment.set_formatter(|out, _, value| {
        let text = value.to_string();
        out.write_str(&escape(&text)).map_err(Into::into)
    });
    environment
}

pub fn values(answer: &Answer, call: &CallDetails<'_>) -> Value {
    let cut = |value: Option<&str>| -> String {
        value
            .unwrap_or_default()
            .chars()
            .take(LONGEST_VALUE)
            .collect()
    };
    let call = context! {
        caller => cut(call.caller),
        called => cut(Some(call.called)),
        caller_name => cut(call.caller_name),
        campaign => cut(call.campaign),
    };
    match answer {
        Answer::Connect {
            stream_url,
            action_url,
            ticket,
        } => context! {
            stream_url => stream_url.as_str(),
            action_url => action_url.as_str(),
            ticket => ticket,
            ..call
        },
        Answer::Voicemail {
            action_url,
            recording_url,
            max_seconds,
        } => context! {
            action_url => action_url.as_str(),
            recording_url => recording_url.as_str(),
            max_seconds => max_seconds,
            ..call
        },
        Answer::Transfer {
            number,
            caller_id,
            max_seconds,
            action_url,
        } => context! {
            number => number.reveal(),
            caller_id => caller_id.as_ref().map_or("", PhoneNumber::reveal),
            max_seconds => max_seconds,
            action_url => action_url.as_str(),
            ..call
        },
        Answer::Refuse
        | Answer::VoicemailThanks
        | Answer::Whatsapp
        | Answer::NotInService
        | Answer::Apology
        | Answer::Goodbye
        | Answer::HangUp => call,
    }
}

/// Returns the answer as a document that needs no template and has nothing to say.
fn wordless(answer: &Answer) -> String {
    let verbs = match answer {
        Answer::Connect {
            stream_url,
            action_url,
            ticket,
        } => format!(
            r#"<Connect action="{}" method="POST"><Stream url="{}"><Parameter name="ticket" value="{}"/></Stream></Connect>"#,
            escape(action_url.as_str()),
            escape(stream_url.as_str()),
            escape(ticket),
        ),
        Answer::Voicemail {
            action_url,
            recording_url,
            max_seconds,
        } => format!(
            r#"<Record action="{}" maxLength="{max_seconds}" recordingStatusCallback="{}"/>"#,
            escape(action_url.as_str()),
            escape(recording_url.as_str()),
        ),
        Answer::Transfer {
            number,
            max_seconds,
            action_url,
            ..
        } => format!(
            r#"<Dial action="{}" method="POST" timeLimit="{max_seconds}">{}</Dial>"#,
            escape(action_url.as_str()),
            escape(number.reveal()),
        ),
        Answer::Refuse | Answer::Whatsapp => r#"<Reject reason="busy"/>"#.to_owned(),
        Answer::NotInService => r#"<Reject reason="rejected"/>"#.to_owned(),
        Answer::VoicemailThanks | Answer::Apology | Answer::Goodbye | Answer::HangUp => {
            "<Hangup/>".to_owned()
        }
    };
    format!("{}\n<Response>{verbs}</Response>", xml::PROLOG)
}

/// Returns what the file at `within`, a path such as `he-IL/busy.xml`, is a template for.
fn place_of(within: &Path) -> Option<(Document, Language)> {
    let (tag, file) = within.to_str()?.split_once('/')?;
    let document = Document::ALL
        .into_iter()
        .find(|known| known.file() == file)?;
    Some((document, Language::try_from(tag.to_owned()).ok()?))
}

/// Returns the XML files of `dir` in a fixed order. Leaves out hidden ones, which is where a
/// mounted Kubernetes volume keeps its versions, and `prompts`, which holds sounds.
fn files_below(dir: &Path) -> Result<Vec<PathBuf>, TemplateError> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        let entries = fs::read_dir(&next).map_err(|source| unreadable(&next, source))?;
        for entry in entries {
            let path = entry.map_err(|source| unreadable(&next, source))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with('.') || path == dir.join("prompts") {
                continue;
            }
            let kind = fs::metadata(&path).map_err(|source| unreadable(&path, source))?;
            if kind.is_dir() && path.components().count() < dir.components().count() + 3 {
                dirs.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|suffix| suffix == "xml") {
                files.push(path);
            } else {
                tracing::warn!(file = %path.display(), "a file is no template and is not used");
            }
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, source: io::Error) -> TemplateError {
    TemplateError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

fn misplaced() -> String {
    let names = Document::ALL.map(Document::file).join(", ");
    format!("no template has this name: they are twiml/<language>/ and one of {names}")
}

fn list(flaws: &[TemplateFlaw]) -> String {
    let mut text = match flaws {
        [_] => "1 template is wrong:".to_owned(),
        _ => format!("{} templates are wrong:", flaws.len()),
    };
    for flaw in flaws {
        let _ = write!(text, "\n  {flaw}"); // Writing to a string does not fail.
    }
    text
}

#[cfg(test)]
mod tests;
