//! What an agent uses up in a call, and what that costs.

use std::{ops::AddAssign, str::FromStr, time::Duration};

use serde::Serialize;
use serde_json::Value;

/// The most tokens of a kind that one answer is believed to have used up.
const MOST_TOKENS: u64 = 10_000_000;
/// The highest price of a million tokens or a minute.
const HIGHEST_PRICE: f64 = 1_000_000.0;

/// Tokens that an agent reports of its answers. What it had cached is a part of what went in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    pub total: u64,
    pub text_in: u64,
    pub audio_in: u64,
    pub cached_text: u64,
    pub cached_audio: u64,
    pub text_out: u64,
    pub audio_out: u64,
}

/// What an agent costs, in thousandths of a currency's unit: a million tokens of each kind, and a
/// minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prices {
    text_in: u64,
    audio_in: u64,
    cached_in: u64,
    text_out: u64,
    audio_out: u64,
    minute: u64,
}

impl Tokens {
    /// Reads the `usage` of a `response.done`; what it does not say counts as nothing. OpenAI,
    /// "Realtime server events".
    pub fn read(usage: Option<&Value>) -> Self {
        let at = |path: &str| {
            let number = usage.and_then(|usage| usage.pointer(path)?.as_u64());
            number.unwrap_or(0).min(MOST_TOKENS)
        };
        let cached = at("/input_token_details/cached_tokens");
        let cached_audio = at("/input_token_details/cached_tokens_details/audio_tokens");
        Self {
            total: at("/total_tokens"),
            text_in: at("/input_token_details/text_tokens"),
            audio_in: at("/input_token_details/audio_tokens"),
            // Where it does not say what it had cached, it was text.
            cached_text: cached.saturating_sub(cached_audio),
            cached_audio,
            text_out: at("/output_token_details/text_tokens"),
            audio_out: at("/output_token_details/audio_tokens"),
        }
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.text_in += other.text_in;
        self.audio_in += other.audio_in;
        self.cached_text += other.cached_text;
        self.cached_audio += other.cached_audio;
        self.text_out += other.text_out;
        self.audio_out += other.audio_out;
    }
}

/// What all prices are in: a name of ISO 4217, such as EUR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Currency(String); // Invariant: three of A-Z.

impl FromStr for Currency {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let is_name = text.len() == 3 && text.bytes().all(|it| it.is_ascii_uppercase());
        is_name.then(|| Self(text.to_owned())).ok_or(())
    }
}

/// Returns millionths of the currency's unit as people read them: to the hundredth, and less than a
/// unit by two digits that count.
pub fn amount(micros: i64, currency: Option<&Currency>) -> String {
    let micros = u64::try_from(micros).unwrap_or(0);
    let decimals = match micros.checked_ilog10() {
        None => 0,
        Some(digits @ 1..6) => 7 - digits,
        Some(0) => 6,
        Some(_) => 2,
    };
    let step = 10_u64.pow(6 - decimals);
    let shown = micros.saturating_add(step / 2) / step;
    let unit = 10_u64.pow(decimals);
    let number = if decimals == 0 {
        "0".to_owned()
    } else {
        let width = decimals as usize;
        format!("{}.{:0width$}", shown / unit, shown % unit)
    };
    match currency {
        Some(Currency(name)) => format!("{number} {name}"),
        None => number,
    }
}

impl Prices {
    /// Returns what a call has cost, in millionths of the currency's unit.
    pub fn cost_micros(&self, tokens: &Tokens, lasted: Duration) -> u64 {
        let fresh_text = tokens.text_in.saturating_sub(tokens.cached_text);
        let fresh_audio = tokens.audio_in.saturating_sub(tokens.cached_audio);
        let cached = tokens.cached_text + tokens.cached_audio;
        // A token costs as many millionths as a million of them cost units.
        let of_tokens = fresh_text * self.text_in
            + fresh_audio * self.audio_in
            + cached * self.cached_in
            + tokens.text_out * self.text_out
            + tokens.audio_out * self.audio_out;
        let of_time = lasted.as_secs() * self.minute * 1_000_000 / 60;
        (of_tokens + of_time) / 1_000
    }
}

/// Why a text is no list of prices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "prices of a million tokens and of a minute, such as \
     text_in=4, audio_in=32, cached_in=0.4, text_out=16, audio_out=64, minute=0.1"
)]
pub struct NotPrices;

