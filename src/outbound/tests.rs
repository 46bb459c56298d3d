mod called_off;
mod house;
mod left;
mod limits;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use self::house::{House, leave, leave_as, leave_since, to};
use super::*;
use crate::{
    admission::{Reservation, Scope},
    fake_twilio::{Act, Callee},
    outbound::rows::Stage,
    record::unix_millis_i64,
};

const GUARD: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_placed_call_is_picked_up_talks_and_leaves_nothing_behind() {
    let house = House::open(&[]).await;
    let body = json!({"to": "+972502345678", "metadata": {"order": 7}});
    let placed = house.place("one", &body).await.unwrap();
    assert_eq!(placed.state, "queued");
    let ended = house.over(&placed.id).await;
    assert_eq!(ended.0, "ended", "{ended:?}");
    let calls = house.twilio.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].longest, Some(house.running.gateway().longest_call));
    assert_eq!(
        (&*calls[0].to, &*calls[0].from),
        ("+972502345678", "+972722234567")
    );
    let row = house.row(&placed.id).await;
    assert_eq!(row.carrier_call.unwrap().as_str(), calls[0].sid);
    let started = "SELECT event FROM events WHERE kind = 'call.started'";
    assert_eq!(house.database.ask(started).await.len(), 1);
    let agents = "SELECT call FROM calls WHERE agent IS NOT NULL";
    assert_eq!(house.database.ask(agents).await.len(), 1);
    house.close().await;
}

#[tokio::test]
async fn the_same_key_a_hundred_times_at_once_calls_once_and_another_body_is_refused() {
    let house = House::open(&[]).await;
    let body = to("+972502345678");
    let asking = (0..100).map(|_| house.place("one", &body));
    let answers: Vec<Placed> = join_all(asking)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    house.over(&answers[0].id).await;
    let other_order = r#"{"ring_timeout":5,"to":"+972502345678"}"#;
    for body in [body, serde_json::from_str(other_order).unwrap()] {
        assert_eq!(house.place("one", &body).await.as_ref(), Ok(&answers[0]));
    }
    let other = house.place("one", &to("+972502345679")).await;
    assert_eq!(other, Err(Refused::OtherBody));
    assert_eq!(house.twilio.calls().len(), 1);
    house.close().await;
}

#[tokio::test]
async fn a_number_that_many_ask_for_at_the_same_moment_is_called_once() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Rings);
    let body = to("+972502345678");
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    let asking = keys.iter().map(|key| house.place(key, &body));
    let (placed, refused): (Vec<_>, Vec<_>) =
        join_all(asking).await.into_iter().partition(Result::is_ok);
    assert_eq!((placed.len(), refused.len()), (1, 19), "{refused:?}");
    for refused in refused {
        let Err(Refused::TooMany { cap, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(cap, "calls_to_one_number_at_a_time");
    }
    house.over(&placed[0].as_ref().unwrap().id).await;
    assert_eq!(house.twilio.calls().len(), 1);
    house.close().await;
}

#[tokio::test]
async fn who_does_not_pick_up_costs_no_slot() {
    let house = House::open(&[]).await;
    for (callee, number, reason) in [
        (Callee::Busy, "+972502345671", "busy"),
        (Callee::NoAnswer, "+972502345672", "no_answer"),
        (Callee::Failed, "+972502345673", "not_placed"),
    ] {
        house.twilio.callees(callee);
        let placed = house.place(number, &to(number)).await.unwrap();
        let ended = house.over(&placed.id).await;
        assert_eq!(ended, ("failed".to_owned(), reason.to_owned()));
    }
    house.close().await;
}

#[tokio::test]
async fn what_the_carrier_may_have_done_is_never_asked_for_again() {
    let house = House::open(&[]).await;
    house.twilio.then(&[Act::TakeThenCut]);
    let placed = house.place("cut", &to("+972502345671")).await.unwrap();
    assert_eq!(house.over(&placed.id).await.0, "ended");
    house.twilio.then(&[Act::TakeThenFail(503)]);
    let placed = house.place("failed", &to("+972502345672")).await.unwrap();
    assert_eq!(house.over(&placed.id).await.0, "ended");
    house
        .twilio
        .then(&[Act::Throttle(Some(1)), Act::Throttle(None)]);
    let placed = house
        .place("throttled", &to("+972502345673"))
        .await
        .unwrap();
    assert_eq!(house.over(&placed.id).await.0, "ended");
    house.twilio.then(&[Act::Refuse(21_211)]);
    let placed = house.place("refused", &to("+972502345674")).await.unwrap();
    let ended = house.over(&placed.id).await;
    assert_eq!(ended, ("failed".to_owned(), "not_placed".to_owned()));
    assert_eq!(house.twilio.calls().len(), 3);
    house.close().await;
}

#[tokio::test]
async fn a_machine_is_hung_up_on_or_talked_to() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Machine);
    let body = json!({"to": "+972502345671", "machine_detection": "detect"});
    let placed = house.place("one", &body).await.unwrap();
    assert_eq!(house.over(&placed.id).await.1, "machine_answered");
    let body = json!({
        "to": "+972502345672",
        "machine_detection": "detect_message_end",
        "when_machine": "talk",
    });
    let placed = house.place("two", &body).await.unwrap();
    assert_eq!(house.over(&placed.id).await.0, "ended");
    house.close().await;
}

