//! One call by Twilio: rings, obeys the documents the gateway answers with, and tells it the end.

mod fields;

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::fields::absolute;
pub use self::fields::{any_number, ended, outbound as outbound_fields, sid};
use super::{
    carrier::{Carrier, Document, Fields, error::WebhookError},
    dialect::Dialect,
    message::Writer,
    outcome::{CallEvent, CallOutcome, CallResult, StreamEnd, Watch},
    plan::CallPlan,
    script::{Mouth, Script},
    stream::{StreamPlan, converse},
    twiml::{self, Rejection, Twiml, Verb},
};
use crate::{call, chunk::Encoding};

/// Documents a call goes through before it is taken for a loop.
const MOST_DOCUMENTS: u32 = 10;

/// How long a spoken sentence or a pause takes here.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// Makes one call and returns what became of it. A caller who is stopped hangs up politely.
pub async fn call(
    carrier: &Carrier,
    plan: CallPlan,
    watch: &mut Watch<'_>,
    stop: &CancellationToken,
) -> CallOutcome {
    let outcome = CallOutcome::new(call::Carrier::Twilio, sid("CA"), &plan);
    watch(CallEvent::Rings {
        carrier_call: outcome.carrier_call.clone(),
        from: plan.from.clone(),
    });
    let call = Call::new(carrier, plan, outcome, None, watch, stop);
    call.make().await
}

/// A call that the gateway has placed, as its callee picks it up.
pub struct Pickup {
    pub sid: String,
    /// Who says what happens next.
    pub answer_url: String,
    /// Who has picked up, if that was listened for.
    pub answered_by: Option<&'static str>,
}

/// Picks up a call that the gateway has placed, and returns what became of it. Who tells the
/// gateway of its end is another matter.
pub async fn pick_up(
    carrier: &Carrier,
    plan: CallPlan,
    pickup: Pickup,
    watch: &mut Watch<'_>,
    stop: &CancellationToken,
) -> CallOutcome {
    let outcome = CallOutcome::new(call::Carrier::Twilio, pickup.sid.clone(), &plan);
    let call = Call::new(carrier, plan, outcome, Some(pickup), watch, stop);
    call.make().await
}

/// A call while it lasts.
struct Call<'a> {
    carrier: &'a Carrier,
    plan: CallPlan,
    /// Who has placed it, if not the caller.
    pickup: Option<Pickup>,
    /// Taken when it is used: it is the last resort.
    fallback: Option<Arc<str>>,
    watch: &'a mut Watch<'a>,
    stop: &'a CancellationToken,
    rang: Instant,
    answered: Option<Instant>,
    offered_stream: bool,
    apologised: bool,
    rejection: Option<Rejection>,
    failure: Option<String>,
    documents: u32,
    outcome: CallOutcome,
}
/// How a call goes on after a document or a verb.
enum Then {
    Obey(Document),
    NextVerb,
    HangUp,
    /// The caller's connection is cut, and nothing follows.
    Vanish,
}

impl<'a> Call<'a> {
    fn new(
        carrier: &'a Carrier,
        plan: CallPlan,
        outcome: CallOutcome,
        pickup: Option<Pickup>,
        watch: &'a mut Watch<'_>,
        stop: &'a CancellationToken,
    ) -> Self {
        Self {
            carrier,
            fallback: plan.fallback.clone(),
            plan,
            pickup,
            watch,
            stop,
            rang: Instant::now(),
            answered: None,
            offered_stream: false,
            apologised: false,
            rejection: None,
            failure: None,
            documents: 0,
            outcome,
        }
    }

    async fn make(mut self) -> CallOutcome {
        let (url, status) = match &self.pickup {
            None => (self.carrier.webhook("/webhook/incoming_call"), "ringing"),
            Some(pickup) => (pickup.answer_url.clone(), "in-progress"),
        };
        let answered_by = self.pickup.as_ref().and_then(|it| it.answered_by);
        let mut fields = vec![("CallStatus", status)];
        fields.extend(answered_by.map(|who| ("AnsweredBy", who)));
        let fields = self.fields(&fields);
        let mut then = self.fetch(&url, false, &fields).await;
        loop {
            then = match then {
                Then::Obey(document) => self.obey(&document).await,
                Then::NextVerb | Then::HangUp => {
                    self.report_status().await;
                    break;
                }
                Then::Vanish => break,
            }
        }
        self.outcome.result = self.result();
        let result = self.outcome.result.clone();
        (self.watch)(CallEvent::Ended(result));
        self.outcome
    }

    /// Gets the next document from the gateway; where that fails, the fallback.
    async fn fetch(&mut self, url: &str, by_get: bool, fields: &Fields) -> Then {
        self.documents += 1;
        if self.documents > MOST_DOCUMENTS {
            return self.fail("the documents lead around in a circle".into(), url, 11_215);
        }
        let began = Instant::now();
        let fetched = if self.plan.script == Script::RepeatWebhook {
            let once = self.carrier.fetch(url, by_get, fields);
            let again = self.carrier.fetch(url, by_get, fields);
            let (once, again) = tokio::join!(once, again);
            self.compare(&once, &again);
            once
        } else {
            self.carrier.fetch(url, by_get, fields).await
        };
        match fetched {
            Ok(document) => {
                self.outcome.webhooks.push(began.elapsed());
                Then::Obey(document)
            }
            Err(error) => self.fail(error.to_string(), url, error.code()),
        }
    }

