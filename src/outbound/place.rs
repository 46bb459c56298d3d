//! A program asks for a call: checked, and noted once.

use std::{sync::Arc, time::Duration};

use actix_web::web;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    api::Change,
    call::{CallId, CarrierCallId},
    campaign::{Campaign, Name},
    gateway::Gateway,
    outbound::{
        Placed, Refused, Request,
        choice::{caller_id, campaign_of, carrier_of},
        request::invalid,
        room::{AWAY_FOR, begin},
        rows::{self, HOUR_MS, Lately, Limits, MINUTE_MS, NewRow, Noted, Row, Stage},
    },
    record::{DatabaseError, Numbers, unix_millis_i64 as now},
    wire::in_order,
};

/// How long whoever asks by the same key at the same time waits for the first one's answer.
const TWINS_WAIT: Duration = Duration::from_secs(5);
/// How soon it looks for it again, at first and later: a hundred who look often would keep the first
/// one from the database.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_millis(800);
/// How soon to ask again for a number that is engaged: for how long it will be depends on people, and
/// how long it may ring is between another tenant and whom it calls.
const ENGAGED_FOR: Duration = Duration::from_secs(30);
/// The shortest time that somebody is told to come again in.
const A_WHILE: Duration = Duration::from_secs(1);
/// The longest idempotency key, in characters.
const LONGEST_KEY: usize = 255;
/// How many last digits tell numbers of one block apart. Who earns by calls to a range of numbers
/// rents ten thousand at a time, as a rule.
const BLOCK_DIGITS: usize = 4;

/// Who asks for a call.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    pub tenant: &'a Name,
    /// The API key's id.
    pub api_key: &'a str,
    /// What is noted of it once there is room for the call.
    pub change: &'a Change,
}

/// Places a call once for each idempotency key: whoever asks again, on any replica, gets the first
/// answer. The call is placed beside that.
///
/// # Errors
/// If the request is wrong, or there is no room for its call.
pub async fn place(
    gateway: &web::Data<Gateway>,
    asker: Asker<'_>,
    key: &str,
    body: &Value,
) -> Result<Placed, Refused> {
    let plain = |letter: char| letter.is_ascii_graphic();
    if !((1..=LONGEST_KEY).contains(&key.len()) && key.chars().all(plain)) {
        let rule = "1 to 255 visible ASCII characters, another for each call";
        return Err(invalid("Idempotency-Key", rule));
    }
    let numbers = &gateway.records.numbers;
    let body_hash = hash(numbers, body);
    // Whoever asks again is told the same, whatever else has changed meanwhile.
    let known = known(gateway, asker, key).await?;
    let is_begun = known.is_some();
    match known {
        Some(known) if known.body_hash != body_hash => return Err(Refused::OtherBody),
        Some(known) if known.stage != Stage::Reserving => return Ok(again(gateway, &known, body)),
        Some(_) | None => {}
    }
    let request = Request::read(body)?;
    let settings = &gateway.outbound.settings;
    let to = settings.countries.read(&request.to);
    let to = to.map_err(|error| invalid("to", &error.to_string()))?;
    let campaign = campaign_of(gateway, asker.tenant, &request)?;
    let from = caller_id(gateway, &request, &campaign)?;
    let carrier = carrier_of(gateway, &campaign, &request)?;
    if gateway.is_draining() || gateway.desk.stops_intake() {
        return Err(Refused::Unavailable { again_in: AWAY_FOR });
    }
    let pending = CarrierCallId::pending(carrier.into());
    let row = Row {
        call: CallId::of(&pending),
        tenant: asker.tenant.to_string(),
        body_hash,
        pending,
        carrier_call: None,
        campaign: campaign.id.to_string(),
        agent: None,
        to: to.reveal().to_owned(),
        from: from.reveal().to_owned(),
        terms: request.terms,
        stage: Stage::Reserving,
        created_at: now(),
        dialed_at: None,
        rings_until: None,
        called_off_at: None,
        read_at: now(),
    };
    let new = NewRow {
        row,
        key: key.to_owned(),
        api_key: asker.api_key.to_owned(),
        holder: gateway.admission.replica().to_owned(),
        to_code: numbers.code(to.reveal()),
        prefix_code: numbers.code(prefix(to.reveal())),
    };
    note(gateway, asker, new, &campaign, is_begun).await
}

/// Returns the call that was asked for by the same key.
async fn known(gateway: &Gateway, asker: Asker<'_>, key: &str) -> Result<Option<Row>, Refused> {
    let database = &gateway.records.database;
    let known = rows::by_key(database, asker.tenant.as_str(), key);
    known.await.map_err(|error| away(&error))
}

/// Returns what whoever asks again is told. A call's numbers are blank some time after it; the same
/// body has named them again.
fn again(gateway: &Gateway, row: &Row, body: &Value) -> Placed {
    let told = placed(row);
    if !row.to.is_empty() {
        return told;
    }
    let Ok(request) = Request::read(body) else {
        return told;
    };
    let from = request.from.or_else(|| {
        let from = gateway.outbound.settings.from.as_ref();
        from.map(|from| from.reveal().to_owned())
    });
    Placed {
        to: request.to,
        from: from.unwrap_or_default(),
        ..told
    }
}

