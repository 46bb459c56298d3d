//! stub
use crate::carrier::acs::CallConnectionId;
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Connected,
    Disconnected,
    AnswerFailed,
    CreateCallFailed,
    MediaStreamingFailed,
    PlayCompleted,
    PlayFailed,
    PlayCanceled,
    Other(String),
}
pub struct Callback {
    pub id: String,
    pub kind: Kind,
    pub connection: CallConnectionId,
    pub correlation: Option<String>,
    pub code: i64,
    pub subcode: i64,
    pub message: String,
    pub streaming_details: Option<String>,
}
pub fn read(_body: &[u8]) -> Result<Vec<Callback>, ()> {
    Ok(Vec::new())
}