#[tokio::test]
async fn what_a_call_has_talked_that_is_found_completed_counts_for_its_day() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let row = leave_as(&house, &me, Stage::Unknown, "+972502345671", 0).await;
    let found = crate::carrier::twilio::Listed {
        call: crate::call::CarrierCallId::try_from("CA00000000000000000000000000000001".to_owned())
            .unwrap(),
        status: "completed".to_owned(),
        created_at: None,
        lasted: Some(Duration::from_secs(61)),
    };
    progress::apply(house.running.gateway(), &row, &found).await;
    let day = "SELECT calls, talked_ms FROM outbound_days";
    assert_eq!(house.database.ask(day).await, ["1 61000"]);
    house.close().await;
}

#[tokio::test]
async fn nobody_is_called_who_may_not_be() {
    let house = House::open(&[]).await;
    for (body, field) in [
        (to("+12025550123"), "to"),
        (to("+9721900123456"), "to"),
        (to("+870773111632"), "to"),
        (
            json!({"to": "+972502345678", "campaign": "nobody's"}),
            "campaign",
        ),
        (json!({"to": "+972502345678", "from": "1"}), "from"),
    ] {
        let refused = house.place("one", &body).await.unwrap_err();
        let Refused::Invalid { field: named, .. } = refused else {
            panic!("{body}: {refused:?}");
        };
        assert_eq!(named, field, "{body}");
    }
    assert!(house.twilio.calls().is_empty());
    house.close().await;
}

#[tokio::test]
async fn a_call_that_has_come_along_meanwhile_does_not_fail() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let queued = leave_as(&house, &me, Stage::Placed, "+972502345671", 0).await;
    let gateway = house.running.gateway();
    let row = rows::Row {
        stage: Stage::Queued,
        ..queued
    };
    let fails = async |at| {
        let reason = crate::call::EndReason::NotPlaced;
        ending::fail(gateway, &row, at, reason).await
    };
    assert!(!fails(&[Stage::Queued]).await);
    assert_eq!(house.row(&row.call.to_string()).await.stage, Stage::Placed);
    assert!(fails(&[Stage::Placed]).await);
    assert!(!fails(&[Stage::Placed]).await, "and it fails once");
    let ended = house.over(&row.call.to_string()).await;
    assert_eq!(ended, ("failed".to_owned(), "not_placed".to_owned()));
    house.close().await;
}

#[tokio::test]
async fn the_end_of_a_call_that_talks_is_counted_once_though_its_row_has_not_heard_of_it() {
    let house = House::open_to(&[], GUARD * 2).await;
    let placed = house.place("one", &to("+972502345671")).await.unwrap();
    let gateway = house.running.gateway();
    let talks = "SELECT call FROM calls WHERE connected_at IS NOT NULL";
    house
        .until(async || house.database.ask(talks).await.len() == 1)
        .await;
    let row = house.row(&placed.id).await;
    assert_eq!(row.stage, Stage::Answered);
    let unheard = "UPDATE outbound SET state = 'placed'";
    house.database.ask(unheard).await;
    hang_up(gateway, row.call, &row.carrier_call.unwrap()).await;
    house.over(&placed.id).await;
    house.until(async || gateway.connections.count() == 0).await;
    let metrics = gateway.metrics.text(|_| {});
    let ended = metrics.lines();
    let ended = ended.filter(|line| line.starts_with("calls_ended_total{"));
    let counts = ended.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
    assert_eq!(counts.sum::<u32>(), 1, "{metrics}");
    house.close().await;
}
