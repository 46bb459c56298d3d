//! What one call's agent does with its tools: decides about each use, does it, and tells what came
//! of it. Dropping it ends what is under way.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    StreamExt,
    future::{FutureExt, LocalBoxFuture},
    stream::FuturesUnordered,
};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    call::{CallId, Carrier, CarrierCallId, EndReason, PhoneNumber},
    campaign::{Campaign, Name},
    carrier::acs::{CallAutomation, CallConnectionId, request::SendTones},
    chunk::Encoding,
    guard::GuardedClient,
    record::{Timeline, What},
    session::{Input, ToolCall, ToolResult},
    telemetry::ToolMetrics,
    tool::{Digits, Refusal, ToolKind, ToolOutcome, Use, ask::Question, tones},
};

/// How long ACS may take to press keys.
const PRESS_WITHIN: Duration = Duration::from_secs(5);
/// How far from the one before a key has to be that is pressed by itself.
const APART: Duration = Duration::from_secs(2);
/// How long it holds that the caller has agreed to a transfer.
const AGREED_FOR: Duration = Duration::from_secs(60);
/// How many keys ACS presses at a time.
const MOST_TONES: usize = 18;

/// Where the tools of one call are used.
pub struct Workbench<'a> {
    surroundings: Surroundings<'a>,
    campaign: &'a Campaign,
    /// What the session is to hear of.
    done: VecDeque<Input>,
    asking: FuturesUnordered<LocalBoxFuture<'a, Answered>>,
    /// Uses that are not over.
    open: Vec<Opened>,
    destination: Option<Name>,
    consent: Consent,
}

/// Whether the caller has agreed to a transfer, by the keys that were pressed.
#[derive(Debug, Default)]
pub struct Consent {
    pressed: Option<Instant>,
    agreed: Option<Instant>,
}

/// What the tools of one call work with.
pub struct Surroundings<'a> {
    pub call: &'a CarrierCallId,
    pub call_id: CallId,
    pub keypad: Keypad<'a>,
    /// Asks the servers of the campaign's tenant.
    pub http: GuardedClient,
    pub timeline: &'a Timeline,
    pub metrics: &'a ToolMetrics,
}

/// How keys are pressed for the other end of the line.
pub enum Keypad<'a> {
    /// As audio.
    Sounding(Encoding),
    /// ACS does, at this number.
    Acs {
        client: &'a CallAutomation,
        connection: CallConnectionId,
        number: PhoneNumber,
    },
}

struct Opened {
    id: String,
    /// `None` where the campaign has none that is called so: what the agent calls it is made up, and
    /// could be somebody's number.
    tool: Option<Name>,
    kind: ToolKind,
    began: Instant,
}

struct Answered {
    id: String,
    told: Result<String, Refusal>,
}

impl<'a> Workbench<'a> {
    /// `consent` is what the caller has pressed before, into another socket.
    pub fn new(campaign: &'a Campaign, surroundings: Surroundings<'a>, consent: Consent) -> Self {
        Self {
            surroundings,
            campaign,
            done: VecDeque::new(),
            asking: FuturesUnordered::new(),
            open: Vec::new(),
            destination: None,
            consent,
        }
    }

    /// The caller has pressed a key.
    pub fn pressed(&mut self, key: char) {
        let wanted = self.campaign.tools.directory.key;
        let agrees = wanted.is_some_and(|wanted| wanted.as_char() == key);
        self.consent.pressed(Instant::now(), agrees);
    }

    /// Returns what the caller has agreed to, for the workbench of another socket.
    pub fn consent(&mut self) -> Consent {
        std::mem::take(&mut self.consent)
    }

    /// Returns where the call is to go on, if the agent has handed it over.
    pub fn destination(&mut self) -> Option<Name> {
        self.destination.take()
    }

