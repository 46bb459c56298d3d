//! Calls that we place: whom we may call, as whom, and how many.

use std::time::Duration;

use crate::{
    call::{OutboundCarrier, PhoneNumber},
    config::{
        AcsSettings, ApiSettings,
        reader::{Environment, Reader},
        refusal::Unset,
    },
    outbound::number::Countries,
};

/// The longest that a program waits for its call's turn.
const LONGEST_WAIT: u64 = 120;

/// Calls that we place: whom we may call, as whom, and how many.
#[derive(Debug)]
pub struct OutboundSettings {
    /// `OUTBOUND_COUNTRIES`: the countries that may be called, by ISO 3166. Default: none, and so
    /// nobody is called.
    pub countries: Countries,
    /// `OUTBOUND_CARRIER`: who places calls: `twilio` or `acs`. Default: the one that is open, Twilio
    /// if both are.
    pub carrier: Option<OutboundCarrier>,
    /// `OUTBOUND_FROM`: who calls where a request does not say so. Default: the request must.
    pub from: Option<PhoneNumber>,
    /// `OUTBOUND_CALLS_PER_SECOND`: how fast all replicas together ask the carrier for calls.
    /// Default 1, as Twilio dials for a new account: what it is asked for beyond that rings hours
    /// later.
    pub per_second: u32,
    /// `OUTBOUND_WAIT_SECONDS`: how long a program waits for its call's turn. Default 10.
    pub longest_wait: Duration,
    /// `OUTBOUND_PER_DESTINATION_HOUR`: how often one number is called within an hour. Default 3.
    pub per_destination: u32,
    /// `OUTBOUND_PER_PREFIX_HOUR`: how often numbers are called within an hour that differ only in
    /// their last four digits: toll fraud calls many of one block. Default 50.
    pub per_prefix: u32,
    /// `OUTBOUND_PER_KEY_MINUTE`: how many calls one API key places within a minute, on whichever
    /// replicas. Default 60.
    pub per_key: u32,
    /// `MAX_DAILY_CALLS`: calls of one tenant that we place within a day (UTC). Default 1000.
    pub daily_calls: u32,
    /// `MAX_DAILY_MINUTES`: minutes of those calls. Default 3000.
    pub daily_minutes: u32,
    /// How to ask Twilio for a call, or what has to be set before that is possible.
    pub twilio: Result<ApiSettings, Unset>,
}

impl OutboundSettings {
    pub(super) fn load(
        read: &Reader<impl Environment>,
        twilio: &Result<ApiSettings, Unset>,
        acs: &AcsSettings,
    ) -> Self {
        let count = |name, default, most| {
            let count = read.number(name, default, 1..=most);
            u32::try_from(count).expect("below four thousand million")
        };
        Self {
            countries: read
                .parsed("OUTBOUND_COUNTRIES", "countries by ISO 3166, such as IL,US")
                .unwrap_or_default(),
            carrier: carrier(read, acs),
            from: read.parsed("OUTBOUND_FROM", "a number in E.164, such as +972722234567"),
            per_second: count("OUTBOUND_CALLS_PER_SECOND", 1, 1_000),
            longest_wait: read.seconds("OUTBOUND_WAIT_SECONDS", 10, 0..=LONGEST_WAIT),
            per_destination: count("OUTBOUND_PER_DESTINATION_HOUR", 3, 1_000),
            per_prefix: count("OUTBOUND_PER_PREFIX_HOUR", 50, 100_000),
            per_key: count("OUTBOUND_PER_KEY_MINUTE", 60, 100_000),
            daily_calls: read.cap("MAX_DAILY_CALLS").unwrap_or(1_000),
            daily_minutes: read.cap("MAX_DAILY_MINUTES").unwrap_or(3_000),
            twilio: twilio.clone(),
        }
    }
}

fn carrier(read: &Reader<impl Environment>, acs: &AcsSettings) -> Option<OutboundCarrier> {
    const NAME: &str = "OUTBOUND_CARRIER";
    let carrier = read.parsed(NAME, "twilio or acs");
    if carrier == Some(OutboundCarrier::Acs) && !acs.is_open() {
        read.warning(format!(
            "{NAME} is acs, which is closed: no calls are placed"
        ));
    }
    carrier
}
