//! Twilio is asked for a call, or which one it has placed.

use std::{error::Error, time::Duration};

use crate::{
    call::CarrierCallId,
    carrier::{
        Fate,
        twilio::{CallError, Listed, NewCall, hint},
    },
    gateway::Gateway,
    outbound::{
        marker,
        rows::{self, Row},
    },
};

/// By how much the carrier's clock may be behind ours.
const SKEW_MS: i64 = 5_000;

/// What Twilio is asked with, by value.
struct Asking<'a> {
    row: &'a Row,
    answer_url: String,
    status_url: String,
    longest: Duration,
}

/// Asks Twilio for a call.
///
/// # Errors
/// If it is not placed, or nobody knows.
pub async fn ask(gateway: &Gateway, row: &Row) -> Result<CarrierCallId, Fate> {
    let Some(twilio) = &gateway.outbound.twilio else {
        return Err(Fate::Refused);
    };
    let asked = twilio.place(&new_call(gateway, row).form()).await;
    asked.map_err(|error| {
        log(&error);
        error.fate()
    })
}

fn new_call<'a>(gateway: &Gateway, row: &'a Row) -> Asking<'a> {
    let marker = marker(gateway, row);
    Asking {
        row,
        answer_url: gateway.public.outbound_call(&marker).to_string(),
        status_url: gateway.public.outbound_status(&marker).to_string(),
        longest: row.terms.lasts_at_most(gateway.longest_call),
    }
}

impl Asking<'_> {
    fn form(&self) -> NewCall<'_> {
        NewCall {
            to: &self.row.to,
            from: &self.row.from,
            answer_url: &self.answer_url,
            status_url: &self.status_url,
            ring_for: self.row.terms.ring_for(),
            longest: self.longest,
            detection: self.row.terms.twilio_detection(),
        }
    }
}

/// Asks the carrier for calls between the two numbers that it was asked for since, and that are
/// nobody's yet: a number is called once at a time, so there is one at most.
pub async fn look_for(
    gateway: &Gateway,
    row: &Row,
) -> Result<Option<Listed>, Box<dyn Error + Send + Sync>> {
    let Some(twilio) = &gateway.outbound.twilio else {
        return Ok(None); // There is nobody to ask, and nobody who would place another.
    };
    let mut listed = twilio.list(&row.to, &row.from).await?;
    let since = row.dialed_at.unwrap_or(row.created_at) - SKEW_MS;
    listed.retain(|it| it.created_at.is_none_or(|at| at >= since));
    let names = listed.iter().map(|it| it.call.clone()).collect();
    let known = rows::known(&gateway.records.database, names).await?;
    listed.retain(|it| !known.iter().any(|known| known == it.call.as_str()));
    Ok(listed.pop()) // The oldest.
}

fn log(error: &CallError) {
    let (what, code) = (error.as_str(), error.code());
    let hint = code.map_or("", hint);
    let error = error as &dyn std::error::Error;
    tracing::warn!(error, what, code, hint, "Twilio has not placed a call");
}
