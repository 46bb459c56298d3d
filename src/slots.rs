//! `callgate slots`: what the shared store holds, for an operator at a terminal.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use crate::{
    admission::{AgentReport, RedisStore, Released, Scope, SlotRow, StoreError, scopes_with_caps},
    call::CarrierCallId,
    campaign::{Campaigns, Name},
    config::{CampaignFile, Config, ConfigError, FileError},
    telemetry::CapacityMetrics,
};

/// What to do with the slots in Redis; `REDIS_URL` and the other settings are the gateway's.
#[derive(Debug, Args)]
pub struct SlotsOptions {
    #[command(subcommand)]
    command: Option<SlotsCommand>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SlotsCommand {
    /// List every slot: call, campaign, owner, age, lease left (the default)
    List,
    /// Count the slots of each scope beside its cap
    Count,
    /// Take a call's slot back; a call that is still carried ends
    Release {
        /// The carrier's name for the call, such as CA…
        call: String,
    },
    /// Drop slots whose lease has lapsed, as every replica does each second
    Reap,
}

/// Why the slots cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Campaigns(#[from] FileError),
    #[error("REDIS_URL is not set: slots in memory are seen at /health/details only")]
    InMemory,
    #[error("the slots cannot be looked at (REDIS_URL): {0}")]
    Store(StoreError),
    #[error("{0:?} is not a call's id: it has 1 to 64 letters, digits and hyphens")]
    NotACall(String),
    #[error("no slot is held for {0}")]
    NotHeld(CarrierCallId),
}

impl From<StoreError> for SlotsError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Does what was asked; returns what to print.
///
/// # Errors
/// If the settings are wrong, the store does not answer, or there is no such slot.
pub async fn run(
    options: SlotsOptions,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<String, SlotsError> {
    let config = Config::load(environment)?;
    let redis = config.store.redis.as_ref().ok_or(SlotsError::InMemory)?;
    let metrics = CapacityMetrics::new();
    let store = RedisStore::new(redis, "an operator".to_owned(), config.caps.lease, metrics)?;
    store.connect().await?;
    let campaigns = campaigns(&config)?;
    let caps = scopes_with_caps(&campaigns, &config.caps);
    let (text, json) = match options.command.unwrap_or(SlotsCommand::List) {
        SlotsCommand::List => list(&store.slots().await?),
        SlotsCommand::Count => count(&store, &caps, &campaigns).await?,
        SlotsCommand::Release { call } => release(&store, &call).await?,
        SlotsCommand::Reap => {
            let scopes: Vec<Scope> = caps.into_iter().map(|(scope, _)| scope).collect();
            let (reaped, held) = store.reap(&scopes).await?;
            let text = format!("{reaped} lapsed slots dropped, {held} held");
            (text, json!({"reaped": reaped, "held": held}))
        }
    };
    Ok(if options.json { json.to_string() } else { text })
}

fn campaigns(config: &Config) -> Result<Campaigns, SlotsError> {
    match &config.campaigns {
        Some(file) => Ok(CampaignFile::load(file, &config.inherited())?.campaigns),
        None => Ok(Campaigns::only(
            config.language.clone(),
            config.caps.campaign,
            config.twilio.numbers.clone(),
        )
        .with_budgets([(Name::default_name(), config.agent.budget)])),
    }
}

fn list(rows: &[SlotRow]) -> (String, Value) {
    let mut table = table(&[
        "call",
        "campaign",
        "state",
        "caller",
        "owner",
        "age",
        "lease left",
    ]);
    for row in rows {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.add_row([
            row.call.clone(),
            or_dash(&row.campaign),
            or_dash(&row.state),
            or_dash(&row.caller),
            or_dash(&row.owner),
            row.age_ms.map_or_else(|| "-".to_owned(), age),
            lease(row.lease_left_ms),
        ]);
    }
    align_right(&mut table, &[5, 6]);
    (
        format!("{table}\n{} slots", rows.len()),
        json!({"slots": rows}),
    )
}

async fn count(
    store: &RedisStore,
    caps: &[(Scope, u32)],
    campaigns: &Campaigns,
) -> Result<(String, Value), SlotsError> {
    let scopes: Vec<Scope> = caps.iter().map(|(scope, _)| scope.clone()).collect();
    let used = store.counts(&scopes).await?;
    let used = caps.iter().zip(used);
    let mut counted: Vec<(String, u32, u32)> = used
        .map(|((scope, cap), used)| (scope.to_string(), used, *cap))
        .collect();
    let agents = campaigns.budgets().map(|(agent, _)| agent.clone());
    let questions: Vec<AgentReport> = agents.map(AgentReport::question).collect();
    let asked = store.report(&questions).await?;
    for ((agent, budget), asked) in campaigns.budgets().zip(asked) {
        let minute = asked.within_a_minute(budget).into_iter();
        counted
            .extend(minute.map(|(what, used, cap)| (format!("agent:{agent} {what}"), used, cap)));
    }
    let mut table = table(&["scope", "used", "cap", "free"]);
    let mut rows = Vec::new();
    for (scope, used, cap) in counted {
        let free = cap.saturating_sub(used);
        let numbers = [used, cap, free].map(|number| number.to_string());
        table.add_row([scope.clone()].into_iter().chain(numbers));
        rows.push(json!({"scope": scope, "used": used, "cap": cap}));
    }
    align_right(&mut table, &[1, 2, 3]);
    Ok((table.to_string(), json!({"scopes": rows})))
}

async fn release(store: &RedisStore, call: &str) -> Result<(String, Value), SlotsError> {
    let named = CarrierCallId::try_from(call.to_owned());
    let named = named.map_err(|_| SlotsError::NotACall(call.chars().take(80).collect()))?;
    match store.take_back(&named).await? {
        Released::Freed { active, .. } => Ok((
            format!("{named} has given its slot back; {active} held"),
            json!({"released": named, "held": active}),
        )),
        Released::Gone { .. } | Released::Stale => Err(SlotsError::NotHeld(named)),
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn age(milliseconds: u64) -> String {
    let seconds = Duration::from_millis(milliseconds).as_secs();
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

fn lease(milliseconds: i64) -> String {
    if milliseconds <= 0 {
        "lapsed".to_owned()
    } else {
        format!("{} s", milliseconds / 1_000)
    }
}
