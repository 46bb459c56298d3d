//! A program asks for a call: checked, noted, given a slot, and then placed beside the answer.

use std::{sync::Arc, time::Duration};

use actix_web::web;
use rand::RngExt;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::{
    admission::{Outgoing, Refusal, Reservation},
    api::Change,
    call::{CallId, CallerId, Carrier, CarrierCallId, EndReason, PhoneNumber},
    campaign::{Campaign, Name},
    carrier::{
        Fate,
        twilio::{CallError, NewCall, hint},
    },
    gateway::Gateway,
    outbound::{
        Marker, PURPOSE, Placed, Refused, Request, acs,
        choice::carrier_of,
        pace::{self, TooMany, Turn},
        progress::{fail, named, reconcile},
        request::invalid,
        rows::{self, Limits, Move, NewRow, Noted, Queued, Row, Stage},
    },
    record::{DatabaseError, Numbers, What, unix_millis},
    trace::Phase,
};

/// How long a call may ring on beyond its time, and the carrier may take to say so.
pub const GRACE: Duration = Duration::from_secs(30);
/// How soon to ask again where the store or the database is away.
const AWAY_FOR: Duration = Duration::from_secs(2);
/// How long whoever asks by the same key at the same time waits for the first one's answer.
const TWINS_WAIT: Duration = Duration::from_secs(5);
/// How soon it looks for it again, at first and later: a hundred who look often would keep the first
/// one from the database.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_millis(800);
/// The pause where the carrier wants none in particular.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest idempotency key, in characters.
const LONGEST_KEY: usize = 255;

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
    let outbound = &gateway.outbound;
    let request = Request::read(body)?;
    let settings = &outbound.settings;
    let to = settings.countries.read(&request.to);
    let to = to.map_err(|error| invalid("to", &error.to_string()))?;
    let campaign = campaign_of(gateway, asker.tenant, &request)?;
    let from = caller_id(gateway, &request, &campaign)?;
    let carrier = carrier_of(gateway, &campaign, &request)?;
    if gateway.is_draining() || gateway.desk.stops_intake() {
        return Err(Refused::Unavailable { again_in: AWAY_FOR });
    }
    let pending = CarrierCallId::pending(carrier.into());
    let numbers = &gateway.records.numbers;
    let row = Row {
        call: CallId::of(&pending),
        tenant: asker.tenant.to_string(),
        body_hash: hash(numbers, body),
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
    };
    let new = NewRow {
        row,
        key: key.to_owned(),
        api_key: asker.api_key.to_owned(),
        holder: gateway.admission.replica().to_owned(),
        to_code: numbers.code(to.reveal()),
    };
    note(gateway, asker, new, &campaign).await
}

