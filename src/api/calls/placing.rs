//! Calls that a program begins and ends.

use std::time::Duration;

use actix_web::{HttpResponse, http::header, web::Data};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::Instrument;
use utoipa::ToSchema;

use crate::{
    admission::{Reason, Refusal},
    api::{
        Action, ApiError, Asked, Change, Code, Json, OfCall, Once, Reached, RequestId,
        calls::stored, document::Refusals, scope::CallsWrite,
    },
    call::CarrierCallId,
    gateway::Gateway,
    outbound::{self, Asker, MachineDetection, Placed, Refused, WhenMachine},
    record::{OVER, State, date},
};

/// How soon a slot may be free: calls last longer than that, but one of many ends at any time.
const FULL_FOR: Duration = Duration::from_secs(5);

/// A call that is to be placed.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "the document is made of it; what comes is read by what places calls"
)]
pub struct NewCall {
    /// The number to call, in E.164 form.
    #[schema(min_length = 1, max_length = 64, example = "+972502345678")]
    to: String,
    /// Who calls: a number of the campaign's, or `OUTBOUND_FROM`, which is the default.
    #[schema(min_length = 1, max_length = 64)]
    from: Option<String>,
    /// Whose call it is: its language, agent and caps. Default: the tenant's only one.
    #[schema(min_length = 1, max_length = 64)]
    campaign: Option<String>,
    agent: Option<AgentOverrides>,
    /// Kept with the call, and told with its events; at most 4096 bytes.
    metadata: Option<Map<String, Value>>,
    /// For how many seconds it rings.
    #[schema(minimum = 5, maximum = 120, default = 30)]
    ring_timeout: Option<u64>,
    machine_detection: Option<MachineDetection>,
    when_machine: Option<WhenMachine>,
}

/// What this call's agent does otherwise than its campaign's.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "as above")]
pub struct AgentOverrides {
    #[schema(min_length = 1, max_length = 16_000)]
    instructions: Option<String>,
    #[schema(min_length = 1, max_length = 64)]
    voice: Option<String>,
    #[schema(min_length = 1, max_length = 2_000)]
    greeting: Option<String>,
}

/// A call that is going to be placed.
#[derive(Serialize, ToSchema)]
pub struct PlacedCall {
    #[schema(format = "uuid")]
    call_id: String,
    /// As it was when the call was asked for: `queued`.
    state: String,
    to: String,
    from: String,
    campaign: String,
    #[schema(format = DateTime)]
    created_at: String,
}

/// Place a call, once for each `Idempotency-Key`: who asks again by it gets the first answer.
#[utoipa::path(
    post, path = "/v1/calls", tag = "calls", operation_id = "place_call",
    params((
        "Idempotency-Key" = String, Header,
        description = "Another one for each call: 1 to 255 visible ASCII characters",
        pattern = "^[!-~]{1,255}$"
    )),
    request_body = NewCall, security(("key" = ["calls:write"])),
    responses(
        (
            status = 201, description = "It is going to be placed", body = PlacedCall,
            headers(("Location" = String, description = "Where it is shown"))
        ),
        Refusals
    )
)]
pub async fn place(
    asked: Asked<CallsWrite, Once<Json>>,
    request: RequestId,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let Once(name, Json(body)) = asked.input;
    let key = asked.key;
    let change = Change::by_key(&key, &request, Action::PlaceCall, "");
    let tasks = gateway.calls().clone();
    let placing = async move {
        let asker = Asker {
            tenant: key.tenant().name(),
            api_key: key.id().as_str(),
            change: &change,
        };
        outbound::place(&gateway, asker, &name, &body).await
    };
    // Whoever asks may go away meanwhile; what was begun for it must still be placed or given back.
    let placed = tasks.spawn(placing.in_current_span()).await;
    let placed = placed.map_err(|error| {
        tracing::error!(%error, "placing a call has broken off");
        ApiError::new(Code::Internal, "something is wrong here, and is in the log")
    })??;
    let answer = PlacedCall::from(placed);
    let location = (header::LOCATION, format!("/v1/calls/{}", answer.call_id));
    Ok(HttpResponse::Created().insert_header(location).json(answer))
}

/// Hang up a call, whoever has begun it. One that is over stays as it is, unless its agent has handed it
/// over: then it is ended at its carrier, as long as that can be told to.
#[utoipa::path(
    delete, path = "/v1/calls/{call}", tag = "calls", operation_id = "hang_up_call",
    params(("call" = String, Path, description = "`call_id` of a call", format = "uuid")),
    security(("key" = ["calls:write"])),
    responses((status = 202, description = "It is being hung up, or over", body = HungUp), Refusals)
)]
pub async fn hang_up(
    asked: Asked<CallsWrite, OfCall>,
    request: RequestId,
    gateway: Data<Gateway>,
) -> Result<HttpResponse, ApiError> {
    let OfCall(call, ()) = asked.input;
    let database = &gateway.records.database;
    let found = stored::find(database, asked.key.tenant(), call, false).await?;
    let found = found.ok_or_else(|| ApiError::not_found("call"))?;
    let answer = HttpResponse::Accepted().json(HungUp {
        call_id: call.to_string(),
    });
    let Ok(name) = CarrierCallId::try_from(found.carrier_call_id) else {
        return Err(ApiError::not_found("call"));
    };
    let state: Option<State> = found.state.parse().ok();
    let is_over = state.is_some_and(|state| state.rank() >= OVER);
    if is_over && !outbound::goes_on_elsewhere(&gateway, call, &name).await? {
        return Ok(answer);
    }
    let change = Change::by_key(&asked.key, &request, Action::HangUp, &call.to_string());
    // Its state says that it is over only some time later.
    let change = change.once();
    let noting = database.write(move |writing| Box::pin(async move { change.note(writing).await }));
    noting.await?;
    let tasks = gateway.calls().clone();
    let ending = async move { outbound::hang_up(&gateway, call, &name).await };
    tasks.spawn(ending.in_current_span());
    Ok(answer)
}