    /// Returns what the session is to hear of. Cancel-safe: it is returned or still to come.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        if let Some(input) = self.done.pop_front() {
            return Poll::Ready(input);
        }
        match self.asking.poll_next_unpin(cx) {
            Poll::Ready(Some(answered)) => Poll::Ready(self.answered(answered)),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Does what an agent wants of a tool, or begins to.
    pub fn take_up(&mut self, call: &ToolCall) {
        let (campaign, id) = (self.campaign, call.id.clone());
        self.open(call);
        let judged = campaign.tools.judge(call).and_then(|it| self.can(it));
        match judged {
            Err(refusal) => self.tell(id, Err(refusal)),
            Ok(Use::EndCall) => self.leave(&id, EndReason::AgentHungUp),
            Ok(Use::Transfer(name)) => {
                self.destination = Some(name);
                self.leave(&id, EndReason::Transferred);
            }
            Ok(Use::SendDtmf(digits)) => self.press(id, digits),
            Ok(Use::Ask {
                url,
                timeout,
                arguments,
            }) => {
                let tool = campaign.tools.named(&call.tool);
                let question = Question {
                    url,
                    timeout,
                    tool: &tool.expect("it was judged").name,
                    arguments,
                    call: self.surroundings.call_id,
                    campaign: &campaign.id,
                };
                let http = self.surroundings.http.clone();
                let asking = async move {
                    Answered {
                        id,
                        told: question.ask(&http).await,
                    }
                };
                self.asking.push(asking.boxed_local());
            }
        }
    }

    /// Tells the agent that there are too many uses.
    pub fn refuse(&mut self, call: &ToolCall) {
        self.open(call);
        self.tell(call.id.clone(), Err(Refusal::too_many()));
    }

    fn open(&mut self, call: &ToolCall) {
        let tool = self.campaign.tools.named(&call.tool);
        self.open.push(Opened {
            id: call.id.clone(),
            tool: tool.map(|tool| tool.name.clone()),
            kind: tool.map_or(ToolKind::Unknown, super::Tool::kind),
            began: Instant::now(),
        });
    }

    /// Refuses what the call's carrier cannot do, and what the caller has not agreed to.
    fn can<'u>(&self, wanted: Use<'u>) -> Result<Use<'u>, Refusal> {
        let is_transfer = matches!(wanted, Use::Transfer(_));
        if let (Use::SendDtmf(digits), Some(key)) = (&wanted, self.campaign.tools.directory.key)
            && digits.as_str().contains(key.as_char())
        {
            // The line's echo of it could pass for the caller's.
            let key = key.as_char();
            return Err(Refusal {
                outcome: ToolOutcome::Impossible,
                advice: format!("the key {key} is the caller's alone: it cannot be pressed by you"),
            });
        }
        match self.surroundings.call.carrier() {
            Carrier::Web if is_transfer => Err(Refusal {
                outcome: ToolOutcome::Impossible,
                advice:
                    "a call from a browser cannot be transferred: tell the caller so, and help \
                         as far as you can"
                        .to_owned(),
            }),
            Carrier::Twilio | Carrier::Acs if is_transfer => self.may_transfer().map(|()| wanted),
            Carrier::Web | Carrier::Twilio | Carrier::Acs => Ok(wanted),
        }
    }

    /// Refuses a transfer that the caller has not agreed to lately.
    fn may_transfer(&self) -> Result<(), Refusal> {
        let Some(key) = self.campaign.tools.directory.key else {
            return Ok(());
        };
        let agreed = self.consent.holds(Instant::now());
        agreed.then_some(()).ok_or_else(|| Refusal {
            outcome: ToolOutcome::Unconfirmed,
            advice: format!(
                "the caller has to press {} before: ask for it, and try again once it was pressed",
                key.as_char()
            ),
        })
    }

    /// Has the call end once the caller has heard what the agent is saying. The agent is not told:
    /// it would go on.
    fn leave(&mut self, id: &str, reason: EndReason) {
        self.close(id, ToolOutcome::Done);
        self.done.push_back(Input::Leave(reason));
    }

    fn press(&mut self, id: String, digits: Digits) {
        match &self.surroundings.keypad {
            Keypad::Sounding(encoding) => {
                let tones = tones::sound(&digits, *encoding);
                self.done.push_back(Input::ToneReady(tones));
                self.tell(id, Ok(json!({ "sent": true }).to_string()));
            }
            Keypad::Acs {
                client,
                connection,
                number,
            } => {
                let pressing = press_at_acs(client, connection.clone(), number.clone(), digits);
                let pressing = pressing.map(|told| Answered { id, told });
                self.asking.push(pressing.boxed_local());
            }
        }
    }

    fn tell(&mut self, id: String, told: Result<String, Refusal>) {
        let input = self.answered(Answered { id, told });
        self.done.push_back(input);
    }

    fn answered(&mut self, Answered { id, told }: Answered) -> Input {
        let (outcome, text) = match told {
            Ok(text) => (ToolOutcome::Done, text),
            Err(refusal) => (refusal.outcome, refusal.text()),
        };
        self.close(&id, outcome);
        Input::ToolAnswered(ToolResult { id, text })
    }

    /// Notes how a use has ended.
    fn close(&mut self, id: &str, outcome: ToolOutcome) {
        if let Some(place) = self.open.iter().position(|open| open.id == id) {
            let open = self.open.swap_remove(place);
            self.note(open, outcome);
        }
    }

    fn note(&self, open: Opened, outcome: ToolOutcome) {
        let lasted = open.began.elapsed();
        let Surroundings {
            call,
            timeline,
            metrics,
            ..
        } = self.surroundings;
        metrics.used(open.kind, outcome, lasted);
        let tool = open.tool;
        timeline.step(
            call,
            What::ToolUsed {
                tool,
                outcome,
                lasted,
            },
        );
    }
}

