//! What operators do: each is shown first, then noted, and then done.
//!
//! Invariant: nothing is done but by a form of ours, sent by whoever may act; see
//! [`crate::operator::login`].

use std::{str::FromStr, time::Duration};

use actix_web::{HttpRequest, HttpResponse, ResponseError, http::StatusCode, web};
use minijinja::context;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tracing::Instrument;

use crate::{
    api::{Action as Audited, Change},
    call::{CallId, CarrierCallId, EndReason},
    gateway::Gateway,
    operator::{
        Denied, Operator, calls,
        login::{check_form, go_to},
        noting::{TooManyOwed, note},
        page::{self, Frame, Visitor, part},
    },
    outbound,
    record::{OVER, State},
};

/// How long it is looked in the database whose a call is.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest name of a replica.
const LONGEST_NAME: usize = 64;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    HangUp,
    StopIntake,
    ResumeIntake,
    Drain,
}

/// What it is done to: a call, or a replica.
#[derive(Debug, Deserialize)]
pub struct Target {
    #[serde(default)]
    to: String,
    #[serde(default)]
    key: String,
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    #[error("There is no such call.")]
    NoCall,
    #[error("The call is over already.")]
    Over,
    #[error("There is no such replica.")]
    NoReplica,
    #[error("Redis does not answer, so the other replicas cannot be told: nothing has changed.")]
    NoStore,
    #[error(
        "The database does not answer, and this replica does not have the call: hang up at the \
             page of the replica that has it."
    )]
    NoDatabase,
    #[error(
        "The database has been away for so long that no more can be noted of who wants what: \
             nothing has changed."
    )]
    NotNoted,
}

impl Act {
    const ALL: [Self; 4] = [
        Self::HangUp,
        Self::StopIntake,
        Self::ResumeIntake,
        Self::Drain,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::HangUp => "hang-up",
            Self::StopIntake => "stop-intake",
            Self::ResumeIntake => "resume-intake",
            Self::Drain => "drain",
        }
    }

    /// Returns what is asked before it is done: the button, and what it will come to.
    fn question(self) -> (&'static str, &'static str) {
        match self {
            Self::HangUp => (
                "Hang up",
                "The caller is hung up at once, on whichever replica the call is, or where it was \
                 handed over to.",
            ),
            Self::StopIntake => (
                "Stop the intake",
                "From now on every new caller hears that the line is busy, on all replicas, until \
                 the intake is resumed. Calls that are live go on. No calls are placed.",
            ),
            Self::ResumeIntake => (
                "Resume the intake",
                "New calls are let in again, on all replicas, as far as there is room.",
            ),
            Self::Drain => (
                "Drain the replica",
                "It takes no more media, lets its live calls go on for DRAIN_SECONDS at most, and \
                 then ends. Whatever runs it may start it again.",
            ),
        }
    }

    /// Returns what was done, in words.
    fn done(self) -> &'static str {
        match self {
            Self::HangUp => "The call is being hung up.",
            Self::StopIntake => "The intake is stopped: new callers hear that the line is busy.",
            Self::ResumeIntake => "The intake is open again.",
            Self::Drain => "The replica was told to drain.",
        }
    }

    fn audited(self) -> Audited {
        match self {
            Self::HangUp => Audited::HangUp,
            Self::StopIntake => Audited::StopIntake,
            Self::ResumeIntake => Audited::ResumeIntake,
            Self::Drain => Audited::Drain,
        }
    }
}

impl FromStr for Act {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = Self::ALL.into_iter().find(|it| it.as_str() == text);
        known.ok_or(())
    }
}

/// Returns what was done, by its name in a page's address.
pub fn told(name: &str) -> Option<&'static str> {
    name.parse::<Act>().ok().map(Act::done)
}

/// `GET /actions/{action}`: asks whether it is meant.
pub async fn ask(
    Visitor(operator): Visitor,
    act: web::Path<String>,
    target: web::Query<Target>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let Ok(act) = act.parse::<Act>() else {
        return HttpResponse::NotFound().finish();
    };
    if !operator.may_change() {
        return Denied::ReadOnly.error_response();
    }
    let (button, consequence) = act.question();
    let frame = Frame::of(&gateway, &operator, "", button);
    let context = context! {
        act => act.as_str(), button, consequence, to => target.to.as_str(),
        key => frame.action_key(), trouble => (),
    };
    page::page(StatusCode::OK, &frame, &part("confirm.html", context))
}

/// `POST /actions/{action}`: does it.
pub async fn act(
    operator: Operator,
    request: HttpRequest,
    act: web::Path<String>,
    form: web::Form<Target>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let Ok(act) = act.parse::<Act>() else {
        return HttpResponse::NotFound().finish();
    };
    if let Err(error) = check_form(&gateway, &request, &operator, &form.key) {
        return error.error_response();
    }
    match perform(&gateway, &operator, act, &form.to).await {
        Ok(()) => go_to(&format!("/dashboard?done={}", act.as_str())),
        Err(not_done) => {
            let (button, consequence) = act.question();
            let frame = Frame::of(&gateway, &operator, "", button);
            let context = context! {
                act => act.as_str(), button, consequence, to => form.to.as_str(),
                key => frame.action_key(), trouble => not_done.to_string(),
            };
            page::page(not_done.status(), &frame, &part("confirm.html", context))
        }
    }
}