/// Returns what numbers of one block have in common.
fn prefix(number: &str) -> &str {
    &number[..number.len().saturating_sub(BLOCK_DIGITS)]
}

fn away(error: &DatabaseError) -> Refused {
    let error = error as &dyn std::error::Error;
    tracing::warn!(
        error,
        "the database does not say whether a call is placed already"
    );
    Refused::NotKnownYet { again_in: AWAY_FOR }
}

/// Notes a call, or finds the one that was placed by the same key: one that `is_begun` is not counted
/// again.
async fn note(
    gateway: &web::Data<Gateway>,
    asker: Asker<'_>,
    new: NewRow,
    campaign: &Arc<Campaign>,
    is_begun: bool,
) -> Result<Placed, Refused> {
    let settings = &gateway.outbound.settings;
    let caps = campaign.tenant_caps;
    let limits = Limits {
        per_destination: settings.per_destination,
        per_prefix: settings.per_prefix,
        per_key: settings.per_key,
        daily_calls: caps.daily_calls.unwrap_or(settings.daily_calls),
        daily_minutes: caps.daily_minutes.unwrap_or(settings.daily_minutes),
    };
    let records = &gateway.records;
    let asked_at = Instant::now();
    let row = new.row.clone();
    let mut pause = LOOK_AGAIN;
    // Whoever asks too often costs no write.
    let spent = rows::is_key_spent(&records.database, &new.api_key, limits);
    if let Some(all) = spent.await.map_err(|error| away(&error))?
        && !is_begun
    {
        return Err(too_many_of_key(limits, all));
    }
    loop {
        let noted = rows::note(&records.database, new.clone(), limits);
        let noted = noted.await.map_err(|error| away(&error))?;
        return match noted {
            Noted::New(row) => begin(gateway, asker, *row, campaign, asked_at).await,
            Noted::Known(known) if known.body_hash != row.body_hash => Err(Refused::OtherBody),
            // Whether there is room for it is just being asked.
            Noted::Known(known) if known.stage == Stage::Reserving => {
                if asked_at.elapsed() > TWINS_WAIT {
                    return Err(Refused::NotKnownYet { again_in: AWAY_FOR });
                }
                sleep(pause).await;
                pause = (pause * 2).min(LOOK_AT_LEAST_EVERY);
                continue;
            }
            // As in [`again`].
            Noted::Known(known) => Ok(Placed {
                to: row.to,
                from: row.from,
                ..placed(&known)
            }),
            Noted::Engaged => Err(Refused::TooMany {
                cap: "calls_to_one_number_at_a_time",
                value: 1,
                used: None,
                again_in: ENGAGED_FOR,
            }),
            Noted::TooOften(all) => Err(Refused::TooMany {
                cap: "calls_to_one_number_within_an_hour",
                value: limits.per_destination,
                used: None,
                again_in: left(HOUR_MS - all.first_ago),
            }),
            Noted::TooManyAlike(all) => {
                gateway.metrics.prefix_refused();
                if gateway.may_warn() {
                    tracing::warn!(
                        used = all.count,
                        cap = limits.per_prefix,
                        "numbers of one block are called as often as they may be within an hour \
                     (OUTBOUND_PER_PREFIX_HOUR): toll fraud looks like this"
                    );
                }
                Err(Refused::TooMany {
                    cap: "calls_to_one_prefix_within_an_hour",
                    value: limits.per_prefix,
                    used: None,
                    again_in: left(HOUR_MS - all.first_ago),
                })
            }
            Noted::TooManyOfKey(all) => Err(too_many_of_key(limits, all)),
            Noted::CallsSpent { used } => Err(day_spent(
                "calls_of_the_day",
                limits.daily_calls,
                used,
                row.created_at,
            )),
            Noted::MinutesSpent { used } => Err(day_spent(
                "minutes_of_the_day",
                limits.daily_minutes,
                used,
                row.created_at,
            )),
        };
    }
}

/// Returns what every asker by one key is told, whenever it asks.
pub fn placed(row: &Row) -> Placed {
    Placed {
        id: row.call.to_string(),
        state: Stage::Queued.as_str(),
        to: row.to.clone(),
        from: row.from.clone(),
        campaign: row.campaign.clone(),
        created_at: row.created_at,
    }
}

fn too_many_of_key(limits: Limits, all: Lately) -> Refused {
    Refused::TooMany {
        cap: "calls_of_one_key_within_a_minute",
        value: limits.per_key,
        used: Some(counted(all.count)),
        again_in: left(MINUTE_MS - all.first_ago),
    }
}

/// Returns so many milliseconds; a while at least.
fn left(milliseconds: i64) -> Duration {
    Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0)).max(A_WHILE)
}

fn day_spent(cap: &'static str, value: u32, used: i64, at: i64) -> Refused {
    Refused::Spent {
        cap,
        value,
        used: counted(used),
        again_in: rows::until_tomorrow(at),
    }
}

fn counted(calls: i64) -> u32 {
    u32::try_from(calls).unwrap_or(u32::MAX)
}

/// Returns what tells one body from another, in whatever order its names come. A code, for the body
/// names a number.
pub(super) fn hash(numbers: &Numbers, body: &Value) -> String {
    numbers.code(&in_order(body).to_string())
}
