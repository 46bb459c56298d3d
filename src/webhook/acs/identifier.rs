//! Who calls and who is called, as ACS names them.
//!
//! Source: the identifiers of the vendor's SDKs. Their `kind` is spelt in two ways, so what counts
//! is which object is there.

use serde_json::Value;

use crate::call::CallerId;

/// Longer texts are no names.
const LONGEST: usize = 512;

/// Reads an identifier; `None` where it is none. Who withholds the number is [`CallerId::Withheld`].
pub fn read(identifier: &Value) -> Option<CallerId> {
    let text = |object: &str, name: &str| super::json::text(identifier.get(object)?, name, LONGEST);
    if let Some(number) = identifier.get("phoneNumber").filter(|it| it.is_object()) {
        if number.get("isAnonymous") == Some(&Value::Bool(true)) {
            return Some(CallerId::Withheld);
        }
        if let Some(number) = text("phoneNumber", "value") {
            return Some(CallerId::read(number));
        }
    }
    let name = text("communicationUser", "id");
    let raw = super::json::text(identifier, "rawId", LONGEST);
    name.or(raw).map(from_raw)
}

/// Reads `4:+14255550123`, `4:anonymous`, `8:acs:…` and the like.
fn from_raw(id: &str) -> CallerId {
    match id.strip_prefix("4:") {
        // What follows an underscore is the number that the network asserts.
        Some(number) => CallerId::read(number.split('_').next().unwrap_or_default()),
        None => CallerId::read(id),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whoever_it_is_the_object_that_is_there_tells() {
        for (identifier, shown) in [
            (
                json!({"kind": "PhoneNumber", "rawId": "4:x", "phoneNumber": {"value": "+14255550123"}}),
                "+1******0123",
            ),
            (json!({"rawId": "4:+14255550123"}), "+1******0123"),
            (
                json!({"rawId": "4:+14255550123_+14255550199"}),
                "+1******0123",
            ),
            (json!({"rawId": "4:anonymous"}), "withheld"),
            (
                json!({"phoneNumber": {"value": "anonymous", "isAnonymous": true}}),
                "withheld",
            ),
            (
                json!({"phoneNumber": {"value": "+14255550123", "isAnonymous": true}}),
                "withheld",
            ),
            (
                json!({"phoneNumber": {"value": 7}, "rawId": "4:+14255550123"}),
                "+1******0123",
            ),
            (
                json!({"communicationUser": {"id": "8:acs:a_b"}}),
                "<9 characters>",
            ),
            (
                json!({"microsoftTeamsUser": {"userId": "u"}, "rawId": "8:orgid:u"}),
                "<9 characters>",
            ),
        ] {
            assert_eq!(
                read(&identifier).unwrap().to_string(),
                shown,
                "{identifier}"
            );
        }
        for identifier in [
            json!(null),
            json!({}),
            json!("4:+1"),
            json!([1]),
            json!({"rawId": 7}),
        ] {
            assert_eq!(read(&identifier), None, "{identifier}");
        }
    }
}
