//! Twilio's webhooks: a call rings, its status changes, its bridge has ended.

pub mod message;
pub mod outbound;
pub mod signature;
pub mod transfer;
pub mod voicemail;

use std::{future::Future, pin::Pin, sync::Arc};

use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, http::header, web};
use tokio::time::Instant;
use tracing::Instrument;
use url::{Url, form_urlencoded};

use crate::{
    admission::Decision,
    answer::{Answer, CallDetails},
    call::{CallerId, CarrierCallId, Farewell},
    campaign::Campaign,
    chunk::Encoding,
    config::TwilioSettings,
    gateway::Gateway,
    trace::Phase,
    webhook::{WebhookError, read_body, twilio::signature::Key},
};

/// The longest form that is read; Twilio's have one to three kilobytes.
pub const LONGEST_FORM: usize = 64 << 10;
pub const MOST_FIELDS: usize = 256;

/// A form whose signature has been checked; there is no other way to get one.
pub struct Signed<T>(T);

/// What every form of Twilio's can be read into.
pub trait FromForm: Sized {
    /// # Errors
    /// If a field that it needs is missing or malformed.
    fn from_form(form: &Form) -> Result<Self, WebhookError>;
}

/// The decoded fields of a form, in the order in which they came.
pub struct Form(Vec<(String, String)>);

/// `POST /webhook/incoming_call`.
pub struct RingingCall {
    pub id: CarrierCallId,
    pub from: CallerId,
    pub to: CallerId,
    caller: String,
    called: String,
    caller_name: Option<String>,
}

/// `POST /webhook/call_status`.
pub struct CallStatus {
    pub id: CarrierCallId,
    pub is_final: bool,
    /// Whether it is over without ever having been answered.
    pub unanswered: bool,
}

/// `POST /webhook/stream_ended`.
pub struct StreamEnded {
    pub id: CarrierCallId,
    /// Our number.
    pub to: CallerId,
    pub is_final: bool,
}

/// A call is ringing: answers with TwiML that connects or refuses it.
pub async fn ringing(
    Signed(call): Signed<RingingCall>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    let began = Instant::now();
    gateway.metrics.webhook("incoming_call");
    let campaigns = gateway.campaigns.current();
    let campaign = campaigns.answering(&call.to);
    let answer = match &campaign {
        None => Answer::NotInService, // Still 200: the caller hears a sentence.
        Some(campaign) => {
            let admitting = admit(&gateway, &call, campaign);
            admitting.instrument(gateway.span_of(&call.id)).await
        }
    };
    let details = call.details(campaign.as_ref().map(|campaign| campaign.id.as_str()));
    let response = twiml(&gateway, &answer, campaign.as_ref(), &details);
    gateway.metrics.answered_webhook(began.elapsed());
    if campaign.is_some() {
        let timeline = &gateway.timeline;
        timeline.took(&call.id, Phase::Webhook, began.elapsed());
    }
    response
}

async fn admit(gateway: &web::Data<Gateway>, call: &RingingCall, campaign: &Campaign) -> Answer {
    let (id, caller) = (&call.id, &call.from);
    let decision = gateway.admit(id, caller, &call.to, campaign, Encoding::Mulaw);
    match decision.await {
        Decision::Admit { ticket, .. } => Answer::Connect {
            stream_url: gateway.public.media.clone(),
            action_url: gateway.public.stream_ended.clone(),
            ticket,
        },
        Decision::Refuse { refusal, first } => {
            gateway.refuse(id, caller, campaign, refusal.reason, first)
        }
        Decision::Ended => Answer::HangUp,
    }
}

/// A call's status changed: a final one is the carrier's word that the call is over.
pub async fn status(Signed(call): Signed<CallStatus>, gateway: web::Data<Gateway>) -> HttpResponse {
    gateway.metrics.webhook("call_status");
    if call.is_final {
        let ending = gateway.carrier_ended(&call.id, call.unanswered);
        ending.instrument(gateway.span_of(&call.id)).await;
    }
    HttpResponse::NoContent().finish()
}

/// A call's bridge ended and the call did not: decides what the caller hears.
pub async fn stream_ended(
    Signed(call): Signed<StreamEnded>,
    gateway: web::Data<Gateway>,
) -> HttpResponse {
    gateway.metrics.webhook("stream_ended");
    let span = gateway.span_of(&call.id);
    let answering = bid_farewell(&gateway, &call).instrument(span);
    let (answer, campaign) = answering.await;
    twiml(
        &gateway,
        &answer,
        campaign.as_ref(),
        &CallDetails::default(),
    )
}