/// Notes a call, or finds the one that was placed by the same key.
async fn note(
    gateway: &web::Data<Gateway>,
    asker: Asker<'_>,
    new: NewRow,
    campaign: &Arc<Campaign>,
) -> Result<Placed, Refused> {
    let settings = &gateway.outbound.settings;
    let caps = campaign.tenant_caps;
    let limits = Limits {
        per_destination: settings.per_destination,
        per_key: settings.per_key,
        daily_calls: caps.daily_calls.unwrap_or(settings.daily_calls),
        daily_minutes: caps.daily_minutes.unwrap_or(settings.daily_minutes),
    };
    let records = &gateway.records;
    let asked_at = Instant::now();
    let row = new.row.clone();
    let mut pause = LOOK_AGAIN;
    let away = |error| {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "a call cannot be noted, so it is not placed");
        Refused::Unavailable { again_in: AWAY_FOR }
    };
    // Whoever asks too often costs no write; what was placed by the same key is told it anyway.
    let spent = rows::is_key_spent(&records.database, &new.api_key, row.created_at, limits);
    if let Some(first_at) = spent.await.map_err(away)? {
        let known = rows::by_key(&records.database, &row.tenant, &new.key);
        if known.await.map_err(away)?.is_none() {
            return Err(too_many_of_key(limits, first_at));
        }
    }
    loop {
        let noted = rows::note(&records.database, new.clone(), limits);
        let noted = noted.await.map_err(away)?;
        return match noted {
            Noted::New => begin(gateway, asker, row, campaign, asked_at).await,
            Noted::Known(known) if known.body_hash != row.body_hash => Err(Refused::OtherBody),
            // Whether there is room for it is just being asked.
            Noted::Known(known) if known.stage == Stage::Reserving => {
                if asked_at.elapsed() > TWINS_WAIT {
                    return Err(Refused::Unavailable { again_in: AWAY_FOR });
                }
                sleep(pause).await;
                pause = (pause * 2).min(LOOK_AT_LEAST_EVERY);
                continue;
            }
            // Its numbers are blank some time after the call; the same body has named them again.
            Noted::Known(known) => Ok(Placed {
                to: row.to,
                from: row.from,
                ..placed(&known)
            }),
            Noted::Engaged => Err(Refused::TooMany {
                cap: "calls_to_one_number_at_a_time",
                value: 1,
                again_in: row.terms.ring_for(),
            }),
            Noted::TooOften { first_at } => Err(Refused::TooMany {
                cap: "calls_to_one_number_within_an_hour",
                value: limits.per_destination,
                again_in: left(first_at + 3_600_000),
            }),
            Noted::TooManyOfKey { first_at } => Err(too_many_of_key(limits, first_at)),
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

/// Takes a slot and a turn for a call that was just noted, and has it placed. One for which there
/// is no room leaves nothing behind but what its asker is told.
async fn begin(
    gateway: &web::Data<Gateway>,
    asker: Asker<'_>,
    mut row: Row,
    campaign: &Arc<Campaign>,
    asked_at: Instant,
) -> Result<Placed, Refused> {
    let reserving = reserve(gateway, &row, campaign);
    let reserved = reserving.instrument(gateway.span_of(&row.pending)).await;
    let begun = match reserved {
        Ok(agent) => queue(gateway, asker, &row, agent).await,
        Err(refused) => Err(refused),
    };
    let (turn, agent) = match begun {
        Ok(begun) => begun,
        Err(refused) => {
            forget(gateway, &row).await;
            return Err(refused);
        }
    };
    (row.agent, row.stage) = (Some(agent), Stage::Queued);
    let placed = placed(&row);
    let timeline = &gateway.timeline;
    timeline.took(&row.pending, Phase::Request, asked_at.elapsed());
    spawn_drive(gateway, row, Some(turn));
    Ok(placed)
}

async fn reserve(
    gateway: &web::Data<Gateway>,
    row: &Row,
    campaign: &Campaign,
) -> Result<Name, Refused> {
    let began = Instant::now();
    match take_slot(gateway, row, campaign).await {
        Reservation::Held { agent } => {
            let timeline = &gateway.timeline;
            timeline.took(&row.pending, Phase::Admission, began.elapsed());
            Ok(agent)
        }
        Reservation::Refused(refusal) => {
            gateway
                .metrics
                .refused(refusal.scope.kind(), refusal.reason.as_str());
            Err(Refused::Full(refusal))
        }
        Reservation::Elsewhere | Reservation::Ended | Reservation::Unavailable => {
            Err(Refused::Unavailable { again_in: AWAY_FOR })
        }
    }
}

/// Takes a turn for a call that has a slot, or gives the slot back.
async fn queue(
    gateway: &web::Data<Gateway>,
    asker: Asker<'_>,
    row: &Row,
    agent: Name,
) -> Result<(Turn, Name), Refused> {
    let (outbound, records) = (&gateway.outbound, &gateway.records);
    let change = asker.change.clone().about(&row.call.to_string());
    let (database, numbers) = (&records.database, &records.numbers);
    let queued = rows::queue(database, row, &agent, change, outbound.pace, numbers).await;
    let refused = match queued {
        Ok(Queued::At(turn)) => return Ok((turn, agent)),
        Ok(Queued::TooMany(too_many)) => Refused::TooMany {
            cap: "calls_per_second",
            value: outbound.settings.per_second,
            again_in: too_many.again_in,
        },
        Ok(Queued::Gone) | Err(_) => Refused::Unavailable { again_in: AWAY_FOR },
    };
    let reason = EndReason::NotPlaced;
    gateway.admission.unplaced(&row.pending, reason).await;
    Err(refused)
}

fn too_many_of_key(limits: Limits, first_at: i64) -> Refused {
    Refused::TooMany {
        cap: "calls_of_one_key_within_a_minute",
        value: limits.per_key,
        again_in: left(first_at + 60_000),
    }
}

/// Returns how long it is until `at`; a while at least.
fn left(at: i64) -> Duration {
    Duration::from_millis(u64::try_from(at - now()).unwrap_or(0)).max(PAUSE)
}

/// Takes a slot for as long as a call may wait for its turn and ring, if it is dialed as late as
/// may be.
pub async fn take_slot(
    gateway: &web::Data<Gateway>,
    row: &Row,
    campaign: &Campaign,
) -> Reservation {
    let to = CallerId::read(&row.to);
    let outgoing = Outgoing {
        call: row.call,
        pending: &row.pending,
        to: &to,
        campaign,
    };
    let ready = gateway.readiness(campaign);
    if let Some(reason) = ready.closed {
        let occupancy = gateway.admission.occupancy();
        return Reservation::Refused(Refusal {
            reason,
            scope: crate::admission::Scope::Global,
            used: occupancy.active,
            cap: occupancy.cap,
        });
    }
    let rings = row.terms.ring_for() + GRACE;
    let hold = gateway.outbound.settings.longest_wait + row.terms.ring_for() + rings;
    let campaigns = gateway.campaigns.current();
    let reserving = gateway
        .admission
        .reserve(&outgoing, &campaigns, &ready, hold);
    reserving.await
}

pub async fn forget(gateway: &web::Data<Gateway>, row: &Row) {
    if let Err(error) = rows::forget(&gateway.records.database, row).await {
        // Whoever looks after calls forgets it later.
        tracing::debug!(%error, "a call that is not placed is still noted");
    }
}

/// Has a call placed beside what goes on.
pub fn spawn_drive(gateway: &web::Data<Gateway>, row: Row, turn: Option<Turn>) {
    let span = gateway.span_of(&row.pending);
    let driving = drive(gateway.clone(), row, turn);
    gateway.calls().spawn(driving.instrument(span));
}

/// Asks the carrier for a call, again only for what it has certainly not done.
async fn drive(gateway: web::Data<Gateway>, row: Row, mut turn: Option<Turn>) {
    let outbound = &gateway.outbound;
    let window = outbound.settings.longest_wait + row.terms.ring_for();
    let until = Instant::now() + window;
    loop {
        let mine = match turn.take() {
            Some(mine) => mine,
            None => match take_turn(&gateway, &row, window, until).await {
                Some(Ok(mine)) => mine,
                Some(Err(_)) => return give_up(&gateway, &row, &[Stage::Queued]).await,
                None => return, // It stays queued: whoever looks after calls sees to it.
            },
        };
        mine.comes().await;
        if Instant::now() > until {
            return give_up(&gateway, &row, &[Stage::Queued]).await; // Its slot would lapse.
        }
        if !begin_dialing(&gateway, &row, until).await {
            return; // It was canceled, or cannot be noted: whoever looks after calls sees to it.
        }
        let asked = match row.pending.carrier() {
            Carrier::Twilio | Carrier::Web => ask_twilio(&gateway, &row).await,
            Carrier::Acs => acs::ask(&gateway, &row).await,
        };
        let fate = match asked {
            Ok(call) => {
                named(&gateway, &row, &call).await;
                if row.pending.carrier() == Carrier::Acs {
                    acs::watch_ringing(&gateway, &row, row.terms.ring_for());
                }
                return;
            }
            Err(fate) => fate,
        };
        let pause = match fate {
            Fate::Refused => return give_up(&gateway, &row, &[Stage::Dialing]).await,
            Fate::Unknown => {
                let step = Move::new(row.call, &[Stage::Dialing], Stage::Unknown);
                let _ = rows::advance(&gateway.records.database, step).await;
                gateway.timeline.step(&row.pending, What::Unsure);
                return reconcile(&gateway, row.call).await;
            }
            // More than the window is as good as the window, and can be reckoned with.
            Fate::NotDone { wait } => wait.unwrap_or(PAUSE).max(PAUSE).min(window),
        };
        let pause = pause.mul_f64(rand::rng().random_range(1.0..1.5));
        if Instant::now() + pause > until {
            return give_up(&gateway, &row, &[Stage::Dialing]).await;
        }
        // If this replica dies now, the next one knows that the carrier has nothing. Whether it was
        // where it was believed to be is seen before the carrier is asked again.
        let step = Move::new(row.call, &[Stage::Dialing], Stage::Queued);
        let database = &gateway.records.database;
        let queued = answered(until, || rows::advance(database, step.clone()));
        if queued.await.is_none() {
            return;
        }
        sleep(pause).await;
    }
}

/// Has a call be over that this replica has not had placed.
async fn give_up(gateway: &web::Data<Gateway>, row: &Row, at: &'static [Stage]) {
    fail(gateway, row, at, EndReason::NotPlaced).await;
}

/// Takes a turn, before a call is asked for again or by another replica. It was promised a call: it
/// waits for as long as it may. `None` where the database did not answer until then.
async fn take_turn(
    gateway: &Gateway,
    row: &Row,
    window: Duration,
    until: Instant,
) -> Option<Result<Turn, TooMany>> {
    let (carrier, pace) = (row.pending.carrier(), gateway.outbound.pace.waiting(window));
    let database = &gateway.records.database;
    answered(until, || pace::next(database, carrier, pace)).await
}

/// Asks the database until it answers, but not beyond `until`.
async fn answered<T, Asked>(until: Instant, ask: impl Fn() -> Asked) -> Option<T>
where
    Asked: Future<Output = Result<T, DatabaseError>>,
{
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(error) if Instant::now() + AWAY_FOR < until => {
                tracing::debug!(%error, "a call waits for the database");
                sleep(AWAY_FOR).await;
            }
            Err(error) => {
                tracing::warn!(%error, "a call has waited for the database in vain");
                return None;
            }
        }
    }
}

