//! Reads single settings and collects every mistake, so that one start reports all of them.

use std::{cell::RefCell, fmt, str::FromStr, time::Duration};

use secrecy::SecretString;

/// The largest cap.
pub const MOST_CALLS: u32 = 1_000_000;

/// The settings of one start, as name and value.
pub trait Environment: Fn(&str) -> Option<String> {}
impl<F: Fn(&str) -> Option<String>> Environment for F {}

/// Reads settings from an environment. A wrong one counts as its default until
/// [`Reader::finish`] reports it.
pub struct Reader<E> {
    environment: E,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<String>>,
}

/// Why the settings do not make a gateway.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(Vec<Mistake>);

#[derive(Debug, PartialEq, Eq)]
struct Mistake {
    name: String,
    value: Option<String>, // None for what is not set or must not be shown.
    rule: String,
}

impl<E: Environment> Reader<E> {
    pub fn new(environment: E) -> Self {
        Self {
            environment,
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    /// Returns what is set under `name`; blank counts as not set.
    pub fn text(&self, name: &str) -> Option<String> {
        let value = (self.environment)(name)?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    }

    /// Returns what `name` means, or `None` where it is not set or breaks `rule`.
    pub fn parsed<T: FromStr>(&self, name: &str, rule: &str) -> Option<T> {
        let value = self.text(name)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.mistake(name, Some(value), rule);
        }
        parsed
    }

    /// Returns the entries of a comma-separated list.
    pub fn list(&self, name: &str) -> Vec<String> {
        split(&self.text(name).unwrap_or_default())
    }

    /// Returns a whole number within `range`, or `default`.
    pub fn number(&self, name: &str, default: u64, range: std::ops::RangeInclusive<u64>) -> u64 {
        let rule = format!("a whole number from {} to {}", range.start(), range.end());
        let Some(number) = self.parsed(name, &rule) else {
            return default;
        };
        if range.contains(&number) {
            return number;
        }
        self.mistake(name, Some(number.to_string()), &rule);
        default
    }

    pub fn seconds(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Duration {
        Duration::from_secs(self.number(name, default, range))
    }

    pub fn switch(&self, name: &str) -> bool {
        let value = self.text(name).unwrap_or_default();
        match value.to_ascii_lowercase().as_str() {
            "" | "0" | "false" | "no" | "off" => false,
            "1" | "true" | "yes" | "on" => true,
            _ => {
                self.mistake(name, Some(value), "1 or 0");
                false
            }
        }
    }

    /// Returns a cap; zero and negative mean the default, with a warning, never "unlimited".
    pub fn cap(&self, name: &str) -> Option<u32> {
        const RULE: &str = "a whole number, at most 1000000";
        let number: i64 = self.parsed(name, RULE)?;
        match u32::try_from(number) {
            Ok(0) | Err(_) if number <= 0 => {
                self.warning(format!(
                    "{name}={number}: there is no \"unlimited\"; the default applies"
                ));
                None
            }
            Ok(cap) if cap <= MOST_CALLS => Some(cap),
            Ok(_) | Err(_) => {
                self.mistake(name, Some(number.to_string()), RULE);
                None
            }
        }
    }

    /// Returns a secret, from `name` itself or from the file that `name_FILE` points to.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        if let Some(value) = self.text(name) {
            return Some(value.into());
        }
        let file_name = format!("{name}_FILE");
        let path = self.text(&file_name)?;
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().into()),
            Ok(_) => {
                self.mistake(&file_name, Some(path), "a file that is not empty");
                None
            }
            Err(error) => {
                self.mistake(&file_name, Some(path), &format!("a readable file: {error}"));
                None
            }
        }
    }

    pub fn mistake(&self, name: &str, value: Option<String>, rule: &str) {
        self.mistakes.borrow_mut().push(Mistake {
            name: name.to_owned(),
            value,
            rule: rule.to_owned(),
        });
    }

    pub fn warning(&self, warning: String) {
        self.warnings.borrow_mut().push(warning);
    }

    /// Returns the warnings.
    ///
    /// # Errors
    /// If any setting was wrong; the error names them all.
    pub fn finish(self) -> Result<Vec<String>, ConfigError> {
        let mistakes = self.mistakes.into_inner();
        if mistakes.is_empty() {
            Ok(self.warnings.into_inner())
        } else {
            Err(ConfigError(mistakes))
        }
    }
}

/// Returns the entries of a comma-separated list, without blanks.
pub fn split(list: &str) -> Vec<String> {
    let entries = list.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

impl ConfigError {
    /// Returns each mistake as it is printed.
    pub fn mistakes(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(ToString::to_string)
    }

    /// Returns what the setting `name` has to be, if it is among the mistakes.
    #[cfg(test)]
    pub fn rule(&self, name: &str) -> Option<&str> {
        let mistake = self.0.iter().find(|mistake| mistake.name == name)?;
        Some(&mistake.rule)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, rule } = self;
        match value {
            Some(value) => write!(f, "{name}={value:?}: {rule}"),
            None => write!(f, "{name}: {rule}"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "1 setting is wrong:")?,
            many => write!(f, "{many} settings are wrong:")?,
        }
        self.0
            .iter()
            .try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigError {}
