//! One call as its callee has it: it rings, is picked up or not, and its gateway is told.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Callee, Placed, Service, Talk, lock};
use crate::simulate::{
    caller::{Pickup, ended, outbound_fields, pick_up},
    plan::CallPlan,
};

/// How long each step of a call takes here.
const STEP: Duration = Duration::from_millis(20);

/// Places a call, tells the gateway of its steps, and has the callee do what callees do.
pub async fn place(service: Arc<Service>, call: Placed) {
    let callee = *lock(&service.callee);
    let mut sequence = 0;
    for (status, shown) in [("initiated", "queued"), ("ringing", "ringing")] {
        sleep(STEP).await;
        if call.end.is_cancelled() {
            return finish(&service, &call, "canceled", sequence).await;
        }
        service.note(&call.sid, shown);
        tell(&service, &call, status, sequence).await;
        sequence += 1;
    }
    let rings = match callee {
        Callee::NoAnswer | Callee::Rings => call.ring_for,
        Callee::Answers | Callee::Machine | Callee::Busy | Callee::Failed => STEP,
    };
    let rings = if callee == Callee::NoAnswer {
        rings.min(Duration::from_secs(1))
    } else {
        rings
    };
    tokio::select! {
        () = call.end.cancelled() => return finish(&service, &call, "canceled", sequence).await,
        () = service.stop.cancelled() => return finish(&service, &call, "failed", sequence).await,
        () = sleep(rings) => {}
    }
    match callee {
        Callee::Answers | Callee::Machine => talk(&service, &call, callee, sequence).await,
        Callee::Busy => finish(&service, &call, "busy", sequence).await,
        Callee::Failed => finish(&service, &call, "failed", sequence).await,
        Callee::NoAnswer | Callee::Rings => finish(&service, &call, "no-answer", sequence).await,
    }
}

async fn talk(service: &Arc<Service>, call: &Placed, callee: Callee, sequence: u32) {
    service.note(&call.sid, "in-progress");
    let began = Instant::now();
    tell(service, call, "in-progress", sequence).await;
    let answered_by = match (call.detection.as_deref(), callee) {
        (None, _) => None,
        (Some("DetectMessageEnd"), Callee::Machine) => Some("machine_end_beep"),
        (Some(_), Callee::Machine) => Some("machine_start"),
        (Some(_), _) => Some("human"),
    };
    let Talk {
        script,
        talk_for,
        voices,
    } = service.talk.clone();
    let plan = CallPlan {
        from: call.from.clone(),
        to: call.to.clone(),
        script,
        talk_for,
        echo: false,
        keys: String::new(),
        record: None,
        fallback: None,
        voices,
        seed: rand::random(),
    };
    let pickup = Pickup {
        sid: call.sid.clone(),
        answer_url: call.answer_url.clone(),
        answered_by,
    };
    let mut watch = |_| {};
    let over = call.end.child_token();
    let stop = async {
        service.stop.cancelled().await;
        over.cancel();
        std::future::pending::<()>().await;
    };
    // A call's future is large.
    let talking = Box::pin(pick_up(&service.carrier, plan, pickup, &mut watch, &over));
    let outcome = tokio::select! {
        outcome = talking => outcome,
        () = stop => unreachable!("it is pending for ever"),
    };
    service.note_talked(&call.sid, began.elapsed());
    finish(service, call, "completed", sequence + 1).await;
    if let Some(ended) = &service.ended {
        let _ = ended.send(outcome).await; // Whoever counts may have stopped counting.
    }
}

async fn finish(service: &Service, call: &Placed, status: &'static str, sequence: u32) {
    service.note(&call.sid, status);
    let mut fields = outbound_fields(
        &service.carrier.account_sid,
        &call.sid,
        &call.from,
        &call.to,
    );
    let talked = service.find(&call.sid).and_then(|call| call.talked);
    fields.extend(ended(status, talked.unwrap_or_default()));
    set_sequence(&mut fields, sequence);
    notify(service, call, &fields).await;
}

async fn tell(service: &Service, call: &Placed, status: &str, sequence: u32) {
    let mut fields = outbound_fields(
        &service.carrier.account_sid,
        &call.sid,
        &call.from,
        &call.to,
    );
    fields.push(("CallStatus".to_owned(), status.to_owned()));
    fields.push((
        "CallbackSource".to_owned(),
        "call-progress-events".to_owned(),
    ));
    set_sequence(&mut fields, sequence);
    notify(service, call, &fields).await;
}

fn set_sequence(fields: &mut Vec<(String, String)>, sequence: u32) {
    fields.retain(|(name, _)| name != "SequenceNumber");
    fields.push(("SequenceNumber".to_owned(), sequence.to_string()));
}

/// Delivery is best effort: twilio.com/docs/voice/api/call-resource#statuscallback.
async fn notify(service: &Service, call: &Placed, fields: &Vec<(String, String)>) {
    let is_lost = rand::random_range(0..100) < service.lost_callbacks.load(Ordering::Relaxed);
    if let Some(url) = call.status_url.as_ref().filter(|_| !is_lost) {
        let _ = service.carrier.notify(url, fields).await;
    }
}