/// Returns what a caller hears whose stream is over, and whose words that is.
async fn bid_farewell(gateway: &Gateway, call: &StreamEnded) -> (Answer, Option<Arc<Campaign>>) {
    let farewell = if call.is_final {
        gateway.carrier_ended(&call.id, false).await;
        gateway.farewells.of(&call.id).unwrap_or(Farewell::HangUp)
    } else {
        gateway.stream_lost(&call.id).await
    };
    let campaign = gateway.campaigns.current().answering(&call.to);
    match farewell {
        Farewell::HangUp => (Answer::HangUp, campaign),
        Farewell::Goodbye => (Answer::Goodbye, campaign),
        Farewell::Apology => (Answer::Apology, campaign),
        Farewell::Transfer => match transfer(gateway, &call.id).await {
            Some((answer, campaign)) => (answer, Some(campaign)),
            None => (Answer::Apology, campaign),
        },
    }
}

/// Sends a call to where its agent has handed it over, for the campaign of that agent: the number
/// that rings may be another's by now.
async fn transfer(gateway: &Gateway, call: &CarrierCallId) -> Option<(Answer, Arc<Campaign>)> {
    let Some((campaign, number)) = gateway.transfer_of(call).await else {
        tracing::warn!("nobody knows where a call is to go on");
        return None;
    };
    let answer = Answer::Transfer {
        number,
        caller_id: campaign.tools.directory.caller_id.clone(),
        max_seconds: gateway.longest_call.as_secs(),
        action_url: gateway.public.transfer_ended.clone(),
    };
    Some((answer, campaign))
}

fn twiml(
    gateway: &Gateway,
    answer: &Answer,
    campaign: Option<&Arc<Campaign>>,
    details: &CallDetails<'_>,
) -> HttpResponse {
    let campaigns = gateway.campaigns.current();
    let campaign = campaign.unwrap_or_else(|| campaigns.default_campaign());
    let body = gateway
        .templates
        .render(answer, &campaign.language, details);
    HttpResponse::Ok()
        .content_type("text/xml; charset=utf-8")
        .body(body)
}

impl RingingCall {
    fn details<'a>(&'a self, campaign: Option<&'a str>) -> CallDetails<'a> {
        CallDetails {
            caller: (self.from != CallerId::Withheld).then_some(&self.caller),
            called: &self.called,
            caller_name: self.caller_name.as_deref(),
            campaign,
        }
    }
}

impl FromForm for RingingCall {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        let from = form.field("From").unwrap_or_default();
        let to = form.field("To").ok_or(WebhookError::BadField("To"))?;
        Ok(Self {
            id: form.call_id()?,
            from: CallerId::read(from),
            to: CallerId::read(to),
            caller: from.to_owned(),
            called: to.to_owned(),
            caller_name: form.field("CallerName").map(str::to_owned),
        })
    }
}

impl FromForm for CallStatus {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        let status = form
            .field("CallStatus")
            .ok_or(WebhookError::BadField("CallStatus"))?;
        Ok(Self {
            id: form.call_id()?,
            is_final: is_final(status),
            unanswered: is_final(status) && status != "completed",
        })
    }
}

impl FromForm for StreamEnded {
    fn from_form(form: &Form) -> Result<Self, WebhookError> {
        // Of a call that we have placed, our number is the one that calls.
        let is_placed = form.field("Direction") == Some("outbound-api");
        let ours = if is_placed { "From" } else { "To" };
        Ok(Self {
            id: form.call_id()?,
            to: CallerId::read(form.field(ours).unwrap_or_default()),
            is_final: form.field("CallStatus").is_some_and(is_final),
        })
    }
}

/// Tells whether a call with this status is over. Whatever else comes is on its way.
fn is_final(status: &str) -> bool {
    // twilio.com/docs/voice/twiml#callstatus-values.
    matches!(
        status,
        "completed" | "busy" | "failed" | "no-answer" | "canceled"
    )
}

