//! Events that an endpoint was not told, and sending them again.

use std::sync::Arc;

use actix_web::web::{Data, Json};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    api::{
        Action, ApiError, Asked, Change, Fields, FromFields, OfEvent, Query, RequestId,
        document::Refusals,
        scope::{EventsRead, EventsWrite},
    },
    campaign::Name,
    event::{self, Cursor, DeadLetter, Outbox},
    gateway::Gateway,
    record::date,
};

const PAGE: u32 = 50;
const LONGEST_PAGE: u32 = 200;

/// Which dead events to list.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>)]
    cursor: Option<Cursor>,
    /// How many to list at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

/// A page of events that are dead for an endpoint, the latest first.
#[derive(Serialize, ToSchema)]
pub struct EventPage {
    events: Vec<DeadEvent>,
    /// Where the next page begins; nothing on the last one.
    next_cursor: Option<String>,
}

/// An event that is not sent to an endpoint any more.
#[derive(Serialize, ToSchema)]
pub struct DeadEvent {
    event_id: String,
    endpoint: String,
    /// What it tells, such as `call.ended`.
    r#type: String,
    #[schema(format = "uuid")]
    call_id: Option<String>,
    tries: i64,
    #[schema(format = DateTime)]
    died_at: String,
    /// What the endpoint answered last; nothing where it did not.
    last_status: Option<i64>,
    /// Why there was no answer.
    last_error: Option<String>,
}

/// To which endpoint to send an event again.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Again {
    /// To this endpoint, even if it was delivered there. Default: to all for which it is dead or
    /// waits for its next try.
    #[param(value_type = Option<String>, pattern = "^[a-z0-9_-]{1,64}$")]
    endpoint: Option<Name>,
}

/// What is sent again.
#[derive(Serialize, ToSchema)]
pub struct Resent {
    event_id: String,
    /// To how many endpoints it is sent again.
    deliveries: u64,
}

/// List the events that are dead for an endpoint, the latest first.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "list_dead_events",
    params(Wanted), security(("key" = ["events:read"])),
    responses((status = 200, description = "A page of events", body = EventPage), Refusals)
)]
pub async fn list(
    asked: Asked<EventsRead, Query<Wanted>>,
    gateway: Data<Gateway>,
) -> Result<Json<EventPage>, ApiError> {
    let Query(wanted) = asked.input;
    let limit = wanted.limit.unwrap_or(PAGE);
    let outbox = Outbox::new(gateway.api.asking(asked.key.tenant())?);
    let tenant = Some(asked.key.tenant().name());
    // One more than is shown tells whether there is another page.
    let mut letters = outbox.list_dead(tenant, wanted.cursor, limit + 1).await?;
    let is_last = letters.len() <= limit as usize;
    letters.truncate(limit as usize);
    let next = letters.last().filter(|_| !is_last);
    Ok(Json(EventPage {
        next_cursor: next.map(|last| last.cursor().to_string()),
        events: letters.into_iter().map(DeadEvent::from).collect(),
    }))
}

/// Send an event again at once, from the first try on.
#[utoipa::path(
    post, path = "/v1/events/{event}/resend", tag = "events", operation_id = "resend_event",
    params(
        ("event" = String, Path, description = "`event_id` of an event", pattern = "^evt_[0-9a-f]{32}$"),
        Again
    ),
    security(("key" = ["events:write"])),
    responses((status = 200, description = "It is sent again", body = Resent), Refusals)
)]
pub async fn resend(
    asked: Asked<EventsWrite, OfEvent<Query<Again>>>,
    request: RequestId,
    gateway: Data<Gateway>,
) -> Result<Json<Resent>, ApiError> {
    let OfEvent(event, Query(Again { endpoint })) = asked.input;
    let change = Change::by_key(&asked.key, &request, Action::ResendEvent, &event);
    let outbox = Outbox::new(gateway.records.database.clone());
    let tenant = Some(asked.key.tenant().name());
    let endpoints = Arc::clone(&gateway.campaigns.endpoints().borrow());
    let resent = outbox.resend(tenant, &event, endpoint.as_ref(), endpoints, change);
    match resent.await? {
        event::Resent::To(deliveries) => Ok(Json(Resent {
            event_id: event,
            deliveries,
        })),
        event::Resent::Nothing => Err(ApiError::not_found("event that could be sent again")),
        event::Resent::NotInForce(endpoint) => {
            let rule = format!(
                "{endpoint} is not in force, so nothing would be sent: it has to be set up again \
                 under this name"
            );
            Err(ApiError::field("endpoint", rule))
        }
    }
}

impl From<DeadLetter> for DeadEvent {
    fn from(letter: DeadLetter) -> Self {
        Self {
            event_id: letter.event,
            endpoint: letter.endpoint,
            r#type: letter.kind,
            call_id: letter.call,
            tries: letter.tries,
            died_at: date(letter.died_at),
            last_status: letter.last_status,
            last_error: letter.last_error,
        }
    }
}

impl FromFields for Wanted {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            cursor: fields.parsed(
                "cursor",
                "next_cursor of the page before, letter for letter",
            )?,
            limit: fields.number("limit", 1..=LONGEST_PAGE)?,
        })
    }
}

impl FromFields for Again {
    fn from_fields(fields: &mut Fields) -> Result<Self, ApiError> {
        Ok(Self {
            endpoint: fields.parsed("endpoint", "an endpoint's name: a-z, 0-9, - and _")?,
        })
    }
}
