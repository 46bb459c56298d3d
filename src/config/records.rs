//! Where records are kept, what of a number is kept in them, and for how long.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::{
    config::reader::{Environment, Reader},
    seal::Seal,
};

/// Where records go while nothing else is set: a file beside the process.
const DEFAULT_DATABASE: &str = "sqlite://callgate.db";

/// Where records are kept, and what of them.
#[derive(Debug)]
pub struct RecordSettings {
    /// `DATABASE_URL`: `sqlite://` and a path, or `postgres://`. Default `sqlite://callgate.db`.
    pub url: SecretString,
    /// `RECORD_NUMBERS`: `whole`, `hashed` or `masked`. Default `whole`.
    pub numbers: KeptNumbers,
    /// `RECORD_SECRET`: what numbers are hashed with; the same on all replicas. Default where they are
    /// only counted by it: one made of `TICKET_SECRET`.
    pub secret: Option<SecretString>,
    /// `RECORD_DAYS`: how long records are kept. Default 90.
    pub kept: Duration,
    /// `TRANSCRIPTS`: whether what is said is recorded. Default on.
    pub transcripts: bool,
}

/// What is kept of a phone number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptNumbers {
    /// All of it.
    Whole,
    /// A code by which the same number is found again, and what a masked one shows.
    Hashed,
    /// What a masked one shows.
    Masked,
}

impl RecordSettings {
    pub(super) fn load(read: &Reader<impl Environment>, production: bool, shares: bool) -> Self {
        let url = read.secret("DATABASE_URL");
        let url = url.unwrap_or_else(|| SecretString::from(DEFAULT_DATABASE));
        let settings = Self {
            numbers: read
                .parsed("RECORD_NUMBERS", "whole, hashed or masked")
                .unwrap_or(KeptNumbers::Whole),
            secret: super::long_secret(read, "RECORD_SECRET"),
            kept: Duration::from_secs(read.number("RECORD_DAYS", 90, 1..=3_650) * 86_400),
            transcripts: read.text("TRANSCRIPTS").is_none() || read.switch("TRANSCRIPTS"),
            url,
        };
        settings.check(read, production, shares);
        settings
    }

    fn check(&self, read: &Reader<impl Environment>, production: bool, shares: bool) {
        let url = self.url.expose_secret();
        if !(self.is_sqlite() || is_postgres(url)) {
            let rule = "sqlite:// and a path, or postgres://user:password@host/database";
            read.mistake("DATABASE_URL", None, rule); // It may hold a password.
        }
        if self.is_sqlite() && shares {
            let why = "replicas that share REDIS_URL share their records through Postgres";
            if production {
                read.mistake("DATABASE_URL", None, &format!("not sqlite: {why}"));
            } else {
                read.warning(format!("DATABASE_URL is SQLite: {why}"));
            }
        }
        if self.numbers == KeptNumbers::Hashed && self.secret.is_none() {
            let rule = "not set (with RECORD_NUMBERS=hashed all replicas must share one)";
            read.mistake("RECORD_SECRET", None, rule);
        }
    }

    /// Learns from what replicas share by what numbers are counted, where nothing else says so.
    /// `calls_out` tells whether anybody's are.
    pub(super) fn learn(
        &mut self,
        ticket: Option<&SecretString>,
        calls_out: bool,
        read: &Reader<impl Environment>,
    ) {
        if self.secret.is_some() {
            return;
        }
        let made = ticket.map(|ticket| Seal::new(Some(ticket)).mark("records", ticket));
        self.secret = made.map(SecretString::from);
        if self.secret.is_some() {
            return;
        }
        if self.numbers == KeptNumbers::Masked {
            read.warning(
                "RECORD_NUMBERS is masked, and neither RECORD_SECRET nor TICKET_SECRET is set: who \
                 asks for a call again by the same key after a restart, or at another replica, is \
                 refused, and calls to one number are counted anew"
                    .to_owned(),
            );
        } else if calls_out {
            read.warning(
                "neither RECORD_SECRET nor TICKET_SECRET is set: whoever has a copy of the database \
                 finds out the numbers that were called and deleted within the last day"
                    .to_owned(),
            );
        }
    }

    pub fn is_sqlite(&self) -> bool {
        self.url.expose_secret().starts_with("sqlite:")
    }
}

fn is_postgres(url: &str) -> bool {
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
        && url.parse::<url::Url>().is_ok()
}

impl std::str::FromStr for KeptNumbers {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "whole" => Ok(Self::Whole),
            "hashed" => Ok(Self::Hashed),
            "masked" => Ok(Self::Masked),
            _ => Err(()),
        }
    }
}
