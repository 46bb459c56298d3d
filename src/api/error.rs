//! What a refused request is told.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{Scope, key::KeyId},
    record::DatabaseError,
};

/// How soon to ask again where the database is away.
const AWAY_FOR: Duration = Duration::from_secs(2);

/// Why a request was refused, for programs. The list is closed; `docs/api.md` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    InvalidRequest,
    Unauthenticated,
    InsufficientScope,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    TooManyFailures,
    IdempotencyKeyReused,
    OutboundClosed,
    RateLimitExceeded,
    UsageCapExceeded,
    Internal,
    RecordsUnavailable,
    Unavailable,
}

/// A refused request: every answer of `/v1` that is not 2xx has this shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    code: Code,
    message: String,
    field: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<String>,
    more: Box<More>,
}

/// What some codes say beside that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct More {
    reached: Option<Reached>,
    reason: Option<&'static str>,
    needed_scope: Option<Scope>,
}

/// A cap that leaves no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Its name: those of placing calls are in `docs/placing-calls.md`.
    pub cap: &'static str,
    /// How many there may be.
    pub value: u32,
    /// How many there are; `None` where others are counted whom it does not concern.
    pub used: Option<u32>,
}

/// The body of an answer that is not 2xx.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    error: Refused,
}

/// Why a request was refused. Some codes say more, in fields of their own.
#[derive(Serialize, ToSchema)]
struct Refused {
    code: Code,
    /// A sentence for people.
    message: String,
    /// By which the operator finds the request in the log.
    request_id: String,
    /// Which field of the query, the path, the headers or the body is at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
    /// Which cap leaves no room.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    cap: Option<&'static str>,
    /// How many the cap allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    value: Option<u32>,
    /// How many there are, unless other tenants' calls to the same number are among them or that is
    /// not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    used: Option<u32>,
    /// Why there is no room for a call, such as `full` or `draining`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'static str>,
    /// The scope that the key lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    needed_scope: Option<&'static str>,
}

impl Code {
    pub const ALL: [Self; 16] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::InsufficientScope,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::TooManyFailures,
        Self::IdempotencyKeyReused,
        Self::OutboundClosed,
        Self::RateLimitExceeded,
        Self::UsageCapExceeded,
        Self::Internal,
        Self::RecordsUnavailable,
        Self::Unavailable,
    ];

    pub fn as_str(self) -> &'static str {
        self.facts().1
    }

    pub fn status(self) -> StatusCode {
        self.facts().0
    }

    /// Returns what it means, for the documents.
    pub fn meaning(self) -> &'static str {
        self.facts().2
    }

    fn facts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidRequest => (
                StatusCode::BAD_REQUEST,
                "invalid_request",
                "A field is missing, unknown or wrong; `field` says which.",
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "The key is missing, unknown or revoked.",
            ),
            Self::InsufficientScope => (
                StatusCode::FORBIDDEN,
                "insufficient_scope",
                "The key lacks the scope that `needed_scope` names.",
            ),
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                "not_found",
                "There is no such thing, or it is another tenant's.",
            ),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The route has other methods; `Allow` lists them.",
            ),
            Self::RequestTimeout => (
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "The body did not arrive in time.",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The body is longer than 65536 bytes.",
            ),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The body is not `application/json`.",
            ),
            Self::TooManyFailures => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_failures",
                "Too many requests without a good key; ask again after `Retry-After`.",
            ),
            Self::IdempotencyKeyReused => (
                StatusCode::CONFLICT,
                "idempotency_key_reused",
                "Another body has come with this `Idempotency-Key`.",
            ),
            Self::OutboundClosed => (
                StatusCode::CONFLICT,
                "outbound_closed",
                "No calls are placed here; `message` says which setting is missing.",
            ),
            Self::RateLimitExceeded => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                "Too many at once or in a row: `cap` says of what, `value` how many there may be, \
                 `used` how many there are, unless other tenants' calls to the same number are \
                 among them or that is not known; ask again after `Retry-After`.",
            ),
            Self::UsageCapExceeded => (
                StatusCode::TOO_MANY_REQUESTS,
                "usage_cap_exceeded",
                "The day's calls or minutes are spent: `cap` says which, `value` how many there \
                 are, `used` how many went; ask again after `Retry-After`.",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "A fault of callgate's own.",
            ),
            Self::RecordsUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "records_unavailable",
                "The database does not answer; ask again after `Retry-After`.",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "What it takes is away, rests or ends, and nothing was done; or it is not known yet \
                 whether a call is placed, as `message` says. Ask again after `Retry-After`, for a \
                 call by the same `Idempotency-Key`.",
            ),
        }
    }
}

impl ApiError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            retry_after: None,
            allow: None,
            more: Box::default(),
        }
    }

    /// A field is at fault; `rule` says what it has to be.
    pub fn field(name: impl Into<String>, rule: impl fmt::Display) -> Self {
        let name = name.into();
        Self {
            field: Some(name.clone()),
            ..Self::new(Code::InvalidRequest, format!("{name}: {rule}"))
        }
    }

    /// The key may not do what is asked.
    pub fn lacks(key: &KeyId, needed: Scope) -> Self {
        let message = format!("the key {key} lacks the scope {needed}");
        let mut lacking = Self::new(Code::InsufficientScope, message);
        lacking.more.needed_scope = Some(needed);
        lacking
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }

    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Names the methods that the route has.
    pub fn allowing(mut self, methods: &str) -> Self {
        self.allow = Some(methods.to_owned());
        self
    }

    /// Names the cap that leaves no room.
    pub fn reached(mut self, cap: Reached) -> Self {
        self.more.reached = Some(cap);
        self
    }

    /// Says why a cap of live calls leaves no room.
    pub fn because(mut self, reason: &'static str) -> Self {
        self.more.reason = Some(reason);
        self
    }

    /// Returns the answer to the request of this id.
    pub fn answer(&self, request_id: &str) -> HttpResponse {
        let mut answer = HttpResponse::build(self.code.status());
        if self.code == Code::Unauthenticated {
            answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1_000).max(1);
            answer.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if let Some(methods) = &self.allow {
            answer.insert_header((header::ALLOW, methods.as_str()));
        }
        let More {
            reached,
            reason,
            needed_scope,
        } = *self.more;
        answer.json(ErrorBody {
            error: Refused {
                code: self.code,
                message: self.message.clone(),
                request_id: request_id.to_owned(),
                field: self.field.clone(),
                cap: reached.map(|reached| reached.cap),
                value: reached.map(|reached| reached.value),
                used: reached.and_then(|reached| reached.used),
                reason,
                needed_scope: needed_scope.map(Scope::as_str),
            },
        })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    // The body is written where the request's id is known.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.code.status())
    }
}

impl From<DatabaseError> for ApiError {
    fn from(error: DatabaseError) -> Self {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "the database gave no answer to a request");
        Self::new(Code::RecordsUnavailable, "the database does not answer").retry_after(AWAY_FOR)
    }
}
