//! A refused caller leaves a message: what they hear then, and what became of the recording.
//!
//! Two requests tell of a message, in any order. `<Record action>` only asks how the call goes on:
//! by then there may be no file. What became of the recording is told to its status callback.
//! twilio.com/docs/voice/twiml/record.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use tracing::Instrument;

use super::{Form, FromForm, Signed, twiml};
use crate::{
    answer::{Answer, CallDetails},
    call::{CallerId, CarrierCallId},
    gateway::Gateway,
    recording::{Recording, RecordingId, read_url},
    webhook::WebhookError,
};

/// `POST /webhook/voicemail`.
pub struct MessageLeft {
    to: CallerId,
}

/// `POST /webhook/recording_status`.
pub struct RecordingStatus {
    call: CarrierCallId,
    fate: Fate,
}

/// What became of a recording.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Completed(Recording),
    /// There is none, for the reason that Twilio gives.
    Lost(RecordingId, &'static str),
    /// It goes on, or has a status that is newer than this program.
    Underway,
}

/// A caller has left a message, or said nothing: thanks and ends the call.
pub async fn left(
    Signed(message): Signed<MessageLeft>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    gateway.metrics.webhook("voicemail");
    let campaign = gateway.campaigns.current().answering(&message.to);
    let answer = Answer::VoicemailThanks;
    twiml(
        &gateway,
        &answer,
        campaign.as_ref(),
        &CallDetails::default(),
    )
}

/// A recording is complete, or will never be.
pub async fn recorded(
    Signed(status): Signed<RecordingStatus>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    gateway.metrics.webhook("recording_status");
    match status.fate {
        Fate::Completed(recording) => {
            let keeping = gateway.keep_recording(&status.call, &recording);
            keeping.instrument(gateway.span_of(&status.call)).await;
        }
        Fate::Lost(recording, why) => gateway.lose_recording(&status.call, &recording, why),
        Fate::Underway => {}
    }
    HttpResponse::NoContent().finish()
}

impl FromForm for MessageLeft {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        form.call_id()?;
        Ok(Self {
            to: CallerId::read(form.field("To").unwrap_or_default()),
        })
    }
}

impl FromForm for RecordingStatus {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        let status = form.field("RecordingStatus").unwrap_or_default();
        let id = RecordingId::read(form.field("RecordingSid").unwrap_or_default())
            .ok_or(WebhookError::BadField("RecordingSid"))?;
        let fate = match status {
            "completed" => Fate::Completed(Recording {
                id,
                url: read_url(form.field("RecordingUrl").unwrap_or_default())
                    .ok_or(WebhookError::BadField("RecordingUrl"))?,
                duration: duration(form.field("RecordingDuration").unwrap_or_default())
                    .ok_or(WebhookError::BadField("RecordingDuration"))?,
            }),
            "failed" => Fate::Lost(id, "failed"),
            "absent" => Fate::Lost(id, "absent"),
            "" => return Err(WebhookError::BadField("RecordingStatus")),
            _ => Fate::Underway,
        };
        Ok(Self {
            call: form.call_id()?,
            fate,
        })
    }
}

fn duration(text: &str) -> Option<Duration> {
    let seconds: u32 = text.parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "RE0123456789abcdef0123456789abcdef";
    const URL: &str = "https://api.twilio.com/2010-04-01/Accounts/AC1/Recordings/RE1";

    fn read(changed: (&str, &str)) -> Result<Fate, WebhookError> {
        let fields = [
            ("CallSid", "CA1"),
            ("RecordingSid", ID),
            ("RecordingUrl", URL),
            ("RecordingDuration", "7"),
            ("RecordingStatus", "completed"),
        ];
        let changed = fields.map(|(name, value)| {
            let value = if name == changed.0 { changed.1 } else { value };
            (name.to_owned(), value.to_owned())
        });
        RecordingStatus::from_form(&Form(changed.into())).map(|status| status.fate)
    }

    #[test]
    fn a_recording_is_read_with_all_that_is_kept_of_it() {
        let id = RecordingId::read(ID).unwrap();
        let recording = Recording {
            id: id.clone(),
            url: URL.parse().unwrap(),
            duration: Duration::from_secs(7),
        };
        assert_eq!(read(("", "")), Ok(Fate::Completed(recording)));
        for (status, fate) in [
            ("failed", Fate::Lost(id.clone(), "failed")),
            ("absent", Fate::Lost(id, "absent")),
            ("in-progress", Fate::Underway),
            ("something-new", Fate::Underway),
        ] {
            assert_eq!(read(("RecordingStatus", status)), Ok(fate));
        }
    }

    #[test]
    fn a_bad_field_is_named() {
        for (field, value) in [
            ("CallSid", "CA*"),
            ("RecordingSid", "RE1"),
            ("RecordingSid", ""),
            ("RecordingUrl", "http://api.twilio.com/"),
            ("RecordingUrl", ""),
            ("RecordingDuration", "-1"),
            ("RecordingDuration", "long"),
            ("RecordingDuration", "99999999999999999999"),
            ("RecordingStatus", ""),
        ] {
            assert_eq!(read((field, value)), Err(WebhookError::BadField(field)));
        }
    }
}