/// A call that is being hung up, or is over.
#[derive(Serialize, ToSchema)]
pub struct HungUp {
    #[schema(format = "uuid")]
    call_id: String,
}

impl From<Placed> for PlacedCall {
    fn from(placed: Placed) -> Self {
        Self {
            call_id: placed.id,
            state: placed.state.to_owned(),
            to: placed.to,
            from: placed.from,
            campaign: placed.campaign,
            created_at: date(placed.created_at),
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid { field, message } if field.is_empty() => {
                Self::new(Code::InvalidRequest, message)
            }
            Refused::Invalid { field, message } => Self::field(field, message),
            Refused::OtherBody => {
                let message = "this Idempotency-Key came with another body: take another key";
                Self::new(Code::IdempotencyKeyReused, message)
            }
            Refused::Closed(unset) => {
                let message = format!("no calls are placed here: {unset}");
                Self::new(Code::OutboundClosed, message)
            }
            Refused::Full(refusal) => full(&refusal),
            Refused::TooMany {
                cap,
                value,
                used,
                again_in,
            } => Self::new(Code::RateLimitExceeded, sentence(cap, value))
                .reached(Reached { cap, value, used })
                .retry_after(again_in),
            Refused::Spent {
                cap,
                value,
                used,
                again_in,
            } => Self::new(Code::UsageCapExceeded, sentence(cap, value))
                .reached(Reached {
                    cap,
                    value,
                    used: Some(used),
                })
                .retry_after(again_in),
            Refused::Unavailable { again_in } => {
                let message = "no call can be placed for the moment, and none was";
                Self::new(Code::Unavailable, message).retry_after(again_in)
            }
            Refused::NotKnownYet { again_in } => {
                let message = "whether this call is placed is not known yet: ask again by the same \
                    Idempotency-Key";
                Self::new(Code::Unavailable, message).retry_after(again_in)
            }
        }
    }
}

/// Says what there is no room in.
fn full(refusal: &Refusal) -> ApiError {
    let cap = refusal.scope.kind();
    match refusal.reason {
        Reason::Full | Reason::Outage | Reason::Connections | Reason::Dials | Reason::Tokens => {
            let (value, used) = (refusal.cap, Some(refusal.used));
            ApiError::new(Code::RateLimitExceeded, sentence(cap, value)).reached(Reached {
                cap,
                value,
                used,
            })
        }
        Reason::Draining | Reason::IntakeStopped | Reason::Resting => {
            let message = "no call can be placed for the moment: the gateway ends, its operators \
                take no calls, or the agent rests";
            ApiError::new(Code::Unavailable, message)
        }
    }
    .because(refusal.reason.as_str())
    .retry_after(FULL_FOR)
}