/// Commits that the carrier is about to be asked; tells whether it may be.
async fn begin_dialing(gateway: &web::Data<Gateway>, row: &Row, until: Instant) -> bool {
    let rings = i64::try_from((row.terms.ring_for() + GRACE).as_millis()).unwrap_or(i64::MAX);
    let step = Move {
        dialed_at: Some(now()),
        rings_until: Some(now() + rings),
        ..Move::new(row.call, &[Stage::Queued], Stage::Dialing)
    };
    let database = &gateway.records.database;
    // An answer that is lost may have been a yes; then the next one is a no, and the call is looked
    // for as one that the carrier may have.
    let advanced = answered(until, || rows::advance(database, step.clone()));
    let may = advanced.await == Some(true);
    if may {
        gateway.timeline.step(&row.pending, What::Dialing);
    }
    may
}

/// Asks Twilio for a call.
///
/// # Errors
/// If it is not placed, or nobody knows.
async fn ask_twilio(gateway: &Gateway, row: &Row) -> Result<CarrierCallId, Fate> {
    let Some(twilio) = &gateway.outbound.twilio else {
        return Err(Fate::Refused);
    };
    let asked = twilio.place(&new_call(gateway, row).form()).await;
    asked.map_err(|error| {
        log(&error);
        error.fate()
    })
}

