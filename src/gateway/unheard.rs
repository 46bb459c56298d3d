//! Calls of whose end nobody has told us: those that came in, after which their carrier is asked, and
//! those whose replica is gone.
//!
//! Invariant: no call is asked after that a media socket carries, at whichever replica.
//! Invariant: carriers are asked of so many calls a minute, by one replica for all of them; of ACS's
//! calls by those that know their connections.

use std::time::Duration;

use actix_web::web;
use futures_util::{StreamExt, stream};
use rand::seq::SliceRandom;
use sqlx::Row;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Fate, Phase},
    call::{Carrier, CarrierCallId, EndReason},
    carrier::twilio::CallError,
    gateway::{
        Gateway,
        acs::{ACT_WITHIN, soon},
    },
    outbound::Progress,
    record::{DatabaseError, Direction, OVER, Sql, State, What, take_duty, unix_millis_i64},
};

const DUTY: &str = "unheard";
/// How often somebody looks.
const EVERY: Duration = Duration::from_secs(60);
const EVERY_MS: i64 = 60_000;
/// How long a call may have rung until it is asked after: its media has come by then, or will not.
const OLD_ENOUGH_MS: i64 = 120_000;
/// How many rows are read at once.
const PAGE: i64 = 500;
/// Of how many calls carriers are asked in one turn, and of how many at once.
const MOST_ASKED: usize = 120;
const ASKED_AT_ONCE: usize = 4;

/// Looks now and then for calls that are over, until `stop`.
pub async fn ask_after_calls(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let asked = stop.run_until_cancelled(ask_after_some(&gateway, unix_millis_i64()));
        match asked.await {
            Some(Ok(0)) | None => {}
            Some(Ok(closed)) => {
                tracing::warn!(closed, "calls were over that nobody had told us of");
            }
            Some(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "nobody could ask after calls");
            }
        }
    }
}

/// Closes the calls of replicas that are gone, until `stop`. Where nobody can tell whether somebody
/// carries a call, it waits.
pub async fn close_lost_calls(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let lookout = gateway.records.lookout(gateway.admission.replica());
    let lease = gateway.admission.lease();
    let is_carried = |call: CarrierCallId| {
        let gateway = gateway.clone();
        async move { is_carried(&gateway, &call).await != Some(false) }
    };
    lookout.run(lease, is_carried, stop).await;
}

/// Asks after calls that look forgotten at `now`; returns how many were over, and are closed.
///
/// # Errors
/// If the database does not answer.
pub async fn ask_after_some(
    gateway: &web::Data<Gateway>,
    now: i64,
) -> Result<usize, DatabaseError> {
    let has_duty = take_duty(&gateway.records.database, DUTY, EVERY_MS, now).await?;
    let mut silent = silent_calls(gateway, now - OLD_ENOUGH_MS).await?;
    silent.retain(|call| match call.carrier() {
        Carrier::Twilio | Carrier::Web => has_duty,
        Carrier::Acs => true,
    });
    // Where there are more than can be asked after, each has its chance.
    silent.shuffle(&mut rand::rng());
    silent.truncate(MOST_ASKED);
    let asking = silent.into_iter().map(|call| async move {
        // Whoever has it may have noted its end meanwhile.
        let is_over = is_over(gateway, &call).await && is_open(gateway, &call).await;
        if is_over {
            gateway.close_unheard(&call).await;
        }
        is_over
    });
    let asking = stream::iter(asking).buffer_unordered(ASKED_AT_ONCE);
    Ok(asking
        .filter(|is_over| std::future::ready(*is_over))
        .count()
        .await)
}

