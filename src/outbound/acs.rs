//! Calls that ACS places for us. It says nothing of them while they ring, and lists none.
//!
//! Invariant: ACS is asked for a call by one id and one date, however often and by whichever
//! replica, and so places it once.

use std::time::Duration;

use actix_web::web;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument;

use crate::{
    admission::Phase,
    answer::{Answer, prompts::Prompt},
    call::{CallId, CallerId, Carrier, CarrierCallId, EndReason},
    carrier::{
        Fate,
        acs::{
            CallConnectionId,
            request::{Media, NewCall},
        },
    },
    chunk::Encoding,
    gateway::Gateway,
    outbound::{
        Marker, Progress,
        dial::GRACE,
        ending::fail,
        marker,
        pick_up::picked_up,
        progress::{DATABASE_WITHIN, named, progressed},
        reconcile::MAY_BE_PLACED,
        rows::{self, Move, Row, Stage},
    },
    record::unix_millis_i64 as now,
};

/// How long ACS may take to answer once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Asks ACS for a call, or for the same one again.
///
/// # Errors
/// If it is not placed, or nobody knows.
pub async fn ask(gateway: &Gateway, row: &Row) -> Result<CarrierCallId, Fate> {
    let (Some(acs), Ok(to), Ok(from)) = (&gateway.acs, row.to.parse(), row.from.parse()) else {
        return Err(Fate::Refused);
    };
    let marker = marker(gateway, row);
    let (callback, socket) = (
        gateway.public.acs_callback(&marker),
        gateway.public.acs_media(&marker),
    );
    let call = NewCall {
        to: &to,
        from: &from,
        callback: &callback,
        operation_context: "outbound",
        media: Some(Media {
            socket: &socket,
            audio: acs.audio,
        }),
    };
    let since = Timestamp::from_millisecond(row.created_at).unwrap_or(Timestamp::UNIX_EPOCH);
    let deadline = Instant::now() + ANSWERS_WITHIN;
    let asked = acs.client.create_call((row.call, since), &call, deadline);
    match asked.await {
        Ok(connecting) => Ok(connecting.connection.placed()),
        Err(unplaced) => {
            let (what, error) = (unplaced.error.as_str(), &unplaced as &dyn std::error::Error);
            tracing::warn!(error, what, "ACS has not placed a call");
            Err(unplaced.fate)
        }
    }
}

/// Ends a call that nobody has picked up when its time is over, which is in so long. ACS knows no
/// such time. Should this replica go, whoever looks after the call does so later.
pub fn watch_ringing(gateway: &web::Data<Gateway>, row: &Row, left: Duration) {
    let span = gateway.span_of(&row.pending);
    let (gateway, call) = (gateway.clone(), row.call);
    let chores = gateway.chores().clone();
    let watching = async move {
        sleep(left).await;
        if let Ok(Some(row)) = rows::find(&gateway.records.database, call).await
            && row.stage == Stage::Placed
            && row.called_off_at.is_none()
        {
            give_up(&gateway, &row).await;
        }
    };
    chores.spawn(watching.instrument(span));
}

/// Returns how much longer a call may ring that was asked for as its row says.
pub fn left(row: &Row) -> Duration {
    let rings = row.terms.ring_for();
    let since = row.read_at - row.dialed_at.unwrap_or(row.read_at);
    rings.saturating_sub(Duration::from_millis(u64::try_from(since).unwrap_or(0)))
}

/// Has a call be over that has rung for too long, as far as its row says.
pub async fn give_up(gateway: &web::Data<Gateway>, row: &Row) {
    if let Some(name) = &row.carrier_call
        && was_picked_up(gateway, name).await
    {
        // The database was not there to hear of it.
        let step = Move::new(row.call, &[Stage::Placed], Stage::Answered);
        if let Err(error) = rows::advance(&gateway.records.database, step).await {
            tracing::debug!(%error, "that a call was picked up is not noted yet");
        }
        return;
    }
    // Somebody may pick up at this moment.
    if fail(gateway, row, &[Stage::Placed], EndReason::NoAnswer).await
        && let Some(name) = &row.carrier_call
    {
        know(gateway, name);
        gateway.hang_up_acs(name);
    }
}

/// Tells whether somebody talks, or is about to here, on a call of this name.
async fn was_picked_up(gateway: &Gateway, name: &CarrierCallId) -> bool {
    gateway.connections.has(name)
        || gateway.is_ringing(name)
        || gateway.admission.phase(name).await == Some(Phase::Live)
}

