//! There is room for a call that is asked for: a slot, and a turn with its carrier.

use std::{slice, sync::Arc, time::Duration};

use actix_web::web;
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    admission::{Outgoing, Refusal, Reservation},
    call::{CallerId, EndReason},
    campaign::{Campaign, Name},
    gateway::Gateway,
    outbound::{
        Placed, Refused,
        dial::{GRACE, answered, spawn_drive},
        pace::Turn,
        place::{Asker, placed},
        rows::{self, Queued, Row, Stage},
    },
    record::DatabaseError,
    trace::Phase,
};

/// How soon to ask again where the store or the database is away.
pub const AWAY_FOR: Duration = Duration::from_secs(2);

/// Takes a slot and a turn for a call that was just noted, and has it placed. One for which there
/// is no room leaves nothing behind but what its asker is told.
pub async fn begin(
    gateway: &web::Data<Gateway>,
    asker: Asker<'_>,
    mut row: Row,
    campaign: &Arc<Campaign>,
    asked_at: Instant,
) -> Result<Placed, Refused> {
    let reserving = reserve(gateway, &row, campaign);
    let reserved = reserving.instrument(gateway.span_of(&row.pending)).await;
    let agent = match reserved {
        Ok(agent) => agent,
        Err(refused) => {
            forget(gateway, &row).await;
            return Err(refused);
        }
    };
    row.agent = Some(agent.clone());
    let turn = queue(gateway, asker, &row, &agent).await?;
    row.stage = Stage::Queued;
    let placed = placed(&row);
    let timeline = &gateway.timeline;
    timeline.took(&row.pending, Phase::Request, asked_at.elapsed());
    spawn_drive(gateway, row, turn);
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

/// Takes a turn for a call that has a slot, or gives the slot back. `None` if it is queued and nobody
/// knows what its turn was.
async fn queue(
    gateway: &web::Data<Gateway>,
    asker: Asker<'_>,
    row: &Row,
    agent: &Name,
) -> Result<Option<Turn>, Refused> {
    let (outbound, records) = (&gateway.outbound, &gateway.records);
    let change = asker.change.clone().about(&row.call.to_string());
    let (database, numbers) = (&records.database, &records.numbers);
    let queued = rows::queue(database, row, agent, change, outbound.pace, numbers).await;
    let refused = match queued {
        Ok(Queued::At(turn)) => return Ok(Some(turn)),
        Ok(Queued::TooMany(too_many)) => Refused::TooMany {
            cap: "calls_per_second",
            value: outbound.settings.per_second,
            // All of them have a turn before it.
            used: Some(outbound.settings.per_second),
            again_in: too_many.again_in,
        },
        Ok(Queued::Gone) => Refused::Unavailable { again_in: AWAY_FOR },
        Err(_) => return find_out(gateway, row).await.map(|()| None),
    };
    let reason = EndReason::NotPlaced;
    gateway.admission.unplaced(&row.pending, reason).await;
    forget(gateway, row).await;
    Err(refused)
}

/// Finds out whether a call was queued of which the database has not said so: it may have been done
/// all the same, and then nobody else would have it placed. While the database does not say, it is
/// asked beside whoever waits.
pub(super) async fn find_out(gateway: &web::Data<Gateway>, row: &Row) -> Result<(), Refused> {
    match was_queued(gateway, row).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Refused::Unavailable { again_in: AWAY_FOR }),
        Err(error) => {
            tracing::warn!(%error, "the database does not say whether a call is queued");
            let finding = find_out_later(gateway.clone(), row.clone());
            gateway.calls().spawn(finding.in_current_span());
            Err(Refused::NotKnownYet { again_in: AWAY_FOR })
        }
    }
}

/// Has a call placed once the database says that it was queued, for as long as it may wait.
async fn find_out_later(gateway: web::Data<Gateway>, row: Row) {
    let window = gateway.outbound.settings.longest_wait + row.terms.ring_for();
    let until = Instant::now() + window;
    if answered(until, || was_queued(&gateway, &row)).await == Some(true) {
        let stage = Stage::Queued;
        spawn_drive(&gateway, Row { stage, ..row }, None);
    }
}

/// Tells whether a call was queued; one that was not is forgotten and gives its slot back.
async fn was_queued(gateway: &web::Data<Gateway>, row: &Row) -> Result<bool, DatabaseError> {
    let database = &gateway.records.database;
    // Waits for a transaction that may be about to queue it, and leaves what is queued.
    let is_forgotten = rows::forget(database, row).await?;
    if !is_forgotten && rows::find(database, row.call).await?.is_some() {
        return Ok(true);
    }
    let admission = &gateway.admission;
    admission.unplaced(&row.pending, EndReason::NotPlaced).await;
    admission.written(slice::from_ref(&row.pending)).await;
    Ok(false)
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
        lasts_at_most: row.terms.left_of_day,
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

/// Forgets a call that is not placed: there is to be no record of it, and nobody need look for one.
pub async fn forget(gateway: &web::Data<Gateway>, row: &Row) {
    match rows::forget(&gateway.records.database, row).await {
        Ok(true) => {
            let forgotten = slice::from_ref(&row.pending);
            gateway.admission.written(forgotten).await;
        }
        Ok(false) => {}
        // Whoever looks after calls forgets it later.
        Err(error) => tracing::debug!(%error, "a call that is not placed is still noted"),
    }
}
