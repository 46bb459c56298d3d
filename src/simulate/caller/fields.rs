//! What Twilio's webhooks say of a call, and how it names things.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use rand::{RngExt, rngs::StdRng};
use url::Url;
use uuid::Uuid;

use crate::simulate::carrier::Fields;

/// Returns the fields that every webhook of a call has.
pub fn standard(account_sid: &str, call_sid: &str, from: &str, to: &str) -> Fields {
    owned(&[
        ("CallSid", call_sid),
        ("AccountSid", account_sid),
        ("ApiVersion", "2010-04-01"),
        ("Direction", "inbound"),
        ("From", from),
        ("To", to),
        ("Caller", from),
        ("Called", to),
        ("FromCountry", "IL"),
        ("FromCity", ""), // Empty fields are signed too.
        ("ToCountry", "IL"),
        ("ToCity", "TEL AVIV"),
        ("StirVerstat", "No-TN-Validation"),
    ])
}

/// Returns the fields that every webhook has of a call that was placed by REST.
pub fn outbound(account_sid: &str, call_sid: &str, from: &str, to: &str) -> Fields {
    let mut fields = standard(account_sid, call_sid, from, to);
    fields.retain(|(name, _)| !matches!(name.as_str(), "Direction" | "StirVerstat"));
    fields.extend(owned(&[("Direction", "outbound-api")]));
    fields
}

/// Returns the fields that tell the end of a call, besides the standard ones.
pub fn ended(status: &str, lasted: Duration) -> Fields {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let now = jiff::fmt::rfc2822::to_string(&now).expect("these years have four digits");
    let seconds = lasted.as_secs();
    owned(&[
        ("CallStatus", status),
        ("CallDuration", &seconds.to_string()),
        ("Duration", &seconds.div_ceil(60).to_string()), // Minutes, for the bill.
        ("Timestamp", &now),
        ("SequenceNumber", "0"),
        ("CallbackSource", "call-progress-events"),
    ])
}

pub fn owned(fields: &[(&str, &str)]) -> Fields {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    fields.iter().map(owned).collect()
}

/// Returns a number to call from, as mobile numbers in Israel look.
pub fn any_number(rng: &mut StdRng) -> String {
    format!("+97250{:07}", rng.random_range(0..10_000_000))
}

/// Returns a fresh identifier of Twilio's shape. No two runs share one, whatever their seeds: a
/// call that has ended is never admitted again.
pub fn sid(prefix: &str) -> String {
    format!("{prefix}{}", Uuid::new_v4().simple())
}

/// Returns `url` as seen from the document `here`. An absolute one stays byte for byte as it is,
/// because it is signed.
pub fn absolute(here: &str, url: &str) -> Result<String, String> {
    if Url::parse(url).is_ok() {
        return Ok(url.to_owned());
    }
    let joined = Url::parse(here).and_then(|here| here.join(url));
    joined
        .map(String::from)
        .map_err(|_| format!("{url:?} is not a URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_urls_are_seen_from_the_document_and_others_stay_as_they_are() {
        let here = "https://voice.example.com/webhook/incoming_call?a=b";
        let table = [
            ("/x?c=d", Some("https://voice.example.com/x?c=d")),
            ("x", Some("https://voice.example.com/webhook/x")),
            ("http://A.example:80/%7e?", Some("http://A.example:80/%7e?")),
            ("http://[", None),
        ];
        for (url, expected) in table {
            assert_eq!(absolute(here, url).ok().as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn the_minutes_on_the_bill_are_begun_ones() {
        let fields = ended("completed", Duration::from_secs(61));
        let field = |name: &str| &fields.iter().find(|(key, _)| key == name).unwrap().1;
        assert_eq!(
            (&**field("CallDuration"), &**field("Duration")),
            ("61", "2")
        );
    }
}
