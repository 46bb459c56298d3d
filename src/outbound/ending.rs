//! A call is over: as we judge, as its carrier says, or because somebody wants it to be.
//!
//! Invariant: what we judge ourselves ends a call only where it is believed to be.

use std::time::Duration;

use actix_web::web;
use tokio::time::timeout;

use crate::{
    admission::{Ended, Phase},
    call::{CallId, Carrier, CarrierCallId, EndReason},
    gateway::Gateway,
    outbound::{
        acs,
        progress::DATABASE_WITHIN,
        rows::{self, Belief, Row, Stage},
    },
    record::unix_millis_i64 as now,
};

/// Has a call be over that is not placed, or not picked up, as we judge and nobody has told us: only
/// if this replica looks after it and it is still `at` one of these stages. Tells whether it is over
/// by that. While the database is away nothing is judged: whoever looks after the call does so later.
pub async fn fail(
    gateway: &web::Data<Gateway>,
    row: &Row,
    at: &'static [Stage],
    reason: EndReason,
) -> bool {
    let belief = Belief {
        at,
        holder: gateway.admission.replica().to_owned(),
    };
    let database = &gateway.records.database;
    match rows::finish(database, row.call, Some(belief), 0, now()).await {
        Ok(Some(_)) => {
            let admission = &gateway.admission;
            admission.unplaced(&row.pending, reason).await;
            if let Some(name) = &row.carrier_call {
                admission.unplaced(name, reason).await;
            }
            gateway.ended(row.carrier_call.as_ref().unwrap_or(&row.pending), reason);
            true
        }
        Ok(None) => {
            tracing::debug!("a call that was to fail has come along, or is another's");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the end of a call is not noted yet");
            false
        }
    }
}

/// Has a call be over, as its carrier says or as somebody wants, wherever it stands; gives back
/// whatever it held by either of its names. `talked` if somebody has picked it up.
pub async fn over(
    gateway: &web::Data<Gateway>,
    call: CallId,
    pending: &CarrierCallId,
    name: Option<&CarrierCallId>,
    reason: EndReason,
    talked: Option<Duration>,
) {
    if let Some(name) = name {
        gateway.timeline.named(name, call);
    }
    gateway.admission.unplaced(pending, reason).await;
    let database = &gateway.records.database;
    let was_picked_up = was_picked_up(gateway, call, name).await;
    let mut is_counted = was_picked_up; // Whoever carries it counts its end.
    if let Some(name) = name {
        if was_picked_up {
            gateway.carrier_ended(name, false).await;
        } else if gateway.admission.unplaced(name, reason).await {
            gateway.ended(name, reason);
            is_counted = true;
        }
    }
    let talked = talked.unwrap_or_default().as_millis();
    let finished = rows::finish(
        database,
        call,
        None,
        i64::try_from(talked).unwrap_or(0),
        now(),
    );
    match finished.await {
        Ok(None | Some(Stage::Answered | Stage::Over)) => {}
        Ok(Some(_)) if is_counted => {}
        Ok(Some(_)) => gateway.ended(name.unwrap_or(pending), reason),
        Err(error) => tracing::warn!(%error, "the end of a call is not noted yet"),
    }
}

/// Tells whether somebody has picked a call up, also where the database was not there to hear of it:
/// then its media is at some replica.
async fn was_picked_up(gateway: &Gateway, call: CallId, name: Option<&CarrierCallId>) -> bool {
    let found = timeout(DATABASE_WITHIN, rows::find(&gateway.records.database, call)).await;
    if matches!(found, Ok(Ok(Some(row))) if row.stage == Stage::Answered) {
        return true;
    }
    match name {
        Some(name) => gateway.admission.phase(name).await == Some(Phase::Live),
        None => false,
    }
}

/// Ends a call, whoever has begun it and whichever replica carries it: told to the store and to the
/// carrier. `call` is our name for it, `name` its carrier's.
pub async fn hang_up(gateway: &web::Data<Gateway>, call: CallId, name: &CarrierCallId) {
    let database = &gateway.records.database;
    gateway.timeline.named(name, call);
    let row = rows::find(database, call).await.ok().flatten();
    match row {
        Some(row) if row.stage != Stage::Answered && row.stage != Stage::Over => {
            let (pending, name) = (&row.pending, row.carrier_call.as_ref());
            over(gateway, call, pending, name, EndReason::Canceled, None).await;
            // It may have got its name meanwhile. One that has none yet is ended when it gets one.
            let found = rows::find(database, call).await.ok().flatten();
            if let Some(name) = found.unwrap_or(row).carrier_call {
                acs::know(gateway, &name);
                gateway.admission.unplaced(&name, EndReason::Canceled).await;
                end_at_carrier(gateway, &name).await;
            }
        }
        placed => {
            if placed.is_some() {
                acs::know(gateway, name);
            }
            let requested = Ended {
                live: EndReason::Requested,
                waiting: EndReason::Requested,
                unanswered: false,
            };
            gateway.dismiss_agent(name);
            gateway.connections.end(name, EndReason::Requested);
            if gateway.admission.end(name, requested).await {
                gateway.ended(name, EndReason::Requested);
            }
            end_at_carrier(gateway, name).await;
        }
    }
}

pub async fn end_at_carrier(gateway: &web::Data<Gateway>, name: &CarrierCallId) {
    match name.carrier() {
        Carrier::Twilio => {
            let Some(twilio) = &gateway.outbound.twilio else {
                return;
            };
            if name.is_pending() {
                return;
            }
            // It bears being asked twice.
            if twilio.end(name).await.is_err()
                && let Err(error) = twilio.end(name).await
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, carrier_call.id = %name, "Twilio does not end a call");
            }
        }
        Carrier::Acs => gateway.hang_up_acs(name),
        Carrier::Web => {}
    }
}
