//! Tickets: the right to claim an admitted call's media, once, on any replica.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{
    call::{CallId, CarrierCallId},
    campaign::Name,
    seal::Seal,
};

/// What a ticket is sealed for.
const PURPOSE: &str = "ticket";

/// What a ticket says. It is signed, not stored: every replica with the same secret can read it,
/// also while the store is away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub call: CallId,
    pub carrier_call: CarrierCallId,
    pub campaign: String,
    /// The agent that it was admitted for.
    pub agent: Name,
    /// The replica that admitted the call.
    pub issuer: String,
    /// Unix milliseconds.
    pub expires_at: u64,
    /// 128 random bits; the store remembers them once the ticket is used.
    pub nonce: String,
    /// Whether the call was admitted without the store, which need not know it then.
    pub degraded: bool,
    /// Whether we have placed it.
    pub outbound: bool,
    /// How long it may last, in whole seconds, if not as long as any.
    pub lasts_at_most: Option<Duration>,
}

/// Signs and reads tickets.
pub struct TicketKey(Seal);

/// Why a ticket gives no right to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error("the ticket is not one of ours")]
    Forged,
    #[error("the ticket has expired")]
    Expired,
    #[error("the ticket belongs to another call")]
    OtherCall,
}

/// The wire form, with names of one letter to stay far below Twilio's 500 characters.
#[derive(Serialize, Deserialize)]
struct Wire {
    i: String,
    c: String,
    g: String,
    a: String,
    r: String,
    x: u64,
    n: String,
    #[serde(default, skip_serializing_if = "is_false")]
    d: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    o: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    l: Option<u64>,
}

impl TicketKey {
    /// Makes a key of `secret`, or one that only this process knows.
    pub fn new(secret: Option<&SecretString>) -> Self {
        Self(Seal::new(secret))
    }

    pub fn sign(&self, ticket: &Ticket) -> String {
        let wire = Wire {
            i: ticket.call.to_string(),
            c: ticket.carrier_call.as_str().to_owned(),
            g: ticket.campaign.clone(),
            a: ticket.agent.to_string(),
            r: ticket.issuer.clone(),
            x: ticket.expires_at,
            n: ticket.nonce.clone(),
            d: ticket.degraded,
            o: ticket.outbound,
            l: ticket.lasts_at_most.map(|lasts| lasts.as_secs()),
        };
        self.0.close(PURPOSE, &wire)
    }

    /// Reads a ticket that must still be good at `now` (Unix milliseconds) for `carrier_call`.
    ///
    /// # Errors
    /// If it is not ours, too old, or another call's.
    pub fn read(
        &self,
        text: &str,
        carrier_call: &CarrierCallId,
        now: u64,
    ) -> Result<Ticket, TicketError> {
        let ticket = self.open(text)?;
        if ticket.carrier_call != *carrier_call {
            return Err(TicketError::OtherCall);
        }
        if ticket.expires_at <= now {
            return Err(TicketError::Expired);
        }
        Ok(ticket)
    }

    /// Reads a ticket that names its call by itself, and may have expired.
    ///
    /// # Errors
    /// If it is not ours.
    pub fn open(&self, text: &str) -> Result<Ticket, TicketError> {
        let wire = self.0.open(PURPOSE, text).ok_or(TicketError::Forged)?;
        ticket_of(wire).ok_or(TicketError::Forged)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn ticket_of(wire: Wire) -> Option<Ticket> {
    Some(Ticket {
        call: wire.i.parse().ok()?,
        carrier_call: CarrierCallId::try_from(wire.c).ok()?,
        campaign: wire.g,
        agent: wire.a.parse().ok()?,
        issuer: wire.r,
        expires_at: wire.x,
        nonce: wire.n,
        degraded: wire.d,
        outbound: wire.o,
        lasts_at_most: wire.l.map(Duration::from_secs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> Ticket {
        Ticket {
            call: CallId::of(&call("CA00000000000000000000000000000001")),
            carrier_call: call("CA00000000000000000000000000000001"),
            campaign: "c".repeat(64),
            agent: "a".repeat(64).parse().unwrap(),
            issuer: "replica-1".to_owned(),
            expires_at: 1_000,
            nonce: "0".repeat(32),
            degraded: false,
            outbound: true,
            lasts_at_most: Some(Duration::from_secs(86_400)),
        }
    }

    fn call(id: &str) -> CarrierCallId {
        CarrierCallId::try_from(id.to_owned()).unwrap()
    }

    #[test]
    fn a_ticket_is_read_by_whoever_shares_the_secret_and_by_nobody_else() {
        let secret = SecretString::from("the same on all replicas");
        let text = TicketKey::new(Some(&secret)).sign(&ticket());
        assert!(
            text.len() < 490,
            "Twilio takes 500 characters with the name: {}",
            text.len()
        );
        let other_replica = TicketKey::new(Some(&secret));
        let carrier_call = ticket().carrier_call;
        let read = other_replica.read(&text, &carrier_call, 999).unwrap();
        assert_eq!(read.campaign, "c".repeat(64));
        assert_eq!(read.agent, ticket().agent);
        let stranger = TicketKey::new(None);
        assert_eq!(
            stranger.read(&text, &carrier_call, 999),
            Err(TicketError::Forged)
        );
    }

    #[test]
    fn a_ticket_is_good_for_its_own_call_until_it_expires() {
        let key = TicketKey::new(None);
        let text = key.sign(&ticket());
        let own = ticket().carrier_call;
        assert_eq!(key.read(&text, &own, 1_000), Err(TicketError::Expired));
        assert_eq!(
            key.read(&text, &call("CA2"), 999),
            Err(TicketError::OtherCall)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_change_to_a_ticket_goes_unnoticed(at in 0..300_usize, bit in 0..7_u32) {
            let key = TicketKey::new(None);
            let good = key.sign(&ticket());
            let mut text = good.clone().into_bytes();
            let at = at % text.len();
            text[at] ^= 1 << bit;
            let text = String::from_utf8(text).unwrap();
            let read = key.read(&text, &ticket().carrier_call, 0);
            // The last letter of each part has spare bits; the decoder refuses those as well.
            proptest::prop_assert_eq!(read, Err(TicketError::Forged));
        }

        #[test]
        fn nothing_that_is_not_a_ticket_reads_as_one(text in ".{0,400}") {
            let key = TicketKey::new(None);
            let read = key.read(&text, &ticket().carrier_call, 0);
            proptest::prop_assert_eq!(read, Err(TicketError::Forged));
        }
    }
}
