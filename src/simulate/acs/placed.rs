//! Calls that a gateway asks for: taken or not, and what those do whom they are for.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{HttpResponse, http::StatusCode};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    FakeAcs, FakeCall, Service,
    callback::{Callback, tell_all},
    caller::pick_up,
    calls::{Answered, Call, Ender, MOST_CALLBACKS, Manner, Status, lock},
    request::{Answer, AnswerBody, CreateBody},
    rest::{Asked, Proven, read, shown},
};
use crate::simulate::{
    outcome::CallOutcome,
    plan::CallPlan,
    reach::Reach,
    twilio::{Act, CallFaults, Callee, Talk, cut},
};

/// How long each step of a call takes here.
const STEP: Duration = Duration::from_millis(20);
/// How long a call rings that nobody picks up.
const NOBODY_FOR: Duration = Duration::from_secs(1);
/// How many calls are remembered.
const MOST_KEPT: usize = 10_000;
/// How long the gateway may take to hear of the end.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// Whom a fake ACS calls, for which gateway.
pub struct Phones {
    pub gateway: Arc<Reach>,
    pub callee: Callee,
    pub faults: CallFaults,
    pub talk: Talk,
    /// Where what became of each call is told, if somebody wants to know.
    pub ended: Option<mpsc::Sender<CallOutcome>>,
}

/// A call that a gateway has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedFor {
    pub connection: String,
    pub to: String,
    pub from: String,
    pub is_over: bool,
}

/// What a fake ACS knows of calls that it places.
#[derive(Default)]
pub struct Placing {
    phones: Mutex<Option<Phones>>,
    plan: Mutex<VecDeque<Act>>,
    calls: Mutex<VecDeque<Arc<Call>>>,
    /// Those who talk hang up.
    pub stop: CancellationToken,
}

impl FakeAcs {
    /// Takes calls for a gateway from here on.
    pub fn connect(&self, phones: Phones) {
        *lock(&self.service.placing.phones) = Some(phones);
    }

    /// Has those who are called from here on do this.
    pub fn callees(&self, callee: Callee) {
        let mut phones = lock(&self.service.placing.phones);
        if let Some(phones) = phones.as_mut() {
            phones.callee = callee;
        }
    }

    /// Does this with the next requests for a call.
    pub fn then(&self, acts: &[Act]) {
        lock(&self.service.placing.plan).extend(acts);
    }

    /// Returns the calls that were taken so far.
    pub fn placed(&self) -> Vec<AskedFor> {
        let calls = lock(&self.service.placing.calls);
        let shown = |call: &Arc<Call>| AskedFor {
            connection: call.name.connection.clone(),
            to: call.to.clone(),
            from: call.from.clone(),
            is_over: call.status.borrow().is_over(),
        };
        calls.iter().map(shown).collect()
    }
}

/// Takes a request for a call, or does otherwise with it.
pub async fn create(service: &Arc<Service>, asked: &Proven, body: &[u8]) -> HttpResponse {
    let act = lock(&service.placing.plan).pop_front();
    let act = act.unwrap_or_else(|| {
        let phones = lock(&service.placing.phones);
        let faults = phones.as_ref().map(|phones| phones.faults);
        faults.unwrap_or_default().draw(&mut rand::rng())
    });
    let failed = |status| {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        shown(Answer::error(status, "9999", "The service failed."))
    };
    match act {
        Act::Take | Act::TakeThenCut | Act::TakeThenFail(_) => {}
        Act::Fail(status) => return failed(status),
        Act::Cut => return cut(),
        Act::Throttle(_) => return failed(429),
        Act::Refuse(code) => {
            let status = StatusCode::BAD_REQUEST;
            return shown(Answer::error(status, &code.to_string(), "Refused."));
        }
    }
    let answer = match take(service, body, &asked.version) {
        Ok(answer) | Err(answer) => answer,
    };
    if !asked.id.is_empty() {
        service.answers.keep(&asked.id, &answer);
    }
    sleep(service.slow).await;
    match act {
        Act::TakeThenCut => cut(),
        Act::TakeThenFail(status) => failed(status),
        Act::Take | Act::Fail(_) | Act::Cut | Act::Throttle(_) | Act::Refuse(_) => shown(answer),
    }
}