fn sentence(cap: &str, value: u32) -> String {
    format!("the cap {cap} of {value} is reached")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::{
        admission::Scope,
        outbound::{AGENT_FIELDS, FIELDS, Request, number::Countries},
    };

    fn schema(name: &str) -> Value {
        let document: Value = serde_json::from_str(&crate::api::document::text()).unwrap();
        document["components"]["schemas"][name].clone()
    }

    fn told(name: &str) -> Value {
        schema(name)["properties"].clone()
    }

    #[test]
    fn the_document_says_what_is_read_and_within_the_same_bounds() {
        for (schema, fields) in [("NewCall", &FIELDS[..]), ("AgentOverrides", &AGENT_FIELDS)] {
            let told = told(schema);
            let told = told.as_object().unwrap().keys().map(String::as_str);
            let read = fields.iter().copied();
            assert_eq!(told.collect::<BTreeSet<_>>(), read.collect());
            // Whoever misspells a field is refused, and the document says so.
            assert_eq!(self::schema(schema)["additionalProperties"], false);
        }
        let rings = &told("NewCall")["ring_timeout"];
        let agent = told("AgentOverrides");
        let longest = |name: &str| {
            agent[name]["maxLength"]
                .as_u64()
                .unwrap()
                .try_into()
                .unwrap()
        };
        let most = json!({"to": "+1", "ring_timeout": rings["maximum"], "agent": {
            "instructions": "x".repeat(longest("instructions")),
            "voice": "x".repeat(longest("voice")),
            "greeting": "x".repeat(longest("greeting")),
        }});
        let least = json!({"to": "+1", "ring_timeout": rings["minimum"], "agent": {
            "instructions": "x", "voice": "x", "greeting": "x",
        }});
        for body in [&most, &least] {
            assert!(Request::read(body).is_ok(), "{body}");
        }
        for name in AGENT_FIELDS {
            let mut body = most.clone();
            body["agent"][name] = format!("{}x", body["agent"][name].as_str().unwrap()).into();
            assert!(Request::read(&body).is_err(), "{name}");
        }
        for (bound, beyond) in [("maximum", 1), ("minimum", -1)] {
            let seconds = rings[bound].as_i64().unwrap() + beyond;
            let body = json!({"to": "+1", "ring_timeout": seconds});
            assert!(Request::read(&body).is_err(), "{body}");
        }
    }

    #[test]
    fn the_documents_example_of_a_number_may_be_called() {
        let example = told("NewCall")["to"]["example"].clone();
        let countries: Countries = "IL".parse().unwrap();
        assert!(
            countries.read(example.as_str().unwrap()).is_ok(),
            "{example}"
        );
    }

    #[test]
    fn whose_call_may_be_placed_is_not_told_that_none_was() {
        let again_in = Duration::from_secs(2);
        for (refused, told) in [
            (Refused::Unavailable { again_in }, "and none was"),
            (Refused::NotKnownYet { again_in }, "not known yet"),
        ] {
            let error = ApiError::from(refused);
            assert_eq!(error.code(), Code::Unavailable);
            assert!(error.to_string().contains(told), "{error}");
            let answer = error.answer("r-1");
            assert_eq!(answer.headers().get(header::RETRY_AFTER).unwrap(), "2");
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table of refusals")]
    fn every_refusal_has_a_code_of_its_own_and_says_when_to_ask_again() {
        let again_in = Duration::from_millis(1_200);
        let full = |reason| {
            Refused::Full(Refusal {
                reason,
                scope: Scope::Outbound,
                used: 3,
                cap: 4,
            })
        };
        for (refused, status, retry_after, expected) in [
            (
                Refused::Invalid {
                    field: String::new(),
                    message: "the body is a JSON object".to_owned(),
                },
                400,
                None,
                json!({"code": "invalid_request"}),
            ),
            (
                Refused::Invalid {
                    field: "agent.voice".to_owned(),
                    message: "a text".to_owned(),
                },
                400,
                None,
                json!({"code": "invalid_request", "field": "agent.voice"}),
            ),
            (
                Refused::OtherBody,
                409,
                None,
                json!({"code": "idempotency_key_reused"}),
            ),
            (
                Refused::Closed("TWILIO_ACCOUNT_SID".to_owned()),
                409,
                None,
                json!({"code": "outbound_closed"}),
            ),
            (
                full(Reason::Full),
                429,
                Some("5"),
                json!({
                    "code": "rate_limit_exceeded", "reason": "full",
                    "cap": "outbound", "value": 4, "used": 3,
                }),
            ),
            (
                full(Reason::Resting),
                503,
                Some("5"),
                json!({"code": "unavailable", "reason": "resting"}),
            ),
            (
                Refused::TooMany {
                    cap: "calls_per_second",
                    value: 1,
                    used: Some(1),
                    again_in,
                },
                429,
                Some("2"),
                json!({
                    "code": "rate_limit_exceeded",
                    "cap": "calls_per_second", "value": 1, "used": 1,
                }),
            ),
            (
                Refused::TooMany {
                    cap: "calls_to_one_number_at_a_time",
                    value: 1,
                    used: None,
                    again_in,
                },
                429,
                Some("2"),
                json!({
                    "code": "rate_limit_exceeded",
                    "cap": "calls_to_one_number_at_a_time", "value": 1,
                }),
            ),
            (
                Refused::Spent {
                    cap: "minutes_of_the_day",
                    value: 5,
                    used: 6,
                    again_in,
                },
                429,
                Some("2"),
                json!({
                    "code": "usage_cap_exceeded",
                    "cap": "minutes_of_the_day", "value": 5, "used": 6,
                }),
            ),
            (
                Refused::Unavailable { again_in },
                503,
                Some("2"),
                json!({"code": "unavailable"}),
            ),
        ] {
            let answer = ApiError::from(refused).answer("r-1");
            assert_eq!(answer.status(), status, "{expected}");
            let wait = answer.headers().get(header::RETRY_AFTER);
            assert_eq!(
                wait.map(|it| it.to_str().unwrap()),
                retry_after,
                "{expected}"
            );
            let body = actix_web::body::to_bytes(answer.into_body());
            let body = futures_util::FutureExt::now_or_never(body)
                .unwrap()
                .unwrap();
            let mut told: Value = serde_json::from_slice(&body).unwrap();
            let told = told["error"].as_object_mut().unwrap();
            let message = told.remove("message").unwrap();
            assert!(message.as_str().unwrap().len() > 10, "{expected}");
            told.remove("request_id");
            assert_eq!(Value::Object(told.clone()), expected);
        }
    }
}
