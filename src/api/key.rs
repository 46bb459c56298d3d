//! Keys: how one is written, and what is known of one.

use std::{collections::BTreeSet, fmt, str::FromStr};

use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::{api::Scope, campaign::Name, operator::same};

const PREFIX: &str = "cg_";
const ID_LENGTH: usize = 8;
/// 22 of 62 letters are 130 bits.
const SECRET_LENGTH: usize = 22;
/// 6 of 62 letters hold 32 bits.
const CHECKSUM_LENGTH: usize = 6;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The public part of a key, by which people and logs call it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(String); // Invariant: 8 letters and digits.

/// Whose records a question is about. Only a good key has one to give, so that no question can
/// forget it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant(Name);

/// A key that a request has proven to have.
#[derive(Debug, Clone)]
pub struct ApiKey {
    id: KeyId,
    tenant: Tenant,
    scopes: BTreeSet<Scope>,
}

/// A key as a request carries it: well-formed, and nothing more is known.
pub struct Presented {
    pub id: KeyId,
    hash: String,
}

/// A key that has just been made.
pub struct NewKey {
    pub id: KeyId,
    /// All of it; nobody can make it again.
    pub text: SecretString,
    pub hash: String,
}

/// A key as the database has it.
#[derive(Clone)]
pub struct StoredKey {
    pub id: KeyId,
    pub hash: SecretString,
    pub tenant: Name,
    pub scopes: BTreeSet<Scope>,
}

/// Why a text is no [`KeyId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's id is the {ID_LENGTH} letters and digits after {PREFIX}")]
pub struct NotAKeyId;

impl NewKey {
    pub fn make() -> Self {
        let (id, secret) = (random_text(ID_LENGTH), random_text(SECRET_LENGTH));
        let checksum = checksum(&id, &secret);
        Self {
            text: format!("{PREFIX}{id}_{secret}{checksum}").into(),
            hash: hash(&secret),
            id: KeyId(id),
        }
    }
}

impl Presented {
    /// Reads a key; `None` if it is malformed or its checksum is wrong, which a typing mistake's
    /// is, and nobody needs to look it up.
    pub fn read(text: &str) -> Option<Self> {
        let (id, rest) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let id: KeyId = id.parse().ok()?;
        if rest.len() != SECRET_LENGTH + CHECKSUM_LENGTH || !is_plain(rest) {
            return None;
        }
        let (secret, sum) = rest.split_at(SECRET_LENGTH);
        (checksum(&id.0, secret) == sum).then(|| Self {
            hash: hash(secret),
            id,
        })
    }

    /// Tells whether it is this key, in the same time wherever the first difference is.
    pub fn is(&self, stored: &StoredKey) -> bool {
        self.id == stored.id && same(&self.hash, &stored.hash)
    }
}

impl ApiKey {
    pub(super) fn proven(stored: &StoredKey) -> Self {
        Self {
            id: stored.id.clone(),
            tenant: Tenant(stored.tenant.clone()),
            scopes: stored.scopes.clone(),
        }
    }

    pub fn id(&self) -> &KeyId {
        &self.id
    }

    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

impl Tenant {
    pub fn name(&self) -> &Name {
        &self.0
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl KeyId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        if text.len() == ID_LENGTH && is_plain(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAKeyId)
        }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn random_text(length: usize) -> String {
    let letter = || char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    std::iter::repeat_with(letter).take(length).collect()
}

/// Returns what a typing mistake does not match, written in the same letters.
fn checksum(id: &str, secret: &str) -> String {
    let digest = Sha256::digest(format!("{PREFIX}{id}_{secret}"));
    let mut sum = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let mut text = String::new();
    for _ in 0..CHECKSUM_LENGTH {
        text.push(char::from(LETTERS[(sum % 62) as usize]));
        sum /= 62;
    }
    text
}

fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret))
}

/// Returns bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // A string takes everything.
        text
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn stored(key: &NewKey) -> StoredKey {
        StoredKey {
            id: key.id.clone(),
            hash: key.hash.clone().into(),
            tenant: Name::default_name(),
            scopes: BTreeSet::new(),
        }
    }

    #[test]
    fn a_key_is_known_by_its_id_and_proven_by_its_secret() {
        let (key, other) = (NewKey::make(), NewKey::make());
        let text = key.text.expose_secret();
        assert_eq!(text.len(), 3 + 8 + 1 + 22 + 6, "{text}");
        let presented = Presented::read(text).unwrap();
        assert_eq!(presented.id, key.id);
        assert!(presented.is(&stored(&key)) && !presented.is(&stored(&other)));
        let secret_of_another = StoredKey {
            hash: other.hash.clone().into(),
            ..stored(&key)
        };
        assert!(!presented.is(&secret_of_another));
        assert!(!key.hash.contains(&text[12..]), "the secret is not kept");
    }

    #[test]
    fn what_was_mistyped_is_no_key() {
        let key = NewKey::make();
        let text = key.text.expose_secret().to_owned();
        assert!(Presented::read(&text).is_some());
        for place in 3..text.len() {
            let mut wrong = text.clone();
            let letter = if &text[place..=place] == "a" {
                "b"
            } else {
                "a"
            };
            wrong.replace_range(place..=place, letter);
            assert!(Presented::read(&wrong).is_none(), "{place}");
        }
        for bad in [
            "",
            "cg_",
            "cg__",
            &text[1..],
            &text[..39],
            &format!("{text}0"),
            "cg_ש_x",
        ] {
            assert!(Presented::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn every_letter_comes_up() {
        let all: BTreeSet<char> = random_text(10_000).chars().collect();
        assert_eq!(all.len(), LETTERS.len());
    }
}
