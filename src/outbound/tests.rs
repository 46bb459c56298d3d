mod house;
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
async fn a_call_that_rings_can_be_ended() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Rings);
    let placed = house.place("one", &to("+972502345671")).await.unwrap();
    let calls = house
        .twilio
        .until(|calls| calls.iter().any(|it| it.status == "ringing"));
    let call = timeout(GUARD, calls).await.unwrap().remove(0);
    house
        .until(async || house.row(&placed.id).await.carrier_call.is_some())
        .await;
    let name = crate::call::CarrierCallId::try_from(call.sid).unwrap();
    hang_up(house.running.gateway(), placed.id.parse().unwrap(), &name).await;
    assert_eq!(house.over(&placed.id).await.1, "canceled");
    let over = house.twilio.until(|calls| calls[0].is_over());
    timeout(GUARD, over).await.unwrap();
    house.close().await;
}

#[tokio::test]
async fn a_call_that_was_called_off_holds_its_slot_and_its_number_until_it_cannot_ring() {
    let house = House::open(&[]).await;
    let body = json!({"to": "+972502345671", "ring_timeout": 60});
    let row = house.rings_unknown(&body).await;
    let call = row.call.to_string();
    let gateway = house.running.gateway();
    hang_up(gateway, row.call, &row.pending).await;
    assert!(house.row(&call).await.called_off_at.is_some());
    assert_eq!(gateway.admission.occupancy().active, 1, "it may ring");
    let Err(Refused::TooMany { cap, .. }) = house.place("two", &body).await else {
        panic!("it may ring");
    };
    assert_eq!(cap, "calls_to_one_number_at_a_time");
    let ended = house.over(&call).await;
    assert_eq!(ended, ("failed".to_owned(), "canceled".to_owned()));
    let over = house.twilio.until(|calls| calls[0].is_over());
    let calls = timeout(GUARD, over).await.unwrap();
    assert_eq!((calls.len(), calls[0].status), (1, "canceled"));
    house.close().await;
}

#[tokio::test]
async fn a_call_that_its_carrier_does_not_end_at_once_is_ended_later() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Rings);
    // Each would have it ended once more.
    house.twilio.lose_callbacks(100);
    let body = json!({"to": "+972502345671", "ring_timeout": 60});
    let placed = house.place("one", &body).await.unwrap();
    let rings = house
        .twilio
        .until(|calls| calls.iter().any(|it| it.status == "ringing"));
    timeout(GUARD, rings).await.unwrap();
    let named = async || house.row(&placed.id).await.carrier_call;
    house.until(async || named().await.is_some()).await;
    house.twilio.fail_ends(2);
    let gateway = house.running.gateway();
    let name = named().await.unwrap();
    hang_up(gateway, placed.id.parse().unwrap(), &name).await;
    let row = house.row(&placed.id).await;
    assert!(row.called_off_at.is_some() && row.stage == Stage::Placed);
    assert_eq!(gateway.admission.occupancy().active, 1, "it rings");
    let ended = house.over(&placed.id).await;
    assert_eq!(ended, ("failed".to_owned(), "canceled".to_owned()));
    let over = house.twilio.until(|calls| calls[0].is_over());
    assert_eq!(timeout(GUARD, over).await.unwrap()[0].status, "canceled");
    house.close().await;
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_is_not_placed_though_the_database_was_away_when_it_was_ended()
 {
    let house = House::open(&[("OUTBOUND_WAIT_SECONDS", "60")]).await;
    let ages =
        "INSERT INTO outbound_turns (carrier, next_at) VALUES ('twilio', 0) ON CONFLICT DO NOTHING";
    house.database.ask(ages).await;
    let first = house.place("one", &to("+972502345671")).await.unwrap();
    house.over(&first.id).await;
    let later = "UPDATE outbound_turns SET next_at = next_at + 2000";
    house.database.ask(later).await;
    let placed = house.place("two", &to("+972502345672")).await.unwrap();
    let row = house.row(&placed.id).await;
    assert_eq!(row.stage, Stage::Queued);
    let away = "ALTER TABLE outbound RENAME TO outbound_away";
    house.database.ask(away).await;
    hang_up(house.running.gateway(), row.call, &row.pending).await;
    // Its turn comes before it is tried again to note that.
    let back = "ALTER TABLE outbound_away RENAME TO outbound";
    house.database.ask(back).await;
    let ended = house.over(&placed.id).await;
    assert_eq!(ended, ("failed".to_owned(), "canceled".to_owned()));
    assert_eq!(house.twilio.calls().len(), 1, "only the first was dialed");
    house.close().await;
}

