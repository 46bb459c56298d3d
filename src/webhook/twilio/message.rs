//! What became of a WhatsApp message that Twilio had taken.
//!
//! Most of what is wrong with a template or a number shows only here.
//! twilio.com/docs/messaging/api/message-resource.

use actix_web::{HttpResponse, web};

use super::{Form, FromForm, Signed};
use crate::{
    call::CarrierCallId,
    carrier::{Delivery, MessageId},
    gateway::Gateway,
    webhook::WebhookError,
};

/// `POST /webhook/message_status/{call}`.
pub struct MessageStatus {
    message: MessageId,
    /// `None` while the message is on its way.
    delivery: Option<Delivery>,
}

/// A message's status changed: counts the last word on it, once.
///
/// # Errors
/// If the address names no call.
pub async fn status(
    Signed(status): Signed<MessageStatus>,
    call: web::Path<String>,
    gateway: web::Data<Gateway>,
) -> Result<HttpResponse, WebhookError> {
    gateway.metrics.webhook("message_status");
    let call = CarrierCallId::try_from(call.into_inner());
    let call = call.map_err(|_| WebhookError::BadField("call"))?;
    if let Some(delivery) = status.delivery {
        gateway.note_delivery(&call, &status.message, delivery);
    }
    Ok(HttpResponse::NoContent().finish())
}

impl FromForm for MessageStatus {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        let message = MessageId::read(form.field("MessageSid").unwrap_or_default())
            .ok_or(WebhookError::BadField("MessageSid"))?;
        let code = || form.field("ErrorCode").and_then(|code| code.parse().ok());
        let delivery = match form.field("MessageStatus") {
            Some("delivered" | "read") => Some(Delivery::Delivered),
            Some("undelivered" | "failed") => Some(Delivery::Undelivered { code: code() }),
            Some(_) => None,
            None => return Err(WebhookError::BadField("MessageStatus")),
        };
        Ok(Self { message, delivery })
    }
}
