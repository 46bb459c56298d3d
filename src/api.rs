//! `/v1`: what programs of a tenant's may ask and change, by a key of theirs.
//!
//! Invariant: nothing is read of a request before its key is known to be good; [`Asked`] is the
//! only way in, and hands out the [`Tenant`] that every question to the database needs.
//! Invariant: another tenant's call is answered as one that never was.
//! Invariant: whatever changes something leaves one row in `audit`.

pub mod calls;
pub mod document;
pub mod events;
pub mod records;
pub mod usage;

mod answering;
mod asked;
mod audit;
#[cfg(feature = "bench")]
pub mod bench;
mod command;
mod error;
mod failures;
mod fields;
mod json;
mod key;
mod keyring;
mod keys;
pub mod scope;
mod turns;

#[cfg(test)]
pub mod tests;

use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        keyring::Keyring,
        turns::{Changes, Turn, Turns},
    },
    record::Database,
};

pub use answering::{RequestId, answering, no_such_route, other_method};
pub use asked::{Asked, Input, Json, OfCall, OfEvent, Once, Query};
pub use audit::{Action, Change};
pub use command::{ApiCommandError, KeysOptions, RecordsOptions, keys, records as erase_records};
pub use error::{ApiError, Code, Reached};
pub use failures::Failures;
pub use fields::{Fields, FromFields};
pub use key::{ApiKey, KeyId, Tenant};
pub use scope::Scope;

/// What `/v1` needs beside the rest of the gateway.
#[derive(Debug)]
pub struct Api {
    keyring: Keyring,
    failures: Failures,
    database: Database,
    turns: Turns,
    changes: Changes,
}

impl Api {
    pub fn new(database: Database) -> Self {
        Self {
            keyring: Keyring::new(database.clone()),
            failures: Failures::new(),
            database,
            turns: Turns::default(),
            changes: Changes::new(),
        }
    }

    /// Returns the database for a question of a tenant's.
    ///
    /// # Errors
    /// If the tenant asks as many already as it may.
    pub fn asking(&self, tenant: &Tenant) -> Result<Database, ApiError> {
        let turn = self.turns.take(tenant)?;
        Ok(self.database.for_a_question(turn))
    }

    /// Takes a tenant's turn to change much at once: it asks less meanwhile.
    ///
    /// # Errors
    /// If the tenant asks as much already as it may.
    pub fn turn(&self, tenant: &Tenant) -> Result<Turn, ApiError> {
        self.turns.take(tenant)
    }

    /// Notes now and then which keys were used, until `stop` and once more.
    pub async fn note_uses(&self, stop: CancellationToken) {
        self.keyring.note_uses(stop).await;
    }
}
