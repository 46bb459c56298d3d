//! A call is over: as we judge, as its carrier says, or because somebody wants it to be.
//!
//! Invariant: what we judge ourselves ends a call only where it is believed to be.

use std::time::Duration;

use actix_web::web;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use crate::{
    admission::{Ended, Phase},
    call::{CallId, Carrier, CarrierCallId, EndReason},
    gateway::{Gateway, HANDED_OVER_WITHIN},
    outbound::{
        acs,
        dial::answered,
        progress::DATABASE_WITHIN,
        rows::{self, Belief, Move, Row, Stage},
    },
    record::{DatabaseError, What, was_handed_over},
};

/// Where a call is that its carrier was not asked for.
pub const UNASKED: &[Stage] = &[Stage::Reserving, Stage::Queued];
/// Where a call is that may ring.
const MAY_RING: &[Stage] = &[Stage::Dialing, Stage::Unknown, Stage::Placed];
/// How long it is looked in the store whether a call is to be over.
const STORE_WITHIN: Duration = Duration::from_millis(300);
/// How long the wish that a call ends waits for the database, where nothing can be done without: longer
/// than a call waits for its turn and rings.
const WISH_WITHIN: Duration = Duration::from_secs(300);
/// How soon a carrier that does not end a call is asked again, at first.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);

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
    match rows::finish(database, row.call, Some(belief), 0).await {
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
    let talked = i64::try_from(talked).unwrap_or(0);
    let (ending, whose) = (gateway.clone(), name.unwrap_or(pending).clone());
    let finishing = async move {
        let finished = rows::finish(&ending.records.database, call, None, talked);
        match finished.await {
            Ok(Some(finished)) if finished.was == Stage::Answered || is_counted => {}
            Ok(None) => {}
            Ok(Some(_)) => ending.ended(&whose, reason),
            Err(error) => tracing::warn!(%error, "the end of a call is not noted yet"),
        }
    };
    // A carrier may wait for its answer: a database that is slow is told all the same.
    let finishing = gateway.calls().spawn(finishing.in_current_span());
    let _ = timeout(DATABASE_WITHIN, finishing).await;
}

/// Tells whether a call whose record is closed may go on at its carrier, where it can be ended: one that
/// was handed over. ACS has let go of a call that came in once it has.
///
/// # Errors
/// If the database does not answer.
pub async fn goes_on_elsewhere(
    gateway: &Gateway,
    call: CallId,
    name: &CarrierCallId,
) -> Result<bool, DatabaseError> {
    let database = &gateway.records.database;
    if came_in(call, name) {
        let within = match name.carrier() {
            Carrier::Twilio if gateway.outbound.twilio.is_some() => gateway.longest_call,
            Carrier::Acs => HANDED_OVER_WITHIN,
            Carrier::Twilio | Carrier::Web => return Ok(false),
        };
        return was_handed_over(database, call, within).await;
    }
    let row = rows::find(database, call).await?;
    Ok(row.is_some_and(|row| row.stage != Stage::Over))
}

/// Ends a call, whoever has begun it and whichever replica carries it: told to the store and to the
/// carrier. `call` is our name for it, `name` its carrier's.
pub async fn hang_up(gateway: &web::Data<Gateway>, call: CallId, name: &CarrierCallId) {
    gateway.timeline.named(name, call);
    if came_in(call, name) {
        let is_news = gateway.outbound.begin_to_end(call);
        // Who asks again asks for what is being done.
        if is_news || is_live(gateway, name).await {
            end_live(gateway, name).await;
        }
        if is_news {
            see_ended(gateway, call, name).await;
        }
        return;
    }
    if let Some(known) = gateway.connections.name_of(call) {
        return end_picked_up(gateway, call, &known).await;
    }
    // Before the database is asked, which may be away: nobody dials it from here on, and whoever picks
    // it up is hung up on.
    gateway.tell_called_off(call).await;
    if is_live(gateway, name).await {
        return end_picked_up(gateway, call, name).await;
    }
    if let Err(error) = cancel(gateway, call, false).await {
        tracing::warn!(%error, "a call that is to be hung up is not called off yet");
        acs::know(gateway, name);
        end_at_carrier(gateway, name).await;
        // Beside what draining waits for.
        let again = gateway.clone();
        let cancelling = async move { cancel_later(&again, call).await };
        gateway.chores().spawn(cancelling.in_current_span());
    }
}

/// Tells whether a call has come in: such a one is called as its carrier calls it.
fn came_in(call: CallId, name: &CarrierCallId) -> bool {
    !name.is_pending() && call == CallId::of(name)
}

/// Sees to it that a call's carrier ends it: at once, or, as nobody else looks after it, within minutes.
/// ACS has its own way to be asked again, by whichever replica knows the call's connection.
async fn see_ended(gateway: &web::Data<Gateway>, call: CallId, name: &CarrierCallId) {
    let (asking, name) = (gateway.clone(), name.clone());
    let ending = async move {
        if end_at_carrier(&asking, &name).await {
            return;
        }
        if name.carrier() != Carrier::Twilio {
            return asking.outbound.give_up_to_end(call);
        }
        let again = asking.clone();
        let later = async move {
            if !end_at_carrier_later(&again, &name).await {
                again.outbound.give_up_to_end(call);
            }
        };
        asking.chores().spawn(later.in_current_span());
    };
    // Whoever waits for it may leave.
    let _ = gateway.chores().spawn(ending.in_current_span()).await;
}