    /// Checks that a repeated webhook got the same answer.
    fn compare(
        &mut self,
        once: &Result<Document, WebhookError>,
        again: &Result<Document, WebhookError>,
    ) {
        let fault = match (once, again) {
            (Ok(once), Ok(again)) if once == again => return,
            (Ok(_), Ok(_)) => "a repeated webhook got another answer".to_owned(),
            (Ok(_), Err(error)) => format!("a repeated webhook failed: {error}"),
            (Err(_), _) => return, // Counted as a failed webhook.
        };
        self.outcome.faults.push(fault);
    }

    /// Goes on as Twilio does when the gateway failed: with the fallback, or not at all.
    fn fail(&mut self, why: String, url: &str, code: u32) -> Then {
        self.outcome.failed_webhooks += 1;
        (self.watch)(CallEvent::WebhookFailed(format!("{why} ({code})")));
        self.failure.get_or_insert(why);
        match self.fallback.take() {
            Some(fallback) => {
                self.outcome.fell_back = true;
                Then::Obey(Document {
                    url: url.to_owned(),
                    body: fallback.to_string(),
                })
            }
            None => Then::HangUp,
        }
    }

    async fn obey(&mut self, document: &Document) -> Then {
        let twiml = match Twiml::parse(&document.body) {
            Ok(twiml) => twiml,
            Err(error) => return self.fail(format!("{error:#}"), &document.url, 12_100),
        };
        self.outcome.faults.extend(twiml.faults);
        for verb in twiml.verbs {
            match self.follow(verb, &document.url).await {
                Then::NextVerb => {}
                then @ (Then::Obey(_) | Then::HangUp | Then::Vanish) => return then,
            }
            // Not before the first one: a caller who is stopped while it rings would count as one
            // whom the gateway has told nothing.
            if self.stop.is_cancelled() {
                return Then::HangUp;
            }
        }
        Then::HangUp
    }

    async fn follow(&mut self, verb: Verb, here: &str) -> Then {
        if !matches!(verb, Verb::Reject(_)) {
            self.answered.get_or_insert_with(Instant::now);
        }
        match verb {
            Verb::Connect { then, stream } => match self.connect(&stream).await {
                StreamEnd::CallerHungUp => Then::HangUp,
                StreamEnd::Cut => Then::Vanish,
                StreamEnd::GatewayHungUp | StreamEnd::GatewayClosed(_) | StreamEnd::Lost(_) => {
                    self.go_on(&then, here, &[]).await
                }
            },
            Verb::Say(said) => {
                self.apologised |= self.offered_stream;
                (self.watch)(CallEvent::Says(said.clone()));
                self.outcome.said.push(said);
                self.wait(SHORT_PAUSE).await
            }
            Verb::Play(_) => self.wait(SHORT_PAUSE).await,
            Verb::Pause(length) => self.wait(length.min(SHORT_PAUSE)).await,
            Verb::Record { then, done } => self.leave_a_message(then, done, here).await,
            Verb::Dial { to, then } => {
                (self.watch)(CallEvent::TransferredTo(to.clone()));
                self.outcome.transfers.push(to);
                let more = [("DialCallStatus", "completed"), ("DialCallDuration", "1")];
                self.go_on(&then, here, &more).await
            }
            Verb::Redirect(next) => self.go_on(&next, here, &[]).await,
            Verb::Hangup => Then::HangUp,
            Verb::Reject(rejection) => {
                (self.watch)(CallEvent::Rejected);
                self.rejection = Some(rejection);
                Then::HangUp
            }
        }
    }

    /// Asks the verb's own URL, if it has one, how the call goes on.
    async fn go_on(&mut self, next: &twiml::Next, here: &str, more: &[(&str, &str)]) -> Then {
        let Some(url) = &next.url else {
            return Then::NextVerb;
        };
        let url = match absolute(here, url) {
            Ok(url) => url,
            Err(why) => return self.fail(why, here, 11_100),
        };
        let fields = self.fields(&[&[("CallStatus", "in-progress")], more].concat());
        self.fetch(&url, next.by_get, &fields).await
    }

