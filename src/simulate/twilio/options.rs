//! How a fake Twilio is started, what those do whom it calls, and what goes wrong there.

use std::{net::SocketAddr, str::FromStr};

use rand::{Rng, RngExt};

/// What a fake Twilio does besides calling the gateway.
#[derive(Debug, Clone, clap::Args)]
pub struct FakeTwilioOptions {
    /// Waits for calls that the gateway places, at this address (its `TWILIO_API_BASE`, or with
    /// --carrier acs its ACS), and makes none itself
    #[arg(long = "answer", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// What those do whom the gateway calls
    #[arg(long, value_enum, default_value = "answers")]
    pub callee: Callee,

    /// Of 100 requests for a call, how many are done and then cut off, throttled, or failed
    #[arg(long, value_name = "CUT:THROTTLED:FAILED", default_value = "0:0:0")]
    pub call_faults: CallFaults,

    /// Of 100 callbacks that tell how such a call stands, how many are lost (Twilio's only)
    #[arg(long, value_name = "PERCENT", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub lost_callbacks: u8,
}

/// What somebody does who is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Callee {
    /// Picks up, and talks as the script says.
    Answers,
    Busy,
    NoAnswer,
    /// Cannot be reached.
    Failed,
    /// A machine picks up.
    Machine,
    /// It rings until it is ended or the time is up.
    Rings,
}

/// What becomes of a request for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It is done.
    Take,
    /// It is done, and the connection is cut before the answer.
    TakeThenCut,
    /// It is done, and answered with a status that says nothing of it.
    TakeThenFail(u16),
    /// It is not done.
    Fail(u16),
    Cut,
    /// It is not done: 429, with so many seconds to wait.
    Throttle(Option<u32>),
    /// It is not done: 400 with this code.
    Refuse(u32),
}

/// Of 100 requests for a call, how many go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallFaults {
    pub cut: u8,
    pub throttled: u8,
    pub failed: u8,
}

impl Default for FakeTwilioOptions {
    fn default() -> Self {
        Self {
            listen: None,
            callee: Callee::Answers,
            call_faults: CallFaults::default(),
            lost_callbacks: 0,
        }
    }
}

impl CallFaults {
    /// Draws what becomes of a request. One that fails may have been done or not.
    pub fn draw(self, rng: &mut impl Rng) -> Act {
        let drawn = rng.random_range(0..100);
        let (cut, throttled) = (self.cut, self.cut + self.throttled);
        if drawn < cut {
            Act::TakeThenCut
        } else if drawn < throttled {
            Act::Throttle(rng.random_bool(0.5).then_some(1))
        } else if drawn < throttled + self.failed {
            let done = rng.random_bool(0.5);
            if done {
                Act::TakeThenFail(503)
            } else {
                Act::Fail(503)
            }
        } else {
            Act::Take
        }
    }
}

impl FromStr for CallFaults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || "three numbers such as 20:10:5, 100 together at most".to_owned();
        let parts = text
            .split(':')
            .map(str::parse)
            .collect::<Result<Vec<u8>, _>>();
        match parts.map_err(|_| rule())?[..] {
            [cut, throttled, failed]
                if u32::from(cut) + u32::from(throttled) + u32::from(failed) <= 100 =>
            {
                Ok(Self {
                    cut,
                    throttled,
                    failed,
                })
            }
            _ => Err(rule()),
        }
    }
}
