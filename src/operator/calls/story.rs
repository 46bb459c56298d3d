//! A call as a page tells it: each step in words, whose doing it was, and how long it took. Pure.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::calls::{Call, Moment, Words},
    operator::calls::stored::{Event, Recording, Usage, Whole},
    spending::{Currency, amount},
};

/// A call as a line of a list.
#[derive(Debug, Serialize)]
pub struct Line {
    pub id: String,
    pub rang_at: String,
    pub direction: String,
    pub caller: String,
    pub campaign: String,
    pub state: String,
    pub reason: String,
    pub talked: String,
}

/// A call as a page.
#[derive(Debug, Serialize)]
pub struct Page<'a> {
    call: &'a Call,
    tenant: &'a str,
    replica: &'a str,
    offered: Option<&'a str>,
    caller: &'a str,
    called: &'a str,
    /// How it ended, as a sentence.
    ending: String,
    talked: String,
    steps: Vec<Step>,
    words: Vec<Said<'a>>,
    is_cut: bool,
    usage: &'a [Usage],
    cost: Option<String>,
    events: &'a [Event],
    recordings: &'a [Recording],
}

/// One step.
#[derive(Debug, Serialize)]
struct Step {
    /// Since the call rang.
    at: String,
    at_exactly: String,
    /// Whose doing it was.
    who: &'static str,
    text: String,
    more: Option<String>,
    /// The parts of a turn.
    parts: Vec<Part>,
    is_bad: bool,
}

/// One part of a turn.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Part {
    who: &'static str,
    ms: u64,
    /// Where it begins, and how wide it is, in percent of the turn.
    from: u64,
    width: u64,
}

/// What else there is to say of a step.
struct Details<'a>(&'a Value);

/// One utterance.
#[derive(Debug, Serialize)]
struct Said<'a> {
    at: String,
    who: &'a str,
    text: &'a str,
}

/// Returns a call as a line of a list.
pub fn line(call: Call) -> Line {
    Line {
        talked: talked(call.talked_ms),
        id: call.call_id,
        rang_at: call.rang_at,
        direction: call.direction,
        caller: call.caller.unwrap_or_else(|| "unknown".to_owned()),
        campaign: call.campaign.unwrap_or_default(),
        state: plain(&call.state),
        reason: call.reason.as_deref().map(plain).unwrap_or_default(),
    }
}

/// Returns a call as a page, with what it has cost in `currency`.
pub fn page<'a>(whole: &'a Whole, currency: Option<&Currency>) -> Page<'a> {
    let call = &whole.call;
    let began = millis(&call.rang_at);
    let costs: i64 = whole.usage.iter().map(|usage| usage.cost_micros).sum();
    Page {
        call,
        tenant: whole.tenant.as_deref().unwrap_or("unknown"),
        replica: whole.replica.as_deref().unwrap_or("unknown"),
        offered: whole.offered.as_deref(),
        caller: call.caller.as_deref().unwrap_or("unknown"),
        called: call.called.as_deref().unwrap_or("unknown"),
        ending: ending(call),
        talked: talked(call.talked_ms),
        steps: whole
            .timeline
            .iter()
            .map(|moment| step(began, moment))
            .collect(),
        words: whole
            .transcript
            .iter()
            .map(|words| said(began, words))
            .collect(),
        is_cut: whole.is_cut,
        usage: &whole.usage,
        cost: (!whole.usage.is_empty()).then(|| amount(costs, currency)),
        events: &whole.events,
        recordings: &whole.recordings,
    }
}

fn step(began: i64, moment: &Moment) -> Step {
    let details = Details(moment.details.as_ref().unwrap_or(&Value::Null));
    let (who, text) = told(&moment.what, &details);
    let is_decision = matches!(moment.what.as_str(), "admitted" | "refused");
    let is_turn = moment.what == "turn";
    Step {
        at: since(began, &moment.at),
        at_exactly: moment.at.clone(),
        who,
        text,
        more: is_decision.then(|| counts(details.0)).flatten(),
        parts: if is_turn { turn(details.0) } else { Vec::new() },
        is_bad: matches!(moment.what.as_str(), "refused" | "impaired" | "unknown"),
    }
}