#[tokio::test]
async fn a_call_that_was_called_off_and_waits_for_its_turn_is_seen_to_by_the_sweep() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let row = leave_as(&house, &me, Stage::Queued, "+972502345671", 0).await;
    let database = &house.running.gateway().records.database;
    let off = rows::call_off(database, row.call).await;
    assert!(off.unwrap().is_some());
    let ended = house.over(&row.call.to_string()).await;
    assert_eq!(ended, ("failed".to_owned(), "canceled".to_owned()));
    assert!(house.twilio.calls().is_empty());
    house.close().await;
}

#[tokio::test]
async fn who_picks_up_a_call_that_was_called_off_is_hung_up_on_though_the_database_is_away() {
    let house = House::open(&[]).await;
    let body = json!({"to": "+972502345671", "ring_timeout": 60});
    let row = house.rings_unknown(&body).await;
    let gateway = house.running.gateway();
    let away = "ALTER TABLE outbound RENAME TO outbound_away";
    house.database.ask(away).await;
    let ending = hang_up(gateway, row.call, &row.pending);
    let name = crate::call::CarrierCallId::try_from(house.twilio.calls()[0].sid.clone()).unwrap();
    let marker = Marker {
        pending: row.pending.as_str().to_owned(),
        campaign: "default".to_owned(),
        agent: "default".to_owned(),
        when_machine: WhenMachine::default(),
    };
    let callee = crate::call::CallerId::read("+972502345671");
    let answering = async {
        let known = async || gateway.is_called_off(row.call).await;
        house.until(known).await;
        let (answer, _) = picked_up(gateway, &marker, &name, &callee, None).await;
        assert_eq!(answer, crate::answer::Answer::HangUp);
        let back = "ALTER TABLE outbound_away RENAME TO outbound";
        house.database.ask(back).await;
    };
    tokio::join!(ending, answering);
    assert_eq!(house.over(&row.call.to_string()).await.1, "canceled");
    let over = house.twilio.until(|calls| calls[0].is_over());
    assert_eq!(timeout(GUARD, over).await.unwrap()[0].status, "canceled");
    house.close().await;
}

#[tokio::test]
async fn a_call_that_talks_is_ended_by_the_name_that_its_record_does_not_have_yet() {
    let house = House::open_to(&[], GUARD * 2).await;
    let placed = house.place("one", &to("+972502345671")).await.unwrap();
    let gateway = house.running.gateway();
    let talks = async || !gateway.connections.list().is_empty();
    house.until(talks).await;
    let row = house.row(&placed.id).await;
    hang_up(gateway, row.call, &row.pending).await;
    house.until(async || gateway.connections.count() == 0).await;
    assert_eq!(house.over(&placed.id).await.1, "requested");
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
async fn a_call_that_was_ended_before_its_name_was_known_is_ended_when_its_carrier_tells_of_it() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Rings);
    let placed = house.place("one", &to("+972502345671")).await.unwrap();
    let rings = house
        .twilio
        .until(|calls| calls.iter().any(|it| it.status == "ringing"));
    let call = timeout(GUARD, rings).await.unwrap().remove(0);
    house
        .until(async || house.row(&placed.id).await.carrier_call.is_some())
        .await;
    // As if the answer to the request had been lost, and nothing had come yet.
    let unnamed = "UPDATE outbound SET state = 'over', carrier_call = NULL, to_number = ''";
    house.database.ask(unnamed).await;
    let marker = Marker {
        pending: house.row(&placed.id).await.pending.as_str().to_owned(),
        campaign: "default".to_owned(),
        agent: "default".to_owned(),
        when_machine: WhenMachine::default(),
    };
    let name = crate::call::CarrierCallId::try_from(call.sid).unwrap();
    let gateway = house.running.gateway();
    progressed(gateway, &marker, &name, Progress::Waiting, None).await;
    let over = house.twilio.until(|calls| calls[0].is_over());
    let calls = timeout(GUARD, over).await.unwrap();
    assert_ne!(calls[0].status, "no-answer", "it has rung to its end");
    house.close().await;
}

