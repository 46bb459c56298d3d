//! Calls that somebody wants to be over.

use super::*;

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
        seconds: None,
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
        seconds: None,
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
    let name = named().await.unwrap();
    let goes_on = async || goes_on_elsewhere(gateway, call, &name).await;
    assert!(goes_on().await.unwrap());
    // Twilio does not do it at once, and is asked again by us alone.
    house.twilio.fail_ends(2);
    for _ in 0..2 {
        hang_up(gateway, call, &name).await;
        assert!(!house.twilio.calls()[0].is_over());
    }
    let over = house.twilio.until(|calls| calls[0].is_over());
    let calls = timeout(GUARD, over).await.unwrap();
    assert_ne!(calls[0].status, "no-answer", "it was ended");
    house.until(async || !goes_on().await.unwrap()).await;
    let outbound = &gateway.outbound;
    assert!(!outbound.begin_to_end(call), "it was ended");
    outbound.give_up_to_end(call);
    assert!(outbound.begin_to_end(call), "whoever wants it begins anew");
    house.close().await;
}

#[tokio::test]
async fn a_call_that_came_in_goes_on_where_it_was_handed_over_until_that_is_over() {
    let house = House::open(&[]).await;
    let (twilio, acs) = ("CA00000000000000000000", "5fc6f3bd-0a5a-4f6b-b0a3-00");
    let web = "web-5fc6f3bd-0a5a-4f6b-b0a3-00";
    let hours = |hours: i64| hours * 3_600_000;
    let cases = [
        (twilio, "transferred", 0, false, true),
        (twilio, "transferred", hours(3), false, true),
        (twilio, "transferred", hours(5), false, false), // Longer than any call lasts.
        (twilio, "transferred", 0, true, false),
        (twilio, "caller_hung_up", 0, false, false),
        (acs, "transferred", 0, false, true),
        (acs, "transferred", 121_000, false, false),
        (acs, "transferred", 0, true, false),
        (web, "transferred", 0, false, false),
    ];
    for (at, (whose, reason, ago, told, goes_on)) in (1_000_000_000..).zip(cases) {
        let name = CarrierCallId::try_from(format!("{whose}{at}")).unwrap();
        let call = CallId::of(&name);
        let ended_at = unix_millis_i64() - ago;
        let carrier = name.carrier().as_str();
        let row = format!(
            "INSERT INTO calls (call, carrier_call, carrier, direction, state, rank, reason, rang_at, \
             ended_at) VALUES ('{call}', '{name}', '{carrier}', 'inbound', 'ended', 90, '{reason}', \
             {ended_at}, {ended_at})"
        );
        house.write(&row).await;
        if told {
            let step = format!(
                "INSERT INTO steps (step, call, at, what) VALUES ('{call}', '{call}', 0, \
                 'transfer_ended')"
            );
            house.write(&step).await;
        }
        let asked = goes_on_elsewhere(house.running.gateway(), call, &name).await;
        assert_eq!(asked.unwrap(), goes_on, "{name} {reason} {ago} {told}");
    }
    house.close().await;
}
