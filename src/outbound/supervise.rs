//! Looks after the calls that are being placed: those of replicas that are gone, and those of which
//! the carrier says nothing any more.

use std::time::Duration;

use actix_web::web;
use futures_util::{StreamExt, stream};
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    admission::{Outgoing, Reservation},
    call::{CallerId, Carrier, EndReason},
    gateway::Gateway,
    outbound::{
        acs,
        dial::{GRACE, spawn_drive},
        ending::{UNASKED, end_called_off, end_picked_up, fail, over},
        progress::{Progress, apply},
        reconcile::{is_untold, look_once, reconcile},
        room::{forget, take_slot},
        rows::{self, Move, Row, Stage},
    },
    record::{DatabaseError, unix_millis_i64 as now},
};

/// How often it is looked: several times before somebody else would think that we are gone.
const TICK: Duration = Duration::from_secs(5);

/// How often the carrier is asked after calls that nobody carries here and that may go on there.
const ASKED_AFTER_EVERY: Duration = Duration::from_secs(60);
/// How long a carrier may take to end a call, before others have their turn.
const ENDED_WITHIN: Duration = Duration::from_secs(5);
/// Of how many calls the carrier is asked at once.
const SETTLED_AT_ONCE: usize = 8;

/// Looks after calls until `stop`. That they are ours is said whatever the carrier takes to answer.
pub async fn look_after(gateway: web::Data<Gateway>, stop: CancellationToken) {
    let keeping = async {
        let mut ticks = ticks(TICK);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            tell(keep(&gateway).await);
        }
    };
    let sweeping = async {
        let mut ticks = ticks(TICK);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            tell(sweep(&gateway).await);
        }
    };
    let asking_after = async {
        let mut ticks = ticks(ASKED_AFTER_EVERY);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            tell(ask_after(&gateway, &stop).await);
        }
    };
    tokio::join!(keeping, sweeping, asking_after);
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn tell(looked: Result<(), DatabaseError>) {
    if let Err(error) = looked {
        tracing::debug!(%error, "nobody could look after placed calls");
    }
}

/// Says that our calls are looked after, and takes over those that nobody looks after.
async fn keep(gateway: &web::Data<Gateway>) -> Result<(), DatabaseError> {
    let me = gateway.admission.replica().to_owned();
    for row in rows::keep(&gateway.records.database, me).await? {
        let gateway = gateway.clone();
        let tasks = gateway.calls().clone();
        tasks.spawn(async move { take_over(&gateway, row).await });
    }
    Ok(())
}

/// Sees to our calls that have not come along as they should have.
async fn sweep(gateway: &web::Data<Gateway>) -> Result<(), DatabaseError> {
    let me = gateway.admission.replica().to_owned();
    let overdue = rows::overdue(&gateway.records.database, me, gateway.longest_call).await?;
    settle_all(gateway, overdue).await;
    Ok(())
}

/// Asks the carrier after all of our calls that nobody carries by their records.
async fn ask_after(
    gateway: &web::Data<Gateway>,
    stop: &CancellationToken,
) -> Result<(), DatabaseError> {
    let me = gateway.admission.replica();
    let database = &gateway.records.database;
    let mut after = String::new();
    while !stop.is_cancelled() {
        let some = rows::carried_by_nobody(database, me.to_owned(), after).await?;
        let Some(last) = some.last() else {
            break;
        };
        after = last.call.to_string();
        settle_all(gateway, some).await;
    }
    Ok(())
}

async fn settle_all(gateway: &web::Data<Gateway>, rows: Vec<Row>) {
    let settling = rows.into_iter().map(|row| {
        let gateway = gateway.clone();
        let span = gateway.span_of(&row.pending);
        async move { settle(&gateway, &row).await }.instrument(span)
    });
    let mut settling = stream::iter(settling).buffer_unordered(SETTLED_AT_ONCE);
    while settling.next().await.is_some() {}
}