impl FromStr for Prices {
    type Err = NotPrices;

    fn from_str(text: &str) -> Result<Self, NotPrices> {
        let mut prices = Self::default();
        for entry in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let (name, price) = entry.split_once('=').ok_or(NotPrices)?;
            let field = match name.trim() {
                "text_in" => &mut prices.text_in,
                "audio_in" => &mut prices.audio_in,
                "cached_in" => &mut prices.cached_in,
                "text_out" => &mut prices.text_out,
                "audio_out" => &mut prices.audio_out,
                "minute" => &mut prices.minute,
                _ => return Err(NotPrices),
            };
            let price: f64 = price.trim().parse().map_err(|_| NotPrices)?;
            if !(0.0..=HIGHEST_PRICE).contains(&price) {
                return Err(NotPrices);
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is within bounds that a whole number holds"
            )]
            let thousandths = (price * 1_000.0).round() as u64;
            *field = thousandths;
        }
        Ok(prices)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_read_where_they_are_told() {
        // The example of the Realtime API's `response.done`.
        let usage = json!({
            "total_tokens": 412, "input_tokens": 331, "output_tokens": 81,
            "input_token_details": {
                "text_tokens": 266, "audio_tokens": 65, "image_tokens": 0, "cached_tokens": 192,
                "cached_tokens_details": {"text_tokens": 192, "audio_tokens": 0},
            },
            "output_token_details": {"text_tokens": 19, "audio_tokens": 62},
        });
        let tokens = Tokens::read(Some(&usage));
        let expected = Tokens {
            total: 412,
            text_in: 266,
            audio_in: 65,
            cached_text: 192,
            cached_audio: 0,
            text_out: 19,
            audio_out: 62,
        };
        assert_eq!(tokens, expected);
        assert_eq!(Tokens::read(None), Tokens::default());
        let nonsense = json!({"total_tokens": -5, "input_token_details": "none"});
        assert_eq!(Tokens::read(Some(&nonsense)), Tokens::default());
        let huge = json!({"total_tokens": u64::MAX});
        assert_eq!(Tokens::read(Some(&huge)).total, MOST_TOKENS);
    }

    #[test]
    fn a_call_costs_its_tokens_and_its_minutes() {
        let prices: Prices = "text_in=4, audio_in=32, cached_in=0.4, text_out=16, audio_out=64, \
                              minute=0.06"
            .parse()
            .unwrap();
        let tokens = Tokens {
            total: 0,
            text_in: 266,
            audio_in: 65,
            cached_text: 192,
            cached_audio: 0,
            text_out: 19,
            audio_out: 62,
        };
        // 74 x 4 + 65 x 32 + 192 x 0.4 + 19 x 16 + 62 x 64 millionths, and a tenth of a minute.
        let expected = 296 + 2_080 + 76 + 304 + 3_968 + 30_000;
        let cost = prices.cost_micros(&tokens, Duration::from_secs(30));
        assert!(cost.abs_diff(expected) <= 1, "{cost}");
        let free = Prices::default();
        assert_eq!(free.cost_micros(&tokens, Duration::from_secs(3_600)), 0);
    }

    #[test]
    fn amounts_are_written_for_people() {
        let euro: Currency = "EUR".parse().unwrap();
        for (micros, expected) in [
            (0, "0"),
            (7, "0.000007"),
            (90, "0.000090"),
            (12_345, "0.012"),
            (308_000, "0.31"),
            (999_999, "1.00"),
            (1_234_567, "1.23"),
            (1_999_999, "2.00"),
            (12_000_000_000, "12000.00"),
        ] {
            assert_eq!(amount(micros, None), expected);
            assert_eq!(amount(micros, Some(&euro)), format!("{expected} EUR"));
        }
        for bad in ["", "eur", "EURO", "€€€"] {
            assert_eq!(bad.parse::<Currency>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn prices_that_make_no_sense_are_refused() {
        for bad in [
            "text_in",
            "words=3",
            "text_in=-1",
            "minute=free",
            "audio_in=1e9",
            "minute=NaN",
        ] {
            assert_eq!(bad.parse::<Prices>(), Err(NotPrices), "{bad}");
        }
        assert_eq!("".parse(), Ok(Prices::default()));
    }
}