    async fn connect(&mut self, stream: &twiml::Stream) -> StreamEnd {
        self.offered_stream = true;
        let socket = match self.carrier.open(&stream.url, self.plan.script).await {
            Ok(socket) => socket,
            Err(error) => {
                self.outcome.faults.push(format!("{error} (31920)"));
                return StreamEnd::Lost(error.to_string());
            }
        };
        (self.watch)(CallEvent::Connected);
        let rng = StdRng::seed_from_u64(self.plan.seed);
        let voices = self.plan.voices.encoded(Encoding::Mulaw);
        let mouth = Mouth::new(self.plan.script, voices, rng);
        let call_sid = &self.outcome.carrier_call;
        let dialect = Dialect::Twilio {
            writer: Writer::new(&self.carrier.account_sid, call_sid, sid("MZ")),
            parameters: stream.parameters.clone(),
        };
        let plan = StreamPlan {
            script: self.plan.script,
            talk_for: self.plan.talk_for,
            echo: self.plan.echo,
            keys: &self.plan.keys,
            record: self.plan.record.as_deref(),
            rang: self.rang,
            hung_up: CancellationToken::new(),
            left: CancellationToken::new(),
        };
        let (outcome, faults) =
            converse(plan, mouth, socket, dialect, &mut *self.watch, self.stop).await;
        let ended = outcome.ended.clone();
        self.outcome.faults.extend(faults);
        self.outcome.streams.push(outcome);
        (self.watch)(CallEvent::StreamEnded(ended.clone()));
        ended
    }

    async fn leave_a_message(
        &mut self,
        next: twiml::Next,
        done: Option<String>,
        here: &str,
    ) -> Then {
        (self.watch)(CallEvent::LeavesAMessage);
        self.outcome.left_a_message = true;
        let recording = sid("RE");
        let url = format!(
            "https://api.twilio.com/2010-04-01/Accounts/{}/Recordings/{recording}",
            self.carrier.account_sid
        );
        let common = [
            ("RecordingSid", recording.as_str()),
            ("RecordingUrl", &url),
            ("RecordingDuration", "3"),
        ];
        if let Some(done) = done {
            let more = [
                ("RecordingStatus", "completed"),
                ("RecordingChannels", "1"),
                ("RecordingSource", "RecordVerb"),
            ];
            let fields = self.fields(&[&common[..], &more].concat());
            match absolute(here, &done) {
                Ok(done) => self.notify(&done, &fields).await,
                Err(why) => self.outcome.faults.push(why),
            }
        }
        // Without an action, Twilio asks for the same document again.
        let next = twiml::Next {
            url: next.url.or_else(|| Some(here.to_owned())),
            by_get: next.by_get,
        };
        let more = [&common[..], &[("Digits", "#")]].concat();
        self.go_on(&next, here, &more).await
    }

    async fn report_status(&mut self) {
        if self.pickup.is_some() {
            return;
        }
        let status = match (self.rejection, self.answered) {
            (Some(Rejection::Busy), _) => "busy",
            (Some(Rejection::Rejected), _) => "no-answer",
            (None, None) if self.failure.is_some() => "failed",
            (None, _) => "completed",
        };
        let lasted = self.answered.map(|answered| answered.elapsed());
        let mut fields = self.fields(&[]);
        fields.extend(fields::ended(status, lasted.unwrap_or_default()));
        let url = self.carrier.webhook("/webhook/call_status");
        self.notify(&url, &fields).await;
    }

    /// Sends a webhook that asks for nothing; twice, if the script says so.
    async fn notify(&mut self, url: &str, fields: &Fields) {
        let sent = if self.plan.script == Script::RepeatWebhook {
            let once = self.carrier.notify(url, fields);
            let again = self.carrier.notify(url, fields);
            let (once, again) = tokio::join!(once, again);
            once.and(again)
        } else {
            self.carrier.notify(url, fields).await
        };
        if let Err(error) = sent {
            self.outcome.failed_webhooks += 1;
            let why = format!("{error} ({})", error.code());
            (self.watch)(CallEvent::WebhookFailed(why.clone()));
            self.outcome.faults.push(why);
        }
    }

    async fn wait(&mut self, long: Duration) -> Then {
        tokio::select! {
            () = self.stop.cancelled() => Then::HangUp,
            () = sleep(long) => Then::NextVerb,
        }
    }

    /// Returns Twilio's standard fields and these.
    fn fields(&self, more: &[(&str, &str)]) -> Fields {
        let (account, call) = (&self.carrier.account_sid, &self.outcome.carrier_call);
        let (from, to) = (&self.plan.from, &self.plan.to);
        let mut fields = if self.pickup.is_some() {
            fields::outbound(account, call, from, to)
        } else {
            fields::standard(account, call, from, to)
        };
        fields.extend(fields::owned(more));
        fields
    }

    fn result(&self) -> CallResult {
        if let Some(why) = &self.failure {
            return CallResult::Failed(why.clone());
        }
        let said_something = !self.outcome.said.is_empty() || self.outcome.left_a_message;
        if self.apologised {
            CallResult::Apology
        } else if !self.outcome.streams.is_empty() {
            CallResult::Answered
        } else if self.offered_stream {
            CallResult::Failed("the media socket was refused".into())
        } else if said_something || self.rejection.is_some() {
            CallResult::Busy
        } else if !self.outcome.transfers.is_empty() {
            CallResult::Answered
        } else {
            CallResult::Failed("the caller was neither connected nor told anything".into())
        }
    }
}
