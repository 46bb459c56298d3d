use super::*;
use crate::guard::GuardRules;

fn number(text: &str) -> PhoneNumber {
    text.parse().unwrap()
}

fn directory() -> Directory {
    let destinations = [("reception", "+97221111111"), ("sales", "+97222222222")];
    let named = destinations.map(|(name, to)| (name.parse().unwrap(), number(to)));
    Directory {
        destinations: named.into(),
        ..Directory::default()
    }
}

fn slots(schema: &str) -> Tool {
    Tool {
        name: "find_slot".parse().unwrap(),
        description: "Finds a time.".to_owned(),
        schema: Schema::parse(schema).unwrap(),
        does: Does::Asks {
            url: GuardRules::default()
                .url("https://crm.example.com/slots")
                .unwrap(),
            timeout: USUAL_TIMEOUT,
        },
    }
}

fn tools() -> Tools {
    let schema = r#"{"type":"object","properties":{"day":{"type":"string","pattern":"^(a+)+$"},
        "most":{"type":"integer","minimum":1}},"required":["day"],"additionalProperties":false}"#;
    Tools::new(&BuiltIn::ALL, directory(), vec![slots(schema)])
}

fn call(tool: &str, arguments: &str) -> ToolCall {
    ToolCall {
        id: "call_1".to_owned(),
        tool: tool.to_owned(),
        arguments: Some(arguments.to_owned()),
    }
}

#[test]
fn what_an_agent_asks_for_is_done_only_as_its_campaign_allows() {
    use ToolOutcome::{Invalid, Unknown};
    let tools = tools();
    for (tool, arguments, refused) in [
        ("end_call", "{}", None),
        ("end_call", "", None),
        ("end_call", r#"{"now":true}"#, Some((Invalid, "now"))),
        ("transfer_call", r#"{"destination":"sales"}"#, None),
        (
            "transfer_call",
            r#"{"destination":"boss"}"#,
            Some((Invalid, "is not one of")),
        ),
        (
            "transfer_call",
            r#"{"destination":"+97229999999"}"#,
            Some((Invalid, "is not one of")),
        ),
        (
            "transfer_call",
            r#"{"destination":"sales","number":"+97229999999"}"#,
            Some((Invalid, "number")),
        ),
        (
            "transfer_call",
            r#"{"destination":7}"#,
            Some((Invalid, "7")),
        ),
        ("transfer_call", "{}", Some((Invalid, "destination"))),
        ("send_dtmf", r#"{"digits":"12w*#"}"#, None),
        ("send_dtmf", r#"{"digits":"12A"}"#, Some((Invalid, "12A"))),
        ("send_dtmf", r#"{"digits":""}"#, Some((Invalid, "digits"))),
        (
            "send_dtmf",
            r#"{"digits":"111111111111111111111111111111111"}"#,
            Some((Invalid, "digits")),
        ),
        ("find_slot", r#"{"day":"aaa","most":2}"#, None),
        (
            "find_slot",
            r#"{"day":"aaa","most":"2"}"#,
            Some((Invalid, "/most")),
        ),
        ("find_slot", "[]", Some((Invalid, "object"))),
        ("find_slot", "{", Some((Invalid, "not JSON"))),
        ("find_time", "{}", Some((Unknown, "there are end_call, "))),
        ("", "{}", Some((Unknown, "no such tool"))),
    ] {
        let judged = tools.judge(&call(tool, arguments));
        match (judged, refused) {
            (Ok(_), None) => {}
            (Err(refusal), Some((outcome, advice))) => {
                assert_eq!(refusal.outcome, outcome, "{tool} {arguments}");
                assert!(refusal.advice.contains(advice), "{}", refusal.advice);
                let told: Value = serde_json::from_str(&refusal.text()).unwrap();
                assert_eq!(told["error"], refusal.advice);
            }
            (judged, _) => panic!("{tool} {arguments}: {judged:?}"),
        }
    }
    let endless = ToolCall {
        arguments: None,
        ..call("end_call", "")
    };
    let refusal = tools.judge(&endless).unwrap_err();
    assert_eq!(refusal.outcome, ToolOutcome::TooLong);
}

#[test]
fn no_argument_keeps_a_pattern_busy() {
    // A backtracking engine would not be back within a lifetime.
    let hostile = format!(r#"{{"day":"{}b"}}"#, "a".repeat(10_000));
    assert!(tools().judge(&call("find_slot", &hostile)).is_err());
}

#[test]
fn a_campaign_offers_its_own_tools_and_no_number() {
    let offers = json!(tools().offers().collect::<Vec<_>>());
    let names: Vec<_> = offers.as_array().unwrap().iter().collect();
    let names: Vec<_> = names.iter().map(|offer| &offer["name"]).collect();
    assert_eq!(
        names,
        ["end_call", "transfer_call", "send_dtmf", "find_slot"]
    );
    let destination = &offers[1]["parameters"]["properties"]["destination"];
    assert_eq!(destination["enum"], json!(["reception", "sales"]));
    assert!(!offers.to_string().contains("+972"));
    let usual = json!(Tools::default().offers().collect::<Vec<_>>());
    assert_eq!(usual.as_array().unwrap().len(), 1);
    assert_eq!(usual[0]["name"], "end_call");
}

#[test]
fn a_schema_is_one_of_an_object_and_needs_nothing_from_elsewhere() {
    for (schema, flaw) in [
        (r#"{"type":"object"}"#, ""),
        ("{", "not JSON"),
        (r#"{"type":"string"}"#, "has to be \"object\""),
        ("{}", "has to be \"object\""),
        (
            r#"{"type":"object","properties":{"a":{"type":"text"}}}"#,
            "not a JSON schema",
        ),
        (
            r#"{"type":"object","properties":{"a":{"pattern":"("}}}"#,
            "not a JSON schema",
        ),
        (
            r#"{"type":"object","properties":{"a":{"$ref":"https://example.com/a.json"}}}"#,
            "not a JSON schema",
        ),
        (
            r#"{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}"#,
            "not a JSON schema",
        ),
        (
            &format!(r#"{{"type":"object","title":"{}"}}"#, "x".repeat(9_000)),
            "longer than",
        ),
    ] {
        let told = Schema::parse(schema).err().map(|flaw| flaw.to_string());
        let told = told.unwrap_or_default();
        assert!(
            told.contains(flaw) && told.is_empty() == flaw.is_empty(),
            "{told}"
        );
    }
}

#[test]
fn what_is_said_to_tools_and_by_them_is_not_for_the_log() {
    let call = call("find_slot", r#"{"day":"canary"}"#);
    assert!(!format!("{call:?}").contains("canary"));
}
