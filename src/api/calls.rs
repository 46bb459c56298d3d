//! Calls, as their tenant sees them: listed, and each with its timeline and its transcript. New ones
//! are placed, and live ones are hung up.

pub mod placing;
mod search;
pub mod stored;

use std::str::FromStr;

use actix_web::web::{Data, Json};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{ObjectBuilder, Schema, Type},
};

use crate::{
    api::{
        ApiError, Asked, Fields, FromFields, OfCall, Query, Scope,
        document::Refusals,
        scope::{CallsRead, TranscriptsRead},
    },
    call::WholeId,
    campaign::Name,
    gateway::Gateway,
    record::{Direction, State},
};

pub use search::{SEEN_AT_ONCE, push_of_number};
pub use stored::Cursor;
#[cfg(any(test, feature = "bench"))]
pub use stored::{list as page, plan};

/// How many calls a page has, and has at most.
const PAGE: u32 = 50;
const LONGEST_PAGE: u32 = 200;
/// The longest reason that is asked for, in characters.
const LONGEST_REASON: usize = 64;

/// Why a call ended or was refused, in one word; which words there are grows with the versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(String); // Invariant: 1 to 64 of a-z and `_`.

/// Which calls to list.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Calls of this campaign.
    #[param(value_type = Option<String>, pattern = "^[a-z0-9_-]{1,64}$")]
    pub campaign: Option<Name>,
    /// Calls in this state.
    #[param(schema_with = states)]
    pub state: Option<State>,
    /// `inbound`, or `outbound` for those that were placed by `POST /v1/calls`.
    #[param(schema_with = directions)]
    pub direction: Option<Direction>,
    /// Calls that ended, or were refused, for this reason.
    #[param(value_type = Option<String>, pattern = "^[a-z_]{1,64}$")]
    pub reason: Option<Reason>,
    /// Calls from or to this number, all of it, in E.164 form, or address (`sip:…`, `client:…`). The
    /// key needs `numbers:read` too.
    #[param(schema_with = whole_id)]
    pub number: Option<WholeId>,
    /// Calls that rang at this time or later.
    #[param(value_type = Option<String>, format = DateTime)]
    pub from: Option<Timestamp>,
    /// Calls that rang before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<Timestamp>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    pub cursor: Option<Cursor>,
    /// How many to list at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    pub limit: Option<u32>,
}

/// A page of calls, the latest first.
#[derive(Serialize, ToSchema)]
pub struct CallPage {
    pub calls: Vec<Call>,
    /// Where the next page begins; nothing on the last one.
    pub next_cursor: Option<String>,
}

/// What is known of a call.
#[derive(Debug, Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the fields' names are the API's")]
pub struct Call {
    #[schema(format = "uuid")]
    pub call_id: String,
    /// Twilio's CallSid, or the correlation id of ACS.
    pub carrier_call_id: String,
    /// `twilio`, `acs` or `web`.
    pub carrier: String,
    #[schema(schema_with = direction)]
    pub direction: String,
    pub campaign: Option<String>,
    /// Who talks with the caller; nobody if the call was refused.
    pub agent: Option<String>,
    /// Masked, unless the key has `numbers:read` too: then as much of the number as is kept.
    pub caller: Option<String>,
    /// Masked, unless the key has `numbers:read` too: then as much of the number as is kept.
    pub called: Option<String>,
    #[schema(schema_with = state)]
    pub state: String,
    /// Why it ended, or was refused.
    pub reason: Option<String>,
    /// Whose doing its end was.
    pub blame: Option<String>,
    /// Which cap was full, of a refused call.
    pub full_scope: Option<String>,
    /// What its caller was offered for whom there was no room: `reject`, `voicemail` or `whatsapp`.
    pub offered: Option<String>,
    /// What was given with `POST /v1/calls`.
    pub metadata: Option<Value>,
    #[schema(format = DateTime)]
    pub rang_at: String,
    #[schema(format = DateTime)]
    pub connected_at: Option<String>,
    #[schema(format = DateTime)]
    pub ended_at: Option<String>,
    /// How long its media was bridged, in milliseconds.
    pub talked_ms: Option<i64>,
}

/// What happened to a call, in order.
#[derive(Serialize, ToSchema)]
pub struct CallTimeline {
    #[schema(format = "uuid")]
    pub call_id: String,
    pub timeline: Vec<Moment>,
    /// Whether what was said is in it, for which the key needs `transcripts:read` too.
    pub has_words: bool,
    /// Whether there is more than a timeline holds.
    pub is_cut: bool,
}

/// One entry of a timeline.
#[derive(Debug, Serialize, ToSchema)]
pub struct Moment {
    #[schema(format = DateTime)]
    pub at: String,
    /// `said` for words, else the step's name, such as `admitted` or `ended`.
    pub what: String,
    /// What else there is to say of a step.
    pub details: Option<Value>,
    /// Who said the words: `caller` or `agent`.
    pub who: Option<String>,
    /// The words.
    pub text: Option<String>,
}

/// What was said in a call.
#[derive(Serialize, ToSchema)]
#[expect(clippy::struct_field_names, reason = "the fields' names are the API's")]
pub struct Transcript {
    #[schema(format = "uuid")]
    pub call_id: String,
    pub transcript: Vec<Words>,
    /// Whether more was said than a transcript holds.
    pub is_cut: bool,
}

/// One utterance.
#[derive(Debug, Serialize, ToSchema)]
pub struct Words {
    #[schema(format = DateTime)]
    pub at: String,
    /// `caller` or `agent`.
    pub who: String,
    pub text: String,
}