#[tokio::test]
async fn a_call_of_which_the_carrier_cannot_tell_fails_after_a_while_and_frees_its_number() {
    let house = House::open(&[("TWILIO_API_BASE", "http://127.0.0.1:1")]).await;
    let unknown = leave(&house, Stage::Unknown, "+972502345671").await;
    let lately = leave(&house, Stage::Unknown, "+972502345672").await;
    house
        .database
        .ask(
            "UPDATE outbound SET rings_until = rings_until - 910000 \
             WHERE to_number = '+972502345671'",
        )
        .await;
    let ended = house.over(&unknown.call.to_string()).await;
    assert_eq!(ended, ("failed".to_owned(), "untold".to_owned()));
    let row = house.row(&lately.call.to_string()).await;
    assert_eq!(row.stage, Stage::Unknown, "it may still be told of");
    house
        .database
        .ask("UPDATE outbound SET rings_until = rings_until - 910000")
        .await;
    house.over(&lately.call.to_string()).await;
    assert!(house.twilio.calls().is_empty());
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
async fn what_a_dead_replica_has_not_asked_for_is_asked_for_and_the_rest_is_looked_for() {
    let house = House::open(&[]).await;
    let queued = leave(&house, Stage::Queued, "+972502345671").await;
    let dialing = leave(&house, Stage::Dialing, "+972502345672").await;
    let reserving = leave(&house, Stage::Reserving, "+972502345673").await;
    assert_eq!(house.over(&queued.call.to_string()).await.0, "ended");
    let ended = house.over(&dialing.call.to_string()).await;
    assert_eq!(ended, ("failed".to_owned(), "not_placed".to_owned()));
    let calls = house.twilio.calls();
    assert_eq!(calls.len(), 1, "only what was not asked for");
    assert_eq!(calls[0].to, "+972502345671");
    let gateway = house.running.gateway();
    let gone = async || {
        let found = rows::find(&gateway.records.database, reserving.call).await;
        found.unwrap().is_none()
    };
    house.until(gone).await;
    house.close().await;
}

#[tokio::test]
async fn a_call_that_is_over_without_a_word_in_its_record_is_closed_there_later() {
    let house = House::open(&[]).await;
    let lately = leave_since(&house, Stage::Over, "+972502345671", 0).await;
    let long_ago = leave_since(&house, Stage::Over, "+972502345672", 0).await;
    for ages in [
        "UPDATE outbound SET held_until = 0 WHERE to_number = '+972502345672'",
        "UPDATE calls SET rang_at = rang_at - 90000 WHERE call IN \
         (SELECT call FROM outbound WHERE to_number = '+972502345672')",
    ] {
        house.database.ask(ages).await;
    }
    let ended = house.over(&long_ago.call.to_string()).await;
    let lost = "instance_lost".to_owned();
    assert_eq!(ended, (lost.clone(), lost));
    let open = "SELECT call FROM calls WHERE rank < 90";
    let open = house.database.ask(open).await;
    assert_eq!(open.len(), 1, "{open:?}: its last word may be on its way");
    assert!(format!("{open:?}").contains(&lately.call.to_string()));
    house.close().await;
}

#[tokio::test]
async fn what_no_task_drives_any_more_is_seen_to_though_its_replica_lives() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let row = leave_as(&house, &me, Stage::Reserving, "+972502345671", 31_000).await;
    let gateway = house.running.gateway();
    let gone = async || {
        let found = rows::find(&gateway.records.database, row.call).await;
        found.unwrap().is_none()
    };
    house.until(gone).await;
    house.close().await;
}

