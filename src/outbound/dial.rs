//! A call that has a slot is asked of its carrier when its turn comes, and again only for what the
//! carrier has certainly not done.

use std::time::Duration;

use actix_web::web;
use rand::RngExt;
use tokio::time::{Instant, sleep};
use tracing::Instrument;

use crate::{
    call::{Carrier, EndReason},
    carrier::Fate,
    gateway::Gateway,
    outbound::{
        acs,
        ending::fail,
        pace::{self, TooMany, Turn},
        progress::named,
        reconcile::reconcile,
        room::AWAY_FOR,
        rows::{self, Move, Row, Stage},
        twilio,
    },
    record::{DatabaseError, What},
};

/// How long a call may ring on beyond its time, and the carrier may take to say so.
pub const GRACE: Duration = Duration::from_secs(30);
/// The pause where the carrier wants none in particular.
const PAUSE: Duration = Duration::from_secs(1);

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
    // Where the database is slow for good, all are late alike, and nobody is asked for at once.
    let mut has_waited_again = false;
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
            return; // It was called off, or cannot be noted: whoever looks after calls sees to it.
        }
        // A database that was away lets all go at the same moment who have waited for it.
        if mine.passed_for() > outbound.pace.slack() && !has_waited_again {
            has_waited_again = true;
            if !queue_again(&gateway, &row, until).await {
                return;
            }
            continue;
        }
        let asked = match row.pending.carrier() {
            Carrier::Twilio | Carrier::Web => twilio::ask(&gateway, &row).await,
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
        if !queue_again(&gateway, &row, until).await {
            return;
        }
        sleep(pause).await;
    }
}

/// Has a call be over that this replica has not had placed.
async fn give_up(gateway: &web::Data<Gateway>, row: &Row, at: &'static [Stage]) {
    fail(gateway, row, at, EndReason::NotPlaced).await;
}

/// Notes that the carrier has certainly not placed a call, so that whoever looks after it should this
/// replica die knows; tells whether the database took it. Whether the call was where it was believed
/// to be is seen before the carrier is asked again.
async fn queue_again(gateway: &Gateway, row: &Row, until: Instant) -> bool {
    let step = Move::new(row.call, &[Stage::Dialing], Stage::Queued);
    let database = &gateway.records.database;
    let queued = answered(until, || rows::advance(database, step.clone()));
    queued.await.is_some()
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
pub async fn answered<T, Asked>(until: Instant, ask: impl Fn() -> Asked) -> Option<T>
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
    let step = Move {
        dials: true,
        rings_for: Some(row.terms.ring_for() + GRACE),
        ..Move::new(row.call, &[Stage::Queued], Stage::Dialing)
    };
    let database = &gateway.records.database;
    // An answer that is lost may have been a yes; then the next one is a no, and the call is looked
    // for as one that the carrier may have.
    let advanced = answered(until, || async {
        // Whoever wants it to be over may be waiting for the same database.
        if gateway.is_called_off(row.call).await {
            return Ok(false);
        }
        rows::advance(database, step.clone()).await
    });
    let may = advanced.await == Some(true);
    if may {
        gateway.timeline.step(&row.pending, What::Dialing);
    }
    may
}
