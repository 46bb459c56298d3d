//! What is wrong, as sentences.

use std::fmt;

use crate::operator::warning::Warning;

impl fmt::Display for Warning {
    #[expect(clippy::too_many_lines, reason = "one sentence for each")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => write!(
                f,
                "Nobody can call: no carrier is open. Set TWILIO_AUTH_TOKEN, or \
                 ACS_CONNECTION_STRING and EVENTGRID_SECRET."
            ),
            Self::NothingSigned { unsigned } => write!(
                f,
                "Callers do not get through: in the last ten minutes {} came without a good \
                 signature, and none with one. Run callgate check: PUBLIC_URL and the carrier's \
                 secret have to be right.",
                Count(*unsigned, "request")
            ),
            Self::CallsFail { failed, ended } => write!(
                f,
                "{failed} of the {ended} calls that ended in the last ten minutes ended by a \
                 fault: the carrier's, an agent's or ours. /calls says of each whose."
            ),
            Self::FewReplicas { replicas, least } => write!(
                f,
                "Of {least} replicas that there should be at least (LEAST_REPLICAS), {replicas} can \
                 be seen."
            ),
            Self::PlacesFull { replica, places } => write!(
                f,
                "{replica} has no place for another media socket: all {places} are taken \
                 (MAX_CONNECTIONS)."
            ),
            Self::ClockOff { by_s, ahead } => write!(
                f,
                "This replica's clock is {by_s} s {} the store's: tokens and signatures go by it.",
                if *ahead { "ahead of" } else { "behind" }
            ),
            Self::IntakeStopped => write!(
                f,
                "The intake is stopped: new callers hear that the line is busy, on every replica."
            ),
            Self::StoreAway { for_s, more } => write!(
                f,
                "Redis has been unreachable for {}: callgate admits {}.",
                For(*for_s),
                Alone(*more)
            ),
            Self::StoreGated { for_s, more } => write!(
                f,
                "Redis is back, and replicas have been registering their calls for {}: until they \
                 have, callgate admits {}.",
                For(*for_s),
                Alone(*more)
            ),
            Self::StoreFlaw(flaw) => write!(f, "{flaw}."),
            Self::DatabaseFails {
                for_s,
                waiting,
                why,
            } => write!(
                f,
                "The database has taken nothing for {}, and {waiting} facts wait for it; calls go \
                 on. ({why})",
                For(*for_s)
            ),
            Self::RecordsWait { waiting } => {
                write!(
                    f,
                    "The database is slow: {waiting} facts wait to be written."
                )
            }
            Self::RecordsLost { dropped, refused } => write!(
                f,
                "Records are lost since the start: {dropped} facts found no room, and the \
                 database did not take {refused}."
            ),
            Self::CapFull { scope, cap } => write!(
                f,
                "{} is full: all {cap} slots are taken, and further callers hear that the line is \
                 busy.",
                Capped(scope)
            ),
            Self::OutboundFull { cap } => write!(
                f,
                "All {cap} slots of calls that are placed are taken: programs that ask for another \
                 are told to come again."
            ),
            Self::CapNearlyFull { scope, used, cap } => {
                write!(
                    f,
                    "{} is nearly full: {used} of {cap} slots are taken.",
                    Capped(scope)
                )
            }
            Self::AgentRests {
                agent,
                failures,
                tries,
            } => write!(
                f,
                "The agent {agent} is left alone for a moment, because it keeps failing: \
                 {failures} of its last {tries} connections failed."
            ),
            Self::AgentFails {
                agent,
                failures,
                tries,
                why,
            } => write!(
                f,
                "The agent {agent} failed in {failures} of its last {tries} connections, at last \
                 with {why}."
            ),
            Self::EventsDead { endpoint, dead } => write!(
                f,
                "{dead} events for {endpoint} are dead: they were tried for a day. Send them again \
                 with callgate events resend-all."
            ),
            Self::EventsLate {
                endpoint,
                waiting,
                oldest_s,
            } => write!(
                f,
                "{waiting} events wait for {endpoint}, the oldest for {}.",
                For(*oldest_s)
            ),
            Self::Draining { replicas, live } => write!(
                f,
                "{} drains, with {} to go: {}.",
                Count(replicas.len(), "replica"),
                Count(*live, "connection"),
                replicas.join(", ")
            ),
            Self::AllDrain => write!(
                f,
                "Every replica drains: nobody takes new calls, and callers hear that the line is \
                 busy."
            ),
        }
    }
}

/// A time for people: to ten seconds, so that it is not read out anew each second.
struct For(u64);
/// How many more calls are admitted.
struct Alone(Option<u32>);
/// A scope as the beginning of a sentence.
struct Capped<'a>(&'a str);
struct Count<N>(N, &'static str);

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..10 => write!(f, "a few seconds"),
            10..120 => write!(f, "{} s", self.0 / 10 * 10),
            120..7_200 => write!(f, "{} min", self.0 / 60),
            7_200.. => write!(f, "{} h", self.0 / 3_600),
        }
    }
}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => write!(f, "every call (REDIS_OUTAGE=open)"),
            Some(0) => write!(f, "no more calls on its own"),
            Some(1) => write!(f, "at most 1 more call on its own"),
            Some(more) => write!(f, "at most {more} more calls on its own"),
        }
    }
}

impl fmt::Display for Capped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once(':') {
            Some((kind, name)) => write!(f, "The cap of the {kind} {name}"),
            None => write!(f, "The {} cap", self.0),
        }
    }
}

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Count<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, what) = self;
        let many = if *count == N::from(1) { "" } else { "s" };
        write!(f, "{count} {what}{many}")
    }
}
