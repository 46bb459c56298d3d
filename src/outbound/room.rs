//! There is room for a call that is asked for: a slot, and a turn with its carrier.

use std::{sync::Arc, time::Duration};

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
        dial::{GRACE, spawn_drive},
        pace::Turn,
        place::{Asker, placed},
        rows::{self, Queued, Row, Stage},
    },
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
            // All of them have a turn before it.
            used: outbound.settings.per_second,
            again_in: too_many.again_in,
        },
        Ok(Queued::Gone) | Err(_) => Refused::Unavailable { again_in: AWAY_FOR },
    };
    let reason = EndReason::NotPlaced;
    gateway.admission.unplaced(&row.pending, reason).await;
    Err(refused)
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