/// Goes on with a call of a replica that is gone.
async fn take_over(gateway: &web::Data<Gateway>, row: Row) {
    let span = gateway.span_of(&row.pending);
    tracing::info!(parent: &span, stage = row.stage.as_str(), "a call's replica is gone");
    match row.stage {
        Stage::Reserving => give_up_reserving(gateway, &row).await,
        // Nothing was asked of the carrier.
        Stage::Queued => {
            let campaigns = gateway.campaigns.current();
            let campaign = campaigns.named(&row.campaign);
            let slot = match campaign {
                Some(campaign) if is_within_window(gateway, &row) => {
                    Some(take_slot(gateway, &row, &campaign).await)
                }
                Some(_) | None => None,
            };
            match slot {
                Some(Reservation::Held { agent }) => {
                    let agent = Some(agent);
                    spawn_drive(gateway, Row { agent, ..row }, None);
                }
                // Whoever looks next tries again, for as long as it may wait.
                Some(Reservation::Elsewhere | Reservation::Unavailable) => {
                    let me = gateway.admission.replica().to_owned();
                    if let Err(error) = rows::let_go(&gateway.records.database, row.call, me).await
                    {
                        tracing::debug!(%error, "a call is not let go of");
                    }
                }
                Some(Reservation::Refused(_) | Reservation::Ended) | None => {
                    fail(gateway, &row, &[Stage::Queued], EndReason::NotPlaced).await;
                }
            }
        }
        // Perhaps it rings.
        Stage::Dialing | Stage::Unknown => {
            count(gateway, &row);
            let step = Move::new(row.call, &[Stage::Dialing], Stage::Unknown);
            let _ = rows::advance(&gateway.records.database, step).await;
            let gateway = gateway.clone();
            let tasks = gateway.calls().clone();
            tasks.spawn(async move { reconcile(&gateway, row.call).await }.instrument(span));
        }
        Stage::Placed => {
            count(gateway, &row);
            if row.pending.carrier() == Carrier::Acs {
                acs::watch_ringing(gateway, &row, acs::left(&row));
            }
        }
        Stage::Answered | Stage::Over => {}
    }
}

/// Holds a slot for a call that may ring.
fn count(gateway: &web::Data<Gateway>, row: &Row) {
    let until = match (row.pending.carrier(), &row.carrier_call) {
        (Carrier::Acs, None) => Some(acs::rings_until(gateway, row)),
        (Carrier::Acs | Carrier::Twilio | Carrier::Web, _) => row.rings_until,
    };
    let left = until.map_or(0, |until| until - row.read_at);
    let (Ok(left), Some(agent)) = (u64::try_from(left), &row.agent) else {
        return; // It cannot ring any more.
    };
    let campaigns = gateway.campaigns.current();
    let Some(campaign) = campaigns.named(&row.campaign) else {
        return;
    };
    let to = CallerId::read(&row.to);
    let outgoing = Outgoing {
        call: row.call,
        pending: &row.pending,
        to: &to,
        campaign: &campaign,
        lasts_at_most: row.terms.left_of_day,
    };
    let name = row.carrier_call.as_ref().unwrap_or(&row.pending);
    let hold = Duration::from_millis(left);
    gateway
        .admission
        .take_over_ringing(&outgoing, name, agent, &campaigns, hold);
}

/// Tells whether the carrier says that a call is over, or knows of none.
async fn is_over_at_carrier(gateway: &web::Data<Gateway>, row: &Row) -> bool {
    if let (Carrier::Acs, Some(name)) = (row.pending.carrier(), &row.carrier_call) {
        return acs::is_over(gateway, name).await;
    }
    let (Some(name), Some(twilio)) = (&row.carrier_call, &gateway.outbound.twilio) else {
        return true; // There is nobody to ask.
    };
    match twilio.fetch(name).await {
        Ok(found) => match Progress::read(&found.status) {
            Progress::Waiting | Progress::Rings | Progress::Answered => false,
            Progress::Unanswered(_) | Progress::Completed => true,
        },
        Err(error) => {
            tracing::debug!(%error, "cannot ask after a call");
            error.knows_no_call() || is_untold(row, gateway.longest_call)
        }
    }
}

/// Sees to a call that has stayed at its stage for too long: whatever had it there is gone, as a
/// task can be whose replica lives.
async fn settle(gateway: &web::Data<Gateway>, row: &Row) {
    if row.called_off_at.is_some() && settle_called_off(gateway, row).await {
        return;
    }
    match row.stage {
        Stage::Reserving => give_up_reserving(gateway, row).await,
        Stage::Queued if is_within_window(gateway, row) => {}
        Stage::Queued => drop(fail(gateway, row, &[Stage::Queued], EndReason::NotPlaced).await),
        Stage::Dialing => {
            let step = Move::new(row.call, &[Stage::Dialing], Stage::Unknown);
            let _ = rows::advance(&gateway.records.database, step).await;
            look_once(gateway, row.call).await;
        }
        Stage::Unknown => drop(look_once(gateway, row.call).await),
        Stage::Placed => settle_placed(gateway, row).await,
        Stage::Answered => settle_answered(gateway, row).await,
        Stage::Over => {}
    }
}

