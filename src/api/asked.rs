//! The only way into `/v1`: a good key first, and then what it asks.

use std::{future::Future, marker::PhantomData, pin::Pin};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::{StatusCode, header},
    web,
};
use serde_json::Value;

use crate::{
    api::{
        ApiError, ApiKey, Code, Fields, FromFields, json, key::Presented, keyring::Away,
        scope::Need,
    },
    call::CallId,
    event::is_event,
    gateway::{Gateway, address_of},
    operator::bearer,
    webhook::read_body,
};

/// The longest body that is read, in bytes.
const LONGEST_BODY: usize = 64 << 10;
const AWAY_FOR: std::time::Duration = std::time::Duration::from_secs(2);

/// A request whose key is good and has the scope that `S` names; there is no other way to get one.
/// `I` is what it asks with, and is read after that.
pub struct Asked<S, I = ()> {
    pub key: ApiKey,
    pub input: I,
    need: PhantomData<S>,
}

/// What can be read of a request.
pub trait Input: Sized {
    /// # Errors
    /// If a field is missing or wrong.
    fn read(
        request: &HttpRequest,
        payload: Payload,
    ) -> impl Future<Output = Result<Self, ApiError>>;
}

/// The fields of the query.
pub struct Query<T>(pub T);

/// A body of JSON.
pub struct Json(pub Value);

/// What the sender calls this request of its own, and what else is asked. Blank where it has no
/// name: whoever acts on it says what a name has to be.
pub struct Once<I>(pub String, pub I);

/// The call that the path names, and what else is asked.
pub struct OfCall<I = ()>(pub CallId, pub I);

/// The event that the path names, and what else is asked.
pub struct OfEvent<I = ()>(pub String, pub I);

impl<S: Need + 'static, I: Input + 'static> FromRequest for Asked<S, I> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            let gateway = request.app_data::<web::Data<Gateway>>();
            let gateway = gateway.expect("every route is given the gateway");
            let key = proven(&request, gateway).await?;
            if let Some(needed) = S::SCOPE {
                if !key.may(needed) {
                    return Err(ApiError::lacks(key.id(), needed));
                }
                if needed.changes() {
                    gateway.api.changes.count(key.tenant())?;
                }
            }
            tracing::Span::current().record("key.id", key.id().as_str());
            let input = I::read(&request, payload).await?;
            Ok(Self {
                key,
                input,
                need: PhantomData,
            })
        })
    }
}

/// Finds out whose request it is.
async fn proven(request: &HttpRequest, gateway: &Gateway) -> Result<ApiKey, ApiError> {
    let why = match bearer(request) {
        None => "send a key: Authorization: Bearer cg_…",
        Some(text) => match Presented::read(text) {
            None => "this is no key: one begins with cg_, and a typing mistake shows",
            Some(presented) => match gateway.api.keyring.find(&presented).await {
                Ok(Some(stored)) => return Ok(ApiKey::proven(&stored)),
                Ok(None) => "the key is unknown or revoked",
                Err(Away) => {
                    let message = "keys cannot be looked up: the database does not answer";
                    let error = ApiError::new(Code::RecordsUnavailable, message);
                    return Err(error.retry_after(AWAY_FOR));
                }
            },
        },
    };
    gateway.metrics.keyless();
    // Who comes from nowhere shares one place with all who do.
    let address = address_of(request).unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into());
    match gateway.api.failures.count(address) {
        Ok(()) => Err(ApiError::new(Code::Unauthenticated, why)),
        Err(wait) => {
            if gateway.may_warn() {
                tracing::warn!(%address, "too many requests to /v1 without a good key");
            }
            let message = "too many requests without a good key from here";
            Err(ApiError::new(Code::TooManyFailures, message).retry_after(wait))
        }
    }
}

impl Input for () {
    async fn read(request: &HttpRequest, _: Payload) -> Result<Self, ApiError> {
        Fields::of_query(request.query_string())?.finish()
    }
}

impl<T: FromFields> Input for Query<T> {
    async fn read(request: &HttpRequest, _: Payload) -> Result<Self, ApiError> {
        let mut fields = Fields::of_query(request.query_string())?;
        let read = T::from_fields(&mut fields)?;
        fields.finish()?;
        Ok(Self(read))
    }
}

impl Input for Json {
    async fn read(request: &HttpRequest, payload: Payload) -> Result<Self, ApiError> {
        Fields::of_query(request.query_string())?.finish()?;
        if !request
            .content_type()
            .eq_ignore_ascii_case("application/json")
        {
            let message = "send the body as Content-Type: application/json";
            return Err(ApiError::new(Code::UnsupportedMediaType, message));
        }
        let length = request.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|it| it.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > LONGEST_BODY) {
            return Err(too_large());
        }
        let body = read_body(payload, LONGEST_BODY).await.map_err(|error| {
            match actix_web::ResponseError::status_code(&error) {
                StatusCode::PAYLOAD_TOO_LARGE => too_large(),
                StatusCode::REQUEST_TIMEOUT => {
                    ApiError::new(Code::RequestTimeout, error.to_string())
                }
                _ => ApiError::new(Code::InvalidRequest, error.to_string()),
            }
        })?;
        // Where it broke off is of use; what stood there is theirs.
        json::read(&body).map(Self).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let flaw = if error.is_data() {
                "a name is given twice in the body"
            } else {
                "the body is not JSON"
            };
            let message = format!("{flaw}: line {line}, column {column}");
            ApiError::new(Code::InvalidRequest, message)
        })
    }
}

impl<I: Input> Input for Once<I> {
    async fn read(request: &HttpRequest, payload: Payload) -> Result<Self, ApiError> {
        let mut names = request.headers().get_all("idempotency-key");
        let name = names.next().and_then(|name| name.to_str().ok());
        if names.next().is_some() {
            return Err(ApiError::field("Idempotency-Key", "it is given twice"));
        }
        let name = name.unwrap_or_default().to_owned();
        Ok(Self(name, I::read(request, payload).await?))
    }
}

impl<I: Input> Input for OfCall<I> {
    async fn read(request: &HttpRequest, payload: Payload) -> Result<Self, ApiError> {
        // What cannot be a call's name is no call's.
        let call = request
            .match_info()
            .get("call")
            .and_then(|call| call.parse().ok());
        let call = call.ok_or_else(|| ApiError::not_found("call"))?;
        Ok(Self(call, I::read(request, payload).await?))
    }
}

impl<I: Input> Input for OfEvent<I> {
    async fn read(request: &HttpRequest, payload: Payload) -> Result<Self, ApiError> {
        let event = request.match_info().get("event").unwrap_or_default();
        if !is_event(event) {
            return Err(ApiError::not_found("event"));
        }
        Ok(Self(event.to_owned(), I::read(request, payload).await?))
    }
}

fn too_large() -> ApiError {
    let message = format!("the body is longer than {LONGEST_BODY} bytes");
    ApiError::new(Code::BodyTooLarge, message)
}
