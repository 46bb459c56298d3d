//! Makes spans of what is seen of calls, without IO.
//!
//! The root span of a trace is the call. The replica that notes its end sends it, and no other; its
//! id follows from the call's, so that every replica's spans hang on it.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use crate::{
    call::{Blame, CallId, CarrierCallId, EndReason},
    telemetry::Cut,
    trace::{Phase, Seen, Sighting, nanos},
};

/// How long a call is known whose media does not come here, for another replica may have it, and
/// how much longer than calls last one whose end is not seen. In nanoseconds.
const UNHEARD: u64 = 600_000_000_000;
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
    /// In nanoseconds.
    longest_call: u64,
    calls: HashMap<CallId, Call>,
    /// When each of them is forgotten, the soonest first: nothing is gone through to find it.
    due: BTreeSet<(u64, CallId)>,
    /// How many have come to no end since somebody last asked.
    cut: HashMap<Cut, u64>,
}

/// What is known of a call that goes on.
#[derive(Debug, Clone)]
struct Call {
    id: CallId,
    since: u64,
    connected: Option<u64>,
    campaign: Option<String>,
    direction: Option<&'static str>,
    /// Why it was refused, until its caller is told so.
    refused: Option<&'static str>,
    moments: Vec<(u64, &'static str)>,
}

impl Gatherer {
    /// Knows no call yet; of those that come, none lasts longer than `longest_call`.
    pub fn new(ratio: f64, longest_call: Duration) -> Self {
        Self {
            ratio,
            longest_call: nanos(longest_call),
            calls: HashMap::new(),
            due: BTreeSet::new(),
            cut: HashMap::new(),
        }
    }

    /// Takes what was seen; returns the spans of what that brings to an end.
    pub fn see(&mut self, sighting: Sighting) -> Vec<Span> {
        let Sighting { id, call, at, seen } = sighting;
        self.forget_due(at);
        if !is_traced(id, self.ratio) {
            return Vec::new();
        }
        let known = self.calls.remove(&id);
        let is_new = known.is_none();
        let mut known = known.unwrap_or_else(|| Call::new(id, at));
        self.due.remove(&(known.due(self.longest_call), id));
        let has_come = matches!(seen, Seen::Arrived { .. } | Seen::Claimed { .. });
        let (spans, goes_on) = known.see(&call, at, seen, is_new);
        if goes_on && self.calls.len() < MOST_CALLS {
            self.due.insert((known.due(self.longest_call), id));
            self.calls.insert(id, known);
        } else if goes_on && has_come {
            self.note_cut(Cut::Full);
        }
        spans
    }

    /// Forgets the calls of which nothing more is to come.
    pub fn forget_due(&mut self, now: u64) {
        while let Some((at, id)) = self.due.first().copied()
            && at <= now
        {
            self.due.remove(&(at, id));
            let forgotten = self.calls.remove(&id);
            if forgotten.is_some_and(|call| call.connected.is_some()) {
                self.note_cut(Cut::NoEnd);
            }
        }
    }

    /// Returns how many calls have come to no end here since this was last asked, by why.
    pub fn take_cut(&mut self) -> impl Iterator<Item = (Cut, u64)> {
        self.cut.drain()
    }

    fn note_cut(&mut self, why: Cut) {
        *self.cut.entry(why).or_default() += 1;
    }
}

impl Call {
    fn new(id: CallId, since: u64) -> Self {
        Self {
            id,
            since,
            connected: None,
            campaign: None,
            direction: None,
            refused: None,
            moments: Vec::new(),
        }
    }