impl Consent {
    /// Takes in a key, which `agrees` by itself: not as a digit among others.
    fn pressed(&mut self, now: Instant, agrees: bool) {
        let alone = self.pressed.is_none_or(|at| now - at >= APART);
        self.agreed = (agrees && alone).then_some(now);
        self.pressed = Some(now);
    }

    fn holds(&self, now: Instant) -> bool {
        self.agreed.is_some_and(|at| now - at <= AGREED_FOR)
    }
}

impl Drop for Workbench<'_> {
    fn drop(&mut self) {
        for open in std::mem::take(&mut self.open) {
            self.note(open, ToolOutcome::Cancelled);
        }
    }
}

/// Has ACS press keys, in as many requests as it takes.
async fn press_at_acs(
    client: &CallAutomation,
    connection: CallConnectionId,
    number: PhoneNumber,
    digits: Digits,
) -> Result<String, Refusal> {
    for keys in digits.as_str().split_inclusive('w') {
        let (keys, pause) = match keys.strip_suffix('w') {
            Some(keys) => (keys, "w"),
            None => (keys, ""),
        };
        for some in keys.as_bytes().chunks(MOST_TONES) {
            let some = std::str::from_utf8(some).unwrap_or_default();
            let tones = SendTones {
                keys: some,
                to: &number,
                operation_context: "keys",
            };
            let deadline = Instant::now() + PRESS_WITHIN;
            if let Err(error) = client.send_tones(&connection, &tones, deadline).await {
                let reason = error.as_str();
                tracing::warn!(reason, "ACS did not press keys");
                return Err(Refusal {
                    outcome: ToolOutcome::Failed,
                    advice: "the keys could not be pressed".to_owned(),
                });
            }
            sleep(tones::duration(some)).await;
        }
        sleep(tones::duration(pause)).await;
    }
    Ok(json!({ "sent": true }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_agrees_by_the_key_alone_and_for_a_minute() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        // Each key by when it was pressed and whether it is the one, and when that holds.
        for (keys, holds, not) in [
            (&[(0, true)][..], &[0, 60][..], &[61][..]),
            (&[(0, false)], &[], &[0, 1]),
            (&[(0, false), (1, true)], &[], &[1, 30]),
            (&[(0, false), (2, true)], &[2, 62], &[63]),
            (&[(0, true), (1, false)], &[], &[1]),
            (&[(0, true), (1, true)], &[], &[1]),
            (&[(0, true), (30, true)], &[60, 90], &[91]),
        ] {
            let mut consent = Consent::default();
            for (pressed, agrees) in keys {
                consent.pressed(at(*pressed), *agrees);
            }
            assert!(holds.iter().all(|it| consent.holds(at(*it))), "{keys:?}");
            assert!(!not.iter().any(|it| consent.holds(at(*it))), "{keys:?}");
        }
    }
}
