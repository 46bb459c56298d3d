//! One call by ACS: its event, its media, and its end.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use rand::{SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    FakeAcs, FakeCall,
    calls::{Answered, Ender, Habit, Manner, Media, Status, Turned},
    event::{EventError, Schema, unrelated},
    message::Writer,
    options::Fault,
};
use crate::{
    call::Carrier,
    simulate::{
        dialect::Dialect,
        outcome::{CallEvent, CallOutcome, CallResult, StreamEnd, Watch},
        plan::CallPlan,
        reach::Reach,
        script::{Mouth, Script},
        stream::{StreamPlan, converse},
        twiml::Said,
    },
};

/// How long a call rings: learn.microsoft.com/azure/communication-services/concepts/
/// call-automation/incoming-call-notification.
const RINGS_FOR: Duration = Duration::from_secs(30);

/// How long a caller listens to a line on which nothing is streamed.
const SILENCE_PATIENCE: Duration = Duration::from_secs(15);

/// How long the gateway may take to hear of the end.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// A fake ACS and the gateway that it brings calls to.
pub struct AcsCarrier {
    pub acs: FakeAcs,
    pub gateway: Arc<Reach>,
}

impl AcsCarrier {
    /// Makes one call and returns what became of it. A caller who is stopped hangs up politely.
    pub(in crate::simulate) async fn call(
        &self,
        plan: CallPlan,
        watch: &mut Watch<'_>,
        stop: &CancellationToken,
    ) -> CallOutcome {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let mut manner = Manner::any(&mut rng);
        if plan.script == Script::RepeatWebhook {
            manner = manner.with(Habit::Repeated);
        }
        let line = self.acs.ring(&self.gateway, &plan.from, &plan.to, manner);
        let outcome = CallOutcome::new(Carrier::Acs, line.correlation().to_owned(), &plan);
        watch(CallEvent::Rings {
            carrier_call: outcome.carrier_call.clone(),
            from: plan.from.clone(),
        });
        let call = Caller {
            line,
            plan,
            watch,
            stop,
            rang: Instant::now(),
            failure: None,
            outcome,
        };
        call.make().await
    }
}

/// Picks up a call that ACS places, and returns what became of it.
pub async fn pick_up(
    line: FakeCall,
    plan: CallPlan,
    watch: &mut Watch<'_>,
    stop: &CancellationToken,
) -> CallOutcome {
    let outcome = CallOutcome::new(Carrier::Acs, line.correlation().to_owned(), &plan);
    let answered = line.status().borrow().answered.clone();
    let mut call = Caller {
        line,
        plan,
        watch,
        stop,
        rang: Instant::now(),
        failure: None,
        outcome,
    };
    match answered.and_then(|answered| answered.media) {
        Some(media) => call.connect(&media).await,
        None => call.listen().await,
    }
    call.end().await
}

/// A call while it lasts, from the caller's side.
struct Caller<'a> {
    line: FakeCall,
    plan: CallPlan,
    watch: &'a mut Watch<'a>,
    stop: &'a CancellationToken,
    rang: Instant,
    failure: Option<String>,
    outcome: CallOutcome,
}

