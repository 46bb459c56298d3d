//! A call is over: as we judge, as its carrier says, or because somebody wants it to be.
//!
//! Invariant: what we judge ourselves ends a call only where it is believed to be.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use actix_web::web;
use serde_json::json;
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

/// How long the wish that a call ends waits for the database, where nothing can be done without: longer
/// than a call waits for its turn and rings.
const WISH_WITHIN: Duration = Duration::from_secs(300);

/// Has a call be over that is not placed, or not picked up, as we judge and nobody has told us: only
/// if this replica looks after it and it is still `at` one of these stages. Tells whether it is over
/// by that. While the database is away nothing is judged: whoever looks after the call does so later.
/// One that was called off was canceled, whatever came of it.
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
        Ok(Some(finished)) => {
            let reason = if finished.called_off {
                EndReason::Canceled
            } else {
                reason
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
/// whatever it held by either of its names. `talked` if somebody has picked it up. One that was called
/// off before was canceled, whatever its carrier says.
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
    let found = timeout(DATABASE_WITHIN, rows::find(database, call)).await;
    let row = found.ok().and_then(Result::ok).flatten();
    // Also where the database was not there to hear of it: then its media is at some replica.
    let was_picked_up = row.as_ref().is_some_and(|row| row.stage == Stage::Answered)
        || match name {
            Some(name) => gateway.admission.phase(name).await == Some(Phase::Live),
            None => false,
        };
    let called_off = row.is_some_and(|row| row.called_off_at.is_some());
    let reason = if called_off && !was_picked_up {
        EndReason::Canceled
    } else {
        reason
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
        Ok(Some(finished)) if finished.was == Stage::Answered || is_counted => {}
        Ok(None) => {}
        Ok(Some(_)) => gateway.ended(name.unwrap_or(pending), reason),
        Err(error) => tracing::warn!(%error, "the end of a call is not noted yet"),
    }
}

/// Ends a call, whoever has begun it and whichever replica carries it: told to the store and to the
/// carrier. `call` is our name for it, `name` its carrier's.
pub async fn hang_up(gateway: &web::Data<Gateway>, call: CallId, name: &CarrierCallId) {
    gateway.timeline.named(name, call);
    if gateway.connections.has(name) || gateway.admission.phase(name).await == Some(Phase::Live) {
        return end_live(gateway, call, name).await; // Whatever the database says.
    }
    // Of a call without a carrier's name only the database knows whether it can still be stopped.
    let wait = if name.is_pending() {
        gateway.tell_called_off(name).await;
        WISH_WITHIN
    } else {
        Duration::ZERO
    };
    let asked = AtomicBool::new(false);
    let canceled = answered(Instant::now() + wait, || {
        cancel(gateway, call, asked.swap(true, Ordering::Relaxed))
    });
    match canceled.await {
        Some(Canceled::Done) => {}
        Some(Canceled::PickedUp(name)) => {
            acs::know(gateway, &name);
            end_live(gateway, call, &name).await;
        }
        Some(Canceled::NotPlaced) => end_live(gateway, call, name).await,
        // It may be one that rings, and does so until its carrier has ended it.
        None if !name.is_pending() => {
            acs::know(gateway, name);
            if end_at_carrier(gateway, name).await {
                end_live(gateway, call, name).await;
            }
        }
        None => tracing::error!(
            "a call that is to be hung up is not called off: the database is away. Whoever picks it \
             up is hung up on"
        ),
    }
}

/// Ends a call that talks, or may, as somebody wants.
pub async fn end_live(gateway: &web::Data<Gateway>, call: CallId, name: &CarrierCallId) {
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
    // If the database was not there to hear that somebody has picked it up: its end is counted above.
    let step = Move::new(call, MAY_RING, Stage::Answered);
    let noting = rows::advance(&gateway.records.database, step);
    let _ = timeout(DATABASE_WITHIN, noting).await;
    end_at_carrier(gateway, name).await;
}

/// Where a call is that its carrier was not asked for.
pub const UNASKED: &[Stage] = &[Stage::Reserving, Stage::Queued];
/// Where a call is that may ring.
const MAY_RING: &[Stage] = &[Stage::Dialing, Stage::Unknown, Stage::Placed];

/// What came of canceling a call.
enum Canceled {
    /// It is over, or somebody looks after it until it is.
    Done,
    /// It is called so by its carrier.
    PickedUp(CarrierCallId),
    /// It is none that we have placed.
    NotPlaced,
}

/// Has a call that we place, and that nobody has picked up, be over. What may ring holds its slot and
/// its number until the carrier has ended it, or it cannot ring any more. `again` if it was tried
/// before, and nobody has heard what came of it.
async fn cancel(
    gateway: &web::Data<Gateway>,
    call: CallId,
    again: bool,
) -> Result<Canceled, DatabaseError> {
    let database = &gateway.records.database;
    let reason = EndReason::Canceled;
    let Some(row) = rows::call_off(database, call, now()).await? else {
        return Ok(match rows::find(database, call).await? {
            None => Canceled::NotPlaced,
            Some(Row {
                carrier_call: Some(name),
                ..
            }) => Canceled::PickedUp(name),
            Some(row) => {
                if again {
                    gateway.admission.unplaced(&row.pending, reason).await;
                    gateway.ended(&row.pending, reason);
                }
                Canceled::Done
            }
        });
    };
    if UNASKED.contains(&row.stage) {
        // From here on it is not asked for.
        let unasked = Belief {
            at: UNASKED,
            holder: None,
        };
        let finished = rows::finish(database, call, Some(unasked), 0, now());
        if finished.await?.is_some() {
            gateway.admission.unplaced(&row.pending, reason).await;
            gateway.ended(&row.pending, reason);
        }
        return Ok(Canceled::Done);
    }
    gateway.tell_called_off(&row.pending).await;
    // One that has no name yet is ended when it gets one.
    if let Some(name) = &row.carrier_call {
        end_called_off(gateway, call, &row.pending, name).await;
    }
    Ok(Canceled::Done)
}

/// Has the carrier end a call that was called off; tells whether it is over by that. If not, whoever
/// looks after it tries again.
pub async fn end_called_off(
    gateway: &web::Data<Gateway>,
    call: CallId,
    pending: &CarrierCallId,
    name: &CarrierCallId,
) -> bool {
    acs::know(gateway, name);
    if gateway.admission.phase(name).await == Some(Phase::Live) {
        end_live(gateway, call, name).await;
        return false;
    }
    let is_ended = end_at_carrier(gateway, name).await;
    if is_ended {
        let reason = EndReason::Canceled;
        over(gateway, call, pending, Some(name), reason, None).await;
    }
    is_ended
}

impl Gateway {
    /// Has every replica know that a call is to be over, also while the database is away.
    async fn tell_called_off(&self, pending: &CarrierCallId) {
        self.outbound.call_off(pending);
        let note = json!({"called_off": true}).to_string();
        self.admission.note(pending, note).await;
    }

    /// Tells whether it is known beside the database that a call is to be over.
    pub(super) async fn is_called_off(&self, pending: &CarrierCallId) -> bool {
        self.outbound.is_called_off(pending) || self.admission.called_off_noted(pending).await
    }
}

/// Has the carrier end a call; tells whether it has, as far as anybody can be asked.
pub async fn end_at_carrier(gateway: &web::Data<Gateway>, name: &CarrierCallId) -> bool {
    if name.is_pending() {
        return true;
    }
    match name.carrier() {
        Carrier::Twilio => {
            let Some(twilio) = &gateway.outbound.twilio else {
                return true;
            };
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
        Carrier::Acs => gateway.hung_up_acs(name).await,
        Carrier::Web => true,
    }
}
