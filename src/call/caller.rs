//! Who rings, or is called. Formatting any of it masks what identifies a person.

use std::{fmt, str::FromStr};

use crate::call::NameError;

/// A phone number in E.164 form. Formatting it masks the middle (`+1******7890`), so that no log
/// line names a caller; [`PhoneNumber::reveal`] is the one way to the rest.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PhoneNumber(String); // Invariant: a plus sign, then 2 to 15 ASCII digits.

/// Who rings, or what was dialed. Formatting it masks what identifies a person.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CallerId {
    Number(PhoneNumber),
    /// A client of the carrier's own (`client:…`) or a SIP address (`sip:…`).
    Address(Text),
    Withheld,
    /// Masked already, by another replica.
    Masked(Text),
    Other(Text),
}

/// What an address begins with: a SIP address, or a client of the carrier's own.
const ADDRESSES: [&str; 2] = ["sip:", "client:"];
/// The longest text from outside that is kept, in characters.
const LONGEST_TEXT: usize = 64;

/// Who rang or was called, all of it, as a record can be found by: a number, or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeId(CallerId);

/// Free text from outside, cut to 64 characters and without NUL, which Postgres takes in no text.
/// Formatting it shows its length only.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Text(String);

impl PhoneNumber {
    /// Returns the whole number, for the carrier and the campaign's own eyes.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for PhoneNumber {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.strip_prefix('+').ok_or(NameError::PhoneNumber)?;
        // ITU-T E.164, 6.2.1: at most 15 digits.
        if (2..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::PhoneNumber)
        }
    }
}

impl WholeId {
    /// What a query may say, as JSON Schema writes it: of an address no more than is kept of one.
    pub const PATTERN: &str =
        r"^(\+[0-9]{2,15}|sip:[^\x00-\x1f\x7f-\x9f]{1,60}|client:[^\x00-\x1f\x7f-\x9f]{1,57})$";

    pub fn reveal(&self) -> &str {
        self.0.whole().unwrap_or_default()
    }
}

impl FromStr for WholeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let address = ADDRESSES
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let is_address = address.is_some_and(|rest| !rest.is_empty())
            && text.chars().count() <= LONGEST_TEXT
            && !text.contains(char::is_control);
        if is_address || text.parse::<PhoneNumber>().is_ok() {
            Ok(Self(CallerId::read(text)))
        } else {
            Err(NameError::WholeId)
        }
    }
}

/// Masked.
impl fmt::Display for WholeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, rest) = self.0.split_at(2);
        let shown = if rest.len() >= 8 { 4 } else { 1 };
        let (hidden, tail) = rest.split_at(rest.len() - shown);
        write!(f, "{head}{}{tail}", "*".repeat(hidden.len()))
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl CallerId {
    /// Reads what a carrier says of a caller; anything at all is an answer.
    pub fn read(text: &str) -> Self {
        // Twilio passes on what the network gives: twilio.com/docs/voice/twiml.
        const WITHHELD: [&str; 6] = [
            "",
            "anonymous",
            "unknown",
            "restricted",
            "unavailable",
            "private",
        ];
        if let Ok(number) = text.parse() {
            return Self::Number(number);
        }
        let plain = text.trim().to_ascii_lowercase();
        if WITHHELD.contains(&plain.as_str()) {
            return Self::Withheld;
        }
        let address = ADDRESSES.iter().find_map(|scheme| {
            let rest = text.trim().get(scheme.len()..)?;
            // RFC 3261, 19.1.4: a scheme is the same in any case, and what comes before the host is not.
            plain.starts_with(scheme).then(|| format!("{scheme}{rest}"))
        });
        match address {
            Some(address) => Self::Address(Text::from(address.as_str())),
            None => Self::Other(Text::from(text)),
        }
    }

    /// Takes over how another replica shows a caller.
    pub fn masked(text: &str) -> Self {
        Self::Masked(Text::from(text))
    }

    /// Returns the number or the address of whoever rings, unmasked, where it is known here.
    pub fn whole(&self) -> Option<&str> {
        match self {
            Self::Number(number) => Some(number.reveal()),
            Self::Address(text) => Some(text.reveal()),
            Self::Withheld | Self::Masked(_) | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for CallerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Address(text) | Self::Other(text) => text.fmt(f),
            Self::Masked(text) => f.write_str(text.reveal()),
            Self::Withheld => f.write_str("withheld"),
        }
    }
}

impl Text {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let plain = text.chars().filter(|letter| *letter != '\0');
        Self(plain.take(LONGEST_TEXT).collect())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} characters>", self.0.chars().count())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_shows_its_ends_and_hides_its_middle() {
        for (number, shown) in [
            ("+12345677890", "+1******7890"),
            ("+972501234567", "+9*******4567"),
            ("+12345", "+1***5"),
            ("+12", "+12"),
        ] {
            let number: PhoneNumber = number.parse().unwrap();
            assert_eq!(number.to_string(), shown);
            assert_eq!(format!("{number:?}"), shown);
        }
    }

    #[test]
    fn whoever_is_looked_for_is_a_whole_number_or_an_address() {
        for said in ["+972501234567", "sip:+97250@example.com;x=1", "client:dana"] {
            let whole: WholeId = said.parse().unwrap();
            assert_eq!(whole.reveal(), said);
            assert!(!whole.to_string().contains(said));
        }
        for said in ["SIP:+97250@example.com;x=1", " sip:+97250@example.com;x=1 "] {
            let kept = CallerId::read(said);
            assert_eq!(kept.whole(), Some("sip:+97250@example.com;x=1"), "{said}");
        }
        let long = format!("sip:{}", "א".repeat(60));
        assert_eq!(long.parse::<WholeId>().unwrap().reveal(), long);
        for said in [
            "0501234567",
            "",
            "anonymous",
            "sip:",
            "client:",
            "client:a\nb",
            "SIP:dana@example.com",
            " sip:dana@example.com",
            &format!("{long}a"),
        ] {
            assert_eq!(said.parse::<WholeId>(), Err(NameError::WholeId), "{said}");
        }
    }

    #[test]
    fn whoever_rings_is_understood_and_kept_private() {
        for (said, shown) in [
            ("+972501234567", "+9*******4567"),
            ("anonymous", "withheld"),
            ("", "withheld"),
            ("client:dana", "<11 characters>"),
            ("sip:dana@example.com", "<20 characters>"),
            ("<script>", "<8 characters>"),
        ] {
            let caller = CallerId::read(said);
            assert_eq!(caller.to_string(), shown, "{said}");
            assert!(said.is_empty() || !format!("{caller:?}").contains(said));
        }
        assert_eq!(
            CallerId::read(&"א".repeat(1_000)).to_string(),
            "<64 characters>"
        );
    }
}