/// List calls, the latest first.
#[utoipa::path(
    get, path = "/v1/calls", tag = "calls", operation_id = "list_calls",
    params(Wanted), security(("key" = ["calls:read"])),
    responses((status = 200, description = "A page of calls", body = CallPage), Refusals)
)]
pub async fn list(
    asked: Asked<CallsRead, Query<Wanted>>,
    gateway: Data<Gateway>,
) -> Result<Json<CallPage>, ApiError> {
    let Query(wanted) = asked.input;
    let whole = asked.key.may(Scope::NumbersRead);
    let found_by = match &wanted.number {
        None => None,
        // Whoever can ask for any number can find out whose it is.
        Some(_) if !whole => return Err(ApiError::lacks(asked.key.id(), Scope::NumbersRead)),
        Some(number) => {
            let found_by = gateway.records.numbers.found_by(number.reveal());
            Some(found_by.ok_or_else(not_findable)?)
        }
    };
    let database = &gateway.api.asking(asked.key.tenant())?;
    let page = stored::list(database, asked.key.tenant(), wanted, found_by, whole);
    Ok(Json(page.await?))
}

/// Show a call.
#[utoipa::path(
    get, path = "/v1/calls/{call}", tag = "calls", operation_id = "show_call",
    params(("call" = String, Path, description = "`call_id` of a call", format = "uuid")),
    security(("key" = ["calls:read"])),
    responses((status = 200, description = "The call", body = Call), Refusals)
)]
pub async fn show(
    asked: Asked<CallsRead, OfCall>,
    gateway: Data<Gateway>,
) -> Result<Json<Call>, ApiError> {
    let OfCall(call, ()) = asked.input;
    let database = &gateway.api.asking(asked.key.tenant())?;
    let whole = asked.key.may(Scope::NumbersRead);
    let found = stored::find(database, asked.key.tenant(), call, whole).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("call"))
}

/// Show what happened to a call, step by step, with what was said where the key may read it.
#[utoipa::path(
    get, path = "/v1/calls/{call}/timeline", tag = "calls", operation_id = "show_timeline",
    params(("call" = String, Path, description = "`call_id` of a call", format = "uuid")),
    security(("key" = ["calls:read"])),
    responses((status = 200, description = "Its timeline", body = CallTimeline), Refusals)
)]
pub async fn timeline(
    asked: Asked<CallsRead, OfCall>,
    gateway: Data<Gateway>,
) -> Result<Json<CallTimeline>, ApiError> {
    let OfCall(call, ()) = asked.input;
    let has_words = asked.key.may(Scope::TranscriptsRead);
    let database = &gateway.api.asking(asked.key.tenant())?;
    let found = stored::timeline(database, asked.key.tenant(), call, has_words).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("call"))
}

/// Show what was said in a call.
#[utoipa::path(
    get, path = "/v1/calls/{call}/transcript", tag = "calls", operation_id = "show_transcript",
    params(("call" = String, Path, description = "`call_id` of a call", format = "uuid")),
    security(("key" = ["transcripts:read"])),
    responses((status = 200, description = "Its transcript", body = Transcript), Refusals)
)]
pub async fn transcript(
    asked: Asked<TranscriptsRead, OfCall>,
    gateway: Data<Gateway>,
) -> Result<Json<Transcript>, ApiError> {
    let OfCall(call, ()) = asked.input;
    let database = &gateway.api.asking(asked.key.tenant())?;
    let found = stored::transcript(database, asked.key.tenant(), call).await?;
    found.map(Json).ok_or_else(|| ApiError::not_found("call"))
}

/// What whoever asks for a number is told where records keep nothing by which it could be found.
pub fn not_findable() -> ApiError {
    let rule = "numbers are kept masked here, so none can be found (RECORD_NUMBERS)";
    ApiError::field("number", rule)
}

impl FromStr for Reason {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        if (1..=LONGEST_REASON).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(())
        }
    }
}

impl Reason {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            reason: fields.parsed::<Reason>("reason", "a reason, such as caller_hung_up")?,
            campaign: fields.parsed("campaign", "a campaign's name: a-z, 0-9, - and _")?,
            state: fields.parsed("state", &one_of(&State::ALL.map(State::as_str)))?,
            direction: fields
                .parsed("direction", &one_of(&Direction::ALL.map(Direction::as_str)))?,
            number: fields.parsed("number", NUMBER_RULE)?,
            from: fields.parsed("from", TIME_RULE)?,
            to: fields.parsed("to", TIME_RULE)?,
            cursor: fields.parsed(
                "cursor",
                "next_cursor of the page before, letter for letter",
            )?,
            limit: fields.number("limit", 1..=LONGEST_PAGE)?,
        })
    }
}

/// What a number in a query has to be.
pub const NUMBER_RULE: &str = "a whole number in E.164 form, such as +972501234567 (its + is %2B in a query), or an address of \
     at most 64 characters, sip:… or client:…";
/// What a time in a query has to be.
pub const TIME_RULE: &str = "a time with its offset, such as 2026-03-01T00:00:00Z";

fn one_of(values: &[&str]) -> String {
    format!("one of {}", values.join(", "))
}

fn closed(values: impl IntoIterator<Item = &'static str>) -> Schema {
    let texts = ObjectBuilder::new().schema_type(Type::String);
    texts.enum_values(Some(values)).into()
}

/// What a number or an address in a query is.
pub fn whole_id() -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.pattern(Some(WholeId::PATTERN)).into()
}

fn states() -> Schema {
    closed(State::ALL.map(State::as_str))
}

fn state() -> Schema {
    states()
}

fn directions() -> Schema {
    closed(Direction::ALL.map(Direction::as_str))
}

fn direction() -> Schema {
    directions()
}
