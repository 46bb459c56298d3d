//! Which numbers may be called: valid ones, of allowed countries, that cost what a call costs.
//!
//! Invariant: premium rate, shared cost, satellites, short codes and networks that belong to no
//! country are refused, whatever countries are allowed.

use std::{collections::BTreeSet, fmt, str::FromStr};

use phonenumber::{
    Metadata, Mode, Type, country,
    metadata::{DATABASE, Descriptors},
};

use crate::call::PhoneNumber;

/// Country codes of no country: satellites, ships, networks and services that the ITU hands out to
/// whoever asks, each at a price of its own. All that begin with 87 are, while those that begin with
/// 88 are among countries': 880 is Bangladesh, 886 Taiwan. ITU-T E.164, annex to operational bulletin
/// 1114.
const NO_COUNTRY: [&str; 9] = ["800", "808", "87", "881", "882", "883", "888", "979", "999"];

/// The countries that may be called, as ISO 3166 names them by two letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Countries(BTreeSet<String>);

/// Why a text does not name countries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no country of ISO 3166")]
pub struct NoCountry(String);

/// Why a number is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberError {
    #[error("it is not a number in E.164, such as +972502345678")]
    NotE164,
    #[error("no such number can exist")]
    Invalid,
    #[error("it belongs to no country: satellites and international services are not called")]
    International,
    #[error("numbers of this kind are not called: {0}")]
    Kind(Kind),
    #[error("no country may be called yet (OUTBOUND_COUNTRIES)")]
    NoCountries,
    #[error("{0} is not among the countries that may be called (OUTBOUND_COUNTRIES)")]
    Country(String),
}

/// Kinds of numbers that can cost whoever calls them anything, or that nobody talks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Premium,
    SharedCost,
    Personal,
    Pager,
    Voicemail,
    Special,
}

impl Countries {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a number that may be called.
    ///
    /// # Errors
    /// If it is no number, or not one of those.
    pub fn read(&self, text: &str) -> Result<PhoneNumber, NumberError> {
        let number: PhoneNumber = text.parse().map_err(|_| NumberError::NotE164)?;
        self.judge(&number)?;
        Ok(number)
    }

    /// Judges whether a number may be called.
    ///
    /// # Errors
    /// If it may not.
    pub fn judge(&self, number: &PhoneNumber) -> Result<(), NumberError> {
        let text = number.reveal();
        if NO_COUNTRY.iter().any(|code| text[1..].starts_with(code)) {
            return Err(NumberError::International);
        }
        let parsed = phonenumber::parse(None, text).map_err(|_| NumberError::Invalid)?;
        // A prefix that is dialed within a country only would be dropped silently.
        if parsed.format().mode(Mode::E164).to_string() != text {
            return Err(NumberError::Invalid);
        }
        let code = parsed.code().value();
        let national = parsed.national().to_string();
        let (country, kind) = classify(code, &national).ok_or(NumberError::Invalid)?;
        if let Some(kind) = kind {
            return Err(NumberError::Kind(kind));
        }
        if self.is_empty() {
            return Err(NumberError::NoCountries);
        }
        if !self.0.contains(country) {
            return Err(NumberError::Country(country.to_owned()));
        }
        Ok(())
    }
}

impl FromStr for Countries {
    type Err = NoCountry;

    fn from_str(text: &str) -> Result<Self, NoCountry> {
        let names = text.split(',').map(str::trim).filter(|it| !it.is_empty());
        let known = names.map(|name| {
            let name = name.to_ascii_uppercase();
            match name.parse::<country::Id>() {
                Ok(_) => Ok(name),
                Err(_) => Err(NoCountry(name)),
            }
        });
        known.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Premium => "premium rate",
            Self::SharedCost => "shared cost",
            Self::Personal => "personal numbers",
            Self::Pager => "pagers",
            Self::Voicemail => "voicemail boxes",
            Self::Special => "special services",
        })
    }
}

/// Returns the country of a number, and what kind of number it is if that is not called; `None`
/// where no such number can exist. Countries that share a code are asked in the order in which the
/// numbering plans are kept.
fn classify(code: u16, national: &str) -> Option<(&'static str, Option<Kind>)> {
    let regions = DATABASE.region(&code)?;
    let plans = regions.into_iter().filter_map(|id| DATABASE.by_id(id));
    let plans: Vec<&Metadata> = plans.collect();
    // What is dear in one of the countries that share a code is dear, whoever claims the number.
    let is_dear = |kind| move |plan: &&Metadata| matches(plan.descriptors(), kind, national);
    for (kind, refused) in [
        (Type::PremiumRate, Kind::Premium),
        (Type::SharedCost, Kind::SharedCost),
    ] {
        if let Some(plan) = plans.iter().copied().find(is_dear(kind)) {
            return Some((plan.id(), Some(refused)));
        }
    }
    plans.into_iter().find_map(|plan| {
        let leads = plan.leading_digits();
        let leads = leads.is_none_or(|digits| {
            let found = digits.find(national);
            found.is_some_and(|found| found.start() == 0)
        });
        let all = plan.descriptors();
        if !leads || !all.general().is_match(national) {
            return None;
        }
        let is = |kind| matches(all, kind, national);
        let kind = if [Type::FixedLine, Type::Mobile, Type::TollFree, Type::Voip]
            .into_iter()
            .any(is)
        {
            None
        } else if is(Type::PersonalNumber) {
            Some(Kind::Personal)
        } else if is(Type::Pager) {
            Some(Kind::Pager)
        } else if is(Type::Voicemail) {
            Some(Kind::Voicemail)
        } else if is(Type::Uan) {
            Some(Kind::Special)
        } else {
            return None;
        };
        Some((plan.id(), kind))
    })
}

fn matches(plan: &Descriptors, kind: Type, national: &str) -> bool {
    plan.get(kind).is_some_and(|it| it.is_match(national))
}

#[cfg(test)]
mod tests;