/// Returns whose doing a step was, and what happened.
fn told(what: &str, details: &Details<'_>) -> (&'static str, String) {
    let (who, told) = match what {
        "dialing" => ("gateway", "The carrier is asked to place the call."),
        "unknown" => ("gateway", "The carrier may have placed it, or not."),
        "ringing" => ("carrier", "It rings at the other end."),
        "picked_up" => ("caller", "Somebody picks up."),
        "connected" => ("carrier", "The media socket has brought the call."),
        "first_words" => ("agent", "The agent's first audio goes to the caller."),
        "transfer_ended" if details.0["answered"] == true => {
            ("carrier", "The transfer is over; somebody answered it.")
        }
        "transfer_ended" => ("carrier", "Nobody answered the transfer."),
        _ => return told_with_figures(what, details),
    };
    (who, told.to_owned())
}

fn told_with_figures(what: &str, details: &Details<'_>) -> (&'static str, String) {
    match what {
        "admitted" => (
            "gateway",
            decided("The webhook is answered: the call is admitted", details.0),
        ),
        "refused" => {
            let (why, scope) = (details.word("reason"), details.name("scope"));
            let (used, cap) = (details.number("used"), details.number("cap"));
            let refused = format!(
                "The webhook is answered: the call is refused ({why}: {used} of {cap} in {scope})"
            );
            ("gateway", decided(&refused, details.0))
        }
        "offered" => (
            "gateway",
            format!("The caller is offered: {}.", details.word("offer")),
        ),
        "left_message" => (
            "caller",
            format!("A message of {} s is left.", details.number("seconds")),
        ),
        "invited" => (
            "gateway",
            format!("A WhatsApp message: {}.", details.word("result")),
        ),
        "agent_ready" => {
            let took = details.0["connected_in_ms"].as_u64();
            let took = took.map(|took| format!("; connecting took {took} ms"));
            (
                "agent",
                format!("The agent is there{}.", took.unwrap_or_default()),
            )
        }
        "turn" => ("turn", turn_in_words(details.0)),
        "interrupted" => {
            let heard = details.number("heard_ms");
            let told = format!("The caller speaks over the agent, of whom {heard} ms were heard.");
            ("caller", told)
        }
        "tool_used" => {
            let (tool, outcome, lasted) = (
                details.name("tool"),
                details.word("outcome"),
                details.number("lasted_ms"),
            );
            (
                "agent",
                format!("The tool {tool}: {outcome}, after {lasted} ms."),
            )
        }
        "impaired" => {
            let (filled, dropped) = (details.number("filled_ms"), details.number("dropped"));
            let garbled = details.number("garbled");
            let told = format!(
                "The media was impaired: {filled} ms of silence filled in, {dropped} messages \
                 dropped, {garbled} made no sense."
            );
            ("gateway", told)
        }
        "marks" => {
            let (sent, returned) = (details.number("sent"), details.number("returned"));
            let told = format!(
                "Of {sent} marks in what the agent said, by which it is known what the caller heard, \
                 {returned} came back."
            );
            ("carrier", told)
        }
        "ended" => (
            blamed(&details.name("blame")),
            format!(
                "The call ends: {} (by {}).",
                details.word("reason"),
                details.word("blame")
            ),
        ),
        // A later version's.
        other => ("gateway", plain(other)),
    }
}

fn said(began: i64, words: &Words) -> Said<'_> {
    Said {
        at: since(began, &words.at),
        who: &words.who,
        text: &words.text,
    }
}

