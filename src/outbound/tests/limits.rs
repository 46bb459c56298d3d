//! How many calls there may be, and what is left of those for which there is no room.

use super::*;
use crate::record::{Doomed, unix_millis_i64};

#[tokio::test]
async fn caps_are_told_by_name_and_kept() {
    let house = House::open(&[("MAX_OUTBOUND_CALLS", "1"), ("MAX_DAILY_CALLS", "2")]).await;
    house.twilio.callees(Callee::Rings);
    let first = house.place("one", &to("+972502345671")).await.unwrap();
    let refused = house.place("x", &to("+972502345671")).await;
    let engaged = Refused::TooMany {
        cap: "calls_to_one_number_at_a_time",
        value: 1,
        used: None,
        again_in: Duration::from_secs(30),
    };
    assert_eq!(refused, Err(engaged), "a number is called once at a time");
    let Err(Refused::Full(refusal)) = house.place("two", &to("+972502345672")).await else {
        panic!("there is room for one");
    };
    assert_eq!(
        (refusal.scope, refusal.used, refusal.cap),
        (Scope::Outbound, 1, 1)
    );
    house.over(&first.id).await;
    house.twilio.callees(Callee::Busy);
    // The key of a refused request may be used again.
    let second = house.place("two", &to("+972502345672")).await.unwrap();
    house.over(&second.id).await;
    let Err(Refused::Spent {
        cap, value, used, ..
    }) = house.place("three", &to("+972502345673")).await
    else {
        panic!("the day's calls are spent");
    };
    assert_eq!((cap, value, used), ("calls_of_the_day", 2, 2));
    assert_eq!(house.twilio.calls().len(), 2);
    house.close().await;
}