/// Its asker has had no answer: the key may be used again.
async fn give_up_reserving(gateway: &web::Data<Gateway>, row: &Row) {
    let admission = &gateway.admission;
    admission.unplaced(&row.pending, EndReason::NotPlaced).await;
    forget(gateway, row).await;
}

/// Tells whether a call may still wait for its turn.
fn is_within_window(gateway: &Gateway, row: &Row) -> bool {
    let window = gateway.outbound.settings.longest_wait + row.terms.ring_for() + GRACE * 2;
    let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
    row.created_at.saturating_add(window) > row.read_at
}

/// Has a call be over that nobody carries here, if the carrier says so, whose last word has not come.
async fn settle_answered(gateway: &web::Data<Gateway>, row: &Row) {
    // Where its replica is gone it may still be talking.
    if !is_over_at_carrier(gateway, row).await {
        return;
    }
    let talked = rows::talked(&gateway.records.database, row.call, now()).await;
    let talked = Duration::from_millis(talked.unwrap_or(0));
    let name = row.carrier_call.as_ref();
    let ended = EndReason::CarrierEnded;
    over(gateway, row.call, &row.pending, name, ended, Some(talked)).await;
}

/// Sees to a call that was called off; tells whether that was all there is to do.
async fn settle_called_off(gateway: &web::Data<Gateway>, row: &Row) -> bool {
    let name = match (row.stage, &row.carrier_call) {
        (Stage::Reserving | Stage::Queued, _) => {
            fail(gateway, row, UNASKED, EndReason::Canceled).await;
            return true;
        }
        (Stage::Answered, Some(name)) => {
            // The database was not there when somebody picked it up.
            let ending = end_picked_up(gateway, row.call, name);
            let _ = timeout(ENDED_WITHIN, ending).await;
            return false;
        }
        (Stage::Dialing | Stage::Unknown | Stage::Placed, Some(name)) => name,
        // It is looked for.
        (Stage::Dialing | Stage::Unknown | Stage::Placed | Stage::Answered, None) => return false,
        (Stage::Over, _) => return true,
    };
    let ending = end_called_off(gateway, row.call, &row.pending, name);
    let is_ended = timeout(ENDED_WITHIN, ending).await == Ok(true);
    if !is_ended && is_untold(row, Duration::ZERO) {
        tracing::warn!(
            carrier_call.id = %name,
            "a call was not ended: its carrier does not do it. It counts as canceled; the carrier's \
             own log says what became of it"
        );
        fail(gateway, row, &[Stage::Placed], EndReason::Canceled).await;
    }
    true
}

/// Asks the carrier of a call that has rung for too long.
async fn settle_placed(gateway: &web::Data<Gateway>, row: &Row) {
    if row.pending.carrier() == Carrier::Acs {
        return acs::give_up(gateway, row).await;
    }
    let (Some(name), Some(twilio)) = (&row.carrier_call, &gateway.outbound.twilio) else {
        if is_untold(row, Duration::ZERO) {
            // There is nobody to ask any more.
            fail(gateway, row, &[Stage::Placed], EndReason::Untold).await;
        }
        return;
    };
    match twilio.fetch(name).await {
        Ok(found) => match Progress::read(&found.status) {
            // It rings for longer than it was to.
            Progress::Waiting | Progress::Rings => drop(twilio.end(name).await),
            Progress::Answered => {} // Its webhook is lost, and its fallback speaks.
            Progress::Unanswered(_) | Progress::Completed => apply(gateway, row, &found).await,
        },
        Err(error) if error.knows_no_call() => {
            fail(gateway, row, &[Stage::Placed], EndReason::NotPlaced).await;
        }
        Err(error) if is_untold(row, Duration::ZERO) => {
            tracing::warn!(
                %error,
                carrier_call.id = %name,
                "a call's fate cannot be told: Twilio does not say how it stands. It counts as \
                 failed; Twilio's own log says what became of it"
            );
            fail(gateway, row, &[Stage::Placed], EndReason::Untold).await;
        }
        Err(error) => tracing::debug!(%error, "cannot ask after a call"),
    }
}
