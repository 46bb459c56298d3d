//! How a fake ACS is started, and what goes wrong there.

use std::{net::SocketAddr, num::ParseIntError, time::Duration};

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// What the fake is started with where nothing else is said. The key protects nothing: it is
/// printed here, in `docs/simulator.md` and on the terminal.
const CONNECTION_STRING: &str = "endpoint=http://127.0.0.1:5060/;accesskey=\
                                 bm8gc2VjcmV0OiBjYWxsZ2F0ZSdzIG93biBrZXkgZm9yIGRldmVsb3BtZW50";
const RESOURCE_ID: &str = "00000000-0000-4000-8000-00000000ca11";
const EVENTGRID_SECRET: &str = "callgate-development";

/// How a fake ACS is started. A gateway needs the same.
#[derive(Debug, Clone, clap::Args)]
pub struct FakeAcsOptions {
    /// The fake ACS: where on this machine it listens, and the key that the gateway signs with
    #[arg(
        long = "acs-connection-string",
        env = "ACS_CONNECTION_STRING",
        hide_env_values = true,
        default_value = CONNECTION_STRING
    )]
    pub connection_string: SecretString,

    /// The immutable id of the fake ACS's resource, for which its tokens are made
    #[arg(long = "acs-resource-id", env = "ACS_RESOURCE_ID", default_value = RESOURCE_ID)]
    pub resource_id: String,

    /// What Event Grid's addresses carry; the first one, if several are given
    #[arg(
        long,
        env = "EVENTGRID_SECRET",
        hide_env_values = true,
        default_value = EVENTGRID_SECRET
    )]
    pub eventgrid_secret: SecretString,

    /// What goes wrong in the fake ACS; several may be given
    #[arg(long = "acs-fault", value_enum)]
    pub faults: Vec<Fault>,

    /// How long the fake ACS takes to answer, in milliseconds
    #[arg(long = "acs-slow-ms", value_name = "MS", default_value = "0", value_parser = millis)]
    pub slow: Duration,

    /// Where it listens instead of where the connection string says.
    #[arg(skip)]
    pub listen: Option<SocketAddr>,
}

/// What goes wrong in a fake ACS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Fault {
    /// The first request of each call is answered 429, with a second to wait.
    Throttle,
    /// The first request of each call is answered 503.
    Unavailable,
    /// The first request of each call is done, and its answer is lost.
    LostAnswer,
    /// Answers are refused: 403.
    RefuseAnswers,
    /// Answers are taken, and fail later: `AnswerFailed`.
    AnswerFailed,
    /// Media sockets are not opened: `MediaStreamingFailed`.
    MediaFailed,
    /// Nothing is played: `PlayFailed`.
    PlayFailed,
    /// Nobody takes a call that is handed over: `CallTransferFailed`.
    TransferFailed,
}

/// A fake resource: where it is, and the key that requests to it are signed with.
pub struct Resource {
    pub listen: SocketAddr,
    pub key: Vec<u8>,
}

impl Default for FakeAcsOptions {
    fn default() -> Self {
        Self {
            connection_string: CONNECTION_STRING.into(),
            resource_id: RESOURCE_ID.into(),
            eventgrid_secret: EVENTGRID_SECRET.into(),
            faults: Vec::new(),
            slow: Duration::ZERO,
            listen: None,
        }
    }
}

impl FakeAcsOptions {
    /// The defaults, on any free port.
    pub fn on_a_free_port() -> Self {
        Self {
            connection_string: CONNECTION_STRING.replace(":5060", ":0").into(),
            ..Self::default()
        }
    }

    /// Returns what the connection string says.
    ///
    /// # Errors
    /// If it names no fake: one can only listen on this machine.
    pub(super) fn resource(&self) -> anyhow::Result<Resource> {
        let (mut endpoint, mut key) = (None, None);
        for part in self.connection_string.expose_secret().split(';') {
            match part.split_once('=') {
                Some((name, value)) if name.eq_ignore_ascii_case("endpoint") => {
                    endpoint = Url::parse(value).ok();
                }
                Some((name, value)) if name.eq_ignore_ascii_case("accesskey") => {
                    key = STANDARD.decode(value).ok();
                }
                Some(_) | None => {}
            }
        }
        let (Some(endpoint), Some(key)) = (endpoint, key) else {
            bail!("ACS_CONNECTION_STRING is not endpoint=http://127.0.0.1:PORT/;accesskey=BASE64");
        };
        if let Some(listen) = self.listen {
            return Ok(Resource { listen, key });
        }
        let addresses = endpoint.socket_addrs(|| None).unwrap_or_default();
        let listen = addresses.into_iter().find(|it| it.ip().is_loopback());
        let listen = listen
            .filter(|_| endpoint.scheme() == "http")
            .with_context(|| {
                format!(
                    "the fake ACS cannot be at {endpoint}, which ACS_CONNECTION_STRING names: it \
                 needs an address such as http://127.0.0.1:5060/"
                )
            })?;
        Ok(Resource { listen, key })
    }

    /// Returns the secret of Event Grid's addresses.
    pub(super) fn secret(&self) -> &str {
        let secrets = self.eventgrid_secret.expose_secret();
        secrets.split(',').next().unwrap_or_default().trim()
    }

    /// Tells whether the key is the one that everybody knows.
    pub(super) fn has_public_key(&self) -> bool {
        let key = |text: &str| {
            text.rsplit_once("accesskey=")
                .map(|(_, key)| key.to_owned())
        };
        key(self.connection_string.expose_secret()) == key(CONNECTION_STRING)
    }
}

fn millis(text: &str) -> Result<Duration, ParseIntError> {
    text.parse().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(connection_string: &str) -> anyhow::Result<Resource> {
        let options = FakeAcsOptions {
            connection_string: connection_string.into(),
            ..FakeAcsOptions::default()
        };
        options.resource()
    }

    #[test]
    fn a_fake_is_on_this_machine_only() {
        let fake = resource(CONNECTION_STRING).unwrap();
        assert_eq!(fake.listen.port(), 5060);
        assert_eq!(fake.key.len(), 45);
        for elsewhere in [
            "endpoint=https://a.communication.azure.com/;accesskey=AAAA",
            "endpoint=http://192.0.2.1:5060/;accesskey=AAAA",
            "endpoint=http://127.0.0.1:5060/",
            "",
        ] {
            assert!(resource(elsewhere).is_err(), "{elsewhere}");
        }
    }
}