/// Asks again for a call that ACS may have placed, for as long as it may still begin to ring; tells
/// whether there is no more to look for. Where ACS has placed it, this is how its name is learnt. One
/// that was called off is not asked for: where ACS does not have it, it would ring.
pub async fn look_once(gateway: &web::Data<Gateway>, row: &Row) -> bool {
    if row.called_off_at.is_none() && row.read_at < asked_until(gateway, row) {
        let step = Move {
            rings_for: Some(row.terms.ring_for() + GRACE),
            ..Move::new(row.call, MAY_BE_PLACED, Stage::Unknown)
        };
        let may_ask = rows::advance(&gateway.records.database, step).await;
        if !matches!(may_ask, Ok(true)) {
            return false;
        }
        let Ok(name) = ask(gateway, row).await else {
            return false; // Of the first time it says nothing.
        };
        tracing::info!(carrier_call.id = %name, "ACS says which call it has placed");
        let is_noted = named(gateway, row, &name).await;
        watch_ringing(gateway, row, row.terms.ring_for());
        return is_noted;
    }
    let is_over = row.rings_until.is_none_or(|until| until < row.read_at);
    if is_over {
        tracing::warn!("a call was not placed, as far as ACS says");
        fail(gateway, row, MAY_BE_PLACED, EndReason::NotPlaced).await;
    }
    is_over
}

/// Returns until when ACS may be asked for a call: later its slot might lapse while it rings.
fn asked_until(gateway: &Gateway, row: &Row) -> i64 {
    let window = gateway.outbound.settings.longest_wait + row.terms.ring_for();
    row.created_at.saturating_add(millis(window))
}

/// Returns until when a call may ring for which ACS may be asked again.
pub fn rings_until(gateway: &Gateway, row: &Row) -> i64 {
    asked_until(gateway, row).saturating_add(millis(row.terms.ring_for() + GRACE))
}

/// Tells whether a placed call is over, as far as ACS says.
pub async fn is_over(gateway: &Gateway, name: &CarrierCallId) -> bool {
    let Some(acs) = &gateway.acs else {
        return true; // There is nobody to ask.
    };
    let connection = CallConnectionId::of_placed(name);
    let deadline = Instant::now() + ANSWERS_WITHIN;
    match acs.client.goes_on(&connection, deadline).await {
        Ok(goes_on) => !goes_on,
        Err(error) => {
            tracing::debug!(%error, "cannot ask after a call");
            false
        }
    }
}

/// Notes by which connection a placed call can be ended and talked to, which its name says.
pub fn know(gateway: &Gateway, name: &CarrierCallId) {
    if let (Some(acs), Carrier::Acs, false) = (&gateway.acs, name.carrier(), name.is_pending()) {
        acs.note(name, &CallConnectionId::of_placed(name));
    }
}

/// Returns how the audio of a placed call is encoded.
pub fn encoding(gateway: &Gateway, name: &CarrierCallId) -> Encoding {
    match (name.carrier(), &gateway.acs) {
        (Carrier::Acs, Some(acs)) => acs.audio.encoding(),
        (Carrier::Twilio | Carrier::Web | Carrier::Acs, _) => Encoding::Mulaw,
    }
}

/// Somebody has picked up, as a callback or a media socket tells, whichever is first: returns the
/// ticket for the call's media. Who is not to be connected is told so and hung up on.
pub async fn picked_up_at_acs(
    gateway: &web::Data<Gateway>,
    marker: &Marker,
    name: &CarrierCallId,
) -> Option<String> {
    // What was decided is remembered for a minute, and callbacks may come later.
    if gateway.admission.phase(name).await == Some(Phase::Live) {
        return None;
    }
    know(gateway, name);
    let callee = row_of(gateway, marker).await;
    let callee = callee.map_or(CallerId::Withheld, |row| CallerId::read(&row.to));
    let (answer, campaign) = picked_up(gateway, marker, name, &callee, None).await;
    let connection = CallConnectionId::of_placed(name);
    match answer {
        Answer::Connect { ticket, .. } => {
            gateway.watch_silence(name, &connection, &campaign);
            Some(ticket)
        }
        Answer::HangUp => {
            gateway.hang_up_acs(name);
            None
        }
        Answer::Apology
        | Answer::Refuse
        | Answer::Voicemail { .. }
        | Answer::Transfer { .. }
        | Answer::VoicemailThanks
        | Answer::Whatsapp
        | Answer::NotInService
        | Answer::Goodbye => {
            gateway.say_by_rest(name, connection, Prompt::Apology, &campaign);
            None
        }
    }
}

/// Takes in that a call is over, for this `reason` if nobody has picked it up.
pub async fn disconnected(
    gateway: &web::Data<Gateway>,
    marker: &Marker,
    name: &CarrierCallId,
    reason: EndReason,
) {
    let row = row_of(gateway, marker).await;
    let answered = row.filter(|row| row.stage == Stage::Answered);
    if answered.is_none() && !gateway.connections.has(name) {
        let unanswered = Progress::Unanswered(reason);
        return progressed(gateway, marker, name, unanswered, None).await;
    }
    let talked = match answered {
        // ACS does not say for how long.
        Some(row) => rows::talked(&gateway.records.database, row.call, now()).await,
        None => Ok(0),
    };
    let talked = talked.ok().map(Duration::from_millis);
    progressed(gateway, marker, name, Progress::Completed, talked).await;
}

async fn row_of(gateway: &Gateway, marker: &Marker) -> Option<Row> {
    let pending = CarrierCallId::try_from(marker.pending.clone()).ok()?;
    let found = rows::find(&gateway.records.database, CallId::of(&pending));
    timeout(DATABASE_WITHIN, found).await.ok()?.ok()?
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
