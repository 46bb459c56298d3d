//! `/calls`: which calls there were, and of each what happened, step by step.
//!
//! Invariant: numbers are masked, unless an operator who may act asks for them; and that leaves a
//! row in `audit`.

mod asked;
mod finding;
mod stored;
mod story;

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
    web,
};
use minijinja::{Value, context, value::Serde};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{Action, Change},
    call::{CallId, CarrierCallId},
    gateway::Gateway,
    operator::{
        Denied, Operator, action,
        page::{self, Frame, Visitor, part},
        question::Unanswered,
    },
    record::DatabaseError,
};

pub use stored::find;

use asked::{Asked, Search};
use finding::MOST_SEEN;
use stored::Whole;

/// How a call is to be shown.
#[derive(Debug, Deserialize)]
pub struct Shown {
    /// `whole` for numbers as they are kept.
    #[serde(default)]
    numbers: String,
}

/// Why a call is not shown.
#[derive(Debug, thiserror::Error)]
pub enum NotShown {
    #[error("There is no such call, or it is kept no longer.")]
    NoCall,
    #[error("The database is busy, or away: try again in a moment.")]
    Busy,
    #[error("The database does not answer.")]
    NoDatabase(#[from] DatabaseError),
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// `GET /calls`: the latest calls, or those that were looked for.
pub async fn list(
    Visitor(operator): Visitor,
    asked: web::Query<Asked>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let (status, trouble, found) = match Search::read(&asked) {
        Err(mistake) => (
            StatusCode::BAD_REQUEST,
            Some(mistake.to_owned()),
            stored::Page::default(),
        ),
        Ok(search) => match stored::list(&gateway, search, operator.may_change()).await {
            Ok(found) => (StatusCode::OK, None, found),
            Err(error) => {
                let error = NotShown::from(error);
                (
                    error.status(),
                    Some(error.to_string()),
                    stored::Page::default(),
                )
            }
        },
    };
    let next = found.next.map(|next| asked.page_after(&next));
    let calls: Vec<_> = found.calls.into_iter().map(story::line).collect();
    let context = context! {
        asked => Value::from(Serde(&*asked)), calls => Value::from(Serde(calls)), next, trouble,
        seen_to => found.seen_to,
        most_seen => format!("{},{:03}", MOST_SEEN / 1_000, MOST_SEEN % 1_000),
    };
    let frame = Frame::of(&gateway, &operator, "calls", "Calls");
    page::page(status, &frame, &part("calls.html", context))
}

/// `GET /calls/{call}`: what happened to a call.
pub async fn show(
    Visitor(operator): Visitor,
    call: web::Path<String>,
    shown: web::Query<Shown>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let whole = match whole(&gateway, &operator, &call, &shown, false).await {
        Ok(whole) => whole,
        Err(error) => return missing(&gateway, &operator, &error),
    };
    let may_end = operator.may_change() && goes_on(&gateway, &whole).await;
    let context = context! {
        c => Value::from(Serde(story::page(&whole, gateway.operator.currency.as_ref()))),
        may_end, may_change => operator.may_change(), has_numbers => shown.numbers == "whole",
    };
    let frame = Frame::of(&gateway, &operator, "calls", "A call");
    page::page(StatusCode::OK, &frame, &part("call.html", context))
}

/// `GET /calls/{call}.json`: the same for programs, as a file.
pub async fn export(
    operator: Operator,
    call: web::Path<String>,
    shown: web::Query<Shown>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    match whole(&gateway, &operator, &call, &shown, true).await {
        Ok(whole) => HttpResponse::Ok()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .insert_header((
                header::CONTENT_DISPOSITION,
                format!("attachment; filename=\"call-{}.json\"", whole.call.call_id),
            ))
            .json(whole),
        Err(NotShown::Denied(denied)) => denied.error_response(),
        Err(error) => HttpResponse::build(error.status())
            .json(json!({"error": {"message": error.to_string()}})),
    }
}

/// Tells whether there is anything to hang up, as far as the database says so.
async fn goes_on(gateway: &Gateway, whole: &Whole) -> bool {
    let (call, name) = (whole.call.call_id.parse(), &whole.call.carrier_call_id);
    let (Ok(call), Ok(name)) = (call, CarrierCallId::try_from(name.clone())) else {
        return false;
    };
    let goes_on = action::goes_on(gateway, call, &name, &whole.call.state);
    goes_on.await.unwrap_or(false)
}

/// Returns all that is kept of a call, if the operator may see it like that.
async fn whole(
    gateway: &Gateway,
    operator: &Operator,
    call: &str,
    shown: &Shown,
    is_export: bool,
) -> Result<Whole, NotShown> {
    let call: CallId = call.parse().map_err(|_| NotShown::NoCall)?;
    let with_numbers = shown.numbers == "whole";
    if with_numbers && !operator.may_change() {
        return Err(Denied::ReadOnly.into());
    }
    let whole = stored::whole(gateway, call, with_numbers).await?;
    let whole = whole.ok_or(NotShown::NoCall)?;
    if with_numbers {
        let how = if is_export { "json" } else { "page" };
        let as_what = json!({"as": how, "numbers": "whole"});
        let change = Change::by_actor(
            operator.by().actor(),
            Action::ShowNumbers,
            &call.to_string(),
        );
        let change = change.became(as_what);
        let database = &gateway.records.database;
        let noting =
            database.write(move |writing| Box::pin(async move { change.note(writing).await }));
        noting.await?;
    }
    Ok(whole)
}

fn missing(gateway: &Gateway, operator: &Operator, error: &NotShown) -> HttpResponse {
    if let NotShown::Denied(denied) = error {
        return denied.error_response();
    }
    let frame = Frame::of(gateway, operator, "calls", "Not shown");
    let context = context! { trouble => error.to_string() };
    page::page(error.status(), &frame, &part("missing.html", context))
}

impl From<Unanswered> for NotShown {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::Busy => Self::Busy,
            Unanswered::Failed(error) => Self::NoDatabase(error),
        }
    }
}

impl NotShown {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoCall => StatusCode::NOT_FOUND,
            Self::Busy | Self::NoDatabase(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied(denied) => denied.status_code(),
        }
    }
}