/// Tries to have Twilio end a call until it does; tells whether it has.
async fn end_at_carrier_later(gateway: &Gateway, name: &CarrierCallId) -> bool {
    let until = Instant::now() + WISH_WITHIN;
    let mut pause = ASK_AGAIN_AFTER;
    while Instant::now() + pause < until {
        sleep(pause).await;
        if end_at_carrier(gateway, name).await {
            return true;
        }
        pause *= 2;
    }
    tracing::error!("a call that was to be hung up may go on at Twilio");
    false
}

/// Tries to cancel a call until the database takes it.
async fn cancel_later(gateway: &web::Data<Gateway>, call: CallId) {
    let until = Instant::now() + WISH_WITHIN;
    if answered(until, || cancel(gateway, call, true))
        .await
        .is_none()
    {
        tracing::error!(
            "a call that was to be hung up is not called off: the database was away for too long"
        );
    }
}

async fn is_live(gateway: &Gateway, name: &CarrierCallId) -> bool {
    gateway.connections.has(name) || gateway.admission.phase(name).await == Some(Phase::Live)
}

/// Ends a call here, and at whichever replica carries it, as somebody wants; tells whether its end is
/// counted by that.
async fn end_live(gateway: &Gateway, name: &CarrierCallId) -> bool {
    let requested = Ended {
        live: EndReason::Requested,
        waiting: EndReason::Requested,
        unanswered: false,
    };
    gateway.dismiss_agent(name);
    gateway.connections.end(name, EndReason::Requested);
    let waited = gateway.admission.end(name, requested).await;
    if waited {
        gateway.ended(name, EndReason::Requested);
    }
    waited
}

/// Ends a placed call that somebody has picked up.
pub async fn end_picked_up(gateway: &web::Data<Gateway>, call: CallId, name: &CarrierCallId) {
    acs::know(gateway, name);
    let is_live = is_live(gateway, name).await;
    if end_live(gateway, name).await || is_live {
        // Its end is counted: should the database not have heard of the pick-up, it is not once more.
        let step = Move::new(call, MAY_RING, Stage::Answered);
        let noting = rows::advance(&gateway.records.database, step);
        let _ = timeout(DATABASE_WITHIN, noting).await;
    }
    if gateway.outbound.begin_to_end(call) {
        see_ended(gateway, call, name).await;
    }
}

/// Has a call that we place be over. What may ring holds its slot and its number until the carrier has
/// ended it, or it cannot ring any more. `again` if it was tried before, and nobody has heard what came
/// of it.
///
/// # Errors
/// If the database does not answer; it may have been done then.
async fn cancel(
    gateway: &web::Data<Gateway>,
    call: CallId,
    again: bool,
) -> Result<(), DatabaseError> {
    let database = &gateway.records.database;
    let reason = EndReason::Canceled;
    let Some(row) = rows::call_off(database, call).await? else {
        // It was picked up, or is over.
        match rows::find(database, call).await? {
            Some(Row {
                carrier_call: Some(name),
                ..
            }) => end_picked_up(gateway, call, &name).await,
            // Perhaps by ourselves: its record is closed, and its end not counted twice.
            Some(row) if again => {
                gateway.admission.unplaced(&row.pending, reason).await;
                gateway.timeline.step(&row.pending, What::Ended(reason));
            }
            Some(_) | None => {}
        }
        return Ok(());
    };
    if UNASKED.contains(&row.stage) {
        // From here on it is not asked for.
        let unasked = Belief {
            at: UNASKED,
            holder: None,
        };
        let finished = rows::finish(database, call, Some(unasked), 0);
        if finished.await?.is_some() {
            gateway.admission.unplaced(&row.pending, reason).await;
            gateway.ended(&row.pending, reason);
        }
    } else if let Some(name) = &row.carrier_call {
        end_called_off(gateway, call, &row.pending, name).await;
    }
    // One that has no name yet is ended when it gets one.
    Ok(())
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
    if is_live(gateway, name).await {
        end_picked_up(gateway, call, name).await;
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
    /// Has every replica know that a placed call is to be over, also while the database is away.
    async fn tell_called_off(&self, call: CallId) {
        self.outbound.call_off(call);
        self.admission.note_called_off(call).await;
    }

    /// Tells whether it is known beside the database that a placed call is to be over.
    pub(super) async fn is_called_off(&self, call: CallId) -> bool {
        if self.outbound.is_called_off(call) {
            return true;
        }
        let noted = timeout(STORE_WITHIN, self.admission.called_off_noted(call));
        noted.await.unwrap_or(false)
    }
}

/// Has the carrier end a call; tells whether it has, as far as anybody can be asked.
pub async fn end_at_carrier(gateway: &Gateway, name: &CarrierCallId) -> bool {
    if name.is_pending() {
        return true;
    }
    match name.carrier() {
        Carrier::Twilio => {
            let Some(twilio) = &gateway.outbound.twilio else {
                return true;
            };
            // It bears being asked twice, unless it is asked too much.
            let mut ended = twilio.end(name).await;
            if ended.as_ref().is_err_and(|error| !error.is_throttled()) {
                ended = twilio.end(name).await;
            }
            if let Err(error) = ended {
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