impl Caller<'_> {
    async fn make(mut self) -> CallOutcome {
        if let Err(error) = self.ring().await {
            self.fail(error.to_string());
        } else if let Some(status) = self.answer().await {
            match (status.answered, status.turned) {
                (
                    Some(Answered {
                        media: Some(media), ..
                    }),
                    _,
                ) => self.connect(&media).await,
                (Some(_), _) => self.listen().await,
                (None, Some(turned)) => self.turned(turned),
                (None, None) => {} // The caller was stopped.
            }
        }
        self.end().await
    }

    /// Has Event Grid deliver the call's event.
    async fn ring(&mut self) -> Result<(), EventError> {
        let manner = &self.line.call.manner;
        let schema = if manner.has(Habit::CloudEvents) {
            Schema::CloudEvents
        } else {
            Schema::EventGrid
        };
        let event = self.line.event(schema, Duration::ZERO);
        let events: &[Value] = if manner.has(Habit::Batched) && schema == Schema::EventGrid {
            &[unrelated(), event.clone(), event]
        } else {
            &[event]
        };
        let (event_grid, gateway) = (&self.line.service.event_grid, &self.line.call.gateway);
        let deliver = || event_grid.deliver(gateway, schema, events);
        let delivered = if manner.has(Habit::Repeated) {
            let (once, again) = tokio::join!(deliver(), deliver());
            again.and(once)
        } else {
            deliver().await
        }?;
        self.outcome.webhooks.push(delivered.took);
        self.outcome.failed_webhooks += delivered.failed;
        Ok(())
    }

    /// Waits until the call is answered or turned away.
    async fn answer(&mut self) -> Option<Status> {
        let answered = self.line.until(|status| {
            let decided = status.answered.is_some() || status.turned.is_some();
            decided.then(|| status.clone())
        });
        tokio::select! {
            () = self.stop.cancelled() => None,
            status = timeout(RINGS_FOR, answered) => {
                if status.is_err() {
                    self.fail(format!("nobody answered the call within {RINGS_FOR:?}"));
                }
                status.ok()
            }
        }
    }

    fn turned(&mut self, turned: Turned) {
        match turned {
            Turned::Rejected(_) => (self.watch)(CallEvent::Rejected),
            Turned::Redirected(number) => {
                (self.watch)(CallEvent::TransferredTo(number.clone()));
                self.outcome.transfers.push(number);
            }
        }
    }

    async fn connect(&mut self, media: &Media) {
        if self.line.service.fails(Fault::AnswerFailed) {
            // No media comes, and the gateway is told why.
            self.failure = Some("ACS could not answer the call, as it was to".into());
            return;
        }
        if self.line.service.fails(Fault::MediaFailed) {
            self.line.does_not_stream();
            return self.listen().await;
        }
        let headers = self.line.media_headers();
        let opening = self
            .line
            .call
            .gateway
            .open(&media.url, &headers, self.plan.script);
        let socket = match opening.await {
            Ok(socket) => socket,
            Err(error) => {
                self.line.does_not_stream();
                self.outcome.faults.push(error.to_string());
                self.failure
                    .get_or_insert_with(|| "the media socket was refused".into());
                return self.listen().await;
            }
        };
        self.line.streams();
        (self.watch)(CallEvent::Connected);
        let (hung_up, left) = (CancellationToken::new(), CancellationToken::new());
        let encoding = media.encoding();
        let hushed = self.line.call.manner.has(Habit::Hushed);
        let writer = Writer::new(encoding, media.bidirectional, hushed, Timestamp::now());
        let voices = self.plan.voices.encoded(encoding);
        let mouth = Mouth::new(
            self.plan.script,
            voices,
            StdRng::seed_from_u64(self.plan.seed),
        );
        let plan = StreamPlan {
            script: self.plan.script,
            talk_for: self.plan.talk_for,
            echo: self.plan.echo,
            keys: &self.plan.keys,
            record: self.plan.record.as_deref(),
            rang: self.rang,
            hung_up: hung_up.clone(),
            left: left.clone(),
        };
        let conversing = converse(
            plan,
            mouth,
            socket,
            Dialect::Acs(writer),
            &mut *self.watch,
            self.stop,
        );
        let by_gateway = |status: &Status| (status.ended_by == Some(Ender::Gateway)).then_some(());
        let watching = async {
            tokio::select! {
                () = self.line.until(by_gateway) => hung_up.cancel(),
                () = left.cancelled() => self.line.leave(),
            }
            std::future::pending().await
        };
        let (outcome, faults) = tokio::select! {
            conversed = conversing => conversed,
            never = watching => never,
        };
        let ended = outcome.ended.clone();
        self.outcome.faults.extend(faults);
        self.outcome.streams.push(outcome);
        (self.watch)(CallEvent::StreamEnded(ended.clone()));
        match ended {
            StreamEnd::CallerHungUp | StreamEnd::GatewayHungUp => {}
            StreamEnd::Cut | StreamEnd::GatewayClosed(_) | StreamEnd::Lost(_) => {
                self.listen().await;
            }
        }
    }

    /// Listens to a line without media: what is played, until the gateway hangs up.
    async fn listen(&mut self) {
        let over = self.line.until(|status| status.is_over().then_some(()));
        let listening = timeout(SILENCE_PATIENCE, over);
        tokio::select! {
            () = self.stop.cancelled() => {}
            over = listening => if over.is_err() {
                let fault = "the gateway left the call on a silent line";
                self.outcome.faults.push(fault.to_owned());
            }
        }
    }

    async fn end(mut self) -> CallOutcome {
        let was_hung_up = self.line.status().borrow().ended_by == Some(Ender::Gateway);
        self.line.leave();
        let is_told = self.line.until(|status| status.is_told.then_some(()));
        let answered = self.line.status().borrow().answered.is_some();
        if answered && timeout(TOLD_WITHIN, is_told).await.is_err() {
            let fault = "the gateway took too long to hear of the call's end";
            self.outcome.faults.push(fault.to_owned());
        }
        let status = self.line.status().borrow().clone();
        let failed = u32::try_from(status.faults.len()).unwrap_or(u32::MAX);
        self.outcome.failed_webhooks += failed;
        self.outcome.faults.extend(status.faults);
        self.outcome.transfers.extend(status.transferred.clone());
        for file in status.played {
            let said = Said {
                text: file,
                language: None,
                voice: None,
            };
            (self.watch)(CallEvent::Says(said.clone()));
            self.outcome.said.push(said);
        }
        self.outcome.result = self.result(was_hung_up && status.transferred.is_none());
        let result = self.outcome.result.clone();
        (self.watch)(CallEvent::Ended(result));
        self.outcome
    }

    fn fail(&mut self, why: String) {
        self.outcome.failed_webhooks += 1;
        (self.watch)(CallEvent::WebhookFailed(why.clone()));
        self.failure.get_or_insert(why);
    }

    fn result(&self, was_hung_up: bool) -> CallResult {
        let status = self.line.status().borrow().clone();
        let turned = status.turned.is_some();
        let offered_media = status
            .answered
            .is_some_and(|answered| answered.media.is_some());
        let said_something = !self.outcome.said.is_empty();
        let wanted_it = self.plan.script == Script::Drop;
        if let Some(why) = &self.failure {
            CallResult::Failed(why.clone())
        } else if !self.outcome.streams.is_empty() {
            // Who was talking and did not hang up was told why.
            if was_hung_up && !wanted_it {
                CallResult::Apology
            } else {
                CallResult::Answered
            }
        } else if offered_media && said_something {
            CallResult::Apology
        } else if turned || said_something || self.stop.is_cancelled() {
            CallResult::Busy // Who gives up while it rings has not been failed.
        } else {
            CallResult::Failed("the caller was neither connected nor told anything".into())
        }
    }
}
