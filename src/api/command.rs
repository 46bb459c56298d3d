//! `callgate keys` and `callgate records`, for an operator at a terminal.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::{
    admission::{RedisStore, StoreError},
    api::{
        Action, Change, KeyId, Scope,
        key::NewKey,
        keys::{self, ListedKey, Revoked},
        records::{Erased, erase},
    },
    call::{CarrierCallId, WholeId},
    campaign::Name,
    config::{Config, ConfigError},
    record::{Database, DatabaseError, Doomed, Numbers},
    telemetry::CapacityMetrics,
};

/// How long a command goes on to delete.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What to do with the keys of /v1; `DATABASE_URL` and the other settings are the gateway's.
#[derive(Debug, Args)]
pub struct KeysOptions {
    #[command(subcommand)]
    command: KeysCommand,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a key; it is printed once, and kept nowhere
    Create {
        /// Whose calls it is for
        #[arg(long)]
        tenant: Name,
        /// What it is for, in your own words
        #[arg(long)]
        name: String,
        /// What it may do, with commas: calls:read, calls:write, numbers:read,
        /// transcripts:read, usage:read, events:read, events:write, records:delete
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<Scope>,
    },
    /// List keys, the latest first
    List {
        /// Only those of this tenant
        #[arg(long)]
        tenant: Option<Name>,
    },
    /// Revoke a key; replicas refuse it within 10 s
    Revoke {
        /// The 8 letters and digits after cg_
        id: KeyId,
    },
}