#[tokio::test]
async fn a_call_that_was_picked_up_and_never_told_of_again_is_over_once_none_lasts_that_long() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let row = leave_as(&house, &me, Stage::Answered, "+972502345671", 0).await;
    house
        .database
        .ask("UPDATE outbound SET rings_until = rings_until - 90000000")
        .await;
    let call = row.call.to_string();
    house
        .until(async || house.row(&call).await.stage == Stage::Over)
        .await;
    house.close().await;
}

#[tokio::test]
async fn a_call_that_takes_its_turn_waits_for_a_database_that_is_away() {
    let house = House::open(&[]).await;
    let away = "ALTER TABLE outbound_turns RENAME TO outbound_turns_away";
    let back = "ALTER TABLE outbound_turns_away RENAME TO outbound_turns";
    let row = leave(&house, Stage::Queued, "+972502345671").await;
    house.database.ask(away).await;
    let gateway = house.running.gateway().clone();
    let holds = async |slots| gateway.admission.occupancy().active == slots;
    house.until(async || holds(1).await).await;
    // Written after its turn was asked for, and so refused later than that.
    let other = house.place("other", &to("+972502345672")).await;
    assert!(
        matches!(other, Err(Refused::Unavailable { .. })),
        "{other:?}"
    );
    assert!(holds(1).await, "it keeps its slot");
    house.database.ask(back).await;
    assert_eq!(house.over(&row.call.to_string()).await.0, "ended");
    assert_eq!(house.twilio.calls().len(), 1);
    house.close().await;
}

#[tokio::test]
async fn a_call_that_was_queued_without_anybody_hearing_so_is_placed_and_else_nothing_is_left() {
    let house = House::open(&[]).await;
    let gateway = house.running.gateway();
    let me = gateway.admission.replica().to_owned();
    let campaign = gateway.campaigns.current().default_campaign().clone();
    let away = "ALTER TABLE outbound RENAME TO outbound_away";
    let back = "ALTER TABLE outbound_away RENAME TO outbound";
    let reserving = leave_as(&house, &me, Stage::Reserving, "+972502345671", 0).await;
    let slot = room::take_slot(gateway, &reserving, &campaign).await;
    assert!(matches!(slot, Reservation::Held { .. }), "{slot:?}");
    let found = room::find_out(gateway, &reserving).await;
    assert!(
        matches!(found, Err(Refused::Unavailable { .. })),
        "{found:?}"
    );
    assert_eq!(gateway.admission.occupancy().active, 0);
    assert!(
        house
            .database
            .ask("SELECT call FROM outbound")
            .await
            .is_empty()
    );
    let days = "SELECT calls FROM outbound_days";
    assert_eq!(house.database.ask(days).await, ["0"]);

    let queued = leave_as(&house, &me, Stage::Queued, "+972502345672", 0).await;
    let slot = room::take_slot(gateway, &queued, &campaign).await;
    assert!(matches!(slot, Reservation::Held { .. }), "{slot:?}");
    assert_eq!(room::find_out(gateway, &queued).await, Ok(()));
    house.database.ask(away).await;
    let found = room::find_out(gateway, &queued).await;
    assert!(
        matches!(found, Err(Refused::NotKnownYet { .. })),
        "{found:?}"
    );
    assert_eq!(gateway.admission.occupancy().active, 1, "it may be queued");
    house.database.ask(back).await;
    assert_eq!(house.over(&queued.call.to_string()).await.0, "ended");
    assert_eq!(house.twilio.calls().len(), 1);
    house.close().await;
}

