//! Which carrier brings a call.

use std::{num::NonZeroU16, str::FromStr};

use rand::{rngs::StdRng, seq::SliceRandom};

use crate::call::Carrier;

/// Who brings the calls of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CarrierChoice {
    Twilio,
    Acs,
    /// Browsers.
    Web,
    /// All three, as --mix says.
    Mixed,
}

/// How many calls of so many each carrier brings: Twilio, ACS, browsers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix([u16; 3]);

/// The order in which carriers take turns.
pub struct Turns(Vec<Carrier>);

const CARRIERS: [Carrier; 3] = [Carrier::Twilio, Carrier::Acs, Carrier::Web];

impl Mix {
    /// What is brought by which carrier, for this choice.
    pub fn of(choice: CarrierChoice, mixed: Self) -> Self {
        match choice {
            CarrierChoice::Twilio => Self([1, 0, 0]),
            CarrierChoice::Acs => Self([0, 1, 0]),
            CarrierChoice::Web => Self([0, 0, 1]),
            CarrierChoice::Mixed => mixed,
        }
    }

    pub fn has(self, carrier: Carrier) -> bool {
        let shares = CARRIERS.into_iter().zip(self.0);
        shares
            .into_iter()
            .any(|(one, share)| one == carrier && share > 0)
    }

    /// Returns turns that keep to the ratio exactly, in any order.
    pub fn turns(self, rng: &mut StdRng) -> Turns {
        let divisor = self
            .0
            .into_iter()
            .filter_map(NonZeroU16::new)
            .reduce(divisor);
        let divisor = divisor.map_or(1, NonZeroU16::get);
        let shares = CARRIERS.into_iter().zip(self.0);
        let turns = shares.flat_map(|(carrier, share)| {
            std::iter::repeat_n(carrier, usize::from(share / divisor))
        });
        let mut turns: Vec<_> = turns.collect();
        turns.shuffle(rng);
        Turns(turns)
    }
}

impl Turns {
    /// Returns who brings the call with this number.
    pub fn of_call(&self, number: usize) -> Carrier {
        self.0[number % self.0.len()]
    }
}

impl FromStr for Mix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "three numbers up to 1000, as in 100:100:20, not all of them 0";
        let shares: Result<Vec<u16>, _> = text.split(':').map(str::parse).collect();
        let shares: [u16; 3] = shares.ok().and_then(|it| it.try_into().ok()).ok_or(RULE)?;
        if shares.iter().all(|&share| share == 0) || shares.iter().any(|&share| share > 1_000) {
            return Err(RULE);
        }
        Ok(Self(shares))
    }
}

fn divisor(a: NonZeroU16, b: NonZeroU16) -> NonZeroU16 {
    match NonZeroU16::new(a.get() % b) {
        None => b,
        Some(rest) => divisor(b, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_mix_keeps_to_its_ratio() {
        let mix: Mix = "100:100:20".parse().unwrap();
        let turns = mix.turns(&mut StdRng::seed_from_u64(1));
        assert_eq!(turns.0.len(), 11);
        let count = |carrier| {
            (0..220)
                .filter(|&call| turns.of_call(call) == carrier)
                .count()
        };
        assert_eq!(CARRIERS.map(count), [100, 100, 20]);
        let alone = Mix::of(CarrierChoice::Web, mix);
        let turns = alone.turns(&mut StdRng::seed_from_u64(1));
        assert_eq!(
            (turns.of_call(0), turns.of_call(7)),
            (Carrier::Web, Carrier::Web)
        );
        assert!(alone.has(Carrier::Web) && !alone.has(Carrier::Acs));
        for wrong in ["", "1:1", "1:1:1:1", "0:0:0", "1:-1:1", "1:1:1001"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
