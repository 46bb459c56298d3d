//! Calls that we have placed: somebody picks up, and their status changes.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use tracing::Instrument;

use super::{Form, FromForm, Signed, twiml};
use crate::{
    answer::{Answer, CallDetails},
    call::{CallerId, CarrierCallId},
    gateway::Gateway,
    outbound::{Marker, Progress, open, picked_up, progressed, span_of_placed},
    webhook::WebhookError,
};

/// `POST /webhook/outbound_call/{call}`.
pub struct PickedUp {
    id: CarrierCallId,
    to: CallerId,
    answered_by: Option<String>,
}

/// `POST /webhook/outbound_status/{call}`.
pub struct Status {
    id: CarrierCallId,
    progress: Progress,
    lasted: Option<Duration>,
}

/// Somebody, or something, has picked up a call: answers with TwiML.
pub async fn answered(
    Signed(call): Signed<PickedUp>,
    marker: web::Path<String>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    gateway.metrics.webhook("outbound_call");
    let Some(marker) = open(&gateway, &marker) else {
        return twiml(&gateway, &Answer::HangUp, None, &CallDetails::default());
    };
    let by = call.answered_by.as_deref();
    let span = span_of_placed(&gateway, &marker, &call.id);
    let deciding = picked_up(&gateway, &marker, &call.id, &call.to, by);
    let (answer, campaign) = deciding.instrument(span).await;
    twiml(&gateway, &answer, Some(&campaign), &CallDetails::default())
}

/// A placed call's status changed.
pub async fn status(
    Signed(call): Signed<Status>,
    marker: web::Path<String>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    gateway.metrics.webhook("outbound_status");
    let marker: Option<Marker> = open(&gateway, &marker);
    if let Some(marker) = marker {
        let span = span_of_placed(&gateway, &marker, &call.id);
        let noting = progressed(&gateway, &marker, &call.id, call.progress, call.lasted);
        noting.instrument(span).await;
    }
    HttpResponse::NoContent().finish()
}

impl FromForm for PickedUp {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        Ok(Self {
            id: form.call_id()?,
            to: CallerId::read(form.field("To").unwrap_or_default()),
            answered_by: form.field("AnsweredBy").map(str::to_owned),
        })
    }
}

impl FromForm for Status {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        let status = form
            .field("CallStatus")
            .ok_or(WebhookError::BadField("CallStatus"))?;
        let seconds = form
            .field("CallDuration")
            .and_then(|text| text.parse().ok());
        Ok(Self {
            id: form.call_id()?,
            progress: Progress::read(status),
            lasted: seconds.map(Duration::from_secs),
        })
    }
}
