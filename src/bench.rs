//! What the micro-benchmarks measure: the steps that every frame and every webhook takes.

use actix_ws::Message;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use secrecy::SecretString;
use url::Url;

use crate::{
    admission::{Admission, Ended, Readiness, ToFree},
    agent,
    call::{CallerId, CarrierCallId, EndReason},
    campaign::Campaigns,
    chunk::Encoding,
    config::Config,
    language::Language,
    media::{
        acs,
        dialect::{Dialect, Event},
        twilio,
    },
    session::{Input, Output, Session, Terms},
    telemetry::CapacityMetrics,
    transcode::Transcoder,
    webhook::twilio::signature::{Key, is_valid},
};

pub use crate::{
    admission::bench::Slots,
    api::bench::{Calls, Question},
    resample::Resampler,
};

/// A call's codecs and session, as they stand in the middle of a conversation.
pub struct Call {
    dialect: Dialect,
    session: Session,
    to_agent: Option<Transcoder>,
    to_carrier: Option<Transcoder>,
    agents: Encoding,
    outgoing: BytesMut,
}

impl Default for Call {
    fn default() -> Self {
        const START: &[u8] = br#"{"event":"start","streamSid":"MZ1","start":{"accountSid":"AC1","callSid":"CA1","streamSid":"MZ1"}}"#;
        let dialect = Dialect::Twilio(twilio::MediaStream::default());
        Self::talking(dialect, START, Encoding::Mulaw)
    }
}

impl Call {
    /// A call over ACS at 16 kHz, or else 24, with an agent at 24: the former is resampled, both
    /// ways.
    pub fn over_acs(khz: usize) -> Self {
        let encoding = match khz {
            16 => Encoding::Pcm16k,
            _ => Encoding::Pcm24k,
        };
        let rate = encoding.rate();
        let metadata = format!(
            r#"{{"kind":"AudioMetadata","audioMetadata":{{"encoding":"PCM","sampleRate":{rate},"channels":1}}}}"#
        );
        let dialect = Dialect::Acs(acs::MediaStream::new(encoding));
        Self::talking(dialect, metadata.as_bytes(), Encoding::Pcm24k)
    }

    fn talking(mut dialect: Dialect, start: &[u8], agents: Encoding) -> Self {
        let start = dialect.read(&Bytes::copy_from_slice(start));
        start.expect("a stream starts so");
        let encoding = dialect.encoding();
        let mut session = Session::new(
            std::time::Duration::ZERO,
            Terms {
                encoding,
                follows: dialect.follows(),
                greets: false,
                longest_call: std::time::Duration::MAX,
            },
        );
        session.handle(std::time::Duration::ZERO, Input::AgentReady);
        Self {
            dialect,
            session,
            to_agent: Transcoder::between(encoding, agents),
            to_carrier: Transcoder::between(agents, encoding),
            agents,
            outgoing: BytesMut::new(),
        }
    }

    /// Takes a frame from the carrier's message to the agent's; returns that one's length.
    pub fn up(&mut self, message: &Bytes) -> usize {
        let Ok(Event::Input(input)) = self.dialect.read(message) else {
            return 0;
        };
        for output in self.session.handle(std::time::Duration::ZERO, input) {
            if let Output::SendToAgent(chunk) = output {
                match &mut self.to_agent {
                    Some(transcoder) => {
                        agent::append(&transcoder.convert(&chunk), &mut self.outgoing);
                    }
                    None => agent::append(&chunk, &mut self.outgoing),
                }
            }
        }
        self.outgoing.split().freeze().len()
    }

    /// Takes a frame from the agent's message to the carrier's; returns that one's length.
    pub fn down(&mut self, at: std::time::Duration, message: &Bytes) -> usize {
        let Some(mut input) = agent::decode_input(message, self.agents) else {
            return 0;
        };
        if let (Input::AgentAudio { chunk, .. }, Some(transcoder)) =
            (&mut input, &mut self.to_carrier)
        {
            *chunk = transcoder.convert(chunk);
        }
        let mut length = 0;
        for output in self.session.handle(at, input) {
            if let Output::PlayToCaller(chunk) = output
                && let Some(Message::Text(message)) = self.dialect.play(&chunk)
            {
                length += message.len();
            }
        }
        length
    }
}

/// Checks a webhook's signature.
pub struct Signatures {
    key: SecretString,
    url: Url,
    fields: Vec<(String, String)>,
}

impl Signatures {
    /// # Panics
    /// If `url` is none.
    pub fn new(key: &str, url: &str, fields: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            key: key.into(),
            url: url.parse().expect("a URL"),
            fields: fields.iter().map(owned).collect(),
        }
    }

    pub fn is_valid(&self, signature: &str) -> bool {
        is_valid(
            &Key::AuthToken(&self.key),
            &self.url,
            &self.fields,
            signature,
        )
    }
}

/// Admission with a number of live calls.
pub struct Door {
    admission: Admission,
    campaigns: Campaigns,
    ready: Readiness,
    next: u64,
    _freed: ToFree,
}

impl Door {
    /// # Panics
    /// If `live` is more than a million.
    pub fn new(live: u64, cap: u64) -> Self {
        let level = || Some("DEBUG".to_owned());
        let config = Config::load(|name| match name {
            "MAX_ACTIVE_CALLS" => Some(cap.to_string()),
            "CALLS_CAPACITY_LOG_LEVEL" => level(),
            _ => None,
        });
        let config = config.expect("a cap below a million");
        let metrics = CapacityMetrics::new();
        let made = Admission::new(config.caps, &config.store, None, metrics);
        let (admission, freed) = made.expect("memory is always there");
        let campaigns = Campaigns::only(Language::default(), None, Vec::new());
        let mut door = Self {
            admission,
            campaigns,
            ready: Readiness::default(),
            next: 0,
            _freed: freed,
        };
        for _ in 0..live {
            door.ring();
        }
        door
    }

    /// A new call rings; returns its id.
    pub fn ring(&mut self) -> u64 {
        self.next += 1;
        let call = id(self.next);
        let campaign = self.campaigns.default_campaign();
        let caller = &CallerId::Withheld;
        let admitted = self
            .admission
            .admit(&call, caller, campaign, &self.campaigns, &self.ready);
        at_once(admitted);
        self.next
    }

    pub fn end(&self, call: u64) {
        let ended = Ended {
            live: EndReason::CarrierEnded,
            waiting: EndReason::CarrierEnded,
            unanswered: false,
        };
        at_once(self.admission.end(&id(call), ended));
    }
}

/// Returns what needs no waiting.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("memory answers at once")
}

fn id(call: u64) -> CarrierCallId {
    CarrierCallId::try_from(format!("CA{call:032x}")).expect("letters and digits")
}
