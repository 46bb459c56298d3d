//! `docs/settings.md` is made here. Which settings are secret, and what a wrong one is told, is
//! asked of the code that reads them; groups, defaults and texts are those of `.env.example`.

use std::{cell::Cell, fmt::Write, fs, mem};

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");

/// Is wrong for every setting that has a rule.
const NONSENSE: &str = "?";

/// What numbers count, by how the names of their settings end; the first that fits.
const UNITS: &[(&str, &str)] = &[
    ("_SECONDS", "s"),
    ("_SEC", "s"),
    ("_MS", "ms"),
    ("_DAYS", "days"),
    ("_PER_SECOND", "calls a second"),
    ("_DESTINATION_HOUR", "calls an hour"),
    ("_PREFIX_HOUR", "calls an hour"),
    ("_KEY_MINUTE", "calls a minute"),
    ("CONNECTIONS_PER_MINUTE", "connections a minute"),
    ("TOKENS_PER_MINUTE", "tokens a minute"),
    ("_DAILY_MINUTES", "minutes a day"),
    ("_DAILY_CALLS", "calls a day"),
    ("_CALLS", "calls"),
    ("_SESSIONS", "calls"),
    ("_CONCURRENCY", "calls"),
    ("_PER_TENANT", "calls"),
    ("_PER_ADDRESS", "calls"),
    ("_CONNECTIONS", "sockets"),
    ("_REPLICAS", "replicas"),
    ("_THRESHOLD", "%"),
    ("WORKERS", "threads"),
];

const HEAD: &str = "# Settings

Settings come from the environment, and from a file `.env` in the current folder; the environment wins. `serve`, which is what callgate does without a command, and `check` read all of them; `demo` ignores them. Empty counts as not set. A wrong one stops the start with exit code 78; one start names every wrong setting, and says what it has to be.

A secret (🔒) can come from a file: `TWILIO_AUTH_TOKEN_FILE` holds a path in place of `TWILIO_AUTH_TOKEN`, and so on. [`.env.example`](../.env.example) is a file to copy and change. What belongs to one campaign is in the [campaign file](campaigns.md).

This page is made of the code and of `.env.example` by `CALLGATE_WRITE_DOCS=1 cargo test -p callgate --lib settings`.
";

const COLUMNS: &str =
    "| setting | default | what a start says of a wrong one | unit | what it is for |
|---|---|---|---|---|
";

#[derive(Default)]
struct Group {
    title: String,
    intro: String,
    settings: Vec<Setting>,
}

struct Setting {
    name: String,
    default: String,
    text: String,
    is_secret: bool,
}

#[test]
fn the_page_of_settings_is_what_the_code_and_the_example_make() {
    let page = page();
    if std::env::var_os("CALLGATE_WRITE_DOCS").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    assert!(
        page == fs::read_to_string(PAGE).unwrap(),
        "docs/settings.md is another one: CALLGATE_WRITE_DOCS=1 with this test writes it anew"
    );
}

#[test]
fn the_example_says_of_every_setting_what_it_is_for_and_whether_it_is_secret() {
    for setting in groups().iter().flat_map(|group| &group.settings) {
        let name = &setting.name;
        assert!(!setting.text.is_empty(), "{name} has no text");
        assert_eq!(setting.is_secret, may_be_a_file(name), "{name} is a secret");
    }
}

#[test]
fn every_number_among_the_settings_counts_something() {
    for setting in groups().iter().flat_map(|group| &group.settings) {
        let rule = rule(&setting.name).unwrap_or_default();
        let unit = unit(&setting.name, &rule);
        assert_eq!(
            rule.starts_with("a whole number"),
            !unit.is_empty(),
            "{}: {rule}",
            setting.name
        );
    }
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for group in groups() {
        write!(page, "\n## {}\n\n", group.title).unwrap();
        if !group.intro.is_empty() {
            write!(page, "{}\n\n", escaped(&group.intro)).unwrap();
        }
        page.push_str(COLUMNS);
        page.extend(group.settings.iter().map(row));
    }
    page
}

fn row(setting: &Setting) -> String {
    let name = &setting.name;
    let mark = if setting.is_secret { " 🔒" } else { "" };
    let default = match setting.default.as_str() {
        "" => String::new(),
        default => format!("`{default}`"),
    };
    let rule = rule(name).unwrap_or_default();
    let unit = unit(name, &rule);
    let (rule, text) = (escaped(&rule), escaped(&setting.text));
    format!("| `{name}`{mark} | {default} | {rule} | {unit} | {text} |\n")
}

/// Returns what the reading code wants of a setting, as a start with a wrong one would say.
fn rule(name: &str) -> Option<String> {
    let error = load(&[(name, NONSENSE)]).err()?;
    error.rule(name).map(str::to_owned)
}

/// Returns whether the setting may be a file's content, which only secrets may.
fn may_be_a_file(name: &str) -> bool {
    let file = format!("{name}_FILE");
    let asked = Cell::new(false);
    let _ = Config::load(|name| {
        asked.set(asked.get() || name == file);
        None
    });
    asked.get()
}

fn unit(name: &str, rule: &str) -> &'static str {
    if !rule.starts_with("a whole number") {
        return "";
    }
    let unit = UNITS.iter().find(|(ending, _)| name.ends_with(ending));
    unit.map_or("", |(_, unit)| unit)
}

/// Returns the example's groups. A comment belongs to the setting below it, or introduces a group
/// where an empty line follows.
fn groups() -> Vec<Group> {
    let values = example();
    let mut groups = Vec::<Group>::new();
    let mut comment = Vec::new();
    for line in EXAMPLE.lines() {
        let Some(line) = line.strip_prefix('#') else {
            if let (Some(group), false) = (groups.last_mut(), comment.is_empty()) {
                group.intro = comment.join(" ");
            }
            comment.clear();
            continue;
        };
        if let Some(title) = line.strip_prefix(" --- ") {
            let title = title.trim_end_matches(['-', ' ']).to_owned();
            groups.push(Group {
                title,
                ..Group::default()
            });
        } else if let (Some(group), Some((name, _))) = (groups.last_mut(), line.split_once('='))
            && is_name(name)
        {
            let text = mem::take(&mut comment).join(" ");
            let (_, default) = values.iter().find(|(set, _)| set == name).unwrap();
            group.settings.push(Setting {
                name: name.to_owned(),
                default: default.clone(),
                is_secret: text.ends_with("(secret)"),
                text: text.trim_end_matches("(secret)").trim().to_owned(),
            });
        } else {
            comment.push(line.trim());
        }
    }
    groups
}

/// Returns the text as Markdown shows it in a table as it is written.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if matches!(letter, '|' | '<' | '*' | '\\') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
