//! Runs a call's session over its two sockets. Only waiting happens in the wait; all work is
//! done after it, where nothing can cancel it.

pub mod call;

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    agent::{AgentError, AgentSocket, Health},
    call::{CallerId, CarrierCallId, EndReason},
    campaign::Name,
    chunk::Chunk,
    connections::{ConnectionId, Orders, Pulse},
    media::MediaSocket,
    record::{Impairment, Timeline, What},
    session::{Input, Interrupted, Output, Session, Speaker},
    telemetry::{CallMetrics, Direction},
    tool::{Consent, Workbench},
    transcode::Transcoder,
};

/// Of how many messages of audio one is timed.
const TIMED_EACH: u32 = 50;

/// An agent that is being connected, perhaps on another worker.
pub type Arriving = oneshot::Receiver<Result<AgentSocket, AgentError>>;

/// One call between its two sockets.
pub struct Bridge<'a> {
    pub call: &'a CarrierCallId,
    pub connection: ConnectionId,
    pub caller: &'a CallerId,
    pub agent_name: &'static str,
    pub session: Session,
    pub carrier: &'a mut MediaSocket,
    pub agent: AgentSeat,
    pub orders: Orders,
    pub timeline: &'a Timeline,
    pub metrics: &'a CallMetrics,
    /// How the agent does.
    pub health: &'a Health,
    /// How the call does, for whoever watches.
    pub pulse: &'a Pulse,
    pub tools: Workbench<'a>,
    pub line: Line,
    /// How long the call had rung when the time of its session began.
    pub rang: Duration,
    pub delays: Delays,
    /// The silence that was put where the carrier sent nothing.
    pub filled: Duration,
    pub marks: Marks,
}

/// How many marks went to the carrier, and how many came back.
#[derive(Default)]
pub struct Marks {
    sent: u32,
    returned: u32,
}

/// Times one message of audio in [`TIMED_EACH`] from when it was read, or due, to when it was
/// written; the others cost an addition.
#[derive(Default)]
pub struct Delays {
    to_agent: Stopwatch,
    to_caller: Stopwatch,
}

#[derive(Default)]
struct Stopwatch {
    passed: u32,
    /// When the message was read that is timed now.
    since: Option<Duration>,
}

/// What turns one side's audio into the other's, where they encode it differently.
#[derive(Default)]
pub struct Line {
    to_agent: Option<Transcoder>,
    to_carrier: Option<Transcoder>,
}

/// The agent's side of a bridge.
pub enum AgentSeat {
    Awaited(Arriving),
    Taken(Box<AgentSocket>),
    Left,
}

impl Line {
    fn for_agent(&mut self, chunk: Chunk) -> Chunk {
        match &mut self.to_agent {
            Some(transcoder) => transcoder.convert(&chunk),
            None => chunk,
        }
    }

    /// Turns the audio that an agent sends into the carrier's.
    fn for_carrier(&mut self, input: Input) -> Input {
        match (input, &mut self.to_carrier) {
            (Input::AgentAudio { item, chunk }, Some(transcoder)) => Input::AgentAudio {
                item,
                chunk: transcoder.convert(&chunk),
            },
            (input, _) => input,
        }
    }
}

impl Stopwatch {
    fn pass(&mut self, at: Duration) {
        self.passed += 1;
        if self.passed == TIMED_EACH {
            self.passed = 0;
            self.since.get_or_insert(at);
        }
    }
}

/// Why a bridge has ended, and what is left of it.
pub struct Parted {
    pub reason: EndReason,
    /// Whether only its socket has: the session has not heard of it.
    pub may_go_on: bool,
    /// Whom the caller goes on talking with, if that is why.
    pub destination: Option<Name>,
    pub session: Session,
    pub agent: AgentSeat,
    pub orders: Orders,
    pub line: Line,
    pub consent: Consent,
}

