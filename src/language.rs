//! The language a caller is spoken to in.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// The longest tag a protocol has to make room for. RFC 5646, 4.4.1.
const LONGEST_TAG: usize = 35;

/// A BCP 47 language tag, such as `he-IL`. The default is Hebrew.
// Invariant: a primary language of 2 or 3 letters, then subtags of 1 to 8 letters or digits,
// hyphens between them, in the case that RFC 5646 recommends, so that equal tags are equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Language(String);

/// Why a text names no language.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a language tag such as he-IL or en-US")]
pub struct NotALanguage;

impl Language {
    /// Returns English, the last resort: what is written in no other language is written in it.
    pub fn english() -> Self {
        Self("en-US".to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the language without its region and script: `he` of `he-IL`.
    pub fn primary(&self) -> &str {
        self.0
            .split_once('-')
            .map_or(self.as_str(), |(primary, _)| primary)
    }
}

impl Default for Language {
    fn default() -> Self {
        Self("he-IL".to_owned())
    }
}

impl TryFrom<String> for Language {
    type Error = NotALanguage;

    fn try_from(tag: String) -> Result<Self, NotALanguage> {
        let mut subtags = tag.split('-');
        let primary = subtags.next().unwrap_or_default();
        let is_primary = matches!(primary.len(), 2..=3)
            && primary.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_subtag = |subtag: &str| {
            matches!(subtag.len(), 1..=8) && subtag.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        if LONGEST_TAG < tag.len() || !is_primary || !subtags.clone().all(is_subtag) {
            return Err(NotALanguage);
        }
        let mut canonical = primary.to_ascii_lowercase();
        for subtag in subtags {
            canonical.push('-');
            canonical.push_str(&in_recommended_case(subtag));
        }
        Ok(Self(canonical))
    }
}

impl FromStr for Language {
    type Err = NotALanguage;

    fn from_str(tag: &str) -> Result<Self, NotALanguage> {
        Self::try_from(tag.to_owned())
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes a region in capitals, a script with one, and anything else without. RFC 5646, 2.1.1.
fn in_recommended_case(subtag: &str) -> String {
    let lower = subtag.to_ascii_lowercase();
    match lower.len() {
        2 => lower.to_ascii_uppercase(),
        4 if lower.starts_with(|first: char| first.is_ascii_alphabetic()) => {
            lower[..1].to_ascii_uppercase() + &lower[1..]
        }
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_kept_in_its_recommended_case() {
        for (written, kept) in [
            ("he-IL", "he-IL"),
            ("EN-us", "en-US"),
            ("he", "he"),
            ("ZH-hANT-tw", "zh-Hant-TW"),
            ("es-419", "es-419"),
        ] {
            let language = Language::try_from(written.to_owned()).unwrap();
            assert_eq!(language.as_str(), kept);
        }
    }

    #[test]
    fn what_is_no_tag_is_turned_away_at_the_door() {
        for text in [
            "",
            "h",
            "hebrew",
            "he_IL",
            "he-",
            "-IL",
            "he--IL",
            "עב-IL",
            "../etc",
            "he-IL/..",
            "he-aaaaaaaa-bbbbbbbb-cccccccc-dddddddd",
        ] {
            assert_eq!(
                Language::try_from(text.to_owned()),
                Err(NotALanguage),
                "{text}"
            );
        }
    }

    #[test]
    fn hebrew_is_the_default() {
        assert_eq!(Language::default().as_str(), "he-IL");
        assert_eq!(Language::default().primary(), "he");
    }
}
