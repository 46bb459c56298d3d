//! What calls are looked for. Pure: a query in, a search or a mistake out.

use serde::{Deserialize, Serialize};
use url::form_urlencoded;

use crate::{
    api::calls::{Cursor, Reason},
    call::{CallId, CarrierCallId},
    campaign::Name,
};

/// How far back is looked for calls unless an operator wants more, in days.
const DAYS: u32 = 7;
const MOST_DAYS: u32 = 3_650;
/// How many digits a number has at most. ITU-T E.164, 6.1.
const MOST_DIGITS: usize = 15;

/// The form's fields, as they come.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// A number's last digits, or a call's name.
    pub q: String,
    pub campaign: String,
    pub reason: String,
    pub days: String,
    pub after: String,
}

/// What calls are looked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Search {
    pub by: Option<By>,
    pub campaign: Option<Name>,
    pub reason: Option<Reason>,
    pub days: u32,
    pub after: Option<Cursor>,
}

/// By what one call is told from others.
#[derive(Debug, PartialEq, Eq)]
pub enum By {
    Call(CallId),
    CarrierCall(CarrierCallId),
    /// The last digits of who called or was called.
    Digits(String),
    /// All digits of who called or was called.
    Number(String),
}

impl Search {
    /// # Errors
    /// If a field is none of what it can be: with what it can be.
    pub fn read(asked: &Asked) -> Result<Self, &'static str> {
        let campaign = given(&asked.campaign).map(str::parse).transpose();
        let reason = given(&asked.reason).map(str::parse).transpose();
        let after = given(&asked.after).map(str::parse).transpose();
        let days = given(&asked.days).map(str::parse).transpose();
        let days = days
            .ok()
            .flatten()
            .or(given(&asked.days).is_none().then_some(DAYS));
        let days = days.filter(|days| (1..=MOST_DAYS).contains(days));
        Ok(Self {
            by: given(&asked.q).map(By::read).transpose()?,
            campaign: campaign.map_err(|_| "A campaign's name has a-z, 0-9, - and _ only.")?,
            reason: reason.map_err(|()| "An end reason is a word such as caller_hung_up.")?,
            days: days.ok_or("Days are a whole number from 1 to 3650.")?,
            after: after.map_err(|_| "This page begins nowhere: look for the calls again.")?,
        })
    }
}

impl By {
    fn read(text: &str) -> Result<Self, &'static str> {
        let spacing = |letter: char| matches!(letter, '+' | ' ' | '-' | '(' | ')' | '*' | '…');
        let digits: String = text.chars().filter(|it| !spacing(*it)).collect();
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number && (2..=MOST_DIGITS).contains(&digits.len()) {
            let is_whole = text.starts_with('+') && !text.contains(['*', '…']);
            return Ok(if is_whole {
                Self::Number(digits)
            } else {
                Self::Digits(digits)
            });
        }
        if let Ok(call) = text.parse() {
            return Ok(Self::Call(call));
        }
        let name = CarrierCallId::try_from(text.to_owned());
        name.map(Self::CarrierCall)
            .map_err(|_| "Give a number, its last digits (2 at least), or a call's id.")
    }
}

impl Asked {
    /// Returns the address of the page that begins after `cursor`.
    pub fn page_after(&self, cursor: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs([
            ("q", self.q.as_str()),
            ("campaign", &self.campaign),
            ("reason", &self.reason),
            ("days", &self.days),
            ("after", cursor),
        ]);
        format!("/calls?{}", query.finish())
    }
}

fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_takes_digits_and_names() {
        let uuid = "0b1c2d3e-1111-4222-8333-444455556666";
        for (text, expected) in [
            ("4567", Some(By::Digits("4567".to_owned()))),
            (
                "+972 50-123 4567",
                Some(By::Number("972501234567".to_owned())),
            ),
            (
                "972 50-123 4567",
                Some(By::Digits("972501234567".to_owned())),
            ),
            ("******4567", Some(By::Digits("4567".to_owned()))),
            (uuid, Some(By::Call(uuid.parse().unwrap()))),
            (
                "CA0123456789abcdef0123456789abcdef",
                CarrierCallId::try_from("CA0123456789abcdef0123456789abcdef".to_owned())
                    .ok()
                    .map(By::CarrierCall),
            ),
            (
                "7",
                CarrierCallId::try_from("7".to_owned())
                    .ok()
                    .map(By::CarrierCall),
            ),
            ("' OR 1=1", None),
            ("%", None),
        ] {
            assert_eq!(By::read(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_looked_for_is_told() {
        let asked = |days: &str, campaign: &str, reason: &str| Asked {
            days: days.to_owned(),
            campaign: campaign.to_owned(),
            reason: reason.to_owned(),
            ..Asked::default()
        };
        for (asked, good) in [
            (Asked::default(), true),
            (asked("30", "sales", "caller_hung_up"), true),
            (asked("0", "", ""), false),
            (asked("many", "", ""), false),
            (asked("", "Sales!", ""), false),
            (asked("", "", "it's"), false),
        ] {
            assert_eq!(Search::read(&asked).is_ok(), good, "{asked:?}");
        }
        assert_eq!(Search::read(&Asked::default()).unwrap().days, DAYS);
    }
}
