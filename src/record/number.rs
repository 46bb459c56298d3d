//! What is kept of a phone number.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use crate::{
    call::CallerId,
    config::{KeptNumbers, RecordSettings},
};

/// Turns who rings into what is kept of them.
#[derive(Debug)]
pub struct Numbers {
    kept: KeptNumbers,
    secret: SecretString,
}

/// What is kept of one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptNumber {
    /// By which it is found again, if it can be.
    pub found_by: Option<String>,
    /// What people see.
    pub shown: String,
}

impl Numbers {
    pub fn new(settings: &RecordSettings) -> Self {
        Self {
            kept: settings.numbers,
            secret: settings
                .secret
                .clone()
                .unwrap_or_else(|| no_secret(settings.numbers)),
        }
    }

    pub fn keep(&self, who: &CallerId) -> KeptNumber {
        KeptNumber {
            found_by: who.whole().and_then(|whole| self.found_by(whole)),
            shown: who.to_string(),
        }
    }

    /// Returns by what a whole number is found, if records keep anything that it could be.
    pub fn found_by(&self, whole: &str) -> Option<String> {
        match self.kept {
            KeptNumbers::Whole => Some(whole.to_owned()),
            KeptNumbers::Hashed => Some(self.code(whole)),
            KeptNumbers::Masked => None,
        }
    }

    /// Returns every way in which a whole number may be kept: also as it was kept before the settings
    /// changed. There is none where the records keep nothing by which it could be found.
    pub fn all_found_by(&self, whole: &str) -> Vec<String> {
        match self.kept {
            KeptNumbers::Whole | KeptNumbers::Hashed => vec![whole.to_owned(), self.code(whole)],
            KeptNumbers::Masked => Vec::new(),
        }
    }

    /// Returns a text's code, as secret as `RECORD_SECRET` is: the same text has the same one, and
    /// nobody comes back from it who does not know the secret.
    pub fn code(&self, whole: &str) -> String {
        let key = self.secret.expose_secret().as_bytes();
        let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        let code = mac.chain_update(whole).finalize().into_bytes();
        format!("h:{}", hex(&code))
    }
}

/// Returns what codes are made with where there is no secret. Where numbers are not to be known, it
/// is one that goes with this process: numbers are too few for a code without one.
fn no_secret(kept: KeptNumbers) -> SecretString {
    match kept {
        // They stand beside their codes, but for those of deleted records, which docs/operations.md
        // tells of; the settings have a secret where they are hashed.
        KeptNumbers::Whole | KeptNumbers::Hashed => SecretString::default(),
        KeptNumbers::Masked => {
            let random: [u8; 32] = rand::random();
            SecretString::from(hex(&random))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // A string takes everything.
        text
    })
}