#[tokio::test]
async fn whoever_asks_while_the_database_is_away_is_not_told_that_no_call_was_placed() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Busy);
    let body = to("+972502345671");
    let placed = house.place("one", &body).await.unwrap();
    house.over(&placed.id).await;
    let away = "ALTER TABLE outbound RENAME TO outbound_away";
    house.database.ask(away).await;
    let told = house.place("one", &body).await;
    assert!(matches!(told, Err(Refused::NotKnownYet { .. })), "{told:?}");
    let back = "ALTER TABLE outbound_away RENAME TO outbound";
    house.database.ask(back).await;
    assert_eq!(house.place("one", &body).await, Ok(placed));
    house.close().await;
}

#[tokio::test]
async fn a_twin_that_has_waited_in_vain_is_not_told_that_no_call_was_placed() {
    let house = House::open(&[]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let row = leave_as(&house, &me, Stage::Reserving, "+972502345671", 0).await;
    // Under the key that it was left by, and with the same body.
    let body = to("+972502345671");
    let hash = place::hash(&house.running.gateway().records.numbers, &body);
    house
        .write(&format!("UPDATE outbound SET body_hash = '{hash}'"))
        .await;
    let told = house.place("+972502345671", &body).await;
    assert!(matches!(told, Err(Refused::NotKnownYet { .. })), "{told:?}");
    rows::forget(&house.running.gateway().records.database, &row)
        .await
        .unwrap();
    house.close().await;
}

#[tokio::test]
async fn calls_that_have_waited_for_the_database_take_their_turns_anew() {
    let settings = [
        ("OUTBOUND_CALLS_PER_SECOND", "1"),
        ("OUTBOUND_WAIT_SECONDS", "60"),
    ];
    let house = House::open(&settings).await;
    house.twilio.callees(Callee::Busy);
    let first = house.place("one", &to("+972502345671")).await.unwrap();
    house.over(&first.id).await;
    let later = "UPDATE outbound_turns SET next_at = next_at + 5000";
    house.database.ask(later).await;
    let second = house.place("two", &to("+972502345672")).await.unwrap();
    let third = house.place("three", &to("+972502345673")).await.unwrap();
    house
        .database
        .ask("ALTER TABLE outbound RENAME TO outbound_away")
        .await;
    let next = async || {
        let next = house
            .database
            .ask("SELECT next_at FROM outbound_turns")
            .await;
        next[0].parse::<i64>().unwrap()
    };
    // Both servers are on this machine, and so have one clock.
    let last_turn = next().await - 1_000;
    house
        .until(async || unix_millis_i64() > last_turn + 2_000)
        .await;
    let back = unix_millis_i64();
    house
        .database
        .ask("ALTER TABLE outbound_away RENAME TO outbound")
        .await;
    house.over(&second.id).await;
    house.over(&third.id).await;
    assert!(next().await >= back + 2_000, "each has had a turn since");
    assert_eq!(house.twilio.calls().len(), 3);
    house.close().await;
}

#[tokio::test]
async fn a_call_that_was_handed_over_is_ended_at_its_carrier_though_its_record_is_closed() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Rings);
    let body = json!({"to": "+972502345671", "ring_timeout": 60});
    let placed = house.place("one", &body).await.unwrap();
    let named = async || house.row(&placed.id).await.carrier_call;
    house.until(async || named().await.is_some()).await;
    // As if somebody had picked up, and the agent had handed the call over.
    for handed_over in [
        "UPDATE outbound SET state = 'answered'",
        "UPDATE calls SET state = 'ended', rank = 90, reason = 'transferred', ended_at = rang_at",
    ] {
        house.database.ask(handed_over).await;
    }
    let gateway = house.running.gateway();
    let call = placed.id.parse().unwrap();
    assert!(goes_on(gateway, call).await.unwrap());
    hang_up(gateway, call, &named().await.unwrap()).await;
    let over = house.twilio.until(|calls| calls[0].is_over());
    let calls = timeout(GUARD, over).await.unwrap();
    assert_ne!(calls[0].status, "no-answer", "it was ended");
    let is_over = async || !goes_on(gateway, call).await.unwrap();
    house.until(is_over).await;
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
