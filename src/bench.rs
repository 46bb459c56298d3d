//! What the micro-benchmarks measure: the steps that every frame and every webhook takes.

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
    media::{dialect::Event, twilio::MediaStream},
    session::{Follows, Input, Output, Session, Terms},
    telemetry::CapacityMetrics,
    webhook::twilio::signature::{Key, is_valid},
};

pub use crate::{admission::bench::Slots, resample::Resampler};

/// A call's codecs and session, as they stand in the middle of a conversation.
pub struct Call {
    stream: MediaStream,
    session: Session,
    outgoing: BytesMut,
}

impl Default for Call {
    fn default() -> Self {
        const START: &[u8] = br#"{"event":"start","streamSid":"MZ1","start":{"accountSid":"AC1","callSid":"CA1","streamSid":"MZ1"}}"#;
        let mut stream = MediaStream::default();
        stream.read(&Bytes::from_static(START)).expect("a start");
        let mut session = Session::new(
            std::time::Duration::ZERO,
            Terms {
                encoding: Encoding::Mulaw,
                follows: Follows::Marks,
                greets: false,
                longest_call: std::time::Duration::MAX,
            },
        );
        session.handle(std::time::Duration::ZERO, Input::AgentReady);
        Self {
            stream,
            session,
            outgoing: BytesMut::new(),
        }
    }
}

impl Call {
    /// Takes a frame from Twilio's message to the agent's; returns that one's length.
    pub fn up(&mut self, message: &Bytes) -> usize {
        let Ok(Event::Input(input)) = self.stream.read(message) else {
            return 0;
        };
        for output in self.session.handle(std::time::Duration::ZERO, input) {
            if let Output::SendToAgent(chunk) = output {
                agent::append(&chunk, &mut self.outgoing);
            }
        }
        self.outgoing.split().freeze().len()
    }

    /// Takes a frame from the agent's message to Twilio's; returns that one's length.
    pub fn down(&mut self, at: std::time::Duration, message: &Bytes) -> usize {
        let Some(input) = agent::decode_input(message) else {
            return 0;
        };
        let mut length = 0;
        for output in self.session.handle(at, input) {
            if let Output::PlayToCaller(chunk) = output {
                length += self.stream.play(&chunk).map_or(0, |message| message.len());
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
