use super::*;
use crate::{campaign::Campaigns, language::Language};

fn call(name: &str) -> CarrierCallId {
    CarrierCallId::try_from(name.to_owned()).unwrap()
}

#[test]
fn whoever_can_be_written_to_is_owed_a_message_and_nobody_else() {
    let mut ledger = Ledger::default();
    for (number, caller) in [
        "+972501234567",
        "anonymous",
        "client:dana",
        "sip:dana@example.com",
        "0501234567",
        "",
    ]
    .into_iter()
    .enumerate()
    {
        let standing = ledger.standing(0, &call(&format!("CA{number}")), &CallerId::read(caller));
        let expected = match number {
            0 => Standing::Owed,
            _ => Standing::Without(Why::NoNumber),
        };
        assert_eq!(standing, expected, "{caller}");
    }
}

#[test]
fn a_caller_is_written_to_once_a_day_and_a_call_stands_where_it_stood() {
    let mut ledger = Ledger::default();
    let number: PhoneNumber = "+972501234567".parse().unwrap();
    let dana = CallerId::Number(number.clone());
    assert_eq!(ledger.standing(0, &call("CA1"), &dana), Standing::Owed);
    // A repeated webhook may be faster than the one that was decided about.
    assert_eq!(ledger.standing(1, &call("CA1"), &dana), Standing::Owed);
    ledger.take(2, &call("CA1"), &number);
    assert_eq!(ledger.standing(3, &call("CA1"), &dana), Standing::Taken);
    let written_to = Standing::Without(Why::WrittenTo);
    assert_eq!(ledger.standing(4, &call("CA2"), &dana), written_to);
    let tomorrow = 2 + DAY;
    assert_eq!(
        ledger.standing(tomorrow - 1, &call("CA3"), &dana),
        written_to
    );
    assert_eq!(
        ledger.standing(tomorrow, &call("CA4"), &dana),
        Standing::Owed
    );
}

#[test]
fn of_two_calls_of_one_caller_at_the_same_moment_one_is_written_to() {
    let mut ledger = Ledger::default();
    let number: PhoneNumber = "+972501234567".parse().unwrap();
    let dana = CallerId::Number(number.clone());
    for name in ["CA1", "CA2"] {
        assert_eq!(ledger.standing(0, &call(name), &dana), Standing::Owed);
    }
    ledger.take(0, &call("CA1"), &number);
    assert_eq!(
        ledger.standing(0, &call("CA2"), &dana),
        Standing::Without(Why::WrittenTo)
    );
}

#[test]
fn a_caller_whom_no_message_reached_may_be_written_to_again() {
    let mut ledger = Ledger::default();
    let number: PhoneNumber = "+972501234567".parse().unwrap();
    let dana = CallerId::Number(number.clone());
    ledger.standing(0, &call("CA1"), &dana);
    ledger.take(0, &call("CA1"), &number);
    ledger.forget(5, &number);
    assert_eq!(ledger.standing(5, &call("CA1"), &dana), Standing::Taken);
    assert_eq!(ledger.standing(5, &call("CA2"), &dana), Standing::Owed);
}

#[test]
fn a_variable_may_name_the_campaign_and_its_tenant() {
    let campaigns = Campaigns::only(Language::default(), None, Vec::new());
    let campaign = campaigns.default_campaign();
    for (value, expected) in [
        ("Dana's \"bakery\"", "Dana's \"bakery\""),
        ("{campaign} of {tenant}", "default of default"),
        ("{caller}", "{caller}"),
    ] {
        assert_eq!(filled(value, campaign), expected);
    }
}
