//! Who is written to on WhatsApp for want of a free line, and the sending of it.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use url::Url;

use crate::{
    call::{CallerId, CarrierCallId, PhoneNumber},
    campaign::Campaign,
    carrier::{
        Delivery, MessageId,
        twilio::{Patience, SendError, TwilioApi, hint},
    },
    config::{Sender, WhatsappSettings},
    recent::{Millis, Recent},
    telemetry::OfferMetrics,
};

/// How many messages are being sent at once, and how many more may wait for their turn.
const MOST_AT_ONCE: usize = 16;
const MOST_WAITING: usize = 256;
/// How long a caller is not written to again.
const DAY: Millis = 24 * 3_600 * 1_000;
/// How long a call's own decision is remembered, for its repeated webhooks.
const CALL_KEPT: Millis = 3_600 * 1_000;

/// Decides who is written to, and sends the messages. Shared by all workers.
pub struct Invitations {
    api: TwilioApi,
    sender: (&'static str, String),
    template: String,
    variables: BTreeMap<String, String>,
    ledger: Mutex<Ledger>,
    room: Arc<Semaphore>,
    turns: Semaphore,
    metrics: OfferMetrics,
    started: Instant,
}

/// What a refused caller is to hear of a message.
#[derive(Debug)]
pub enum Offer {
    /// One follows, once this is sent.
    Send(Invitation),
    /// One follows: another webhook of the same call sends it.
    Promised,
    /// None follows.
    Nothing,
}

/// A message that is owed to a caller. It holds its place among those that wait.
pub struct Invitation {
    to: PhoneNumber,
    variables: String,
    _room: OwnedSemaphorePermit,
}

/// Who has been written to. The time is handed in.
#[derive(Default)]
struct Ledger {
    calls: Recent<CarrierCallId, Standing>,
    callers: Recent<PhoneNumber, ()>,
    /// The messages on which the last word has been said.
    settled: Recent<MessageId, ()>,
}

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Its caller is told of a message, which the webhook that was decided about is to send.
    Owed,
    /// The message is sent or waits for its turn.
    Taken,
    Without(Why),
}

/// Why a call gets no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Nobody can be written to: the caller's number is withheld, or is none.
    NoNumber,
    /// Its caller has been written to within a day.
    WrittenTo,
    /// Too many messages wait.
    Full,
}

impl Invitations {
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(settings: WhatsappSettings, metrics: OfferMetrics) -> Result<Self, reqwest::Error> {
        Ok(Self {
            api: TwilioApi::new(settings.api, Patience::default())?,
            sender: match settings.sender {
                Sender::Number(number) => ("From", address(&number)),
                Sender::Service(service) => ("MessagingServiceSid", service),
            },
            template: settings.template,
            variables: settings.variables,
            ledger: Mutex::default(),
            room: Arc::new(Semaphore::new(MOST_AT_ONCE + MOST_WAITING)),
            turns: Semaphore::new(MOST_AT_ONCE),
            metrics,
            started: Instant::now(),
        })
    }