/// Takes a call, and has it ring.
fn take(service: &Arc<Service>, body: &[u8], version: &str) -> Asked<Answer> {
    let CreateBody {
        targets,
        source_caller_id_number: from,
        callback_uri,
        media_streaming_options,
    } = read(body)?;
    let wanted = AnswerBody {
        callback_uri,
        media_streaming_options,
    };
    if let Some(mistake) = wanted.mistake(version) {
        return Err(Answer::invalid(mistake));
    }
    let Some(to) = targets.into_iter().next() else {
        return Err(Answer::invalid("The field Targets is invalid."));
    };
    let to = to.phone_number.value;
    let (gateway, callee, talk, ended) = {
        let phones = lock(&service.placing.phones);
        let Some(phones) = phones.as_ref() else {
            return Err(Answer::invalid("This fake ACS calls nobody."));
        };
        let (gateway, ended) = (Arc::clone(&phones.gateway), phones.ended.clone());
        (gateway, phones.callee, phones.talk.clone(), ended)
    };
    let (callbacks, told) = mpsc::channel(MOST_CALLBACKS);
    let call = Call::new(gateway, &from.value, &to, Manner::default(), callbacks);
    let call = Arc::new(call);
    let answered = Answered {
        connection: call.name.connection.clone(),
        media: wanted.media(),
        callback: wanted.callback_uri,
    };
    call.status
        .send_modify(|status| status.answered = Some(answered));
    service.calls.add(&call);
    let mut calls = lock(&service.placing.calls);
    if calls.len() == MOST_KEPT {
        calls.pop_front();
    }
    calls.push_back(Arc::clone(&call));
    drop(calls);
    service.spawn(tell_all(Arc::clone(service), Arc::clone(&call), told));
    let line = FakeCall {
        service: Arc::clone(service),
        call: Arc::clone(&call),
    };
    service.spawn(ring(line, callee, talk, ended));
    Ok(Answer {
        status: StatusCode::CREATED,
        body: Some(call.properties()),
    })
}

/// Has a call ring, and its callee do what callees do.
async fn ring(
    line: FakeCall,
    callee: Callee,
    talk: Talk,
    ended: Option<mpsc::Sender<CallOutcome>>,
) {
    let rings = match callee {
        Callee::Answers | Callee::Machine | Callee::Busy | Callee::Failed => STEP,
        Callee::NoAnswer => NOBODY_FOR,
        Callee::Rings => Duration::MAX,
    };
    let over = line.until(|status: &Status| status.is_over().then_some(()));
    if timeout(rings, over).await.is_err() {
        let (code, subcode, message) = match callee {
            Callee::Answers | Callee::Machine => return talks(line, talk, ended).await,
            Callee::Busy => (486, 8_539, "The callee is busy."),
            Callee::Failed => (404, 8_544, "The callee cannot be reached."),
            Callee::NoAnswer | Callee::Rings => (480, 8_541, "The callee is unavailable."),
        };
        line.call
            .status
            .send_modify(|status| status.ended_by = Some(Ender::Caller));
        line.call
            .tell(Callback::create_failed(code, subcode, message));
    }
    let told = line.until(|status| status.is_told.then_some(()));
    let _ = timeout(TOLD_WITHIN, told).await; // What it was not told is its loss.
}

async fn talks(line: FakeCall, talk: Talk, ended: Option<mpsc::Sender<CallOutcome>>) {
    line.call.tell(Callback::connected());
    line.call.tell(Callback::participants(&line.call));
    let plan = CallPlan {
        from: line.call.from.clone(),
        to: line.call.to.clone(),
        script: talk.script,
        talk_for: talk.talk_for,
        echo: false,
        keys: String::new(),
        record: None,
        fallback: None,
        voices: talk.voices,
        seed: rand::random(),
    };
    let stop = line.service.placing.stop.clone();
    let mut watch = |_| {};
    let outcome = Box::pin(pick_up(line, plan, &mut watch, &stop)).await;
    if let Some(ended) = ended {
        let _ = ended.send(outcome).await; // Whoever counts may have stopped counting.
    }
}