impl Bridge<'_> {
    /// Bridges the call until one side ends it, or its socket is lost where there may be another.
    pub async fn run(mut self) -> Parted {
        let began = Instant::now() - self.carrier.now();
        let mut due = self.deadline();
        let mut timer = pin!(sleep_until(began + due));
        let (reason, may_go_on) = loop {
            let input = std::future::poll_fn(|cx| self.poll_input(cx, due, timer.as_mut())).await;
            if let Input::End(lost @ (EndReason::CarrierLost | EndReason::CarrierUnresponsive)) =
                input
                && self.carrier.may_be_replaced()
                && self.session.may_pause()
            {
                break (lost, true);
            }
            let at = self.carrier.now();
            if let Some(reason) = self.take(at, input) {
                break (reason, false);
            }
            let next = self.deadline();
            // Most inputs only move deadlines away: the timer then fires once for nothing, which
            // is cheaper than setting it at every frame.
            if next < due || due <= at {
                due = next;
                timer.as_mut().reset(began + due);
            }
        };
        self.metrics.frames_dropped(self.carrier.dropped());
        self.metrics.garbled_by_carrier(self.carrier.garbled());
        let impairment = Impairment {
            filled: self.filled,
            dropped: self.carrier.dropped(),
            garbled: self.carrier.garbled(),
        };
        if !impairment.is_none() {
            self.timeline.step(self.call, What::Impaired(impairment));
        }
        let Marks { sent, returned } = self.marks;
        if sent > 0 {
            self.timeline
                .step(self.call, What::Marked { sent, returned });
        }
        let (destination, consent) = (self.tools.destination(), self.tools.consent());
        Parted {
            reason,
            may_go_on,
            destination: destination.filter(|_| reason == EndReason::Transferred),
            session: self.session,
            agent: self.agent,
            orders: self.orders,
            line: self.line,
            consent,
        }
    }

    fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        due: Duration,
        timer: Pin<&mut Sleep>,
    ) -> Poll<Input> {
        let at = self.carrier.now();
        if let Poll::Ready(reason) = self.carrier.poll_outbox(cx, at) {
            return Poll::Ready(Input::End(reason));
        }
        if self.carrier.is_sent()
            && let Some(since) = self.delays.to_caller.since.take()
        {
            let delay = self.carrier.now().saturating_sub(since);
            self.metrics.delayed(Direction::ToCaller, delay);
        }
        if let Poll::Ready(order) = Pin::new(&mut self.orders).poll(cx) {
            return Poll::Ready(Input::End(order.unwrap_or(EndReason::Stopped)));
        }
        if due <= at {
            return Poll::Ready(Input::Tick); // A flood on either socket must not hold it up.
        }
        if let Poll::Ready(input) = self.tools.poll_next(cx) {
            return Poll::Ready(input);
        }
        if let Poll::Ready(input) = self.carrier.poll_next(cx, at) {
            return Poll::Ready(input);
        }
        if let Poll::Ready(input) = self.poll_agent(cx, at) {
            return Poll::Ready(input);
        }
        ready!(timer.poll(cx));
        Poll::Ready(Input::Tick)
    }

    fn poll_agent(&mut self, cx: &mut Context<'_>, at: Duration) -> Poll<Input> {
        match &mut self.agent {
            AgentSeat::Awaited(arriving) => {
                let arrived = ready!(Pin::new(arriving).poll(cx));
                Poll::Ready(self.seat(arrived.unwrap_or(Err(AgentError::Lost))))
            }
            AgentSeat::Taken(agent) => {
                if let Poll::Ready(reason) = agent.poll_outbox(cx, at) {
                    return Poll::Ready(Input::End(reason));
                }
                if agent.is_sent()
                    && let Some(since) = self.delays.to_agent.since.take()
                {
                    let delay = self.carrier.now().saturating_sub(since);
                    self.metrics.delayed(Direction::ToAgent, delay);
                }
                if self.session.wants_agent() {
                    agent.poll_next(cx)
                } else {
                    Poll::Pending
                }
            }
            AgentSeat::Left => Poll::Pending,
        }
    }

    /// Takes the agent that arrived to this worker, so that the call runs on one thread.
    fn seat(&mut self, arrived: Result<AgentSocket, AgentError>) -> Input {
        let seated = arrived.and_then(|mut agent| match agent.come_here() {
            Ok(moved) => {
                self.metrics.agent_seated(moved);
                Ok(agent)
            }
            Err(error) => Err(AgentError::Unreachable(error.into())),
        });
        match seated {
            Ok(agent) => {
                let (carrier, agents) = (self.carrier.encoding(), agent.encoding());
                self.line = Line {
                    to_agent: Transcoder::between(carrier, agents),
                    to_carrier: Transcoder::between(agents, carrier),
                };
                let connected_in = agent.connected_in();
                self.agent = AgentSeat::Taken(Box::new(agent));
                tracing::info!(
                    "[connection_id={}] Connected to {} for caller_id={}",
                    self.connection,
                    self.agent_name,
                    self.caller,
                );
                self.pulse.agent_is_there();
                self.timeline
                    .step(self.call, What::AgentReady { connected_in });
                Input::AgentReady
            }
            Err(error) => {
                self.agent = AgentSeat::Left;
                Input::End(error.end_reason())
            }
        }
    }

    fn deadline(&self) -> Duration {
        let agent = match &self.agent {
            AgentSeat::Taken(agent) => agent.deadline(),
            AgentSeat::Awaited(_) | AgentSeat::Left => Duration::MAX,
        };
        let due = self
            .session
            .deadline()
            .min(self.carrier.deadline())
            .min(agent);
        due.min(Duration::from_secs(86_400)) // Far enough, and an instant can be that far.
    }

    fn take(&mut self, at: Duration, input: Input) -> Option<EndReason> {
        let input = self.line.for_carrier(input);
        if matches!(input, Input::CallerHeard(_)) {
            self.marks.returned = self.marks.returned.saturating_add(1);
        }
        for output in self.session.handle(at, input) {
            let agent = match &mut self.agent {
                AgentSeat::Taken(agent) => Some(agent),
                AgentSeat::Awaited(_) | AgentSeat::Left => None,
            };
            match (output, agent) {
                (Output::SendToAgent(chunk), Some(agent)) => {
                    self.metrics.frame_to_agent();
                    self.delays.to_agent.pass(at);
                    self.pulse.hears(Speaker::Caller, &chunk);
                    agent.hear(&self.line.for_agent(chunk));
                }
                (Output::PlayToCaller(chunk), _) => {
                    self.metrics.frame_to_caller();
                    self.delays.to_caller.pass(at);
                    self.pulse.hears(Speaker::Agent, &chunk);
                    self.carrier.play(&chunk);
                }
                (Output::MarkPlayback(mark), _) => {
                    self.marks.sent = self.marks.sent.saturating_add(1);
                    self.carrier.mark(mark);
                }
                (Output::ClearPlayback, _) => {
                    self.metrics.interrupted();
                    self.carrier.clear();
                }
                (Output::Truncate(interrupted), Some(agent)) => {
                    agent.truncate(&interrupted);
                    let heard = match interrupted {
                        Interrupted::Heard { heard, .. } => heard,
                        Interrupted::Unheard { .. } => Duration::ZERO,
                    };
                    let heard_ms = u64::try_from(heard.as_millis()).unwrap_or(u64::MAX);
                    self.timeline
                        .step(self.call, What::Interrupted { heard_ms });
                }
                (Output::Greet, Some(agent)) => agent.greet(),
                (Output::Answer, Some(agent)) => agent.answer(),
                (Output::TellAgentPressed(key), Some(agent)) => {
                    self.tools.pressed(key);
                    agent.pressed(key);
                }
                (Output::UseTool(call), _) => self.tools.take_up(&call),
                (Output::RefuseTool(call), _) => self.tools.refuse(&call),
                (Output::TellAgentResult(result), Some(agent)) => agent.tell_result(&result),
                (Output::Said { who, text }, _) => {
                    self.carrier.said(who, &text);
                    if self.timeline.keeps_words() {
                        self.pulse.said(who, &text);
                    }
                    self.timeline.step(self.call, What::Said { who, text });
                }
                (Output::FirstWords, _) => {
                    self.metrics.first_words(at, self.rang);
                    self.health.spoke(at);
                    self.timeline.step(self.call, What::FirstWords);
                }
                (Output::Turn(turn), _) => self.timeline.step(self.call, What::Turn(turn)),
                (Output::Filled(hole), _) => {
                    self.metrics.filled(hole);
                    self.filled += hole;
                }
                (Output::End(reason), _) => return Some(reason),
                // The session speaks to its agent only once there is one.
                (
                    Output::SendToAgent(_)
                    | Output::Truncate(_)
                    | Output::Greet
                    | Output::Answer
                    | Output::TellAgentPressed(_)
                    | Output::TellAgentResult(_),
                    None,
                ) => {}
            }
        }
        None
    }
}
