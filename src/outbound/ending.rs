//! A call is over: as we judge, as its carrier says, or because somebody wants it to be.
//!
//! Invariant: what we judge ourselves ends a call only where it is believed to be.

use std::time::Duration;

use actix_web::web;
use tokio::time::{Instant, timeout};

use crate::{
    admission::{Ended, Phase},
    call::{CallId, Carrier, CarrierCallId, EndReason},
    gateway::Gateway,
    outbound::{
        acs,
        dial::answered,
        progress::DATABASE_WITHIN,
        rows::{self, Belief, Move, Row, Stage},
    },
    record::{DatabaseError, unix_millis_i64 as now},
};

/// How long the wish that a call ends waits for the database, where nothing can be done without.
const WISH_WITHIN: Duration = Duration::from_secs(60);

/// Has a call be over that is not placed, or not picked up, as we judge and nobody has told us: only
/// if this replica looks after it and it is still `at` one of these stages. Tells whether it is over
/// by that. While the database is away nothing is judged: whoever looks after the call does so later.
/// One that nobody wants was canceled, whatever came of it.
pub async fn fail(
    gateway: &web::Data<Gateway>,
    row: &Row,
    at: &'static [Stage],
    reason: EndReason,
) -> bool {
    let belief = Belief {
        at,
        holder: Some(gateway.admission.replica().to_owned()),
    };
    let database = &gateway.records.database;
    match rows::finish(database, row.call, Some(belief), 0, now()).await {
        Ok(Some(was)) => {
            let reason = match was {
                Stage::Unwanted => EndReason::Canceled,
                Stage::Reserving
                | Stage::Queued
                | Stage::Dialing
                | Stage::Unknown
                | Stage::Placed
                | Stage::Answered
                | Stage::Over => reason,
            };
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
/// whatever it held by either of its names. `talked` if somebody has picked it up. One that nobody
/// wanted was canceled, whatever its carrier says.
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
    let database = &gateway.records.database;
    let found = timeout(DATABASE_WITHIN, rows::find(database, call)).await;
    let stage = found.ok().and_then(Result::ok).flatten();
    let stage = stage.map(|row| row.stage);
    let reason = if stage == Some(Stage::Unwanted) {
        EndReason::Canceled
    } else {
        reason
    };
    gateway.admission.unplaced(pending, reason).await;
    // Also where the database was not there to hear of it: then its media is at some replica.
    let was_picked_up = stage == Some(Stage::Answered)
        || match name {
            Some(name) => gateway.admission.phase(name).await == Some(Phase::Live),
            None => false,
        };
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

/// Ends a call, whoever has begun it and whichever replica carries it: told to the store and to the
/// carrier. `call` is our name for it, `name` its carrier's.
pub async fn hang_up(gateway: &web::Data<Gateway>, call: CallId, name: &CarrierCallId) {
    gateway.timeline.named(name, call);
    // Of a call without a carrier's name only the database knows whether it can still be stopped.
    let wait = if name.is_pending() {
        WISH_WITHIN
    } else {
        Duration::ZERO
    };
    let canceled = answered(Instant::now() + wait, || cancel(gateway, call)).await;
    match canceled {
        Some(Canceled::Done) => return,
        Some(Canceled::PickedUp) => acs::know(gateway, name),
        Some(Canceled::NotPlaced) | None => {}
    }
    end_live(gateway, name).await;
}

/// Ends a call that talks, or may.
async fn end_live(gateway: &web::Data<Gateway>, name: &CarrierCallId) {
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

/// Where a call is that its carrier was not asked for.
const UNASKED: &[Stage] = &[Stage::Reserving, Stage::Queued];
/// Where a call is that may ring.
const MAY_RING: &[Stage] = &[Stage::Dialing, Stage::Unknown, Stage::Placed];

/// What came of canceling a call.
enum Canceled {
    /// It is over, or somebody looks after it until it is.
    Done,
    PickedUp,
    /// It is none that we have placed.
    NotPlaced,
}

/// Has a call that we place, and that nobody has picked up, be over. What may ring holds its slot and
/// its number until the carrier has ended it, or it cannot ring any more.
async fn cancel(gateway: &web::Data<Gateway>, call: CallId) -> Result<Canceled, DatabaseError> {
    let database = &gateway.records.database;
    let Some(row) = rows::find(database, call).await? else {
        return Ok(Canceled::NotPlaced);
    };
    let unasked = Belief {
        at: UNASKED,
        holder: None,
    };
    if rows::finish(database, call, Some(unasked), 0, now())
        .await?
        .is_some()
    {
        let reason = EndReason::Canceled;
        gateway.admission.unplaced(&row.pending, reason).await;
        gateway.ended(&row.pending, reason);
        return Ok(Canceled::Done);
    }
    let unwanted = Move::new(call, MAY_RING, Stage::Unwanted);
    let is_news = rows::advance(database, unwanted).await?;
    match rows::find(database, call).await? {
        // It was answered, and may be talking.
        Some(row) if !is_news && matches!(row.stage, Stage::Answered | Stage::Over) => {
            Ok(Canceled::PickedUp)
        }
        Some(row) => {
            // One that has no name yet is ended when it gets one.
            if let Some(name) = &row.carrier_call {
                end_unwanted(gateway, call, &row.pending, name).await;
            }
            Ok(Canceled::Done)
        }
        None => Ok(Canceled::Done),
    }
}

/// Has the carrier end a call that nobody wants any more; tells whether it is over by that. If not,
/// whoever looks after it tries again.
pub async fn end_unwanted(
    gateway: &web::Data<Gateway>,
    call: CallId,
    pending: &CarrierCallId,
    name: &CarrierCallId,
) -> bool {
    acs::know(gateway, name);
    if gateway.admission.phase(name).await == Some(Phase::Live) {
        // The database was not there to hear that it was picked up.
        let step = Move::new(call, &[Stage::Unwanted], Stage::Answered);
        if let Err(error) = rows::advance(&gateway.records.database, step).await {
            tracing::debug!(%error, "that a call was picked up is not noted yet");
        }
        end_live(gateway, name).await;
        return false;
    }
    let is_ended = end_at_carrier(gateway, name).await;
    if is_ended {
        let reason = EndReason::Canceled;
        over(gateway, call, pending, Some(name), reason, None).await;
    }
    is_ended
}

/// Has the carrier end a call; tells whether it has, as far as anybody can be asked.
pub async fn end_at_carrier(gateway: &web::Data<Gateway>, name: &CarrierCallId) -> bool {
    match name.carrier() {
        Carrier::Twilio => {
            let Some(twilio) = &gateway.outbound.twilio else {
                return true;
            };
            if name.is_pending() {
                return true;
            }
            // It bears being asked twice.
            if twilio.end(name).await.is_err()
                && let Err(error) = twilio.end(name).await
            {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, carrier_call.id = %name, "Twilio does not end a call");
                return false;
            }
            true
        }
        Carrier::Acs => {
            gateway.hang_up_acs(name);
            true
        }
        Carrier::Web => true,
    }
}