async fn perform(
    gateway: &web::Data<Gateway>,
    operator: &Operator,
    act: Act,
    to: &str,
) -> Result<(), NotDone> {
    match act {
        Act::HangUp => hang_up(gateway, operator, to).await,
        Act::StopIntake | Act::ResumeIntake => {
            let (before, after) = (gateway.desk.stops_intake(), act == Act::StopIntake);
            let intake = |stops: bool| json!({"intake": if stops { "stopped" } else { "open" }});
            let change = Change::by_actor(operator.by().actor(), act.audited(), "intake");
            // Whoever wants it is noted first: the row is there, whatever becomes of it.
            note(gateway, change.clone().was(intake(before))).await?;
            let set = gateway.set_intake(after).await;
            set.map_err(|_| NotDone::NoStore)?;
            note(gateway, change.was(intake(before)).became(intake(after))).await?;
            Ok(())
        }
        Act::Drain => {
            let known = gateway.snapshot().await.replicas;
            let replica = known
                .into_iter()
                .find(|it| it.name == to && to.len() <= LONGEST_NAME);
            let replica = replica.ok_or(NotDone::NoReplica)?;
            let state = |draining: bool| json!({"draining": draining});
            let change = Change::by_actor(operator.by().actor(), act.audited(), &replica.name);
            let change = change.was(state(replica.draining));
            note(gateway, change.clone()).await?;
            let told = gateway.ask_to_drain(&replica.name).await;
            told.map_err(|_| NotDone::NoStore)?;
            note(gateway, change.became(state(true))).await?;
            Ok(())
        }
    }
}

async fn hang_up(
    gateway: &web::Data<Gateway>,
    operator: &Operator,
    to: &str,
) -> Result<(), NotDone> {
    let call: CallId = to.parse().map_err(|_| NotDone::NoCall)?;
    let (name, state) = match gateway.connections.name_of(call) {
        Some(name) => (name, State::Connected.as_str().to_owned()),
        None => stored(gateway, call).await?,
    };
    let change = Change::by_actor(operator.by().actor(), Audited::HangUp, &call.to_string());
    let was = json!({"state": state});
    note(gateway, change.was(was).became(json!({"hung_up": true}))).await?;
    // What is here waits for nobody; the rest asks the database what it knows of the call.
    gateway.connections.end(&name, EndReason::Requested);
    let (ending, tasks) = (gateway.clone(), gateway.calls().clone());
    let ending = async move { outbound::hang_up(&ending, call, &name).await };
    tasks.spawn(ending.in_current_span());
    Ok(())
}

/// Returns the carrier's name and the state of a call that goes on, as the database has them.
async fn stored(gateway: &Gateway, call: CallId) -> Result<(CarrierCallId, String), NotDone> {
    let found = timeout(PATIENCE, calls::find(gateway, call, false)).await;
    let found = found.map_err(|_| NotDone::NoDatabase)?;
    let found = found.map_err(|_| NotDone::NoDatabase)?;
    let found = found.ok_or(NotDone::NoCall)?;
    let name = CarrierCallId::try_from(found.carrier_call_id).map_err(|_| NotDone::NoCall)?;
    if goes_on(gateway, call, &name, &found.state).await? {
        Ok((name, found.state))
    } else {
        Err(NotDone::Over)
    }
}

/// Tells whether there is anything to hang up: a call whose state says so, or one that was handed over
/// and goes on elsewhere.
///
/// # Errors
/// If the database does not answer in time.
pub async fn goes_on(
    gateway: &Gateway,
    call: CallId,
    name: &CarrierCallId,
    state: &str,
) -> Result<bool, NotDone> {
    let state: Option<State> = state.parse().ok();
    if state.is_none_or(|state| state.rank() < OVER) {
        return Ok(true);
    }
    let elsewhere = timeout(PATIENCE, outbound::goes_on_elsewhere(gateway, call, name));
    match elsewhere.await {
        Ok(Ok(goes_on)) => Ok(goes_on),
        Ok(Err(_)) | Err(_) => Err(NotDone::NoDatabase),
    }
}

impl From<TooManyOwed> for NotDone {
    fn from(_: TooManyOwed) -> Self {
        Self::NotNoted
    }
}

impl NotDone {
    fn status(self) -> StatusCode {
        match self {
            Self::NoCall | Self::NoReplica => StatusCode::NOT_FOUND,
            Self::Over => StatusCode::CONFLICT,
            Self::NoStore | Self::NoDatabase | Self::NotNoted => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
