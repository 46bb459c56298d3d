//! What carriers call us by.

use std::net::SocketAddr;

use actix_web::http::Uri;
use url::Url;

/// What carriers call us by.
#[derive(Debug)]
pub struct PublicUrls {
    pub(super) base: Url,
    pub media: Url,
    pub stream_ended: Url,
    pub voicemail: Url,
    pub recording_status: Url,
    pub message_status: Url,
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
            message_status: under("/webhook/message_status"),
            base,
        }
    }

    /// Returns what the carrier called a request: never made from its headers.
    pub fn of(&self, uri: &Uri) -> Url {
        let called = uri.path_and_query().map_or("/", |called| called.as_str());
        let url = format!("{}{called}", self.base.as_str().trim_end_matches('/'));
        // A path that makes no URL cannot have been signed either.
        Url::parse(&url).unwrap_or_else(|_| self.base.clone())
    }
}