/// Returns the calls that came in before a time, are not over in their record, and that no media
/// socket carries.
async fn silent_calls(gateway: &Gateway, before: i64) -> Result<Vec<CarrierCallId>, DatabaseError> {
    let mut silent = Vec::new();
    let mut after = String::new();
    loop {
        // Open ones are few, and have an index of their own.
        let mut sql = Sql::new("SELECT carrier_call FROM calls WHERE rank < 90 AND rank >= ");
        sql.bind(State::Admitted.rank()).push(" AND rank < ");
        sql.bind(OVER).push(" AND direction = ");
        sql.bind(Direction::Inbound.as_str())
            .push(" AND rang_at < ");
        sql.bind(before).push(" AND carrier_call > ").bind(after);
        sql.push(" ORDER BY carrier_call LIMIT ").bind(PAGE);
        let read = gateway.records.database.read(|pool| async move {
            let rows = sql.read(&pool).await?;
            let names = rows.iter().map(|row| row.try_get::<String, _>(0));
            names.collect::<Result<Vec<_>, _>>()
        });
        let names = read.await?;
        let Some(last) = names.last().cloned() else {
            return Ok(silent);
        };
        after = last;
        let calls = names.into_iter().map(CarrierCallId::try_from);
        for call in calls.filter_map(Result::ok) {
            if is_carried(gateway, &call).await == Some(false) {
                silent.push(call);
            }
        }
    }
}

/// Tells whether a call is not over in its record.
async fn is_open(gateway: &Gateway, call: &CarrierCallId) -> bool {
    let mut sql = Sql::new("SELECT 1 FROM calls WHERE carrier_call = ");
    sql.bind(call.as_str().to_owned())
        .push(" AND rank < ")
        .bind(OVER);
    let read = gateway.records.database.read(|pool| async move {
        let rows = sql.read(&pool).await?;
        Ok(!rows.is_empty())
    });
    read.await.unwrap_or(false)
}

/// Tells whether a media socket carries a call; `None` where nobody can tell.
async fn is_carried(gateway: &Gateway, call: &CarrierCallId) -> Option<bool> {
    if gateway.connections.has(call) {
        return Some(true);
    }
    let phase = gateway.admission.phase(call).await;
    // What is kept of a call says that it is live also when its replica, and with it its slot, is gone.
    let is_carried = match phase {
        Some(Phase::Live) => gateway.admission.fate(call, false).await == Fate::Open,
        Some(Phase::Ringing | Phase::Ended) | None => false,
    };
    if gateway.admission.trouble().is_some() {
        return None;
    }
    Some(is_carried)
}

/// Tells whether a call's carrier says that it is over, or knows of none.
async fn is_over(gateway: &Gateway, call: &CarrierCallId) -> bool {
    match call.carrier() {
        Carrier::Twilio => {
            let Some(twilio) = gateway.outbound.twilio() else {
                return false; // There is nobody to ask.
            };
            match twilio.fetch(call).await {
                Ok(found) => match Progress::read(&found.status) {
                    Progress::Waiting | Progress::Rings | Progress::Answered => false,
                    Progress::Unanswered(_) | Progress::Completed => true,
                },
                Err(CallError::Refused { status: 404, .. }) => true,
                Err(error) => {
                    tracing::debug!(%error, "cannot ask after a call");
                    false
                }
            }
        }
        Carrier::Acs => {
            let acs = gateway.acs.as_ref();
            let known = acs.and_then(|acs| Some((acs, acs.connection(call)?)));
            let Some((acs, connection)) = known else {
                return false; // Another replica knows its connection, if anybody does.
            };
            match acs.client.is_over(&connection, soon(ACT_WITHIN)).await {
                Ok(is_over) => is_over,
                Err(error) => {
                    tracing::debug!(%error, "cannot ask after a call");
                    false
                }
            }
        }
        // Its socket is the call.
        Carrier::Web => true,
    }
}

impl Gateway {
    /// Takes it that a call is over, also where only its record was still to hear of it.
    async fn close_unheard(&self, call: &CarrierCallId) {
        if !self.carrier_ended(call, false).await {
            let reason = EndReason::CarrierEnded;
            self.timeline.step(call, What::Ended(reason));
        }
    }
}