/// What Twilio is asked with, by value.
struct Asking<'a> {
    row: &'a Row,
    answer_url: String,
    status_url: String,
    longest: Duration,
}

/// Returns what a call's URLs carry, so that whoever is told of it knows which one it is.
pub fn marker(gateway: &Gateway, row: &Row) -> String {
    let marker = Marker {
        pending: row.pending.as_str().to_owned(),
        campaign: row.campaign.clone(),
        agent: row
            .agent
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        when_machine: row.terms.when_machine,
    };
    gateway.seal.close(PURPOSE, &marker)
}

fn new_call<'a>(gateway: &Gateway, row: &'a Row) -> Asking<'a> {
    let marker = marker(gateway, row);
    Asking {
        row,
        answer_url: gateway.public.outbound_call(&marker).to_string(),
        status_url: gateway.public.outbound_status(&marker).to_string(),
        longest: gateway.longest_call,
    }
}

impl Asking<'_> {
    fn form(&self) -> NewCall<'_> {
        NewCall {
            to: &self.row.to,
            from: &self.row.from,
            answer_url: &self.answer_url,
            status_url: &self.status_url,
            ring_for: self.row.terms.ring_for(),
            longest: self.longest,
            detection: self.row.terms.twilio_detection(),
        }
    }
}

/// Returns what every asker by one key is told, whenever it asks.
fn placed(row: &Row) -> Placed {
    Placed {
        id: row.call.to_string(),
        state: Stage::Queued.as_str(),
        to: row.to.clone(),
        from: row.from.clone(),
        campaign: row.campaign.clone(),
        created_at: row.created_at,
    }
}

