//! What must not be seen, and looking for it.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngExt;
use rand::rngs::StdRng;

/// Texts that nothing else in the world holds.
#[derive(Debug, Clone, Default)]
pub struct Marks(Vec<Mark>);

#[derive(Debug, Clone)]
struct Mark {
    kind: Kind,
    /// What it is: a setting's name, a number's part in a call, or whose words.
    what: String,
    text: String,
}

/// What a mark is, which decides who may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Secret,
    Number,
    Words,
    /// Where a message is that a caller has left.
    Recording,
}

/// Where something was found that does not belong there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    pub kind: Kind,
    pub what: String,
    pub place: String,
}

impl Marks {
    /// Makes a secret.
    pub fn secret(&mut self, what: &str, random: &mut StdRng) -> String {
        self.word(Kind::Secret, what, random)
    }

    /// Makes something that is said.
    pub fn words(&mut self, what: &str, random: &mut StdRng) -> String {
        self.word(Kind::Words, what, random)
    }

    /// Makes the name of a recording.
    pub fn recording(&mut self, random: &mut StdRng) -> String {
        self.word(Kind::Recording, "where a message is", random)
    }

    /// Makes a secret that has to be base64.
    pub fn base64(&mut self, what: &str, random: &mut StdRng) -> String {
        let text = STANDARD.encode(random.random::<[u8; 32]>());
        self.add(Kind::Secret, what, &text);
        text
    }

    /// Takes in a number, whose digits count however it is written.
    pub fn number(&mut self, what: &str, number: &str) {
        self.add(Kind::Number, what, number.trim_start_matches('+'));
    }

    fn word(&mut self, kind: Kind, what: &str, random: &mut StdRng) -> String {
        let text = format!("canary{:016x}", random.random::<u64>());
        self.add(kind, what, &text);
        text
    }

    pub fn add(&mut self, kind: Kind, what: &str, text: &str) {
        self.0.push(Mark {
            kind,
            what: what.to_owned(),
            text: text.to_owned(),
        });
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns all of them, one a line, as a leak would hold them.
    pub fn spilt(&self) -> String {
        let texts: Vec<&str> = self.0.iter().map(|mark| mark.text.as_str()).collect();
        texts.join("\n")
    }

    /// Looks through a text.
    pub fn find(&self, place: &str, text: &str) -> Vec<Hit> {
        let found = self.0.iter().filter(|mark| text.contains(&mark.text));
        let hits = found.map(|mark| Hit {
            kind: mark.kind,
            what: mark.what.clone(),
            place: place.to_owned(),
        });
        hits.collect()
    }

    /// Looks through every file below a directory.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn find_below(&self, directory: &Path) -> std::io::Result<Vec<Hit>> {
        let mut hits = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                hits.extend(self.find_below(&path)?);
            } else if path.is_file() {
                let text = fs::read(&path)?;
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                hits.extend(self.find(&name, &String::from_utf8_lossy(&text)));
            }
        }
        Ok(hits)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_number_is_found_however_it_is_written_and_a_masked_one_is_none() {
        let mut marks = Marks::default();
        marks.number("caller", "+15551234567");
        for (text, hits) in [
            ("From=%2B15551234567", 1),
            (r#"{"caller":"+15551234567"}"#, 1),
            ("tel:15551234567", 1),
            ("+1******4567", 0),
        ] {
            assert_eq!(marks.find("log", text).len(), hits, "{text}");
        }
    }

    #[test]
    fn every_mark_is_found_where_all_were_spilt() {
        let (mut marks, mut random) = (Marks::default(), StdRng::seed_from_u64(7));
        marks.secret("a secret", &mut random);
        marks.base64("a key", &mut random);
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(marks.find_below(directory.path()).unwrap(), []);
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        fs::write(below.join("log"), marks.spilt()).unwrap();
        assert_eq!(
            marks.find_below(directory.path()).unwrap().len(),
            marks.count()
        );
    }
}