/// Returns the parts of a turn, with their places in it.
fn turn(details: &Value) -> Vec<Part> {
    let named = [
        ("caller", "spoke_ms"),
        ("agent", "answer_ms"),
        ("gateway", "sent_ms"),
        ("playout", "played_ms"),
    ];
    let known = named.into_iter();
    let known = known.filter_map(|(who, field)| Some((who, details[field].as_u64()?)));
    let known: Vec<(&'static str, u64)> = known.collect();
    let all = known.iter().map(|(_, ms)| ms).sum::<u64>().max(1);
    let mut before = 0;
    let place = |(who, ms): (&'static str, u64)| {
        let from = before * 100 / all;
        before += ms;
        Part {
            who,
            ms,
            from,
            width: (before * 100 / all).saturating_sub(from).max(1),
        }
    };
    known.into_iter().map(place).collect()
}

fn turn_in_words(details: &Value) -> String {
    let part = |field: &str, words: &str| {
        let ms = details[field].as_u64()?;
        Some(words.replace("{}", &ms.to_string()))
    };
    let parts = [
        part("spoke_ms", "the caller speaks for {} ms"),
        part("answer_ms", "the agent answers after {} ms"),
        part("sent_ms", "its audio is sent {} ms later"),
        part("played_ms", "and heard {} ms after that"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let cut = if details["interrupted"] == true {
        "; the caller speaks over it"
    } else {
        ""
    };
    format!("A turn: {}{cut}.", parts.join(", "))
}

fn counts(details: &Value) -> Option<String> {
    let counts = details["counts"].as_array()?.iter().map(|count| {
        let scope = count["scope"].as_str().unwrap_or_default();
        format!(
            "{} {} of {}",
            scope.replace(':', " "),
            count["used"],
            count["cap"]
        )
    });
    Some(counts.collect::<Vec<_>>().join(", "))
}

fn decided(what: &str, details: &Value) -> String {
    match details["decided_in_ms"].as_u64() {
        Some(took) => format!("{what}, decided in {took} ms."),
        None => format!("{what}."),
    }
}

impl Details<'_> {
    /// Returns a word of ours.
    fn word(&self, field: &str) -> String {
        self.0[field].as_str().map(plain).unwrap_or_default()
    }

    fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or(0)
    }

    /// Returns a name as it was given.
    fn name(&self, field: &str) -> String {
        self.0[field].as_str().unwrap_or("(unknown)").to_owned()
    }
}

/// Returns whose lane a party that is to blame is in.
fn blamed(blame: &str) -> &'static str {
    match blame {
        "caller" => "caller",
        "carrier" => "carrier",
        "agent" => "agent",
        _ => "gateway",
    }
}

fn ending(call: &Call) -> String {
    let reason = call.reason.as_deref().map(plain);
    match (&call.ended_at, reason, &call.blame) {
        (_, Some(reason), Some(blame)) => format!("{}: {reason}, by {blame}", plain(&call.state)),
        (_, Some(reason), None) => format!("{}: {reason}", plain(&call.state)),
        (Some(_), None, _) => plain(&call.state),
        (None, None, _) => format!("live: {}", plain(&call.state)),
    }
}