fn campaign_of(
    gateway: &Gateway,
    tenant: &Name,
    request: &Request,
) -> Result<Arc<Campaign>, Refused> {
    let campaigns = gateway.campaigns.current();
    let named = if let Some(name) = &request.campaign {
        campaigns.named(name)
    } else {
        let default = campaigns.default_campaign();
        let mut of_tenant = campaigns.all().filter(|it| it.tenant == *tenant);
        let first = of_tenant.next();
        let only = first.filter(|_| of_tenant.next().is_none());
        let own = (default.tenant == *tenant).then_some(default);
        own.or(only).cloned()
    };
    let own = named.filter(|campaign| campaign.tenant == *tenant);
    own.ok_or_else(|| invalid("campaign", "one of the tenant's campaigns"))
}

/// Returns who calls: what the request says, as long as it is the campaign's or the operator's.
fn caller_id(
    gateway: &Gateway,
    request: &Request,
    campaign: &Campaign,
) -> Result<PhoneNumber, Refused> {
    let settings = &gateway.outbound.settings;
    let Some(from) = &request.from else {
        let missing = || invalid("from", "not given, and there is no OUTBOUND_FROM");
        return settings.from.clone().ok_or_else(missing);
    };
    let from: PhoneNumber = from
        .parse()
        .map_err(|_| invalid("from", "a number in E.164, such as +972722234567"))?;
    let answering = gateway.campaigns.current();
    let answering = answering.answering(&CallerId::Number(from.clone()));
    if settings.from.as_ref() == Some(&from) || answering.is_some_and(|it| it.id == campaign.id) {
        Ok(from)
    } else {
        Err(invalid(
            "from",
            "one of the campaign's numbers, or OUTBOUND_FROM",
        ))
    }
}

fn day_spent(cap: &'static str, value: u32, used: i64, at: i64) -> Refused {
    Refused::Spent {
        cap,
        value,
        used: u32::try_from(used).unwrap_or(u32::MAX),
        again_in: rows::until_tomorrow(at),
    }
}

fn log(error: &CallError) {
    let (what, code) = (error.as_str(), error.code());
    let hint = code.map_or("", hint);
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, what, code, hint, "Twilio has not placed a call");
}

/// Returns what tells one body from another: `serde_json` keeps names in order. A code, for the body
/// names a number.
fn hash(numbers: &Numbers, body: &Value) -> String {
    numbers.code(&body.to_string())
}

pub fn now() -> i64 {
    i64::try_from(unix_millis()).unwrap_or(i64::MAX)
}