    /// Decides whether a refused caller gets a message; the same for every webhook of a call, of
    /// which the `first` is the one that sends it.
    pub fn offer(
        &self,
        call: &CarrierCallId,
        caller: &CallerId,
        campaign: &Campaign,
        first: bool,
    ) -> Offer {
        let now = self.now();
        let mut ledger = self.lock();
        let standing = ledger.standing(now, call, caller);
        let (Standing::Owed, CallerId::Number(to), true) = (standing, caller, first) else {
            if let (Standing::Without(why), true) = (standing, first) {
                self.metrics.whatsapp(why.as_str());
            }
            return match standing {
                Standing::Owed | Standing::Taken => Offer::Promised,
                Standing::Without(_) => Offer::Nothing,
            };
        };
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            ledger.note(now, call, Standing::Without(Why::Full));
            drop(ledger);
            self.metrics.whatsapp(Why::Full.as_str());
            tracing::warn!(
                carrier_call.id = %call,
                "a WhatsApp message was dropped: too many wait to be sent"
            );
            return Offer::Nothing;
        };
        ledger.take(now, call, to);
        Offer::Send(Invitation {
            to: to.clone(),
            variables: self.variables(campaign),
            _room: room,
        })
    }

    /// Sends a message once it is its turn; `status_url` is where Twilio is to say what became of it
    /// later. Returns Twilio's name for it, if it has one, and what became of it until then, as
    /// metrics call that.
    pub async fn send(
        &self,
        invitation: Invitation,
        status_url: &Url,
    ) -> (Option<MessageId>, &'static str) {
        let turn = self.turns.acquire().await;
        let to = address(&invitation.to);
        let mut form = vec![
            ("To", to.as_str()),
            (self.sender.0, &self.sender.1),
            ("ContentSid", &self.template),
        ];
        if !self.variables.is_empty() {
            form.push(("ContentVariables", &invitation.variables));
        }
        // Twilio refuses a message whose status URL is nothing on the Internet.
        if status_url.scheme() == "https" {
            form.push(("StatusCallback", status_url.as_str()));
        }
        let sent = self.api.send_message(&form).await;
        drop(turn);
        match sent {
            Ok(id) => {
                self.metrics.whatsapp("sent");
                let shown = id.as_ref().map(tracing::field::display);
                tracing::info!(message.id = shown, "a WhatsApp message is on its way");
                (id, "sent")
            }
            Err(error) => {
                self.failed(&invitation, &error);
                (None, error.as_str())
            }
        }
    }

    /// Counts the last word on a message, however often Twilio says it here. Returns what became of
    /// it, the first time.
    pub fn settle(&self, message: &MessageId, delivery: Delivery) -> Option<&'static str> {
        if !self.lock().settle(self.now(), message) {
            return None;
        }
        let result = match delivery {
            Delivery::Delivered => "delivered",
            Delivery::Undelivered { code } => {
                tracing::warn!(
                    message.id = %message,
                    code,
                    hint = code.map(hint),
                    "a WhatsApp message was not delivered"
                );
                "undelivered"
            }
        };
        self.metrics.whatsapp(result);
        Some(result)
    }

    /// Returns how many messages wait or are being sent.
    pub fn unsent(&self) -> usize {
        MOST_AT_ONCE + MOST_WAITING - self.room.available_permits()
    }

    fn failed(&self, invitation: &Invitation, error: &SendError) {
        let result = error.as_str();
        self.metrics.whatsapp(result);
        let code = error.code();
        tracing::warn!(
            to = %invitation.to,
            result,
            code,
            hint = code.map(hint),
            error = error as &dyn std::error::Error,
            "a WhatsApp message was not sent"
        );
        if error.is_passing() {
            self.lock().forget(self.now(), &invitation.to);
        }
    }

    fn variables(&self, campaign: &Campaign) -> String {
        let filled: BTreeMap<&str, Cow<'_, str>> = self
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), filled(value, campaign)))
            .collect();
        serde_json::to_string(&filled).expect("texts make JSON")
    }

    fn now(&self) -> Millis {
        let elapsed: Duration = self.started.elapsed();
        Millis::try_from(elapsed.as_millis()).unwrap_or(Millis::MAX)
    }

    /// Each operation leaves the ledger whole, so a poisoned lock is taken as it is.
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// Returns where a call stands, which is decided when it is first asked for.
    fn standing(&mut self, now: Millis, call: &CarrierCallId, caller: &CallerId) -> Standing {
        let was_written_to =
            |number: &PhoneNumber, ledger: &Self| ledger.callers.get(now, number).is_some();
        let standing = match (self.calls.get(now, call), caller) {
            (Some(Standing::Owed) | None, CallerId::Number(number))
                if was_written_to(number, self) =>
            {
                Standing::Without(Why::WrittenTo)
            }
            (Some(known), _) => return *known,
            (None, CallerId::Number(_)) => Standing::Owed,
            (
                None,
                CallerId::Address(_)
                | CallerId::Withheld
                | CallerId::Masked(_)
                | CallerId::Other(_),
            ) => Standing::Without(Why::NoNumber),
        };
        self.note(now, call, standing);
        standing
    }

    /// Notes that a call's message is taken care of.
    fn take(&mut self, now: Millis, call: &CarrierCallId, to: &PhoneNumber) {
        self.note(now, call, Standing::Taken);
        self.callers.put(now, DAY, to.clone(), ());
    }

    /// Lets a caller be written to again, whom the last message has not reached.
    fn forget(&mut self, now: Millis, to: &PhoneNumber) {
        self.callers.put(now, 0, to.clone(), ());
    }

    /// Tells whether this is the first last word on a message.
    fn settle(&mut self, now: Millis, message: &MessageId) -> bool {
        let is_news = self.settled.get(now, message).is_none();
        if is_news {
            self.settled.put(now, DAY, message.clone(), ());
        }
        is_news
    }

    fn note(&mut self, now: Millis, call: &CarrierCallId, standing: Standing) {
        self.calls.put(now, CALL_KEPT, call.clone(), standing);
    }
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::NoNumber => "no_number",
            Self::WrittenTo => "written_to",
            Self::Full => "dropped",
        }
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invitation({})", self.to)
    }
}

fn address(number: &PhoneNumber) -> String {
    format!("whatsapp:{}", number.reveal())
}

/// Returns a variable's text for a call of `campaign`, whose names are short and plain.
fn filled<'a>(value: &'a str, campaign: &Campaign) -> Cow<'a, str> {
    if !value.contains('{') {
        return Cow::Borrowed(value);
    }
    let filled = value.replace("{campaign}", campaign.id.as_str());
    Cow::Owned(filled.replace("{tenant}", campaign.tenant.as_str()))
}

#[cfg(test)]
mod tests;
