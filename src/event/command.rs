//! `callgate events`: what tenants were not told, for an operator at a terminal.

use std::sync::Arc;

use clap::{Args, Subcommand};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    api::{Action, Change},
    campaign::Name,
    config::{CampaignFile, Config, ConfigError, FileError},
    event::{
        Endpoints,
        outbox::{Cursor, DeadLetter, Outbox, Place, Resent},
    },
    record::{Database, DatabaseError},
};

/// How many dead letters one list has at most.
const LONGEST_LIST: u32 = 200;

/// What to do with events; `DATABASE_URL` and the other settings are the gateway's.
#[derive(Debug, Args)]
pub struct EventsOptions {
    #[command(subcommand)]
    command: Option<EventsCommand>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum EventsCommand {
    /// List the deliveries that are dead, the latest first (the default)
    List {
        /// Only those of this tenant
        #[arg(long)]
        tenant: Option<Name>,
        /// How many, 200 at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Those after a list that ended with this
        #[arg(long)]
        after: Option<Cursor>,
    },
    /// Count what waits and what is dead, for each endpoint, also for those not in force
    Count,
    /// Send an event again at once, to the endpoints for which it is dead or waits
    Resend {
        /// The event, such as evt_…
        event: String,
        /// To this endpoint, even if it was delivered there
        #[arg(long)]
        endpoint: Option<Name>,
    },
    /// Send every event again at once that is dead for an endpoint or waits there
    ResendAll { tenant: Name, endpoint: Name },
}

/// Why nothing can be said of events.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the records cannot be looked at (DATABASE_URL)")]
    Database(#[from] DatabaseError),
    #[error(
        "no delivery of {0} is dead or waits for its next try; --endpoint sends it to an endpoint \
         that has it already"
    )]
    NotFound(String),
    #[error(
        "the endpoint {0} is not in force, so nothing would be sent: set it up again under this \
         name (CALLGATE_CONFIG, EVENTS_URL)"
    )]
    NotInForce(Name),
}

/// Does what was asked; returns what to print.
///
/// # Errors
/// If the settings are wrong, the database does not answer, or there is no such event or endpoint.
pub async fn run(
    options: EventsOptions,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<String, EventsError> {
    let config = Config::load(environment)?;
    let database = Database::open(&config.records)?;
    database.migrate().await?;
    let outbox = Outbox::new(database.clone());
    let done = act(&outbox, &config, options.command).await;
    database.close().await;
    let (text, json) = done?;
    Ok(if options.json { json.to_string() } else { text })
}

async fn act(
    outbox: &Outbox,
    config: &Config,
    command: Option<EventsCommand>,
) -> Result<(String, Value), EventsError> {
    let command = command.unwrap_or(EventsCommand::List {
        tenant: None,
        limit: 50,
        after: None,
    });
    match command {
        EventsCommand::List {
            tenant,
            limit,
            after,
        } => {
            let limit = limit.clamp(1, LONGEST_LIST);
            Ok(list(
                &outbox.list_dead(tenant.as_ref(), after, limit).await?,
            ))
        }
        EventsCommand::Count => count(outbox, &endpoints(config)?).await,
        EventsCommand::Resend { event, endpoint } => {
            let change = Change::by_operator(Action::ResendEvent, &event);
            let endpoints = Arc::new(endpoints(config)?);
            let again = outbox.resend(None, &event, endpoint.as_ref(), endpoints, change);
            match again.await? {
                Resent::To(sent) => Ok(resent(&format!("{event} is sent again"), sent)),
                Resent::Nothing => Err(EventsError::NotFound(event)),
                Resent::NotInForce(endpoint) => Err(EventsError::NotInForce(endpoint)),
            }
        }
        EventsCommand::ResendAll { tenant, endpoint } => {
            let target = format!("endpoint {endpoint}");
            let change = Change::by_operator(Action::ResendEvent, &target).of(&tenant);
            let place = Place { tenant, endpoint };
            if place.find(&endpoints(config)?).is_none() {
                return Err(EventsError::NotInForce(place.endpoint));
            }
            let sent = outbox.resend_all(&place, change).await?;
            Ok(resent("what was dead or waited is sent again", sent))
        }
    }
}

fn endpoints(config: &Config) -> Result<Endpoints, FileError> {
    match &config.campaigns {
        Some(file) => Ok(CampaignFile::load(file, &config.inherited())?.endpoints),
        None => Ok(config.events.endpoints()),
    }
}

fn list(letters: &[DeadLetter]) -> (String, Value) {
    let mut table = table(&[
        "event", "kind", "tenant", "endpoint", "tries", "died", "answer",
    ]);
    for letter in letters {
        let status = letter.last_status.map(|status| status.to_string());
        let answer = status.or_else(|| letter.last_error.clone());
        let died_at = Timestamp::from_millisecond(letter.died_at);
        table.add_row([
            letter.event.clone(),
            letter.kind.clone(),
            letter.tenant.clone(),
            letter.endpoint.clone(),
            letter.tries.to_string(),
            died_at.map_or_else(|_| "-".to_owned(), |at| format!("{at:.0}")),
            answer.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let next = letters.last().map(|last| last.cursor().to_string());
    let text = format!("{table}\n{} dead", letters.len());
    (text, json!({"dead": letters, "after": next}))
}

async fn count(outbox: &Outbox, endpoints: &Endpoints) -> Result<(String, Value), EventsError> {
    let mut table = table(&[
        "tenant", "endpoint", "waiting", "oldest", "dead", "in force",
    ]);
    let mut places = Vec::new();
    for one in outbox.standing(endpoints).await? {
        table.add_row([
            one.tenant.clone(),
            one.endpoint.clone(),
            one.waiting.to_string(),
            format!("{} s", one.oldest.as_secs()),
            one.dead.to_string(),
            if one.in_force { "yes" } else { "no" }.to_owned(),
        ]);
        places.push(one.shown());
    }
    Ok((table.to_string(), json!({"endpoints": places})))
}

fn resent(what: &str, sent: u64) -> (String, Value) {
    (
        format!("{what}: {sent} deliveries"),
        json!({"resent": sent}),
    )
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}
