//! A call that an agent has handed over: what its caller hears where nobody has answered there.
//! twilio.com/docs/voice/twiml/dial.

use actix_web::{HttpResponse, web};

use super::{Form, FromForm, Signed, twiml};
use crate::{
    answer::{Answer, CallDetails},
    call::{CallerId, CarrierCallId},
    gateway::Gateway,
    record::What,
    webhook::WebhookError,
};

/// `POST /webhook/transfer_ended`.
pub struct TransferEnded {
    id: CarrierCallId,
    to: CallerId,
    fate: Fate,
}

/// What became of a call that was handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Somebody has answered it, and it is over.
    Answered,
    /// Nobody has, for the reason that Twilio gives.
    NotAnswered(&'static str),
}

/// Ends the call, after an apology where the caller has reached nobody.
pub async fn ended(
    Signed(transfer): Signed<TransferEnded>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    gateway.metrics.webhook("transfer_ended");
    let answered = transfer.fate == Fate::Answered;
    let step = What::TransferEnded { answered };
    gateway.timeline.step(&transfer.id, step);
    let answer = match transfer.fate {
        Fate::Answered => Answer::HangUp,
        Fate::NotAnswered(why) => {
            gateway.span_of(&transfer.id).in_scope(|| {
                tracing::warn!(why, "nobody took a call that was handed over");
            });
            Answer::Apology
        }
    };
    let campaign = gateway.campaigns.current().answering(&transfer.to);
    let details = CallDetails::default();
    twiml(&gateway, &answer, campaign.as_ref(), &details)
}

impl FromForm for TransferEnded {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        let status = form.field("DialCallStatus").unwrap_or_default();
        Ok(Self {
            id: form.call_id()?,
            to: CallerId::read(form.field("To").unwrap_or_default()),
            fate: match status {
                "completed" | "answered" => Fate::Answered,
                "busy" => Fate::NotAnswered("busy"),
                "no-answer" => Fate::NotAnswered("no-answer"),
                "canceled" => Fate::NotAnswered("canceled"),
                "failed" => Fate::NotAnswered("failed"),
                "" => return Err(WebhookError::BadField("DialCallStatus")),
                _ => Fate::NotAnswered("unknown"),
            },
        })
    }
}
