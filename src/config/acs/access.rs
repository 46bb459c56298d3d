//! By what right ACS is used: an access key, or an application of Entra's.

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use url::Url;
use uuid::Uuid;

use super::{ACS_DOMAINS, SHORTEST_SECRET};
use crate::config::{
    is_free_of_secrets,
    reader::{Environment, Reader},
    vendor::is_within,
};

const CONNECTION_STRING: &str = "ACS_CONNECTION_STRING";
const ENDPOINT: &str = "ACS_ENDPOINT";
const TENANT: &str = "ACS_TENANT_ID";
const CLIENT: &str = "ACS_CLIENT_ID";
const SECRET: &str = "ACS_CLIENT_SECRET";
/// What any of it is set by.
pub const NAMES: &[&str] = &[
    CONNECTION_STRING,
    "ACS_CONNECTION_STRING_FILE",
    ENDPOINT,
    TENANT,
    CLIENT,
    SECRET,
    "ACS_CLIENT_SECRET_FILE",
];

/// A resource of ACS's, by its REST API.
#[derive(Debug, Clone)]
pub struct AcsApi {
    /// The scheme and the host, without anything after it.
    pub endpoint: Url,
    pub credentials: AcsCredentials,
}

/// By what right a resource is used.
#[derive(Debug, Clone)]
pub enum AcsCredentials {
    /// The decoded access key of `ACS_CONNECTION_STRING`, which signs every request.
    Key(SecretSlice<u8>),
    /// An application of Entra's, which gets tokens for a while.
    Entra {
        /// `ACS_TENANT_ID`.
        tenant: Uuid,
        /// `ACS_CLIENT_ID`.
        client: Uuid,
        /// `ACS_CLIENT_SECRET`.
        secret: SecretString,
    },
}

impl AcsApi {
    pub(super) fn load(read: &Reader<impl Environment>, production: bool) -> Option<Self> {
        let connection_string = read.secret(CONNECTION_STRING);
        let application = application(read, production);
        match (connection_string, application) {
            (None, Application::Unset) => None,
            (None, Application::Set(api)) => api,
            (Some(text), Application::Unset) => {
                match connection(text.expose_secret(), production) {
                    Ok(api) => Some(api),
                    Err(rule) => {
                        read.mistake(CONNECTION_STRING, None, rule);
                        None
                    }
                }
            }
            (Some(_), Application::Set(_)) => {
                let rule = "set beside the settings of an application: only one of them can count";
                read.mistake(CONNECTION_STRING, None, rule);
                None
            }
        }
    }
}

/// What the settings say of an application.
enum Application {
    Unset,
    /// `None` where they say something wrong.
    Set(Option<AcsApi>),
}

fn application(read: &Reader<impl Environment>, production: bool) -> Application {
    const GUID: &str = "a GUID, as Entra shows it";
    let address = read.text(ENDPOINT);
    let tenant: Option<Uuid> = read.parsed(TENANT, GUID);
    let client: Option<Uuid> = read.parsed(CLIENT, GUID);
    let secret = read.secret(SECRET);
    let missing = [
        (ENDPOINT, address.is_none()),
        (TENANT, read.text(TENANT).is_none()),
        (CLIENT, read.text(CLIENT).is_none()),
        (SECRET, secret.is_none()),
    ];
    if missing.iter().all(|(_, missing)| *missing) {
        return Application::Unset;
    }
    for (name, _) in missing.iter().filter(|(_, missing)| *missing) {
        let rule = format!("not set ({ENDPOINT}, {TENANT}, {CLIENT} and {SECRET} go together)");
        read.mistake(name, None, &rule);
    }
    let endpoint = address.and_then(|address| match endpoint(&address, production) {
        Ok(endpoint) => Some(endpoint),
        Err(rule) => {
            read.mistake(ENDPOINT, None, rule);
            None
        }
    });
    let whole = || {
        Some(AcsApi {
            endpoint: endpoint?,
            credentials: AcsCredentials::Entra {
                tenant: tenant?,
                client: client?,
                secret: secret?,
            },
        })
    };
    Application::Set(whole())
}

/// Reads `endpoint=https://…/;accesskey=…`, or says what is wrong with it without showing it.
fn connection(text: &str, production: bool) -> Result<AcsApi, &'static str> {
    let (mut address, mut key) = (None, None);
    for part in text.split(';').filter(|part| !part.trim().is_empty()) {
        // Keys end in equals signs themselves.
        let (name, value) = part
            .split_once('=')
            .ok_or("has a part that is not name=value")?;
        let place = match name.trim().to_ascii_lowercase().as_str() {
            "endpoint" => &mut address,
            "accesskey" => &mut key,
            _ => return Err("has a part other than endpoint= and accesskey="),
        };
        if place.replace(value.trim()).is_some() {
            return Err("has a part twice");
        }
    }
    let address = address.filter(|address| !address.is_empty());
    let address = address.ok_or("has no endpoint=")?;
    let key = key.filter(|key| !key.is_empty());
    let key = key.ok_or("has no accesskey=")?;
    let key = STANDARD
        .decode(key)
        .map_err(|_| "its accesskey= is not whole base64")?;
    if key.len() < SHORTEST_SECRET {
        return Err("its accesskey= is too short");
    }
    Ok(AcsApi {
        endpoint: endpoint(address, production)?,
        credentials: AcsCredentials::Key(SecretSlice::from(key)),
    })
}

fn endpoint(text: &str, production: bool) -> Result<Url, &'static str> {
    const RULE: &str = "its endpoint is no https address of nothing but a host";
    const VENDORS: &str = "its endpoint is no https address of communication.azure.com";
    let url = Url::parse(text.trim_end_matches('/')).map_err(|_| RULE)?;
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let scheme = url.scheme() == "https" || (!production && url.scheme() == "http");
    if !(plain && scheme && url.has_host() && is_free_of_secrets(&url)) {
        return Err(RULE);
    }
    if production && !is_within(&url, ACS_DOMAINS) {
        return Err(VENDORS);
    }
    Ok(url)
}
