//! Calls that are left alone: by a replica that is gone, by a carrier that cannot tell, and by a database that is away.

use super::*;

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