#[tokio::test]
async fn who_is_refused_leaves_nothing_behind() {
    let settings = [
        ("MAX_OUTBOUND_CALLS", "1"),
        ("OUTBOUND_CALLS_PER_SECOND", "1"),
        ("OUTBOUND_WAIT_SECONDS", "0"),
    ];
    let house = House::open(&settings).await;
    house.twilio.callees(Callee::Rings);
    let first = house.place("one", &to("+972502345671")).await.unwrap();
    let refused = house.place("two", &to("+972502345672")).await;
    assert!(matches!(refused, Err(Refused::Full(_))), "{refused:?}");
    // Beyond the rate there is no turn, whatever room there is.
    house
        .database
        .ask("UPDATE outbound_turns SET next_at = next_at + 200000")
        .await;
    house.over(&first.id).await;
    let refused = house.place("three", &to("+972502345673")).await;
    let Err(Refused::TooMany { cap, again_in, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(cap, "calls_per_second");
    assert!(again_in > Duration::from_secs(60), "{again_in:?}");
    for (question, expected) in [
        ("SELECT call FROM calls", &first.id),
        ("SELECT call FROM outbound", &first.id),
        ("SELECT target FROM audit", &first.id),
        ("SELECT call FROM events", &first.id),
    ] {
        assert_eq!(house.database.ask(question).await, [expected.as_str()]);
    }
    house.close().await;
}

#[tokio::test]
async fn an_api_key_places_no_more_calls_in_a_minute_than_it_may() {
    let house = House::open(&[("OUTBOUND_PER_KEY_MINUTE", "2")]).await;
    house.twilio.callees(Callee::Busy);
    let numbers = ["+972502345671", "+972502345672", "+972502345673"];
    let bodies = numbers.map(to);
    let asking = numbers.iter().zip(&bodies);
    let asking = asking.map(|(key, body)| house.place(key, body));
    let (placed, refused): (Vec<_>, Vec<_>) =
        join_all(asking).await.into_iter().partition(Result::is_ok);
    assert_eq!((placed.len(), refused.len()), (2, 1), "{refused:?}");
    let Err(Refused::TooMany { cap, again_in, .. }) = &refused[0] else {
        panic!("{refused:?}");
    };
    assert_eq!(*cap, "calls_of_one_key_within_a_minute");
    assert!(*again_in > Duration::from_secs(20), "{again_in:?}");
    for placed in placed {
        let placed = placed.unwrap();
        house.over(&placed.id).await;
        // Who asks again is told of its call, however many there were.
        assert_eq!(house.place(&placed.to, &to(&placed.to)).await, Ok(placed));
    }
    house.close().await;
}

#[tokio::test]
async fn the_numbers_of_a_call_that_is_over_are_kept_as_records_are() {
    let house = House::open(&[("RECORD_NUMBERS", "masked")]).await;
    house.twilio.callees(Callee::Busy);
    for key in ["one", "two", "three"] {
        let placed = house.place(key, &to("+972502345671")).await.unwrap();
        house.over(&placed.id).await;
    }
    let kept = "SELECT to_number, from_number, request, to_code, body_hash FROM outbound";
    for row in house.database.ask(kept).await {
        assert!(
            !row.contains("2345671") && !row.contains("2234567"),
            "{row}"
        );
    }
    // They are counted all the same.
    let Err(Refused::TooMany { cap, .. }) = house.place("four", &to("+972502345671")).await else {
        panic!("it was called three times");
    };
    assert_eq!(cap, "calls_to_one_number_within_an_hour");
    house.close().await;
}

#[tokio::test]
async fn numbers_that_begin_alike_are_called_no_more_often_than_they_may_be() {
    let house = House::open(&[("OUTBOUND_PER_PREFIX_HOUR", "2")]).await;
    house.twilio.callees(Callee::Busy);
    for number in ["+972502345671", "+972502340000"] {
        let placed = house.place(number, &to(number)).await.unwrap();
        house.over(&placed.id).await;
    }
    let refused = house.place("three", &to("+972502349999")).await;
    let Err(Refused::TooMany {
        cap,
        value,
        used,
        again_in,
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (cap, value, used),
        ("calls_to_one_prefix_within_an_hour", 2, None),
        "other tenants' are counted as well"
    );
    assert!(again_in > Duration::from_secs(3_000), "{again_in:?}");
    let metrics = house.running.gateway().metrics.text(|_| {});
    assert!(
        metrics.contains("outbound_prefix_refusals_total 1\n"),
        "{metrics}"
    );
    let other = house.place("four", &to("+972502350000")).await.unwrap();
    house.over(&other.id).await;
    house.close().await;
}

#[tokio::test]
async fn who_asks_again_is_told_of_its_call_though_no_new_one_would_be_placed() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Busy);
    let body = to("+972502345671");
    let placed = house.place("one", &body).await.unwrap();
    house.over(&placed.id).await;
    let gateway = house.running.gateway();
    gateway.set_intake(true).await.unwrap();
    let new = house.place("two", &body).await;
    assert!(matches!(new, Err(Refused::Unavailable { .. })), "{new:?}");
    assert_eq!(house.place("one", &body).await, Ok(placed));
    house.close().await;
}

#[tokio::test]
async fn what_is_deleted_is_not_placed_again_and_counts_on() {
    let house = House::open(&[]).await;
    house.twilio.callees(Callee::Busy);
    let body = json!({"to": "+972502345671", "metadata": {"canary": 1}});
    let mut placed = Vec::new();
    for key in ["one", "two", "three"] {
        placed.push(house.place(key, &body).await.unwrap());
        house.over(&placed.last().unwrap().id).await;
    }
    erase(&house, "+972502345671").await;
    for (question, expected) in [
        ("SELECT call FROM calls", &[][..]),
        ("SELECT call FROM steps", &[]),
        (
            "SELECT DISTINCT to_number || from_number || COALESCE(carrier_call, '') FROM outbound",
            &[""],
        ),
    ] {
        assert_eq!(house.database.ask(question).await, expected, "{question}");
    }
    let left = house.database.ask("SELECT request FROM outbound").await;
    assert!(!left.join(" ").contains("canary"), "{left:?}");
    assert_eq!(house.place("one", &body).await.as_ref(), Ok(&placed[0]));
    let Err(Refused::TooMany { cap, .. }) = house.place("four", &body).await else {
        panic!("it was called three times");
    };
    assert_eq!(cap, "calls_to_one_number_within_an_hour");
    assert_eq!(house.twilio.calls().len(), 3);
    house.close().await;
}

#[tokio::test]
async fn minutes_count_while_a_call_goes_on_and_when_its_record_is_deleted() {
    let house = House::open(&[("MAX_DAILY_MINUTES", "2")]).await;
    let me = house.running.gateway().admission.replica().to_owned();
    let row = leave_as(&house, &me, Stage::Answered, "+972502345671", 0).await;
    let talks = format!(
        "UPDATE calls SET connected_at = {}",
        unix_millis_i64() - 60_000
    );
    house.write(&talks).await;
    let begun = house.place("one", &to("+972502345672")).await;
    house.over(&begun.unwrap().id).await;
    let longest = house.twilio.calls()[0].longest.unwrap();
    assert!(
        longest <= Duration::from_secs(60),
        "{longest:?} are left of the day"
    );
    let talks = format!(
        "UPDATE calls SET connected_at = {}",
        unix_millis_i64() - 121_000
    );
    house.write(&talks).await;
    let spent = async |key| {
        let refused = house.place(key, &to("+972502345673")).await;
        let Err(Refused::Spent {
            cap, value, used, ..
        }) = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!((cap, value, used), ("minutes_of_the_day", 2, 2));
    };
    spent("two").await;
    // Over by its record, while the carrier's last word of it has not come.
    house.write(
        "UPDATE calls SET rank = 90, state = 'ended', talked_ms = 121000 WHERE connected_at > 0",
    )
    .await;
    spent("three").await;
    erase(&house, "+972502345671").await;
    assert_eq!(house.row(&row.call.to_string()).await.stage, Stage::Over);
    spent("four").await;
    house.close().await;
}

/// Deletes the records of a number.
async fn erase(house: &House, number: &str) {
    let records = &house.running.gateway().records;
    let found_by = records.numbers.found_by(number).unwrap();
    let doomed = Doomed::of_number(None, vec![found_by]);
    let erase = records.database.write(move |writing| {
        Box::pin(async move { crate::record::erase_some(writing, &doomed).await })
    });
    assert!(!erase.await.unwrap().is_empty());
}
