//! What carriers call us by.

use std::net::SocketAddr;

use actix_web::http::Uri;
use url::Url;

use crate::{answer::prompts::Prompt, call::CarrierCallId, language::Language};

/// What carriers call us by.
#[derive(Debug)]
pub struct PublicUrls {
    pub(super) base: Url,
    pub media: Url,
    pub stream_ended: Url,
    pub voicemail: Url,
    pub recording_status: Url,
    pub transfer_ended: Url,
}

impl PublicUrls {
    pub(super) fn new(base: Option<Url>, address: SocketAddr) -> Self {
        let own = || {
            format!("http://{address}")
                .parse()
                .expect("an address makes a URL")
        };
        let base: Url = base.unwrap_or_else(own);
        let under = |path: &str| {
            let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
            Url::parse(&url).expect("a base and a path make a URL")
        };
        let mut media = under("/twilio/media");
        let scheme = if base.scheme() == "https" {
            "wss"
        } else {
            "ws"
        };
        media
            .set_scheme(scheme)
            .expect("a web address can be a socket's");
        Self {
            media,
            stream_ended: under("/webhook/stream_ended"),
            voicemail: under("/webhook/voicemail"),
            recording_status: under("/webhook/recording_status"),
            transfer_ended: under("/webhook/transfer_ended"),
            base,
        }
    }

    /// Returns what pages of ours are called by as an origin.
    pub fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Returns where ACS brings the media of the call that `ticket` is for.
    pub fn acs_media(&self, ticket: &str) -> Url {
        let mut url = self.media.clone();
        url.set_path(&format!("{}/acs/ws/{ticket}", self.root()));
        url
    }

    /// Returns where ACS tells what becomes of a call.
    pub fn acs_callback(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/acs/callbacks/{path}", self.root()));
        url
    }

    /// Returns who says what happens to a call that somebody picks up.
    pub fn outbound_call(&self, marker: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/webhook/outbound_call/{marker}", self.root()));
        url
    }

    /// Returns who is told how a call that we have placed comes along.
    pub fn outbound_status(&self, marker: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/webhook/outbound_status/{marker}", self.root()));
        url
    }

    /// Returns who is told what became of the message that is sent for a call. Twilio signs the
    /// whole address, so nobody else can tell it of another call.
    pub fn message_status(&self, call: &CarrierCallId) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/webhook/message_status/{call}", self.root()));
        url
    }

    /// Returns where a sentence of ours can be fetched.
    pub fn prompt(&self, prompt: Prompt, language: &Language) -> Url {
        let mut url = self.base.clone();
        let (root, language, name) = (self.root(), language.as_str(), prompt.name());
        url.set_path(&format!("{root}/prompts/{language}/{name}.wav"));
        url
    }

    fn root(&self) -> &str {
        self.base.path().trim_end_matches('/')
    }

    /// Returns what the carrier called a request: never made from its headers.
    pub fn of(&self, uri: &Uri) -> Url {
        let called = uri.path_and_query().map_or("/", |called| called.as_str());
        let url = format!("{}{called}", self.base.as_str().trim_end_matches('/'));
        // A path that makes no URL cannot have been signed either.
        Url::parse(&url).unwrap_or_else(|_| self.base.clone())
    }
}
