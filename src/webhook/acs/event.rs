//! stub
use crate::call::{CallerId, CarrierCallId};
use jiff::Timestamp;
use secrecy::SecretString;
use std::time::Duration;
pub enum Event {
    Validation { code: String },
    IncomingCall(Box<IncomingCall>),
    Other { kind: String },
    Malformed { what: String },
}
pub struct IncomingCall {
    pub call: CarrierCallId,
    pub from: CallerId,
    pub to: CallerId,
    pub context: SecretString,
    pub time: Option<Timestamp>,
}
impl IncomingCall {
    pub fn age(&self, _now: Timestamp) -> Duration {
        Duration::ZERO
    }
}
pub fn read(_body: &[u8]) -> Result<Vec<Event>, ()> {
    Ok(Vec::new())
}
pub fn consent(
    _headers: &actix_web::http::header::HeaderMap,
) -> Option<Vec<(&'static str, String)>> {
    None
}