    /// Returns when the call is to be forgotten if its end is not seen.
    fn due(&self, longest_call: u64) -> u64 {
        let lasts = self.connected.map(|at| at.saturating_add(longest_call));
        lasts.unwrap_or(self.since).saturating_add(UNHEARD)
    }

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
                campaign,
                direction,
                refused,
            } => {
                (self.campaign, self.direction) = (Some(campaign), Some(direction));
                self.refused = refused;
                (Vec::new(), true)
            }
            Seen::Claimed { campaign } => {
                self.campaign = Some(campaign);
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
                let mut spans = vec![self.part(phase.as_str(), began, at)];
                let Some(why) = self.refused.filter(|_| phase.decides()) else {
                    return (spans, goes_on);
                };
                let mut root = self.root(call, at);
                root.attributes.push(("call.refused", why.to_owned()));
                spans.push(root);
                (spans, false)
            }
            Seen::UsedTool {
                tool,
                outcome,
                took,
            } => {
                let mut span = self.part("tool", at.saturating_sub(took), at);
                span.attributes.push(("tool", tool));
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

    fn root_id(&self) -> [u8; 8] {
        root_id(self.id)
    }
}

/// Returns the second half of a call's trace id, which is never zero: a UUID's variant is in it.
fn root_id(call: CallId) -> [u8; 8] {
    let (_, id) = call.trace().split_last_chunk().expect("8 of 16 bytes");
    *id
}

/// Tells alike on every replica. The last seven bytes are as good as random.
fn is_traced(call: CallId, ratio: f64) -> bool {
    let [_, chance @ ..] = root_id(call);
    let [a, b, c, d, ..] = chance;
    f64::from(u32::from_be_bytes([a, b, c, d])) < ratio * (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn call() -> CarrierCallId {
        CarrierCallId::try_from("CA00000000000000000000000000000001".to_owned()).unwrap()
    }

    fn gatherer() -> Gatherer {
        Gatherer::new(1.0, Duration::from_secs(3_600))
    }

    fn sighting(call: CarrierCallId, at: u64, seen: Seen) -> Sighting {
        let id = CallId::of(&call);
        Sighting { id, call, at, seen }
    }

    fn arrived(refused: Option<&'static str>) -> Seen {
        Seen::Arrived {
            campaign: "sales".to_owned(),
            direction: "inbound",
            refused,
        }
    }

    /// Returns the spans that come of what one replica sees, as name, begin and end.
    fn spans(gatherer: &mut Gatherer, seen: Vec<(u64, Seen)>) -> Vec<Span> {
        let all = seen.into_iter();
        let all = all.map(|(at, seen)| sighting(call(), at, seen));
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
        let (mut first, mut second) = (gatherer(), gatherer());
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
        first.forget_due(UNHEARD + 11 * MS);
        assert!(
            first.calls.is_empty(),
            "nor of one that another replica has"
        );
        assert_eq!(first.take_cut().count() + second.take_cut().count(), 0);
    }

    #[test]
    fn a_refused_call_is_a_whole_trace() {
        let mut gatherer = gatherer();
        let seen = vec![
            (10 * MS, Seen::Took(Phase::Admission, 4 * MS)),
            (10 * MS, arrived(Some("full"))),
            (12 * MS, Seen::Took(Phase::Webhook, 8 * MS)),
        ];
        let spans = spans(&mut gatherer, seen);
        assert_eq!(
            times(&spans),
            [("admission", 6, 10), ("webhook", 4, 12), ("call", 4, 12)]
        );
        assert!(
            spans[2]
                .attributes
                .contains(&("call.refused", "full".to_owned()))
        );
        assert!(gatherer.calls.is_empty());
    }

    #[test]
    fn a_share_of_calls_is_traced_and_the_same_ones_everywhere() {
        let traced = |number: u32, ratio: f64| {
            let call = CarrierCallId::try_from(format!("CA{number:032x}")).unwrap();
            let ended = sighting(call, 1, Seen::Ended(EndReason::CallerHungUp));
            let mut gatherer = Gatherer::new(ratio, Duration::from_secs(3_600));
            !gatherer.see(ended).is_empty()
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
    fn a_call_whose_end_is_missed_is_forgotten_once_it_would_have_ended() {
        let mut gatherer = gatherer();
        let claimed = || Seen::Claimed {
            campaign: "sales".to_owned(),
        };
        let hour = gatherer.longest_call;
        spans(&mut gatherer, vec![(0, claimed()), (MS, Seen::Connected)]);
        gatherer.forget_due(hour + UNHEARD);
        assert_eq!(gatherer.calls.len(), 1, "it may go on for that long");
        gatherer.forget_due(hour + UNHEARD + MS);
        assert!(gatherer.calls.is_empty() && gatherer.due.is_empty());
        assert_eq!(gatherer.take_cut().collect::<Vec<_>>(), [(Cut::NoEnd, 1)]);
    }

    #[test]
    fn what_is_known_at_once_is_bounded_and_has_room_again_by_itself() {
        let mut gatherer = gatherer();
        let came = |number: usize, at: u64| {
            let call = CarrierCallId::try_from(format!("CA{number:032x}")).unwrap();
            sighting(call, at, arrived(None))
        };
        for number in 0..MOST_CALLS + 10 {
            gatherer.see(came(number, 1));
        }
        assert_eq!(gatherer.calls.len(), MOST_CALLS);
        assert_eq!(gatherer.due.len(), MOST_CALLS);
        assert_eq!(gatherer.take_cut().collect::<Vec<_>>(), [(Cut::Full, 10)]);
        gatherer.see(came(MOST_CALLS + 10, 1 + UNHEARD));
        assert_eq!(gatherer.calls.len(), 1);
        assert_eq!(gatherer.take_cut().count(), 0, "others have those calls");
    }
}
