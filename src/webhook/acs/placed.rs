//! What becomes of a call that ACS places for us.

use actix_web::web;
use tracing::Instrument;

use super::{
    became,
    callback::{Callback, Kind, Outcome},
};
use crate::{
    call::{CarrierCallId, EndReason},
    gateway::{Acs, Errand, Gateway},
    outbound::{Marker, Progress, disconnected, picked_up_at_acs, progressed, span_of_placed},
};

/// Takes in what ACS tells of a call that we know by its marker. It names its connection always:
/// learn.microsoft.com/azure/communication-services/concepts/call-automation/call-automation.
pub async fn came_along(gateway: &web::Data<Gateway>, event: Callback, marker: &Marker) {
    let (Some(acs), Some(connection)) = (&gateway.acs, &event.connection) else {
        gateway.metrics.webhook("acs_malformed");
        tracing::warn!("a callback of a placed call names no connection");
        return;
    };
    let name = connection.placed();
    acs.note(&name, connection);
    let span = span_of_placed(gateway, marker, &name);
    placed_became(gateway, acs, event, marker, &name)
        .instrument(span)
        .await;
}

async fn placed_became(
    gateway: &web::Data<Gateway>,
    acs: &Acs,
    event: Callback,
    marker: &Marker,
    name: &CarrierCallId,
) {
    match &event.kind {
        Kind::Connected => drop(picked_up_at_acs(gateway, marker, name).await),
        Kind::CreateCallFailed | Kind::AnswerFailed => {
            let Outcome { code, subcode, .. } = event.outcome;
            tracing::info!(code, subcode, "nobody has picked up");
            let unanswered = Progress::Unanswered(unanswered(&event.outcome));
            progressed(gateway, marker, name, unanswered, None).await;
        }
        Kind::Disconnected => {
            acs.is_over(name);
            disconnected(gateway, marker, name, unanswered(&event.outcome)).await;
        }
        Kind::MediaStreamingStarted(_)
        | Kind::MediaStreamingStopped(_)
        | Kind::MediaStreamingFailed(_)
        | Kind::PlayStarted
        | Kind::PlayCompleted
        | Kind::PlayFailed
        | Kind::PlayCanceled
        | Kind::TransferAccepted
        | Kind::TransferFailed
        | Kind::RecordingStateChanged
        | Kind::DtmfTone(_)
        | Kind::Other(_) => {
            let campaigns = gateway.campaigns.current();
            let campaign = campaigns.named(&marker.campaign);
            let campaign = campaign.unwrap_or_else(|| campaigns.default_campaign().clone());
            became(gateway, event, name, &Errand::Talk, &campaign).await;
        }
    }
}

/// Returns why a call is over that nobody has picked up. The subcodes are those of
/// learn.microsoft.com/azure/communication-services/concepts/troubleshooting-codes; the codes, and
/// what the network said, are SIP's (RFC 3261, 21).
fn unanswered(outcome: &Outcome) -> EndReason {
    match (outcome.subcode, outcome.sip.or(outcome.code)) {
        (Some(8_539), _) => EndReason::Busy,
        (Some(8_538 | 8_541 | 8_542 | 8_587), _) => EndReason::NoAnswer,
        (Some(8_543 | 8_544), _) => EndReason::NotPlaced,
        (_, Some(486 | 600)) => EndReason::Busy,
        (_, Some(200..=299 | 408 | 480 | 487 | 603)) => EndReason::NoAnswer,
        (_, Some(_) | None) => EndReason::NotPlaced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_pick_up_is_busy_or_away_or_cannot_be_reached() {
        for (code, subcode, sip, reason) in [
            (Some(486), Some(8_539), None, EndReason::Busy),
            (Some(486), None, None, EndReason::Busy),
            (Some(400), Some(560_486), Some(486), EndReason::Busy),
            (Some(603), Some(8_538), None, EndReason::NoAnswer),
            (Some(480), Some(10_037), None, EndReason::NoAnswer),
            (Some(408), Some(8_587), None, EndReason::NoAnswer),
            (Some(200), Some(0), None, EndReason::NoAnswer),
            (Some(480), Some(8_544), None, EndReason::NotPlaced),
            (Some(404), None, None, EndReason::NotPlaced),
            (Some(500), Some(9_999), None, EndReason::NotPlaced),
            (None, None, None, EndReason::NotPlaced),
        ] {
            let outcome = Outcome {
                code,
                subcode,
                sip,
                message: String::new(),
            };
            assert_eq!(unanswered(&outcome), reason, "{outcome:?}");
        }
    }
}
