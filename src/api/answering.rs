//! What every answer of `/v1` has: the request's id, and one shape where it is refused.

use std::future::{Ready, ready};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest, Route,
    body::{EitherBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{HeaderName, HeaderValue},
    },
    middleware::Next,
    web::{Data, to},
};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    api::{ApiError, Asked, Code, scope::Anything},
    gateway::Gateway,
};

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over, in bytes.
const LONGEST: usize = 64;

/// By which a request is found again: what its sender calls it, or a name of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String); // Invariant: 1 to 64 letters, digits, `-`, `_` and `.`.

impl RequestId {
    fn of(request: &HttpRequest) -> Self {
        let sent = request.headers().get(HEADER);
        let sent = sent.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if (1..=LONGEST).contains(&sent.len()) && sent.bytes().all(plain) {
            Self(sent.to_owned())
        } else {
            Self(format!("req_{}", Uuid::new_v4().simple()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromRequest for RequestId {
    type Error = Error;
    type Future = Ready<Result<Self, Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let id = request.extensions().get::<Self>().cloned();
        ready(Ok(id.unwrap_or_else(|| Self::of(request))))
    }
}

/// Gives a request its id and its span, and a refused one its body.
///
/// # Errors
/// If there is no answer at all.
pub async fn answering<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let id = RequestId::of(request.request());
    let span = tracing::info_span!(
        "request",
        request.id = id.as_str(),
        route = request.match_pattern(),
        key.id = tracing::field::Empty
    );
    request.extensions_mut().insert(id.clone());
    let response = next.call(request).instrument(span).await?;
    let refused = response.response().error().map(refusal);
    let mut response = match refused {
        None => response.map_into_left_body(),
        Some(refused) => {
            if let Some(gateway) = response.request().app_data::<Data<Gateway>>() {
                gateway.metrics.api_refused(refused.code().as_str());
            }
            let answer = refused.answer(id.as_str());
            response.into_response(answer).map_into_right_body()
        }
    };
    let value = HeaderValue::from_str(id.as_str()).expect("an id is plain");
    response.headers_mut().insert(HEADER, value);
    Ok(response)
}

/// Takes over what a handler said, or says that something is wrong here.
fn refusal(error: &Error) -> ApiError {
    let said = error.as_error::<ApiError>().cloned();
    said.unwrap_or_else(|| {
        tracing::error!(%error, "a request to /v1 failed");
        let message = "something is wrong here, and is in the log";
        ApiError::new(Code::Internal, message)
    })
}

/// Any path that is not there; who has no key does not learn which are.
///
/// # Errors
/// Always.
pub async fn no_such_route(_: Asked<Anything, Anyhow>) -> Result<String, ApiError> {
    Err(ApiError::not_found("route"))
}

/// Answers any method that a route does not have; it has these.
pub fn other_method(methods: &[Method]) -> Route {
    let allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let allowed = allowed.join(", ");
    to(move |_: Asked<Anything, Anyhow>| {
        let message = format!("the route has no such method, but {allowed}");
        let error = ApiError::new(Code::MethodNotAllowed, message).allowing(&allowed);
        ready(Err::<String, _>(error))
    })
}

/// Whatever is asked with, nothing of it is read.
pub struct Anyhow;

impl crate::api::Input for Anyhow {
    async fn read(_: &HttpRequest, _: Payload) -> Result<Self, ApiError> {
        Ok(Self)
    }
}
