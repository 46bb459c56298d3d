//! A message that a caller has left with the carrier, as the carrier tells of it.

use std::{fmt, time::Duration};

use url::Url;

use crate::call::is_sid;

/// The longest URL of a recording, in bytes; Twilio's have about 120.
const LONGEST_URL: usize = 2_048;

/// Twilio's name for a recording: its RecordingSid.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordingId(String); // Invariant: `RE` and 32 hexadecimal digits.

/// A message that a caller has left, and where the carrier keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    pub id: RecordingId,
    pub url: Url,
    pub duration: Duration,
}

impl RecordingId {
    pub fn read(text: &str) -> Option<Self> {
        is_sid("RE", text).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RecordingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the address of a recording, if it is one that can be kept: https, of bounded length
/// and without credentials.
pub fn read_url(text: &str) -> Option<Url> {
    let url: Url = (text.len() <= LONGEST_URL).then(|| text.parse().ok())??;
    let plain = url.username().is_empty() && url.password().is_none();
    (url.scheme() == "https" && url.has_host() && plain).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recordings_name_and_address_are_checked_at_the_door() {
        let hex = "0123456789abcdef0123456789ABCDEF";
        assert!(RecordingId::read(&format!("RE{hex}")).is_some());
        for bad in ["", "RE", hex, &format!("CA{hex}"), &format!("RE{hex}0")] {
            assert_eq!(RecordingId::read(bad), None, "{bad}");
        }
        let base = "https://api.twilio.com/Recordings/";
        assert!(read_url(base).is_some());
        assert!(read_url(&format!("{base}{}", "a".repeat(2_048 - base.len()))).is_some());
        for bad in [
            "",
            "Recordings/RE1",
            "http://api.twilio.com/",
            "https://user:password@api.twilio.com/",
            "javascript:alert(1)",
            &format!("{base}{}", "a".repeat(2_048)),
        ] {
            assert_eq!(read_url(bad), None, "{bad}");
        }
    }
}