/// What to do with records; `DATABASE_URL` and the other settings are the gateway's.
#[derive(Debug, Args)]
pub struct RecordsOptions {
    #[command(subcommand)]
    command: RecordsCommand,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum RecordsCommand {
    /// Delete calls that are over, with all that belongs to them
    Delete {
        /// Those from or to this number, all of it: +972501234567, or sip:dana@example.com
        #[arg(long, required_unless_present = "before", conflicts_with = "before")]
        number: Option<WholeId>,
        /// Those that rang before this time: 2026-03-01T00:00:00Z
        #[arg(long)]
        before: Option<Timestamp>,
        /// Only this tenant's
        #[arg(long)]
        tenant: Option<Name>,
    },
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ApiCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the database cannot be used (DATABASE_URL)")]
    Database(#[from] DatabaseError),
    #[error("a name has 1 to 64 plain characters (--name)")]
    BadName,
    #[error("{0} keys are good already: revoke some first")]
    TooManyKeys(i64),
    #[error("there is no key {0}")]
    NoSuchKey(KeyId),
    #[error("numbers are kept masked, so none can be found (RECORD_NUMBERS)")]
    Masked,
    #[error(
        "the calls are deleted, but the slot store has not heard so (REDIS_URL): one that has ended \
         within the last minute may come back as lost"
    )]
    Unheard(#[from] StoreError),
}

/// Does what was asked of keys; returns what to print.
///
/// # Errors
/// If the settings are wrong, the database does not answer, or there is no such key.
pub async fn keys(
    options: KeysOptions,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<String, ApiCommandError> {
    let config = Config::load(environment)?;
    let database = open(&config).await?;
    let done = act(&database, options.command).await;
    database.close().await;
    let (text, json) = done?;
    Ok(if options.json { json.to_string() } else { text })
}

/// Does what was asked of records; returns what to print.
///
/// # Errors
/// If the settings are wrong, or the database does not answer.
pub async fn records(
    options: RecordsOptions,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<String, ApiCommandError> {
    let config = Config::load(environment)?;
    let RecordsCommand::Delete {
        number,
        before,
        tenant,
    } = options.command;
    let numbers = Numbers::new(&config.records);
    let (doomed, target) = match (number, before) {
        (Some(number), _) => {
            let all = numbers.all_found_by(number.reveal());
            if all.is_empty() {
                return Err(ApiCommandError::Masked);
            }
            (
                Doomed::of_number(tenant.clone(), all),
                format!("number {number}"),
            )
        }
        (None, before) => {
            let before = before.unwrap_or_default();
            let doomed = Doomed::before(tenant.clone(), before.as_millisecond());
            (doomed, format!("before {before}"))
        }
    };
    let mut change = Change::by_operator(Action::DeleteRecords, &target);
    if let Some(tenant) = &tenant {
        change = change.of(tenant);
    }
    let database = open(&config).await?;
    let done = erase(&database, &doomed, change, PATIENCE).await;
    database.close().await;
    let Erased { deleted, names } = done;
    let told = tell_store(&config, &names).await;
    let deleted = deleted?; // It comes first: it says that something is left.
    told?;
    Ok(if options.json {
        json!(deleted).to_string()
    } else if deleted.is_complete {
        format!(
            "{} calls are deleted, with all that belonged to them",
            deleted.calls
        )
    } else if deleted.open > 0 {
        format!(
            "{} calls are deleted; {} are not over yet: run it again once they are",
            deleted.calls, deleted.open
        )
    } else {
        format!(
            "{} calls are deleted; there are more: run it again",
            deleted.calls
        )
    })
}

/// Tells the store that nobody is to write down calls which are deleted.
async fn tell_store(config: &Config, names: &[CarrierCallId]) -> Result<(), ApiCommandError> {
    if let Some(redis) = &config.store.redis
        && !names.is_empty()
    {
        let metrics = CapacityMetrics::new();
        let store = RedisStore::new(redis, "an operator".to_owned(), config.caps.lease, metrics)?;
        store.connect().await?;
        store.written(names).await?;
    }
    Ok(())
}

async fn open(config: &Config) -> Result<Database, DatabaseError> {
    let database = Database::open(&config.records)?;
    if let Err(error) = database.migrate().await {
        database.close().await;
        return Err(error);
    }
    Ok(database)
}

async fn act(
    database: &Database,
    command: KeysCommand,
) -> Result<(String, Value), ApiCommandError> {
    match command {
        KeysCommand::Create {
            tenant,
            name,
            scopes,
        } => create(database, &tenant, &name, scopes).await,
        KeysCommand::List { tenant } => Ok(list(&keys::list(database, tenant.as_ref()).await?)),
        KeysCommand::Revoke { id } => match keys::revoke(database, &id).await? {
            Revoked::Done => Ok((
                format!("{id} is revoked; replicas refuse it within 10 s"),
                json!({"revoked": id.as_str()}),
            )),
            Revoked::Already => Ok((
                format!("{id} had been revoked before"),
                json!({"revoked": id.as_str()}),
            )),
            Revoked::Unknown => Err(ApiCommandError::NoSuchKey(id)),
        },
    }
}

async fn create(
    database: &Database,
    tenant: &Name,
    name: &str,
    scopes: Vec<Scope>,
) -> Result<(String, Value), ApiCommandError> {
    let length = name.chars().count();
    if !(1..=64).contains(&length) || name.chars().any(char::is_control) {
        return Err(ApiCommandError::BadName);
    }
    let key = NewKey::make();
    let scopes = scopes.into_iter().collect();
    if !keys::create(database, &key, tenant, name, &scopes).await? {
        return Err(ApiCommandError::TooManyKeys(keys::MOST_KEYS));
    }
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let text = key.text.expose_secret();
    Ok((
        format!(
            "{text}\n\nThis is the key, shown this once. Its id is {}.",
            key.id
        ),
        json!({"key": text, "id": key.id.as_str(), "tenant": tenant.as_str(), "name": name, "scopes": scopes}),
    ))
}

fn list(found: &[ListedKey]) -> (String, Value) {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["id", "tenant", "name", "scopes", "made", "used", "revoked"]);
    let time = |at: Option<i64>| {
        let at = at.and_then(|at| Timestamp::from_millisecond(at).ok());
        at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"))
    };
    for key in found {
        table.add_row([
            key.key.clone(),
            key.tenant.clone(),
            key.name.clone(),
            key.scopes.join(" "),
            time(Some(key.created_at)),
            time(key.used_at),
            time(key.revoked_at),
        ]);
    }
    (
        format!("{table}\n{} keys", found.len()),
        json!({"keys": found}),
    )
}