fn talked(ms: Option<i64>) -> String {
    let Some(ms) = ms else {
        return "–".to_owned();
    };
    let seconds = ms / 1_000;
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

/// Returns a word of ours as people write it.
fn plain(word: &str) -> String {
    word.replace('_', " ")
}

fn since(began: i64, at: &str) -> String {
    let ms = millis(at) - began;
    let sign = if ms < 0 { "−" } else { "+" };
    let ms = ms.unsigned_abs();
    format!("{sign}{}.{:03} s", ms / 1_000, ms % 1_000)
}

fn millis(at: &str) -> i64 {
    at.parse::<Timestamp>().map_or(0, Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use minijinja::{Value as MiniValue, context, value::Serde};
    use serde_json::json;

    use super::*;
    use crate::operator::{calls::asked::Asked, page::part};

    fn shown(what: &str, details: Value) -> Step {
        let moment = Moment {
            at: "2026-01-01T00:00:01.234Z".to_owned(),
            what: what.to_owned(),
            details: Some(details),
            who: None,
            text: None,
        };
        step(millis("2026-01-01T00:00:00Z"), &moment)
    }

    #[test]
    fn steps_are_told_in_words_with_their_figures() {
        let counts = json!([
            {"scope": "global", "used": 8, "cap": 15}, {"scope": "campaign:sales", "used": 5, "cap": 5},
        ]);
        for (what, details, who, expected) in [
            (
                "admitted",
                json!({"decided_in_ms": 3, "counts": counts}),
                "gateway",
                "The webhook is answered: the call is admitted, decided in 3 ms.",
            ),
            (
                "refused",
                json!({"reason": "full", "scope": "campaign:sales", "used": 5, "cap": 5}),
                "gateway",
                "The webhook is answered: the call is refused (full: 5 of 5 in campaign:sales).",
            ),
            (
                "agent_ready",
                json!({"connected_in_ms": 212}),
                "agent",
                "The agent is there; connecting took 212 ms.",
            ),
            ("agent_ready", Value::Null, "agent", "The agent is there."),
            (
                "ended",
                json!({"reason": "agent_too_slow", "blame": "agent"}),
                "agent",
                "The call ends: agent too slow (by agent).",
            ),
            (
                "of_a_later_version",
                Value::Null,
                "gateway",
                "of a later version",
            ),
        ] {
            let step = shown(what, details);
            assert_eq!((step.who, step.text.as_str()), (who, expected));
            assert_eq!(step.at, "+1.234 s");
        }
        let step = shown("admitted", json!({"counts": counts}));
        assert_eq!(step.more.unwrap(), "global 8 of 15, campaign sales 5 of 5");
    }

    #[test]
    fn a_turn_is_split_among_those_who_took_its_time() {
        let details = json!({
            "spoke_ms": 1_000, "answer_ms": 600, "sent_ms": 0, "played_ms": 400,
            "interrupted": false,
        });
        let step = shown("turn", details);
        let part = |who, ms, from, width| Part {
            who,
            ms,
            from,
            width,
        };
        assert_eq!(
            step.parts,
            [
                part("caller", 1_000, 0, 50),
                part("agent", 600, 50, 30),
                part("gateway", 0, 80, 1),
                part("playout", 400, 80, 20),
            ]
        );
        let greeting = shown(
            "turn",
            json!({"answer_ms": 90, "interrupted": true, "spoke_ms": null}),
        );
        assert_eq!(
            greeting.text,
            "A turn: the agent answers after 90 ms; the caller speaks over it."
        );
    }

    #[test]
    fn a_call_makes_a_page_and_a_line() {
        let call = || Call {
            call_id: "0b1c2d3e-1111-4222-8333-444455556666".to_owned(),
            carrier_call_id: "CA1".to_owned(),
            carrier: "twilio".to_owned(),
            direction: "inbound".to_owned(),
            campaign: None,
            agent: Some("default".to_owned()),
            caller: Some("+9*******4567".to_owned()),
            called: None,
            state: "ended".to_owned(),
            reason: Some("caller_hung_up".to_owned()),
            blame: Some("caller".to_owned()),
            full_scope: None,
            offered: None,
            metadata: None,
            rang_at: "2026-01-01T00:00:00Z".to_owned(),
            connected_at: None,
            ended_at: Some("2026-01-01T00:01:00Z".to_owned()),
            talked_ms: Some(61_000),
        };
        let moment = |what: &str, details| Moment {
            at: "2026-01-01T00:00:01Z".to_owned(),
            what: what.to_owned(),
            details: Some(details),
            who: None,
            text: None,
        };
        let counts = json!({"counts": [{"scope": "global", "used": 1, "cap": 15}]});
        let whole = Whole {
            call: call(),
            tenant: None,
            offered: None,
            replica: None,
            timeline: vec![
                moment("admitted", counts),
                moment("turn", json!({"answer_ms": 90, "played_ms": 20})),
            ],
            transcript: vec![Words {
                at: "2026-01-01T00:00:02Z".to_owned(),
                who: "caller".to_owned(),
                text: "<b>shalom</b>".to_owned(),
            }],
            is_cut: false,
            usage: Vec::new(),
            events: Vec::new(),
            recordings: Vec::new(),
        };
        let context = context! {
            c => MiniValue::from(Serde(page(&whole, None))),
            may_end => false, may_change => true, has_numbers => false,
        };
        let shown = part("call.html", context);
        for text in [
            "ended: caller hung up, by caller",
            "global 1 of 15",
            "&lt;b&gt;shalom",
        ] {
            assert!(shown.contains(text), "{text} in {shown}");
        }
        let context = context! {
            asked => MiniValue::from(Serde(Asked::default())),
            calls => MiniValue::from(Serde(vec![line(call())])),
            next => "/calls?after=x", trouble => (), seen_to => (), most_seen => "100,000",
        };
        let shown = part("calls.html", context);
        assert!(
            shown.contains("1 min 01 s") && shown.contains("Earlier calls"),
            "{shown}"
        );
    }

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(
            [talked(None), talked(Some(59_999)), talked(Some(61_000))],
            ["–", "59 s", "1 min 01 s"]
        );
    }
}
