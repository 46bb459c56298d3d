//! What became of a call that the carrier may have placed: it is looked for, and never asked for
//! again.

use std::time::Duration;

use actix_web::web;
use tokio::time::sleep;

use crate::{
    call::{CallId, Carrier, EndReason},
    gateway::Gateway,
    outbound::{
        acs,
        ending::fail,
        progress::{apply, named},
        rows::{self, Row, Stage},
        twilio,
    },
};

/// When a call is looked for that the carrier may have placed: its own word comes first, mostly.
const LOOKS: [Duration; 4] = [
    Duration::from_secs(3),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(15),
];
/// How long a carrier that cannot say what became of a call is asked, once it can ring no more.
pub const UNTOLD_AFTER: Duration = Duration::from_secs(15 * 60);
/// Where a call is that the carrier may have placed.
pub const MAY_BE_PLACED: &[Stage] = &[Stage::Dialing, Stage::Unknown];

/// Looks for a call that the carrier may have placed, until it is found, has told of itself, or
/// cannot ring any more. It is never asked for again.
pub async fn reconcile(gateway: &web::Data<Gateway>, call: CallId) {
    let mut looks = LOOKS.into_iter();
    loop {
        sleep(looks.next().unwrap_or(LOOKS[LOOKS.len() - 1])).await;
        if look_once(gateway, call).await {
            return;
        }
    }
}

/// Looks for a call that the carrier may have placed; tells whether there is no more to look for.
/// Only a carrier that has said so, once the call cannot ring any more, has it fail, or one that
/// says nothing for far too long.
pub async fn look_once(gateway: &web::Data<Gateway>, call: CallId) -> bool {
    // What the database says, for it is there that the time of dialing is noted.
    let row = match rows::find(&gateway.records.database, call).await {
        Ok(Some(row)) if MAY_BE_PLACED.contains(&row.stage) => row,
        Ok(known) => {
            // It has told of itself, perhaps to another replica: its slot goes by that name.
            if let Some(row) = known
                && let Some(name) = &row.carrier_call
            {
                gateway.admission.named(&row.pending, name).await;
            }
            return true;
        }
        Err(_) => return false,
    };
    if row.pending.carrier() == Carrier::Acs {
        return acs::look_once(gateway, &row).await;
    }
    match twilio::look_for(gateway, &row).await {
        Ok(Some(found)) => {
            tracing::info!(carrier_call.id = %found.call, "found a call that was placed after all");
            let is_noted = named(gateway, &row, &found.call).await;
            apply(gateway, &row, &found).await;
            is_noted
        }
        Ok(None) if row.rings_until.is_none_or(|until| until < row.read_at) => {
            tracing::warn!("a call was not placed, as far as the carrier says");
            fail(gateway, &row, MAY_BE_PLACED, EndReason::NotPlaced).await;
            true
        }
        Ok(None) => false,
        Err(error) if is_untold(&row, Duration::ZERO) => {
            tracing::warn!(
                error,
                "a call's fate cannot be told: Twilio lists no calls. It counts as failed; Twilio's \
                 own log says whether it was placed"
            );
            fail(gateway, &row, MAY_BE_PLACED, EndReason::Untold).await;
            true
        }
        Err(error) => {
            tracing::debug!(%error, "cannot look for a call");
            false
        }
    }
}

/// Tells whether a call has been over for so long, if it rang for as long as it may and then lasted
/// as long as this, that its carrier is not waited for any more.
pub fn is_untold(row: &Row, lasts: Duration) -> bool {
    let wait = i64::try_from((lasts + UNTOLD_AFTER).as_millis()).unwrap_or(i64::MAX);
    let over_at = row.rings_until.unwrap_or(row.created_at);
    over_at.saturating_add(wait) < row.read_at
}
