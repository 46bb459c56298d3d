//! Makes spans of what is seen of calls, without IO.
//!
//! The root span of a trace is the call. The replica that notes its end sends it, and no other; its
//! id follows from the call's, so that every replica's spans hang on it.

use std::collections::HashMap;

use crate::{
    call::{Blame, CallId, CarrierCallId, EndReason},
    trace::{Phase, Seen, Sighting},
};

/// How long a call is known whose media does not come here: another replica may have it. In
/// nanoseconds.
const UNCLAIMED: u64 = 600_000_000_000;
/// How many calls are known at once; of others only what takes time is told.
const MOST_CALLS: usize = 20_000;
/// How many moments of one call are kept.
const MOST_MOMENTS: usize = 64;

/// One thing that took time.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    pub trace: [u8; 16],
    pub id: [u8; 8],
    /// `None` for the call itself.
    pub parent: Option<[u8; 8]>,
    pub name: &'static str,
    /// In Unix nanoseconds.
    pub began: u64,
    pub ended: u64,
    pub failed: bool,
    pub attributes: Vec<(&'static str, String)>,
    /// What happened meanwhile, and when.
    pub moments: Vec<(u64, &'static str)>,
}

/// Knows the calls that go on, and makes spans of what is over.
#[derive(Debug)]
pub struct Gatherer {
    /// The share of calls that are traced.
    ratio: f64,
    calls: HashMap<CarrierCallId, Call>,
}

/// What is known of a call that goes on.
#[derive(Debug, Clone)]
struct Call {
    id: CallId,
    since: u64,
    connected: Option<u64>,
    campaign: Option<String>,
    direction: Option<&'static str>,
    moments: Vec<(u64, &'static str)>,
}

impl Gatherer {
    pub fn new(ratio: f64) -> Self {
        Self {
            ratio,
            calls: HashMap::new(),
        }
    }

    /// Takes what was seen; returns the spans of what that brings to an end.
    pub fn see(&mut self, sighting: Sighting) -> Vec<Span> {
        let Sighting { call, at, seen } = sighting;
        let is_new = !self.calls.contains_key(&call);
        if is_new && self.calls.len() >= MOST_CALLS {
            self.forget_unclaimed(at);
        }
        let mut known = self.calls.remove(&call).unwrap_or_else(|| Call {
            id: CallId::of(&call),
            since: at,
            connected: None,
            campaign: None,
            direction: None,
            moments: Vec::new(),
        });
        let spans = known.see(&call, at, seen, is_new);
        let (spans, goes_on) = spans;
        let traced = known.is_traced(self.ratio);
        if goes_on && self.calls.len() < MOST_CALLS {
            self.calls.insert(call, known);
        }
        if traced { spans } else { Vec::new() }
    }

    /// Forgets the calls whose media has not come here for long.
    pub fn forget_unclaimed(&mut self, now: u64) {
        self.calls.retain(|_, call| {
            call.connected.is_some() || now.saturating_sub(call.since) < UNCLAIMED
        });
    }
}

impl Call {
    /// Returns the spans that are complete, and whether the call goes on here.
    fn see(
        &mut self,
        call: &CarrierCallId,
        at: u64,
        seen: Seen,
        is_new: bool,
    ) -> (Vec<Span>, bool) {
        match seen {
            Seen::Arrived {
                id,
                campaign,
                direction,
                refused,
            } => {
                (self.id, self.campaign, self.direction) = (id, Some(campaign), Some(direction));
                let Some(why) = refused else {
                    return (Vec::new(), true);
                };
                let mut root = self.root(call, at);
                root.attributes.push(("call.refused", why.to_owned()));
                (vec![root], false)
            }
            Seen::Claimed { id, campaign } => {
                (self.id, self.campaign) = (id, Some(campaign));
                (Vec::new(), true)
            }
            Seen::Connected => {
                self.connected.get_or_insert(at);
                (Vec::new(), true)
            }
            Seen::Happened(name) => {
                if self.moments.len() < MOST_MOMENTS {
                    self.moments.push((at, name));
                }
                (Vec::new(), !is_new)
            }
            Seen::Took(phase, took) => {
                let began = at.saturating_sub(took);
                self.since = self.since.min(began);
                // What comes after a call's end, or before its beginning, is no call that goes on;
                // admission is its beginning.
                let goes_on = !is_new || phase == Phase::Admission;
                (vec![self.part(phase.as_str(), began, at)], goes_on)
            }
            Seen::UsedTool {
                tool,
                outcome,
                took,
            } => {
                let mut span = self.part("tool", at.saturating_sub(took), at);
                span.attributes.extend(tool.map(|tool| ("tool", tool)));
                span.attributes.push(("tool.outcome", outcome.to_owned()));
                (vec![span], !is_new)
            }
            Seen::Ended(reason) => (self.end(call, at, reason), false),
        }
    }

    fn end(&self, call: &CarrierCallId, at: u64, reason: EndReason) -> Vec<Span> {
        let mut spans = Vec::new();
        let blame = reason.blame();
        let failed = match blame {
            Blame::Caller | Blame::Operator => false,
            Blame::Carrier | Blame::Agent | Blame::Callgate => true,
        };
        if let Some(connected) = self.connected {
            let mut session = self.part("session", connected, at);
            session.moments.clone_from(&self.moments);
            spans.push(session);
        }
        // Who has it now tells of the rest.
        if reason != EndReason::TakenOver {
            let mut root = self.root(call, at);
            root.failed = failed;
            let reason = reason.as_str().to_owned();
            root.attributes.push(("call.end_reason", reason));
            root.attributes
                .push(("call.blame", blame.as_str().to_owned()));
            if self.connected.is_none() {
                root.moments.clone_from(&self.moments);
            }
            spans.push(root);
        }
        spans
    }

    fn root(&self, call: &CarrierCallId, at: u64) -> Span {
        let mut root = Span {
            id: self.root_id(),
            parent: None,
            ..self.part("call", self.since, at)
        };
        let carrier = call.carrier().as_str().to_owned();
        root.attributes.push(("call.id", self.id.to_string()));
        root.attributes.push(("carrier_call.id", call.to_string()));
        root.attributes.push(("carrier", carrier));
        let campaign = self.campaign.clone();
        root.attributes
            .extend(campaign.map(|campaign| ("campaign.id", campaign)));
        let direction = self.direction.map(ToOwned::to_owned);
        root.attributes
            .extend(direction.map(|direction| ("call.direction", direction)));
        root
    }

    fn part(&self, name: &'static str, began: u64, ended: u64) -> Span {
        Span {
            trace: *self.id.trace(),
            id: rand::random::<u64>().max(1).to_be_bytes(), // Zero is no id.
            parent: Some(self.root_id()),
            name,
            began,
            ended,
            failed: false,
            attributes: Vec::new(),
            moments: Vec::new(),
        }
    }

    /// Returns the second half of the trace's id, which is never zero: a UUID's variant is in it.
    fn root_id(&self) -> [u8; 8] {
        let (_, id) = self.id.trace().split_last_chunk().expect("8 of 16 bytes");
        *id
    }

    /// Tells alike on every replica. The last seven bytes are as good as random.
    fn is_traced(&self, ratio: f64) -> bool {
        let [_, chance @ ..] = self.root_id();
        let [a, b, c, d, ..] = chance;
        f64::from(u32::from_be_bytes([a, b, c, d])) < ratio * (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn call() -> CarrierCallId {
        CarrierCallId::try_from("CA00000000000000000000000000000001".to_owned()).unwrap()
    }

    fn arrived(refused: Option<&'static str>) -> Seen {
        Seen::Arrived {
            id: CallId::of(&call()),
            campaign: "sales".to_owned(),
            direction: "inbound",
            refused,
        }
    }

    /// Returns the spans that come of what one replica sees, as name, begin and end.
    fn spans(gatherer: &mut Gatherer, seen: Vec<(u64, Seen)>) -> Vec<Span> {
        let sighting = |(at, seen)| Sighting {
            call: call(),
            at,
            seen,
        };
        let all = seen.into_iter().map(sighting);
        all.flat_map(|sighting| gatherer.see(sighting)).collect()
    }

    fn times(spans: &[Span]) -> Vec<(&str, u64, u64)> {
        let times = spans.iter();
        times
            .map(|span| (span.name, span.began / MS, span.ended / MS))
            .collect()
    }

    #[test]
    fn a_call_is_one_trace_whichever_replicas_have_it() {
        let (mut first, mut second) = (Gatherer::new(1.0), Gatherer::new(1.0));
        let rang = spans(
            &mut first,
            vec![
                (10 * MS, Seen::Took(Phase::Admission, 4 * MS)),
                (10 * MS, arrived(None)),
                (12 * MS, Seen::Took(Phase::Webhook, 8 * MS)),
            ],
        );
        assert_eq!(times(&rang), [("admission", 6, 10), ("webhook", 4, 12)]);
        let claimed = Seen::Claimed {
            id: CallId::of(&call()),
            campaign: "sales".to_owned(),
        };
        let talked = spans(
            &mut second,
            vec![
                (20 * MS, claimed),
                (20 * MS, Seen::Connected),
                (30 * MS, Seen::Took(Phase::AgentConnect, 9 * MS)),
                (35 * MS, Seen::Happened("first_words")),
                (90 * MS, Seen::Ended(EndReason::AgentClosed)),
                (92 * MS, Seen::Took(Phase::Release, 2 * MS)),
            ],
        );
        assert_eq!(
            times(&talked),
            [
                ("agent connect", 21, 30),
                ("session", 20, 90),
                ("call", 20, 90),
                ("release", 90, 92)
            ]
        );
        let root = &talked[2];
        assert!(root.parent.is_none() && root.failed);
        for span in rang.iter().chain(&talked) {
            assert_eq!(&span.trace, CallId::of(&call()).trace());
            assert!(span.name == "call" || span.parent == Some(root.id));
        }
        assert_eq!(talked[1].moments, [(35 * MS, "first_words")]);
        assert!(
            root.attributes
                .contains(&("campaign.id", "sales".to_owned()))
        );
        assert!(
            root.attributes
                .contains(&("call.end_reason", "agent_closed".to_owned()))
        );
        assert!(
            second.calls.is_empty(),
            "nothing is kept of a call that is over"
        );
        first.forget_unclaimed(UNCLAIMED + 11 * MS);
        assert!(
            first.calls.is_empty(),
            "nor of one that another replica has"
        );
    }

    #[test]
    fn a_refused_call_is_a_whole_trace() {
        let mut gatherer = Gatherer::new(1.0);
        let seen = vec![
            (10 * MS, Seen::Took(Phase::Admission, 4 * MS)),
            (10 * MS, arrived(Some("full"))),
            (12 * MS, Seen::Took(Phase::Webhook, 8 * MS)),
        ];
        let spans = spans(&mut gatherer, seen);
        assert_eq!(
            times(&spans),
            [("admission", 6, 10), ("call", 6, 10), ("webhook", 4, 12)]
        );
        assert!(
            spans[1]
                .attributes
                .contains(&("call.refused", "full".to_owned()))
        );
        assert!(gatherer.calls.is_empty());
    }

    #[test]
    fn a_share_of_calls_is_traced_and_the_same_ones_everywhere() {
        let traced = |number: u32, ratio: f64| {
            let call = CarrierCallId::try_from(format!("CA{number:032x}")).unwrap();
            let ended = Sighting {
                call,
                at: 1,
                seen: Seen::Ended(EndReason::CallerHungUp),
            };
            !Gatherer::new(ratio).see(ended).is_empty()
        };
        let half: Vec<u32> = (0..1_000).filter(|number| traced(*number, 0.5)).collect();
        assert!((400..600).contains(&half.len()), "{}", half.len());
        assert!(
            half.iter()
                .all(|number| traced(*number, 0.5) && traced(*number, 0.9))
        );
        assert!((0..100).all(|number| traced(number, 1.0) && !traced(number, 0.0)));
    }

    #[test]
    fn what_is_known_at_once_is_bounded() {
        let mut gatherer = Gatherer::new(1.0);
        for number in 0..MOST_CALLS + 10 {
            let call = CarrierCallId::try_from(format!("CA{number:032x}")).unwrap();
            let seen = Seen::Connected;
            gatherer.see(Sighting { call, at: 1, seen });
        }
        assert_eq!(gatherer.calls.len(), MOST_CALLS);
    }
}