impl Form {
    fn read(body: &[u8]) -> Result<Self, WebhookError> {
        let fields = form_urlencoded::parse(body).into_owned();
        let fields: Vec<_> = fields.take(MOST_FIELDS + 1).collect();
        if fields.len() > MOST_FIELDS {
            return Err(WebhookError::TooManyFields);
        }
        Ok(Self(fields))
    }

    fn field(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(found, _)| found == name);
        field.map(|(_, value)| value.as_str())
    }

    fn call_id(&self) -> Result<CarrierCallId, WebhookError> {
        let id = self.field("CallSid").unwrap_or_default().to_owned();
        CarrierCallId::try_from(id).map_err(|_| WebhookError::BadField("CallSid"))
    }
}

impl<T: FromForm + 'static> FromRequest for Signed<T> {
    type Error = WebhookError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, WebhookError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            let gateway = request.app_data::<web::Data<Gateway>>();
            let gateway = gateway.expect("every route is given the gateway");
            let read = read_signed(gateway, &request, payload).await;
            if let Err(error) = &read {
                if matches!(error, WebhookError::Unsigned | WebhookError::Closed) {
                    gateway.metrics.unsigned();
                }
                if gateway.may_warn() {
                    tracing::warn!(%error, route = request.match_pattern(), "refused a webhook");
                }
            }
            read.map(Self)
        })
    }
}

async fn read_signed<T: FromForm>(
    gateway: &Gateway,
    request: &HttpRequest,
    payload: Payload,
) -> Result<T, WebhookError> {
    let proof = Proof::of(request, &gateway.twilio)?; // Before any work on the body.
    let body = read_body(payload, LONGEST_FORM).await?;
    let url = gateway.public.of(request.uri());
    let form = Form::read(&body)?;
    if !(proof.holds(&url, &form.0) && signature::covers_body(&url, &body)) {
        return Err(WebhookError::Unsigned);
    }
    let account = &gateway.twilio.account;
    if account
        .as_deref()
        .is_some_and(|ours| form.field("AccountSid") != Some(ours))
    {
        return Err(WebhookError::OtherAccount);
    }
    T::from_form(&form)
}

/// The signature that came with a request, and the keys that may have made it.
pub struct Proof<'a> {
    signature: &'a str,
    keys: Vec<Key<'a>>,
}

impl<'a> Proof<'a> {
    /// # Errors
    /// If the carrier is closed, or the request carries nothing that could be checked.
    pub fn of(
        request: &'a HttpRequest,
        settings: &'a TwilioSettings,
    ) -> Result<Self, WebhookError> {
        if !settings.is_open() {
            return Err(WebhookError::Closed);
        }
        let header = |name| request.headers().get(name).map(header::HeaderValue::to_str);
        let Some(Ok(signature)) = header("x-twilio-signature") else {
            return Err(WebhookError::Unsigned);
        };
        let keys = match header("x-twilio-webhooks-signature-settings") {
            None => auth_tokens(settings),
            Some(Ok(shared)) => keys_of(shared, settings),
            Some(Err(_)) => Vec::new(),
        };
        Ok(Self { signature, keys })
    }

    /// Tells whether the signature is one of the carrier's for `url` and `fields`.
    pub fn holds(&self, url: &Url, fields: &[(String, String)]) -> bool {
        let mut keys = self.keys.iter();
        keys.any(|key| signature::is_valid(key, url, fields, self.signature))
    }
}

fn auth_tokens(settings: &TwilioSettings) -> Vec<Key<'_>> {
    settings.auth_tokens.iter().map(Key::AuthToken).collect()
}

/// Finds the key that `key=…,algorithm=HMAC_SHA256` names. Without an algorithm it is the auth
/// token's; any other algorithm is refused. twilio.com/docs/usage/webhooks/webhook-shared-keys.
fn keys_of<'a>(header: &str, settings: &'a TwilioSettings) -> Vec<Key<'a>> {
    let value = |wanted: &str| {
        let mut pairs = header
            .split(',')
            .filter_map(|pair| pair.trim().split_once('='));
        pairs
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    };
    match value("algorithm") {
        None => auth_tokens(settings),
        Some("HMAC_SHA256") => {
            let named = settings
                .shared_keys
                .iter()
                .filter(|(id, _)| Some(id.as_str()) == value("key"));
            named.map(|(_, secret)| Key::Shared(secret)).collect()
        }
        Some(_) => Vec::new(),
    }
}
