//! How a call comes along, as its carrier tells.

use std::time::Duration;

use actix_web::web;
use tokio::time::timeout;
use tracing::Instrument;

use crate::{
    call::{CallId, CarrierCallId, EndReason},
    carrier::twilio::Listed,
    gateway::Gateway,
    outbound::{
        Marker, acs,
        ending::{end_at_carrier, end_called_off, over},
        rows::{self, Row},
    },
    record::What,
};

/// How long a webhook waits for the database: the call goes on without it.
pub const DATABASE_WITHIN: Duration = Duration::from_millis(800);

/// How a call comes along, as its carrier tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is on its way, and not over.
    Waiting,
    Rings,
    Answered,
    /// It is over without anybody having picked up.
    Unanswered(EndReason),
    Completed,
}

impl Progress {
    /// Reads Twilio's word: twilio.com/docs/voice/twiml#callstatus-values.
    pub fn read(status: &str) -> Self {
        match status {
            "ringing" => Self::Rings,
            "in-progress" | "answered" => Self::Answered,
            "completed" => Self::Completed,
            "busy" => Self::Unanswered(EndReason::Busy),
            "no-answer" => Self::Unanswered(EndReason::NoAnswer),
            "canceled" => Self::Unanswered(EndReason::Canceled),
            "failed" => Self::Unanswered(EndReason::NotPlaced),
            _ => Self::Waiting,
        }
    }
}

/// Notes what the carrier calls a call; tells whether that is noted. One that nobody wants any more, or
/// that has another name, is ended at the carrier.
pub async fn named(gateway: &web::Data<Gateway>, row: &Row, name: &CarrierCallId) -> bool {
    acs::know(gateway, name);
    gateway.timeline.named(name, row.call);
    let bound = gateway.records.name_placed(row.call, name).await;
    gateway.admission.named(&row.pending, name).await;
    match &bound {
        Ok(true) if is_unwanted(gateway, row.call).await => {
            end_called_off(gateway, row.call, &row.pending, name).await;
        }
        Ok(true) => {}
        Ok(false) => {
            tracing::error!(carrier_call.id = %name, "a call has two names: one is ended");
            end_at_carrier(gateway, name).await;
        }
        Err(error) => {
            tracing::warn!(%error, "the name of a call is not noted yet");
            if gateway.is_called_off(row.call).await {
                end_at_carrier(gateway, name).await;
            }
        }
    }
    bound.is_ok()
}

/// Tells whether a call is to be over, or is; where the database does not say, as far as it is known
/// beside it.
async fn is_unwanted(gateway: &web::Data<Gateway>, call: CallId) -> bool {
    let found = timeout(DATABASE_WITHIN, rows::find(&gateway.records.database, call));
    match found.await {
        Ok(Ok(found)) => found.is_some_and(|row| row.is_unwanted()),
        Ok(Err(_)) | Err(_) => gateway.is_called_off(call).await,
    }
}

/// Takes in what the carrier tells of a call. One that nobody wants any more is ended at the carrier.
pub async fn progressed(
    gateway: &web::Data<Gateway>,
    marker: &Marker,
    name: &CarrierCallId,
    progress: Progress,
    lasted: Option<Duration>,
) {
    let Ok(pending) = CarrierCallId::try_from(marker.pending.clone()) else {
        return;
    };
    let call = CallId::of(&pending);
    let bound = timeout(DATABASE_WITHIN, gateway.records.name_placed(call, name));
    if matches!(bound.await, Ok(Ok(false))) {
        tracing::error!(carrier_call.id = %name, "the carrier tells of a second call");
        end_at_carrier(gateway, name).await;
        return;
    }
    gateway.admission.named(&pending, name).await;
    if matches!(progress, Progress::Waiting | Progress::Rings) && is_unwanted(gateway, call).await {
        // Its carrier waits for our answer, and may take its time itself.
        let (ending, name) = (gateway.clone(), name.clone());
        let ending = async move { end_called_off(&ending, call, &pending, &name).await };
        gateway.calls().spawn(ending.in_current_span());
        return;
    }
    match progress {
        Progress::Waiting | Progress::Answered => {}
        Progress::Rings => gateway.timeline.step(name, What::Rings),
        Progress::Unanswered(reason) => {
            over(gateway, call, &pending, Some(name), reason, None).await;
        }
        Progress::Completed => {
            let ended = EndReason::CarrierEnded;
            over(gateway, call, &pending, Some(name), ended, lasted).await;
        }
    }
}

/// Takes in how a call stands that was asked for.
pub async fn apply(gateway: &web::Data<Gateway>, row: &Row, found: &Listed) {
    let (reason, lasted) = match Progress::read(&found.status) {
        Progress::Waiting | Progress::Rings | Progress::Answered => return,
        Progress::Unanswered(reason) => (reason, None),
        Progress::Completed => (EndReason::CarrierEnded, found.lasted),
    };
    let name = Some(&found.call);
    over(gateway, row.call, &row.pending, name, reason, lasted).await;
}
